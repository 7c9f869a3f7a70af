"""psycopg2: what its users can do to a connection, and what its pool can do without a round trip."""

import asyncio
import io
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg2
import psycopg2.errorcodes
import psycopg2.extensions
import psycopg2.extras
import pytest
from psycopg2 import sql

import penstock
from penstock import AsyncPool, Pool
from penstock.core import Reason
from penstock.drill.postgres import EmbeddedPostgres
from penstock.pool.steps import run


def opened(dsn: str, **options: Any) -> Pool[Any]:
    pool: Pool[Any] = Pool(dsn, driver="psycopg2", min_size=1, open=True, **options)
    pool.wait(10)
    return pool


def ask(conn: Any, statement: Any, *params: Any) -> Any:
    cursor = conn.cursor()
    cursor.execute(statement, params or None)
    return cursor.fetchone()[0]


def request(pool: Pool[Any], statement: str) -> Any:
    with pool.connection() as conn:
        return ask(conn, statement)


# ------------------------------------------------------------------------------------------ returned clean


def test_attributes_of_the_connection_are_set_back(dsn: str) -> None:
    """Those that psycopg2 offers to set: they would change what the next user's statements mean."""
    with opened(dsn) as pool:
        with pool.connection() as conn:
            used = conn
            conn.set_client_encoding("LATIN1")
            conn.set_session(isolation_level="SERIALIZABLE", readonly=True, deferrable=True)
            conn.cursor_factory = psycopg2.extras.DictCursor
        with pool.connection() as conn:
            assert conn is used
            assert (conn.encoding, ask(conn, "SHOW client_encoding")) == ("UTF8", "UTF8")
            assert (conn.isolation_level, conn.readonly, conn.deferrable) == (None, None, None)
            assert conn.cursor_factory is None
            assert ask(conn, "SHOW transaction_isolation") == "read committed"
            assert ask(conn, "SHOW transaction_read_only") == "off"
        with pool.connection() as conn:
            conn.autocommit = True
            conn.isolation_level = "SERIALIZABLE"  # in autocommit a setting of the session
        with pool.connection() as conn:
            assert conn is used
            assert conn.autocommit is False
            assert ask(conn, "SHOW default_transaction_isolation") == "read committed"
        assert pool.snapshot().closes == {}


def test_what_was_registered_or_heard_is_not_the_next_user_s(dsn: str) -> None:
    """Type casters of the connection, notices, notifications."""
    as_text = psycopg2.extensions.new_type((23,), "AS_TEXT", lambda value, cursor: f"<{value}>")
    with opened(dsn) as pool:
        with pool.connection() as conn:
            psycopg2.extensions.register_type(as_text, conn)
            assert ask(conn, "SELECT 1") == "<1>"
            conn.cursor().execute("DO $$ BEGIN RAISE NOTICE 'private'; END $$")
            assert conn.notices
        with pool.connection() as conn:
            assert ask(conn, "SELECT 1") == 1
            assert not conn.notices


def test_a_commit_sent_as_text_ends_the_transaction_for_the_next_user_too(dsn: str) -> None:
    """psycopg2 itself does not see it, and would send no BEGIN: a rollback would take nothing back."""
    with opened(dsn) as pool:
        with pool.connection() as conn:
            used = conn
            conn.cursor().execute("CREATE TABLE committed_as_text (x int)")
            conn.cursor().execute("COMMIT")
        with pool.connection() as conn:
            assert conn is used
            conn.cursor().execute("INSERT INTO committed_as_text VALUES (1)")
            conn.rollback()
            assert ask(conn, "SELECT count(*) FROM committed_as_text") == 0
            assert not conn.notices
        assert pool.snapshot().closes == {}


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_a_transaction_prepared_and_left_is_not_the_next_user_s(
    own_postgres: Callable[..., EmbeddedPostgres], monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    """Such a connection does nothing but end it: it is closed. One that has ended it is lent again."""
    monkeypatch.setitem(penstock.drill.postgres._SETTINGS, "max_prepared_transactions", "5")
    postgres = own_postgres()
    with Pool(postgres.dsn, driver=driver, min_size=1, max_size=1, open=True) as pool:
        for ended in (True, False):
            conn = pool.getconn()
            conn.tpc_begin(conn.xid(1, f"global {ended}", "branch"))
            conn.cursor().execute("SELECT txid_current()")
            conn.tpc_prepare()
            if ended:
                conn.tpc_commit()
            pool.putconn(conn)
            with pool.connection() as conn:
                conn.cursor().execute("SELECT 1")
                conn.commit()
            assert pool.snapshot().closes == ({} if ended else {Reason.UNCLEAN: 1})


def declared(conn: Any) -> Any:
    return conn.cursor("held", withhold=True)


def declared_afterwards(conn: Any) -> Any:
    cursor = conn.cursor("held", cursor_factory=psycopg2.extras.DictCursor)
    cursor.withhold = True
    return cursor


@pytest.mark.parametrize("declare", [declared, declared_afterwards])
def test_a_cursor_with_hold_is_closed(dsn: str, declare: Callable[[Any], Any]) -> None:
    """It outlives its transaction, and psycopg2 says WITH HOLD by itself."""
    with opened(dsn) as pool:
        with pool.connection() as conn:
            used = conn
            declare(conn).execute("SELECT generate_series(1, 5)")
        with pool.connection() as conn:
            assert conn is used
            assert ask(conn, "SELECT count(*) FROM pg_cursors WHERE is_holdable") == 0
        assert pool.snapshot().closes == {}


# ------------------------------------------------------------------------------------------ stopped


def test_a_server_that_does_not_answer_a_cancel_holds_up_no_thread(
    own_postgres: Callable[..., EmbeddedPostgres],
) -> None:
    """psycopg2's own cancel keeps the GIL until it has: no thread of the process would run."""
    postgres = own_postgres()
    postmaster = int((postgres._data / "postmaster.pid").read_text().split()[0])
    ended: list[str | None] = []

    def work(conn: Any) -> None:
        try:
            conn.cursor().execute("SELECT pg_sleep(30)")
        except psycopg2.Error as error:
            ended.append(error.pgcode)

    with opened(postgres.dsn) as pool:
        conn = pool.getconn()
        thread = threading.Thread(target=work, args=(conn,))
        thread.start()
        with postgres.admin() as admin:
            count = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)' AND state = 'active'"
            while admin.execute(count).fetchone() != (1,):
                pass
        os.kill(postmaster, signal.SIGSTOP)
        # Who lets it go on: another process, as in this one no thread may run.
        with subprocess.Popen(["sh", "-c", f"sleep 5; kill -CONT {postmaster}"]) as later:
            run(pool._driver.cancel(conn, 0.05))
            in_time = later.poll() is None
            later.kill()
        os.kill(postmaster, signal.SIGCONT)
        assert in_time
        thread.join(10)
        assert ended == [psycopg2.errorcodes.QUERY_CANCELED]
        pool.putconn(conn)


def test_what_kwargs_and_configure_set_is_the_baseline(dsn: str) -> None:
    """It is what the connection goes back to."""

    def configure(conn: Any) -> None:
        conn.autocommit = True
        conn.cursor_factory = psycopg2.extras.RealDictCursor

    with opened(dsn, configure=configure, kwargs={"application_name": "mine"}) as pool:
        with pool.connection() as conn:
            conn.autocommit = False
            conn.cursor_factory = None
        with pool.connection() as conn:
            assert (conn.autocommit, conn.cursor_factory) == (True, psycopg2.extras.RealDictCursor)
            cursor = conn.cursor()
            cursor.execute("SHOW application_name")
            assert cursor.fetchone() == {"application_name": "mine"}


def by_execute(conn: Any) -> None:
    conn.cursor().execute("SET work_mem = '7MB'")


def by_bytes(conn: Any) -> None:
    conn.cursor().execute(b"SET work_mem = '7MB'")


def by_composed(conn: Any) -> None:
    conn.cursor().execute(sql.SQL("SET {} = {}").format(sql.Identifier("work_mem"), sql.Literal("7MB")))


def by_executemany(conn: Any) -> None:
    conn.cursor().executemany("SET work_mem = %s", [("7MB",)])


def by_callproc(conn: Any) -> None:
    conn.cursor().callproc("set_config", ["work_mem", "7MB", False])


def by_another_cursor_class(conn: Any) -> None:
    conn.cursor(cursor_factory=psycopg2.extras.NamedTupleCursor).execute("SET work_mem = '7MB'")


def by_a_function_that_makes_cursors(conn: Any) -> None:
    conn.cursor(cursor_factory=lambda *args: psycopg2.extensions.cursor(*args)).execute("SET work_mem = '7MB'")


@pytest.mark.parametrize(
    "way",
    [
        by_execute,
        by_bytes,
        by_composed,
        by_executemany,
        by_callproc,
        by_another_cursor_class,
        by_a_function_that_makes_cursors,
    ],
)
@pytest.mark.parametrize("cls", [None, psycopg2.extras.DictConnection])
def test_a_statement_is_seen_whichever_way_it_is_sent(dsn: str, way: Callable[[Any], None], cls: Any) -> None:
    """Whatever class of connection makes whatever class of cursor."""
    with opened(dsn, connection_class=cls) as pool:
        with pool.connection() as conn:
            way(conn)
            assert ask(conn, "SHOW work_mem") == "7MB"
            if cls is not None:
                assert isinstance(conn, cls)
                assert isinstance(conn.cursor(), psycopg2.extras.DictCursor)
        assert request(pool, "SHOW work_mem") == "4MB"
        assert pool.snapshot().closes == {}


def test_an_untouched_connection_costs_no_round_trip(postgres: EmbeddedPostgres) -> None:
    """Taken and returned a hundred times: the server hears nothing. Nor of one that was composed and not touched."""
    with opened(postgres.dsn) as pool, postgres.admin() as admin:
        with pool.connection() as conn:
            session = conn.info.backend_pid
            conn.cursor().execute(sql.SQL("SELECT {}").format(sql.Literal(1)))
        told = "SELECT query, state_change FROM pg_stat_activity WHERE pid = %s"
        before = admin.execute(told, [session]).fetchone()
        assert before is not None
        assert before[0] == "COMMIT"
        for _ in range(100):
            with pool.connection():
                pass
        assert admin.execute(told, [session]).fetchone() == before


def test_with_conn_keeps_psycopg2_s_meaning(dsn: str) -> None:
    """It is a transaction, at whose end the connection stays."""
    with opened(dsn) as pool, pool.connection() as conn:
        conn.cursor().execute("CREATE TEMP TABLE mine (x int)")
        conn.commit()
        with pytest.raises(ZeroDivisionError), conn:
            conn.cursor().execute("INSERT INTO mine VALUES (1)")
            raise ZeroDivisionError
        with conn:
            assert ask(conn, "SELECT count(*) FROM mine") == 0
        assert not conn.closed


# ------------------------------------------------------------------------------------------ told by the server


def test_a_notification_is_no_sign_of_the_end(postgres: EmbeddedPostgres) -> None:
    """The connection that got one while it was idle serves on."""
    with opened(postgres.dsn, configure=lambda conn: None) as pool:
        conn = pool.getconn()
        cursor = psycopg2.extensions.connection.cursor(conn, cursor_factory=psycopg2.extensions.cursor)
        cursor.execute("LISTEN somebody")  # past what takes note
        conn.commit()
        pool.putconn(conn)
        with postgres.admin() as admin:
            admin.execute("NOTIFY somebody")
        for _ in range(3):
            assert request(pool, "SELECT 1") == 1
        assert pool.snapshot().closes == {}


def test_the_pool_s_limits_begin_with_the_session(dsn: str) -> None:
    """And leave the user's own `options` as they are."""
    limits = {"statement_timeout": 7.0, "idle_in_transaction_timeout": 8.5}
    with opened(dsn, kwargs={"options": "-c work_mem=9MB"}, **limits) as pool:
        assert request(pool, "SHOW statement_timeout") == "7s"
        assert request(pool, "SHOW idle_in_transaction_session_timeout") == "8500ms"
        assert request(pool, "SHOW work_mem") == "9MB"


def test_a_server_that_turned_read_only_is_left(own_postgres: Callable[..., EmbeddedPostgres]) -> None:
    """The write fails once; nobody has that connection again."""
    server = own_postgres()
    with opened(server.dsn) as pool:
        with server.admin() as admin:
            admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            admin.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 10
        while not pool.snapshot().closes and time.monotonic() < deadline:
            try:
                with pool.connection() as conn:
                    conn.cursor().execute("CREATE TABLE mine (x int)")
                    conn.rollback()
            except psycopg2.errors.ReadOnlySqlTransaction:
                pass
        assert pool.snapshot().closes == {Reason.READ_ONLY: 1}


# ------------------------------------------------------------------------------------------ in time


def ends(conn: Any, execute: Callable[[], object]) -> None:
    started = time.monotonic()
    with pytest.raises(psycopg2.errors.QueryCanceled):
        execute()
    assert time.monotonic() - started < 1
    conn.rollback()


def test_a_deadline_bounds_each_way_to_begin_a_transaction(dsn: str) -> None:
    """Text, bytes, composed; many at once; a server-side cursor. Autocommit has no transaction to bound."""
    slow = "SELECT pg_sleep(5)"
    with opened(dsn) as pool, penstock.deadline(0.6), pool.connection() as conn:
        assert ask(conn, "SHOW statement_timeout") != "0"
        conn.rollback()
        ends(conn, lambda: conn.cursor().execute(slow))
    with opened(dsn) as pool:
        for execute in (
            lambda conn: conn.cursor().execute(slow.encode()),
            lambda conn: conn.cursor().execute(sql.SQL(slow)),
            lambda conn: conn.cursor().executemany("SELECT pg_sleep(%s)", [(5,)]),
            lambda conn: conn.cursor().callproc("pg_sleep", [5]),
            lambda conn: conn.cursor().copy_expert(f"COPY ({slow}) TO STDOUT", io.StringIO()),
            lambda conn: conn.cursor("named").execute("SELECT 1") or conn.cursor().execute(slow),
        ):
            with penstock.deadline(0.2), pool.connection() as conn:
                ends(conn, lambda execute=execute, conn=conn: execute(conn))  # type: ignore[misc]
        assert request(pool, "SHOW statement_timeout") == "0"
        assert pool.snapshot().closes == {}


def test_a_session_s_own_limit_is_kept_when_it_is_the_shorter(dsn: str) -> None:
    """And one that its user sets is asked for again."""
    with opened(dsn, statement_timeout=0.1) as pool, penstock.deadline(30), pool.connection() as conn:
        assert ask(conn, "SHOW statement_timeout") == "100ms"
        conn.commit()
        conn.cursor().execute("SET statement_timeout = '50ms'")
        conn.commit()
        assert ask(conn, "SHOW statement_timeout") == "50ms"


def test_what_was_declared_to_read_only_reads(dsn: str) -> None:
    """For that lease alone."""
    from penstock.pool.terms import reading

    with opened(dsn) as pool:
        with reading(), pool.connection() as conn:
            conn.autocommit = True
            assert ask(conn, "SHOW transaction_read_only") == "on"
        assert request(pool, "SHOW transaction_read_only") == "off"
        assert pool.snapshot().closes == {}


def by_copy_from(conn: Any) -> None:
    conn.cursor().copy_from(io.StringIO("1\n"), "read_only_all_the_same")


def by_a_large_object(conn: Any) -> None:
    conn.lobject(0, "w")


def by_a_cursor_that_is_not_seen(conn: Any) -> None:
    cursor = conn.cursor(cursor_factory=lambda *args, **kwargs: psycopg2.extensions.cursor(*args, **kwargs))
    cursor.execute("INSERT INTO read_only_all_the_same VALUES (1)")


def in_two_phases(conn: Any) -> None:
    conn.tpc_begin(conn.xid(1, "global", "branch"))
    conn.cursor().execute("INSERT INTO read_only_all_the_same VALUES (1)")


@pytest.mark.parametrize("write", [by_copy_from, by_a_large_object, by_a_cursor_that_is_not_seen, in_two_phases])
def test_no_way_to_begin_a_transaction_writes_where_reading_was_declared(
    dsn: str, write: Callable[[Any], None]
) -> None:
    """psycopg2 begins one by itself with more than a cursor's execute."""
    from penstock.pool.terms import reading

    with opened(dsn) as pool:
        with pool.connection() as conn:
            conn.cursor().execute("CREATE TABLE IF NOT EXISTS read_only_all_the_same (x int)")
        with pytest.raises(psycopg2.Error, match="read-only transaction"), reading(), pool.connection() as conn:
            write(conn)
        assert request(pool, "SELECT count(*) FROM read_only_all_the_same") == 0


def test_the_event_loop_does_not_say_what_binds_a_lease(dsn: str) -> None:
    """psycopg2 waits there for a lock, and in autocommit for the server."""
    from penstock.pool.terms import reading

    where: list[str] = []

    class Recorded(psycopg2.extensions.connection):  # type: ignore[misc]
        def set_session(self, *args: Any, **kwargs: Any) -> None:
            where.append(threading.current_thread().name)
            super().set_session(*args, **kwargs)

    async def scenario() -> None:
        pool: AsyncPool[Any]
        async with AsyncPool(dsn, driver="psycopg2", connection_class=Recorded, min_size=1, open=False) as pool:
            with reading():
                async with pool.connection() as conn:
                    cursor = await conn.execute("SHOW transaction_read_only")
                    assert await cursor.fetchone() == ("on",)

    asyncio.run(scenario())
    assert set(where) == {"penstock-connection"}


# ------------------------------------------------------------------------------------------ wrong arguments


def test_its_own_asynchronous_mode_is_refused(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """With what to do instead."""
    with Pool(dsn, driver="psycopg2", kwargs={"async_": 1}, open=True) as pool:
        with pytest.raises(penstock.DatabaseUnavailable, match=r"AsyncPool\(driver='psycopg2'\) gives each"):
            pool.getconn(timeout=2)
    assert "leave it out" in caplog.text


def test_wrong_arguments_are_named_and_no_secret_is_shown() -> None:
    """At once, in the constructor."""
    with pytest.raises(ValueError, match="conninfo does not parse") as refused:
        Pool("host=x pass word=s3cret", driver="psycopg2", open=False)
    assert "s3cret" not in str(refused.value)
    with pytest.raises(TypeError, match=r"psycopg2\.extensions\.connection"):
        Pool("", driver="psycopg2", connection_class=dict, open=False)
    with pytest.raises(ValueError, match="'psycopg2'"):
        AsyncPool("", driver="psycopg4", open=False)


def test_logs_show_no_password(postgres: EmbeddedPostgres, caplog: pytest.LogCaptureFixture) -> None:
    """psycopg2 hides it in what a connection shows of itself; so nothing of ours shows more."""
    caplog.set_level(logging.DEBUG, "penstock")
    with opened(postgres.dsn) as pool, pool.connection() as conn:
        conn.close()
    password = psycopg2.extensions.parse_dsn(postgres.dsn)["password"]
    assert caplog.text
    assert password not in caplog.text
