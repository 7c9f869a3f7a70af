"""SQLAlchemy's engine on our pool over the drivers of MySQL: their connections are seen, whoever made them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any

import pymysql
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import penstock
from penstock.drivers import sockets
from penstock.integrations.sqlalchemy import PenstockPool
from penstock.integrations.sqlalchemy.record import end_of
from support.mariadb import DATABASE, MariaDB
from support.waiting import aside, eventually, soon

Engine = Callable[..., sa.Engine]
absent = pytest.mark.skipif(find_spec("MySQLdb") is None, reason="mysqlclient has to be built: see scripts/mariadb.sh")
SCHEMES = ["mysql+pymysql", "mariadb+pymysql", pytest.param("mysql+mysqldb", marks=absent)]
DRIVERS = SCHEMES[::2]
NUMBER = sa.text("SELECT CONNECTION_ID()")


@pytest.fixture
def engine(mariadb: MariaDB) -> Iterator[Engine]:
    """Makes engines on our pool, and disposes of them."""
    made: list[sa.Engine] = []

    def make(scheme: str = "mysql+pymysql", **options: Any) -> sa.Engine:
        made.append(sa.create_engine(mariadb.url(scheme), poolclass=PenstockPool, **options))
        return made[-1]

    yield make
    for each in made:
        each.dispose()


@asynccontextmanager
async def async_engine(mariadb: MariaDB, **options: Any) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(mariadb.url("mysql+aiomysql"), poolclass=PenstockPool, **options)
    try:
        yield engine
    finally:
        await engine.dispose()


def table(mariadb: MariaDB, name: str) -> str:
    mariadb.ask(f"CREATE OR REPLACE TABLE {DATABASE}.{name} (n INT) ENGINE=InnoDB")
    return name


def here(mark: str) -> int:
    """The line of this file on which *mark* stands in a comment."""
    with open(__file__) as source:
        return next(number for number, line in enumerate(source, 1) if line.rstrip().endswith(f"# {mark}"))


def forbid_pings(one: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def ping(connection: Any) -> bool:
        raise AssertionError("a round trip was made to ask whether the connection is alive")

    monkeypatch.setattr(one.dialect, "do_ping", ping)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_connection_that_the_server_has_ended_is_not_handed_out(
    engine: Engine, mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """Without pre-ping, and without a round trip: the kernel knows."""
    one = engine(scheme, pool_size=1, max_overflow=0)
    with one.connect() as connection:
        doomed = connection.scalar(NUMBER)
    forbid_pings(one, monkeypatch)
    mariadb.kill_thread(doomed)
    eventually(lambda: one.pool._pool.queue[0]._probe(0))  # type: ignore[attr-defined]
    with one.connect() as connection:
        assert connection.scalar(NUMBER) != doomed


@pytest.mark.parametrize("scheme", DRIVERS)
def test_pre_ping_needs_no_round_trip(engine: Engine, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    one = engine(scheme, pool_size=1, max_overflow=0, pool_pre_ping=True)
    one.connect().close()
    forbid_pings(one, monkeypatch)
    with one.connect() as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1


@pytest.mark.parametrize("scheme", DRIVERS)
def test_holders_name_the_users_line_and_statement(engine: Engine, mariadb: MariaDB, scheme: str) -> None:
    name = table(mariadb, "sa_holders")
    one = engine(scheme)
    with one.begin() as connection:  # begun here
        connection.execute(sa.text(f"INSERT INTO {name} VALUES (:n)"), {"n": 1})
        with Session(one) as session:
            session.scalar(sa.text("SELECT 2 AS orm"))  # executed here
            begun, executed = one.pool.holders()  # type: ignore[attr-defined]
    assert (begun.site.file, begun.site.line) == (__file__, here("begun here"))
    assert (executed.site.file, executed.site.line) == (__file__, here("executed here"))
    assert begun.statement.startswith(f"INSERT INTO {name} VALUES (%")
    assert begun.status == "INTRANS"


@pytest.mark.parametrize("scheme", DRIVERS)
def test_a_leak_is_reported_with_its_line(engine: Engine, caplog: pytest.LogCaptureFixture, scheme: str) -> None:
    one = engine(scheme, leak_after=0.05)
    caplog.set_level(logging.WARNING, "penstock.pool")
    with one.connect():  # leaked here
        eventually(lambda: any("is this a leak?" in record.getMessage() for record in caplog.records))
    assert f"{__file__}:{here('leaked here')}" in caplog.text


@pytest.mark.parametrize("scheme", DRIVERS)
def test_a_reclaimed_connection_serves_the_next_and_not_its_holder(engine: Engine, scheme: str) -> None:
    one = engine(scheme, pool_size=1, max_overflow=0, pool_timeout=5, leak_after=0.05, leak_reclaim=True)
    with one.connect() as kept:
        with aside(one.connect).result(5) as next_one:
            assert next_one.scalar(sa.text("SELECT 1")) == 1
        with pytest.raises(sa.exc.OperationalError):
            kept.execute(sa.text("SELECT 1"))


@pytest.mark.parametrize("scheme", DRIVERS)
def test_a_declared_deadline_bounds_the_statement_and_no_other(engine: Engine, scheme: str) -> None:
    one = engine(scheme, pool_size=1, max_overflow=0)
    with (
        penstock.deadline(0.1),
        one.connect() as connection,
        pytest.raises(sa.exc.OperationalError, match="max_statement_time"),
    ):
        connection.execute(sa.text("SELECT SLEEP(30)"))
    with one.connect() as connection:
        assert connection.scalar(sa.text("SELECT SLEEP(0.15)")) == 0


@pytest.mark.parametrize("scheme", DRIVERS)
@pytest.mark.parametrize(
    ("reset", "status", "kept"), [("rollback", "IDLE", 0), ("commit", "IDLE", 1), (None, "INTRANS", 0)]
)
def test_reset_on_return_does_what_it_says(
    engine: Engine, mariadb: MariaDB, scheme: str, reset: str | None, status: str, kept: int
) -> None:
    name = table(mariadb, "sa_reset")
    one = engine(scheme, pool_size=1, max_overflow=0, pool_reset_on_return=reset)
    raw = one.raw_connection()
    raw.cursor().execute(f"INSERT INTO {name} VALUES (1)")
    raw.close()
    assert one.pool._pool.queue[0].status().name == status  # type: ignore[attr-defined]
    assert mariadb.ask(f"SELECT COUNT(*) FROM {DATABASE}.{name}") == [(kept,)]


def test_a_connection_that_comes_back_out_of_any_transaction_is_not_reset(engine: Engine, mariadb: MariaDB) -> None:
    """The server has said that it is in none: a rollback would be a round trip for nothing."""
    name = table(mariadb, "sa_unreset")
    one = engine(pool_size=1, max_overflow=0)
    one.connect().close()
    sent: list[int] = []

    def rollback(connection: Any) -> None:
        sent.append(1)
        do_rollback(connection)

    do_rollback, one.dialect.do_rollback = one.dialect.do_rollback, rollback  # type: ignore[method-assign]
    raw = one.raw_connection()
    raw.cursor().execute(f"INSERT INTO {name} VALUES (1)")
    raw.commit()
    raw.close()
    assert not sent
    raw = one.raw_connection()
    raw.cursor().execute(f"INSERT INTO {name} VALUES (2)")
    raw.close()
    assert sent


def test_a_connection_of_the_users_own_creator_is_seen(mariadb: MariaDB) -> None:
    class Mine(pymysql.connections.Connection):  # type: ignore[misc]
        pass

    def connect() -> Mine:
        with mariadb.admin() as admin:
            return Mine(unix_socket=admin.unix_socket, user="root", autocommit=True)

    one = sa.create_engine("mysql+pymysql://", creator=connect, poolclass=PenstockPool)
    with one.connect() as connection:
        connection.execute(sa.text("SELECT 'mine'"))
        (holder,) = one.pool.holders()  # type: ignore[attr-defined]
        assert isinstance(connection.connection.driver_connection, Mine)
    assert (holder.statement, holder.status) == ("SELECT 'mine'", "IDLE")
    one.dispose()


@pytest.mark.parametrize("scheme", DRIVERS)
def test_a_connection_counts_until_the_server_has_let_go(engine: Engine, scheme: str) -> None:
    with engine(scheme).connect() as connection:
        real: Any = connection.connection.driver_connection
        end = end_of(real)
        assert end is not None
        assert not sockets.stirred(end)(0)
        connection.connection.invalidate()
    eventually(lambda: sockets.stirred(end)(0))
    sockets.close(end)


# ------------------------------------------------------------------------------------------ asyncio


def test_aiomysql_is_seen_as_well(mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with async_engine(mariadb, pool_size=1, max_overflow=0, pool_pre_ping=True) as one:
            async with one.connect() as connection:
                doomed = await connection.scalar(NUMBER)
            forbid_pings(one, monkeypatch)
            await asyncio.to_thread(mariadb.kill_thread, doomed)
            await soon(lambda: one.pool._pool.queue[0]._probe(0))  # type: ignore[attr-defined]
            async with AsyncSession(one) as session:
                assert await session.scalar(NUMBER) != doomed  # asked here
                (holder,) = one.pool.holders()  # type: ignore[attr-defined]
        assert (holder.site.file, holder.site.line) == (__file__, here("asked here"))
        assert holder.statement == NUMBER.text

    asyncio.run(scenario())


def test_a_declared_deadline_bounds_a_statement_of_aiomysqls(mariadb: MariaDB) -> None:
    async def scenario() -> None:
        async with async_engine(mariadb, pool_size=1, max_overflow=0) as one:
            with penstock.deadline(0.1), pytest.raises(sa.exc.OperationalError, match="max_statement_time"):
                async with one.connect() as connection:
                    await connection.execute(sa.text("SELECT SLEEP(30)"))
            async with one.connect() as connection:
                assert await connection.scalar(sa.text("SELECT SLEEP(0.15)")) == 0

    asyncio.run(scenario())


def test_a_task_cancelled_in_a_statement_of_aiomysqls_gives_its_place_back(mariadb: MariaDB) -> None:
    async def scenario() -> None:
        async with async_engine(mariadb, pool_size=1, max_overflow=0, pool_timeout=5) as one:

            async def ask() -> None:
                async with one.connect() as connection:
                    await connection.execute(sa.text("SELECT SLEEP(2)"))

            task = asyncio.create_task(ask())
            await soon(lambda: any(each.status == "ACTIVE" for each in one.pool.holders()))  # type: ignore[attr-defined]
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with one.connect() as connection:
                assert await connection.scalar(sa.text("SELECT 1")) == 1

    asyncio.run(scenario())
