"""The faces of psycopg2.pool and of DBUtils: what their users write runs on our pool."""

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import oracledb
import psycopg
import psycopg2
import pymysql
import pytest

from penstock import Pool
from penstock.compat import dbutils, psycopg2_pool
from penstock.core import Reason
from support.mariadb import DATABASE, PASSWORD, USER, MariaDB
from support.waiting import aside, eventually

kinds = pytest.mark.parametrize("kind", [psycopg2_pool.SimpleConnectionPool, psycopg2_pool.ThreadedConnectionPool])


def ask(conn: Any, statement: str) -> Any:
    with conn.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0]


@kinds
def test_psycopg2_connections_come_and_go_back(dsn: str, kind: Any) -> None:
    """As often as one likes, the connection being psycopg2's own, and its transaction rolled back."""
    pool = kind(1, 2, dsn)
    conn = pool.getconn()
    assert isinstance(conn, psycopg2.extensions.connection)
    pid = ask(conn, "SELECT pg_backend_pid()")
    ask(conn, "SELECT 1 FROM (SELECT set_config('work_mem', '7MB', false)) AS done")
    pool.putconn(conn)
    again = pool.getconn()
    assert again.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_IDLE
    assert (ask(again, "SELECT pg_backend_pid()"), ask(again, "SHOW work_mem")) == (pid, "4MB")
    pool.putconn(again)
    pool.closeall()
    assert pool.closed


@kinds
def test_a_key_has_one_connection(dsn: str, kind: Any) -> None:
    """Until it is given back; without a key each request has its own."""
    pool = kind(0, 3, dsn)
    mine = pool.getconn("mine")
    assert pool.getconn("mine") is mine
    others = pool.getconn(), pool.getconn()
    assert len({id(conn) for conn in (mine, *others)}) == 3
    for conn in (mine, *others):
        pool.putconn(conn)
    assert pool.getconn("mine") in (mine, *others)
    pool.closeall()


def test_two_threads_with_one_key_have_one_connection(dsn: str) -> None:
    """Even when both come for it at once."""
    pool = psycopg2_pool.ThreadedConnectionPool(2, 2, dsn)
    barrier, taken, done = threading.Barrier(2), [], threading.Event()

    def come() -> None:
        barrier.wait(5)
        taken.append(pool.getconn("ours"))

    def come_and_stay() -> None:
        come()
        done.wait(5)  # a thread that ends without returning what it took loses it

    other = aside(come_and_stay)
    come()
    eventually(lambda: len(taken) == 2)
    assert taken[0] is taken[1]
    eventually(lambda: pool._pool.snapshot().leased == 1)
    done.set()
    other.result(5)
    pool.closeall()


def test_a_key_s_connection_that_is_gone_is_not_lent(dsn: str) -> None:
    """The thread that took it has ended, or its user has closed it: the key has another one at once."""
    pool = psycopg2_pool.ThreadedConnectionPool(1, 1, dsn)
    taken: list[Any] = []

    def after_another_thread() -> Any:
        thread = threading.Thread(target=lambda: taken.append(pool.getconn("k")))
        thread.start()
        thread.join()
        return pool.getconn("k")

    with pytest.warns(ResourceWarning, match="took back"):
        second = after_another_thread()
    assert second is not taken[0]
    assert ask(second, "SELECT 1") == 1
    second.close()
    third = pool.getconn("k")
    assert ask(third, "SELECT 1") == 1
    assert pool.getconn("k") is third
    pool.putconn(third)
    pool.closeall()


def test_close_closes(dsn: str) -> None:
    """`putconn(close=True)`: the next one has another session."""
    pool = psycopg2_pool.ThreadedConnectionPool(1, 1, dsn)
    conn = pool.getconn()
    pool.putconn(conn, close=True)
    assert conn.closed
    assert pool._pool.snapshot().closes == {Reason.BROKEN: 1}
    assert ask(pool.getconn(), "SELECT 1") == 1
    pool.closeall()


def test_pool_errors_are_psycopg2s(dsn: str) -> None:
    """`except PoolError`, and `except psycopg2.Error`: what is not ours to take, closed twice, no database."""
    pool = psycopg2_pool.ThreadedConnectionPool(0, 1, dsn=dsn)
    stranger = psycopg2.connect(dsn)
    with pytest.raises(psycopg2_pool.PoolError, match="doesn't come from any pool"):
        pool.putconn(stranger)
    stranger.close()
    pool.closeall()
    with pytest.raises(psycopg2_pool.PoolError, match="closed"):
        pool.closeall()
    with pytest.raises(psycopg2_pool.PoolError, match="closed"):
        pool.getconn()
    with pytest.raises(psycopg2.OperationalError, match="refuse"):
        psycopg2_pool.ThreadedConnectionPool(1, 1, "host=127.0.0.1 port=1")
    assert issubclass(psycopg2_pool.PoolError, psycopg2.Error)


def test_dbutils_connections_go_back_when_they_are_closed(dsn: str) -> None:
    """By close(), or at the end of a block: not committed, and the same session for the next."""
    pool = dbutils.PooledDB(psycopg2, 1, maxconnections=2, setsession=["SET work_mem = '5MB'"], dsn=dsn)
    conn = pool.connection()
    pid = ask(conn, "SELECT pg_backend_pid()")
    assert ask(conn, "SHOW work_mem") == "5MB"
    ask(conn, "CREATE TABLE compat_dbutils_gone AS SELECT 1; SELECT 1")
    conn.close()
    conn.close()
    with pytest.raises(dbutils.InvalidConnectionError, match="given back already"):
        conn.cursor()
    with pool.connection() as again:
        assert ask(again, "SELECT pg_backend_pid()") == pid
        assert ask(again, "SELECT to_regclass('compat_dbutils_gone')") is None
    assert pool._pool.snapshot().leased == 0
    pool.close()


def test_dbutils_lends_no_more_than_declared(dsn: str) -> None:
    """Who comes then waits, and has what comes back."""
    pool = dbutils.PooledDB(psycopg2, maxconnections=1, dsn=dsn)
    conn = pool.connection()
    other = aside(lambda: ask(pool.connection(), "SELECT 7"))
    eventually(lambda: pool._pool.snapshot().waiting == 1)
    conn.close()
    assert other.result(5) == 7
    pool.close()


def test_dbutils_takes_any_driver(tmp_path: Path) -> None:
    """One that we have a driver for, and one of which nothing is known but PEP 249."""
    unknown = SimpleNamespace(**{name: getattr(sqlite3, name) for name in dir(sqlite3) if not name.startswith("__")})
    for module in (sqlite3, unknown):
        pool = dbutils.PooledDB(module, 0, 0, 0, 2, database=str(tmp_path / "db"), check_same_thread=False)
        with pool.connection() as conn:
            cursor = conn.cursor()
            cursor.execute("SELECT 7")
            assert cursor.fetchone() == (7,)
        pool.close()


def test_dbutils_finds_the_driver_that_knows_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """And leads there what each module's connect() takes, by place or by name."""
    made: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        Pool, "__init__", lambda self, conninfo, *, driver, kwargs, **_: made.append((driver, conninfo, kwargs))
    )
    for module, name, first in [
        (psycopg, "psycopg", "conninfo"),
        (psycopg2, "psycopg2", "dsn"),
        (oracledb, "oracledb", "dsn"),
        (pymysql, "pymysql", None),
        (SimpleNamespace(__name__="MySQLdb", connect=print), "mysqlclient", None),
    ]:
        by_place = (0, 0, 0, 0, False, None, None, True, None, 1, None, "there")
        dbutils.PooledDB(module, *by_place, user="me")
        dbutils.PooledDB(module, **{first or "host": "there"}, user="me")
        expected = (name, "there", {"user": "me"}) if first else (name, "", {"user": "me", "host": "there"})
        assert made == [expected, expected]
        made.clear()


def autocommitting(name: str, request: pytest.FixtureRequest) -> dbutils.PooledDB:
    """A pool of one connection in autocommit, to a database with an empty table `compat_begin`."""
    empty = "CREATE TABLE compat_begin (x INT)"
    if name in ("pymysql", "MySQLdb"):
        module = pytest.importorskip(name)
        server: MariaDB = request.getfixturevalue("mariadb")
        server.ask(f"CREATE OR REPLACE TABLE {DATABASE}.compat_begin (x INT)")
        place = {"host": server.host, "port": server.port, "user": USER, "password": PASSWORD, "database": DATABASE}
        return dbutils.PooledDB(module, 1, maxconnections=1, autocommit=True, **place)
    if name in ("psycopg", "psycopg2"):
        dsn = request.getfixturevalue("dsn")
        with psycopg.connect(dsn) as conn:
            conn.execute(f"DROP TABLE IF EXISTS compat_begin; {empty}")
        if name == "psycopg":
            return dbutils.PooledDB(psycopg, 1, maxconnections=1, conninfo=dsn, autocommit=True)
        return dbutils.PooledDB(psycopg2, 1, maxconnections=1, dsn=dsn, connection_factory=Autocommitting)
    file = str(request.getfixturevalue("tmp_path") / "db")
    lite = sqlite3.connect(file)
    lite.execute(empty)
    lite.close()
    known = {name: getattr(sqlite3, name) for name in dir(sqlite3) if not name.startswith("__")}
    creator: Any = sqlite3 if name == "sqlite3" else SimpleNamespace(**known)
    return dbutils.PooledDB(creator, 1, maxconnections=1, database=file, isolation_level=None, check_same_thread=False)


class Autocommitting(psycopg2.extensions.connection):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.autocommit = True


@pytest.mark.parametrize("name", ["pymysql", "MySQLdb", "psycopg", "psycopg2", "sqlite3", "not known"])
def test_dbutils_begin_begins(name: str, request: pytest.FixtureRequest) -> None:
    """In autocommit, too; which is as it was after commit(), rollback() and close()."""
    pool = autocommitting(name, request)

    def count(conn: Any) -> int:
        cursor = conn.cursor()
        cursor.execute("SELECT count(*) FROM compat_begin")
        found: int = cursor.fetchone()[0]
        cursor.close()
        return found

    def insert(conn: Any) -> None:
        cursor = conn.cursor()
        cursor.execute("INSERT INTO compat_begin VALUES (1)")
        cursor.close()

    for kept, end in enumerate(("rollback", "commit", "close")):
        conn = pool.connection()
        before = count(conn)
        conn.begin()
        insert(conn)
        getattr(conn, end)()
        if end != "close":
            assert count(conn) - before == (end == "commit"), end
            insert(conn)
            conn.rollback()  # in autocommit there is nothing to undo
            conn.close()
        with pool.connection() as again:
            assert count(again) == (1, 3, 3)[kept], end
    pool.close()
    with pytest.raises(dbutils.InvalidConnectionError, match="given back already"):
        conn.begin()


def test_dbutils_leaves_nothing_of_a_mysql_session(mariadb: MariaDB) -> None:
    """As PyMySQL's driver is used, and not one that knows nothing."""
    pool = dbutils.PooledDB(
        pymysql, 1, 0, 0, 1, False, None, ["SET @prepared = 1"], True, None, 1, None, mariadb.host,
        port=mariadb.port, user=USER, password=PASSWORD, database=DATABASE,
    )  # fmt: skip
    asked = "SELECT CONNECTION_ID(), @prepared, @left"
    with pool.connection() as conn, conn.cursor() as cursor:
        cursor.execute("SET @left = 1")
        cursor.execute(asked)
        number, *settings = cursor.fetchone()
        assert settings == [1, 1]
    with pool.connection() as conn, conn.cursor() as cursor:
        cursor.execute(asked)
        assert cursor.fetchone() == (number, 1, None)
    pool.close()


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("asyncpg", "asyncpg", "asyncpg"),
        ("psycopg_pool", "psycopg", "postgres"),
        ("psycopg2_pool", "psycopg2", "psycopg2"),
    ],
)
def test_what_is_not_installed_is_said(module: str, package: str, extra: str) -> None:
    """With what to install, as the drivers say it."""
    code = f"import sys; sys.modules[{package!r}] = None; import penstock.compat.{module}"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr
    assert f"ImportError: penstock.compat.{module} needs {package}: pip install 'penstock[{extra}]'" in said


@pytest.mark.parametrize(
    ("creator", "args", "what"),
    [(sqlite3.connect, (), "creator must be a driver's module"), (sqlite3, ("a", 5.0), "all but the first go by name")],
)
def test_what_dbutils_cannot_be_given_is_said(creator: Any, args: tuple[Any, ...], what: str) -> None:
    """A function that connects tells us nothing of its driver; and arguments are told apart by name."""
    with pytest.raises(TypeError, match=what):
        dbutils.PooledDB(creator, 0, 0, 0, 1, False, None, None, True, None, 1, None, *args)
