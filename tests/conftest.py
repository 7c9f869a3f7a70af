"""A real PostgreSQL for whoever asks, and the network's faults before it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from penstock.drill.postgres import EmbeddedPostgres
from penstock.drill.proxy import ChaosProxy
from support.mariadb import MariaDB


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
