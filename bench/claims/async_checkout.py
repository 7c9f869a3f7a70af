"""One task takes a connection and gives it back, and does nothing with it; under asyncio's own loop and uvloop."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import uvloop

from bench.context import Context
from bench.measure import AsyncCycles, microseconds_async
from bench.pools import asyncpg_pool, ours_async, psycopg_pool_async
from bench.report import Line, Result, figure, listed, times

CLAIM = "async `async with pool.connection()`, validated on every checkout, holders on, one task"
BAR = ">= 2.5x psycopg_pool async unvalidated, >= 45x asyncpg's default"

SIZE = 4


def run(ctx: Context) -> Result:
    return [*_judged(ctx), *_under_uvloop(ctx)]


def _judged(ctx: Context) -> Result:
    found = asyncio.run(_measure(ctx.dsn))
    return times("async checkout", found.pop("ours"), found, {"psycopg_pool": 2.5, "asyncpg": 45}, "us")


def _under_uvloop(ctx: Context) -> Result:
    """For information: the bars are those of asyncio's own loop. uvloop is quicker to wait, and we wait for nothing."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(_measure(ctx.dsn))
    mine = found.pop("ours")
    ratios = ", ".join(f"{peer} {theirs / mine:.1f}x" for peer, theirs in found.items())
    return [Line("async checkout under uvloop", f"{figure(mine)} us", listed(found, "us"), ratios, "", None)]


async def _measure(dsn: str) -> dict[str, float]:
    async with AsyncExitStack() as pools:
        pool = await pools.enter_async_context(ours_async(dsn, SIZE))
        async with pool.connection():
            assert len(pool.holders()) == 1, "holders are off"
        theirs = await pools.enter_async_context(psycopg_pool_async(dsn, SIZE))
        asyncpgs = await pools.enter_async_context(asyncpg_pool(dsn, SIZE))
        return await microseconds_async(
            {
                "ours": _cycles(pool.connection),
                "psycopg_pool": _cycles(theirs.connection),
                "asyncpg": _cycles(asyncpgs.acquire),
            }
        )


def _cycles(connection: Callable[[], Any]) -> AsyncCycles:
    async def cycles(count: int) -> None:
        for _ in range(count):
            async with connection():
                pass

    return cycles
