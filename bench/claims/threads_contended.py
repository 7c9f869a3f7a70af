"""32 threads hammer 4 connections with `SELECT 1`: how much gets through, and how evenly."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing
from statistics import median
from threading import Barrier, Thread
from time import perf_counter
from typing import Any, NamedTuple

from bench.context import Context
from bench.measure import interleave, jain
from bench.pools import AUTOCOMMIT, dbutils_pool, ours, psycopg_pool_sync, queue_pool
from bench.report import Result, at_least, at_most, beats_best, listed

CLAIM = "32 threads on 4 connections, `SELECT 1`"
BAR = "throughput >= 1.2x the best peer, Jain fairness >= 0.99, worst wait <= 5x the median"

THREADS = 32
SIZE = 4
ROUNDS = 5
SECONDS = 1.0

Borrow = Callable[[], AbstractContextManager[Any]]


class Load(NamedTuple):
    """What one turn gave."""

    per_second: float
    fairness: float
    worst_to_median: float


def run(ctx: Context) -> Result:
    with ExitStack() as pools:
        contestants: dict[str, Borrow] = {
            "ours": pools.enter_context(ours(ctx.dsn, SIZE, kwargs=AUTOCOMMIT)).connection,
            "psycopg_pool": pools.enter_context(psycopg_pool_sync(ctx.dsn, SIZE, kwargs=AUTOCOMMIT)).connection,
            "SQLAlchemy": _closing(pools.enter_context(queue_pool(ctx.dsn, SIZE)).connect),
            "DBUtils": _closing(pools.enter_context(dbutils_pool(ctx.dsn, SIZE)).connection),
        }
        found = interleave({name: _turn(borrow) for name, borrow in contestants.items()}, ROUNDS)
    loads = {name: Load(*map(median, zip(*turns, strict=True))) for name, turns in found.items()}
    mine = loads.pop("ours")
    return [
        beats_best(
            "32 threads, 4 connections: queries",
            mine.per_second,
            {name: load.per_second for name, load in loads.items()},
            1.2,
            "/s",
        ),
        at_least(
            "32 threads, 4 connections: Jain fairness",
            mine.fairness,
            0.99,
            peers=listed({name: load.fairness for name, load in loads.items()}),
        ),
        at_most(
            "32 threads, 4 connections: worst wait to median wait",
            mine.worst_to_median,
            5,
            "x",
            peers=listed({name: load.worst_to_median for name, load in loads.items()}),
        ),
    ]


def _closing(connect: Callable[[], Any]) -> Borrow:
    return lambda: closing(connect())


def _turn(borrow: Borrow) -> Callable[[], Load]:
    return lambda: load(borrow)


def load(borrow: Borrow) -> Load:
    """Let every thread borrow, ask and give back until the time is over."""
    start = Barrier(THREADS + 1)
    served = [0] * THREADS
    waits: list[list[float]] = [[] for _ in range(THREADS)]
    ends: list[float] = []

    def client(number: int) -> None:
        start.wait()
        end = ends[0]
        while (asked := perf_counter()) < end:
            with borrow() as connection:
                waits[number].append(perf_counter() - asked)
                connection.cursor().execute("SELECT 1")
                served[number] += 1

    threads = [Thread(target=client, args=(number,), daemon=True) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    started = perf_counter()
    ends.append(started + SECONDS)
    start.wait()
    for thread in threads:
        thread.join()
    every = [wait for one in waits for wait in one]
    return Load(sum(served) / (perf_counter() - started), jain(served), max(every) / median(every))
