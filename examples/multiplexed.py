"""Ten thousand statements of a thousand tasks over at most four connections. DSN is taken from the environment.

    DSN=postgresql://localhost/postgres .venv/bin/python examples/multiplexed.py
"""

import asyncio
import os
import time

from penstock import AsyncPool


async def work(pool: AsyncPool, number: int) -> int:
    return sum([await pool.fetchval("SELECT %s::int", (number,)) for _ in range(10)])


async def main() -> None:
    async with AsyncPool(os.environ["DSN"], min_size=1, max_size=4, name="example") as pool:
        began = time.perf_counter()
        answers = await asyncio.gather(*(work(pool, number) for number in range(1000)))
        took = time.perf_counter() - began
        assert answers == [10 * number for number in range(1000)]
        now = pool.snapshot()
        print(f"{now.statements:,} statements in {took:.1f} s over {now.connects} connections")


if __name__ == "__main__":
    asyncio.run(main())
