"""What asyncpg's connections do in a pool that no other driver's do; the rest is in `test_drivers.py`."""

import asyncio
import select
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import penstock
from penstock import AsyncPool, Fleet
from penstock.core import Reason
from penstock.drill.postgres import EmbeddedPostgres
from penstock.pool import terms
from support.either import opened
from support.waiting import soon
from test_sick import turn_read_only

asyncpg = pytest.importorskip("asyncpg")
uvloop = pytest.importorskip("uvloop")

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a scenario, in either kind of event loop."""
    factory = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}[request.param]

    def run(scenario: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(scenario)

    return run


def pool_of(dsn: str, **options: Any) -> Any:
    """One connection, unless said otherwise."""
    return opened(AsyncPool, dsn, driver="asyncpg", **{"min_size": 1, **options})


def sent(conn: Any) -> int:
    """Statements that the connection has sent, the pool's own too."""
    return int(conn._protocol.queries_count)


async def session(pool: Any) -> int:
    async with pool.connection(timeout=5) as conn:
        return int(conn.get_server_pid())


# ------------------------------------------------------------------------------------------ clean


def test_a_clean_return_sends_nothing(dsn: str, run: Run) -> None:
    """asyncpg's own pool sends its reset each time. Nor does a transaction that was ended cost anything."""

    async def scenario() -> None:
        async with pool_of(dsn) as pool:
            async with pool.connection() as conn:
                await conn.fetchval("SELECT 1")
                async with conn.transaction():
                    await conn.execute("SELECT 2")
                before = sent(conn)
            async with pool.connection() as again:
                assert again is conn
                assert sent(again) == before

    run(scenario())


def test_what_is_called_back_is_the_lease_s(dsn: str, run: Run) -> None:
    """Listeners and loggers go with who has added them; those that `configure` added stay, after a reset too."""
    told: list[str] = []

    async def configure(conn: Any) -> None:
        await conn.add_listener("for_all", lambda *_: told.append("for all"))
        conn.add_log_listener(lambda *_: told.append("log for all"))

    async def scenario() -> None:
        async with pool_of(dsn, configure=configure) as pool:
            for reset in ("SELECT 1", "SET work_mem = '7MB'"):
                async with pool.connection() as conn:
                    await conn.add_listener("mine", lambda *_: told.append("mine"))
                    conn.add_log_listener(lambda *_: told.append("log mine"))
                    conn.add_query_logger(lambda _: told.append("query mine"))
                    conn.add_termination_listener(lambda _: told.append("end mine"))
                    await conn.execute(reset)
                told.clear()
                async with pool.connection() as conn:
                    await conn.execute("NOTIFY mine; NOTIFY for_all; DO $$ BEGIN RAISE NOTICE 'x'; END $$")
                    await soon(lambda: len(told) >= 2)
                assert sorted(told) == ["for all", "log for all"], reset
            assert pool.snapshot().closes == {}

    run(scenario())


def test_a_codec_is_nobody_else_s(dsn: str, run: Run) -> None:
    """asyncpg cannot take one back to what it was, so the session ends; one that `configure` has set stays."""

    async def configure(conn: Any) -> None:
        await conn.set_type_codec("int4", schema="pg_catalog", encoder=str, decoder=lambda _: "all", format="text")

    async def scenario() -> None:
        async with pool_of(dsn, configure=configure) as pool:
            assert await session(pool) == await session(pool)
            async with pool.connection() as conn:
                await conn.set_type_codec(
                    "int4", schema="pg_catalog", encoder=str, decoder=lambda _: "mine", format="text"
                )
                assert await conn.fetchval("SELECT 1") == "mine"
            async with pool.connection(timeout=5) as conn:
                assert await conn.fetchval("SELECT 1") == "all"
            assert pool.snapshot().closes == {Reason.UNCLEAN: 1}

    run(scenario())


def test_what_was_made_in_a_lease_ends_with_it(dsn: str, run: Run) -> None:
    """Prepared statements, cursors and transactions of a former lease never reach the next one's session."""

    async def scenario() -> None:
        async with pool_of(dsn) as pool:
            async with pool.connection() as conn:
                statement = await conn.prepare("SELECT 1")
                unused = conn.transaction()
                async with conn.transaction():
                    cursor = await conn.cursor("SELECT generate_series(1, 3)")
                    assert await cursor.fetchrow() == (1,)
            async with pool.connection() as again:
                assert again is conn
                for late in (statement.fetch, cursor.fetchrow, unused.start):
                    with pytest.raises(asyncpg.InterfaceError, match="released back to the pool"):
                        await late()
            assert pool.snapshot().closes == {}

    run(scenario())


def test_a_statement_object_at_work_is_seen(dsn: str, run: Run) -> None:
    """By who asks for the holders, and at the return: the connection is closed, and the next gets another one."""

    async def scenario() -> None:
        async with pool_of(dsn) as pool:
            async with pool.connection() as conn:
                slow = await conn.prepare("SELECT pg_sleep(6)")
                assert [holder.status for holder in pool.holders()] == ["IDLE"]
                running = asyncio.ensure_future(slow.fetch())
                await asyncio.sleep(0)
                assert [holder.status for holder in pool.holders()] == ["ACTIVE"]
                conn_pid = conn.get_server_pid()
                with pytest.raises(asyncpg.PostgresConnectionError, match="still running"):
                    await pool._finish(pool._slot_of(conn), conn, commit=True)
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
                await running
            assert await session(pool) != conn_pid
            assert pool.snapshot().closes == {Reason.BUSY: 1}

    run(scenario())


def test_the_session_that_a_server_keeps_is_the_same_after_a_cancellation(dsn: str, run: Run) -> None:
    """The statement is stopped, and the next one to borrow is not: neither by it, nor by what it left open."""

    async def scenario() -> None:
        async with pool_of(dsn) as pool:
            first = await session(pool)
            for begin in ("SELECT 1", "BEGIN"):

                async def slow(begin: str = begin) -> None:
                    async with pool.connection() as conn:
                        await conn.execute(begin)
                        await conn.fetchval("SELECT pg_sleep(6)")

                task = asyncio.ensure_future(slow())
                await soon(lambda: pool.holders() and pool.holders()[0].statement == "SELECT pg_sleep(6)")
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                for _ in range(3):
                    async with pool.connection(timeout=5) as conn:
                        assert await conn.fetchval("SELECT 1") == 1
                        assert not conn.is_in_transaction()
            assert await session(pool) == first
            assert pool.snapshot().closes == {}

    run(scenario())


# ------------------------------------------------------------------------------------------ in time


def test_a_deadline_is_every_statement_s(dsn: str, run: Run) -> None:
    """In autocommit and through a prepared statement too. What comes after it is not sent, but for the rollback."""

    async def by_itself(conn: Any) -> None:
        await conn.fetchval("SELECT pg_sleep(6)")

    async def prepared(conn: Any) -> None:
        await (await conn.prepare("SELECT pg_sleep(6)")).fetch()

    async def in_transaction(conn: Any) -> None:
        async with conn.transaction():
            await conn.execute("SELECT pg_sleep(6)")

    async def scenario() -> None:
        async with pool_of(dsn) as pool:
            first = await session(pool)
            for ask in (by_itself, prepared, in_transaction):
                started = time.monotonic()
                with penstock.deadline(0.1):
                    async with pool.connection() as conn:
                        with pytest.raises(TimeoutError):
                            await ask(conn)
                        assert not conn.is_in_transaction()
                        before = sent(conn)
                        with pytest.raises(TimeoutError, match="before this statement was sent"):
                            await conn.execute("SELECT 1")
                        assert sent(conn) == before
                assert 0.05 < time.monotonic() - started < 2
                async with pool.connection() as conn:
                    assert await conn.fetchval("SELECT 1") == 1
                    assert conn._config.command_timeout is None
            assert await session(pool) == first

    run(scenario())


def test_reading_is_kept_to(dsn: str, run: Run) -> None:
    """Where only reads are allowed a write fails, in a transaction or without one; the next lease may write."""

    async def scenario() -> None:
        async with pool_of(dsn) as pool:
            with terms.reading():
                async with pool.connection() as conn:
                    assert await conn.fetchval("SELECT 1") == 1
                    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
                        await conn.execute("CREATE TABLE asyncpg_read (x int)")
                    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
                        async with conn.transaction():
                            await conn.execute("CREATE TABLE asyncpg_read (x int)")
            async with pool.connection() as conn:
                await conn.execute("CREATE TABLE asyncpg_read (x int)")
                await conn.execute("DROP TABLE asyncpg_read")
            assert pool.snapshot().closes == {}

    run(scenario())


# ------------------------------------------------------------------------------------------ dead


def test_an_end_that_the_event_loop_has_read_is_known_too(postgres: EmbeddedPostgres, run: Run) -> None:
    """The socket is closed by then, and its number may be another's: it is not asked."""

    async def scenario() -> None:
        async with pool_of(postgres.dsn) as pool:
            async with pool.connection() as conn:
                pid = conn.get_server_pid()
            with postgres.admin() as admin:
                admin.execute("SELECT pg_terminate_backend(%s, 2000)", [pid])
            await soon(conn.is_closed)
            others = [await asyncpg.connect(postgres.dsn) for _ in range(3)]  # which take the number
            assert await session(pool) != pid
            assert pool.snapshot().closes == {Reason.DEAD: 1}
            for other in others:
                await other.close()

    run(scenario())


def test_a_goodbye_that_the_event_loop_has_read_is_the_end(dsn: str, run: Run) -> None:
    """Even before the end itself has come: an idle connection is not handed out, one in hand fails as lost."""
    fields = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"
    goodbye = b"E" + (len(fields) + 4).to_bytes(4, "big") + fields

    async def scenario() -> None:
        async with pool_of(dsn) as pool:
            first = await session(pool)
            pool._pool[0]._hearing.data_received(goodbye)
            assert await session(pool) != first
            async with pool.connection() as conn:
                conn._hearing.data_received(goodbye)
                with pytest.raises(asyncpg.PostgresConnectionError, match="the server has ended the connection"):
                    await conn.fetchval("SELECT 1")
            assert await session(pool) != first
            assert pool.snapshot().closes == {Reason.DEAD: 1, Reason.BROKEN: 1}

    run(scenario())


def test_a_word_of_the_server_s_is_no_goodbye(postgres: EmbeddedPostgres, run: Run) -> None:
    """What an idle connection has to read may be a notification: it is looked at, and the connection stays."""

    async def configure(conn: Any) -> None:
        await conn.add_listener("asyncpg_words", lambda *_: None)

    async def scenario() -> None:
        async with pool_of(postgres.dsn, configure=configure) as pool:
            first = await session(pool)
            fd = pool._pool[0]._transport.get_extra_info("socket").fileno()
            with postgres.admin() as admin:
                admin.execute("NOTIFY asyncpg_words, 'hello'")
            assert select.select([fd], [], [], 5)[0]  # and the event loop has had no turn to read it
            assert await session(pool) == first
            assert pool.snapshot().closes == {}

    run(scenario())


def test_a_server_that_has_turned_read_only_is_left(own_postgres: Callable[..., EmbeddedPostgres]) -> None:
    """A write that fails because of it has the connections replaced: the next may lead to one that writes."""

    async def scenario() -> None:
        server = own_postgres()
        async with pool_of(server.dsn, min_size=2) as pool:
            turn_read_only(server, True)
            with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
                async with pool.connection() as conn:
                    await conn.execute("CREATE TABLE never (x int)")
            await soon(lambda: pool.snapshot().closes == {Reason.READ_ONLY: 2})

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------ connecting


def test_conninfo_is_a_url_or_libpq_s_pairs(postgres: EmbeddedPostgres, run: Run) -> None:
    """So that to change the driver is to change one word; `connect_timeout` is no setting of the server's."""
    password = postgres.dsn.split("//app:")[1].split("@")[0]
    pairs = f"host={postgres.host} port={postgres.port} dbname=postgres user=app password='{password}'"

    async def scenario() -> None:
        for conninfo in (postgres.dsn, f"{postgres.dsn}&connect_timeout=3", f"{pairs} connect_timeout=3"):
            options = {"kwargs": {"application_name": "mine"}, "statement_timeout": 7, "idle_in_transaction_timeout": 8}
            async with pool_of(conninfo, **options) as pool:
                async with pool.connection() as conn:
                    assert await conn.fetchval("SHOW statement_timeout") == "7s"
                    assert await conn.fetchval("SHOW idle_in_transaction_session_timeout") == "8s"
                    assert await conn.fetchval("SHOW application_name") == "mine"

    run(scenario())


@pytest.mark.parametrize(
    "conninfo",
    [
        "postgresql://app:sec@ret@host/db",
        "postgresql://app:sec/ret@host/db",
        "postgresql://app:secret@[host/db",
        "mysql://app:secret@host/db",
        "host=somewhere password=sec ret",
        "host=somewhere password='secret",
        "postgresql://app:secret@host/db?connect_timeout=soon",
        "postgresql://app:secret@host:soon/db",
        "postgresql://app:secret@host:5432,other:soon/db",
    ],
)
def test_a_conninfo_that_does_not_parse_is_not_shown(conninfo: str) -> None:
    """What was wrong may be the password."""
    with pytest.raises(ValueError, match=r"^conninfo ") as caught:
        AsyncPool(conninfo, driver="asyncpg", open=False)
    assert "sec" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_connections_are_of_the_class_that_was_asked_for(dsn: str) -> None:
    """With its own methods, and noted all the same."""

    class Mine(asyncpg.Connection):  # type: ignore[misc]
        async def fetchval(self, query: str, *args: Any, **kwargs: Any) -> Any:
            return await super().fetchval(query, *args, **kwargs) + 1

    async def scenario() -> None:
        async with pool_of(dsn, connection_class=Mine) as pool:
            async with pool.connection() as conn:
                assert isinstance(conn, Mine)
                assert await conn.fetchval(query="SELECT 1") == 2
                assert pool.holders()[0].statement == "SELECT 1"

    asyncio.run(scenario())
    with pytest.raises(TypeError, match="connection_class must be"):
        AsyncPool(dsn, driver="asyncpg", connection_class=dict, open=False)


def test_a_fleet_of_asyncpg_s(postgres: EmbeddedPostgres) -> None:
    """Its members tell one another by the names of their connections, whatever the driver."""

    async def scenario() -> None:
        fleet = Fleet(3, name="of-asyncpg", period=0.1)
        async with pool_of(postgres.dsn, max_size=3, fleet=fleet) as pool:
            await soon(lambda: pool.fleet().claimed == 1)
            async with pool.connection() as conn:
                assert await conn.fetchval("SHOW application_name") == conn.get_settings().application_name
                assert "of-asyncpg" in conn.get_settings().application_name

    asyncio.run(scenario())


def test_statements_are_shared_with_psycopg_alone(dsn: str) -> None:
    """Who asks for it with another driver is told what to do instead."""

    async def scenario() -> None:
        async with pool_of(dsn) as pool:
            for ask in (pool.fetch, pool.fetchrow, pool.fetchval, pool.execute):
                with pytest.raises(TypeError, match="borrow a connection"):
                    await ask("SELECT 1")

    asyncio.run(scenario())
