"""200 tasks ask for one row each by its key, again and again: multiplexed, through leased connections, and by pgbench.

pgbench is PostgreSQL's own client in C, here without pipelining, from the same installation as the server.
"""

import asyncio
import os
import re
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from statistics import median
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from bench.context import Context
from bench.measure import interleave_async
from bench.multiplexed import ASYNCPG, LOOPS, OURS, POINT, PSYCOPG_POOL, Contestant, accounts, on_loop, per_second
from bench.report import Line, Result, figure, listed
from penstock.drill import binaries

CLAIM = "point query, 200 tasks, whole rows loaded, 4 connections or fewer against 10"
BAR = ">= 8x asyncpg's pool, >= 6.5x psycopg_pool, >= 1x `pgbench -S -M prepared -c 10 -j 2`"

TASKS = 200
OUR_SIZE, THEIR_SIZE = 4, 10
BARS = {"asyncpg": 8.0, "psycopg_pool": 6.5, "pgbench": 1.0}

Turn = Callable[[], Awaitable[float]]


def run(ctx: Context) -> Result:
    rounds, seconds = (1, 0.7) if ctx.quick else (5, 1.0)
    with accounts(ctx):
        return [line for loop in LOOPS for line in _lines(loop, on_loop(loop, _measure(ctx.dsn, rounds, seconds)))]


def _lines(loop: str, found: dict[str, float]) -> Result:
    what, used = f"point query, {TASKS} tasks, {loop}", found.pop("used")
    mine, alone = found.pop("ours"), found.pop("ours on one")
    lines = [
        Line(
            f"{what} / {peer}",
            f"{figure(mine)} /s on {used:.0f} of {OUR_SIZE} connections",
            f"{figure(found[peer])} /s on {THEIR_SIZE}",
            f"{mine / found[peer]:.2f}x",
            f">= {bar:g}x",
            mine / found[peer] >= bar,
        )
        for peer, bar in BARS.items()
    ]
    ratios = ", ".join(f"{peer} {alone / theirs:.2f}x" for peer, theirs in found.items())
    return [
        *lines,
        Line(f"{what}, a pool of one connection", f"{figure(alone)} /s", listed(found, "/s"), ratios, "", None),
    ]


async def _measure(dsn: str, rounds: int, seconds: float) -> dict[str, float]:
    """Median answers a second by contestant, and the most connections that ours had in use."""
    used: list[int] = []
    async with AsyncExitStack() as pools:

        async def opened(contestant: Contestant, size: int) -> Any:
            return await pools.enter_async_context(contestant.opened(dsn, size))

        def turn(contestant: Contestant, pool: Any) -> Turn:
            return lambda: per_second(contestant.asks(pool, POINT), TASKS, seconds)

        mine = await opened(OURS, OUR_SIZE)
        turns = {
            "ours": _watched(turn(OURS, mine), mine, used),
            "ours on one": turn(OURS, await opened(OURS, 1)),
            "asyncpg": turn(ASYNCPG, await opened(ASYNCPG, THEIR_SIZE)),
            "psycopg_pool": turn(PSYCOPG_POOL, await opened(PSYCOPG_POOL, THEIR_SIZE)),
            "pgbench": lambda: asyncio.to_thread(_pgbench, dsn, max(1, round(seconds))),
        }
        found = await interleave_async(turns, rounds)
    return {name: median(each) for name, each in found.items()} | {"used": float(max(used))}


def _watched(turn: Turn, pool: Any, used: list[int]) -> Turn:
    """The same turn, while somebody looks every 10 ms how many connections are in use."""

    async def watch() -> None:
        while True:
            await asyncio.sleep(0.01)
            used.append(pool.snapshot().multiplexed)

    async def watched() -> float:
        watcher = asyncio.create_task(watch())
        try:
            return await turn()
        finally:
            watcher.cancel()

    return watched


def _pgbench(dsn: str, seconds: int) -> float:
    """Transactions a second, each of them the same query, without the time to connect."""
    program, server = binaries.find() / "bin" / "pgbench", conninfo_to_dict(dsn)
    done = subprocess.run(
        [program, "-n", "-S", "-M", "prepared", f"-T{seconds}", f"-c{THEIR_SIZE}", "-j2"],
        env={
            "PATH": os.defpath,
            "PGHOST": str(server["host"]),
            "PGPORT": str(server["port"]),
            "PGUSER": str(server["user"]),
            "PGPASSWORD": str(server["password"]),  # not on the command line, where everybody can read it
            "PGDATABASE": str(server["dbname"]),
        },
        capture_output=True,
        text=True,
        timeout=seconds + 20,
        check=True,
    )
    found = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
    assert found, f"pgbench said nothing of its speed: {done.stdout}"
    return float(found[1])
