"""Cancels waiting tasks at the very moment they are handed a connection. Run on each interpreter by `cancel_handoff`.

    DSN=... python handoff.py contestant

Prints one JSON object: how many were cancelled, how many of them went on regardless ("swallowed"), and how many times
the pool's one connection was lost. Imports nothing of `bench`, so that it runs wherever the contestant does.
"""

import asyncio
import json
import logging
import os
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple

TICKS = range(16)  # turns of the event loop between the hand-off and the cancellation
REPEATS = 4
HELD = 0.02  # seconds that a task holds the connection, if it gets so far
PATIENCE = 1.0  # seconds; a connection that is not to be had by then is lost


class Pool(NamedTuple):
    """A pool of one connection."""

    borrow: Callable[[], AbstractAsyncContextManager[Any]]
    take: Callable[[], Awaitable[Any]]
    give: Callable[[Any], Awaitable[None]]
    spoil: Callable[[Any], Awaitable[None]]  # end the connection, which is then given back


Opened = Callable[[str], AbstractAsyncContextManager[Pool]]


async def main(opened: Opened, dsn: str) -> dict[str, int]:
    """Try every offset, each way, several times."""
    found = {"cancelled": 0, "swallowed": 0, "lost": 0}
    tries = [(ticks, returned) for returned in (True, False) for ticks in TICKS for _ in range(REPEATS)]
    while tries:
        async with opened(dsn) as pool:
            while tries:
                await attempt(pool, *tries.pop(), found)
                if not await usable(pool):
                    found["lost"] += 1
                    break  # go on with a new pool
    return found


async def attempt(pool: Pool, ticks: int, returned: bool, found: dict[str, int]) -> None:
    """Hand the connection to a waiting task and cancel that task `ticks` turns later.

    Turns are counted from the end of giving back if `returned`, otherwise from its beginning.
    """
    connection = await pool.take()
    waiter = asyncio.create_task(work(pool))
    await asyncio.sleep(0.002)  # it waits by now
    giving = asyncio.ensure_future(pool.give(connection))
    if returned:
        await giving
    for _ in range(ticks):
        await asyncio.sleep(0)
    if waiter.cancel():
        found["cancelled"] += 1
        await asyncio.wait([waiter], timeout=PATIENCE)
        found["swallowed"] += not waiter.cancelled()
    while not waiter.done():
        waiter.cancel()
        await asyncio.wait([waiter], timeout=0.1)
    await asyncio.gather(waiter, giving, return_exceptions=True)


async def work(pool: Pool) -> None:
    """A request. A cancellation has to end it, wherever it stands."""
    async with pool.borrow():
        await asyncio.sleep(HELD)


async def usable(pool: Pool) -> bool:
    """Whether the one connection can still be had."""
    try:
        connection = await pool.take()
    except Exception:
        return False
    await pool.give(connection)
    return True


@asynccontextmanager
async def penstock_pool(dsn: str) -> AsyncIterator[Pool]:
    import penstock

    async with penstock.AsyncPool(dsn, min_size=1, max_size=1, open=False, timeout=PATIENCE) as pool:
        yield Pool(pool.connection, pool.getconn, pool.putconn, lambda connection: connection.close())


@asynccontextmanager
async def psycopg_pool(dsn: str) -> AsyncIterator[Pool]:
    from psycopg_pool import AsyncConnectionPool

    async with AsyncConnectionPool(dsn, min_size=1, max_size=1, open=False, timeout=PATIENCE) as pool:
        yield Pool(pool.connection, pool.getconn, pool.putconn, lambda connection: connection.close())


@asynccontextmanager
async def sqlalchemy(dsn: str) -> AsyncIterator[Pool]:
    from sqlalchemy.ext.asyncio import create_async_engine

    url = dsn.replace("postgresql://", "postgresql+psycopg://", 1)
    engine = create_async_engine(url, pool_size=1, max_overflow=0, pool_timeout=PATIENCE)

    async def take() -> Any:
        return await engine.connect()

    async def give(connection: Any) -> None:
        await connection.close()

    yield Pool(engine.connect, take, give, lambda connection: connection.invalidate())
    await engine.dispose()


@asynccontextmanager
async def asyncpg(dsn: str) -> AsyncIterator[Pool]:
    from asyncpg import create_pool

    pool = await create_pool(dsn, min_size=1, max_size=1)

    async def take() -> Any:
        return await pool.acquire(timeout=PATIENCE)

    def borrow() -> Any:
        return pool.acquire(timeout=PATIENCE)

    yield Pool(borrow, take, pool.release, lambda connection: connection.close())
    pool.terminate()


CONTESTANTS: dict[str, Opened] = {
    "Penstock": penstock_pool,
    "psycopg_pool": psycopg_pool,
    "SQLAlchemy": sqlalchemy,
    "asyncpg": asyncpg,
}

if __name__ == "__main__":
    logging.getLogger().addHandler(logging.NullHandler())
    warnings.simplefilter("ignore")
    print(json.dumps(asyncio.run(main(CONTESTANTS[sys.argv[1]], os.environ["DSN"]))))
