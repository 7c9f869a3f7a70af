"""Waiting for a connection for ever."""

import asyncpg


async def count(pool: asyncpg.Pool):
    async with pool.acquire() as conn:  # expect: PEN403
        return await conn.fetchval("SELECT count(*) FROM t")


async def count_in_time(pool: asyncpg.Pool):
    async with pool.acquire(timeout=5) as conn:
        return await conn.fetchval("SELECT count(*) FROM t")
