"""A connection goes back clean: nothing that one user did to it is there for the next, and nothing is paid for that."""

import asyncio
import logging
from contextlib import suppress
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row, tuple_row

from penstock import DatabaseUnavailable, Pool
from penstock.core import Reason
from penstock.drill.postgres import EmbeddedPostgres
from support.either import Kind, ask, borrowed, both, in_transaction, opened, request, settled
from support.waiting import soon

LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
TEMPORARY = "SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND pg_table_is_visible(oid)"

# What is done, how the next user would notice, what that one finds.
LEFT_BEHIND = [
    ("SET work_mem = '7MB'", "SHOW work_mem", "4MB"),
    ("SET SESSION work_mem = '7MB'", "SHOW work_mem", "4MB"),
    ("SELECT set_config('work_mem', '7MB', false)", "SHOW work_mem", "4MB"),
    ("/* why */ set work_mem to '7MB'", "SHOW work_mem", "4MB"),
    ("SET TIME ZONE 'Asia/Tokyo'", "SELECT current_setting('TimeZone') = 'Asia/Tokyo'", False),
    ("SET ROLE app", "SHOW role", "none"),
    ("SET SESSION AUTHORIZATION app", "SHOW role", "none"),
    ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SHOW default_transaction_read_only", "off"),
    ("LISTEN somebody", "SELECT count(*) FROM pg_listening_channels()", 0),
    ("SELECT pg_advisory_lock(7)", LOCKS, 0),
    ("SELECT pg_try_advisory_lock_shared(7)", LOCKS, 0),
    ("CREATE TEMP TABLE mine (x int)", TEMPORARY, 0),
    ("SELECT 1 AS x INTO TEMPORARY mine", TEMPORARY, 0),
    ("CREATE /* why */ TEMP TABLE mine (x int)", TEMPORARY, 0),
    ("SELECT 1 AS x INTO LOCAL TEMP mine", TEMPORARY, 0),
    ("SELECT '/*'; CREATE TEMP TABLE mine (x int); SELECT '*/'", TEMPORARY, 0),
    ("DO $$BEGIN SET work_mem = '7MB'; END$$", "SHOW work_mem", "4MB"),
    ("DO $$BEGIN EXECUTE 'SE' || 'T work_mem = 7168'; END$$", "SHOW work_mem", "4MB"),
    ("/* a /* b */ c */ SET work_mem = '7MB'", "SHOW work_mem", "4MB"),
    ('SELECT U&"pg\\005fadvisory_lock"(7)', LOCKS, 0),
    ("DECLARE mine CURSOR WITH HOLD FOR SELECT 1", "SELECT count(*) FROM pg_cursors", 0),
    ("SELECT 1; SET work_mem = '7MB'; LISTEN a; SELECT pg_advisory_lock(1)", "SHOW work_mem", "4MB"),
]


@both
def test_what_was_done_to_the_session_is_undone(dsn: str, kind: Kind) -> None:
    """The next user has the same session, as if new."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            session = await request(pool, "SELECT pg_backend_pid()")
            for statement, question, clean in LEFT_BEHIND:
                async with borrowed(pool) as conn:
                    await settled(conn.execute(statement))
                assert await request(pool, question) == clean, statement
            assert await request(pool, "SELECT pg_backend_pid()") == session

    asyncio.run(scenario())


@both
@pytest.mark.parametrize("statement", ["PREPARE mine AS SELECT 1", "LOAD 'plpgsql'"])
def test_what_cannot_be_undone_ends_the_session(postgres: EmbeddedPostgres, kind: Kind, statement: str) -> None:
    """The next user gets another one."""

    async def scenario() -> None:
        async with opened(kind, postgres.admin_dsn, min_size=1) as pool:
            session = await request(pool, "SELECT pg_backend_pid()")
            async with borrowed(pool) as conn:
                await settled(conn.execute(statement))
            assert await request(pool, "SELECT count(*) FROM pg_prepared_statements") == 0
            assert await request(pool, "SELECT pg_backend_pid()") != session
            assert pool.snapshot().closes == {Reason.UNCLEAN: 1}

    asyncio.run(scenario())


@both
def test_psycopg_s_own_prepared_statements_stay(dsn: str, kind: Kind) -> None:
    """They are an optimisation of the driver's, not something that a user left behind."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            async with borrowed(pool) as conn:
                await settled(conn.execute("SELECT 4711", prepare=True))
            assert await request(pool, "SELECT count(*) FROM pg_prepared_statements") == 1
            assert pool.snapshot().closes == {}

    asyncio.run(scenario())


@both
def test_a_set_that_was_rolled_back_leaves_nothing_either(dsn: str, kind: Kind) -> None:
    """Nor does one that failed."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            with pytest.raises(psycopg.Error):
                async with borrowed(pool) as conn:
                    await settled(conn.execute("SET work_mem = '7MB'"))
                    await settled(conn.execute("SET no_such_setting = 1"))
            assert await request(pool, "SHOW work_mem") == "4MB"

    asyncio.run(scenario())


@both
def test_attributes_of_the_connection_object_are_set_back(dsn: str, kind: Kind) -> None:
    """Those that psycopg offers to set: they would change what the next user's statements mean."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            async with borrowed(pool) as conn:
                cursor_factory, server_cursor_factory = conn.cursor_factory, conn.server_cursor_factory
                conn.row_factory = dict_row
                conn.cursor_factory = psycopg.RawCursor if kind is Pool else psycopg.AsyncRawCursor
                conn.server_cursor_factory = psycopg.RawServerCursor if kind is Pool else psycopg.AsyncRawServerCursor
                await settled(conn.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE))
                await settled(conn.set_read_only(True))
                await settled(conn.set_deferrable(True))
                await settled(conn.set_autocommit(True))
                used = conn
            async with borrowed(pool) as conn:
                assert conn is used
                assert conn.row_factory is tuple_row
                assert conn.cursor_factory is cursor_factory
                assert conn.server_cursor_factory is server_cursor_factory
                assert (conn.isolation_level, conn.read_only, conn.deferrable) == (None, None, None)
                assert conn.autocommit is False
                assert await ask(conn, "SHOW transaction_isolation") == "read committed"
                assert await ask(conn, "SHOW transaction_read_only") == "off"

    asyncio.run(scenario())


@both
def test_what_kwargs_and_configure_set_is_the_baseline(dsn: str, kind: Kind) -> None:
    """It is what the connection goes back to."""

    async def scenario() -> None:
        def configure(conn: Any) -> None:
            conn.row_factory = dict_row

        async with opened(kind, dsn, min_size=1, kwargs={"autocommit": True}, configure=configure) as pool:
            async with borrowed(pool) as conn:
                conn.row_factory = tuple_row
                await settled(conn.set_autocommit(False))
            async with borrowed(pool) as conn:
                assert conn.row_factory is dict_row
                assert conn.autocommit is True

    asyncio.run(scenario())


@both
def test_a_cursor_factory_that_was_changed_hides_nothing(dsn: str, kind: Kind) -> None:
    """A statement through a cursor class that the user chose is known all the same."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            async with borrowed(pool) as conn:
                conn.cursor_factory = psycopg.ClientCursor if kind is Pool else psycopg.AsyncClientCursor
                await settled(conn.execute("SET work_mem = '7MB'"))
            assert await request(pool, "SHOW work_mem") == "4MB"

    asyncio.run(scenario())


@both
def test_statements_in_a_pipeline_and_composed_ones_are_known(dsn: str, kind: Kind) -> None:
    """Not only plain text."""

    async def scenario() -> None:
        setting = sql.SQL("SET {} = {}").format(sql.Identifier("work_mem"), sql.Literal("7MB"))
        async with opened(kind, dsn, min_size=1) as pool:
            async with borrowed(pool) as conn:
                await settled(conn.execute(setting))
            assert await request(pool, "SHOW work_mem") == "4MB"
            async with borrowed(pool) as conn:
                await settled(conn.execute(b"SET work_mem = '7MB'"))
            assert await request(pool, "SHOW work_mem") == "4MB"
            async with borrowed(pool) as conn:
                if kind is Pool:
                    with conn.pipeline():
                        conn.execute("SET work_mem = '7MB'")
                else:
                    async with conn.pipeline():
                        await conn.execute("SET work_mem = '7MB'")
            assert await request(pool, "SHOW work_mem") == "4MB"

    asyncio.run(scenario())


@both
def test_a_server_cursor_that_holds_and_was_not_closed_is_gone(dsn: str, kind: Kind) -> None:
    """psycopg's own WITH HOLD is in no statement of the user's."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1, kwargs={"autocommit": True}) as pool:
            session = await request(pool, "SELECT pg_backend_pid()")
            async with borrowed(pool) as conn:
                cursor = conn.cursor("left_open", withhold=True)
                await settled(cursor.execute("SELECT generate_series(1, 9)"))
            assert await request(pool, "SELECT count(*) FROM pg_cursors") == 0
            assert await request(pool, "SELECT pg_backend_pid()") == session
            with pytest.warns(ResourceWarning, match="deleted while still open"):  # psycopg's own
                del cursor

    asyncio.run(scenario())


@both
def test_handlers_and_preparing_are_set_back(dsn: str, kind: Kind) -> None:
    """What the next user's notices and statements would run into."""

    async def scenario() -> None:
        heard: list[Any] = []
        async with opened(kind, dsn, min_size=1) as pool:
            async with borrowed(pool) as conn:
                threshold, most = conn.prepare_threshold, conn.prepared_max
                conn.prepare_threshold = None
                conn.prepared_max = 1
                conn.add_notice_handler(heard.append)
            async with borrowed(pool) as conn:
                await settled(conn.execute("DO $$ BEGIN RAISE NOTICE 'private'; END $$"))
                assert (conn.prepare_threshold, conn.prepared_max) == (threshold, most)
            assert not heard

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------ what it costs


async def last_statement(dsn: str, session: int) -> Any:
    """What the server was last told on that session, and when."""
    async with await psycopg.AsyncConnection.connect(dsn) as observer:
        cursor = await observer.execute("SELECT query, state_change FROM pg_stat_activity WHERE pid = %s", [session])
        return await cursor.fetchone()


@both
def test_an_untouched_connection_costs_no_round_trip(dsn: str, kind: Kind) -> None:
    """Taken and returned a hundred times: the server hears nothing."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            session = await request(pool, "SELECT pg_backend_pid()")
            before = await last_statement(dsn, session)
            assert before[0] == "COMMIT"
            for _ in range(100):
                async with borrowed(pool):
                    pass
            assert await last_statement(dsn, session) == before

    asyncio.run(scenario())


@both
@pytest.mark.parametrize(
    "statement", ["SELECT 1", "SET LOCAL work_mem = '7MB'", "SET TRANSACTION READ ONLY", "SELECT 'set', 'listen'"]
)
def test_what_ends_with_its_transaction_costs_nothing_more(dsn: str, kind: Kind, statement: str) -> None:
    """The COMMIT is the last that the server hears."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            async with borrowed(pool) as conn:
                session = await ask(conn, "SELECT pg_backend_pid()")
                await settled(conn.execute(statement.replace("SET TRANSACTION", "COMMIT; BEGIN; SET TRANSACTION")))
            assert (await last_statement(dsn, session))[0] == "COMMIT"

    asyncio.run(scenario())


@both
def test_only_what_was_touched_is_reset(dsn: str, kind: Kind) -> None:
    """In one round trip."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            async with borrowed(pool) as conn:
                session = await ask(conn, "SELECT pg_backend_pid()")
                await settled(conn.execute("LISTEN somebody"))
            assert (await last_statement(dsn, session))[0] == "UNLISTEN *"
            async with borrowed(pool) as conn:
                await settled(conn.execute("SET work_mem = '7MB'"))
                await settled(conn.execute("SELECT pg_advisory_lock(1)"))
            assert (await last_statement(dsn, session))[0] == "RESET ALL; SELECT pg_advisory_unlock_all()"

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------ hooks


@both
def test_configure_is_done_again_after_a_reset(dsn: str, kind: Kind) -> None:
    """What it had set is reset along with the rest; without a reset it is called once a connection."""

    async def scenario() -> None:
        calls: list[Any] = []

        def configure(conn: Any) -> Any:
            calls.append(conn)
            if kind is Pool:
                conn.execute("SET work_mem = '5MB'")
                conn.commit()
                return None
            return configure_async(conn)

        async def configure_async(conn: Any) -> None:
            await conn.execute("SET work_mem = '5MB'")
            await conn.commit()

        async with opened(kind, dsn, min_size=1, configure=configure) as pool:
            assert await request(pool, "SHOW work_mem") == "5MB"
            assert await request(pool, "SHOW work_mem") == "5MB"
            assert len(calls) == 1
            async with borrowed(pool) as conn:
                await settled(conn.execute("SET work_mem = '9MB'"))
            assert await request(pool, "SHOW work_mem") == "5MB"
            assert len(calls) == 2
            assert len(set(map(id, calls))) == 1

    asyncio.run(scenario())


@both
@pytest.mark.parametrize("how", ["leaves a transaction", "raises"])
def test_a_reset_hook_that_fails_closes_the_connection(
    dsn: str, kind: Kind, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The next user gets another one, and the log says why."""
    caplog.set_level(logging.WARNING, "penstock.pool")

    async def scenario() -> None:
        failing = [True]

        def reset(conn: Any) -> Any:
            if failing.pop() if failing else False:
                if how == "raises":
                    raise LookupError("no such thing")
                return conn.execute("SELECT 1")
            return None

        async with opened(kind, dsn, min_size=1, reset=reset) as pool:
            session = await request(pool, "SELECT pg_backend_pid()")
            assert await request(pool, "SELECT pg_backend_pid()") != session
            assert pool.snapshot().closes == {Reason.UNCLEAN: 1}

    asyncio.run(scenario())
    assert "could not be reset" in caplog.text
    assert ("no such thing" if how == "raises" else "left the connection in status INTRANS") in caplog.text


@both
def test_a_reset_hook_is_called_with_a_clean_connection(dsn: str, kind: Kind) -> None:
    """After the pool's own reset, at each return."""

    async def scenario() -> None:
        seen: list[Any] = []

        def reset(conn: Any) -> None:
            seen.append((conn.info.transaction_status.name, conn.row_factory is tuple_row))

        async with opened(kind, dsn, min_size=1, reset=reset) as pool:
            conn = await settled(pool.getconn())
            conn.row_factory = dict_row
            await settled(conn.execute("SELECT 1"))
            await settled(pool.putconn(conn))
            async with borrowed(pool):
                pass
            assert seen == [("IDLE", True), ("IDLE", True)]

    asyncio.run(scenario())


@both
def test_a_configure_that_leaves_a_transaction_is_named(dsn: str, kind: Kind) -> None:
    """No connection is ever handed out so; requests are told why."""

    async def scenario() -> None:
        def configure(conn: Any) -> Any:
            result = conn.execute("SELECT 1")
            return None if kind is Pool else result

        async with opened(kind, dsn, wait=False, min_size=1, configure=configure) as pool:
            with pytest.raises(DatabaseUnavailable, match=r"configure=.* left the connection in status INTRANS"):
                await request(pool, timeout=10)

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------ transactions


@pytest.fixture
def table(dsn: str) -> Any:
    """A table of one column, for one test."""
    name = f"t_{uuid4().hex}"
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(f"CREATE TABLE {name} (x int)")
        yield name
        conn.execute(f"DROP TABLE {name}")


@both
@pytest.mark.parametrize("autocommit", [False, True])
@pytest.mark.parametrize("block", [borrowed, in_transaction])
def test_a_block_commits_or_rolls_back(dsn: str, table: str, kind: Kind, autocommit: bool, block: Any) -> None:
    """Committed at its end, rolled back if it raises; in autocommit `transaction()` does so, `connection()` cannot."""

    async def scenario() -> None:
        count = f"SELECT count(*) FROM {table}"
        async with opened(kind, dsn, min_size=1, kwargs={"autocommit": autocommit}) as pool:
            async with block(pool) as conn:
                await settled(conn.execute(f"INSERT INTO {table} VALUES (1)"))
            assert await request(pool, count) == 1
            with pytest.raises(LookupError):
                async with block(pool) as conn:
                    await settled(conn.execute(f"INSERT INTO {table} VALUES (2)"))
                    raise LookupError
            rolled_back = block is in_transaction or not autocommit
            assert await request(pool, count) == (1 if rolled_back else 2)
            assert pool.snapshot().idle == 1

    asyncio.run(scenario())


@both
def test_a_transaction_left_open_is_rolled_back(
    dsn: str, table: str, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    """With a line in the log; healthy or failed."""
    caplog.set_level(logging.WARNING, "penstock.pool")

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            for statement in ("SELECT 1", "SELECT no_such_column"):
                conn = await settled(pool.getconn())
                await settled(conn.execute(f"INSERT INTO {table} VALUES (1)"))
                try:
                    await settled(conn.execute(statement))
                except psycopg.Error:
                    pass
                await settled(pool.putconn(conn))
            assert await request(pool, f"SELECT count(*) FROM {table}") == 0
            assert pool.snapshot().closes == {}

    asyncio.run(scenario())
    assert caplog.text.count("rolling back a transaction left open") == 2


@both
def test_a_failed_commit_reaches_the_user_and_loses_nothing(dsn: str, table: str, kind: Kind) -> None:
    """A deferred constraint speaks up at the very end."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            async with borrowed(pool) as conn:
                await settled(conn.execute(f"ALTER TABLE {table} ADD UNIQUE (x) DEFERRABLE INITIALLY DEFERRED"))
            with pytest.raises(psycopg.errors.UniqueViolation):
                async with borrowed(pool) as conn:
                    await settled(conn.execute(f"INSERT INTO {table} VALUES (1), (1)"))
            assert await request(pool, f"SELECT count(*) FROM {table}") == 0

    asyncio.run(scenario())


@both
def test_a_connection_returned_while_a_statement_runs_is_closed(postgres: EmbeddedPostgres, kind: Kind) -> None:
    """And the statement stopped on the server: nobody waits for its end any more."""
    running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT generate_series%' AND state = 'active'"

    async def scenario() -> None:
        async with opened(kind, postgres.dsn, min_size=1) as pool:
            conn = await settled(pool.getconn())
            stream = conn.cursor().stream("SELECT generate_series(1, 100000000)")
            assert (await anext(stream) if kind is not Pool else next(stream)) == (1,)
            await settled(pool.putconn(conn))
            assert await request(pool, timeout=5) == 1
            assert pool.snapshot().closes == {Reason.BUSY: 1}
            with postgres.admin() as admin:
                await soon(lambda: admin.execute(running).fetchone() == (0,))
            with suppress(psycopg.Error):  # its end finds the connection closed
                await settled(stream.close() if kind is Pool else stream.aclose())

    asyncio.run(scenario())
