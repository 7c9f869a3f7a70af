"""Coroutines that may be cancelled, and coroutines that nobody awaits."""

import aiomysql
import aiosqlite
import asyncpg
import psycopg
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

engine = create_async_engine("postgresql+asyncpg://localhost/app")
Session = async_sessionmaker(engine)


async def never(dsn):
    conn = await asyncpg.connect(dsn)  # expect: PEN101
    return await conn.fetchval("SELECT 1")


async def when_cancelled(dsn):
    conn = await asyncpg.connect(dsn)  # expect: PEN102
    row = await conn.fetchrow("SELECT 1")
    await conn.close()
    return row


async def not_awaited(dsn):
    conn = await asyncpg.connect(dsn)  # expect: PEN107
    try:
        return await conn.fetchrow("SELECT 1")
    finally:
        conn.close()


async def of_psycopg(dsn):
    conn = await psycopg.AsyncConnection.connect(dsn)  # expect: PEN102
    await conn.execute("SELECT 1")
    await conn.close()


async def of_aiomysql(settings):
    conn = await aiomysql.connect(**settings)  # expect: PEN102
    cur = await conn.cursor()
    await cur.execute("SELECT 1")
    await cur.close()
    conn.close()


async def of_aiosqlite(path):
    db = await aiosqlite.connect(path)  # expect: PEN101
    await db.execute("INSERT INTO t VALUES (1)")
    await db.commit()


async def of_a_session(item):
    session = Session()  # expect: PEN105
    session.add(item)
    await session.commit()
    await session.close()


async def of_an_engine():
    conn = await engine.connect()  # expect: PEN104
    await conn.exec_driver_sql("SELECT 1")
    await conn.close()
