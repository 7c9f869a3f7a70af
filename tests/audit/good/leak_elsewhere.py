"""Things that are made elsewhere, and are somebody else's."""

import asyncio

import asyncpg
from app.cache import get_db
from app.database import SessionLocal, engine
from app.helpers import connect, get_connection
from sqlalchemy import text


def by_whoever_made_it():
    db = get_db()
    return db.execute("SELECT 1").fetchone()


def nobody_here_closes():
    conn = get_connection()
    conn.cursor().execute("SELECT 1")


def in_with():
    with connect() as conn:
        conn.execute("SELECT 1")


def get_session():
    db = SessionLocal()
    try:
        yield db
    finally:
        db.close()


def checks_out():
    with engine.begin() as conn:
        conn.execute(text("SELECT 1"))


def collected(pool):
    held = [pool.getconn() for _ in range(3)]
    for conn in held:
        pool.putconn(conn)


class Limited:
    def __init__(self, pool, dsn):
        self.pool = pool
        self.dsn = dsn
        self.gate = asyncio.Semaphore(3)

    async def run(self):
        await self.gate.acquire()
        try:
            async with self.pool.acquire() as conn:
                await conn.execute("SELECT 1")
        finally:
            self.gate.release()

    async def listens(self) -> asyncpg.Connection:
        return await asyncpg.connect(self.dsn)
