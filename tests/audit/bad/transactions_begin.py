"""A transaction that is begun in SQL, in a file that ends none."""

import asyncpg


async def transfer(pool: asyncpg.Pool, amount):
    async with pool.acquire() as conn:
        await conn.execute("BEGIN")  # expect: PEN513
        await conn.execute("UPDATE accounts SET balance = balance - $1 WHERE id = 1", amount)
        await conn.execute("UPDATE accounts SET balance = balance + $1 WHERE id = 2", amount)
