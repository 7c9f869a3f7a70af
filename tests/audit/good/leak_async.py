"""Coroutines that give back what they take."""

import aiomysql
import aiosqlite
import asyncpg
import psycopg
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

engine = create_async_engine("postgresql+asyncpg://localhost/app")
Session = async_sessionmaker(engine, class_=AsyncSession)


async def awaited(dsn):
    conn = await asyncpg.connect(dsn)
    try:
        return await conn.fetchrow("SELECT 1")
    finally:
        await conn.close()


async def entered(dsn):
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        await conn.execute("SELECT 1")


async def a_file(path):
    async with aiosqlite.connect(path) as db:
        await db.execute("SELECT 1")


async def sessions():
    async with Session() as session:
        yield session


async def a_session(item):
    async with Session() as session, session.begin():
        session.add(item)


async def an_engine():
    async with engine.begin() as conn:
        await conn.exec_driver_sql("SELECT 1")


async def a_pool(settings):
    pool = await aiomysql.create_pool(**settings)
    async with pool.acquire() as conn, conn.cursor() as cur:
        await cur.execute("SELECT 1")
    pool.close()
    await pool.wait_closed()


class Bot:
    async def setup(self, dsn):
        self.pool = await asyncpg.create_pool(dsn)

    async def close(self):
        await self.pool.close()

    async def count(self):
        async with self.pool.acquire() as conn:
            return await conn.fetchval("SELECT 1")
