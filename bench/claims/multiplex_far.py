"""256 tasks, and a server 2 ms away: who waits for each answer before the next question waits most of the time.

The way is a relay in a process of its own (`bench/distance.py`), which passes on whatever comes 1 ms later, each way.
"""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from statistics import median
from time import perf_counter
from typing import NamedTuple

import psycopg

from bench.context import Context
from bench.distance import Distance
from bench.measure import interleave_async
from bench.multiplexed import ASYNCPG, LOOPS, OURS, POINT, PSYCOPG_POOL, Ask, accounts, on_loop, per_second
from bench.report import Line, Result, duration, figure, listed

CLAIM = "point query, 256 tasks, 2 ms of round trip, equal connections"
BAR = ">= 15x asyncpg's pool"

TASKS = 256
ONE_WAY = 0.001  # seconds
SIZES = (8, 4)
CONTESTANTS = {"ours": OURS, "asyncpg": ASYNCPG, "psycopg_pool": PSYCOPG_POOL}


class Load(NamedTuple):
    """What one turn gave, and what the relay had to do for it."""

    per_second: float
    relay: float  # of a core


def run(ctx: Context) -> Result:
    rounds, seconds = (1, 0.8) if ctx.quick else (3, 1.2)
    with accounts(ctx), Distance(ctx.server.host, ctx.server.port, ONE_WAY) as distance:
        dsn = distance.through(ctx.dsn)
        ctx.say(f"a round trip takes {duration(_round_trip(dsn))}")
        return [
            _line(loop, size, on_loop(loop, _measure(distance, dsn, size, rounds, seconds)))
            for loop in LOOPS
            for size in SIZES
        ]


def _round_trip(dsn: str) -> float:
    """The median time of the least that a connection can do."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        times = []
        for _ in range(50):
            started = perf_counter()
            connection.execute("SELECT 1")
            times.append(perf_counter() - started)
    return median(times)


def _line(loop: str, size: int, found: dict[str, Load]) -> Line:
    relay = max(load.relay for load in found.values())
    mine, peers = found.pop("ours").per_second, {name: load.per_second for name, load in found.items()}
    ratio = mine / peers["asyncpg"]
    what = f"point query, {TASKS} tasks, 2 ms away, {size} connections, {loop} / asyncpg"
    return Line(
        f"{what} (relay: {relay:.0%} of a core)",
        f"{figure(mine)} /s",
        listed(peers, "/s"),
        f"{ratio:.1f}x",
        ">= 15x",
        ratio >= 15,
    )


async def _measure(distance: Distance, dsn: str, size: int, rounds: int, seconds: float) -> dict[str, Load]:
    async with AsyncExitStack() as pools:
        turns = {}
        for name, contestant in CONTESTANTS.items():
            pool = await pools.enter_async_context(contestant.opened(dsn, size))
            turns[name] = _turn(contestant.asks(pool, POINT), distance, seconds)
        found = await interleave_async(turns, rounds)
    return {name: Load(*map(median, zip(*loads, strict=True))) for name, loads in found.items()}


def _turn(ask: Ask, distance: Distance, seconds: float) -> Callable[[], Awaitable[Load]]:
    async def turn() -> Load:
        started, worked = perf_counter(), distance.worked()
        answers = await per_second(ask, TASKS, seconds)
        return Load(answers, (distance.worked() - worked) / (perf_counter() - started))

    return turn
