# audit: pooling=transaction
"""Drivers that are told of PgBouncer, and named cursors within a transaction."""

import asyncpg
import psycopg
import psycopg2
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_engine("postgresql+psycopg2://localhost/app", connect_args={"connect_timeout": 5})
aengine = create_async_engine("postgresql+asyncpg://localhost/app", connect_args={"statement_cache_size": 0})
other = create_engine("mysql+pymysql://localhost/app", connect_args={"init_command": "SET time_zone = '+0:00'"})


async def make_pool():
    return await asyncpg.create_pool(
        "postgresql://localhost/app", statement_cache_size=0, server_settings={"application_name": "app"}
    )


def connects():
    with psycopg.connect("dbname=app", prepare_threshold=None) as conn:
        return conn.execute("SELECT 1").fetchone()


def streams():
    conn = psycopg2.connect("dbname=app connect_timeout=3")
    try:
        with conn, conn.cursor("named") as cur:
            cur.execute("SELECT 1")
            return cur.fetchall()
    finally:
        conn.close()
