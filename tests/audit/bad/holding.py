"""Connections that are held while something else is waited for, and second ones that are asked for."""

import asyncio
import subprocess
import time

import asyncpg
import httpx
import pandas
import psycopg2
import requests
from psycopg2.pool import ThreadedConnectionPool
from psycopg_pool import ConnectionPool
from sqlalchemy import MetaData, create_engine, text
from sqlalchemy.orm import sessionmaker

engine = create_engine("postgresql://localhost/app")
Session = sessionmaker(engine)
pool = ConnectionPool("dbname=app", open=False)
old = ThreadedConnectionPool(1, 4, "dbname=app")


def asks_a_service(key):
    with engine.begin() as conn:
        row = conn.execute(text("SELECT url FROM t WHERE k = :k"), {"k": key}).one()
        answer = requests.post(row.url, timeout=10)  # expect: PEN501
        conn.execute(text("UPDATE t SET s = :s"), {"s": answer.status_code})


def sleeps(dsn):
    conn = psycopg2.connect(dsn)
    try:
        while True:
            conn.cursor().execute("SELECT 1")
            conn.commit()
            time.sleep(5)  # expect: PEN501
    finally:
        conn.close()


def runs_a_program():
    with pool.connection() as conn:
        conn.execute("UPDATE t SET a = 1")
        subprocess.run(["sync"], check=True)  # expect: PEN501


async def awaits_a_service(apool: asyncpg.Pool, url):
    async with apool.acquire() as conn:
        rows = await conn.fetch("SELECT 1")
        async with httpx.AsyncClient() as client:
            await client.post(url, json=len(rows))  # expect: PEN501


async def sleeps_in_a_task(apool: asyncpg.Pool):
    async with apool.acquire() as conn, conn.transaction():
        await conn.execute("UPDATE t SET a = 1")
        await asyncio.sleep(1)  # expect: PEN501


def of_a_session(url):
    with Session() as session:
        session.execute(text("SELECT 1"))
        requests.get(url, timeout=3)  # expect: PEN501
        session.commit()


def asks_somebody():
    with pool.connection() as conn:
        conn.execute("DELETE FROM t")
        if input("sure? ") != "y":  # expect: PEN501
            conn.rollback()


def a_second():
    with pool.connection() as conn:
        for row in conn.execute("SELECT a FROM t"):
            with pool.connection() as other:  # expect: PEN502
                other.execute("INSERT INTO u VALUES (%s)", row)


def a_second_of_an_engine():
    with engine.connect() as conn:
        conn.execute(text("SELECT 1"))
        with engine.begin() as other:  # expect: PEN502
            other.execute(text("DELETE FROM t"))


async def a_second_awaited(apool: asyncpg.Pool):
    async with apool.acquire() as conn:
        await conn.execute("SELECT 1")
        async with apool.acquire() as other:  # expect: PEN502
            await other.execute("SELECT 1")


def by_a_helper():
    with pool.connection() as conn:
        conn.execute("SELECT 1")
        log("read")  # expect: PEN502


def log(line):
    with pool.connection() as conn:
        conn.execute("INSERT INTO log VALUES (%s)", (line,))


def gives_the_engine(metadata: MetaData):
    with engine.begin() as conn:
        conn.execute(text("CREATE SCHEMA IF NOT EXISTS app"))
        metadata.create_all(engine)  # expect: PEN502


def reads_by_the_engine():
    with engine.connect() as conn:
        conn.execute(text("SET x = 1"))
        return pandas.read_sql("SELECT 1", engine)  # expect: PEN502


def two_of_psycopg2():
    first = old.getconn()
    try:
        second = old.getconn()  # expect: PEN502
        try:
            second.cursor().execute("SELECT 1")
        finally:
            old.putconn(second)
    finally:
        old.putconn(first)
