"""One statement in a hundred takes 20 ms: does it hold up the quick ones that are pipelined with it?

Through leased connections a slow statement occupies one of them and the others go on. Slow ones are another text than
the quick, which can be learned; or the same text with a parameter that makes it slow, which nobody can know beforehand.
Both loops: 32 tasks that ask one thing after the other, each pool at its own pace; and the same load for all, open, at
a rate that the best of the leased pools carries.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import count
from statistics import median
from time import perf_counter
from typing import NamedTuple

from bench.context import Context
from bench.measure import interleave_async, quantile
from bench.multiplexed import (
    ACCOUNTS,
    ASYNCPG,
    LEASED,
    OURS,
    POINT,
    PSYCOPG_POOL,
    Ask,
    Statement,
    accounts,
    balance,
)
from bench.openloop import offer, poisson
from bench.report import Line, Result, duration, figure

CLAIM = "1 % of the statements take 20 ms, 4 connections, with 32 tasks and at a steady rate"
BAR = "p99 of the quick ones <= the best leased pool's"

SIZE = 4
TASKS = 32
SLOW = 0.02  # seconds
CALM = 0.5  # of what the best leased pool does in a closed loop
PATIENT = 10.0  # seconds; nobody is to be refused here
LEASED_POOLS = {"asyncpg": ASYNCPG, "psycopg_pool": PSYCOPG_POOL, "our connection()": LEASED}

ANOTHER = Statement(
    f"SELECT abalance FROM pgbench_accounts, pg_sleep({SLOW}) WHERE aid = %s",
    f"SELECT abalance FROM pgbench_accounts, pg_sleep({SLOW}) WHERE aid = $1",
)
EITHER = Statement(
    "SELECT abalance FROM pgbench_accounts, pg_sleep(%s) WHERE aid = %s",
    "SELECT abalance FROM pgbench_accounts, pg_sleep($1) WHERE aid = $2",
)

PERIOD = 10_000
SLOW_ONES = frozenset(random.Random(1).sample(range(PERIOD), PERIOD // 100))

AskNumber = Callable[[int, float], Awaitable[int]]


class Quick(NamedTuple):
    """What the quick statements of one turn were like, in seconds, and how many statements a second there were."""

    p99: float
    p50: float
    per_second: float


def slow(number: int) -> bool:
    """Whether this request is one of the slow: one in a hundred, always the same."""
    return number % PERIOD in SLOW_ONES


def run(ctx: Context) -> Result:
    rounds, seconds = (1, 0.5) if ctx.quick else (3, 0.8)
    with accounts(ctx):
        return [
            line
            for what, same_text in (("another text", False), ("the same text", True))
            for line in asyncio.run(_measure(ctx, what, same_text, rounds, seconds))
        ]


def _line(what: str, found: dict[str, Quick]) -> Line:
    mine, best = found.pop("ours"), min(found, key=lambda name: found[name].p99)
    ratio = mine.p99 / found[best].p99
    return Line(
        f"{what}: p99 of the quick / {best}",
        _told(mine),
        "; ".join(f"{name} {_told(quick)}" for name, quick in found.items()),
        f"{ratio:.2f}",
        "<= 1",
        ratio <= 1,
    )


def _told(quick: Quick) -> str:
    return f"{duration(quick.p99)} (p50 {duration(quick.p50)}, {figure(quick.per_second)} /s)"


async def _measure(ctx: Context, what: str, same_text: bool, rounds: int, seconds: float) -> list[Line]:
    what = f"1 % take 20 ms, {what}"
    async with AsyncExitStack() as pools:
        asks: dict[str, AskNumber] = {}
        for name, contestant in {"ours": OURS, **LEASED_POOLS}.items():
            pool = await pools.enter_async_context(contestant.opened(ctx.dsn, SIZE))
            quickly, slowly = (contestant.asks(pool, text) for text in (POINT, ANOTHER))
            either = contestant.asks(pool, EITHER)
            asks[name] = _ask_either(either) if same_text else _ask(quickly, slowly)
            await _closed(asks[name], 0.3)  # every statement is prepared, and known to be slow if it is
        closed = _medians(await interleave_async({name: _turn(ask, seconds) for name, ask in asks.items()}, rounds))
        rate = CALM * max(closed[name].per_second for name in LEASED_POOLS)
        ctx.say(f"{what}: an open loop of {rate:,.0f} a second")
        turns = {name: _open_turns(ask, rate, seconds) for name, ask in asks.items()}
        offered = _medians(await interleave_async(turns, rounds))
    return [
        _line(f"{what}, {TASKS} tasks", closed),
        _line(f"{what}, at {CALM:g} of the best leased pool's rate", offered),
    ]


def _ask(quickly: Ask, slowly: Ask) -> AskNumber:
    """Slow ones have a text of their own."""

    async def ask(number: int, left: float) -> int:
        account = number % ACCOUNTS + 1
        assert await (slowly if slow(number) else quickly)(account) == balance(account), "a wrong answer"
        return number

    return ask


def _ask_either(either: Ask) -> AskNumber:
    """All have the same text; a parameter says how long it takes."""

    async def ask(number: int, left: float) -> int:
        account = number % ACCOUNTS + 1
        assert await either(SLOW if slow(number) else 0.0, account) == balance(account), "a wrong answer"
        return number

    return ask


def _turn(ask: AskNumber, seconds: float) -> Callable[[], Awaitable[Quick]]:
    return lambda: _closed(ask, seconds)


async def _closed(ask: AskNumber, seconds: float) -> Quick:
    """Every task asks one thing after the other."""
    numbers = count()
    quick: list[float] = []
    started = perf_counter()

    async def client() -> None:
        while (asked := perf_counter()) - started < seconds:
            number = next(numbers)
            await ask(number, PATIENT)
            if not slow(number):
                quick.append(perf_counter() - asked)

    await asyncio.gather(*(client() for _ in range(TASKS)))
    return Quick(quantile(quick, 0.99), median(quick), next(numbers) / (perf_counter() - started))


def _open_turns(ask: AskNumber, rate: float, seconds: float) -> Callable[[], Awaitable[Quick]]:
    """A schedule for each round, the same for every contestant."""
    seeds = count()

    async def turn() -> Quick:
        load = await offer(poisson(rate, seconds, seed=next(seeds)), ask, (), PATIENT)
        quick = [one.took for one in load.outcomes if not slow(one.number)]
        return Quick(quantile(quick, 0.99), median(quick), len(load.outcomes) / seconds)

    return turn


def _medians(found: dict[str, list[Quick]]) -> dict[str, Quick]:
    return {name: Quick(*map(median, zip(*turns, strict=True))) for name, turns in found.items()}
