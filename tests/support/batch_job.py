"""A job as a process of its own, to be killed: `python -m support.batch_job threads|asyncio DSN TABLE URL ITEMS`."""

import asyncio
import sys
from typing import Any

from penstock import AsyncPool, Pool
from penstock.batch import aio, for_each

from .batch import Users, work_of


def main(kind: str, dsn: str, table: str, url: str, items: str) -> None:
    save: Any = Users.__new__(Users)
    save.table = table
    options: dict[str, Any] = {"save": save.save, "job": table, "http": {"base_url": url}}
    if kind == "threads":
        with Pool(dsn, min_size=1, max_size=3) as pool:
            for_each(range(int(items)), work_of(Pool), pool=pool, concurrency=8, **options)
        return

    async def job() -> None:
        async with AsyncPool(dsn, min_size=1, max_size=3) as pool:
            await aio.for_each(range(int(items)), work_of(AsyncPool), pool=pool, concurrency=8, **options)

    asyncio.run(job())


if __name__ == "__main__":
    main(*sys.argv[1:])
