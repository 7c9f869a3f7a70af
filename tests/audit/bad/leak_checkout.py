"""Connections of a pool that do not come back to it."""

import asyncpg
import pymysql
from dbutils.pooled_db import PooledDB
from mysql.connector.pooling import MySQLConnectionPool
from psycopg2.pool import SimpleConnectionPool, ThreadedConnectionPool
from psycopg_pool import ConnectionPool
from sqlalchemy import create_engine, text

pool = ThreadedConnectionPool(1, 10, "dbname=app")
engine = create_engine("postgresql://localhost/app")
modern = ConnectionPool("dbname=app", open=False)
shared = PooledDB(pymysql, maxconnections=10, host="db")
mysql_pool = MySQLConnectionPool(pool_name="app", pool_size=5)


def never():
    conn = pool.getconn()  # expect: PEN103
    cur = conn.cursor()
    cur.execute("SELECT 1")
    return cur.fetchone()


def where_nothing_raised():
    conn = pool.getconn()  # expect: PEN104
    cur = conn.cursor()
    cur.execute("SELECT 1")
    pool.putconn(conn)


def not_when_there_is_nothing(key):
    conn = modern.getconn()  # expect: PEN103
    row = conn.execute("SELECT 1 FROM t WHERE k = %s", (key,)).fetchone()
    if not row:
        return None
    modern.putconn(conn)
    return row


def put_back_in_one_branch_of_try():
    conn = pool.getconn()  # expect: PEN103
    try:
        conn.cursor().execute("SELECT 1")
        conn.commit()
    except Exception:
        conn.rollback()
        return False
    pool.putconn(conn)
    return True


def of_an_engine():
    conn = engine.connect()  # expect: PEN103
    return conn.execute(text("SELECT 1")).scalar()


def raw():
    raw = engine.raw_connection()  # expect: PEN104
    cursor = raw.cursor()
    cursor.callproc("refresh")
    cursor.close()
    raw.commit()
    raw.close()


def of_dbutils():
    conn = shared.connection()  # expect: PEN104
    cursor = conn.cursor()
    cursor.execute("SELECT 1")
    conn.close()


def of_mysql_connector(name):
    conn = mysql_pool.get_connection()  # expect: PEN103
    cursor = conn.cursor()
    cursor.execute("SELECT id FROM t WHERE name = %s", (name,))
    return cursor.fetchone()


async def of_asyncpg(apool: asyncpg.Pool):
    conn = await apool.acquire()  # expect: PEN104
    rows = await conn.fetch("SELECT 1")
    await apool.release(conn)
    return rows


class Repository:
    def __init__(self, dsn):
        self.pool = SimpleConnectionPool(1, 5, dsn)

    def find(self, key):
        conn = self.pool.getconn()  # expect: PEN104
        with conn.cursor() as cur:
            cur.execute("SELECT 1 WHERE %s", (key,))
            row = cur.fetchone()
        self.pool.putconn(conn)
        return row
