"""What a statement leaves behind in its session, told from its text, and what takes it away again."""

from time import process_time
from typing import Any

import psycopg
import pytest
from psycopg import sql

from penstock.drivers import session
from penstock.drivers.session import Touched, reset_statement, touches

NOTHING = Touched.NOTHING
SETTINGS = Touched.SETTINGS
ROLE = Touched.ROLE
LISTENS = Touched.LISTENS
LOCKS = Touched.LOCKS
TEMPORARY = Touched.TEMPORARY
CURSORS = Touched.CURSORS
BEYOND_RESET = Touched.BEYOND_RESET

TOUCHING: list[tuple[Any, Touched]] = [
    # settings
    ("SET work_mem = '1MB'", SETTINGS),
    ("set work_mem to '1MB'", SETTINGS),
    ("Set\n\twork_mem = '1MB'", SETTINGS),
    ("  SET work_mem = '1MB'", SETTINGS),
    ("SET SESSION work_mem = '1MB'", SETTINGS),
    ("SET TIME ZONE 'UTC'", SETTINGS),
    ("SET NAMES 'utf8'", SETTINGS),
    ("SET search_path TO a, b", SETTINGS),
    ("SET app.tenant = '4'", SETTINGS),
    ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", SETTINGS),
    ("RESET work_mem", SETTINGS),
    ("RESET ALL", SETTINGS),
    ("SELECT set_config('work_mem', '1MB', false)", SETTINGS),
    ("SELECT pg_catalog.set_config ('app.tenant', $1, false)", SETTINGS),
    ("SELECT SET_CONFIG('work_mem', '1MB', false)", SETTINGS),
    ("SELECT 1; SET work_mem = '1MB'", SETTINGS),
    ("SELECT 1;SET work_mem = '1MB'; SELECT 2", SETTINGS),
    ("SET LOCAL a.b = 1; SET a.c = 1", SETTINGS),
    ("-- why\nSET work_mem = '1MB'", SETTINGS),
    ("/* why */ SET work_mem = '1MB'", SETTINGS),
    ("/* a */ -- b\n /* c\n d */SET work_mem = '1MB'", SETTINGS),
    ("SET/* odd */work_mem = '1MB'", SETTINGS),
    # role
    ("SET ROLE app", ROLE),
    ("set role none", ROLE),
    ("SET SESSION ROLE app", ROLE),
    ("SET SESSION AUTHORIZATION app", ROLE),
    ("SELECT 1; SET ROLE app", ROLE),
    # notifications
    ("LISTEN news", LISTENS),
    ('listen "News"', LISTENS),
    ("/* x */ LISTEN news", LISTENS),
    ("BEGIN; LISTEN news; COMMIT", LISTENS),
    # advisory locks
    ("SELECT pg_advisory_lock(1)", LOCKS),
    ("SELECT PG_ADVISORY_LOCK (1, 2)", LOCKS),
    ("SELECT pg_advisory_lock_shared(1)", LOCKS),
    ("SELECT pg_try_advisory_lock(1)", LOCKS),
    ("SELECT pg_try_advisory_lock_shared(1)", LOCKS),
    ("SELECT x FROM t WHERE pg_catalog.pg_try_advisory_lock(x)", LOCKS),
    # temporary objects
    ("CREATE TEMP TABLE t (x int)", TEMPORARY),
    ("CREATE TEMPORARY TABLE IF NOT EXISTS t (x int)", TEMPORARY),
    ("create local temp table t (x int)", TEMPORARY),
    ("CREATE GLOBAL TEMPORARY TABLE t (x int)", TEMPORARY),
    ("CREATE OR REPLACE TEMP VIEW v AS SELECT 1", TEMPORARY),
    ("CREATE TEMPORARY SEQUENCE s", TEMPORARY),
    ("SELECT 1 AS x INTO TEMP t", TEMPORARY),
    ("SELECT 1 AS x INTO TEMPORARY TABLE t", TEMPORARY),
    # cursors
    ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", CURSORS),
    ("declare c scroll cursor with hold for select 1", CURSORS),
    # what no reset undoes
    ("PREPARE p AS SELECT 1", BEYOND_RESET),
    ("prepare p (int) AS SELECT $1", BEYOND_RESET),
    ("LOAD 'auto_explain'", BEYOND_RESET),
    ("SELECT 1; LOAD 'auto_explain'", BEYOND_RESET),
    # bytes, and psycopg's composed statements
    (b"SET work_mem = '1MB'", SETTINGS),
    (b"\xff; LISTEN news", LISTENS),
    (sql.SQL("SET work_mem = '1MB'"), SETTINGS),
    (sql.SQL("LISTEN {}").format(sql.Identifier("news")), LISTENS),
    (sql.SQL("SET {} = {}").format(sql.Identifier("work_mem"), sql.Literal("1MB")), SETTINGS),
    (sql.SQL("SELECT 1; ") + sql.SQL("SET ROLE {}").format(sql.Identifier("app")), ROLE),
    (sql.SQL("SELECT set_config({}, {}, false)").format("a.b", "1"), SETTINGS),
    (sql.SQL("; ").join([sql.SQL("SELECT 1"), sql.SQL("CREATE TEMP TABLE t (x int)")]), TEMPORARY),
    (sql.Composed([sql.SQL("PREPARE "), sql.Identifier("p"), sql.SQL(" AS SELECT 1")]), BEYOND_RESET),
    (sql.SQL("SET \"work_mem\" = '1MB'"), SETTINGS),
    # comments anywhere, and marks of comments and literals in one another
    ("SET/**/work_mem = '1MB'", SETTINGS),
    ("/* a /* nested */ b */ SET work_mem = '1MB'", SETTINGS),
    ("SELECT '/*'; SET work_mem = '1MB'; SELECT '*/'", SETTINGS),
    ("SELECT '--'; SET work_mem = '1MB'", SETTINGS),
    ("SELECT $a$'$a$; SET work_mem = '1MB' --'", SETTINGS),
    ("SELECT $A$ $a$ ' $A$; SET work_mem = '1MB' --'", SETTINGS),
    ("SELECT E'\\''; SET work_mem = '1MB' --'", SETTINGS),
    ("SELECT 1 AS \"'\"; SET work_mem = '1MB' --'", SETTINGS),
    ("CREATE /* x */ TEMP TABLE t (x int)", TEMPORARY),
    ("SELECT 1 AS x INTO LOCAL TEMP t", TEMPORARY),
    ("SELECT 1 AS x INTO/**/LOCAL--\nTEMP t", TEMPORARY),
    ("CREATE TABLE pg_temp.t (x int)", TEMPORARY),
    ("DECLARE c CURSOR WITH/**/HOLD FOR SELECT 1", CURSORS),
    # names, however they are written
    ('SELECT "pg_advisory_lock"(1)', LOCKS),
    ('SELECT U&"pg\\005fadvisory_lock"(3)', LOCKS),
    # code
    ("DO $$BEGIN SET work_mem='1MB'; END$$", SETTINGS | LOCKS | TEMPORARY | LISTENS | ROLE | CURSORS),
    ("/* x */ do language plpgsql 'BEGIN END'", SETTINGS),
    ("DO $$BEGIN EXECUTE 'PREPARE p AS SELECT 1'; END$$", BEYOND_RESET),
    # several at once
    ("SET a.b = 1; LISTEN news; SELECT pg_advisory_lock(1)", SETTINGS | LISTENS | LOCKS),
]

NOT_TOUCHING: list[Any] = [
    "",
    ";",
    "SELECT 1",
    "BEGIN",
    "COMMIT",
    "ROLLBACK TO SAVEPOINT reset",
    # these end with their transaction
    "SET LOCAL work_mem = '1MB'",
    "set local role app",
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SET CONSTRAINTS ALL DEFERRED",
    "SELECT pg_advisory_xact_lock(1)",
    "SELECT pg_try_advisory_xact_lock_shared(1)",
    "DECLARE c CURSOR FOR SELECT 1",
    "DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1",
    # the words, elsewhere
    "UPDATE t SET x = 1",
    "UPDATE t\nSET x = 1, y = 2 WHERE z = 3",
    "INSERT INTO t VALUES (1) ON CONFLICT (x) DO UPDATE SET x = 2",
    "MERGE INTO t USING s ON t.x = s.x WHEN MATCHED THEN UPDATE SET y = s.y",
    "ALTER TABLE t ALTER COLUMN x SET NOT NULL",
    "ALTER ROLE app SET work_mem = '1MB'",
    "ALTER SYSTEM RESET ALL",
    "SELECT settings, listening, loaded, prepared FROM t",
    "SELECT * FROM tset",
    "SELECT current_setting('work_mem')",
    "NOTIFY news",
    "UNLISTEN *",
    "PREPARE TRANSACTION 'two-phase'",
    "prepare  transaction 'two-phase'",
    "EXECUTE p",
    "SELECT temp FROM weather",
    "SELECT pg_advisory_unlock_all()",
    "INSERT INTO temperature VALUES (1)",
    "SELECT * FROM households",
    # and where they are only said
    "SELECT 'so; SET it is'",
    "SELECT 1 -- ; SET it is",
    "SELECT $$; SET it is$$, $a$; LISTEN $$ news$a$",
    'SELECT 1 AS "; SET it is"',
    "SELECT /* a /* b */; SET it is */ 1",
    "INSERT INTO t VALUES ('create temp table', E'with hold; \\\\ ')",
    b"SELECT 1",
    b"UPDATE t SET x = 1",
    sql.SQL("UPDATE {} SET x = 1").format(sql.Identifier("t")),
    sql.SQL("SELECT {}").format(sql.Identifier("set")),
    sql.SQL("SET LOCAL {} = {}").format(sql.Identifier("work_mem"), sql.Literal("1MB")),
]

# Taken for more than they are, which costs a needless round trip and nothing else.
TAKEN_FOR_MORE: list[tuple[Any, Touched]] = [
    ("SELECT set_config('work_mem', '1MB', true)", SETTINGS),
    ("SELECT 'SELECT pg_advisory_lock(1)'", LOCKS),
    ("SELECT 1 -- pg_advisory_lock(1)", LOCKS),
    ("UNKNOWN; RESET ROLE", SETTINGS),
    ("INSERT INTO temp VALUES (1)", TEMPORARY),
    # what cannot be read, or is not read the same in every mode of the server
    ('SELECT U&"x"', LOCKS),
    ("SELECT 'a\\'; SET x TO 'b'", SETTINGS),
    ("LISTEN news; SELECT 'open", LISTENS),
]


def named(value: Any) -> str | None:
    return str(value)[:60] if not isinstance(value, Touched) else value.name


@pytest.mark.parametrize(("statement", "touched"), TOUCHING, ids=named)
def test_what_is_left_behind_is_known(statement: Any, touched: Touched) -> None:
    """Nothing of it is missed."""
    assert touched in touches(statement)


@pytest.mark.parametrize("statement", NOT_TOUCHING, ids=named)
def test_what_leaves_nothing_costs_nothing(statement: Any) -> None:
    """The common statements, above all."""
    assert touches(statement) is NOTHING


@pytest.mark.parametrize(("statement", "touched"), TAKEN_FOR_MORE, ids=named)
def test_in_doubt_it_is_reset(statement: Any, touched: Touched) -> None:
    """A reset too many is harmless; one too few is not."""
    assert touched in touches(statement)


@pytest.mark.parametrize(
    "unit", [";/*", "; --", "/**/", "; ", "E'\\''", "$a$ ", "$a", "create ", "'a',", 'U&"a"', "-", "''"]
)
@pytest.mark.parametrize("start", ["UPDATE t SET x = '", "SET ", "hold "])
def test_reading_takes_time_by_the_length_alone(start: str, unit: str) -> None:
    """Not by its square, with the interpreter's lock held all the time: that would take minutes here."""
    began = process_time()
    touches(start + unit * (300_000 // len(unit)) + "'")
    assert process_time() - began < 5


def test_a_long_statement_is_read_and_not_kept() -> None:
    """It was put together with its values, and will not come again."""
    session._remembered.cache_clear()
    values = "INSERT INTO t VALUES " + ", ".join(["('set', 'it; is')"] * 10_000)
    assert touches(values) is NOTHING
    assert touches(values.encode() + b"; SET work_mem = '1MB'") is SETTINGS
    assert session._remembered.cache_info().currsize == 0
    assert touches("SELECT 1") is NOTHING
    assert session._remembered.cache_info().currsize == 1


def test_each_kind_is_told_from_the_others() -> None:
    """So that only what was touched is reset."""
    assert touches("LISTEN news") is LISTENS
    assert touches("SELECT pg_advisory_lock(1)") is LOCKS
    assert touches("CREATE TEMP TABLE t (x int)") is TEMPORARY
    assert touches("DECLARE c CURSOR WITH HOLD FOR SELECT 1") is CURSORS
    assert touches("SET work_mem = '1MB'") is SETTINGS
    assert touches("PREPARE p AS SELECT 1") is BEYOND_RESET


def test_the_reset_of_each_kind() -> None:
    """In one statement, in an order that works: as oneself again first, then the rest."""
    assert reset_statement(NOTHING) == ""
    assert reset_statement(SETTINGS) == "RESET ALL"
    assert reset_statement(ROLE) == "RESET SESSION AUTHORIZATION; RESET ROLE"
    assert reset_statement(LISTENS) == "UNLISTEN *"
    assert reset_statement(LOCKS) == "SELECT pg_advisory_unlock_all()"
    assert reset_statement(TEMPORARY) == "DISCARD TEMP"
    assert reset_statement(CURSORS) == "CLOSE ALL"
    everything = reset_statement(SETTINGS | ROLE | LISTENS | LOCKS | TEMPORARY | CURSORS)
    assert everything.startswith("RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; ")
    assert everything.count(";") == 6


@pytest.mark.parametrize("kind", [kind for kind in Touched if kind not in (NOTHING, BEYOND_RESET)], ids=named)
def test_the_server_understands_each_reset(dsn: str, kind: Touched) -> None:
    """Alone, and all of them together, outside of a transaction."""
    everything = SETTINGS | ROLE | LISTENS | LOCKS | TEMPORARY | CURSORS
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(reset_statement(kind).encode())
        conn.execute(reset_statement(everything).encode())


def test_discard_temp_is_allowed_in_one_message(dsn: str) -> None:
    """Several statements in one message are one transaction for the server; it must not refuse any of them there."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("CREATE TEMP TABLE t (x int)")
        conn.execute("SET work_mem = '1MB'")
        conn.execute(reset_statement(SETTINGS | TEMPORARY).encode())
        assert conn.execute("SELECT to_regclass('t'), current_setting('work_mem')").fetchone() == (None, "4MB")
