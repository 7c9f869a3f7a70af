"""What the audit says of session state, beside what a real PgBouncer does with it: they agree.

There is one server connection. One client leaves something in it, and another looks whether it finds that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg
import psycopg2
import pytest

from penstock.audit.audit import audit
from penstock.audit.source import parse
from penstock.drill.postgres import EmbeddedPostgres
from support.pgbouncer import PgBouncer

WORK_MEM = "SELECT current_setting('work_mem') = '77MB'"
TENANT = "SELECT current_setting('app.tenant', true) = '7'"
LOCKED = "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711"
SEEN = "SELECT to_regclass('pg_temp.audit_seen') IS NOT NULL"
CURSORS = "SELECT count(*) = 1 FROM pg_cursors WHERE name = 'audit_c'"
HEARS = "SELECT count(*) = 1 FROM pg_listening_channels()"
PREPARED = "SELECT count(*) = 1 FROM pg_prepared_statements WHERE name = 'audit_find'"
ISOLATION = "SELECT current_setting('default_transaction_isolation') = 'serializable'"

UNSAFE = [
    ("PEN701", ["SET work_mem = '77MB'"], WORK_MEM),
    ("PEN701", ["SET SESSION work_mem TO '77MB'"], WORK_MEM),
    ("PEN702", ["SELECT set_config('app.tenant', '7', false)"], TENANT),
    ("PEN705", ["SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE"], ISOLATION),
    ("PEN705", ["SET default_transaction_isolation = 'serializable'"], ISOLATION),
    ("PEN708", ["PREPARE audit_find AS SELECT 1"], PREPARED),
    ("PEN711", ["LISTEN audit_changes"], HEARS),
    ("PEN712", ["SELECT pg_advisory_lock(4711)"], LOCKED),
    ("PEN712", ["SELECT pg_try_advisory_lock(4711)"], LOCKED),
    ("PEN713", ["CREATE TEMP TABLE audit_seen (id int)"], SEEN),
    ("PEN713", ["CREATE TEMP VIEW audit_seen AS SELECT 1"], SEEN),
    ("PEN713", ["SELECT 1 AS id INTO TEMP audit_seen"], SEEN),
    ("PEN714", ["DECLARE audit_c CURSOR WITH HOLD FOR SELECT 1"], CURSORS),
]
SAFE = [
    (["SET LOCAL work_mem = '77MB'"], WORK_MEM),
    (["SELECT set_config('app.tenant', '7', true)"], TENANT),
    (["SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"], ISOLATION),
    (["SELECT pg_advisory_xact_lock(4711)"], LOCKED),
    (["CREATE TEMP TABLE audit_seen (id int) ON COMMIT DROP"], SEEN),
    (["CREATE TEMP TABLE audit_seen (id int)", "DROP TABLE audit_seen"], SEEN),
    (["DECLARE audit_c CURSOR FOR SELECT 1"], CURSORS),
    (["NOTIFY audit_changes"], HEARS),
    (["SET application_name = 'audit'"], "SELECT current_setting('application_name') = 'audit'"),
    (["SET timezone TO 'Asia/Tokyo'"], "SELECT current_setting('timezone') = 'Asia/Tokyo'"),
    (["SET DateStyle = 'German'"], "SELECT current_setting('DateStyle') LIKE 'German%'"),
]


@pytest.fixture
def bouncer(postgres: EmbeddedPostgres) -> Iterator[PgBouncer]:
    with PgBouncer(postgres, prepares=True, default_pool_size=1) as running:
        yield running


def _leaves(bouncer: PgBouncer, statements: list[str], probe: str) -> bool:
    """Whether another client finds what these leave, one transaction of them."""
    with closing(_client(bouncer)) as first, closing(_client(bouncer)) as second:
        with first.transaction():
            for statement in statements:
                first.execute(statement.encode())
        row = second.execute(probe.encode()).fetchone()
        return bool(row and row[0])


def _client(bouncer: PgBouncer) -> psycopg.Connection:
    return psycopg.connect(bouncer.dsn, autocommit=True, cursor_factory=psycopg.ClientCursor)


def _told(statements: list[str]) -> set[str]:
    """What the audit says of them, in one transaction."""
    sends = "\n".join(f"        conn.execute({statement!r})" for statement in statements)
    code = (
        f"import psycopg\n\n\ndef work(info):\n    with psycopg.connect(info, prepare_threshold=None) as conn:\n{sends}"
    )
    return {one.code for one in audit([parse(code, "a.py", "a")], "transaction").findings}


@pytest.mark.parametrize(("code", "statements", "probe"), UNSAFE, ids=lambda value: str(value)[:60])
def test_what_is_told_another_client_finds(bouncer: PgBouncer, code: str, statements: list[str], probe: str) -> None:
    assert _told(statements) == {code}
    assert _leaves(bouncer, statements, probe)


@pytest.mark.parametrize(("statements", "probe"), SAFE, ids=lambda value: str(value)[:60])
def test_what_is_not_told_no_other_client_finds(bouncer: PgBouncer, statements: list[str], probe: str) -> None:
    assert _told(statements) == set()
    assert not _leaves(bouncer, statements, probe)


def test_a_lock_of_the_session_excludes_nobody(bouncer: PgBouncer) -> None:
    with closing(_client(bouncer)) as first, closing(_client(bouncer)) as second:
        lock = b"SELECT pg_try_advisory_lock(4711)"
        assert first.execute(lock).fetchone() == second.execute(lock).fetchone() == (True,)


def test_set_local_outside_of_a_transaction_sets_nothing_and_in_one_message_it_does(bouncer: PgBouncer) -> None:
    with closing(_client(bouncer)) as client:
        client.execute(b"SET LOCAL work_mem = '77MB'")
        assert client.execute(WORK_MEM.encode()).fetchone() == (False,)
        cursor = client.execute(f"SET LOCAL work_mem = '77MB'; {WORK_MEM}".encode())
        assert cursor.nextset()
        assert cursor.fetchone() == (True,)


def test_set_session_of_psycopg2_leaves_something_with_autocommit_alone(bouncer: PgBouncer) -> None:
    def leaves(autocommit: bool) -> bool:
        with closing(psycopg2.connect(bouncer.dsn)) as first, closing(_client(bouncer)) as second:
            first.set_session(isolation_level="SERIALIZABLE", autocommit=autocommit)
            with closing(first.cursor()) as cursor:
                cursor.execute("SELECT 1")
            first.rollback()
            return second.execute(ISOLATION.encode()).fetchone() == (True,)

    assert not leaves(autocommit=False)
    assert leaves(autocommit=True)


def test_the_number_that_a_driver_has_of_its_backend_is_no_backends(bouncer: PgBouncer) -> None:
    with closing(_client(bouncer)) as client:
        assert client.execute(b"SELECT pg_backend_pid()").fetchone() != (client.info.backend_pid,)


def test_lastval_is_anothers(bouncer: PgBouncer) -> None:
    with closing(_client(bouncer)) as first, closing(_client(bouncer)) as second:
        first.execute(b"CREATE SEQUENCE audit_numbers")
        first.execute(b"SELECT nextval('audit_numbers')")
        assert second.execute(b"SELECT lastval()").fetchone() == (1,)  # it has taken none itself
        first.execute(b"DROP SEQUENCE audit_numbers")
