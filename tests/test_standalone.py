"""Which statements may share a connection, told from their text; a real server says whether that is so."""

import re
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg._queries import PostgresQuery
from psycopg.adapt import Transformer
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn

from penstock.drill.postgres import EmbeddedPostgres
from penstock.multiplex import standalone
from penstock.multiplex.standalone import refusal

OBJECTS = """
CREATE TABLE t (id serial PRIMARY KEY, x int, temp int, "set" int, reset int, hold int, listen text);
CREATE TABLE temp (x int);
CREATE TABLE "begin; commit" (x int);
CREATE MATERIALIZED VIEW seen AS SELECT 1 AS x;
CREATE SEQUENCE numbers;
CREATE ROLE standalone;
CREATE TYPE ye AS ENUM ('a', 'b\\');
CREATE PROCEDURE twice() LANGUAGE plpgsql AS 'BEGIN COMMIT; INSERT INTO t (x) VALUES (1); ROLLBACK AND CHAIN; END';
CREATE FUNCTION lock() RETURNS int LANGUAGE sql AS 'SELECT 1';
"""

# What begins or ends a transaction, is of use in one alone, or takes the connection's protocol elsewhere.
TRANSACTIONS = [
    "BEGIN",
    "begin",
    "BEGIN WORK",
    "BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "BEGIN READ ONLY",
    "START TRANSACTION",
    "start transaction read only",
    "COMMIT",
    "COMMIT AND NO CHAIN",
    "END",
    "END TRANSACTION",
    "ROLLBACK",
    "ROLLBACK WORK",
    "ABORT",
    "SAVEPOINT s",
    "RELEASE s",
    "RELEASE SAVEPOINT s",
    "ROLLBACK TO s",
    "ROLLBACK TO SAVEPOINT s",
    "PREPARE TRANSACTION 'x'",
    "COMMIT PREPARED 'x'",
    "ROLLBACK PREPARED 'x'",
    "LOCK TABLE t",
    "LOCK t IN SHARE MODE",
    "COPY t FROM STDIN",
    "COPY t TO STDOUT",
    "COPY (SELECT 1) TO STDOUT",
    "copy(select 1)to stdout",
    "COPY t FROM PROGRAM 'true'",
]

# What leaves something in the session, or needs something of it.
TOUCHING = [
    ("SET work_mem = '1MB'", "changes a setting of the session (SET)"),
    ("SET\n\twork_mem = '1MB'", "changes a setting of the session (SET)"),
    ("SET SESSION work_mem = '1MB'", "changes a setting of the session (SET)"),
    ("SET TIME ZONE 'UTC'", "changes a setting of the session (SET)"),
    ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "changes a setting of the session (SET)"),
    ("SET ROLE standalone", "changes a setting of the session (SET)"),
    ("SET SESSION AUTHORIZATION standalone", "changes a setting of the session (SET)"),
    ("SET LOCAL work_mem = '1MB'", "changes a setting of the transaction (SET LOCAL)"),
    ("SET TRANSACTION READ ONLY", "changes a setting of the transaction (SET TRANSACTION)"),
    ("SET CONSTRAINTS ALL DEFERRED", "changes a setting of the transaction (SET CONSTRAINTS)"),
    ("RESET work_mem", "changes a setting of the session (RESET)"),
    ("RESET ALL", "changes a setting of the session (RESET)"),
    ("SELECT set_config('a.b', '1', false)", "changes a setting of the session (set_config, unless "),
    ("SELECT set_config('a.b', '1', 'false')", "changes a setting of the session (set_config, unless "),
    ("SELECT set_config('a.b', '1', $1)", "changes a setting of the session (set_config, unless "),
    ("SELECT set_config('a.b', ', true', false)", "changes a setting of the session (set_config, unless "),
    ("SELECT set_config('a.b', '1', not true)", "changes a setting of the session (set_config, unless "),
    ("SELECT set_config('a.b', coalesce(null, true)::text, false)", "changes a setting of the session (set_config, "),
    ("SELECT set_config('a.b', '1', true), set_config('a.b', '1', false)", "changes a setting of the session (set_"),
    ("SELECT PG_CATALOG . SET_CONFIG /**/ ('a.b', '1', false)", "changes a setting of the session (set_config, "),
    ("SELECT \"set_config\"('a.b', '1', false)", "changes a setting of the session (set_config, "),
    ("SELECT * FROM t, set_config('a.b', '1', false)", "changes a setting of the session (set_config, "),
    ("UPDATE pg_settings SET setting = '2MB' WHERE name = 'work_mem'", "changes a setting of the session (UPDATE pg_"),
    ("UPDATE only pg_settings SET setting = '2MB' WHERE name = 'work_mem'", "changes a setting of the session (UPD"),
    ("UPDATE ONLY (pg_settings) SET setting = '2MB' WHERE name = 'work_mem'", "changes a setting of the session (UPD"),
    ("UPDATE pg_catalog . pg_settings SET setting = '2MB' WHERE name = 'work_mem'", "changes a setting of the "),
    ("UPDATE \"pg_catalog\".\"pg_settings\" SET setting = '2MB' WHERE name = 'work_mem'", "changes a setting of the "),
    ("LISTEN news", "changes what the session listens to (LISTEN)"),
    ('LISTEN "News"', "changes what the session listens to (LISTEN)"),
    ("UNLISTEN *", "changes what the session listens to (UNLISTEN)"),
    ("SELECT pg_advisory_lock(1)", "takes a lock that the session keeps (pg_advisory_lock)"),
    ("SELECT PG_ADVISORY_LOCK (1, 2)", "takes a lock that the session keeps (pg_advisory_lock)"),
    ("SELECT pg_catalog.pg_advisory_lock(1)", "takes a lock that the session keeps (pg_advisory_lock)"),
    ('SELECT "pg_advisory_lock"(1)', "takes a lock that the session keeps (pg_advisory_lock)"),
    ('SELECT pg_catalog."pg_advisory_lock"/**/(1)', "takes a lock that the session keeps (pg_advisory_lock)"),
    ("SELECT pg_advisory_lock_shared(1)", "takes a lock that the session keeps (pg_advisory_lock_shared)"),
    ("SELECT pg_try_advisory_lock(1)", "takes a lock that the session keeps (pg_try_advisory_lock)"),
    ("SELECT pg_try_advisory_lock_shared(1)", "takes a lock that the session keeps (pg_try_advisory_lock_shared)"),
    ("VALUES (pg_advisory_lock(1))", "takes a lock that the session keeps (pg_advisory_lock)"),
    ("INSERT INTO t (x) SELECT 1 FROM pg_advisory_lock(1)", "takes a lock that the session keeps (pg_advisory_lock)"),
    ("EXPLAIN ANALYZE SELECT pg_advisory_lock(1)", "takes a lock that the session keeps (pg_advisory_lock)"),
    ("SELECT 1 WHERE EXISTS(SELECT pg_advisory_lock(1))", "takes a lock that the session keeps (pg_advisory_lock)"),
    ("SELECT pg_advisory_unlock(1)", "releases a lock of the session (pg_advisory_unlock)"),
    ("SELECT pg_advisory_unlock_shared(1)", "releases a lock of the session (pg_advisory_unlock_shared)"),
    ("SELECT pg_advisory_unlock_all()", "releases a lock of the session (pg_advisory_unlock_all)"),
    ("CREATE TEMP TABLE own (x int)", "makes something temporary in the session (TEMP)"),
    ("create/**/temporary table if not exists own (x int)", "makes something temporary in the session (TEMP)"),
    ("CREATE LOCAL TEMP TABLE own (x int)", "makes something temporary in the session (TEMP)"),
    ("CREATE GLOBAL TEMPORARY TABLE own (x int)", "makes something temporary in the session (TEMP)"),
    ("CREATE OR REPLACE TEMP VIEW own AS SELECT 1", "makes something temporary in the session (TEMP)"),
    ("CREATE TEMP SEQUENCE own", "makes something temporary in the session (TEMP)"),
    ("CREATE TEMP TABLE own AS SELECT 1", "makes something temporary in the session (TEMP)"),
    ("EXPLAIN ANALYZE CREATE TEMP TABLE own AS SELECT 1", "makes something temporary in the session (TEMP)"),
    ("SELECT 1 AS x INTO TEMP own", "makes something temporary in the session (TEMP)"),
    ("SELECT 1 AS x INTO LOCAL TEMPORARY TABLE own", "makes something temporary in the session (TEMP)"),
    ("SELECT 1 insert INTO TEMP own", "makes something temporary in the session (TEMP)"),
    ("SELECT 1 AS merge INTO TEMP own", "makes something temporary in the session (TEMP)"),
    ("WITH a AS (SELECT 1 AS x) SELECT x INTO TEMP own FROM a", "makes something temporary in the session (TEMP)"),
    ("CREATE TABLE pg_temp.own (x int)", "uses what is temporary in the session (pg_temp)"),
    ('CREATE TABLE "pg_temp" . own (x int)', "uses what is temporary in the session (pg_temp)"),
    ("SELECT 1 AS x INTO pg_temp.own", "uses what is temporary in the session (pg_temp)"),
    (
        "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "uses what is temporary in the session (pg_temp)",
    ),
    ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "opens a cursor in the session (DECLARE)"),
    ("DECLARE c CURSOR FOR SELECT 1", "opens a cursor in the session (DECLARE)"),
    ("FETCH ALL FROM c", "reads a cursor of the session (FETCH)"),
    ("MOVE NEXT FROM c", "moves a cursor of the session (MOVE)"),
    ("CLOSE ALL", "closes a cursor of the session (CLOSE)"),
    ("PREPARE p AS SELECT 1", "prepares a statement in the session (PREPARE)"),
    ("EXECUTE p", "runs what was prepared in the session (EXECUTE)"),
    ("EXPLAIN EXECUTE p", "runs what was prepared in the session (EXECUTE)"),
    ("EXPLAIN (ANALYZE, COSTS off) EXECUTE p", "runs what was prepared in the session (EXECUTE)"),
    ("EXPLAIN ANALYZE VERBOSE EXECUTE p", "runs what was prepared in the session (EXECUTE)"),
    ("DEALLOCATE ALL", "drops what was prepared in the session (DEALLOCATE)"),
    ("LOAD 'plpgsql'", "loads a library into the session (LOAD)"),
    ("DISCARD PLANS", "clears the session (DISCARD)"),
    ("DISCARD ALL", "clears the session (DISCARD)"),
    ("DO $$BEGIN PERFORM set_config('a.b', '1', false); END$$", "runs code that may change the session (DO)"),
    ("DO 'BEGIN EXECUTE ''LIS'' || ''TEN news''; END'", "runs code that may change the session (DO)"),
    ("SELECT currval('numbers')", "reads what an earlier statement left in the session (currval)"),
    ("SELECT lastval()", "reads what an earlier statement left in the session (lastval)"),
    ("SELECT setseed(0.5)", "sets what random() gives in the session (setseed)"),
    ("SELECT pg_export_snapshot()", "exports a snapshot, which would end with it (pg_export_snapshot)"),
    ("SELECT pg_backup_start('x')", "begins a backup that the session must end (pg_backup_start)"),
    ("SELECT * FROM pg_backup_stop()", "ends a backup that the session began (pg_backup_stop)"),
    ("SELECT dblink_connect('own', '')", "opens a connection that the session keeps (dblink_connect)"),
    ("SELECT set_limit(0.5)", "changes a setting of the session (set_limit)"),
]

# Words in these that a hasty reader would take for more than they are, and all that stands alone.
ALLOWED = [
    "SELECT 1",
    "select 1;",
    ";;SELECT 1 ; ; -- done",
    "SELECT",
    "(SELECT 1)",
    "( ( SELECT 1 ) UNION SELECT 2 )",
    "-- why\r\n/* a /* b */ c */SELECT 1",
    "SELECT 1 AS x -- SET work_mem = '1MB'; LISTEN news; SELECT pg_advisory_lock(1)",
    "SELECT /* ; BEGIN; pg_advisory_lock(1) */ 1",
    "SELECT 'please listen'",
    "SELECT 'so; BEGIN; it is', 'it''s ; set_config(''a'', ''b'', false)'",
    r"SELECT 'C:\', '; COMMIT', 'x' LIKE '\_' ESCAPE '\'",
    r"SELECT E'it\'s ; pg_advisory_lock(1)', e'\\', E'a''b'",
    "SELECT E'a'\n  -- b\n '\\' ; lastval() ', 1",
    r"SELECT ye'b\', 'pg_advisory_lock(1)'",
    "SELECT $$it's ; BEGIN; pg_advisory_lock(1)$$, $a$ $$ $b$ ; lastval() $a$",
    "SELECT B'0101', X'1F', N'n', U&'d\\0061t'",
    "SELECT x AS a$$b, id AS c$$, 'lastval()' AS \"$$\" FROM t",
    'SELECT x AS "SET; LISTEN ""it""" FROM "begin; commit"',
    'SELECT "set", reset, hold, temp, listen FROM t WHERE listen = $1',
    "SELECT temp, hold AS with_hold FROM t",
    "SELECT 1 AS begin, 2 AS commit, 3 AS copy, 4 AS lock, 5 AS load, 6 AS prepare, 7 AS execute, 8 AS discard",
    "SELECT 1 AS currval, 2 AS lastval, 3 AS set_config, 4 AS pg_advisory_lock",
    "SELECT lock(), current_setting('work_mem'), name, setting FROM pg_settings LIMIT 1",
    "SELECT set_config('a.b', $1, true)",
    "SELECT set_config('a.b', '1', TRUE), set_config('a.c', coalesce(null, '('), true )",
    "SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock_shared(2)",
    "SELECT x FROM t FOR UPDATE SKIP LOCKED",
    "SELECT nextval('numbers'), setval('numbers', 3)",
    "SELECT pg_notify('news', 'LISTEN')",
    "SELECT 1 AS x INTO made",
    "SELECT 1 AS x INTO UNLOGGED TABLE made_unlogged",
    "WITH a AS (SELECT id FROM t FOR UPDATE SKIP LOCKED LIMIT 1) UPDATE t SET x = 1 FROM a WHERE t.id = a.id",
    "WITH a AS (INSERT INTO temp VALUES (1) RETURNING x) SELECT * FROM a",
    "WITH a AS (SELECT 1 AS x) INSERT INTO temp SELECT x FROM a",
    "VALUES (1), (2)",
    "TABLE t",
    'INSERT INTO t (x, temp, "set") VALUES (1, 2, 3) ON CONFLICT (id) DO UPDATE SET x = 2, hold = 1 RETURNING id',
    "INSERT INTO temp (x) VALUES ($1)",
    "INSERT INTO temp TABLE temp",
    "EXPLAIN INSERT INTO temp VALUES (1)",
    "UPDATE t SET listen = 'SET', reset = 1, \"set\" = 2 WHERE hold = 1",
    "UPDATE temp SET x = 1",
    "DELETE FROM temp",
    "MERGE INTO temp USING t ON temp.x = t.x WHEN MATCHED THEN UPDATE SET x = 1 WHEN NOT MATCHED THEN DO NOTHING",
    "TRUNCATE temp",
    "EXPLAIN SELECT 1",
    "EXPLAIN (SELECT 1)",
    "EXPLAIN ((SELECT 1))",
    "EXPLAIN(ANALYZE, FORMAT json)SELECT 1",
    "EXPLAIN (ANALYZE) (SELECT 1)",
    "EXPLAIN ANALYZE VERBOSE UPDATE t SET x = 2",
    "EXPLAIN ANALYZE CREATE TABLE explained AS SELECT 1",
    "SHOW work_mem",
    "NOTIFY news, 'set'",
    "CALL twice()",
    "CREATE TABLE c (temp int, listen text DEFAULT 'SET')",
    "CREATE UNLOGGED TABLE temporary (x int)",
    "CREATE TABLE c_as AS SELECT 1 AS temp",
    "CREATE SCHEMA own CREATE TABLE u (x int) CREATE VIEW v AS SELECT 1 AS x",
    "CREATE INDEX CONCURRENTLY ON t (x)",
    "CREATE FUNCTION f1() RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS 'SELECT 1'",
    "CREATE FUNCTION f2() RETURNS int LANGUAGE plpgsql AS $$BEGIN SET work_mem = '1MB'; RETURN 1; END$$",
    "CREATE FUNCTION f3() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END",
    "CREATE OR REPLACE RULE r AS ON INSERT TO temp DO ALSO (NOTIFY a; NOTIFY b)",
    "CREATE EXTENSION IF NOT EXISTS plpgsql",
    "ALTER TABLE t ALTER COLUMN x SET DEFAULT 1",
    "ALTER TABLE t ADD COLUMN reset_again int",
    "ALTER ROLE standalone SET work_mem = '1MB'",
    "ALTER FUNCTION lock() SET search_path = pg_temp",
    "DROP TABLE IF EXISTS nowhere",
    "DROP FUNCTION IF EXISTS pg_advisory_lock(text)",
    "COMMENT ON FUNCTION lock() IS 'LISTEN'",
    "GRANT SELECT ON t TO standalone",
    "GRANT EXECUTE ON FUNCTION pg_advisory_lock(bigint), set_config(text, text, boolean) TO standalone",
    "GRANT TEMP ON DATABASE standalone TO standalone",
    "REVOKE EXECUTE ON FUNCTION pg_advisory_lock(bigint) FROM standalone",
    "REASSIGN OWNED BY standalone TO CURRENT_USER",
    "ANALYZE t",
    "VACUUM (ANALYZE) temp",
    "REINDEX TABLE t",
    "CLUSTER t USING t_pkey",
    "CHECKPOINT",
    "REFRESH MATERIALIZED VIEW seen",
]

# Allowed as well, but the server here lacks what they are about.
ALLOWED_ELSEWHERE = [
    "IMPORT FOREIGN SCHEMA s FROM SERVER other INTO public",
    "SECURITY LABEL FOR selinux ON TABLE t IS 'x'",
    "ANALYSE",
    "SELECT * FROM warehouse WHERE set_name = %s",
]

UNREADABLE = [
    "SELECT 'open",
    'SELECT "open',
    "SELECT E'open\\'",
    "SELECT $$open",
    "SELECT $a$open$$",
    "SELECT 1 /* open /* */",
    "SELECT 1\0; BEGIN",
    'SELECT U&"pg\\005fadvisory_lock"(1)',
    "SELECT u&\"!0061\" UESCAPE '!'",
]

UNKNOWN = ["SELEKT 1", "1", "'BEGIN'", '"begin"', "$1", "$$BEGIN$$", "set_config('a', 'b', true)", "\ufeffSELECT 1"]

SEVERAL = [
    "SELECT 1; SELECT 2",
    "SELECT 1; BEGIN",
    "(SELECT 1); COMMIT",
    "CREATE TABLE a (x int); CREATE TABLE b (x int)",
    "INSERT INTO t (x) VALUES (1); SET work_mem = '1MB'",
    "EXPLAIN SELECT 1; BEGIN",
    "SELECT 'a'; -- b\nSELECT 2",
    "GRANT SELECT ON t TO standalone; BEGIN",
]

# All that a session may keep; nothing of it is there in one that was never touched.
LEFT_BEHIND = b"""
SELECT 'setting', name FROM pg_settings WHERE source = 'session' AND name NOT LIKE 'transaction%'
UNION ALL SELECT 'lock', locktype FROM pg_locks
    WHERE pid = pg_backend_pid() AND locktype <> 'virtualxid' AND (relation IS NULL OR relation >= 16384)
UNION ALL SELECT 'prepared', name FROM pg_prepared_statements
UNION ALL SELECT 'cursor', name FROM pg_cursors WHERE name <> ''
UNION ALL SELECT 'listening', pg_listening_channels()
UNION ALL SELECT 'temporary', relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()
UNION ALL SELECT 'temporary', proname FROM pg_proc WHERE pronamespace = pg_my_temp_schema()
UNION ALL SELECT 'custom', 'a.b' WHERE current_setting('a.b', true) <> ''
UNION ALL SELECT 'role', current_user WHERE current_user <> 'postgres'
"""
# The server's tags of what must never have been sent.
FORBIDDEN = re.compile(
    r"(BEGIN|START|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|PREPARE|LOCK|COPY|SET|RESET|LISTEN|UNLISTEN|DISCARD|DEALLOCATE"
    r"|EXECUTE|DECLARE|FETCH|MOVE|CLOSE|LOAD|DO)\b"
)


def named(statement: object) -> str:
    return str(statement)[:60]


@pytest.fixture(scope="module")
def server(postgres: EmbeddedPostgres) -> Iterator[PGconn]:
    """A session of the superuser, whom nothing is forbidden, in a database with the objects that are spoken of."""
    with postgres.admin() as admin:
        admin.execute("CREATE DATABASE standalone")
        try:
            with psycopg.connect(postgres.admin_dsn, dbname="standalone", autocommit=True) as connection:
                connection.execute(OBJECTS.encode())
                yield connection.pgconn
        finally:
            admin.execute("DROP DATABASE standalone WITH (FORCE)")
            admin.execute("DROP ROLE standalone")


def run(server: PGconn, statement: str) -> tuple[str, str]:
    """Run it through the extended protocol, in autocommit. The tag, or "" if there is none, and the error."""
    result = server.exec_params(statement.encode(), [b"1"] if "$1" in statement else None)
    while result.status in (ExecStatus.COPY_IN, ExecStatus.COPY_OUT):
        if result.status == ExecStatus.COPY_IN:
            server.put_copy_end()
        else:
            while server.get_copy_data(0)[0] > 0:
                pass
        while following := server.get_result():
            result = following
    failed = result.status == ExecStatus.FATAL_ERROR
    return (result.command_status or b"").decode(), result.get_error_message() if failed else ""


def left_behind(server: PGconn) -> set[tuple[str, ...]]:
    """What the session keeps, its transaction included."""
    if server.transaction_status != TransactionStatus.IDLE:
        return {("transaction", TransactionStatus(server.transaction_status).name)}
    result = server.exec_params(LEFT_BEHIND, None)
    assert result.status == ExecStatus.TUPLES_OK, result.get_error_message()
    rows = range(result.ntuples)
    return {tuple(str((result.get_value(row, column) or b"").decode()) for column in (0, 1)) for row in rows}


def clear(server: PGconn) -> None:
    if server.transaction_status != TransactionStatus.IDLE:
        server.exec_(b"ROLLBACK")
    server.exec_(b"RESET SESSION AUTHORIZATION")
    server.exec_(b"DISCARD ALL")
    server.exec_(b"SELECT set_config('a.b', '', false)")
    server.exec_(b"DISCARD ALL")


@pytest.mark.parametrize("statement", TRANSACTIONS, ids=named)
@pytest.mark.parametrize(
    "before", ["", " \t\r\n\f", ";", "(", "-- a\r", "--a\n--b\n", "/**/", "/*/**/'*/;/* -- */"], ids=repr
)
def test_no_transaction_begins_or_ends(statement: str, before: str) -> None:
    """It would be every caller's. However it is dressed up, and whatever follows."""
    for after in ("", ";", " -- a", "/* b */", "; SELECT 1"):
        reason = refusal(before + statement + after)
        assert reason
        assert reason.partition(" (")[0] in {
            "begins a transaction",
            "ends a transaction",
            "is for a transaction of several statements",
            "takes the connection for its data",
        }


@pytest.mark.parametrize("statement", TRANSACTIONS, ids=named)
def test_what_was_taken_for_a_transaction_is_one(server: PGconn, statement: str) -> None:
    """The server runs it as what it was refused for, or has nothing to run it on; none is refused in vain."""
    tag, error = run(server, statement)
    clear(server)
    assert FORBIDDEN.match(tag) or error


@pytest.mark.parametrize(("statement", "reason"), TOUCHING, ids=named)
def test_what_touches_the_session_is_refused(statement: str, reason: str) -> None:
    """And the words say what was found."""
    assert (refusal(statement) or "").startswith(reason)


@pytest.mark.parametrize("statement", ALLOWED, ids=named)
def test_what_is_allowed_leaves_nothing(server: PGconn, statement: str) -> None:
    """A false refusal is an error to somebody; a false pass is one to everybody."""
    assert refusal(statement) is None
    _, error = run(server, statement)
    assert error == ""
    assert left_behind(server) == set()


@pytest.mark.parametrize("statement", ALLOWED_ELSEWHERE, ids=named)
def test_what_else_stands_alone(statement: str) -> None:
    """Whatever the grammar has that touches no session."""
    assert refusal(statement) is None


@pytest.mark.parametrize("statement", UNREADABLE, ids=ascii)
def test_what_cannot_be_read_is_refused(statement: str) -> None:
    """Where a literal ends decides what else there is."""
    assert (refusal(statement) or "").startswith("cannot be read (")


@pytest.mark.parametrize("statement", UNKNOWN, ids=ascii)
def test_what_is_not_known_is_refused(statement: str) -> None:
    """A word that a later PostgreSQL adds may begin anything."""
    assert (refusal(statement) or "").startswith("does not begin with a word that is known to stand alone")


@pytest.mark.parametrize("statement", ["", " ", ";", "-- nothing", "/* BEGIN */;", "(", "EXPLAIN"], ids=repr)
def test_nothing_is_not_a_statement(statement: str) -> None:
    """Said as such, before the server answers a question that was not asked."""
    assert refusal(statement) == "is empty"


@pytest.mark.parametrize("statement", SEVERAL, ids=named)
def test_several_statements_are_refused_before_the_server_does_it(server: PGconn, statement: str) -> None:
    """It refuses them without running the first, in words that do not say what to do."""
    assert refusal(statement) == "is more than one statement"
    _, error = run(server, statement)
    assert "cannot insert multiple commands into a prepared statement" in error
    assert left_behind(server) == set()


def test_several_that_look_like_one_are_still_refused_by_the_server(server: PGconn) -> None:
    """A body may have semicolons in it; what comes after the body is the server's to refuse."""
    statement = "CREATE FUNCTION f4() RETURNS int BEGIN ATOMIC SELECT 1; END; BEGIN"
    assert refusal(statement) is None
    assert "multiple commands" in run(server, statement)[1]
    assert left_behind(server) == set()


@pytest.mark.parametrize(
    ("statement", "params"),
    [
        ("-- %(\n SELECT 1 --)s\n BEGIN", {"\n SELECT 1 --": 1}),
        ("SELECT %(')s, pg_advisory_lock(1), %(')s", {"'": 1}),
        ("SELECT $a%s$ ' $a$, pg_advisory_lock(1), $b%b$ ' $b$", (1, 2)),
        ("SELECT 5 %% pg_advisory_lock(%s), '%%(", (1,)),
    ],
    ids=named,
)
def test_a_statement_with_parameters_is_read_as_it_will_be_sent(statement: str, params: Any) -> None:
    """The driver replaces placeholders wherever they are; it knows of no quotes and no comments."""
    query = PostgresQuery(Transformer())
    query.convert(statement, params)
    assert refusal(statement, placeholders=True) == refusal(query.query.decode()) is not None


def test_parameters_hide_nothing_and_are_nothing() -> None:
    """The usual ones."""
    assert refusal("SELECT x FROM t WHERE id = %s AND n LIKE '%%s' AND m = %(m)s", placeholders=True) is None
    assert refusal("SELECT set_config('a.b', %(b)s, true)", placeholders=True) is None
    assert refusal("SELECT set_config('a.b', %s, %s)", placeholders=True)
    assert refusal("SELECT 7 %% pg_advisory_lock(%s)", placeholders=True)


BLANK = st.sampled_from(
    [" ", "\n", "\t", "\f", "\r", "\r\n", "-- x\n", "--'\r", "/* */", "/*/* ' */ $$ */", '/**//*"*/']
)
BLANKS = st.lists(BLANK, max_size=3).map("".join)
INSIDE = st.lists(
    st.sampled_from(
        ["a", " ", "\\", "\n", "--", "/*", "*/", ";", "$", "BEGIN", "lastval()", ", pg_advisory_lock(1), ", "é"]
    ),
    max_size=4,
).map("".join)
PLAIN = INSIDE.map(lambda inside: f"'{inside}''{inside}'")
# A backslash comes with a quote behind it, so that the literal ends where it should.
ESCAPED = INSIDE.map(lambda inside: "E'" + inside.replace("\\", "\\'") + "'")
CONTINUED = st.tuples(ESCAPED, INSIDE).map(lambda both: f"{both[0]} -- '\n '" + both[1].replace("\\", "\\\\") + "\\''")
DOLLARS = INSIDE.map(lambda inside: f"$é1${inside}'$ $$ $é1$")
EMPTY_DOLLARS = INSIDE.map(lambda inside: "$$" + inside.replace("$", "'") + "$$")
NAMES = INSIDE.map(lambda inside: f'1 AS "{inside}""$$\'"')
ODD_NAMES = st.sampled_from(["1 AS e$$a", "1 AS x$a$", "1 AS é", "1 AS ee", "date'2020-01-01'", "ye'b\\'", "1 AS e"])
HARMLESS = st.one_of(PLAIN, ESCAPED, CONTINUED, DOLLARS, EMPTY_DOLLARS, NAMES, ODD_NAMES)
HARMFUL = st.sampled_from(
    [
        "pg_advisory_lock(1)",
        "pg_catalog.pg_try_advisory_lock_shared(1)",
        '"pg_advisory_lock" (1)',
        "set_config('a.b', 'c', false)",
        "set_config('a.b', ', true)', not true)",
    ]
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    blank=BLANKS,
    items=st.lists(st.one_of(HARMLESS, HARMLESS, HARMLESS, HARMFUL), min_size=1, max_size=4),
    between=BLANKS,
)
def test_literals_and_comments_hide_neither_too_much_nor_too_little(
    server: PGconn, blank: str, items: list[str], between: str
) -> None:
    """Refused when it leaves something in the session, and only then."""
    statement = f"{blank}SELECT {f' {between}, '.join(items)} {between}"
    reason = refusal(statement)
    _, error = run(server, statement)
    left = left_behind(server)
    if left:
        clear(server)
    assert error == ""
    assert bool(reason) == bool(left), (statement, reason, left)


WHOLE = [statement for statement, _ in TOUCHING if "backup" not in statement and "SELECT" not in statement]
CLAUSES = ["BEGIN", "COMMIT", "SET a.b = 1", "LISTEN x", "COPY t TO STDOUT", "START TRANSACTION", "DISCARD PLANS"]
WORDS = ["SELECT 1", "SELECT", "WITH", "EXPLAIN", "ANALYZE", "CREATE", "TEMP", "TABLE own", "INTO TEMP own", "AS", "t"]
CALLS = ["set_config", "('a.b', '1', false)", "(", ")", ",", ";", "1", " ", "\n", "\r", "\v", "\xa0"]
MARKS = ["e", "E", "U&", "'", "''", '"', "$$", "$a$", "$", "--", "/*", "*/", "\\"]
PIECES = st.sampled_from([*CLAUSES, *WORDS, *CALLS, *MARKS])
SOUP = st.lists(PIECES, max_size=12).map("".join)
DRESSED = st.tuples(
    st.lists(st.one_of(BLANK, st.sampled_from([";", "("])), max_size=4).map("".join),
    st.sampled_from(TRANSACTIONS + WHOLE),
    SOUP,
).map("".join)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(statement=st.one_of(SOUP, DRESSED))
@example(statement="--\rBEGIN")
@example(statement="/*/**/*/COPY t FROM STDIN")
@example(statement="SELECT 1 insert INTO TEMP own")
def test_whatever_the_server_runs_as_a_transaction_was_refused(server: PGconn, statement: str) -> None:
    """The server is the judge of what a text is."""
    reason = refusal(statement)
    tag, error = run(server, statement)
    left = left_behind(server)
    if left or FORBIDDEN.match(tag):
        clear(server)
        assert reason, (statement, tag, left)
    elif not error and tag:
        run(server, "DROP TABLE IF EXISTS own")


HOSTILE = ["'", '"', "/*", "*/", "$", "$$", "$a", "$a$", "--", "e'", "E'\\", "e''\n", "''\n--", "u&", "\n"]
AGAIN = ["(", "%(", "%(a)", "%", "set_config(", "set_config((", "set_config(a,", "explain ", "explain (", "into "]


@pytest.mark.parametrize("start", ["", "SELECT set_config("], ids=repr)
@pytest.mark.parametrize("piece", [*HOSTILE, *AGAIN], ids=repr)
def test_no_text_takes_long_to_read(start: str, piece: str) -> None:
    """A megabyte of what might make a reader start over, again and again. It takes some 0.3 s at most."""
    text = start + piece * (1_000_000 // len(piece))
    before = time.process_time()
    refusal(text, placeholders=True)
    assert time.process_time() - before < 3


def test_nested_calls_are_read_in_linear_time() -> None:
    """Each `set_config(` looks ahead; none may look over what the next one looks over again."""
    text = "SELECT " + "set_config(('a')," * 30_000 + "'b', true)" + ", true)" * 29_999
    before = time.process_time()
    assert refusal(text)
    assert time.process_time() - before < 3


def test_a_text_is_read_once() -> None:
    """It is asked for each statement that is sent."""
    text = "SELECT x FROM t WHERE id = $1 -- read once"
    refusal(text)
    before = time.perf_counter()
    for _ in range(10_000):
        refusal(text)
    assert time.perf_counter() - before < 0.1


def test_long_texts_are_not_remembered() -> None:
    """A thousand generated statements of a megabyte each would be a gigabyte."""
    standalone._remembered.cache_clear()
    refusal("SELECT '" + "x" * 20_000 + "'")
    assert standalone._remembered.cache_info().currsize == 0
    for number in range(3_000):
        refusal(f"SELECT {number}")
    assert standalone._remembered.cache_info().currsize <= 1024
