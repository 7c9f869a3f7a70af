"""What mysqlclient alone can do to a connection, on a real MariaDB. The next user has one as the first had."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import Pool
from penstock.core import Reason
from support.mariadb import DATABASE, USER, MariaDB
from test_mysql_session import do, option_file

MySQLError = pytest.importorskip(
    "MySQLdb", reason="pip install mysqlclient, which needs a compiler and libmariadb-dev"
).Error


@pytest.fixture
def pool(mariadb: MariaDB) -> Iterator[Pool[Any]]:
    """One connection, so that the next user has the one of the last."""
    kwargs = {"autocommit": True}
    with Pool(mariadb.dsn, driver="mysqlclient", kwargs=kwargs, min_size=1, open=False) as pool:
        pool.wait()
        yield pool


def test_another_user_s_identity_is_not_left_to_the_next(mariadb: MariaDB, pool: Pool[Any]) -> None:
    """Nothing short of a new connection takes it away."""
    mariadb.ask("CREATE OR REPLACE USER somebody IDENTIFIED BY 'else'")
    mariadb.ask(f"GRANT ALL ON {DATABASE}.* TO somebody")
    with pool.connection() as conn:
        conn.change_user("somebody", "else", DATABASE)
        assert user(conn) == "somebody"
    with pool.connection() as conn:
        assert user(conn) == USER
    assert pool.snapshot().closes == {Reason.UNCLEAN: 1}


def user(conn: Any) -> str:
    return str(do(conn, "SELECT USER()")[0][0]).partition("@")[0]


@pytest.mark.parametrize("query", ["SELECT 1", "DO 1; SELECT 2", "SELECT 1; SELECT 2"])
def test_a_result_that_nobody_read_is_nobody_s_error(pool: Pool[Any], query: str) -> None:
    """The library would refuse every later statement: commands out of sync."""
    conn = pool.getconn()
    conn.query(query)
    if query.startswith("SELECT 1;"):
        conn.store_result()  # the first of two
    pool.putconn(conn)
    for _ in range(2):
        with pool.connection() as conn:
            assert do(conn, "SELECT 1") == [(1,)]
    assert pool.snapshot().closes == {Reason.BUSY: 1}


def test_a_statement_that_comes_too_early_is_no_sign_of_a_lost_server(pool: Pool[Any]) -> None:
    """The connection is closed, for its own user's fault."""
    with pytest.raises(MySQLError, match="out of sync"), pool.connection() as conn:
        conn.query("SELECT 1")
        do(conn, "SELECT 2")
    assert pool._driver.loss(conn) is None
    with pool.connection() as conn:
        assert do(conn, "SELECT 1") == [(1,)]
    assert pool.snapshot().closes == {Reason.BROKEN: 1}


@pytest.mark.parametrize("streaming", [False, True])
def test_results_read_to_their_end_close_nothing(pool: Pool[Any], streaming: bool) -> None:
    """By hand, or by a cursor."""
    with pool.connection() as conn:
        conn.query("SELECT 1; DO 1; SELECT 2")
        rows = []
        while True:
            result = conn.use_result() if streaming else conn.store_result()
            if result is not None:
                rows += result.fetch_row(maxrows=0)
            if conn.next_result() != 0:
                break
        assert rows == [(1,), (2,)]
        assert do(conn, "SELECT 1; SELECT 2") == [(1,)]
    with pool.connection() as conn:
        assert do(conn, "SELECT 1") == [(1,)]
    assert pool.snapshot().closes == {}


def test_an_error_among_many_statements_leaves_nothing_to_read(pool: Pool[Any]) -> None:
    """The server executes none after it."""
    with pool.connection() as conn:
        conn.query("DO 1; SELECT * FROM no_such_table; SELECT 2")
        with pytest.raises(conn.ProgrammingError):
            conn.next_result()
        assert do(conn, "SELECT 1") == [(1,)]
    assert pool.snapshot().closes == {}


def test_a_character_set_is_not_left_to_the_next(pool: Pool[Any]) -> None:
    """Neither the server's nor the client's own, though the login has named none."""
    with pool.connection() as conn:
        before = conn.character_set_name(), conn.encoding
        conn.set_character_set("latin1")
    with pool.connection() as conn:
        assert (conn.character_set_name(), conn.encoding) == before
        assert do(conn, "SELECT '\u0142'") == [("\u0142",)]
    assert pool.snapshot().closes == {}


def test_a_converter_is_not_left_to_the_next(pool: Pool[Any]) -> None:
    """The table is changed in place."""
    with pool.connection() as conn:
        conn.converter[3] = lambda value: "mine"  # of INT
        assert do(conn, "SELECT CAST(1 AS INT)") == [("mine",)]
    with pool.connection() as conn:
        assert do(conn, "SELECT CAST(1 AS INT)") == [(1,)]
    assert pool.snapshot().closes == {}


def test_a_login_from_a_file_cannot_be_made_again(
    mariadb: MariaDB, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """So a session that was changed is closed instead, without trying, and one that was not stays."""
    kwargs = {"read_default_file": str(option_file(mariadb, tmp_path))}
    with Pool[Any]("", driver="mysqlclient", kwargs=kwargs, min_size=1, open=False) as pool:
        with pool.connection() as conn:
            number = conn.thread_id()
            do(conn, "SELECT 1")
        with pool.connection() as conn:
            assert conn.thread_id() == number
            do(conn, "SET @mine = 1")
        with pool.connection() as conn:
            assert pool.snapshot().closes == {Reason.UNCLEAN: 1}
            assert do(conn, "SELECT @mine, DATABASE()") == [(None, DATABASE)]
        assert "Access denied" not in caplog.text
