"""asyncpg's connections from our pool and from asyncpg's own: borrowing, and `SELECT 1`, under asyncio and uvloop."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from statistics import median
from time import perf_counter
from typing import Any

import uvloop

from bench.context import Context
from bench.measure import AsyncCycles, interleave_async, microseconds_async
from bench.pools import asyncpg_pool, ours_async
from bench.report import Line, Result, figure, listed, times
from penstock.compat.asyncpg import create_pool

CLAIM = "asyncpg's connections, each `SELECT 1` with an acquire and a release of its own; asyncpg's pool in its default"
BAR = "checkout >= 5x asyncpg's pool, `SELECT 1` >= 1.5x, under asyncio and uvloop; its shape included"

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
SIZE = 4
TASKS = 256
ROUNDS = 5
SECONDS = 1.0

Connection = Callable[[], Any]


def run(ctx: Context) -> Result:
    lines = []
    for loop, factory in LOOPS.items():
        with asyncio.Runner(loop_factory=factory) as runner:
            empty, asking, contended = runner.run(_measure(ctx.dsn))
        lines += _judged(f"asyncpg checkout, {loop}", empty, 5)
        lines += _judged(f"asyncpg `SELECT 1`, {loop}", asking, 1.5)
        peer = contended.pop("asyncpg")
        ratios = ", ".join(f"{each / peer:.2f}x" for each in contended.values())
        name = f"asyncpg `SELECT 1`, {TASKS} tasks on {SIZE}, {loop}"
        lines.append(Line(name, listed(contended, "/s"), f"asyncpg {figure(peer)} /s", ratios, "", None))
    return lines


def _judged(name: str, found: dict[str, float], bar: float) -> Result:
    peer = {"asyncpg": found["asyncpg"]}
    return [
        *times(name, found["driver"], peer, {"asyncpg": bar}, "us"),
        *times(f"{name}, compat", found["compat"], peer, {"asyncpg": bar}, "us"),
    ]


async def _measure(dsn: str) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Microseconds of an empty checkout, and of one with a statement, by one task; statements a second by many."""
    async with AsyncExitStack() as pools:
        mine = await pools.enter_async_context(ours_async(dsn, SIZE, driver="asyncpg"))
        shaped = await pools.enter_async_context(create_pool(dsn, min_size=SIZE, max_size=SIZE))
        theirs = await pools.enter_async_context(asyncpg_pool(dsn, SIZE))
        async with mine.connection(), shaped.acquire():
            assert len(mine.holders()) == len(shaped.penstock.holders()) == 1, "holders are off"
        ways: Mapping[str, Connection] = {
            "driver": mine.connection,
            "compat": shaped.acquire,
            "asyncpg": theirs.acquire,
        }
        return (
            await microseconds_async({name: _empty(way) for name, way in ways.items()}),
            await microseconds_async({name: _asking(way) for name, way in ways.items()}),
            await _contended(ways),
        )


def _empty(connection: Connection) -> AsyncCycles:
    async def cycles(count: int) -> None:
        for _ in range(count):
            async with connection():
                pass

    return cycles


def _asking(connection: Connection) -> AsyncCycles:
    async def cycles(count: int) -> None:
        for _ in range(count):
            async with connection() as conn:
                await conn.fetchval("SELECT 1")

    return cycles


async def _contended(ways: Mapping[str, Connection]) -> dict[str, float]:
    found = await interleave_async({name: _turn(way) for name, way in ways.items()}, ROUNDS)
    return {name: median(figures) for name, figures in found.items()}


def _turn(connection: Connection) -> Callable[[], Awaitable[float]]:
    async def turn() -> float:
        asked, ask = 0, _asking(connection)
        started = perf_counter()

        async def client() -> None:
            nonlocal asked
            while perf_counter() - started < SECONDS:
                await ask(1)
                asked += 1

        await asyncio.gather(*(client() for _ in range(TASKS)))
        return asked / (perf_counter() - started)

    return turn
