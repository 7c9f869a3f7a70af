"""The facts that readers find: what one process may open, and how many processes there are.

A figure that the files do not tell is a `Fact` without a value that says why; it is never taken for a small one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: a file, and a line from 1; 0 for the file or directory as a whole."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Fact:
    """One figure, and where it comes from.

    :ivar value: None when the files do not tell.
    :ivar said: what stands there, such as ``replicas: 12``; without a value, why it is not known.
    :ivar endless: it is known, and there is no limit.
    :ivar percentage: what *value* comes from when it is one, such as ``25%`` of the replicas.
    """

    value: int | None
    place: Place
    said: str
    endless: bool = False
    percentage: str | None = None


class Bound(Enum):
    """What keeps the connections of one process from growing."""

    POOL = "pool"  # the pool's own size
    THREADS = "threads"  # each thread has one; the program's threads bound it
    NONE = "nothing"  # nothing does
    BUDGET = "budget"  # the size is read from penstock.toml at run time
    UNKNOWN = "unknown"  # the size is no literal


@dataclass(frozen=True, slots=True)
class Opens:
    """Something in the code that opens connections, in each process that runs it.

    :ivar kind: what it is: ``create_engine``, ``DATABASES['default']``.
    :ivar sets: what it sets, as it would be written: ``pool_size=20, max_overflow=10``.
    :ivar most: connections that one process may open, when a pool bounds it.
    :ivar why: what it means or why the size is not known, for people.
    :ivar instead: what to write to hold ``{n}`` connections at most; ``{min}`` is the smaller of 4 and that.
    :ivar url: the environment variable that has the database's URL, when the code says so.
    :ivar service: the service of the budget that it names.
    """

    place: Place
    kind: str
    sets: str
    bound: Bound
    most: int | None = None
    why: str = ""
    instead: str = ""
    url: str | None = None
    service: str | None = None

    def written_for(self, connections: int) -> str:
        """What to write instead, so that no process opens more than *connections*."""
        return self.instead.replace("{n}", str(connections)).replace("{min}", str(min(4, connections)))


@dataclass(frozen=True, slots=True)
class Environment:
    """The variables that a program is started with, as far as the files tell.

    :ivar values: by name; None for one that comes from where we cannot look (a secret, the machine).
    :ivar complete: False when more variables come from somewhere that was not read.
    """

    values: Mapping[str, str | None] = field(default_factory=dict, repr=False)  # there may be passwords among them
    complete: bool = True

    def knows(self, name: str) -> bool:
        """Whether it is certain what *name* is, be it unset."""
        return self.values[name] is not None if name in self.values else self.complete

    def get(self, name: str) -> str | None:
        """Its value; None when it is unset, or not known."""
        return self.values.get(name)


@dataclass(frozen=True, slots=True)
class Command:
    """What a command line starts.

    :ivar runner: ``gunicorn``, ``uvicorn``, ``celery`` ...; the command's own name when it is none we know.
    :ivar processes: worker processes; None when the command does not set them.
    :ivar threads: in each process, those that may hold a connection each.
    :ivar config: the gunicorn configuration file that it names.
    :ivar worker: gunicorn's worker class; it decides what `threads` and `connections` mean.
    :ivar connections: gunicorn's worker_connections.
    """

    runner: str
    processes: Fact | None = None
    threads: Fact | None = None
    config: str | None = None
    worker: str | None = None
    connections: Fact | None = None

    @property
    def known(self) -> bool:
        """Whether it is a server or a worker that penstock can read the options of."""
        return self.runner == "gunicorn" or self.processes is not None or self.threads is not None


@dataclass(frozen=True, slots=True)
class Runs:
    """A program as it is deployed.

    :ivar names: what it goes by, the most telling first: the deployment's name, its ``app`` label.
    :ivar kind: ``Deployment``, ``compose service`` ...
    :ivar replicas: at most; None when the file says nothing of it.
    :ivar surge: more of them while a deploy rolls; None when the file says nothing of it.
    :ivar directory: where its code is, relative to the directory that was read, when the file says so.
    :ivar dockerfile: that file in it.
    :ivar ours: whether it is certain to be a program of this application, not somebody's image.
    :ivar doubts: what could make it more than this, for people.
    """

    names: tuple[str, ...]
    kind: str
    place: Place
    replicas: Fact | None = None
    surge: Fact | None = None
    command: Command | None = None
    environment: Environment = field(default_factory=Environment)
    directory: str | None = None
    dockerfile: str = "Dockerfile"
    ours: bool = False
    doubts: tuple[Fact, ...] = ()

    @property
    def name(self) -> str:
        """What people call it."""
        return self.names[0]


def shown(value: object) -> str:
    """A setting's value as it may be printed: a number or the name of a variable. Any other text may be a secret."""
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if found := re.fullmatch(r"[0-9.]+%?|\$\w+|(\$[({]\w+)[^A-Za-z0-9_].*", str(value)):
        return f"{found[1]}...{'}' if '{' in found[1] else ')'}" if found[1] else str(value)
    return "a text"


class Unreadable(Exception):
    """A file that should have been read and could not be: where, and why."""

    def __init__(self, place: Place, why: str) -> None:
        super().__init__(f"{place}: {why}")
        self.place = place
        self.why = why
