"""A real PostgreSQL for whoever asks, the network's faults before it, and several processes that share the machine."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from penstock.drill.postgres import EmbeddedPostgres
from penstock.drill.proxy import ChaosProxy
from support.machine import Machine
from support.mariadb import MariaDB

FOLDER = pytest.StashKey[Path]()
MACHINE = pytest.StashKey[Machine]()
ROOM = 4 * 2**30  # bytes


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """In the process that starts the others, before it starts one: the folder that they share."""
    stash = node.config.stash
    if FOLDER not in stash:
        stash[FOLDER] = Path(tempfile.mkdtemp(prefix="penstock-tests-", dir=_in_memory()))
        stash[FOLDER].chmod(0o755)  # PostgreSQL may run as another user
    node.workerinput["folder"] = str(stash[FOLDER])


def _in_memory() -> str | None:
    """Where files are kept in memory, if there is room: a server's thousand files cost a third of the time there."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > ROOM else None


def pytest_configure(config: pytest.Config) -> None:
    """In each of the others: a temporary folder of its own, so that two fleets of one name do not meet."""
    if (given := getattr(config, "workerinput", None)) is None:
        return
    mine = Path(given["folder"], given["workerid"])
    mine.mkdir()
    mine.chmod(0o1777)
    os.environ["TMPDIR"], tempfile.tempdir = str(mine), None
    config.stash[MACHINE] = Machine(mine.parent)


def pytest_unconfigure(config: pytest.Config) -> None:
    if FOLDER in config.stash:
        shutil.rmtree(config.stash[FOLDER], ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from support.units import Units  # only where there is xdist

    config.option.loadscopereorder = False  # in the order that follows
    return Units(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Whoever is to run alone comes first: later it would wait until the others have done what they are at."""
    if MACHINE in config.stash:
        items.sort(key=lambda item: not _alone(item))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    machine = item.config.stash.get(MACHINE, None)
    if machine is None:
        return (yield)
    machine.enter(_alone(item))
    try:
        return (yield)
    finally:
        machine.leave(_alone(nextitem))


def _alone(item: pytest.Item | None) -> bool:
    return item is not None and item.get_closest_marker("alone") is not None


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """One server for the whole session. Whoever stops, restarts or fills one uses `own_postgres`."""
    with EmbeddedPostgres(max_connections=100) as server:
        yield server


@pytest.fixture
def dsn(postgres: EmbeddedPostgres) -> str:
    """How an ordinary role connects to the session's server."""
    return postgres.dsn


@pytest.fixture
def proxy(postgres: EmbeddedPostgres) -> Iterator[ChaosProxy]:
    """A proxy before the session's server; `proxy.through(dsn)` leads over it."""
    with ChaosProxy(postgres.host, postgres.port) as chaos:
        yield chaos


@pytest.fixture
def own_postgres() -> Iterator[Callable[..., EmbeddedPostgres]]:
    """Start a server for one test alone; takes EmbeddedPostgres's arguments."""
    with ExitStack() as servers:
        yield lambda **settings: servers.enter_context(EmbeddedPostgres(**settings))


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """One server for the whole session; skips where there is none."""
    with MariaDB() as server:
        yield server
