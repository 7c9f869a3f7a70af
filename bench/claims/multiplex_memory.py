"""5,000 tasks wait for the answer to a statement on 4 connections: what each of them costs in memory.

Twice, as statements wait in two places: somebody else has locked the table, so that as many are sent as ever are and
none is answered; or all connections are borrowed, so that none can be sent.
"""

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import psycopg

from bench.context import Context
from bench.multiplexed import ASYNCPG, LEASED, OURS, POINT, PSYCOPG_POOL, Contestant, accounts, balance
from bench.report import Result, at_most, listed

CLAIM = "5,000 tasks wait for the answer to a statement on 4 connections"
BAR = "<= 2 KiB a waiting statement beyond the task itself"

WAITING = 5_000
SIZE = 4
SETTLED = 0.5  # seconds, in which every task has come to wait, and whatever can be sent has been
PEERS = {"asyncpg": ASYNCPG, "psycopg_pool": PSYCOPG_POOL, "our connection()": LEASED}

Stopped = Callable[[Context, Any], AbstractAsyncContextManager[None]]


class Weight(NamedTuple):
    """What a waiting task came to, and how many statements had been sent by then."""

    bytes_each: float
    sent: int


def run(ctx: Context) -> Result:
    with accounts(ctx):
        bare = asyncio.run(_bare()).bytes_each
        locked, borrowed = (asyncio.run(_waiting(ctx, OURS, stopped)) for stopped in (_locked, _borrowed))
        peers = {name: asyncio.run(_waiting(ctx, peer, _locked)).bytes_each - bare for name, peer in PEERS.items()}
    return [
        at_most(
            f"memory of a waiting statement beyond its task, {where} ({mine.sent:,} of {WAITING:,} sent)",
            mine.bytes_each - bare,
            2048,
            "bytes",
            peers=listed(peers, "bytes"),
        )
        for where, mine in {"table locked": locked, "all connections borrowed": borrowed}.items()
    ]


async def _bare() -> Weight:
    """A task that waits for a future of its own and does nothing else."""
    loop = asyncio.get_running_loop()

    async def wait(number: int) -> None:
        await loop.create_future()

    tasks, weight = await _weigh(wait, lambda: 0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return weight


async def _waiting(ctx: Context, contestant: Contestant, stopped: Stopped) -> Weight:
    async with contestant.opened(ctx.dsn, SIZE) as pool:
        ask = contestant.asks(pool, POINT)
        await asyncio.gather(*(ask(number) for number in range(1, 100)))  # prepared on the connections in use
        async with stopped(ctx, pool):
            tasks, weight = await _weigh(ask, lambda: pool.snapshot().in_flight if contestant is OURS else SIZE)
        for number, held in enumerate(await asyncio.gather(*tasks), 1):
            assert held == balance(number), "a wrong answer"
        return weight


@asynccontextmanager
async def _locked(ctx: Context, pool: Any) -> AsyncIterator[None]:
    async with await psycopg.AsyncConnection.connect(ctx.server.admin_dsn) as other, other.transaction():
        await other.execute("LOCK TABLE pgbench_accounts IN ACCESS EXCLUSIVE MODE")
        yield


@asynccontextmanager
async def _borrowed(ctx: Context, pool: Any) -> AsyncIterator[None]:
    async with AsyncExitStack() as leases:
        for _ in range(SIZE):
            await leases.enter_async_context(pool.connection())
        yield


async def _weigh(
    wait: Callable[[int], Coroutine[Any, Any, Any]], sent: Callable[[], int]
) -> tuple[list[asyncio.Task[Any]], Weight]:
    """Start the tasks; return them, and what each of them came to once all were waiting."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tasks = [asyncio.create_task(wait(number)) for number in range(1, WAITING + 1)]
    await asyncio.sleep(SETTLED)
    gc.collect()
    each = (tracemalloc.get_traced_memory()[0] - before) / WAITING
    tracemalloc.stop()
    assert not any(task.done() for task in tasks), "some did not wait"
    return tasks, Weight(each, sent())
