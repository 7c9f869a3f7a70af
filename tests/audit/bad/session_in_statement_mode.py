# audit: pooling=statement
"""In statement mode there are no transactions of more than one statement."""

import asyncpg


async def two(pool: asyncpg.Pool):
    async with pool.acquire() as conn, conn.transaction():  # expect: PEN726
        await conn.execute("UPDATE t SET a = 1")


async def in_sql(pool: asyncpg.Pool):
    async with pool.acquire() as conn:
        await conn.execute("BEGIN")  # expect: PEN726
        await conn.execute("COMMIT")
