"""SQLite: a pool without a server, which gives each connection back as it was."""

import gc
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import Pool
from penstock.core import Reason
from penstock.drivers.base import Status


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "database")


def opened(file: str, **options: Any) -> Pool[Any]:
    pool: Pool[Any] = Pool(file, driver="sqlite3", min_size=1, open=True, **options)
    pool.wait(10)
    return pool


@pytest.mark.parametrize(
    "database", [":memory:", "file::memory:", "file:mine?mode=memory", "file::memory:?cache=private"]
)
def test_a_database_of_each_connection_s_own_is_refused(database: str) -> None:
    """It would seem to lose what was written."""
    with pytest.raises(ValueError, match="'file:name\\?mode=memory&cache=shared', or a file"):
        Pool(database, driver="sqlite3", open=False)


def test_a_shared_database_in_memory_lives_as_long_as_its_pool() -> None:
    """Also while the pool has no connection at all."""
    shared = "file:lives_as_long?mode=memory&cache=shared"
    with opened(shared) as pool:
        with pool.connection() as conn:
            conn.execute("CREATE TABLE t (x)")
            conn.execute("INSERT INTO t VALUES (1)")
        pool.drain()
        with pool.connection() as conn:
            assert conn.execute("SELECT x FROM t").fetchall() == [(1,)]
    del pool, conn
    gc.collect()
    with opened(shared) as pool, pool.connection() as conn, pytest.raises(sqlite3.OperationalError):
        conn.execute("SELECT x FROM t")


def test_check_same_thread_is_refused_and_a_missing_file_named(file: str, caplog: pytest.LogCaptureFixture) -> None:
    """A pool lends to one thread after another."""
    with Pool(file, driver="sqlite3", kwargs={"check_same_thread": True}, open=True) as pool:
        with pytest.raises(penstock.DatabaseUnavailable, match="check_same_thread"):
            pool.getconn(timeout=2)
    with Pool("", driver="sqlite3", open=True) as pool, pytest.raises(penstock.DatabaseUnavailable, match="a file"):
        pool.getconn(timeout=2)
    with pytest.raises(TypeError, match=r"sqlite3\.Connection"):
        Pool(file, driver="sqlite3", connection_class=dict, open=False)


def test_attributes_are_set_back_to_what_kwargs_and_configure_set(file: str) -> None:
    """Row factory, text factory, isolation level."""

    def configure(conn: Any) -> None:
        conn.row_factory = sqlite3.Row

    with opened(file, kwargs={"isolation_level": "IMMEDIATE", "timeout": 0.5}, configure=configure) as pool:
        with pool.connection() as conn:
            used = conn
            assert conn.execute("PRAGMA busy_timeout").fetchone()[0] == 500
            conn.isolation_level = None
            conn.row_factory = None
            conn.text_factory = bytes
        with pool.connection() as conn:
            assert conn is used
            assert (conn.isolation_level, conn.row_factory, conn.text_factory) == ("IMMEDIATE", sqlite3.Row, str)
        assert pool.snapshot().closes == {}


def script(conn: Any) -> None:
    conn.executescript("SELECT 1; PRAGMA foreign_keys = 1;")


def directly(conn: Any) -> None:
    conn.execute("PRAGMA foreign_keys = 1")


def by_a_cursor(conn: Any) -> None:
    conn.cursor().execute("PRAGMA foreign_keys = 1")


def by_a_cursor_class(conn: Any) -> None:
    class Mine(sqlite3.Cursor):
        pass

    assert isinstance(conn.cursor(Mine), Mine)
    conn.cursor(Mine).execute("PRAGMA foreign_keys = 1")


def by_a_function_that_makes_cursors(conn: Any) -> None:
    conn.cursor(lambda conn: sqlite3.Cursor(conn)).execute("PRAGMA foreign_keys = 1")


@pytest.mark.parametrize("way", [script, directly, by_a_cursor, by_a_cursor_class, by_a_function_that_makes_cursors])
def test_a_pragma_is_seen_whichever_way_it_is_sent(file: str, way: Callable[[Any], None]) -> None:
    """And set back; nothing is closed for it."""
    with opened(file) as pool:
        with pool.connection() as conn:
            way(conn)
            assert conn.execute("PRAGMA foreign_keys").fetchone() == (1,)
        with pool.connection() as conn:
            assert conn.execute("PRAGMA foreign_keys").fetchone() == (0,)
        assert pool.snapshot().closes == {}


@pytest.mark.parametrize(
    "give",
    [
        lambda conn: conn.create_function("mine", 0, lambda: 1),
        lambda conn: conn.set_trace_callback(print),
        lambda conn: conn.set_progress_handler(lambda: 0, 1000),
    ],
)
def test_what_cannot_be_taken_from_a_connection_ends_it(file: str, give: Callable[[Any], None]) -> None:
    """Functions, collations, callbacks. What `configure` gives stays."""
    with opened(file, configure=lambda conn: conn.create_function("ours", 0, lambda: 42)) as pool:
        with pool.connection() as conn:
            give(conn)
        with pool.connection() as conn:
            assert conn.execute("SELECT ours()").fetchone() == (42,)
            with pytest.raises(sqlite3.OperationalError):
                conn.execute("SELECT mine()")
        assert pool.snapshot().closes == {Reason.UNCLEAN: 1}


def test_views_and_databases_beside_the_file_go(file: str) -> None:
    """With all the rest that the next user would stumble over."""
    with opened(file) as pool:
        with pool.connection() as conn:
            conn.execute('CREATE TEMP TABLE "a ""quoted"" one" (x)')
            conn.execute('CREATE TEMP VIEW mine AS SELECT x FROM "a ""quoted"" one"')
            conn.execute('CREATE TEMP TRIGGER t AFTER INSERT ON "a ""quoted"" one" BEGIN SELECT 1; END')
            conn.commit()
            conn.execute("ATTACH ':memory:' AS \"an other\"")
        with pool.connection() as conn:
            assert conn.execute("SELECT name FROM sqlite_temp_master").fetchall() == []
            assert [row[1] for row in conn.execute("PRAGMA database_list")] in (["main"], ["main", "temp"])
        assert pool.snapshot().closes == {}


def test_what_was_declared_to_read_only_reads(file: str) -> None:
    """For that lease alone."""
    from penstock.pool.terms import reading

    with opened(file) as pool:
        with reading(), pool.connection() as conn, pytest.raises(sqlite3.OperationalError, match="readonly"):
            conn.execute("CREATE TABLE t (x)")
        with pool.connection() as conn:
            conn.execute("CREATE TABLE t (x)")
        assert pool.snapshot().closes == {}


def test_who_reads_only_and_says_otherwise_changes_nothing_for_the_next(file: str) -> None:
    """The handle is told so again for who reads only, and not for who writes, in whichever way."""
    from penstock.pool.terms import reading

    with opened(file, kwargs={"isolation_level": "IMMEDIATE"}) as pool:
        with pool.connection() as conn:
            conn.execute("CREATE TABLE t (x)")
        with reading(), pool.connection() as conn:
            conn.execute("PRAGMA query_only = 0")
        with reading(), pool.connection() as conn, pytest.raises(sqlite3.OperationalError, match="readonly"):
            conn.execute("INSERT INTO t VALUES (1)")
        with pool.transaction() as conn:
            conn.execute("INSERT INTO t VALUES (2)")
        with pool.connection() as conn:
            assert conn.execute("SELECT x FROM t").fetchall() == [(2,)]
        assert pool.snapshot().closes == {}


@pytest.mark.parametrize("terms", ["reading()", "penstock.deadline(60)"])
def test_what_bound_a_lease_is_let_go_while_its_statement_runs(file: str, terms: str) -> None:
    """The handle is its thread's: who takes it at its mutex waits with the GIL, which that thread may want."""
    program = f"""
import asyncio, logging, penstock, threading
from penstock.pool.terms import reading
logging.disable()
begun, go_on = threading.Event(), threading.Event()

def work():
    begun.set()
    print(go_on.wait(10), flush=True)

async def main():
    pool = penstock.AsyncPool({file!r}, driver="sqlite3", min_size=1, open=False,
        configure=lambda conn: conn.run(lambda raw: raw.create_function("work", 0, work)))
    async with pool:
        with {terms}:
            conn = await pool.getconn()
            task = asyncio.create_task(conn.execute("SELECT work()"))
            while not begun.is_set():
                await asyncio.sleep(0.001)
            giving = asyncio.create_task(pool.putconn(conn))
            await asyncio.sleep(0)
        go_on.set()
        await giving
        await asyncio.wait([task])

asyncio.run(main())
"""
    # A process of its own: with the fault none of its threads ever runs again.
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=30)
    assert ended.stdout == "True\n", ended.stderr


@pytest.mark.parametrize(
    "fetch",
    [
        lambda rows: [rows.fetchone(), rows.fetchone()],
        lambda rows: rows.fetchmany(2),
        lambda rows: rows.fetchall(),
        lambda rows: list(rows),
    ],
)
def test_a_statement_runs_while_its_rows_are_fetched(file: str, fetch: Callable[[Any], Any]) -> None:
    """Who looks for connections held in idleness would take it from a holder that works."""
    begun, go_on = threading.Event(), threading.Event()

    def work(number: int) -> int:
        if number == 2:
            begun.set()
            go_on.wait(10)
        return number

    with opened(file, configure=lambda conn: conn.create_function("work", 1, work)) as pool:
        with pool.connection() as conn:
            rows = conn.execute("SELECT work(n) FROM (SELECT 1 AS n UNION ALL SELECT 2)")
            before = pool._driver.activity(conn).ended
            fetched: list[Any] = []
            thread = threading.Thread(target=lambda: fetched.extend(fetch(rows)))
            thread.start()
            assert begun.wait(10)
            assert pool._driver.status(conn) is Status.ACTIVE
            go_on.set()
            thread.join()
            assert fetched == [(1,), (2,)]
            assert pool._driver.status(conn) is Status.IDLE
            assert pool._driver.activity(conn).ended > before
        assert pool.snapshot().closes == {}


def test_a_deadline_and_a_progress_handler_of_configure_s_are_both_asked(file: str) -> None:
    """Neither takes the other's place."""
    calls: list[int] = []
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    with opened(file, configure=lambda conn: conn.set_progress_handler(lambda: calls.append(1), 100)) as pool:
        with penstock.deadline(0.05), pool.connection() as conn:
            with pytest.raises(sqlite3.OperationalError, match="interrupted"):
                conn.execute(endless)
            assert calls
            conn.set_progress_handler(None, 0)
            with pytest.raises(sqlite3.OperationalError, match="interrupted"):
                conn.execute(endless)


def test_a_progress_handler_of_configure_s_outlives_a_deadline(file: str) -> None:
    """It is asked for as long as the connection lives."""
    calls: list[int] = []
    with opened(file, configure=lambda conn: conn.set_progress_handler(lambda: calls.append(1), 10)) as pool:
        with penstock.deadline(5), pool.connection() as conn:
            conn.execute("SELECT 1").fetchall()
        calls.clear()
        with pool.connection() as conn:
            conn.execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 99) SELECT max(i) FROM n"
            )
        assert calls


def test_two_writers_wait_for_one_another(file: str) -> None:
    """A commit that finds the file locked fails, and leaves no transaction to the next."""
    with Pool(file, driver="sqlite3", min_size=2, kwargs={"timeout": 0.01}, open=True) as pool:
        with pool.connection() as conn:
            conn.execute("CREATE TABLE t (x)")
        reader, writer = pool.getconn(), pool.getconn()
        rows = reader.execute("SELECT 1 FROM sqlite_master, sqlite_master")
        with pytest.raises(sqlite3.OperationalError, match="locked"), pool._driver.transaction(writer):
            writer.execute("INSERT INTO t VALUES (1)")
        rows.close()
        pool.putconn(writer)
        pool.putconn(reader)
        with pool.connection() as conn:
            assert not conn.in_transaction
            assert conn.execute("SELECT count(*) FROM t").fetchone() == (0,)
        assert pool.snapshot().closes == {}


def test_a_child_that_ends_in_order_rolls_nothing_of_the_parent_s_back(file: str) -> None:
    """An interpreter's end takes all objects down: the parent's handle must not be among them."""
    program = f"""
import os, sys, penstock
with penstock.Pool({file!r}, driver="sqlite3", min_size=2, open=True) as pool:
    pool.wait()
    with pool.connection() as conn:
        conn.execute("CREATE TABLE t (x)")
        conn.commit()
        conn.execute("INSERT INTO t VALUES (1)")
        if os.fork() == 0:
            try:
                conn.execute("INSERT INTO t VALUES (2)")
            except penstock.drivers.sqlite3.sqlite3.ProgrammingError as error:
                print(error)
            conn = None
            sys.exit(0)
        os.wait()
    with pool.connection() as conn:
        print(conn.execute("SELECT x FROM t").fetchall())
"""
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.stdout.splitlines() == [
        "this connection is the parent process's: take one from the pool",
        "[(1,)]",
    ], ended.stderr


@pytest.mark.skipif(sys.version_info < (3, 12), reason="came with Python 3.12")
def test_autocommit_false_which_always_has_a_transaction(file: str) -> None:
    """PEP 249's own way: one that is merely open is no reason to do anything."""
    with opened(file, kwargs={"autocommit": False}) as pool:
        with pool.connection() as conn:
            used = conn
            conn.execute("CREATE TABLE t (x)")
        conn = pool.getconn()
        conn.execute("INSERT INTO t VALUES (1)")
        pool.putconn(conn)
        with pool.transaction() as conn:
            assert conn is used
            assert conn.execute("SELECT count(*) FROM t").fetchone() == (0,)
            conn.execute("INSERT INTO t VALUES (1)")
        with pool.connection() as conn:
            assert conn.execute("SELECT count(*) FROM t").fetchone() == (1,)
        assert pool.snapshot().closes == {}


@pytest.fixture
def numbers(file: str) -> str:
    """A file with a table."""
    with closing(sqlite3.connect(file)) as conn:
        conn.execute("CREATE TABLE numbers (x)")
    return file


def write_elsewhere(file: str) -> None:
    """As any other writer, who waits for nobody."""
    with closing(sqlite3.connect(file, timeout=0)) as conn, conn:
        conn.execute("INSERT INTO numbers VALUES (9)")


def test_one_that_is_taken_back_keeps_no_lock(numbers: str) -> None:
    """The garbage collector may come late: writers do not wait for it."""
    gc.disable()
    try:
        with opened(numbers, max_size=1) as pool:

            def forget() -> None:
                conn = pool.getconn()
                conn.execute("BEGIN IMMEDIATE")
                conn.execute("INSERT INTO numbers VALUES (1)")
                conn.myself = conn  # which keeps it until the collector comes

            thread = threading.Thread(target=forget)
            thread.start()
            thread.join()
            with pool.connection(timeout=5) as conn:
                assert conn.execute("SELECT count(*) FROM numbers").fetchone() == (0,)
            write_elsewhere(numbers)
    finally:
        gc.enable()
        gc.collect()


def test_one_that_is_taken_back_from_a_holder_does_nothing_more(numbers: str) -> None:
    """Who comes back to it gets an error, and has no lock."""
    with opened(numbers, max_size=1) as pool:
        conn = pool.getconn()
        conn.execute("BEGIN IMMEDIATE")
        pool._driver.abandon(conn)
        write_elsewhere(numbers)
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            conn.execute("INSERT INTO numbers VALUES (2)")
        pool.putconn(conn)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TEMP TRIGGER mine AFTER INSERT ON main.numbers BEGIN DELETE FROM numbers; END",
        'CREATE TABLE "temp".mine (x)',
        "CREATE TABLE [temp].mine (x)",
        "CREATE /* mine */ TEMP VIEW mine AS SELECT 1",
    ],
)
def test_nothing_temporary_is_left_to_the_next(numbers: str, statement: str) -> None:
    """A trigger least of all, which would act on the next user's rows."""
    with opened(numbers) as pool:
        with pool.connection() as conn:
            conn.execute(statement)
        with pool.connection() as conn:
            assert conn.execute("SELECT count(*) FROM sqlite_temp_master").fetchone() == (0,)
        assert pool.snapshot().closes == {}


@pytest.mark.parametrize(
    ("pragma", "value"),
    [
        ("max_page_count", 100),
        ("full_column_names", 1),
        ("short_column_names", 0),
        ("count_changes", 1),
        ("empty_result_callbacks", 1),
        ("defer_foreign_keys", 1),
        ("journal_mode", "memory"),
        ("main.journal_mode", "memory"),
        ("/**/journal_mode", "memory"),
    ],
)
def test_a_pragma_is_set_back_or_ends_the_connection(file: str, pragma: str, value: Any) -> None:
    """Whichever it is: the next user has a connection as if new."""
    with opened(file) as pool:
        with pool.connection() as conn:
            before = conn.execute(f"PRAGMA {pragma}").fetchone()
        with pool.connection() as conn:
            conn.execute(f"PRAGMA {pragma} = {value}")
            assert conn.execute(f"PRAGMA {pragma}").fetchone() == (value,)
        with pool.connection() as conn:
            assert conn.execute(f"PRAGMA {pragma}").fetchone() == before


def test_a_pragma_that_asks_costs_no_connection(file: str) -> None:
    """Whatever it is given."""
    with opened(file) as pool:
        with pool.connection() as conn:
            for asking in ("journal_mode", "table_info(none)", "main.integrity_check", "no_such_thing"):
                conn.execute(f"PRAGMA {asking}").fetchall()
        assert pool.snapshot().closes == {}
