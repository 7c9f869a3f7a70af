"""What MySQL's drivers take for a change of the session, and what a MariaDB says about it; losses and read-only."""

import asyncio
import math
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from time import monotonic, process_time
from typing import Any

import pymysql
import pytest

import penstock
from penstock import AsyncPool, Pool
from penstock.core import Reason
from penstock.drivers import mysql_session
from penstock.drivers.aiomysql import AiomysqlDriver
from penstock.drivers.mysql import Session, parse
from penstock.drivers.mysql_session import LEFT_BEHIND, ends, may_begin, touches
from penstock.drivers.pymysql import PyMySQLDriver
from penstock.drivers.session import Touched
from penstock.pool.terms import reading
from support.either import borrowed, opened, settled
from support.mariadb import DATABASE, PASSWORD, USER, MariaDB
from support.waiting import aside, eventually, soon


@pytest.fixture
def pool(mariadb: MariaDB) -> Iterator[Pool[Any]]:
    """One connection, so that the next user has the one of the last."""
    with Pool(mariadb.dsn, driver="pymysql", min_size=1, open=False) as pool:
        pool.wait()
        yield pool


def do(conn: Any, *statements: str) -> list[tuple[Any, ...]]:
    """The rows of the last."""
    rows: list[tuple[Any, ...]] = []
    with conn.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
            rows = list(cursor.fetchall())
    return rows


def table(mariadb: MariaDB, name: str) -> str:
    mariadb.ask(f"CREATE OR REPLACE TABLE {DATABASE}.{name} (x INT PRIMARY KEY) ENGINE=InnoDB")
    return name


# ------------------------------------------------------------------------------------------ the vocabulary


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("SET @x = 1", Touched.SETTINGS),
        ("/* who */ set names latin1", Touched.SETTINGS),
        ("-- why\nSET SESSION sql_mode = ''", Touched.SETTINGS),
        ("# why\nSET autocommit = 1", Touched.SETTINGS),
        ("SET TRANSACTION ISOLATION LEVEL READ COMMITTED", Touched.SETTINGS),
        ("USE other", Touched.SETTINGS),
        ("SELECT 1; USE other", Touched.SETTINGS),
        ("SELECT @n := @n + 1", Touched.SETTINGS),
        ("SELECT max(x) INTO @m FROM t", Touched.SETTINGS),
        ("/*!40101 SET sql_mode = '' */", Touched.SETTINGS),
        ("LOCK TABLES t WRITE", Touched.LOCKS),
        ("SELECT get_lock('a', 1)", Touched.LOCKS),
        ("FLUSH TABLES WITH READ LOCK", Touched.LOCKS),
        ("CREATE TEMPORARY TABLE t (x INT)", Touched.TEMPORARY),
        ("create or replace temporary table t (x int)", Touched.TEMPORARY),
        ("PREPARE p FROM 'SELECT 1'", Touched.CURSORS),
        ("HANDLER t OPEN", Touched.CURSORS),
        (b"SET @x = 1", Touched.SETTINGS),
        ("CALL p(@out)", Touched.SETTINGS),
        ("EXECUTE IMMEDIATE 'SET SESSION sql_mode = \"ANSI\"'", Touched.SETTINGS),
        ("BEGIN NOT ATOMIC SET sql_mode = ''; END", Touched.SETTINGS),
        ("BEGIN SET sql_mode = ''; END", Touched.SETTINGS),
        ("IF 1 THEN SET sql_mode = ''; END IF", Touched.SETTINGS),
        ("again: LOOP SET sql_mode = ''; LEAVE again; END LOOP", Touched.SETTINGS),
        ("SELECT @y/**/:=1", Touched.SETTINGS),
        ("GET DIAGNOSTICS @n = NUMBER", Touched.SETTINGS),
        ("SET GLOBAL a = 1, SESSION b = 2", Touched.SETTINGS),
        ("SET STATEMENT a = 1 FOR SET sql_mode = ''", Touched.SETTINGS),
        ("SELECT '/*'; SET sql_mode = ''; SELECT '*/'", Touched.SETTINGS),
        ("SELECT 1--1; SET sql_mode = ''", Touched.SETTINGS),
        ("SELECT 1 -- '\n; SET sql_mode = ''", Touched.SETTINGS),
        ("SELECT `'`; SET sql_mode = '' #'", Touched.SETTINGS),
        ("SELECT `get_lock`('a', 1)", Touched.LOCKS),
        ("CREATE/**/TEMPORARY TABLE t (x INT)", Touched.TEMPORARY),
        # not read the same in every mode of the server
        ("SELECT 'a\\'; SET sql_mode='b'", LEFT_BEHIND),
        ("SELECT 1; SET sql_mode='open", LEFT_BEHIND),
    ],
)
def test_what_changes_a_session_is_seen(statement: str | bytes, kind: Touched) -> None:
    """In whatever case, after comments, after another statement."""
    assert touches(statement) is kind


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM t WHERE x = 1",
        "UPDATE t SET x = 1",
        "INSERT INTO t SET x = 1",
        "INSERT INTO settings VALUES ('locked', 'user@host')",
        "SET STATEMENT max_statement_time = 1 FOR SELECT 1",
        "BEGIN",
        "START TRANSACTION READ ONLY",
        "SELECT * FROM t FOR UPDATE",
        "SELECT x FROM t LOCK IN SHARE MODE",
        "SELECT 1 FROM t USE INDEX (i)",
        "SET GLOBAL x = 1",
        "SET STATEMENT a = 1 FOR SELECT x FROM t FOR UPDATE",
        "SELECT 1 -- ; SET it is, @you",
        "SELECT 1 # ; SET it is, @you",
        "SELECT /* ; SET it is, @you */ 'me@you; SET', \"; SET\", `; SET`",
        "SELECT @@autocommit",
    ],
)
def test_what_changes_nothing_costs_no_reset(statement: str) -> None:
    """Most statements leave nothing behind."""
    assert touches(statement) is Touched.NOTHING


@pytest.mark.parametrize("unit", [";/*", "; --", ";#", "/**/", "; ", "\\\\", "''", "@a", "call ;", "a ", "`a`", "/*! "])
@pytest.mark.parametrize("start", ["UPDATE t SET x = '", "SET ", "SELECT @x, "])
def test_reading_takes_time_by_the_length_alone(start: str, unit: str) -> None:
    """Not by its square, with the interpreter's lock held all the time: that would take minutes here."""
    text = start + unit * (300_000 // len(unit)) + "'"
    began = process_time()
    touches(text)
    assert process_time() - began < 5


def test_a_long_statement_is_read_and_not_kept() -> None:
    """It was put together with its values, and will not come again."""
    mysql_session._remembered.cache_clear()
    values = b"INSERT INTO t VALUES " + b", ".join([b"('set', 'me@you; set @it is')"] * 10_000)
    assert touches(values) is Touched.NOTHING
    assert touches(values + b"; SET @x = 1") is Touched.SETTINGS
    assert mysql_session._remembered.cache_info().currsize == 0


def test_what_begins_and_ends_a_transaction_is_read_with_caution() -> None:
    """mysqlclient does not tell: what may have begun one has, what may not have ended it has not."""
    begun = ("BEGIN", "/* x */ start transaction", "CALL p()", "SELECT 1; BEGIN", "SET autocommit=0")
    assert may_begin("IF 1 THEN START TRANSACTION; END IF")
    assert all(map(may_begin, begun))
    assert not any(map(may_begin, ("SELECT 1", "INSERT INTO t VALUES (1)", "COMMIT")))
    assert all(map(ends, ("COMMIT", "rollback;", " ROLLBACK WORK", b"commit")))
    assert not any(map(ends, ("ROLLBACK TO SAVEPOINT a", "COMMIT AND CHAIN", "COMMIT; BEGIN", "SELECT 'commit'")))


# ------------------------------------------------------------------------------------------ the real server


@pytest.mark.parametrize(
    ("left", "trial"),
    [
        ("CREATE TEMPORARY TABLE mine (x INT)", "SELECT * FROM mine"),
        ("PREPARE mine FROM 'SELECT 1'", "EXECUTE mine"),
    ],
)
def test_what_a_session_has_is_gone_for_the_next(pool: Pool[Any], left: str, trial: str) -> None:
    """On the same connection."""
    with pool.connection() as conn:
        do(conn, left, trial)
    with pool.connection() as conn, pytest.raises(pymysql.Error):
        do(conn, trial)
    assert pool.snapshot().closes == {}


@pytest.mark.parametrize(
    ("left", "asked"),
    [
        ("CALL {0}_out(@mine)", "SELECT @mine"),
        ("EXECUTE IMMEDIATE 'SET SESSION sql_mode=\"ANSI\"'", "SELECT @@sql_mode"),
        ("EXECUTE IMMEDIATE CONCAT('SE', 'T sort_buffer_size = 1048576')", "SELECT @@sort_buffer_size"),
        ("BEGIN NOT ATOMIC SET @mine = 1; END", "SELECT @mine"),
        ("IF 1 THEN SET sort_buffer_size = 1048576; END IF", "SELECT @@sort_buffer_size"),
        ("CASE 1 WHEN 1 THEN SET sort_buffer_size = 1048576; END CASE", "SELECT @@sort_buffer_size"),
        ("FOR i IN 1..2 DO SET sort_buffer_size = 1048576; END FOR", "SELECT @@sort_buffer_size"),
        ("SELECT @mine/**/:=1", "SELECT @mine"),
        ("GET DIAGNOSTICS @mine = NUMBER", "SELECT @mine"),
        ("SET STATEMENT max_statement_time = 9 FOR SET sort_buffer_size = 1048576", "SELECT @@sort_buffer_size"),
        ("SET PASSWORD = PASSWORD('{1}'), sort_buffer_size = 1048576", "SELECT @@sort_buffer_size"),
        ("SELECT `get_lock`('mine', 0)", "SELECT IS_USED_LOCK('mine')"),
        ("CREATE/**/TEMPORARY TABLE {0} (x INT)", "SELECT COUNT(*) FROM {0}"),
    ],
)
def test_what_a_statement_hides_is_gone_for_the_next(mariadb: MariaDB, pool: Pool[Any], left: str, asked: str) -> None:
    """Whatever is between its words, and whatever MariaDB executes without a procedure."""
    name = table(mariadb, "hidden")
    mariadb.ask(f"CREATE OR REPLACE PROCEDURE {DATABASE}.{name}_out(OUT x INT) SET x = 7")
    mariadb.ask(f"INSERT INTO {DATABASE}.{name} VALUES (1)")
    with pool.connection() as conn:
        before = do(conn, asked.format(name))
        do(conn, left.format(name, PASSWORD))
        assert do(conn, asked.format(name)) != before
        used = thread(conn)
    with pool.connection() as conn:
        assert do(conn, asked.format(name)) == before
        assert thread(conn) == used


def test_after_a_reset_the_session_is_as_after_the_login(mariadb: MariaDB) -> None:
    """Character set, mode, database, first command, autocommit and limits; `configure` runs again."""
    configured: list[Any] = []
    kwargs = {"charset": "latin1", "sql_mode": "ANSI", "init_command": "SET @first = 1", "autocommit": False}
    asked = (
        "SELECT @@character_set_client, @@sql_mode LIKE '%ANSI%', @first, @@autocommit, DATABASE(),"
        " @@max_statement_time, @@idle_transaction_timeout, CONNECTION_ID()"
    )
    with Pool(
        mariadb.dsn,
        driver="pymysql",
        kwargs=kwargs,
        configure=configured.append,
        statement_timeout=7.5,
        idle_in_transaction_timeout=40,
        min_size=1,
        open=False,
    ) as pool:
        with pool.connection() as conn:
            (before,) = do(conn, asked)
            assert before[:-1] == ("latin1", 1, 1, 0, DATABASE, 7.5, 40)
            do(conn, "SET NAMES utf8mb4", "SET sql_mode=''", "SET @first=2", f"USE {DATABASE}_other")
            do(conn, "SET max_statement_time=0, autocommit=1")
        with pool.connection() as conn:
            assert do(conn, asked) == [before]
            assert len(configured) == 2


def test_what_a_login_from_a_file_gave_is_given_again(mariadb: MariaDB, tmp_path: Path) -> None:
    """Database and character set, which no argument has named."""
    kwargs = {"read_default_file": str(option_file(mariadb, tmp_path))}
    with Pool[Any]("", driver="pymysql", kwargs=kwargs, min_size=1, open=False) as pool:
        with pool.connection() as conn:
            number = conn.thread_id()
            do(conn, "SET @mine = 1", f"USE {DATABASE}_other", "SET NAMES utf8mb4")
        with pool.connection() as conn:
            assert conn.thread_id() == number
            assert do(conn, "SELECT @mine, DATABASE(), @@character_set_client") == [(None, DATABASE, "latin1")]


def option_file(mariadb: MariaDB, folder: Path) -> Path:
    file = folder / "my.cnf"
    login = f"host={mariadb.host}\nport={mariadb.port}\nuser={USER}\npassword={PASSWORD}\ndatabase={DATABASE}\n"
    file.write_text(f"[client]\n{login}default-character-set=latin1\n")
    return file


@pytest.mark.parametrize(("driver", "table"), [("pymysql", "decoders"), ("aiomysql", "decoders")])
def test_a_converter_of_one_user_is_no_other_s(mariadb: MariaDB, driver: str, table: str) -> None:
    """Of the same connection, or, as aiomysql's table is its module's, of another one."""
    kind: Any = Pool if driver == "pymysql" else AsyncPool

    async def scenario() -> None:
        async with opened(kind, mariadb.dsn, driver=driver, min_size=2) as pool:
            async with borrowed(pool) as conn, borrowed(pool) as beside:
                getattr(conn, table)[3] = lambda value: "mine"  # of INT
                assert await first(conn) == "mine"
                assert await first(beside) == 1
            async with borrowed(pool) as conn, borrowed(pool) as beside:
                assert [await first(each) for each in (conn, beside)] == [1, 1]
            assert pool.snapshot().closes == {}

    async def first(conn: Any) -> Any:
        cursor = await settled(conn.cursor())
        await settled(cursor.execute("SELECT CAST(1 AS INT)"))
        (value,) = await settled(cursor.fetchone())
        await settled(cursor.close())
        return value

    asyncio.run(scenario())


@pytest.mark.alone
@pytest.mark.parametrize(("kind", "driver"), [(Pool, "pymysql"), (AsyncPool, "pymysql"), (AsyncPool, "aiomysql")])
def test_statements_are_stopped_over_one_connection_at_a_time(mariadb: MariaDB, kind: Any, driver: str) -> None:
    """However many at once: `max_connections` is to have room for one more than the pool has."""
    size = 6
    before = len(mariadb.threads())
    most = 0
    over = threading.Event()

    def watch() -> None:
        nonlocal most
        asked = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = %s"
        with mariadb.admin() as admin, admin.cursor() as cursor:
            while not over.is_set():
                cursor.execute(asked, (USER,))
                most = max(most, cursor.fetchone()[0])

    async def scenario() -> None:
        async with opened(kind, mariadb.dsn, driver=driver, min_size=size) as pool:
            running = "SELECT COUNT(*) FROM information_schema.processlist WHERE info = 'SELECT SLEEP(20)'"
            at_once = Overlap(pool._driver if driver == "aiomysql" or kind is Pool else pool._driver.driver)
            conns = [await settled(pool.getconn()) for _ in range(size)]
            if kind is Pool:
                jobs: Any = [asyncio.wrap_future(aside(lambda c=c: do(c, "SELECT SLEEP(20)"))) for c in conns]
            else:
                jobs = [asyncio.ensure_future(sleeping(conn)) for conn in conns]
            await soon(lambda: mariadb.ask(running) == [(size,)])
            watching = aside(watch)
            await soon(lambda: most >= size)
            if kind is Pool:
                await asyncio.gather(*(asyncio.to_thread(pool.putconn, conn) for conn in conns))
            else:
                for job in jobs:
                    job.cancel()
                await asyncio.wait(jobs)
                await asyncio.gather(*(pool.putconn(conn) for conn in conns))
            await soon(lambda: mariadb.ask(running) == [(0,)])
            over.set()
            watching.result(5)
            await asyncio.gather(*jobs, return_exceptions=True)
            # What aiomysql's cancellation has closed the server may still have for a moment when another is opened.
            assert driver == "aiomysql" or most <= before + size + 1
            assert at_once.most == 1

    async def sleeping(conn: Any) -> None:
        cursor = await settled(conn.cursor())
        await cursor.execute("SELECT SLEEP(20)")

    asyncio.run(scenario())


class Overlap:
    """How many connections for a KILL *driver* has at once, from the dial until the server has let go."""

    def __init__(self, driver: Any) -> None:
        self.most = self._now = 0
        self._lock = threading.Lock()
        connect, see_off = driver.connect, driver.see_off

        async def connecting(conninfo: str, *args: Any, **kwargs: Any) -> Any:
            if not conninfo:  # as they alone are given none
                self._count(1)
            return await connect(conninfo, *args, **kwargs)

        async def seeing_off(*args: Any) -> None:
            await see_off(*args)
            self._count(-1)

        driver.connect, driver.see_off = connecting, seeing_off

    def _count(self, by: int) -> None:
        with self._lock:
            self._now += by
            self.most = max(self.most, self._now)


def test_only_what_was_touched_is_reset(pool: Pool[Any]) -> None:
    """A plain request sends nothing but its own."""
    with pool.connection() as conn:
        sent = spied(conn)
        do(conn, "SELECT 1")
    assert sent == [b"SELECT 1"]
    with pool.connection() as conn:
        conn.autocommit(True)
    assert sent[1:] == [b"SET AUTOCOMMIT = 1", b"SET AUTOCOMMIT = 0"]


def spied(conn: Any) -> list[bytes]:
    """What is sent on it from now on."""
    sent: list[bytes] = []
    send = type(conn)._execute_command

    def sending(command: int, sql: Any) -> Any:
        sent.append(sql.encode() if isinstance(sql, str) else bytes(sql))
        return send(conn, command, sql)

    conn._execute_command = sending
    return sent


def test_a_read_is_a_transaction_that_the_flag_tells(mariadb: MariaDB, pool: Pool[Any]) -> None:
    """The driver alone keeps the server's flag for answers without rows; a SELECT's is kept here too."""
    name = table(mariadb, "a_read")
    conn = pool.getconn()
    assert pool._driver.status(conn).value == "IDLE"
    do(conn, "SELECT 1")
    assert pool._driver.status(conn).value == "IDLE"
    do(conn, f"SELECT * FROM {name}")
    assert pool._driver.status(conn).value == "INTRANS"
    conn.rollback()
    assert pool._driver.status(conn).value == "IDLE"
    pool.putconn(conn)


def test_after_an_error_a_transaction_counts_as_open(mariadb: MariaDB, pool: Pool[Any]) -> None:
    """The server does not tell with an error: one that has begun with the failed statement must not stay."""
    name = table(mariadb, "an_error")
    mariadb.ask(f"INSERT INTO {DATABASE}.{name} VALUES (1)")
    conn = pool.getconn()
    with pytest.raises(pymysql.err.IntegrityError):
        do(conn, f"INSERT INTO {name} VALUES (1)")
    assert pool._driver.status(conn).value == "INTRANS"
    pool.putconn(conn)
    asked = "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_mysql_thread_id = %s"
    assert mariadb.ask(asked, thread(conn)) == [(0,)]


def thread(conn: Any) -> int:
    return int(conn.thread_id())


def test_rows_that_are_still_streaming_close_the_connection(pool: Pool[Any]) -> None:
    """Nobody else could use it before the last row has come."""
    conn = pool.getconn()
    cursor = conn.cursor(pymysql.cursors.SSCursor)
    cursor.execute("SELECT seq FROM seq_1_to_100000")
    assert pool._driver.status(conn).value == "ACTIVE"
    pool.putconn(conn)
    with pool.connection() as other:
        assert do(other, "SELECT 1") == [(1,)]
    assert pool.snapshot().closes == {Reason.BUSY: 1}


def test_values_are_not_shown_among_the_holders(pool: Pool[Any]) -> None:
    """The statement is, as it was given; not what was put into it, nor the text that many rows make."""
    with pool.connection() as conn:
        with conn.cursor() as cursor:
            cursor.execute("SELECT %s", ("s3cret",))
            assert [holder.statement for holder in pool.holders()] == ["SELECT %s"]
            cursor.execute("CREATE TEMPORARY TABLE many (x TEXT)")
            cursor.executemany("INSERT INTO many VALUES (%s)", [("s3cret",)] * 3)
            assert [holder.statement for holder in pool.holders()] == ["INSERT INTO many VALUES (%s)"]


def test_a_deadline_never_lengthens_the_session_s_own_limit(mariadb: MariaDB) -> None:
    """The shorter of both counts, and no statement is changed but for that."""
    with Pool(mariadb.dsn, driver="pymysql", min_size=1, open=False, statement_timeout=0.1) as pool:
        with pool.connection(deadline=5) as conn, pytest.raises(pymysql.Error, match="max_statement_time"):
            do(conn, "SELECT SLEEP(3)")
        with pool.connection(deadline=5) as conn:
            assert do(conn, "/* a */ SELECT 1 UNION (SELECT 2)") == [(1,), (2,)]
            assert do(conn, "SELECT @@max_statement_time") == [(0.1,)]


@pytest.mark.parametrize(
    "statement",
    [
        "DO SLEEP(3)",
        "VALUES (SLEEP(3))",
        "ANALYZE SELECT SLEEP(3)",
        "SET @a = (SELECT SLEEP(3))",
        "CREATE TEMPORARY TABLE slow AS SELECT SLEEP(3)",
        "BEGIN NOT ATOMIC DO SLEEP(3); END",
        "IF 1 THEN DO SLEEP(3); END IF",
        "EXECUTE IMMEDIATE 'SELECT SLEEP(3)'",
        "/*!50000 SELECT */ SLEEP(3)",
    ],
)
def test_whatever_may_take_long_has_the_deadline(pool: Pool[Any], statement: str) -> None:
    """Some of these are only cut short, and end without an error."""
    began = monotonic()
    with pool.connection(deadline=0.1) as conn, suppress(pymysql.Error):
        do(conn, statement)
    assert monotonic() - began < 2


def test_a_user_s_own_limit_is_not_set_back_by_the_deadline_s(pool: Pool[Any]) -> None:
    """The server sets the limit back after a statement that it was given with."""
    with pool.connection(deadline=5) as conn:
        do(conn, "IF 1 THEN SET max_statement_time = 2; END IF")
        assert do(conn, "SHOW VARIABLES LIKE 'max_statement_time'") == [("max_statement_time", "2.000000")]


def test_a_reading_block_cannot_write(mariadb: MariaDB, pool: Pool[Any]) -> None:
    """Each of its transactions is READ ONLY; the next block's are not."""
    name = table(mariadb, "reading")
    with reading(), pool.connection() as conn:
        assert do(conn, f"SELECT * FROM {name}") == []
        conn.commit()
        with pytest.raises(pymysql.Error, match="READ ONLY"):
            do(conn, f"INSERT INTO {name} VALUES (1)")
    with pool.connection() as conn:
        do(conn, f"INSERT INTO {name} VALUES (1)")
    assert pool.snapshot().closes == {}


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ("BEGIN", "START TRANSACTION READ ONLY"),
        ("begin work; INSERT INTO t VALUES (1)", "START TRANSACTION READ ONLY; INSERT INTO t VALUES (1)"),
        (b"-- caf\xe9\nSTART TRANSACTION READ WRITE;", b"START TRANSACTION READ ONLY;"),
        (
            "/* a */ START TRANSACTION WITH CONSISTENT SNAPSHOT, READ WRITE",
            "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
        ),
        ("BEGIN NOT ATOMIC SELECT 1; END", "BEGIN NOT ATOMIC SELECT 1; END"),
        ("START SLAVE", "START SLAVE"),
        ("SELECT 'begin'", "SELECT 'begin'"),
    ],
)
def test_a_reading_block_s_own_transactions_are_read_only(said: str | bytes, sent: str | bytes) -> None:
    """Whatever else is said of them."""
    session = Session()
    session._bounds = (math.inf, True)
    assert session._bounded(said) == sent
    session._bounds = (math.inf, False)
    assert session._bounded(said) == said


def test_after_a_deadlock_a_reading_block_cannot_write_either(mariadb: MariaDB) -> None:
    """The server has ended its transaction, and says so with nothing but the error."""
    name = table(mariadb, "deadlock")
    mariadb.ask(f"INSERT INTO {DATABASE}.{name} VALUES (1), (2)")
    kwargs = {"autocommit": True}
    with Pool(mariadb.dsn, driver="pymysql", kwargs=kwargs, min_size=1, open=False) as pool, mariadb.admin() as admin:
        with reading(), pool.connection() as conn:
            conn.begin()
            do(conn, f"SELECT * FROM {name} WHERE x = 1 LOCK IN SHARE MODE")
            admin.begin()  # has changed something, so that it is not the victim
            do(admin, f"INSERT INTO {DATABASE}.{name} VALUES (3), (4), (5)")
            do(admin, f"SELECT * FROM {DATABASE}.{name} WHERE x = 2 FOR UPDATE")
            blocked = aside(lambda: do(admin, f"SELECT * FROM {DATABASE}.{name} WHERE x = 1 FOR UPDATE"))
            waiting = "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
            eventually(lambda: mariadb.ask(waiting) == [(1,)])
            with pytest.raises(pymysql.Error, match="Deadlock"):
                do(conn, f"SELECT * FROM {name} WHERE x = 2 LOCK IN SHARE MODE")
            blocked.result(5)
            admin.rollback()
            with pytest.raises(pymysql.Error, match="READ ONLY"):
                do(conn, f"INSERT INTO {name} VALUES (9)")


def test_a_server_that_turns_read_only_is_left(mariadb: MariaDB, pool: Pool[Any]) -> None:
    """A write that fails so closes the connection, and all others that are older."""
    name = table(mariadb, "read_only")
    mariadb.ask("SET GLOBAL read_only = 1")
    try:
        with pytest.raises(pymysql.Error, match="read-only"), pool.connection() as conn:
            do(conn, f"INSERT INTO {name} VALUES (1)")
    finally:
        mariadb.ask("SET GLOBAL read_only = 0")
    with pool.connection() as conn:
        do(conn, f"INSERT INTO {name} VALUES (1)")
    assert pool.snapshot().closes == {Reason.READ_ONLY: 1}


def test_a_write_on_a_replica_closes_that_connection_alone(mariadb: MariaDB) -> None:
    """It was read-only from the start, as those beside it, which are for reading."""
    name = table(mariadb, "replica")
    mariadb.ask("SET GLOBAL read_only = 1")
    try:
        with Pool(mariadb.dsn, driver="pymysql", min_size=2, open=False) as pool:
            pool.wait()
            with pytest.raises(pymysql.Error, match="read-only"), pool.connection() as conn:
                do(conn, f"INSERT INTO {name} VALUES (1)")
            assert pool.snapshot().closes == {Reason.STANDBY: 1}
    finally:
        mariadb.ask("SET GLOBAL read_only = 0")


def test_a_killed_statement_is_an_error_and_a_killed_connection_a_loss(mariadb: MariaDB, pool: Pool[Any]) -> None:
    """KILL QUERY leaves the connection fit for use."""
    conn = pool.getconn()
    killer = Killer(mariadb, thread(conn))
    with killer("KILL QUERY"), pytest.raises(pymysql.Error, match="interrupted"):
        do(conn, "SELECT SLEEP(5)")
    assert do(conn, "SELECT 1") == [(1,)]
    with killer("KILL"), pytest.raises(pymysql.Error):
        do(conn, "SELECT SLEEP(5)")
    assert pool._driver.status(conn).value == "BAD"
    assert isinstance(pool._driver.loss(conn), pymysql.Error)
    pool.putconn(conn)


class Killer:
    """Kills as soon as the connection runs something."""

    def __init__(self, mariadb: MariaDB, number: int) -> None:
        self._mariadb = mariadb
        self._number = number

    def __call__(self, how: str) -> Any:
        def kill() -> None:
            asked = "SELECT 1 FROM information_schema.processlist WHERE id = %s AND info LIKE '%%SLEEP%%'"
            eventually(lambda: self._mariadb.ask(asked, self._number))
            self._mariadb.ask(f"{how} {self._number}")

        @contextmanager
        def killing() -> Iterator[None]:
            job = aside(kill)
            yield
            job.result(5)

        return killing()


# ------------------------------------------------------------------------------------------ connecting


def test_a_url_says_what_the_driver_wants() -> None:
    """With whatever driver it names, and with types."""
    assert parse("") == {}
    assert parse("mysql+pymysql://me:p%40ss@db:3307/shop?charset=latin1&read_timeout=3&autocommit=true") == {
        "host": "db",
        "port": 3307,
        "user": "me",
        "password": "p@ss",
        "database": "shop",
        "charset": "latin1",
        "read_timeout": 3,
        "autocommit": True,
    }
    assert parse("mariadb://db/") == {"host": "db"}


@pytest.mark.parametrize(
    "conninfo",
    [
        "host=db password=s3cret",
        "postgresql://me:s3cret@db/shop",
        "mysql://me:s3cret@db:port/shop",
        "mysql://me:s3cr/et@db/shop",
        "mysql://me:s3cret@db/shop?read_timeout=s3cret",
        "mysql://me:s3cret@db/shop?autocommit=s3cret",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_its_password(conninfo: str) -> None:
    """At once, by the constructor."""
    with pytest.raises(ValueError) as refused:
        Pool(conninfo, driver="pymysql", open=False)
    shown = refused.value
    while shown is not None:
        assert "s3c" not in str(shown)
        shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)


def test_an_asyncio_driver_is_refused_in_a_pool_of_threads() -> None:
    """It has no blocking connections at all."""
    with pytest.raises(ValueError, match="asyncio alone"):
        Pool("mysql://db/", driver="aiomysql", open=False)


def test_a_class_of_another_driver_is_refused() -> None:
    """Naming what it may be."""
    with pytest.raises(TypeError, match=r"pymysql\.connections\.Connection"):
        PyMySQLDriver(dict, False)
    with pytest.raises(TypeError, match=r"aiomysql\.Connection"):
        AiomysqlDriver(dict, True)


def test_a_user_s_own_classes_are_kept(mariadb: MariaDB) -> None:
    """Of connections and of cursors."""

    class Mine(pymysql.connections.Connection):  # type: ignore[misc]
        def hello(self) -> str:
            return "hello"

    kwargs = {"cursorclass": pymysql.cursors.DictCursor}
    with Pool[Any](mariadb.dsn, driver="pymysql", connection_class=Mine, kwargs=kwargs, min_size=1, open=False) as pool:
        with pool.connection() as conn:
            assert isinstance(conn, Mine)
            assert conn.hello() == "hello"
            assert do(conn, "SELECT 1 AS one") == [{"one": 1}]
            with closing(conn.cursor()) as cursor:
                assert isinstance(cursor, pymysql.cursors.DictCursor)


@pytest.mark.parametrize("kind", [Pool, AsyncPool])
def test_a_server_that_never_answers_the_login_is_a_timeout(kind: Any, silent: Callable[[], int]) -> None:
    """The whole attempt is bounded, not only the dial."""
    driver = "pymysql" if kind is Pool else "aiomysql"
    url = f"mysql://me@127.0.0.1:{silent()}/db"

    async def scenario() -> None:
        pool = kind(url, driver=driver, min_size=1, open=False, connect_timeout=0.2, timeout=2)
        with pytest.raises(penstock.PoolTimeout):
            if kind is Pool:
                pool.open()
                pool.wait(0.7)
            else:
                await pool.open()
                await pool.wait(0.7)

    asyncio.run(scenario())


@pytest.fixture
def silent() -> Iterator[Callable[[], int]]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield lambda: int(server.getsockname()[1])
