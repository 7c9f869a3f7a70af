"""Slow work outside of the block, and second connections that wait for nobody."""

import asyncio
import time

import asyncpg
import psycopg2
import requests
from psycopg_pool import ConnectionPool
from sqlalchemy import MetaData, create_engine, text
from sqlalchemy.orm import sessionmaker

engine = create_engine("postgresql://localhost/app")
replica = create_engine("postgresql://replica/app")
Session = sessionmaker(engine)
pool = ConnectionPool("dbname=app", open=False)


def asks_first(url):
    answer = requests.get(url, timeout=5)
    with engine.begin() as conn:
        conn.execute(text("INSERT INTO t VALUES (:a)"), {"a": answer.text})


def asks_afterwards(key):
    with pool.connection() as conn:
        row = conn.execute("SELECT url FROM t WHERE k = %s", (key,)).fetchone()
    return requests.get(row[0], timeout=5)


def sleeps_between():
    while True:
        with pool.connection() as conn:
            conn.execute("DELETE FROM t")
        time.sleep(60)


async def yields_to_the_loop(apool: asyncpg.Pool):
    async with apool.acquire() as conn:
        for part in range(100):
            await conn.execute("DELETE FROM t WHERE p = $1", part)
            await asyncio.sleep(0)


def one_after_the_other():
    with pool.connection() as conn:
        conn.execute("SELECT 1")
    with pool.connection() as conn:
        conn.execute("SELECT 2")


def of_two_engines():
    with engine.connect() as conn, replica.connect() as other:
        return conn.execute(text("SELECT 1")).scalar() == other.execute(text("SELECT 1")).scalar()


def with_the_same_connection(metadata: MetaData):
    with engine.begin() as conn:
        metadata.create_all(conn)


def commits_before_it_asks(url):
    with Session() as session:
        found = session.execute(text("SELECT 1")).scalar()
        session.commit()
        requests.post(url, json=found, timeout=5)


def has_not_begun(url):
    with Session() as session:
        body = requests.get(url, timeout=5).json()
        session.execute(text("INSERT INTO t VALUES (:b)"), {"b": body["b"]})
        session.commit()


def tries_again(dsn):
    conn = None
    while conn is None:
        try:
            conn = psycopg2.connect(dsn)
        except psycopg2.OperationalError:
            time.sleep(1)
    conn.close()


def closes_before_it_sleeps(dsn):
    while True:
        conn = psycopg2.connect(dsn)  # expect: PEN201
        try:
            conn.cursor().execute("SELECT 1")
        finally:
            conn.close()
        time.sleep(60)
