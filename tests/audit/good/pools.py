"""Pools that have a bound, and children that make their own."""

import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import asyncpg
import psycopg2
import pymysql
from dbutils.pooled_db import PooledDB
from psycopg_pool import ConnectionPool
from sqlalchemy import create_engine, text

engine = create_engine("postgresql://localhost/app")
small = create_engine("postgresql://localhost/app", pool_size=5, max_overflow=10)
fixed = create_engine("postgresql://localhost/app", pool_size=5, max_overflow=0)
shared = PooledDB(pymysql, maxconnections=10, host="db", user="app")
minimal = ConnectionPool("dbname=app", open=False)
settings = {"maxconnections": 5}
unpacked = PooledDB(pymysql, **settings)


async def by_default(dsn):
    return await asyncpg.create_pool(dsn)


def child(part):
    own = create_engine("postgresql://localhost/app")
    with own.begin() as conn:
        conn.execute(text("DELETE FROM t WHERE p = :p"), {"p": part})
    own.dispose()


def starts():
    multiprocessing.Process(target=child, args=(1,)).start()


def renewed():
    engine.dispose(close=False)
    with engine.begin() as conn:
        conn.execute(text("DELETE FROM t"))


def starts_the_renewed():
    multiprocessing.Process(target=renewed).start()


def threaded():
    with engine.begin() as conn:
        conn.execute(text("DELETE FROM t"))


def starts_threads():
    threading.Thread(target=threaded).start()
    with ThreadPoolExecutor() as executor:
        executor.submit(threaded)


def connects(part):
    conn = psycopg2.connect("dbname=app")
    try:
        conn.cursor().execute("DELETE FROM t WHERE p = %s", (part,))
        conn.commit()
    finally:
        conn.close()


def spreads(parts):
    with ProcessPoolExecutor() as executor:
        return list(executor.map(connects, parts))
