"""`penstock run --hold`: a program that knows nothing of us stays below its line, and does not notice."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.drill.postgres import EmbeddedPostgres
from penstock.guard import databases, launch
from penstock.guard.holding.functions import may_hide
from penstock.guard.settings import Mode, Settings
from support.guarded import RUN, environment
from support.mariadb import DATABASE, PASSWORD, USER, MariaDB

Held = Callable[..., str]
SECONDS = 60

# One face for all drivers: `connect()`, `run(conn, sql)` gives the first row, `backend` asks for the session's number.
PSYCOPG2 = """
import os, psycopg2 as driver
def connect(**more): return driver.connect(os.environ["DSN"], **more)
"""
PSYCOPG = PSYCOPG2.replace("psycopg2", "psycopg")
POSTGRESQL = """
backend = "SELECT pg_backend_pid()"
"""
MYSQL = f"""
def connect(**more):
    given = dict(host=os.environ["HOST"], port=int(os.environ["PORT"]), user={USER!r}, password={PASSWORD!r})
    return driver.connect(**given, database={DATABASE!r}, **more)
backend = "SELECT CONNECTION_ID()"
"""
PYMYSQL = "import os, pymysql as driver" + MYSQL
MYSQLCLIENT = "import os, MySQLdb as driver" + MYSQL
CONNECTOR = "import os, mysql.connector as driver" + MYSQL
COMMON = """
import gc, threading, time
def run(conn, sql):
    cursor = conn.cursor()
    cursor.execute(sql)
    row = cursor.fetchone() if cursor.description else None
    cursor.close()
    return row
def eventually(condition):
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, "still not so"
        time.sleep(0.002)
"""
DRIVERS = {"psycopg2": PSYCOPG2, "psycopg": PSYCOPG, "pymysql": PYMYSQL, "mysqlclient": MYSQLCLIENT}
ON_POSTGRESQL = ("psycopg2", "psycopg")
drivers = pytest.mark.parametrize("driver", list(DRIVERS))
FACES = {**DRIVERS, "mysql.connector": CONNECTOR}
postgresql_s = pytest.mark.parametrize("driver", ON_POSTGRESQL)


@pytest.fixture
def held(request: pytest.FixtureRequest, tmp_path: Path) -> Held:
    """Run a program to its end; what it prints. It must not fail."""

    def hold(driver: str, program: str, max: int = 2, **env: str) -> str:
        if driver in ON_POSTGRESQL:
            face = FACES[driver] + POSTGRESQL
            where = {"DSN": request.getfixturevalue("dsn")}
        else:
            face = FACES[driver]
            server: MariaDB = request.getfixturevalue("mariadb")
            where = {"HOST": server.host, "PORT": str(server.port)}
        script = tmp_path / "program.py"
        script.write_text(face + COMMON + textwrap.dedent(program))
        guarded = launch.environment(Settings(Mode.HOLD, max), environment(**where, **env))
        done = subprocess.run(
            [sys.executable, script], env=guarded, capture_output=True, text=True, timeout=SECONDS, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return hold


# ---------------------------------------------------------------------------------------------- whose session it is


@postgresql_s
def test_what_a_function_does_to_a_session_of_postgresql_the_next_never_sees(held: Held, driver: str) -> None:
    """Its call does not tell. And whoever keeps the connection keeps what the function did."""
    name = f"hides_{driver}_{os.getpid()}"
    said = held(
        driver,
        f"""
        first = connect()
        run(first, \"\"\"
            CREATE FUNCTION {name}() RETURNS int LANGUAGE plpgsql AS $$
            BEGIN
                PERFORM set_config('application_name', 'somebody', false);
                PERFORM pg_advisory_lock(4712);
                CREATE TEMP TABLE hidden (a int);
                EXECUTE 'LISTEN hidden';
                RETURN 1;
            END $$
        \"\"\")
        run(first, "SELECT {name}()")
        first.commit()
        mine = run(first, backend)
        first.commit()
        try:
            connect(connect_timeout=1)
            raise SystemExit("its connection was given up")
        except driver.OperationalError:
            pass
        assert run(first, "SHOW application_name") == ("somebody",)
        first.close()
        second = connect()
        assert run(second, backend) == mine, "the same session, or this test shows nothing"
        assert run(second, "SHOW application_name") == ("",)
        assert run(second, "SELECT to_regclass('hidden')") == (None,)
        assert run(second, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4712") == (0,)
        assert run(second, "SELECT count(*) FROM pg_listening_channels()") == (0,)
        run(second, "DROP FUNCTION {name}()")
        second.commit()
        print("clean")
        """,
        max=1,
    )
    assert said == "clean"


@pytest.mark.parametrize("driver", ["pymysql", "mysqlclient", "mysql.connector"])
def test_what_a_procedure_does_to_a_session_of_mysql_the_next_never_sees(held: Held, driver: str) -> None:
    name = f"hides_{driver.replace('.', '_')}_{os.getpid()}"
    said = held(
        driver,
        f"""
        first = connect()
        run(first, "CREATE PROCEDURE {name}() BEGIN SET @x = 5, time_zone = '+03:00'; DO GET_LOCK('{name}', 1); END")
        run(first, "CALL {name}()")
        first.close()
        second = connect()
        assert run(second, "SELECT @x, @@time_zone, IS_USED_LOCK('{name}')") == (None, "SYSTEM", None)
        run(second, "DROP PROCEDURE {name}")
        print("clean")
        """,
        max=1,
    )
    assert said == "clean"


def test_mysql_connector_s_next_user_has_the_database_and_character_set_of_its_own(held: Held) -> None:
    said = held(
        "mysql.connector",
        """
        first = connect(time_zone="+01:00")
        mine = run(first, backend)
        run(first, "USE information_schema")
        first.set_charset_collation("latin1")
        first.time_zone = "+05:00"
        first.close()
        second = connect(time_zone="+01:00")
        assert run(second, backend) == mine, "the same session, or this test shows nothing"
        print(*run(second, "SELECT DATABASE(), @@character_set_client, @@time_zone"), second.charset)
        """,
        max=1,
    )
    assert said == f"{DATABASE} utf8mb4 +01:00 utf8mb4"


@pytest.mark.parametrize("driver", ["pymysql", "mysqlclient"])
def test_what_libraries_set_after_connecting_goes_with_the_connection_and_keeps_nobody_waiting(
    held: Held, driver: str
) -> None:
    """SQLAlchemy sends SET NAMES each time, and Django the isolation level."""
    said = held(
        driver,
        """
        def set_up(conn):
            run(conn, f"SET NAMES {conn.character_set_name()}")
            run(conn, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            run(conn, "SET SQL_AUTO_IS_NULL = 1")
            run(conn, "SET autocommit = 1")
            return conn
        conns = [set_up(connect(connect_timeout=5)) for _ in range(4)]
        for conn in conns:
            assert run(conn, "SELECT @@tx_isolation, @@sql_auto_is_null, @@autocommit") == ("READ-COMMITTED", 1, 1)
        [conn.close() for conn in conns]
        fresh = connect()
        print(*run(fresh, "SELECT @@tx_isolation, @@sql_auto_is_null, @@autocommit"))
        """,
        max=1,
    )
    assert said == "REPEATABLE-READ 0 0"


@pytest.mark.parametrize(
    ("statement", "mysql", "hides"),
    [
        ("SELECT mine()", False, True),
        ("SELECT public.count(x) FROM t", False, True),
        ('SELECT "mine" (1)', False, True),
        ("SELECT 1 /* mine() */, 'mine()', count(*), pg_catalog.lower(a) FROM t WHERE a IN (1, 2)", False, False),
        ("INSERT INTO public.t (a, b) VALUES (%s, now()) RETURNING id", False, False),
        ("INSERT INTO t (a) VALUES (mine(1))", False, True),
        ("CREATE TABLE IF NOT EXISTS t (a varchar(10) PRIMARY KEY, b numeric(10, 2) REFERENCES u (b))", False, False),
        ("WITH q (a) AS (SELECT max(x) OVER (PARTITION BY y) FROM t) UPDATE u SET a = (SELECT a FROM q)", False, False),
        ("  call mine", False, True),
        ("CALL mine()", True, True),
        ("DO mine", True, True),
        ("INSERT INTO `t` (`a`) VALUES (IFNULL(%s, 1)) ON DUPLICATE KEY UPDATE a = VALUES(a)", True, False),
        ("SELECT `mine`(1)", True, True),
        ("SELECT DATE_FORMAT(a, '%Y') FROM t", True, False),
    ],
)
def test_what_a_statement_calls_counts_unless_it_is_known_to_be_harmless(
    statement: str, mysql: bool, hides: bool
) -> None:
    assert may_hide(statement, mysql) is hides


@postgresql_s
def test_what_a_user_leaves_behind_in_postgresql_the_next_never_sees(held: Held, driver: str) -> None:
    table = f"of_hold_{driver}_{os.getpid()}"
    said = held(
        driver,
        f"""
        first = connect()
        mine = run(first, backend)
        run(first, "CREATE TABLE {table} (a int)")
        first.commit()
        run(first, "INSERT INTO {table} VALUES (1)")  # and no commit
        run(first, "SET application_name = 'somebody'")
        run(first, "CREATE TEMP TABLE left_behind (a int)")
        run(first, "SELECT pg_advisory_lock(4711)")
        first.close()
        second = connect()
        assert run(second, backend) == mine, "the same session, or this test shows nothing"
        assert run(second, "SELECT count(*) FROM {table}") == (0,)
        assert run(second, "SELECT to_regclass('left_behind')") == (None,)
        assert run(second, "SHOW application_name") == ("",)
        assert run(second, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711") == (0,)
        second.rollback()
        second.autocommit = True
        run(second, "SET statement_timeout = 1234")
        second.close()
        third = connect()
        assert third.autocommit is False
        assert run(third, "SHOW statement_timeout") == ("0",)
        third.rollback()
        run(third, "DROP TABLE {table}")
        third.commit()
        print("clean")
        """,
        max=1,
    )
    assert said == "clean"


@pytest.mark.parametrize("driver", ["pymysql", "mysqlclient"])
def test_what_a_user_leaves_behind_in_mariadb_the_next_never_sees(held: Held, driver: str) -> None:
    table = f"of_hold_{driver}_{os.getpid()}"
    said = held(
        driver,
        f"""
        first = connect()
        mine = run(first, backend)
        run(first, "CREATE TABLE {table} (a int) ENGINE InnoDB")
        run(first, "INSERT INTO {table} VALUES (1)")  # and no commit
        run(first, "SET @mine = 1")
        run(first, "SET SESSION sql_mode = 'ANSI'")
        run(first, "CREATE TEMPORARY TABLE left_behind (a int)")
        run(first, "SELECT GET_LOCK('mine', 0)")
        first.close()
        second = connect()
        assert run(second, backend) == mine, "the same session, or this test shows nothing"
        assert run(second, "SELECT count(*) FROM {table}") == (0,)
        assert run(second, "SELECT @mine") == (None,)
        assert run(second, "SELECT @@sql_mode LIKE '%ANSI%'") == (0,)
        assert run(second, "SELECT IS_USED_LOCK('mine')") == (None,)
        try:
            run(second, "SELECT * FROM left_behind")
            raise SystemExit("the temporary table is still there")
        except driver.Error:
            pass
        second.autocommit(True)
        second.close()
        third = connect()
        assert run(third, "SELECT @@autocommit") == (0,)
        run(third, "DROP TABLE {table}")
        print("clean")
        """,
        max=1,
    )
    assert said == "clean"


@drivers
def test_a_closed_connection_stays_closed_and_reaches_nobody_elses(held: Held, driver: str) -> None:
    said = held(
        driver,
        """
        first = connect()
        cursor = first.cursor()
        cursor.execute("SELECT 1")
        cursor.fetchone()
        first.close()
        second = connect()
        for use in (lambda: cursor.execute("SELECT 2"), lambda: first.cursor().execute("SELECT 2"), first.commit):
            try:
                use()
                raise SystemExit("it was used")
            except driver.Error:
                pass
        assert run(second, "SELECT 3") == (3,)
        print(bool(first.closed if hasattr(first, "closed") else not first.open))
        """,
        max=1,
    )
    assert said == "True"


# ---------------------------------------------------------------------------------------------- below the line


@drivers
def test_connections_that_are_kept_for_later_keep_nobody_waiting(held: Held, driver: str) -> None:
    said = held(
        driver,
        """
        kept = [connect() for _ in range(12)]
        seen = set()
        for _ in range(3):
            for number, conn in enumerate(kept):
                assert run(conn, f"SELECT {number}") == (number,)
                seen |= {run(conn, backend)}
                conn.commit()
        print(len(seen))
        """,
    )
    assert int(said) <= 2


@drivers
def test_what_was_set_on_a_connection_goes_with_it(held: Held, driver: str) -> None:
    said = held(
        driver,
        """
        def set_autocommit(conn, value):
            if callable(conn.autocommit):
                conn.autocommit(value)
            else:
                conn.autocommit = value
        def is_autocommit(conn):
            return bool(conn.get_autocommit() if callable(conn.autocommit) else conn.autocommit)
        kept = [connect() for _ in range(6)]
        for number, conn in enumerate(kept):
            set_autocommit(conn, number % 2 == 0)
        for _ in range(2):
            for number, conn in enumerate(kept):
                assert is_autocommit(conn) is (number % 2 == 0)
                run(conn, "SELECT 1")
                if number % 2:
                    conn.rollback()
        print("so it is")
        """,
    )
    assert said == "so it is"


@drivers
def test_what_has_been_fetched_from_the_server_can_still_be_read(held: Held, driver: str) -> None:
    said = held(
        driver,
        """
        first = connect()
        cursor = first.cursor()
        cursor.execute("SELECT 1 AS a UNION SELECT 2 UNION SELECT 3 ORDER BY a")
        rows = [cursor.fetchone()]
        first.commit()
        def other():
            conn = connect()
            for number in range(20):
                assert run(conn, f"SELECT {number}") == (number,)
                conn.commit()
            conn.close()
        threads = [threading.Thread(target=other) for _ in range(3)]
        [thread.start() for thread in threads]
        rows += cursor.fetchall()
        cursor.execute("SELECT 4")
        rows += cursor.fetchall()
        first.close()
        [thread.join() for thread in threads]
        print([row[0] for row in rows])
        """,
        max=2,
    )
    assert said == "[1, 2, 3, 4]"


@drivers
def test_threads_at_random_never_see_one_another_and_stay_below_the_line(held: Held, driver: str) -> None:
    said = held(
        driver,
        """
        import random
        table = f"of_threads_{os.getpid()}"
        conn = connect()
        run(conn, f"CREATE TABLE {table} (who int, what int)")
        conn.commit()
        conn.close()
        backends, troubles = set(), []
        def work(me):
            chance = random.Random(me)
            conn = written = None
            sure = 0
            try:
                for step in range(60):
                    if conn is None:
                        conn, pending = connect(), 0
                    what = chance.choice(["read", "write", "commit", "rollback", "close", "drop", "mark", "raise"])
                    if what == "read":
                        found = run(conn, f"SELECT count(*) FROM {table} WHERE who = {me}")
                        assert found == (sure + pending,), (found, sure, pending)
                        assert run(conn, "SELECT %d" % (me * 1000 + step)) == (me * 1000 + step,)
                    elif what == "write":
                        run(conn, f"INSERT INTO {table} VALUES ({me}, {step})")
                        pending += 1
                    elif what == "commit":
                        conn.commit()
                        sure, pending = sure + pending, 0
                    elif what == "rollback":
                        conn.rollback()
                        pending = 0
                    elif what == "mark":
                        conn.rollback()
                        pending = 0
                        mark = "SET application_name = 'of %d'" if "psycopg" in driver.__name__ else "SET @me = %d"
                        ask = "SHOW application_name" if "psycopg" in driver.__name__ else "SELECT @me"
                        assert run(conn, ask)[0] in ("", None, me, f"of {me}")
                        run(conn, mark % me)
                        conn.commit()
                        assert run(conn, ask)[0] in (me, f"of {me}")
                    elif what == "raise":
                        try:
                            run(conn, "SELECT nothing FROM nowhere")
                        except driver.Error:
                            conn.rollback()
                            pending = 0
                    else:
                        backends.add(run(conn, backend))
                        if what == "close":
                            conn.close()
                        conn = None
            except BaseException as error:
                troubles.append(repr(error))
                raise
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        conn = connect()
        run(conn, f"DROP TABLE {table}")
        conn.commit()
        from penstock.guard.holding import pools
        [database] = pools._databases.values()
        assert max(len(pool._core.slots) for pool in database.pools.values()) <= 3
        print(troubles)
        """,
        max=3,
    )
    assert said == "[]"


@postgresql_s
def test_different_arguments_share_the_line(held: Held, driver: str, postgres: EmbeddedPostgres) -> None:
    name = f"hold-{driver}-{os.getpid()}"
    said = held(
        driver,
        f"""
        kept = []
        watching = driver.connect(os.environ["ADMIN"])
        watching.autocommit = True
        most = 0
        for number in range(9):
            kept.append(connect(application_name="{name}", options=f"-c work_mem={{1000 + number % 3}}kB"))
            assert run(kept[-1], "SHOW work_mem") == (f"{{1000 + number % 3}}kB",)
            kept[-1].commit()
            asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'"
            most = max(most, run(watching, asked)[0])
        for number, conn in enumerate(kept):
            assert run(conn, "SHOW work_mem") == (f"{{1000 + number % 3}}kB",)
            conn.commit()
        print(most)
        """,
        ADMIN=postgres.admin_dsn,
    )
    assert 1 <= int(said) <= 2


@pytest.mark.parametrize(
    ("params", "environ"),
    [
        ({"host": "db", "port": "5432", "dbname": "x", "user": "u"}, {}),
        ({"host": "DB", "dbname": "x", "user": "u"}, {}),
        ({"dbname": "x"}, {"PGHOST": "db", "PGUSER": "u"}),
        ({"host": "elsewhere", "hostaddr": "db", "dbname": "x", "user": "u"}, {}),
        ({"host": "db", "port": 5432}, {"PGUSER": "u", "PGDATABASE": "x"}),
    ],
)
def test_one_database_has_one_line_however_it_is_spelled(
    params: dict[str, object], environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGPORT", "PGUSER", "PGDATABASE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert databases.where(params) == ("db", "5432", "x", "u")


def test_what_is_not_said_is_what_libpq_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGPORT", "PGUSER", "PGDATABASE"):
        monkeypatch.delenv(name, raising=False)
    assert databases.where({"user": "u"}) == ("", "5432", "u", "u")
    assert databases.where({"host": "/tmp/A"})[0] == "/tmp/A"


@postgresql_s
def test_a_drivers_line_is_one_for_each_database(held: Held, driver: str) -> None:
    said = held(
        driver,
        """
        from urllib.parse import urlsplit
        from penstock.guard.holding import pools
        at = urlsplit(os.environ["DSN"])
        own = dict(host=at.hostname, port=at.port, user=at.username, password=at.password, dbname=at.path[1:])
        kept = [connect(), driver.connect(**own), driver.connect(**own | {"host": "nowhere", "hostaddr": at.hostname})]
        os.environ["PGDATABASE"] = own.pop("dbname")
        kept.append(driver.connect(**own))
        print(len(pools._databases))
        """,
        max=4,
    )
    assert said == "1"


@postgresql_s
def test_ways_to_connect_that_were_used_once_or_in_vain_are_forgotten(held: Held, driver: str) -> None:
    said = held(
        driver,
        """
        from penstock.guard.holding import pools
        pools._POOLS, pools._JUST_NOW = 3, 0.0
        for number in range(12):
            conn = connect(application_name=f"job-{number}")
            assert run(conn, "SELECT 1") == (1,)
            conn.close()
        (database,) = pools._databases.values()
        assert 1 <= len(database.pools) <= 5, database.pools  # the newest, and those that have a connection still
        before = len(database.pools)
        for number in range(10):
            try:
                connect(password="wrong" + str(number))
            except driver.OperationalError:
                pass
        print(len(database.pools) <= before, threading.active_count() < 12)
        """,
    )
    assert said == "True True"


# ---------------------------------------------------------------------------------------------- what is forgotten


@drivers
def test_what_is_dropped_comes_back_and_what_it_did_is_undone(held: Held, driver: str) -> None:
    said = held(
        driver,
        """
        def forget():
            conn = connect()
            run(conn, "SELECT 1")
            raise ValueError("and the connection goes with the traceback")
        for _ in range(10):
            try:
                forget()
            except ValueError:
                pass
        def thread():
            mine = threading.local()
            mine.conn = connect()
            run(mine.conn, "SELECT 1")
        for _ in range(5):
            each = threading.Thread(target=thread)
            each.start()
            each.join()
        print("none is missing")
        """,
        max=1,
    )
    assert said == "none is missing"


@postgresql_s
def test_threads_that_connect_anew_before_they_let_go_do_not_block_one_another(held: Held, driver: str) -> None:
    said = held(
        driver,
        """
        done = []
        def work():
            for number in range(10):
                conn = connect()  # and the last one is still in hand
                done.append(run(conn, f"SELECT {number}")[0])
        threads = [threading.Thread(target=work) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        print(sum(done))
        """,
    )
    assert said == "180"


@postgresql_s
def test_what_an_ended_thread_has_left_open_is_taken_back_where_nothing_is_lost(held: Held, driver: str) -> None:
    """Somebody else may go on with it, as a pool of the program's own does."""
    said = held(
        driver,
        """
        kept = []
        def leave(statement):
            conn = connect()
            run(conn, statement)
            kept.append(conn)
        for statement in ("SELECT 1", "SET application_name = 'somebody'", "SELECT 2"):
            each = threading.Thread(target=leave, args=(statement,))
            each.start()
            each.join()
        other = connect()  # waits for one of them
        assert run(other, "SHOW application_name") == ("",)
        other.close()
        reading, set_up, _ = kept
        assert run(reading, "SELECT 2") == (2,)  # nothing was lost
        print(*run(set_up, "SHOW application_name"))
        """,
    )
    assert said == "somebody"


def test_sqlalchemy_s_pool_goes_on_with_what_an_ended_thread_or_request_has_opened(held: Held) -> None:
    """With a setting made once, after connecting: that it were gone would be an error at each second use."""
    pytest.importorskip("sqlalchemy")
    said = held(
        "psycopg2",
        """
        import sqlalchemy as sa
        from penstock.guard import requests
        url = "postgresql+psycopg2" + os.environ["DSN"].removeprefix("postgresql")
        for around in ("thread", "request"):
            engine = sa.create_engine(url)
            @sa.event.listens_for(engine, "connect")
            def set_up(conn, _):
                conn.cursor().execute("SET statement_timeout = '5s'")
                conn.commit()
            def work():
                request = requests.Request(lambda: "GET /") if around == "request" else None
                requests.begin(request)
                with engine.begin() as conn:
                    assert conn.scalar(sa.text("SHOW statement_timeout")) == "5s"
                if request is not None:
                    request.end()
                done.append(around)
            done = []
            for _ in range(4):
                each = threading.Thread(target=work)
                each.start()
                each.join()
                gc.collect()
            print(len(done), end=" ")
            engine.dispose()
        """,
    )
    assert said == "4 4"


@postgresql_s
def test_what_a_request_keeps_comes_back_at_its_end(held: Held, driver: str) -> None:
    said = held(
        driver,
        """
        from flask import Flask
        app = Flask(__name__)
        kept, shared = [], connect()
        @app.get("/")
        def page():
            kept.append(connect())
            run(kept[-1], "SELECT 1")
            return str(run(shared, "SELECT 2")[0])
        client = app.test_client()
        for _ in range(5):
            with client.get("/") as response:
                assert response.data == b"2"
        shared.commit()
        for conn in kept:
            print(run(conn, "SELECT 3")[0], end="")
            conn.rollback()
        """,
    )
    assert said == "33333"


# ---------------------------------------------------------------------------------------------- when it goes wrong


@postgresql_s
def test_who_waits_in_vain_is_told_who_holds(held: Held, driver: str) -> None:
    said = held(
        driver,
        """
        def hold(conn, started, end):
            run(conn, "SELECT 1")
            started.set()
            end.wait()
        started, end = threading.Event(), threading.Event()
        each = threading.Thread(target=hold, args=(connect(), started, end))
        each.start()
        started.wait()
        began = time.monotonic()
        try:
            connect(connect_timeout=1)
        except driver.OperationalError as error:
            print(error)
        assert 0.9 < time.monotonic() - began < 10
        end.set()
        """,
        max=1,
    )
    assert "no connection within 1 s: 1 are held in this process" in said
    assert "program.py" in said
    assert "PENSTOCK=off" in said


@drivers
def test_what_connecting_raises_is_the_drivers_own(held: Held, driver: str) -> None:
    said = held(
        driver,
        """
        import traceback
        began = time.monotonic()
        try:
            connect(user="nobody_of_this_name", password="wrong") if "MYSQL" in "" else connect(port=1)
        except (driver.OperationalError, TypeError) as error:
            print(type(error).__module__.split(".")[0] != "penstock")
        assert time.monotonic() - began < 10
        """.replace('connect(user="nobody_of_this_name", password="wrong") if "MYSQL" in "" else connect(port=1)',
                    "connect(port=1)" if driver in ON_POSTGRESQL else "driver.connect(host='127.0.0.1', port=1)"),
    )  # fmt: skip
    assert said == "True"


@postgresql_s
def test_a_connection_that_the_server_ends_is_replaced_at_once(held: Held, driver: str) -> None:
    said = held(
        driver,
        """
        victim, other = connect(), connect()
        other.autocommit = True
        mine = run(victim, backend)[0]
        run(other, f"SELECT pg_terminate_backend({mine})")
        try:
            run(victim, "SELECT 1")
        except driver.OperationalError:
            pass
        assert victim.closed
        for conn in [connect() for _ in range(4)]:
            print(run(conn, "SELECT 5")[0], end="")
            conn.rollback()
        """,
    )
    assert said == "5555"


@postgresql_s
def test_a_forked_child_has_connections_of_its_own(held: Held, driver: str) -> None:
    said = held(
        driver,
        """
        idle, busy = connect(), connect()
        mine = run(idle, backend)
        idle.commit()
        run(busy, "CREATE TEMP TABLE t (a int)")
        child = os.fork()
        if child == 0:
            status = 1
            try:
                assert run(idle, backend) != mine
                try:
                    run(busy, "SELECT 1")
                except driver.OperationalError as error:
                    status = 0 if "forked" in str(error) else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert run(busy, "SELECT count(*) FROM t") == (0,)
        busy.commit()
        assert run(idle, backend) == mine
        print("both are well")
        """,
    )
    assert said == "both are well"


@pytest.mark.parametrize("driver", ["pymysql", "mysqlclient"])
def test_what_a_session_wrote_last_is_asked_of_that_session_or_not_at_all(held: Held, driver: str) -> None:
    said = held(
        driver,
        """
        table = f"of_last_{os.getpid()}"
        conn = connect(autocommit=True)
        run(conn, f"CREATE TABLE {table} (a int AUTO_INCREMENT PRIMARY KEY)")
        run(conn, f"INSERT INTO {table} () VALUES ()")
        others = [connect(autocommit=True) for _ in range(4)]
        [run(other, f"INSERT INTO {table} () VALUES ()") for other in others]  # `conn` has given its connection up
        try:
            print(run(conn, "SELECT LAST_INSERT_ID()"))
        except driver.OperationalError as error:
            print("given up" in str(error))
        run(conn, f"INSERT INTO {table} () VALUES ()")
        held, last = run(conn, backend), run(conn, "SELECT LAST_INSERT_ID()")
        assert last == (6,), last
        run(conn, f"DROP TABLE {table}")
        """,
    )
    assert said == "True"


def test_the_command_line_is_all_that_it_takes(dsn: str, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        "import os, psycopg2\n"
        "kept = [psycopg2.connect(os.environ['DSN']) for _ in range(3)]\n"
        "print(type(kept[0]).__module__, isinstance(kept[0], psycopg2.extensions.connection))\n"
    )
    words = [*RUN, "--hold", "--max", "1", "--", str(script)]
    done = subprocess.run(words, env=environment(DSN=dsn), capture_output=True, text=True, timeout=SECONDS)
    assert done.stdout.split() == ["penstock.guard.holding.psycopg2", "True"], done.stderr


def test_a_driver_that_is_not_held_is_left_alone_without_a_word(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text("import sqlite3, sys\nprint(sqlite3.connect(':memory:').execute('SELECT 1').fetchone())\n")
    guarded = launch.environment(Settings(Mode.HOLD, 1), environment())
    done = subprocess.run([sys.executable, script], env=guarded, capture_output=True, text=True, timeout=SECONDS)
    assert (done.stdout, done.stderr) == ("(1,)\n", "")


@postgresql_s
def test_off_is_off(held: Held, driver: str) -> None:
    said = held(
        driver,
        """
        import sys
        kept = [connect() for _ in range(4)]
        print(len({run(conn, backend) for conn in kept}), "penstock" in sys.modules)
        """,
        PENSTOCK="off",
    )
    assert said == "4 False"


def test_mysql_connectors_connections_are_bounded_and_come_back_clean(held: Held) -> None:
    said = held(
        "mysql.connector",
        """
        first = connect()
        mine = run(first, backend)
        assert isinstance(first, driver.abstracts.MySQLConnectionAbstract)
        run(first, "SET @mine = 1")
        run(first, "CREATE TEMPORARY TABLE left_behind (a int)")
        first.close()
        def forget():
            conn = connect()
            run(conn, "SELECT 1")
            raise ValueError
        for _ in range(3):
            try:
                forget()
            except ValueError:
                pass
        second = connect()
        assert run(second, backend) == mine, "the same session, or this test shows nothing"
        assert run(second, "SELECT @mine") == (None,)
        try:
            run(second, "SELECT * FROM left_behind")
        except driver.Error:
            print("clean")
        """,
        max=1,
    )
    assert said == "clean"


def test_psycopg2s_functions_in_c_take_our_connections(held: Held) -> None:
    said = held(
        "psycopg2",
        """
        from psycopg2 import extensions, extras, sql
        conn = connect(cursor_factory=extras.RealDictCursor)
        assert isinstance(conn, extensions.connection)
        with conn, conn.cursor() as cursor:
            assert isinstance(cursor, extras.RealDictCursor)
            extensions.register_type(extensions.UNICODE, conn)
            extras.register_uuid(conn_or_curs=cursor)
            driver.DATETIME("2026-01-01", cursor)  # a caster in C, which trusts its caller
            query = sql.SQL("SELECT {} AS {}").format(sql.Literal("it's"), sql.Identifier("a b"))
            assert query.as_string(conn) == 'SELECT \\'it\\'\\'s\\' AS "a b"', query.as_string(conn)
            extras.execute_values(cursor, "SELECT * FROM (VALUES %s) AS v (a)", [(1,), (2,)])
            print([row["a"] for row in cursor])
        """,
    )
    assert said == "[1, 2]"


def test_sqlalchemys_pool_on_top_of_ours_stays_below_the_line(held: Held) -> None:
    said = held(
        "psycopg2",
        """
        from sqlalchemy import create_engine, text
        engine = create_engine(os.environ["DSN"].replace("postgresql:", "postgresql+psycopg2:"), pool_size=6)
        backends = set()
        def work():
            for _ in range(5):
                with engine.connect() as conn:
                    backends.add(conn.execute(text(backend)).scalar())
        threads = [threading.Thread(target=work) for _ in range(6)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        engine.dispose()
        print(len(backends))
        """,
    )
    assert int(said) <= 2


def test_a_pool_that_is_one_already_is_left_alone(held: Held) -> None:
    said = held(
        "psycopg",
        """
        import penstock, psycopg_pool
        with psycopg_pool.ConnectionPool(os.environ["DSN"], min_size=1, max_size=1) as pool:
            with pool.connection() as conn:
                print(type(conn) is driver.Connection, end=" ")
        with penstock.Pool(os.environ["DSN"], min_size=1) as pool:
            with pool.connection() as conn:
                print(type(conn) is driver.Connection)
        """,
    )
    assert said == "True True"
