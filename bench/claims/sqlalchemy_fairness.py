"""40 threads share 4 connections through `engine.connect()`, 5 ms in each hand: how evenly they get them."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median
from threading import Barrier, Thread
from typing import Any

from bench.context import Context
from bench.measure import interleave, jain
from bench.pools import sqlalchemy_engine
from bench.report import Result, at_least, at_most, duration
from penstock.integrations.sqlalchemy import PenstockPool

CLAIM = "40 threads on 4 connections through SQLAlchemy's `engine.connect()`, each held for 5 ms"
BAR = "Jain fairness >= 0.99"

THREADS = 40
SIZE = 4
HELD = 0.005
SECONDS = 3.0
ROUNDS = 3


def run(ctx: Context) -> Result:
    with ExitStack() as engines:
        contestants = {
            "ours": engines.enter_context(sqlalchemy_engine(ctx.dsn, SIZE, poolclass=PenstockPool)),
            "QueuePool": engines.enter_context(sqlalchemy_engine(ctx.dsn, SIZE)),
        }
        rounds = 1 if ctx.quick else ROUNDS
        found = interleave({name: _turn(engine) for name, engine in contestants.items()}, rounds)
    fairness = {name: median(jain(served) for served, _ in turns) for name, turns in found.items()}
    waits = {name: median(wait for _, wait in turns) for name, turns in found.items()}
    theirs = [count for served, _ in found["QueuePool"] for count in served]
    shared = f"QueuePool {fairness['QueuePool']:.3g} (served {min(theirs)} to {max(theirs)} times)"
    return [
        at_least("40 threads, 4 connections, SQLAlchemy: Jain fairness", fairness["ours"], 0.99, peers=shared),
        at_most(
            "40 threads, 4 connections, SQLAlchemy: worst wait",
            waits["ours"],
            10 * THREADS / SIZE * HELD,
            "s",
            peers=f"QueuePool {duration(waits['QueuePool'])}",
        ),
    ]


def _turn(engine: Any) -> Callable[[], tuple[list[int], float]]:
    return lambda: load(engine)


def load(engine: Any) -> tuple[list[int], float]:
    """How often each thread was served, and the longest that one waited, seconds."""
    start = Barrier(THREADS)
    served = [0] * THREADS
    waits = [0.0] * THREADS

    def client(number: int) -> None:
        start.wait()
        end = time.perf_counter() + SECONDS
        while (asked := time.perf_counter()) < end:
            with engine.connect():
                waits[number] = max(waits[number], time.perf_counter() - asked)
                time.sleep(HELD)
            served[number] += 1

    threads = [Thread(target=client, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return served, max(waits)
