"""Drivers that know less: any DB-API module, and oracledb, for which there is no server here.

What `DBAPIModule` does over real servers is in `test_drivers.py`. oracledb's own connection and cursor classes are used
here over a stand-in for what is beneath them.
"""

import logging
import sqlite3
import time
import types
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import oracledb
import pymysql
import pytest

import penstock
from penstock import Pool
from penstock.core import Reason
from penstock.drivers import oracledb as ours
from penstock.drivers.base import Status
from penstock.drivers.generic import DBAPIModule
from support.mariadb import DATABASE, PASSWORD, USER, MariaDB
from support.waiting import aside, eventually

# ------------------------------------------------------------------------------------------ any module


def test_a_module_that_is_no_driver_is_refused() -> None:
    """By what it lacks."""
    with pytest.raises(TypeError, match="has no connect, Error"):
        DBAPIModule(types.ModuleType("no_driver"))
    with pytest.raises(ValueError, match="check_after"):
        DBAPIModule(sqlite3, check_after=-1.0)


def test_what_it_cannot_know_it_says_once(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    """In the log, as the first connection is made."""
    caplog.set_level(logging.INFO, "penstock.drivers")
    arguments = {"database": str(tmp_path / "database"), "check_same_thread": False}
    with Pool(driver=DBAPIModule(sqlite3), kwargs=arguments, min_size=3, open=True) as pool:
        pool.wait()
    said = [record.message for record in caplog.records if record.name == "penstock.drivers"]
    assert len(said) == 1
    assert "sqlite3: nothing is known of its connections" in said[0]


class Peer:
    """A module whose connections count what they are asked."""

    Error = OperationalError = ProgrammingError = DataError = sqlite3.Error

    def __init__(self) -> None:
        self.said: list[str] = []

    def connect(self, **kwargs: Any) -> "PeerConnection":
        return PeerConnection(self)


class PeerConnection:
    autocommit = False

    def __init__(self, module: Peer) -> None:
        self.module = module

    def cursor(self) -> "PeerCursor":
        return PeerCursor(self)

    def commit(self) -> None:
        self.module.said.append("commit")

    def rollback(self) -> None:
        self.module.said.append("rollback")

    def close(self) -> None:
        self.module.said.append("close")


class PeerCursor:
    rowcount = -1

    def __init__(self, conn: PeerConnection) -> None:
        self.conn = conn

    def execute(self, statement: str) -> "PeerCursor":
        self.conn.module.said.append(statement)
        return self

    def fetchall(self) -> list[Any]:
        return []

    def close(self) -> None:
        pass


def test_only_what_was_used_is_rolled_back_and_only_what_was_idle_is_asked() -> None:
    """What it does not know costs a round trip only where there is something not to know."""
    peer = Peer()
    driver: Any = DBAPIModule(peer, check="PING", check_after=0.1)
    with Pool(driver=driver, min_size=1, open=True) as pool:
        pool.wait()
        for _ in range(3):
            with pool.connection() as conn:
                assert isinstance(conn, PeerConnection)
        assert peer.said == []
        conn = pool.getconn()
        cursor = conn.cursor()
        assert cursor.execute("INSERT") is cursor
        assert cursor.connection is conn
        pool.putconn(conn)
        assert peer.said == ["INSERT", "rollback"]
        with pool.connection() as conn:
            conn.cursor().execute("INSERT")
            conn.commit()
        assert peer.said[2:] == ["INSERT", "commit"]
        time.sleep(0.11)  # idle, which is what it waits for
        with pool.connection():
            pass
        assert peer.said[4:] == ["PING", "rollback"]
        with pool.connection() as conn:
            conn.autocommit = True
        with pool.connection() as conn:
            assert conn.autocommit is False
        assert peer.said[6:] == []


# ------------------------------------------------------------------------------------------ oracledb


class Wire:
    """What is beneath oracledb's classes: does nothing, and knows what thin mode knows."""

    username, dsn = "app", "stand-in"
    inputtypehandler = outputtypehandler = None

    def __init__(self) -> None:
        self.said: list[str] = []
        self.autocommit = self.in_transaction = False
        self.healthy, self.answers = True, True
        self.call_timeout = 0
        self.schema = None
        self.told: dict[str, Any] = {}
        self.stopped = False

    def process_sync_operation(self, subject: Any, name: str, args: Any, kwargs: Any) -> Any:
        statement = args[0] if args else ""
        self.said.append(statement or name)
        if name == "close":
            subject._impl = None
        elif not self.answers:
            self.healthy = False
            raise oracledb.OperationalError("DPY-4011: the database or network closed the connection")
        elif name in ("commit", "rollback"):
            self.in_transaction = False
        elif statement.startswith("INSERT"):
            self.in_transaction = not self.autocommit
        elif statement == "SLEEP":
            eventually(lambda: self.stopped)
            raise oracledb.OperationalError("ORA-01013: user requested cancel of current operation")

    def create_cursor_impl(self, scrollable: bool) -> Any:
        return types.SimpleNamespace(close=lambda in_del=False: None)

    def get_transaction_in_progress(self) -> bool:
        return self.in_transaction

    def get_is_healthy(self) -> bool:
        return self.healthy

    def get_call_timeout(self) -> int:
        return self.call_timeout

    def set_call_timeout(self, value: int) -> None:
        self.call_timeout = value

    def set_client_identifier(self, value: Any) -> None:
        self.told["client_identifier"] = value

    def set_current_schema(self, value: Any) -> None:
        self.schema = value

    def cancel(self) -> None:
        self.stopped = True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("set_"):
            return lambda value: self.told.update({name[4:]: value})
        raise AttributeError(name)


class StandIn(oracledb.Connection):
    """oracledb's own connection, connected to nothing."""

    def __init__(self, dsn: Any = None, *, pool: Any = None, params: Any = None, **kwargs: Any) -> None:
        self._version = None
        self._pool = pool
        self._impl = Wire()
        self.arguments = kwargs

    def __repr__(self) -> str:
        return "<StandIn>"


def oracle(**options: Any) -> Pool[Any]:
    pool: Pool[Any] = Pool(
        "host/service", driver="oracledb", connection_class=StandIn, min_size=1, open=True, **options
    )
    pool.wait()
    return pool


def test_thin_mode_tells_of_a_transaction_so_that_most_returns_cost_nothing() -> None:
    """A query opens none; one that is open is committed, or rolled back."""
    with oracle() as pool:
        with pool.connection() as conn:
            assert isinstance(conn, StandIn)
            wire: Any = conn._impl
            assert conn.arguments["tcp_connect_timeout"] == 5.0
            conn.cursor().execute("SELECT 1 FROM dual")
        assert wire.said == ["SELECT 1 FROM dual"]
        with pool.connection() as conn:
            conn.cursor().execute("INSERT")
        conn = pool.getconn()
        conn.cursor().execute("INSERT")
        pool.putconn(conn)
        with pool.transaction() as conn:
            conn.cursor().execute("INSERT")
        assert wire.said[1:] == ["INSERT", "commit", "INSERT", "rollback", "INSERT", "commit"]
        assert pool.snapshot().closes == {}


def test_what_was_set_on_the_connection_is_set_back() -> None:
    """What the server was told is taken back; a session that was altered is another's no more."""
    with oracle() as pool:
        with pool.connection() as conn:
            wire: Any = conn._impl
            conn.autocommit, conn.call_timeout, conn.client_identifier = True, 700, "somebody"
        assert (wire.autocommit, wire.call_timeout, wire.told["client_identifier"]) == (False, 0, None)
        for touch in (
            lambda conn: conn.cursor().execute("ALTER SESSION SET nls_date_format = 'YYYY'"),
            lambda conn: setattr(conn, "current_schema", "other"),
        ):
            with pool.connection() as conn:
                touch(conn)
        assert pool.snapshot().closes == {Reason.UNCLEAN: 2}


def test_a_deadline_bounds_each_round_trip() -> None:
    """By oracledb's `call_timeout`, for that lease alone, and never by more than it was."""
    with oracle() as pool:
        with penstock.deadline(2), pool.connection() as conn:
            assert 1000 < conn.call_timeout <= 2000
        with pool.connection() as conn:
            assert conn.call_timeout == 0
    with oracle(configure=lambda conn: setattr(conn, "call_timeout", 500)) as pool:
        with penstock.deadline(2), pool.connection() as conn:
            assert conn.call_timeout == 500


def test_one_that_was_idle_is_pinged_and_one_that_was_lost_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket is out of reach, so after a second a round trip tells."""
    monkeypatch.setattr(ours, "_CHECK_AFTER", 0.0)
    with oracle() as pool:
        with pool.connection() as conn:
            wire: Any = conn._impl
        assert wire.said == ["ping"]
        wire.answers = False
        with pool.connection() as conn:
            assert conn._impl is not wire
        assert pool.snapshot().closes == {Reason.DEAD: 1}
        conn = pool.getconn()
        conn._impl.answers = False
        with pytest.raises(oracledb.OperationalError):
            conn.cursor().execute("INSERT")
        pool.putconn(conn)
        assert pool.snapshot().closes == {Reason.DEAD: 1, Reason.BROKEN: 1}


def test_a_statement_is_stopped_when_its_connection_comes_back() -> None:
    """And `close_returns`, although oracledb has a use of its own for the name `_pool`."""
    with oracle(close_returns=True) as pool:
        conn = pool.getconn()
        slow = aside(lambda: conn.cursor().execute("SLEEP"))
        eventually(lambda: pool.holders()[0].status == "ACTIVE")
        conn.close()
        assert isinstance(slow.exception(5), oracledb.OperationalError)
        eventually(lambda: pool.snapshot().closes == {Reason.BUSY: 1})
        with pool.connection() as conn:
            wire: Any = conn._impl
        assert "close" not in wire.said
    with oracle() as pool:
        with pool.connection() as conn, conn:  # which closes it, as oracledb has it
            pass
        assert pool.snapshot().closes == {Reason.BROKEN: 1}


def test_what_is_done_past_all_cursors_is_seen(tmp_path: Path) -> None:
    """By a method of the connection's own: it is committed at the block's end, and nobody else finds it open."""
    file = str(tmp_path / "database")
    with closing(sqlite3.connect(file)) as conn:
        conn.execute("CREATE TABLE numbers (x)")
    driver, kwargs = DBAPIModule(sqlite3), {"database": file, "check_same_thread": False}
    with Pool("", driver=driver, kwargs=kwargs, min_size=1, max_size=1, open=True) as pool:
        with pool.connection() as conn:
            conn.execute("INSERT INTO numbers VALUES (1)")
        with pytest.raises(ZeroDivisionError), pool.connection() as conn:
            conn.executemany("INSERT INTO numbers VALUES (?)", [(2,), (3,)])
            raise ZeroDivisionError
        with pool.connection() as conn:
            conn.execute("SELECT 1")
            conn.commit()
            conn.row_factory = sqlite3.Row
            cursor = conn.execute("INSERT INTO numbers VALUES (4)")  # and with what that has given
            conn.commit()
            cursor.execute("INSERT INTO numbers VALUES (5)")
        with pool.connection() as conn:
            assert not conn.in_transaction
            assert [row[0] for row in conn.execute("SELECT x FROM numbers")] == [1, 4, 5]


def test_what_is_done_past_all_cursors_is_seen_of_a_class_of_python_s(mariadb: MariaDB) -> None:
    """Whose connection is lent as it is."""
    table = f"of_{uuid4().hex}"
    mariadb.ask(f"CREATE TABLE {DATABASE}.{table} (x INT)")
    kwargs = {"host": "127.0.0.1", "port": mariadb.port, "user": USER, "password": PASSWORD, "database": DATABASE}
    with Pool("", driver=DBAPIModule(pymysql), kwargs=kwargs, min_size=1, max_size=1, open=True) as pool:
        with pool.connection() as conn:
            conn.query(f"INSERT INTO {table} VALUES (1)")
        assert mariadb.ask(f"SELECT x FROM {DATABASE}.{table}") == [(1,)]
        with pytest.raises(ZeroDivisionError), pool.connection() as conn:
            conn.begin()
            conn.query(f"INSERT INTO {table} VALUES (2)")
            raise ZeroDivisionError
        with pool.connection() as conn:
            cursor = conn.cursor()
            cursor.execute(f"SELECT x FROM {table}")
            assert cursor.fetchall() == ((1,),)
            conn.commit()
            assert pool._driver.status(conn) is Status.IDLE


@pytest.mark.parametrize(
    ("driver", "says"),
    [
        (pymysql, r"say driver='pymysql', its name, or driver=DBAPIModule\(pymysql\)"),
        (sqlite3.dbapi2, r"say driver=DBAPIModule\(sqlite3.dbapi2\)"),
        (None, "driver must be one of 'psycopg', .* not None"),
    ],
)
def test_what_is_no_driver_is_refused_and_the_way_said(driver: Any, says: str) -> None:
    """As soon as the pool is made."""
    with pytest.raises(TypeError, match=says):
        Pool("", driver=driver, open=False)
