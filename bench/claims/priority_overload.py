"""Three times what the database can do, and one request in ten is of high priority: is that one answered?

The peers know no priorities; what they answer of the same tenth is what they answer of any.
"""

import gc
import random
from functools import partial

import penstock
from bench.context import Context
from bench.openloop import Load, poisson
from bench.overload_rounds import WARM_UP, mean, measured, rotated, tasks, told
from bench.overloaded import constant, declared, of_asyncpg, of_psycopg_pool, of_sqlalchemy, opted_in
from bench.report import Line, Result, figure

CLAIM = "3x of what the database can do, a tenth of it of high priority"
BAR = ">= 99 % of the high priority useful"

FACTOR = 3.0


def high(number: int) -> bool:
    """One request in ten, the same ones for all."""
    return random.Random(f"priority of {number}").random() < 0.1


def low_or_normal(number: int) -> bool:
    """The others."""
    return not high(number)


def _priority(number: int) -> penstock.Priority:
    return penstock.Priority.HIGH if high(number) else penstock.Priority.NORMAL


OURS = {"deadline": partial(declared, priority=_priority), "overload=": partial(opted_in, priority=_priority)}
PEERS = {"asyncpg": of_asyncpg, "psycopg_pool": of_psycopg_pool(), "SQLAlchemy": of_sqlalchemy}


def run(ctx: Context) -> Result:
    rounds, seconds = (1, 5.0) if ctx.quick else (3, 8.0)
    contestants = {name: tasks(ctx.dsn, opened, constant) for name, opened in (OURS | PEERS).items()}
    per_second = measured(ctx, contestants, constant) / mean(constant)
    loads: dict[str, list[Load]] = {name: [] for name in contestants}
    for number in range(rounds):
        schedule = poisson(FACTOR * per_second, WARM_UP + seconds, seed=number)
        for name in rotated(list(contestants), number):
            gc.collect()
            load = contestants[name].load(schedule)
            loads[name].append(load)
            ctx.say(f"{name}: {told(load)}")
    until = WARM_UP + seconds
    shares = {name: _shares(each, until) for name, each in loads.items()}
    peers = ", ".join(f"{name} {figure(shares[name][0])} (others {figure(shares[name][1])})" for name in PEERS)
    return [
        Line(
            f"3x overload, {name}: useful share of the high priority ({count:,} requests)",
            f"{figure(first)} (normal {figure(rest)})",
            peers,
            "",
            ">= 0.99",
            first >= 0.99,
        )
        for name, (first, rest, count) in shares.items()
        if name in OURS
    ]


def _shares(loads: list[Load], until: float) -> tuple[float, float, int]:
    """Of the high priority, of the others, over all rounds; and how many high ones there were."""
    counts = [sum(high(one.number) and WARM_UP <= one.at < until for one in load.outcomes) for load in loads]
    firsts = sum(load.useful_share(WARM_UP, until, high) * count for load, count in zip(loads, counts, strict=True))
    rests = [load.useful_share(WARM_UP, until, low_or_normal) for load in loads]
    return firsts / sum(counts), sum(rests) / len(rests), sum(counts)
