"""`penstock audit --fix`: the program does what it did, what it leaked it leaks no more, and no comment is lost."""

import ast
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any, ClassVar

import pytest

from penstock.audit import fixes, mend
from penstock.audit.audit import audit
from penstock.audit.check import Asked
from penstock.audit.fixes import rewrite, settle
from penstock.audit.settings import Settings
from penstock.audit.source import Source, parse, read
from support.audit_fixes import judge, layouts, mended
from support.audit_fixes import read as parsed

EXAMPLES = Path(__file__).parent / "audit"


def fixed(text: str, unsafe: bool = False) -> str:
    return mended(dedent(text).lstrip("\n"), unsafe).text


def same(text: str) -> str:
    return dedent(text).lstrip("\n")


# ------------------------------------------------------------------------------------------ whatever the layout


class Counted(sqlite3.Connection):
    """A connection that is counted until it is closed."""

    open: ClassVar["set[Counted]"] = set()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        Counted.open.add(self)

    def close(self) -> None:
        Counted.open.discard(self)
        super().close()


def run(text: str, path: Path, monkeypatch: pytest.MonkeyPatch, *, early: bool, fails: bool) -> list[object]:
    """What a program's `main` does, and how many connections are open after it."""
    log: list[object] = []

    def note(what: str) -> bool:
        log.append(what)
        return early

    def work(conn: sqlite3.Connection) -> int:
        if fails and conn.total_changes >= 0:
            raise LookupError("the work fails")
        conn.execute("insert into t values (1)")
        conn.commit()
        return int(conn.execute("select count(*) from t").fetchone()[0])

    module = ModuleType("support_note")
    module.__dict__.update(note=note, work=work)
    monkeypatch.setitem(sys.modules, "support_note", module)
    with closing(sqlite3.connect(path)) as fresh:
        fresh.execute("drop table if exists t")
        fresh.execute("create table t (n int)")
        fresh.commit()
    connect = sqlite3.connect
    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, **options, factory=Counted))
        space: dict[str, Any] = {}
        exec(compile(text, "app.py", "exec"), space)
        kept = None
        try:
            log.append(space["main"](path))
        except Exception as error:
            kept = error  # with its traceback, as a logger or a debugger keeps it
            log.append(repr(error))
    log.append(len(Counted.open))
    del kept
    while Counted.open:
        Counted.open.pop().close()
    return log


@pytest.mark.parametrize(("name", "text"), [pytest.param(name, text, id=name) for name, text in layouts()])
def test_a_mended_program_does_the_same_and_leaks_no_more(
    name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data.sqlite"
    after = mended(text, unsafe=True)
    assert after.applied, text
    # Of two whose stretches cross one stays as it was: mending it would close the two in another order.
    left = sum(finding.kind == "leak" and finding.severity != "hint" for finding in judge(parsed(after.text)))
    assert left == name.startswith("7-"), after.text
    for early in (False, True):
        was = run(text, path, monkeypatch, early=early, fails=False)
        assert run(after.text, path, monkeypatch, early=early, fails=False)[:-1] == was[:-1], after.text
        failing = run(text, path, monkeypatch, early=early, fails=True)
        assert run(after.text, path, monkeypatch, early=early, fails=True) == [*failing[:-1], left], after.text
        assert failing[-1] or early, "it did not leak before"
    assert mended(after.text, unsafe=True).text == after.text, "a second run changes it again"
    assert ("\r\n" in text) == ("\r\n" in after.text)
    assert "\r\n" not in text or after.text.count("\r\n") == after.text.count("\n")


# ------------------------------------------------------------------------------------------ each fix, to the letter

MENDED = {
    "a call of its own stands in closing()": (
        """
        import sqlite3


        def count(path):
            conn = sqlite3.connect(path)  # here

            # how many
            rows = conn.execute("select 1").fetchall()

            # no more is needed
            conn.close()
            return len(rows)
        """,
        """
        import sqlite3
        from contextlib import closing


        def count(path):
            with closing(sqlite3.connect(path)) as conn:  # here
                # how many
                rows = conn.execute("select 1").fetchall()
                # no more is needed
            return len(rows)
        """,
    ),
    "a with of its own is enough for PyMySQL": (
        """
        import pymysql

        def count():
            conn = pymysql.connect(host="db")
            with conn.cursor() as cursor:
                cursor.execute("select 1")
            conn.close()
        """,
        """
        import pymysql

        def count():
            with pymysql.connect(host="db") as conn:
                with conn.cursor() as cursor:
                    cursor.execute("select 1")
        """,
    ),
    "psycopg's own with would commit: closing() does not": (
        """
        import psycopg

        def count():
            conn = psycopg.connect()
            conn.execute("delete from t")
            conn.close()
        """,
        """
        from contextlib import closing

        import psycopg

        def count():
            with closing(psycopg.connect()) as conn:
                conn.execute("delete from t")
        """,
    ),
    "a pool gets its connection back in a finally": (
        """
        from psycopg2.pool import ThreadedConnectionPool

        pool = ThreadedConnectionPool(1, 5)

        def count():
            conn = pool.getconn()
            conn.cursor().execute("select 1")
            pool.putconn(conn)  # for the next
        """,
        """
        from psycopg2.pool import ThreadedConnectionPool

        pool = ThreadedConnectionPool(1, 5)

        def count():
            conn = pool.getconn()
            try:
                conn.cursor().execute("select 1")
            finally:
                pool.putconn(conn)  # for the next
        """,
    ),
    "a `with` that keeps gets closing() before it": (
        """
        import os

        import psycopg2


        def count():
            with psycopg2.connect("") as conn, conn.cursor() as cursor:
                cursor.execute("select 1")
        """,
        """
        import os
        from contextlib import closing

        import psycopg2


        def count():
            with closing(psycopg2.connect("")) as conn, conn, conn.cursor() as cursor:
                cursor.execute("select 1")
        """,
    ),
    "a coroutine is awaited, whatever is raised": (
        """
        import asyncpg

        async def count():
            conn = await asyncpg.connect()
            await conn.execute("select 1")
            conn.close()
        """,
        """
        import asyncpg

        async def count():
            conn = await asyncpg.connect()
            try:
                await conn.execute("select 1")
            finally:
                await conn.close()
        """,
    ),
    "an asynchronous session has an `async with`": (
        """
        from sqlalchemy.ext.asyncio import AsyncSession

        async def count(engine, query):
            session = AsyncSession(engine)
            await session.execute(query)
            await session.close()
        """,
        """
        from sqlalchemy.ext.asyncio import AsyncSession

        async def count(engine, query):
            async with AsyncSession(engine) as session:
                await session.execute(query)
        """,
    ),
    "a name of ours that is taken: try and finally": (
        """
        import sqlite3

        def closing(what):
            return what

        def count(path):
            conn = sqlite3.connect(path)
            conn.execute("select 1")
            conn.close()
        """,
        """
        import sqlite3

        def closing(what):
            return what

        def count(path):
            conn = sqlite3.connect(path)
            try:
                conn.execute("select 1")
            finally:
                conn.close()
        """,
    ),
}

MENDED_UNSAFE = {
    "what is closed nowhere is closed at the end of its block": (
        """
        import sqlite3
        def count(path):
            conn = sqlite3.connect(path)
            return conn.execute("select 1").fetchone()
        """,
        """
        import sqlite3
        from contextlib import closing
        def count(path):
            with closing(sqlite3.connect(path)) as conn:
                return conn.execute("select 1").fetchone()
        """,
    ),
    "what is put back nowhere is put back": (
        """
        from psycopg2.pool import ThreadedConnectionPool
        class Store:
            def __init__(self):
                self.pool = ThreadedConnectionPool(1, 5)
            def count(self):
                conn = self.pool.getconn()
                with conn.cursor() as cursor:
                    cursor.execute("select 1")
                    return cursor.fetchall()
        """,
        """
        from psycopg2.pool import ThreadedConnectionPool
        class Store:
            def __init__(self):
                self.pool = ThreadedConnectionPool(1, 5)
            def count(self):
                conn = self.pool.getconn()
                try:
                    with conn.cursor() as cursor:
                        cursor.execute("select 1")
                        return cursor.fetchall()
                finally:
                    self.pool.putconn(conn)
        """,
    ),
    "a timeout is one more argument, laid out as the others are": (
        """
        import requests
        requests.get("http://a")
        requests.get(
            "http://a",
            params={},  # none
        )
        requests.get("http://a",
                     params={})
        requests.get(
            "http://a"
        )
        requests.get("http://a",  # where
                     params={}  # what
                     )
        """,
        """
        import requests
        requests.get("http://a", timeout=30)
        requests.get(
            "http://a",
            params={},  # none
            timeout=30,
        )
        requests.get("http://a",
                     params={},
                     timeout=30)
        requests.get(
            "http://a",
            timeout=30
        )
        requests.get("http://a",  # where
                     params={},  # what
                     timeout=30
                     )
        """,
    ),
    "an engine is made once, before the function": (
        """
        import os
        from sqlalchemy import create_engine, text

        URL = os.environ.get("URL", "sqlite://")


        # for the list
        @staticmethod
        def names():
            # one per call
            engine = create_engine(URL, pool_size=5)  # five
            with engine.connect() as conn:
                return conn.execute(text("select 1")).fetchall()
        """,
        """
        import os
        from sqlalchemy import create_engine, text

        URL = os.environ.get("URL", "sqlite://")


        # one per call
        engine = create_engine(URL, pool_size=5)  # five


        # for the list
        @staticmethod
        def names():
            with engine.connect() as conn:
                return conn.execute(text("select 1")).fetchall()
        """,
    ),
}


@pytest.mark.parametrize("name", MENDED)
def test_safe_fixes_write_what_a_person_would(name: str) -> None:
    before, after = MENDED[name]
    assert fixed(before) == same(after)
    assert fixed(after) == same(after), "a second run changes it again"


@pytest.mark.parametrize("name", MENDED_UNSAFE)
def test_unsafe_fixes_write_what_a_person_would_and_only_when_asked(name: str) -> None:
    before, after = MENDED_UNSAFE[name]
    assert fixed(before) == same(before)
    assert fixed(before, unsafe=True) == same(after)
    assert fixed(after, unsafe=True) == same(after), "a second run changes it again"


# ------------------------------------------------------------------------------------------ what is left to people

LEFT = {
    "it is returned on one way": """
        import sqlite3
        def count(path, keep):
            conn = sqlite3.connect(path)
            conn.execute("select 1")
            if keep:
                return conn
            conn.close()
        """,
    "a cursor of it is returned on one way": """
        import sqlite3
        def count(path, lazily):
            conn = sqlite3.connect(path)
            cursor = conn.execute("select 1")
            if lazily:
                return cursor
            conn.close()
        """,
    "a cursor of it is read after the `with`": """
        import sqlite3
        def count(path):
            with sqlite3.connect(path) as conn:
                cursor = conn.execute("select 1")
            return cursor.fetchall()
        """,
    "what handles the exception uses it": """
        import psycopg
        def count():
            try:
                conn = psycopg.connect()
                conn.cursor().execute("select 1")
                conn.close()
            except Exception:
                conn.rollback()
        """,
    "a second putconn would raise": """
        from psycopg2.pool import ThreadedConnectionPool
        pool = ThreadedConnectionPool(1, 5)
        def count(fast):
            conn = pool.getconn()
            conn.cursor().execute("select 1")
            if fast:
                pool.putconn(conn)
                log("fast")
            pool.putconn(conn)
        """,
    "objects of a session live on": """
        from sqlalchemy.orm import Session
        def users(engine, User):
            session = Session(engine)
            return session.query(User).all()
        """,
    "the engine's name is another's too": """
        from sqlalchemy import create_engine, text
        URL = "sqlite://"
        def names():
            engine = create_engine(URL)
            with engine.connect() as conn:
                return conn.execute(text("select 1")).fetchall()
        def other(engine):
            return engine
        """,
    "the engine's address is known in the function alone": """
        from sqlalchemy import create_engine, text
        def names(url):
            engine = create_engine(url)
            with engine.connect() as conn:
                return conn.execute(text("select 1")).fetchall()
        """,
    "it stands in one line with its condition": """
        import sqlite3
        def count(path):
            if path: conn = sqlite3.connect(path); conn.execute("select 1"); conn.close()
        """,
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_not_sure_is_left_as_it_is_and_not_called_fixable(name: str) -> None:
    source = parsed(same(LEFT[name]))
    findings = judge(source)
    assert findings, "nothing is found there: this shows nothing"
    assert not any(finding.fixable for finding in findings)
    assert fixed(LEFT[name], unsafe=True) == same(LEFT[name])


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in sorted(EXAMPLES.rglob("*.py"))])
def test_what_is_called_fixable_is_fixed(path: Path) -> None:
    """Rule and fix agree: over all the examples that the rules have."""
    source = read(path, "app.py", "app")
    assert isinstance(source, Source)

    def judged(source: Source) -> list[Any]:
        return audit([source], "transaction").findings

    result = settle(source, judged(source), judged, unsafe=True)
    assert result.skipped == []
    again = parsed(result.text)
    assert not any(finding.fixable for finding in judged(again))
    assert {node.name for node in ast.walk(source.tree) if isinstance(node, ast.FunctionDef)} == {
        node.name for node in ast.walk(again.tree) if isinstance(node, ast.FunctionDef)
    }


# ------------------------------------------------------------------------------------------ real databases

PROGRAMS = {
    "psycopg2": """
        import sys
        import psycopg2

        def total(dsn, query):
            conn = psycopg2.connect(dsn)
            cursor = conn.cursor()
            cursor.execute(query)
            rows = cursor.fetchall()
            conn.commit()
            conn.close()
            return rows[0][0]

        def kept(dsn, query):
            with psycopg2.connect(dsn) as conn, conn.cursor() as cursor:
                cursor.execute(query)
                found = cursor.fetchone()
                return found[0]
        """,
    "psycopg2.pool": """
        import sys
        from psycopg2.pool import ThreadedConnectionPool

        def total(dsn, query):
            pool = pools.setdefault(dsn, None) or ThreadedConnectionPool(0, 1, dsn)
            pools[dsn] = pool
            conn = pool.getconn()
            cursor = conn.cursor()
            cursor.execute(query)
            rows = cursor.fetchall()
            pool.putconn(conn)
            return rows[0][0]

        pools = {}
        kept = total
        """,
    "psycopg": """
        import sys
        import psycopg

        def total(dsn, query):
            conn = psycopg.connect(dsn)
            row = conn.execute(query).fetchone()
            conn.commit()
            conn.close()
            return row[0]

        kept = total
        """,
    "asyncpg": """
        import asyncio
        import sys
        import asyncpg

        async def ask(dsn, query):
            conn = await asyncpg.connect(dsn)
            value = await conn.fetchval(query)
            await conn.close()
            return value

        loop = asyncio.new_event_loop()

        def total(dsn, query):
            return loop.run_until_complete(ask(dsn, query))

        kept = total
        """,
}
MAIN = """
import psycopg as watching
alive = []
dsn, found = sys.argv[1], []
for query in ("select 40 + 2", "select 1 / 0", "select 1 / 0"):
    for function in (total, kept):
        try:
            found.append(str(function(dsn, query)))
        except Exception as error:
            alive.append(error)  # with its traceback
            found.append(type(error).__name__)
with watching.connect(dsn, application_name="watching") as conn:
    count = conn.execute(
        "select count(*) from pg_stat_activity where pid <> pg_backend_pid() and usename = current_user"
        " and application_name = 'leaking' and state <> 'idle'"
    ).fetchone()[0]
print(*found, "busy:", count)
"""


@pytest.mark.parametrize("driver", PROGRAMS)
def test_a_mended_program_leaves_no_transaction_open_in_a_real_database(driver: str, dsn: str, tmp_path: Path) -> None:
    before = same(PROGRAMS[driver])
    after = fixed(before)
    separator = "&" if "?" in dsn else "?"
    said = [_run(text, f"{dsn}{separator}application_name=leaking", tmp_path, driver) for text in (before, after)]
    (was, leaked), (now, left) = said
    assert leaked > 0, was
    assert left == 0, now
    if driver != "psycopg2.pool":  # before, its one connection was gone after the first failure
        assert now == was


def _run(text: str, dsn: str, folder: Path, driver: str) -> tuple[list[str], int]:
    program = folder / "program.py"
    # A pool keeps a connection, which is idle then; without one, none is to be left.
    main = MAIN if driver == "psycopg2.pool" else MAIN.replace(" and state <> 'idle'", "")
    program.write_text(text + main)
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, str(program), dsn], capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.returncode == 0, done.stderr
    *words, _, count = done.stdout.split()
    return words, int(count)


# ------------------------------------------------------------------------------------------ files

LEAKING = """\
import sqlite3

def count(path):
    conn = sqlite3.connect(path)  # {word}
    conn.execute("select 1")
    conn.close()
"""


def asked(folder: Path) -> Asked:
    return Asked([folder], Settings(folder), cached=False)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_file_keeps_its_encoding_its_line_ends_and_its_mode(encoding: str, end: str, tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    declared = "# -*- coding: latin-1 -*-\n" if encoding == "latin-1" else ""
    text = (declared + LEAKING.format(word="Größe")).replace("\n", end)
    file.write_bytes(text.encode(encoding))
    file.chmod(0o755)
    (change,) = mend.mend(asked(tmp_path)).changes
    assert mend.write(change) == ""
    written = file.read_bytes().decode(encoding)
    assert f"as conn:  # Größe{end}" in written
    assert written.count("\n") == written.count(end)
    assert file.stat().st_mode & 0o777 == 0o755
    assert mend.mend(asked(tmp_path)).changes == []
    assert [one.name for one in tmp_path.iterdir()] == ["app.py"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "real.py").write_text(LEAKING)
    link = tmp_path / "code" / "app.py"
    link.symlink_to(tmp_path / "real.py")
    for change in mend.mend(asked(tmp_path / "code")).changes:
        assert mend.write(change) == ""
    assert link.is_symlink()
    assert "closing(" in (tmp_path / "real.py").read_text()


def test_a_file_that_changed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_text(LEAKING)
    (change,) = mend.mend(asked(tmp_path)).changes
    file.write_text("# somebody is at work\n")
    assert "changed meanwhile" in mend.write(change)
    assert file.read_text() == "# somebody is at work\n"


def test_the_diff_is_a_patch_that_does_the_same(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_text(LEAKING.rstrip("\n"))
    (change,) = mend.mend(asked(tmp_path)).changes
    change.shown = "app.py"
    subprocess.run(["git", "apply", "-"], input=mend.diff(change).encode(), cwd=tmp_path, check=True, timeout=60)
    assert file.read_bytes() == change.after


@pytest.mark.parametrize(
    ("result", "why"), [("def count(:\n", "would not parse"), ("import sqlite3\n", "a comment would be lost")]
)
def test_a_fix_gone_wrong_changes_nothing_and_says_so(result: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrite, "rewrite", lambda text, findings: (result, list(findings), []))
    source = parsed(LEAKING)
    found = fixes.fix(source, judge(source))
    assert found.text == LEAKING
    assert found.applied == []
    assert [why in reason for _, reason in found.skipped] == [True]


def test_what_another_file_says_decides_in_this_one(tmp_path: Path) -> None:
    """A function of another file that makes the connection, or that closes it."""
    (tmp_path / "database.py").write_text("import sqlite3\n\ndef connect():\n    return sqlite3.connect('x')\n")
    (tmp_path / "app.py").write_text(
        "from database import connect\n\ndef run():\n    conn = connect()\n    conn.execute('')\n    conn.close()\n"
    )
    (change,) = mend.mend(asked(tmp_path)).changes
    assert change.shown.endswith("app.py")
    assert b"with closing(connect()) as conn:" in change.after
    assert isinstance(parse(change.after.decode(), "", ""), Source)


def test_the_command_shows_fixes_and_then_makes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "app.py"
    file.write_text(LEAKING)
    monkeypatch.chdir(tmp_path)
    assert _penstock(monkeypatch, "--diff") == 1
    assert "+    with closing(sqlite3.connect(path)) as conn:  # {word}" in capsys.readouterr().out
    assert file.read_text() == LEAKING, "--diff writes nothing"
    assert _penstock(monkeypatch, "--fix") == 0, "what is left is told by the exit status"
    assert "app.py: 1 fixed" in capsys.readouterr().err
    assert "with closing(" in file.read_text()
    assert _penstock(monkeypatch, "--diff") == 0
    assert capsys.readouterr().out == ""


def _penstock(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    from penstock.cli import main

    monkeypatch.setattr(sys, "argv", ["penstock", "audit", "--no-cache", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)
