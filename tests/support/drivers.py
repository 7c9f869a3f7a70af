"""Each driver as the matrix of `test_drivers.py` sees it: what its words are, and how its server is asked.

A driver more is one `Case` more, in `CASES`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import asyncpg
import psycopg
import psycopg2
import pytest

from penstock import AsyncPool, Pool
from penstock.drill.postgres import EmbeddedPostgres
from penstock.drivers.generic import DBAPIModule

from .either import Kind, opened, settled


@dataclass(frozen=True)
class Dialect:
    """What the tests say to one kind of server.

    :ivar session: asks for the session's number; None where there is no server.
    :ivar slow: a statement that takes five seconds and more.
    :ivar left_behind: what is done, how the next user would notice, what that one finds in a clean session.
    """

    session: str | None
    slow: str
    left_behind: list[tuple[str, str, Any]]
    running: str | None = None  # asks, as an administrator, how many sessions run `slow`


@dataclass(frozen=True)
class Case:
    """One driver.

    :ivar place: makes what its pools connect to.
    :ivar error: the class of all its errors, or the classes.
    :ivar connection: what a Pool's connections are.
    :ivar set_autocommit: puts a lent connection in autocommit; None where that is all there is.
    :ivar kinds: the pools that it can be used in.
    :ivar driver: makes the pool's `driver=`; by default the name.
    :ivar bounded: whether a declared deadline ends a statement.
    :ivar resets: whether what a statement leaves behind in the session is known.
    :ivar stops: whether a statement that runs can be stopped.
    :ivar reads: whether a block that only reads is kept from writing.
    :ivar begin: opens a transaction, where a statement alone does not.
    """

    name: str
    dialect: Dialect
    place: Callable[[pytest.FixtureRequest, Case, Kind], Place]
    error: type[Exception] | tuple[type[Exception], ...]
    connection: Any = None
    set_autocommit: Callable[[Any], Any] | None = None
    kinds: tuple[Kind, ...] = (Pool, AsyncPool)
    driver: Callable[[], Any] | None = None
    bounded: bool = True
    resets: bool = True
    stops: bool = True
    reads: bool = True
    begin: str | None = None

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        return self.error if isinstance(self.error, tuple) else (self.error,)

    async def do(self, conn: Any, statement: str) -> None:
        cursor = await settled(conn.cursor())
        await settled(cursor.execute(statement))
        await settled(cursor.close())

    async def value(self, conn: Any, statement: str) -> Any:
        """The first column of the first row."""
        cursor = await settled(conn.cursor())
        await settled(cursor.execute(statement))
        row = await settled(cursor.fetchone())
        await settled(cursor.close())
        return row[0]

    async def write(self, conn: Any, statement: str) -> None:
        """In a transaction that stays open."""
        if self.begin is not None:
            await self.do(conn, self.begin)
        await self.do(conn, statement)


@dataclass
class Place:
    """Where a case's pools connect to, for one test.

    :ivar kill: ends the session of that number from the server's side, and returns when it has ended.
    :ivar ask: an administrator's question.
    :ivar table: a name of the test's own; the table has one column and no rows.
    """

    case: Case
    kind: Kind
    conninfo: str
    table: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    kill: Callable[[Any], object] | None = None
    ask: Callable[[str], Any] | None = None

    def opened(self, **options: Any) -> Any:
        """A pool, for an `async with` block."""
        options.setdefault("kwargs", self.kwargs)
        return opened(self.kind, self.conninfo, driver=self.driver(), **options)

    def driver(self) -> Any:
        return self.case.name if self.case.driver is None else self.case.driver()

    async def session(self, conn: Any) -> Any:
        """What tells one session from another."""
        if self.case.dialect.session is None:
            return id(getattr(conn, "raw", conn))
        return await self.case.value(conn, self.case.dialect.session)


POSTGRES = Dialect(
    session="SELECT pg_backend_pid()",
    slow="SELECT 'slow', pg_sleep(6)",
    left_behind=[
        ("SET work_mem = '7MB'", "SHOW work_mem", "4MB"),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SHOW default_transaction_read_only", "off"),
        ("LISTEN somebody", "SELECT count(*) FROM pg_listening_channels()", 0),
        (
            "SELECT pg_advisory_lock(7)",
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
            0,
        ),
        (
            "CREATE TEMP TABLE mine (x int)",
            "SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND pg_table_is_visible(oid)",
            0,
        ),
        ("DECLARE mine CURSOR WITH HOLD FOR SELECT 1", "SELECT count(*) FROM pg_cursors WHERE is_holdable", 0),
        ("PREPARE mine AS SELECT 1", "SELECT count(*) FROM pg_prepared_statements WHERE from_sql", 0),
    ],
    running="SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%SELECT ''slow''%'"
    " AND pid <> pg_backend_pid()",
)

SQLITE = Dialect(
    session=None,
    slow="WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300000000) SELECT count(*) FROM n",
    left_behind=[
        ("PRAGMA foreign_keys = 1", "PRAGMA foreign_keys", 0),
        ("PRAGMA busy_timeout = 1", "PRAGMA busy_timeout", 5000),
        ("CREATE TEMP TABLE mine (x int)", "SELECT count(*) FROM sqlite_temp_master", 0),
        ("ATTACH ':memory:' AS other", "SELECT count(*) FROM pragma_database_list WHERE name = 'other'", 0),
        ("PRAGMA case_sensitive_like = 1", "SELECT 'a' LIKE 'A'", 1),
    ],
)


def on_postgres(request: pytest.FixtureRequest, case: Case, kind: Kind) -> Place:
    """The session's server; a table of the test's own."""
    postgres: EmbeddedPostgres = request.getfixturevalue("postgres")
    table = f"of_{uuid4().hex}"

    def ask(question: str) -> Any:
        with postgres.admin() as admin:
            row = admin.execute(question).fetchone()  # type: ignore[call-overload]
        return row[0] if row is not None else None

    def kill(session: Any) -> None:
        assert ask(f"SELECT pg_terminate_backend({session}, 2000)")

    with psycopg.connect(postgres.dsn, autocommit=True) as conn:
        conn.execute(f"CREATE TABLE {table} (x int)")  # type: ignore[arg-type]
    return Place(case, kind, postgres.dsn, table, kill=kill, ask=ask)


def in_a_file(request: pytest.FixtureRequest, case: Case, kind: Kind) -> Place:
    """A database of the test's own."""
    file = str(request.getfixturevalue("tmp_path") / "database")
    conn = sqlite3.connect(file)
    conn.execute("CREATE TABLE numbers (x int)")
    conn.close()
    return Place(case, kind, file, "numbers")


def setting(attribute: str, value: Any) -> Callable[[Any], Any]:
    """A hook that sets an attribute of the driver's own connection, over threads too."""
    return lambda conn: conn.run(setattr, attribute, value) if hasattr(conn, "run") else setattr(conn, attribute, value)


class AsyncpgCase(Case):
    """It has statements without cursors."""

    async def do(self, conn: Any, statement: str) -> None:
        await conn.execute(statement)

    async def value(self, conn: Any, statement: str) -> Any:
        return await conn.fetchval(statement)


def anywhere_in_a_file(request: pytest.FixtureRequest, case: Case, kind: Kind) -> Place:
    """As `in_a_file`, for who does not know what a file is."""
    place = in_a_file(request, case, kind)
    place.kwargs = {"database": place.conninfo, "check_same_thread": False}
    place.conninfo = ""
    return place


def unknown(name: str, module: Any, place: Any, dialect: Dialect, set_autocommit: Any, **more: Any) -> Case:
    """A module as any other. It asks before each use, as the tests do not wait until it would."""
    return Case(
        name,
        dialect,
        place,
        module.Error,
        connection=object,
        set_autocommit=set_autocommit,
        driver=lambda: DBAPIModule(module, check_after=0.0),
        bounded=False,
        resets=False,
        reads=False,
        **more,
    )


CASES = [
    AsyncpgCase(
        "asyncpg",
        POSTGRES,
        on_postgres,
        (asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError),
        asyncpg.Connection,
        kinds=(AsyncPool,),
        begin="BEGIN",
    ),
    Case("psycopg", POSTGRES, on_postgres, psycopg.Error, psycopg.Connection, lambda conn: conn.set_autocommit(True)),
    Case(
        "psycopg2", POSTGRES, on_postgres, psycopg2.Error, psycopg2.extensions.connection, setting("autocommit", True)
    ),
    Case("sqlite3", SQLITE, in_a_file, sqlite3.Error, sqlite3.Connection, setting("isolation_level", None)),
    # Of which nothing is known; each shows another side: a class of Python's, one of C, and one with no socket.
    unknown("any psycopg", psycopg, on_postgres, POSTGRES, setting("autocommit", True), kinds=(Pool,)),
    unknown("any psycopg2", psycopg2, on_postgres, POSTGRES, setting("autocommit", True), kinds=(AsyncPool,)),
    unknown("any sqlite3", sqlite3, anywhere_in_a_file, SQLITE, None, kinds=(Pool,), stops=False),
]
from .mysql_drivers import CASES as MYSQL_CASES  # noqa: E402  (which takes its words from here)

CASES += MYSQL_CASES
EACH = [pytest.param((case, kind), id=f"{case.name}-{kind.__name__}") for case in CASES for kind in case.kinds]
