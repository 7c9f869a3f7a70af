"""`penstock run --watch`: every line that leaks is named, and no other; and the program does not notice."""

import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from support.guarded import RUN, command, environment, finished, marked, started, watched
from support.mariadb import MariaDB

Written = Callable[[str], Path]

# Flask's own client is told to read the whole response and close it, as servers do.
FLASK = """
import atexit, contextlib, os, queue, threading
import psycopg, psycopg2
from concurrent.futures import ThreadPoolExecutor
from flask import Flask, g
from psycopg2.pool import ThreadedConnectionPool
from sqlalchemy import create_engine, text

dsn = os.environ["DSN"]
app = Flask(__name__)
kept, local, lock = [], threading.local(), threading.Lock()
engine = create_engine(dsn.replace("postgresql://", "postgresql+psycopg2://"), pool_size=2)
theirs = ThreadedConnectionPool(1, 8, dsn)
the_global = None

def ask(conn, divisor=1):
    with conn.cursor() as cursor:
        cursor.execute("SELECT 1 / %s", (divisor,))
        return str(cursor.fetchone())

def connect():
    return psycopg2.connect(dsn)

@app.route("/dropped")
def dropped():
    conn = psycopg2.connect(dsn)  # leak
    return ask(conn)

@app.route("/on_error/<int:divisor>")
def on_error(divisor):
    conn = psycopg2.connect(dsn)  # leak
    answer = ask(conn, divisor)
    conn.close()
    return answer

@app.route("/kept")
def keep():
    conn = psycopg2.connect(dsn)  # leak
    kept.append(conn)
    return ask(conn)

@app.route("/kept_and_never_used")
def keep_unused():
    kept.append(psycopg2.connect(dsn))  # leak
    return "unused"

@app.route("/with_does_not_close")
def with_does_not_close():
    with psycopg2.connect(dsn) as conn:  # leak
        return ask(conn)

@app.route("/cycle")
def cycle():
    conn = psycopg2.connect(dsn)  # leak
    me = [conn]
    me.append(me)
    return ask(conn)

@app.route("/helper_leaks")
def helper_leaks():
    conn = connect()  # leak
    return ask(conn)

@app.route("/helper_closes")
def helper_closes():
    conn = connect()
    try:
        return ask(conn)
    finally:
        conn.close()

@app.route("/finally")
def in_finally():
    conn = psycopg2.connect(dsn)
    try:
        return ask(conn)
    finally:
        conn.close()

@app.route("/closing")
def closing():
    with contextlib.closing(psycopg2.connect(dsn)) as conn:
        return ask(conn)

@app.route("/with_closes")
def with_closes():
    with psycopg.connect(dsn) as conn:
        return ask(conn)

@app.route("/teardown")
def teardown():
    if "db" not in g:
        g.db = psycopg2.connect(dsn)
    return ask(g.db)

@app.teardown_appcontext
def close_db(error):
    if "db" in g:
        g.pop("db").close()

@app.route("/thread_local")
def thread_local():
    if not hasattr(local, "conn"):
        local.conn = psycopg2.connect(dsn)
    return ask(local.conn)

@app.route("/global")
def once():
    global the_global
    with lock:
        if the_global is None:
            the_global = psycopg2.connect(dsn)
        return ask(the_global)

@app.route("/engine")
def of_engine():
    with engine.connect() as conn:
        return str(conn.execute(text("SELECT 1")).scalar())

@app.route("/their_pool")
def their_pool():
    conn = theirs.getconn()
    try:
        return ask(conn)
    finally:
        theirs.putconn(conn)

own = queue.SimpleQueue()

@app.route("/own_pool")
def own_pool():
    try:
        conn = own.get_nowait()
    except queue.Empty:
        conn = psycopg2.connect(dsn)
    try:
        return ask(conn)
    finally:
        own.put(conn)

@app.route("/closed_by_another")
def closed_by_another():
    conn = psycopg2.connect(dsn)
    answer = ask(conn)
    thread = threading.Thread(target=conn.close)
    thread.start()
    thread.join()
    return answer

@app.route("/stream")
def stream():
    conn = psycopg2.connect(dsn)

    def rows():
        try:
            yield ask(conn)
        finally:
            conn.close()

    return rows()

jobs = queue.SimpleQueue()

def worker():
    conn = psycopg2.connect(dsn)
    while jobs.get():
        ask(conn)
    conn.close()

@app.route("/job")
def job():
    jobs.put(True)
    return "later"

background = threading.Thread(target=worker)

if __name__ == "__main__":
    background.start()
    paths = [rule.rule.replace("<int:divisor>", "1") for rule in app.url_map.iter_rules() if rule.endpoint != "static"]
    app.logger.disabled = True

    def get(path):
        return app.test_client().get(path, buffered=True).status_code

    with ThreadPoolExecutor(3) as threads:
        statuses = [*threads.map(get, [*paths, "/on_error/0"] * 5)]
    jobs.put(False)
    background.join()
    assert sorted(set(statuses)) == [200, 500] and statuses.count(500) == 5, statuses
"""

SCRIPT = """
import os, sys, threading, weakref
import psycopg2, psycopg2.extras

dsn = os.environ["DSN"]

def ask(conn):
    with conn.cursor() as cursor:
        cursor.execute("SELECT 1")
        return cursor.fetchone()

kept = []

def leaves():
    conn = psycopg2.connect(dsn)  # leak
    ask(conn)
    kept.append(conn)

def drops():
    ask(psycopg2.connect(dsn))  # leak

def closes():
    conn = psycopg2.connect(dsn)
    try:
        ask(conn)
    finally:
        conn.close()

def once():
    ask(psycopg2.connect(dsn))

def of_a_thread():
    local.conn = psycopg2.connect(dsn)
    ask(local.conn)

local = threading.local()
own = [psycopg2.connect(dsn) for _ in range(3)]  # filled at the start, and not all of it is needed
to_the_end = psycopg2.connect(dsn)
for _ in range(4):
    leaves()
    drops()
    closes()
    ask(own[0])
    ask(to_the_end)
    thread = threading.Thread(target=of_a_thread)
    thread.start()
    thread.join()
once()
"""


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Write a program."""

    def write(text: str) -> Path:
        program = tmp_path / "program.py"
        program.write_text(textwrap.dedent(text))
        return program

    return write


def test_every_leaking_line_of_a_web_application_is_named_and_no_other(written: Written, dsn: str) -> None:
    program = written(FLASK)
    found = watched(program, DSN=dsn)
    assert found.status == 0, found.told
    leaks = {line.rpartition(" < ")[2]: how for line, how in found.leaks().items()}
    assert set(leaks) == marked(program)
    assert f"LEAKS at {len(leaks)} lines" in found.told


def test_a_helper_is_named_with_the_line_that_called_it(written: Written, dsn: str) -> None:
    program = written("""
        import os, psycopg2

        def connect():
            return psycopg2.connect(os.environ["DSN"])

        def leaks():
            connect().cursor().execute("SELECT 1")

        def closes():
            connect().close()

        for _ in range(3):
            leaks()
            closes()
    """)
    found = watched(program, DSN=dsn)
    assert found.leaks() == {"program.py:5 < program.py:8 < program.py:14": {"dropped": 3}}
    assert "program.py:5 in connect, called at program.py:8 in leaks" in found.told


def test_every_leaking_line_of_a_script_is_named_and_no_other(written: Written, dsn: str) -> None:
    program = written(SCRIPT)
    found = watched(program, DSN=dsn)
    assert found.status == 0, found.told
    left, dropped = sorted(marked(program))
    assert {line.partition(" < ")[0]: how for line, how in found.leaks().items()} == {
        left: {"left": 4},
        dropped: {"dropped": 4},
    }


ASYNC = """
    import asyncio, os, sys
    import asyncpg, psycopg

    dsn = os.environ["DSN"]
    kept = []

    async def closes(connect):
        conn = await connect(dsn)
        try:
            await conn.execute("SELECT 1")
        finally:
            await conn.close()

    async def drops(connect):
        conn = await connect(dsn)  # leak
        await conn.execute("SELECT 1")

    async def leaves(connect):
        conn = await asyncio.wait_for(connect(dsn), 30)  # leak
        await conn.execute("SELECT 1")
        kept.append(conn)

    async def works(connect, jobs):
        conn = await connect(dsn)
        for _ in range(jobs):
            await conn.execute("SELECT 1")
            await asyncio.sleep(0)
        await conn.close()

    async def main(connect):
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(works(connect, 5))
        for _ in range(3):
            await asyncio.create_task(closes(connect))
            await asyncio.create_task(drops(connect))
            await asyncio.create_task(leaves(connect))
        async with asyncpg.create_pool(dsn, min_size=2, max_size=2) as pool:
            await pool.fetchval("SELECT 1")

    asyncio.run(main(asyncpg.connect if sys.argv[1] == "asyncpg" else psycopg.AsyncConnection.connect))
"""


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_every_leaking_line_of_asyncio_is_named_and_no_other(written: Written, dsn: str, driver: str) -> None:
    program = written(ASYNC)
    found = watched(program, driver, DSN=dsn)
    assert found.status == 0, found.told
    assert {line.partition(" < ")[0] for line in found.leaks()} == marked(program)
    assert sum(found.leaks()[line].get("left", 0) for line in found.leaks()) == 3
    pools = [site for site in found.report["databases"][0]["sites"] if site["pool"]]
    assert {site["pool"] for site in pools} == {"asyncpg's pool"}
    assert sum(site["opened"] for site in pools) == 2


BLOCKING = """
    import importlib, json, os, sys

    module = importlib.import_module(sys.argv[1])
    options = json.loads(os.environ["OPTIONS"])
    kept = []

    def ask(conn):
        cursor = conn.cursor()
        cursor.execute("SELECT 1")
        assert list(map(tuple, cursor.fetchall())) == [(1,)]
        cursor.close()
        conn.commit()

    def closes():
        conn = module.connect(**options)
        ask(conn)
        conn.close()

    def drops():
        ask(module.connect(**options))  # leak

    def leaves():
        conn = module.connect(**options)  # leak
        ask(conn)
        kept.append(conn)

    to_the_end = module.connect(**options)
    for _ in range(3):
        closes(), drops(), leaves(), ask(to_the_end)
"""


@pytest.mark.parametrize("module", ["pymysql", "MySQLdb", "mysql.connector", "psycopg", "sqlite3"])
def test_every_driver_s_leaks_are_named(
    written: Written, module: str, dsn: str, mariadb: MariaDB, tmp_path: Path
) -> None:
    url = urlsplit(mariadb.url())
    mysql = {
        "host": url.hostname,
        "port": url.port,
        "user": url.username,
        "password": unquote(url.password or ""),
        "database": url.path.lstrip("/"),
    }
    options = {"psycopg": {"conninfo": dsn}, "sqlite3": {"database": str(tmp_path / "file.db")}}.get(module, mysql)
    program = written(BLOCKING)
    found = watched(program, module, OPTIONS=json.dumps(options))
    assert found.status == 0, found.told
    assert {line.partition(" < ")[0] for line in found.leaks()} == marked(program)
    assert unquote(url.password or "") not in found.told + json.dumps(found.report)


def test_aiomysql_s_leaks_are_named(written: Written, mariadb: MariaDB) -> None:
    url = urlsplit(mariadb.url())
    program = written("""
        import aiomysql, asyncio, gc, os

        kept = []

        async def connect():
            return await aiomysql.connect(
                host=os.environ["HOST"], port=int(os.environ["PORT"]), user=os.environ["WHO"],
                password=os.environ["SECRET"], db=os.environ["DB"])

        async def ask(conn):
            async with conn.cursor() as cursor:
                await cursor.execute("SELECT 1")
            await conn.commit()

        async def closes():
            async with await connect() as conn:
                await ask(conn)

        async def drops():
            await ask(await connect())  # leak

        async def leaves():
            conn = await connect()  # leak
            await ask(conn)
            kept.append(conn)

        async def main():
            for _ in range(3):
                await asyncio.create_task(closes())
                await asyncio.create_task(drops())
                await asyncio.create_task(leaves())
            for conn in kept:
                conn._writer.transport.close()

        asyncio.run(main())
    """)
    env = {"HOST": url.hostname, "PORT": str(url.port), "WHO": url.username, "DB": url.path.lstrip("/")}
    found = watched(program, SECRET=unquote(url.password or ""), **{name: value or "" for name, value in env.items()})
    assert {line.split(" < ")[1] for line in found.leaks()} == marked(program), found.told


def test_nothing_changes_for_the_program(written: Written, dsn: str) -> None:
    """What connections are, what they raise and what their users derive from them, with and without."""
    program = written('''
        import inspect, os, sys
        import asyncpg, psycopg, psycopg2, psycopg2.extras, sqlite3
        from psycopg2 import connect

        dsn = os.environ["DSN"]

        class Mine(psycopg2.extensions.connection):
            """Mine."""
            def close(self):
                print("closing")
                super().close()

        class MyCursor(psycopg2.extensions.cursor):
            def execute(self, *args):
                print("executing")
                return super().execute(*args)

        class Theirs(psycopg.Connection):
            pass

        class Lite(sqlite3.Connection):
            pass

        def told(conn, cls):
            print(isinstance(conn, cls), type(conn).__name__, type(conn).__module__, type(conn).__doc__ == cls.__doc__)

        for factory in (None, Mine, psycopg2.extras.DictConnection, lambda *a, **k: Mine(*a, **k)):
            conn = connect(dsn, connection_factory=factory)
            told(conn, factory if isinstance(factory, type) else psycopg2.extensions.connection)
            cursor = conn.cursor()
            cursor.execute("SELECT 1 AS one")
            print(type(cursor).__name__, cursor.fetchone(), cursor.connection is conn, conn.info.dbname)
            psycopg2.extensions.register_type(psycopg2.extensions.UNICODE, conn)
            with conn:
                pass
            print(conn.closed, conn.close(), conn.closed)
            try:
                conn.cursor()
            except psycopg2.InterfaceError as error:
                print(repr(error))
        conn = psycopg2.connect(dsn, cursor_factory=MyCursor)
        print(conn.cursor().execute("SELECT 1"), conn.cursor_factory is MyCursor, hasattr(conn, "__dict__"))
        conn.close()
        for failing in ("host=127.0.0.1 port=1 connect_timeout=1", "nonsense"):
            for module in (psycopg2, psycopg):
                try:
                    module.connect(failing)
                except module.Error as error:
                    print(type(error), str(error))
        with Theirs.connect(dsn, autocommit=True) as conn:
            told(conn, Theirs)
            print(conn.execute("SELECT 1").fetchone(), conn.cursor_factory is psycopg.Cursor)
        print(conn.closed, psycopg.Connection.connect(dsn).close())
        conn = sqlite3.connect("file.db", factory=Lite)
        told(conn, Lite)
        with conn:
            print(conn.execute("SELECT 1").fetchone())
        conn.close()
        print(sqlite3.connect(":memory:").execute("SELECT 1").fetchone())
        for module in (psycopg2, psycopg, asyncpg):
            print(inspect.signature(module.connect))
        sys.exit(7)
    ''')
    alone = subprocess.run(
        [sys.executable, str(program)], env=environment(DSN=dsn), cwd=program.parent, capture_output=True, text=True
    )
    found = watched(program, DSN=dsn)
    assert (found.status, found.output) == (alone.returncode, alone.stdout)
    assert alone.returncode == 7, alone.stderr


def test_pools_are_told_apart_from_the_program(written: Written, dsn: str) -> None:
    found = watched(
        written("""
        import os, psycopg2, psycopg2.pool, psycopg_pool, sqlalchemy
        import penstock

        dsn = os.environ["DSN"]
        engine = sqlalchemy.create_engine(dsn.replace("postgresql:", "postgresql+psycopg:"))
        engine.connect().close()
        with psycopg_pool.ConnectionPool(dsn, min_size=2, open=True) as pool:
            pool.wait()
        psycopg2.pool.SimpleConnectionPool(1, 2, dsn)
        with penstock.Pool(dsn, min_size=1) as ours, ours.connection() as conn:
            conn.execute("SELECT 1")
        """),
        DSN=dsn,
    )
    assert found.status == 0, found.told
    sites = found.report["databases"][0]["sites"]
    assert {site["pool"]: site["opened"] for site in sites} == {
        "SQLAlchemy's pool": 1,
        "psycopg_pool": 2,
        "psycopg2.pool": 1,
    }
    assert found.leaks() == {}
    assert "no leak was seen" in found.told
    assert "what to do" not in found.told


def test_what_could_not_be_had_is_told_by_kind_without_a_password(written: Written, dsn: str) -> None:
    found = watched(
        written("""
        import contextlib, os, psycopg2

        for _ in range(3):
            with contextlib.suppress(psycopg2.Error):
                psycopg2.connect(os.environ["DSN"], dbname="nowhere")
        """),
        DSN=dsn,
    )
    (database,) = found.report["databases"]
    assert database["name"].startswith("nowhere at 127.0.0.1:")
    assert database["errors"] == {'database "nowhere" does not exist': 3}
    assert '3 times no connection: database "nowhere" does not exist' in found.told
    assert (urlsplit(dsn).password or "?") not in found.told + json.dumps(found.report)


def test_workers_and_children_are_summed_up_however_they_end(written: Written, dsn: str) -> None:
    """atexit, os._exit as of multiprocessing, and SIGKILL."""
    found = watched(
        written("""
        import multiprocessing, os, signal, psycopg2

        def work(how):
            conn = psycopg2.connect(os.environ["DSN"])
            conn.cursor().execute("SELECT 1")
            if how == "killed":
                import time
                folder, end = os.environ["PENSTOCK_RUN_FOLDER"], time.monotonic() + 20
                while not os.path.exists(f"{folder}/{os.getpid()}.json") and time.monotonic() < end:
                    time.sleep(0.01)
                os.kill(os.getpid(), signal.SIGKILL)
            conn.close()

        mine = psycopg2.connect(os.environ["DSN"])
        children = [multiprocessing.get_context("fork").Process(target=work, args=(how,)) for how in ("killed", "ends")]
        for child in children:
            child.start()
        for child in children:
            child.join()
        print([child.exitcode for child in children])
        """),
        DSN=dsn,
    )
    assert found.output == "[-9, 0]\n"
    (database,) = found.report["databases"]
    assert (database["processes"], database["connects"]) == (3, 3)
    assert found.leaks() == {}


def test_it_ends_as_the_program_ends_and_passes_on_what_it_is_sent(written: Written, dsn: str) -> None:
    program = written("""
        import os, signal, sys, psycopg2

        conn = psycopg2.connect(os.environ["DSN"])
        signal.signal(signal.SIGUSR1, lambda *_: print("usr1", flush=True))
        signal.signal(signal.SIGHUP, lambda *_: print("hup", flush=True))
        print("ready", flush=True)
        while True:
            signal.pause()
    """)
    with started(program, DSN=dsn) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for number, word in ((signal.SIGHUP, "hup\n"), (signal.SIGUSR1, "usr1\n")):
            process.send_signal(number)
            assert process.stdout.readline() == word
        process.send_signal(signal.SIGTERM)
        found = finished(process, program.parent)
    assert found.status == -signal.SIGTERM
    assert found.report["databases"][0]["connects"] == 1


def test_sigusr1_tells_who_holds_what_now(written: Written, dsn: str) -> None:
    program = written("""
        import os, signal, psycopg2

        conn = psycopg2.connect(os.environ["DSN"])
        conn.cursor().execute("SELECT 42")
        print("ready", flush=True)
        signal.pause()
    """)
    with started(program, DSN=dsn) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        told = ""
        while "idle in hand" not in told:  # what it does is written in a moment
            process.send_signal(signal.SIGUSR1)
            told = process.stderr.readline()
            if told.startswith("penstock: process"):
                told += process.stderr.readline() + process.stderr.readline()
        assert "has 1 connection to postgres at 127.0.0.1:" in told
        assert "  1 by program.py:4 in <module>: for " in told
        assert "INTRANS, idle in hand for" in told
        assert "thread MainThread now at program.py:7 in <module>" in told
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_the_program_does_not_outlive_who_started_it(written: Written, dsn: str) -> None:
    """Whoever kills the process that he has started means the program."""
    program = written("""
        import os, signal, psycopg2

        conn = psycopg2.connect(os.environ["DSN"])
        print("ready", flush=True)
        signal.pause()
    """)
    with started(program, DSN=dsn) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
        assert process.stdout.read() == ""  # nobody has its other end any more


def test_what_the_killed_have_left_is_taken_away_and_what_is_used_is_not(
    written: Written, dsn: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    temporary = tmp_path_factory.mktemp("temporary")
    waits = written("""
        import signal

        print("ready", flush=True)
        signal.pause()
    """)
    with started(waits, TMPDIR=str(temporary)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    (left,) = temporary.iterdir()
    with started(waits, TMPDIR=str(temporary)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        (used,) = temporary.iterdir()
        assert used != left
        words = command(waits.parent, sys.executable, "-c", "pass")
        subprocess.run(words, env=environment(TMPDIR=str(temporary)), capture_output=True, timeout=60, check=True)
        assert list(temporary.iterdir()) == [used]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--watch", "--max", "3"], "--max is what --hold keeps to"),
        (["--watch", "--report", "/nonexistent/report"], "/nonexistent/report: cannot be written"),
        (["--hold", "--report", "report"], "--report is what --watch tells"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_program_starts(words: list[str], told: str) -> None:
    ran = subprocess.run([*RUN, *words, "--", "echo", "started"], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert told in ran.stderr


@pytest.mark.parametrize("no", ["off", "0", "False", "no"])
def test_off_leaves_it_alone(written: Written, dsn: str, no: str) -> None:
    program = written("""
        import os, sys, psycopg2

        psycopg2.connect(os.environ["DSN"])
        print(psycopg2.connect.__module__, "PENSTOCK_RUN" in os.environ, "penstock" in sys.modules)
    """)
    words = command(program.parent, str(program))
    ran = subprocess.run(words, env=environment(DSN=dsn, PENSTOCK=no), capture_output=True, text=True, timeout=60)
    assert ran.stdout == "psycopg2 False False\n"
    assert ran.stderr == ""
    assert not (program.parent / "report.json").exists()


def test_a_pool_of_another_size_is_reckoned_from_what_was_done(written: Written, dsn: str) -> None:
    """Eight threads hold a connection each, and two at a time work: two are enough."""
    found = watched(
        written("""
        import os, psycopg2, threading

        turns, ready = threading.Semaphore(2), threading.Barrier(8)

        def work():
            conn = psycopg2.connect(os.environ["DSN"])
            conn.autocommit = True
            ready.wait()
            for _ in range(5):
                with turns:
                    conn.cursor().execute("SELECT pg_sleep(0.01)")
            ready.wait()
            conn.close()

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        """),
        DSN=dsn,
    )
    (database,) = found.report["databases"]
    assert database["most"] == 8
    assert database["usage"]["most"] == 2
    assert "a pool of 2 for it: nobody would have waited" in found.told
    one = database["usage"]["pools"][0]
    assert (one["size"], one["waits"] > 0) == (1, True)
    assert "penstock run --hold --max 2 -- " in found.told


def test_an_application_of_two_workers_gets_one_verdict(written: Written, dsn: str) -> None:
    program = written(FLASK)
    server = ("gunicorn", "-w", "2", "--threads", "2", "-b", "127.0.0.1:0", "program:app")
    words = command(program.parent, sys.executable, "-m", *server)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        words, env=environment(DSN=dsn), cwd=program.parent, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            assert process.stderr is not None
            port = next(int(line.rpartition(":")[2].split()[0]) for line in process.stderr if "Listening at" in line)
            for _ in range(12):
                for path in ("/dropped", "/kept", "/finally", "/thread_local"):
                    client = HTTPConnection("127.0.0.1", port, timeout=30)
                    client.request("GET", path)
                    assert client.getresponse().status == 200
                    client.close()
            process.send_signal(signal.SIGTERM)
            found = finished(process, program.parent)
        finally:
            if process.poll() is None:
                process.kill()
    assert found.status == 0, found.told
    leaking = [site for site in found.report["databases"][0]["sites"] if site["leaks"]]
    assert {site["lines"][0].rpartition(" in ")[2] for site in leaking} == {"dropped", "keep"}
    assert found.told.count("LEAKS at 2 lines") == 1
