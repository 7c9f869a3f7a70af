"""10,000 tasks wait for 10 connections: what each of them costs in memory, and whether they are served in order."""

import asyncio
import gc
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from time import perf_counter
from typing import Any, NamedTuple

from bench.context import Context
from bench.pools import asyncpg_pool, ours_async, psycopg_pool_async
from bench.report import Line, Result, at_most, figure, listed

CLAIM = "10,000 tasks wait for 10 connections"
BAR = "<= 2 KiB a waiting task beyond the task itself, served in order"

WAITERS = 10_000
SIZE = 10
PATIENCE = 120.0  # seconds; nobody is to time out here

Opened = Callable[..., AbstractAsyncContextManager[Any]]


class Queue(NamedTuple):
    """What waiting in one pool was like."""

    bytes_each: float
    in_order: bool
    seconds: float


def run(ctx: Context) -> Result:
    bare = asyncio.run(_bare())
    mine = asyncio.run(_queue(ctx.dsn, ours_async, lambda pool: pool.connection(timeout=PATIENCE)))
    peers = {
        "psycopg_pool": asyncio.run(
            _queue(ctx.dsn, psycopg_pool_async, lambda pool: pool.connection(timeout=PATIENCE))
        ),
        "asyncpg": asyncio.run(_queue(ctx.dsn, asyncpg_pool, lambda pool: pool.acquire(timeout=PATIENCE))),
    }
    return [
        at_most(
            "memory of a waiting task beyond the task itself",
            mine.bytes_each - bare,
            2048,
            "bytes",
            peers=listed({name: queue.bytes_each - bare for name, queue in peers.items()}, "bytes"),
        ),
        Line(
            f"{WAITERS:,} waiters on {SIZE} connections, served in order",
            _told(mine),
            ", ".join(f"{name} {_told(queue)}" for name, queue in peers.items()),
            "",
            "in order",
            mine.in_order,
        ),
    ]


def _told(queue: Queue) -> str:
    return f"{'yes' if queue.in_order else 'no'} in {figure(queue.seconds)} s"


async def _bare() -> float:
    """What a task costs that waits for a future of its own and does nothing else."""
    loop = asyncio.get_running_loop()

    async def wait() -> None:
        await loop.create_future()

    tasks, each = await _weigh(wait)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return each


async def _queue(dsn: str, opened: Opened, borrow: Callable[[Any], AbstractAsyncContextManager[Any]]) -> Queue:
    served: list[int] = []
    numbers = iter(range(WAITERS))
    async with opened(dsn, SIZE) as pool:

        async def wait() -> None:
            number = next(numbers)
            async with borrow(pool):
                served.append(number)

        async with asyncio.TaskGroup() as group:
            free = asyncio.Event()
            holding = [asyncio.Event() for _ in range(SIZE)]
            for held in holding:
                group.create_task(_hold(borrow(pool), held, free))
            for held in holding:
                await held.wait()
            tasks, each = await _weigh(wait)
            started = perf_counter()
            free.set()
            await asyncio.gather(*tasks)
        return Queue(each, served == sorted(served), perf_counter() - started)


async def _hold(borrowed: AbstractAsyncContextManager[Any], held: asyncio.Event, free: asyncio.Event) -> None:
    async with borrowed:
        held.set()
        await free.wait()


async def _weigh(wait: Callable[[], Awaitable[None]]) -> tuple[list[asyncio.Task[None]], float]:
    """Start the waiters; return them, and how many bytes each of them came to once all were waiting."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tasks: list[asyncio.Task[None]] = [asyncio.create_task(wait()) for _ in range(WAITERS)]  # type: ignore[arg-type]
    await asyncio.sleep(0.2)  # every one of them has come to wait
    gc.collect()
    each = (tracemalloc.get_traced_memory()[0] - before) / WAITERS
    tracemalloc.stop()
    return tasks, each
