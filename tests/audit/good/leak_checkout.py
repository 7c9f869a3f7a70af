"""Checkouts that come back, whatever happens."""

from contextlib import asynccontextmanager, contextmanager

import asyncpg
from psycopg2.pool import ThreadedConnectionPool
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy import create_engine, text

pool = ThreadedConnectionPool(1, 10, "dbname=app")
engine = create_engine("postgresql://localhost/app")
modern = ConnectionPool("dbname=app", open=False)
amodern = AsyncConnectionPool("dbname=app", open=False)


def finally_put_back():
    conn = pool.getconn()
    try:
        with conn.cursor() as cur:
            cur.execute("SELECT 1")
            return cur.fetchone()
    finally:
        pool.putconn(conn)


def put_back_in_except_and_else():
    conn = pool.getconn()
    try:
        conn.cursor().execute("SELECT 1")
    except BaseException:
        pool.putconn(conn, close=True)
        raise
    else:
        pool.putconn(conn)


def none_at_first():
    conn = None
    try:
        conn = pool.getconn()
        conn.cursor().execute("SELECT 1")
    finally:
        if conn:
            pool.putconn(conn)


@contextmanager
def lent():
    conn = pool.getconn()
    try:
        yield conn
    finally:
        pool.putconn(conn)


def lends():
    with lent() as conn:
        conn.cursor().execute("SELECT 1")


def in_with():
    with engine.connect() as conn:
        return conn.execute(text("SELECT 1")).scalar()


def in_begin():
    with engine.begin() as conn:
        conn.execute(text("DELETE FROM t"))


def by_the_pool_itself():
    with modern.connection() as conn:
        conn.execute("DELETE FROM t")


async def by_the_async_pool():
    async with amodern.connection() as conn:
        await conn.execute("DELETE FROM t")


async def acquired(apool: asyncpg.Pool):
    async with apool.acquire() as conn, conn.transaction():
        return await conn.fetch("SELECT 1")


async def released(apool: asyncpg.Pool):
    conn = await apool.acquire()
    try:
        return await conn.fetch("SELECT 1")
    finally:
        await apool.release(conn)


@asynccontextmanager
async def lending(apool: asyncpg.Pool):
    conn = await apool.acquire()
    try:
        yield conn
    finally:
        await apool.release(conn)


class Unit:
    """Takes one on entering, and gives it back on leaving."""

    def __enter__(self):
        self.conn = pool.getconn()
        return self

    def __exit__(self, *exc):
        pool.putconn(self.conn)


def get_conn():
    return pool.getconn()


def put_conn(conn):
    pool.putconn(conn)


def by_helpers():
    conn = get_conn()
    try:
        conn.cursor().execute("SELECT 1")
    finally:
        put_conn(conn)
