"""256 tasks of one event loop hammer 4 connections with `SELECT 1`: how much gets through, and how even latency is."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

from bench.context import Context
from bench.measure import interleave_async, quantile
from bench.pools import AUTOCOMMIT, asyncpg_pool, ours_async, psycopg_pool_async
from bench.report import Result, at_most, beats_best, listed

CLAIM = "256 tasks on 4 connections, `SELECT 1`"
BAR = "throughput >= 1.3x the best peer, p99.9 of acquire and query <= 5x p50"

TASKS = 256
SIZE = 4
ROUNDS = 5
SECONDS = 1.5

Ask = Callable[[], Awaitable[None]]


class Load(NamedTuple):
    """What one turn gave."""

    per_second: float
    tail_to_median: float


def run(ctx: Context) -> Result:
    loads = asyncio.run(_measure(ctx.dsn))
    mine = loads.pop("ours")
    return [
        beats_best(
            "256 tasks, 4 connections: queries",
            mine.per_second,
            {name: load.per_second for name, load in loads.items()},
            1.3,
            "/s",
        ),
        at_most(
            "256 tasks, 4 connections: latency p99.9 to p50",
            mine.tail_to_median,
            5,
            "x",
            peers=listed({name: load.tail_to_median for name, load in loads.items()}),
        ),
    ]


async def _measure(dsn: str) -> dict[str, Load]:
    async with AsyncExitStack() as pools:
        mine = await pools.enter_async_context(ours_async(dsn, SIZE, kwargs=AUTOCOMMIT))
        theirs = await pools.enter_async_context(psycopg_pool_async(dsn, SIZE, kwargs=AUTOCOMMIT))
        asyncpgs = await pools.enter_async_context(asyncpg_pool(dsn, SIZE))
        asks = {"ours": _psycopg(mine), "psycopg_pool": _psycopg(theirs), "asyncpg": _asyncpg(asyncpgs)}
        found = await interleave_async({name: _turn(ask) for name, ask in asks.items()}, ROUNDS)
    return {name: Load(*map(median, zip(*turns, strict=True))) for name, turns in found.items()}


def _psycopg(pool: Any) -> Ask:
    async def ask() -> None:
        async with pool.connection() as connection:
            await connection.execute("SELECT 1")

    return ask


def _asyncpg(pool: Any) -> Ask:
    async def ask() -> None:
        async with pool.acquire() as connection:
            await connection.fetchval("SELECT 1")

    return ask


def _turn(ask: Ask) -> Callable[[], Awaitable[Load]]:
    return lambda: _load(ask)


async def _load(ask: Ask) -> Load:
    """Let every task ask until the time is over."""
    latencies: list[float] = []
    started = perf_counter()

    async def client() -> None:
        while (asked := perf_counter()) - started < SECONDS:
            await ask()
            latencies.append(perf_counter() - asked)

    await asyncio.gather(*(client() for _ in range(TASKS)))
    return Load(len(latencies) / (perf_counter() - started), quantile(latencies, 0.999) / median(latencies))
