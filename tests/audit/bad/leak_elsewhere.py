"""Things that are made in a file which is not here, and are known by their names and by how they are used."""

import asyncpg
import requests
from app.database import AsyncSessionLocal, SessionLocal, engine
from app.helpers import get_db_connection
from sqlalchemy import text


def closes(name):
    conn = get_db_connection()
    try:
        conn.cursor().execute("SELECT 1 WHERE %s", (name,))
    finally:
        conn.close()


def does_not():
    conn = get_db_connection()  # expect: PEN101
    conn.cursor().execute("SELECT 1")


def returns_before(name):
    conn = get_db_connection()  # expect: PEN101
    cur = conn.cursor()
    cur.execute("SELECT 1 WHERE %s", (name,))
    if cur.fetchone() is None:
        return False
    conn.close()
    return True


def of_a_session(user):
    db = SessionLocal()  # expect: PEN105
    db.add(user)
    db.commit()


async def of_an_async_session(user):
    session = AsyncSessionLocal()  # expect: PEN105
    session.add(user)
    await session.commit()
    await session.close()


def of_an_engine():
    conn = engine.connect()  # expect: PEN103
    return conn.execute(text("SELECT 1")).scalar()


def of_a_pool(pool):
    conn = pool.getconn()  # expect: PEN104
    conn.cursor().execute("SELECT 1")
    pool.putconn(conn)


class Cog:
    def __init__(self, bot):
        self.bot = bot

    async def count(self):
        conn = await self.bot.pool.acquire()  # expect: PEN104
        found = await conn.fetchval("SELECT 1")
        await self.bot.pool.release(conn)
        return found

    async def tells(self, record: asyncpg.Record):
        async with self.bot.pool.acquire() as conn:
            await conn.execute("SELECT 1")
            requests.post(record["url"], timeout=5)  # expect: PEN501
