"""A thousand tasks over four connections. DSN is taken from the environment.

    DSN=postgresql://localhost/postgres .venv/bin/python examples/aio.py
"""

import asyncio
import os

from penstock import AsyncPool


async def request(pool: AsyncPool, number: int) -> int:
    async with pool.connection() as conn:
        cursor = await conn.execute("SELECT %s::int", (number,))
        row = await cursor.fetchone()
    return row[0] if row else -1


async def main() -> None:
    async with AsyncPool(os.environ["DSN"], min_size=4, name="example") as pool:
        answers = await asyncio.gather(*(request(pool, number) for number in range(1000)))
        print(len(answers), "answers over", pool.snapshot().connects, "connections")


if __name__ == "__main__":
    asyncio.run(main())
