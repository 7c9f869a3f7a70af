"""What a budget file declares, as plain values: who may connect to which database, and how many of them there are.

Every count is of the worst moment: a rolling deploy, with old and new replicas alive together and every pool full.
Nothing here reads a file (`file.py`) or shares anything out (`shares.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .formula import extra_instances

HEADROOM = 3  # connections kept for operators when the file says nothing
RESERVED = 3  # PostgreSQL's default superuser_reserved_connections; its reserved_connections is 0 by default
SURGE = "25%"  # Kubernetes' default maxSurge


@dataclass(frozen=True, slots=True)
class Database:
    """One server's limit, shared by everybody who names this database.

    :ivar url: where it is: a URL, or ``env:NAME`` for the variable that has it. Never shown: it may hold a password.
    :ivar max_connections: the server's own; None when only the server can say.
    :ivar reserved: what the server keeps for itself; None when only the server can say (`RESERVED` until it does).
    :ivar headroom: connections kept free for operators.
    :ivar fleet: whether processes agree on their shares while they run, rather than each having a fixed one.
    """

    name: str
    url: str | None = field(default=None, repr=False)
    max_connections: int | None = None
    reserved: int | None = None
    headroom: int = HEADROOM
    fleet: bool = False


@dataclass(frozen=True, slots=True)
class SidePool:
    """Connections that a service opens besides its pool: Celery workers, a scheduler, a second library.

    :ivar processes: in each replica of the service.
    :ivar size: connections that each of them may open.
    """

    name: str
    processes: int
    size: int


@dataclass(frozen=True, slots=True)
class Service:
    """One program of ours that has a pool in each of its processes.

    :ivar database: the name of the one it uses.
    :ivar through: the pooler that it connects to, if it does not connect to the database itself.
    :ivar replicas: instances, containers or pods, at most.
    :ivar surge: more of them while a deploy rolls: a count, or a percentage of `replicas` that rounds up.
    :ivar processes: with a pool, in each replica.
    :ivar weight: how much of what is left after everybody's `min` each process gets, relative to others.
    :ivar min: connections that each process is sure of.
    :ivar max: that no process has more than; None for no such limit.
    """

    name: str
    database: str
    through: str | None = None
    replicas: int = 1
    surge: int | str = SURGE
    processes: int = 1
    weight: float = 1.0
    min: int = 1
    max: int | None = None
    side_pools: Mapping[str, SidePool] = field(default_factory=dict)

    @property
    def alive(self) -> int:
        """Replicas alive at the worst moment."""
        return self.replicas + extra_instances(self.surge, self.replicas)

    @property
    def processes_at_worst(self) -> int:
        """Processes with a pool, at the worst moment."""
        return self.alive * self.processes


@dataclass(frozen=True, slots=True)
class Pooler:
    """PgBouncer or its like, between services and a database.

    :ivar pool_size: connections to the server that one instance may open, all its pools together.
    :ivar instances: how many of it run, at most.
    :ivar max_clients: connections that one instance accepts from services (PgBouncer's `max_client_conn`).
    :ivar url: where services reach it, as `Database.url`.
    """

    name: str
    database: str
    pool_size: int
    instances: int = 1
    max_clients: int = 100
    url: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Consumer:
    """A fixed number of connections that somebody else uses: BI, migrations, another team."""

    name: str
    database: str
    connections: int


@dataclass(frozen=True, slots=True)
class Budget:
    """A whole budget file, in one environment.

    :ivar environment: the overlay that was applied; None for the base alone.
    :ivar path: the file.
    :ivar lines: the line on which a key stands, by its path in this budget: ``("services", "web", "replicas")``.
    """

    databases: Mapping[str, Database]
    services: Mapping[str, Service]
    poolers: Mapping[str, Pooler]
    consumers: Mapping[str, Consumer]
    environment: str | None = None
    path: str = ""
    lines: Mapping[tuple[str, ...], int] = field(default_factory=dict, repr=False, compare=False)

    def line(self, *key: str) -> int:
        """The line of *key*, or of the nearest table around it that stands in the file."""
        while key and key not in self.lines:
            key = key[:-1]
        return self.lines.get(key, 1)

    def services_of(self, database: str) -> list[Service]:
        """Those that connect to *database* straight."""
        return [each for each in self.services.values() if each.database == database and each.through is None]

    def services_through(self, pooler: str) -> list[Service]:
        """Those that connect to *pooler*."""
        return [each for each in self.services.values() if each.through == pooler]

    def members(self, database: str) -> int:
        """Processes with a pool of their own that connect to *database* straight, at the worst moment."""
        return sum(each.processes_at_worst for each in self.services_of(database))
