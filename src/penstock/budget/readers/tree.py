"""A directory's files, found and read: which programs it deploys, and what each of their processes may open.

Directories of tools, of installed packages and of tests are left out. Files are only ever read as text.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path, PurePosixPath

from . import compose, django, dockerfile, gunicorn, pools, sqlalchemy
from .command import gunicorn_threads, web_concurrency
from .facts import Bound, Command, Environment, Fact, Opens, Place, Runs, Unreadable
from .kubernetes import Manifests
from .source import Module

# A module that has none of these words makes no pool that we know, and is not parsed.
_MATTERS = (
    "create_engine", "create_async_engine", "engine_from_config", "SQLAlchemy", "SQLALCHEMY_ENGINE_OPTIONS",
    "DATABASES", "ConnectionPool", "create_pool", "PooledDB", "pool_size", "penstock",
)  # fmt: skip
LARGEST = 2_000_000  # bytes: nobody wrote a larger file by hand
_SKIPPED = {"node_modules", "site-packages", "__pycache__", "__pypackages__", "tests", "test", "testing", "venv"}
_COMPOSE = ("compose*.yml", "compose*.yaml", "docker-compose*.yml", "docker-compose*.yaml")
_TESTS = ("test_*.py", "*_test.py", "conftest.py", "tests.py")


@dataclass(frozen=True, slots=True)
class Program:
    """A deployed program, with everything that its files say.

    :ivar processes: with pools, in each replica; None when no file says.
    :ivar threads: in each process, those that may hold a connection each; None when no file says.
    :ivar opens: what each process may open.
    :ivar preload: where gunicorn is told to load the application before it forks.
    """

    runs: Runs
    processes: Fact | None
    threads: Fact | None
    opens: tuple[Opens, ...]
    preload: Place | None = None


@dataclass(slots=True)
class Survey:
    """What was found in a directory.

    :ivar deployed: programs that a file deploys.
    :ivar alone: the code by itself, as one program, for when no file deploys it.
    :ivar unread: files that should have been read and could not be.
    :ivar migrations: modules that run beside a deploy and not in it.
    """

    deployed: list[Program] = field(default_factory=list)
    alone: Program | None = None
    unread: list[Unreadable] = field(default_factory=list)
    migrations: list[Place] = field(default_factory=list)


def survey(root: Path) -> Survey:
    """Read everything under *root*. Raises OSError when that itself cannot be read."""
    return _Reading(root).survey()


def python_files(names: list[str]) -> list[str]:
    """Those of *names* that are modules of the application, not of its tests."""
    return [name for name in names if name.endswith(".py") and not any(fnmatch(name, each) for each in _TESTS)]


class _Reading:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.shown = "" if str(root) == "." else root.as_posix().rstrip("/") + "/"  # before each file, for people
        self.found = Survey()
        self.files = sorted(_walk(root))
        self.texts: dict[str, str] = {}  # of the modules that may matter
        self.parsed: dict[str, Module | None] = {}

    def survey(self) -> Survey:
        self._read_python()
        runs = [*self._composed(), *self._manifests(), *self._processes()]
        self.found.deployed = [self._program(each) for each in runs]
        bare = Runs(("the code",), "the code", Place(str(self.root), 0), ours=True)
        self.found.alone = self._program(bare)
        return self.found

    # ------------------------------------------------------------------------------------------ files

    def _text(self, file: str) -> str | None:
        """The text of *file*; None when it is not there or cannot be read, which is noted."""
        path = self.root / file
        try:
            if not path.is_file():
                return None
            if path.stat().st_size > LARGEST:
                raise Unreadable(Place(self.shown + file, 0), f"not read: larger than {LARGEST} bytes")
            return path.read_text("utf-8")
        except Unreadable as error:
            self.found.unread.append(error)
        except OSError as error:
            self.found.unread.append(Unreadable(Place(self.shown + file, 0), f"not read: {error.strerror}"))
        except UnicodeDecodeError:
            self.found.unread.append(Unreadable(Place(self.shown + file, 0), "not read: it is not UTF-8"))
        return None

    def _beside(self, directory: PurePosixPath, name: str) -> str | None:
        """The text of a file that another one in *directory* names."""
        inside = _joined(directory, name)
        return None if inside is None else self._text(inside)

    def _read_python(self) -> None:
        for file in self.files:
            name = PurePosixPath(file).name
            if not python_files([name]) or (text := self._text(file)) is None:
                continue
            if name == "env.py" and "alembic" in text:
                self.found.migrations.append(Place(self.shown + file, 1))
            else:
                self.texts[file] = text

    def _module(self, file: str) -> Module | None:
        """The module that *file* is; None when it is no Python, which is noted."""
        if file not in self.parsed:
            try:
                self.parsed[file] = Module(self.texts[file], self.shown + file)
            except Unreadable as error:
                self.parsed[file] = None
                self.found.unread.append(error)
        return self.parsed[file]

    def _composed(self) -> Iterator[Runs]:
        for file in self.files:
            where = PurePosixPath(file)
            if any(fnmatch(where.name, each) for each in _COMPOSE) and (text := self._text(file)) is not None:
                try:
                    for each in compose.read(text, self.shown + file, partial(self._beside, where.parent)):
                        inside = None if each.directory is None else _joined(where.parent, each.directory)
                        yield replace(each, directory=inside)
                except Unreadable as error:
                    self.found.unread.append(error)

    def _manifests(self) -> Iterator[Runs]:
        manifests = Manifests()
        for file in self.files:
            where = PurePosixPath(file)
            if where.suffix not in (".yaml", ".yml") or any(fnmatch(where.name, each) for each in _COMPOSE):
                continue
            text = self._text(file)
            if text is None or "kind:" not in text or "apiVersion:" not in text:
                continue
            try:
                manifests.read(text, self.shown + file)
            except Unreadable as error:
                self.found.unread.append(error)
        yield from manifests.joined()

    def _processes(self) -> Iterator[Runs]:
        for file in self.files:
            if PurePosixPath(file).name == "Procfile" and (text := self._text(file)) is not None:
                yield from dockerfile.procfile(text, self.shown + file, Environment())

    # ------------------------------------------------------------------------------------------ a program

    def _program(self, runs: Runs) -> Program:
        directory = runs.directory or "."
        started, environment = runs.command, runs.environment
        place = str(PurePosixPath(directory) / runs.dockerfile)
        if started is None and (text := self._text(place)) is not None:
            started, environment = dockerfile.read(text, self.shown + place, environment)
            runs = replace(runs, ours=runs.ours or runs.directory is not None)
        runs = replace(runs, command=started, environment=environment)
        processes, threads, preload = self._sizes(started, runs, directory)
        return Program(runs, processes, threads, tuple(self._opens(directory, environment)), preload)

    def _sizes(
        self, started: Command | None, runs: Runs, directory: str
    ) -> tuple[Fact | None, Fact | None, Place | None]:
        """Processes, threads, and where preloading is asked for."""
        config = None
        if started is None or started.runner == "gunicorn":
            config = self._config(started.config if started else None, directory, runs.environment)
        if started is None and config is None:
            return None, None, None
        if started is not None and started.runner != "gunicorn":
            return started.processes, started.threads, None
        started, config = started or Command("gunicorn"), config or gunicorn.Config()
        place = runs.place
        by_default = Fact(1, place, "gunicorn, 1 worker by default")
        processes = started.processes or config.workers or web_concurrency(place, runs.environment) or by_default
        threads = gunicorn_threads(
            started.worker or config.worker, started.threads or config.threads,
            started.connections or config.connections, place,
        )  # fmt: skip
        return processes, threads, config.preload

    def _config(self, named: str | None, directory: str, environment: Environment) -> gunicorn.Config | None:
        """The gunicorn configuration of a program: the one that it names, or the gunicorn.conf.py of its directory."""
        name = PurePosixPath((named or "gunicorn.conf.py").removeprefix("file:")).name
        inside = [each for each in self.texts if _within(each, directory) and PurePosixPath(each).name == name]
        if inside and (module := self._module(min(inside, key=len))) is not None:
            return gunicorn.read(module.under(environment))
        if named is None:
            return None
        where = Place(self.shown + directory, 0)
        return gunicorn.Config(Fact(None, where, f"gunicorn's configuration {named} is not among these files"))

    def _opens(self, directory: str, environment: Environment) -> Iterator[Opens]:
        settings: dict[str, list[Opens]] = {}
        flask: list[Opens] = []
        for file, text in self.texts.items():
            if not _within(file, directory) or not any(word in text for word in _MATTERS):
                continue
            if (module := self._module(file)) is None:
                continue
            here = module.under(environment)
            for each in sqlalchemy.read(here):
                if each.kind in (sqlalchemy.FLASK, sqlalchemy.FLASK_OPTIONS):
                    flask.append(each)
                else:
                    yield each
            yield from pools.read(here)
            if aliases := list(django.read(here)):
                settings[file] = aliases
        yield from _settings(settings, environment.get("DJANGO_SETTINGS_MODULE"))
        options = [each for each in flask if each.kind == sqlalchemy.FLASK_OPTIONS]
        yield from max(([each] for each in options or flask), key=_heaviness, default=[])


def _settings(found: dict[str, list[Opens]], named: str | None) -> list[Opens]:
    """A program has one settings module: the one that it is told, or the one that may open most."""
    chosen = "/" + (named or "").replace(".", "/") + ".py"
    told = [aliases for file, aliases in found.items() if ("/" + file).endswith(chosen)]
    return max(told or found.values(), key=_heaviness, default=[])


def _heaviness(opens: list[Opens]) -> tuple[bool, int]:
    return any(each.bound is not Bound.POOL for each in opens), sum(each.most or 0 for each in opens)


def _walk(root: Path) -> Iterator[str]:
    def failed(error: OSError) -> None:
        if Path(error.filename or "") == root:
            raise error

    for directory, names, files in os.walk(root, onerror=failed):
        names[:] = sorted(
            name for name in names
            if name not in _SKIPPED and not name.startswith(".")
            and not (Path(directory) / name / "pyvenv.cfg").exists()
        )  # fmt: skip
        for name in files:
            yield (Path(directory) / name).relative_to(root).as_posix()


def _joined(directory: PurePosixPath, inside: str) -> str | None:
    """*inside* as seen from the root; None when it leads out of it, or is an address."""
    if "://" in inside or inside.startswith(("/", "git@")):
        return None
    steps: list[str] = []
    for step in (directory / inside).parts:
        if step == "..":
            if not steps:
                return None
            steps.pop()
        elif step != ".":
            steps.append(step)
    return "/".join(steps) or "."


def _within(file: str, directory: str) -> bool:
    return directory == "." or file.startswith(directory + "/")
