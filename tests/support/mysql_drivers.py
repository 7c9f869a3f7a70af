"""MySQL's drivers as the matrix of `test_drivers.py` sees them, on a real MariaDB."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any
from uuid import uuid4

import aiomysql
import pymysql
import pytest

from penstock import AsyncPool, Pool

from .drivers import Case, Dialect, Place
from .either import Kind, settled
from .mariadb import DATABASE, MariaDB

MYSQL = Dialect(
    session="SELECT CONNECTION_ID()",
    slow="SELECT 'slow', SLEEP(6)",
    left_behind=[
        ("SET SESSION sort_buffer_size = 65536", "SELECT @@sort_buffer_size = 65536", 0),
        ("SET NAMES latin1", "SELECT @@character_set_client", "utf8mb4"),
        ("SET SESSION sql_mode = 'ANSI'", "SELECT @@sql_mode LIKE '%ANSI%'", 0),
        ("SET SESSION TRANSACTION READ ONLY", "SELECT @@tx_read_only", 0),
        ("SET @mine = 1", "SELECT @mine", None),
        ("SELECT 1 INTO @mine", "SELECT @mine", None),
        (f"USE {DATABASE}_other", "SELECT DATABASE()", DATABASE),
        ("SELECT GET_LOCK('mine', 0)", "SELECT IS_USED_LOCK('mine')", None),
    ],
    running="SELECT COUNT(*) FROM information_schema.processlist"
    " WHERE info LIKE '%''slow''%' AND id <> CONNECTION_ID()",
)


def on_mariadb(request: pytest.FixtureRequest, case: Case, kind: Kind) -> Place:
    """The session's server; a table of the test's own."""
    server: MariaDB = request.getfixturevalue("mariadb")
    table = f"of_{uuid4().hex}"
    server.ask(f"CREATE TABLE {DATABASE}.{table} (x INT)")

    def ask(question: str) -> Any:
        return server.ask(question)[0][0]

    return Place(case, kind, server.dsn, table, kill=server.kill_thread, ask=ask)


async def autocommit(conn: Any) -> None:
    if hasattr(conn, "run"):  # over threads
        await conn.run(type(conn.raw).autocommit, True)
    else:
        await settled(conn.autocommit(True))


def autocommitting(conn: Any) -> Any:
    return conn.autocommit(True) if not hasattr(conn, "run") else autocommit(conn)


CASES = [
    Case("pymysql", MYSQL, on_mariadb, pymysql.Error, pymysql.connections.Connection, autocommitting),
    Case("aiomysql", MYSQL, on_mariadb, aiomysql.Error, None, autocommitting, kinds=(AsyncPool,)),
]
if find_spec("MySQLdb"):
    import MySQLdb.connections

    CASES.append(Case("mysqlclient", MYSQL, on_mariadb, MySQLdb.Error, MySQLdb.connections.Connection, autocommitting))
else:  # it has to be built: see scripts/mariadb.sh

    def absent(request: pytest.FixtureRequest, case: Case, kind: Kind) -> Place:
        pytest.skip("there is no mysqlclient: pip install mysqlclient, which needs a compiler and libmariadb-dev")

    CASES.append(Case("mysqlclient", MYSQL, absent, Exception, kinds=(Pool,)))
