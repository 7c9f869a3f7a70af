# audit: pooling=transaction
"""Session state that a driver or an ORM asks for."""

import asyncpg
import psycopg
import psycopg2
from psycopg2.extras import LogicalReplicationConnection
from psycopg_pool import ConnectionPool
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_engine(
    "postgresql+psycopg2://localhost/app",
    connect_args={"options": "-c statement_timeout=5000"},  # expect: PEN707
)
by_url = create_engine("postgresql+psycopg2://localhost/app?options=-csearch_path%3Dapp")  # expect: PEN707
aengine = create_async_engine("postgresql+asyncpg://localhost/app")  # expect: PEN709


def configure(conn):
    conn.execute("SET search_path TO app")  # expect: PEN722


pool = ConnectionPool("dbname=app", kwargs={"prepare_threshold": None}, configure=configure, open=False)
prepares = ConnectionPool("dbname=app", kwargs={"prepare_threshold": 2}, open=False)  # expect: PEN709
by_default = ConnectionPool("dbname=app", open=False)


def options():
    conn = psycopg2.connect("dbname=app", options="-c search_path=app", connect_timeout=3)  # expect: PEN707
    conn.close()


def replication():
    conn = psycopg2.connect(  # expect: PEN720
        "dbname=app connect_timeout=3", connection_factory=LogicalReplicationConnection
    )
    conn.close()


async def make_pool():
    return await asyncpg.create_pool(  # expect: PEN709
        "postgresql://localhost/app",
        server_settings={"jit": "off", "application_name": "app"},  # expect: PEN707
    )


async def listens(conn: asyncpg.Connection, heard):
    await conn.add_listener("changes", heard)  # expect: PEN711
    await conn.prepare("SELECT 1")  # expect: PEN709
    return conn.get_server_pid()  # expect: PEN723


def read_only():
    conn = psycopg2.connect("dbname=app", connect_timeout=3)
    try:
        conn.set_session(readonly=True, autocommit=True)  # expect: PEN705
        cur = conn.cursor("named")  # expect: PEN715
        cur.execute("SELECT 1")
        kept = conn.cursor("kept", withhold=True)  # expect: PEN714
        kept.execute("SELECT 1")
        conn.cursor().copy_expert("COPY t FROM STDIN", None)  # expect: PEN721
        return conn.get_backend_pid()  # expect: PEN723
    finally:
        conn.close()


def two_phases(conn: psycopg.Connection):
    conn.tpc_begin(conn.xid(1, "a", "b"))  # expect: PEN725
    conn.execute("SELECT 1", prepare=True)  # expect: PEN709
    return conn.info.backend_pid  # expect: PEN723
