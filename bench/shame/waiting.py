"""More borrowers than connections."""

import gc
import time
from threading import Barrier
from time import perf_counter

from bench.context import Context
from bench.report import duration
from bench.shame.bounded import at_once, within
from bench.shame.pools import Contestant, Options, opened

THREADS, CONNECTIONS, HOLD, SECONDS = 40, 4, 0.005, 3.0
BORROWERS, CONNECT = 20, 0.05
TIMEOUTS, TIMEOUT = 200, 0.005


def fairness(name: str, ctx: Context) -> str:
    """40 threads, 4 connections, held for 5 ms, for 3 s: served least and most, and the longest wait."""
    pool = opened(name, ctx.dsn, Options(CONNECTIONS, timeout=2 * SECONDS))
    served, longest, refused = [0] * THREADS, [0.0] * THREADS, [0] * THREADS
    start = Barrier(THREADS)

    def client(number: int) -> None:
        start.wait()
        end = perf_counter() + SECONDS
        while (asked := perf_counter()) < end:
            try:
                connection = pool.take()
            except Exception:
                refused[number] += 1
                time.sleep(HOLD)
                continue
            longest[number] = max(longest[number], perf_counter() - asked)
            time.sleep(HOLD)
            pool.give(connection)
            served[number] += 1

    at_once(THREADS, client)
    pool.close()
    if any(refused):
        return f"**does not wait**: refused {sum(refused):,} of {sum(refused) + sum(served):,}"
    told = f"{min(served)} / {max(served)}, {duration(max(longest))}"
    return f"**{told}**" if min(served) * 2 < max(served) else told


def spike(name: str, ctx: Context) -> str:
    """20 borrowers arrive at an empty pool, connecting takes 50 ms: the last one is served after."""
    pool = opened(name, ctx.dsn, Options(BORROWERS, min_size=0, timeout=10.0, connect_seconds=CONNECT))
    everybody = Barrier(BORROWERS)
    served: list[float] = []
    start = perf_counter()

    def borrower(_: int) -> None:
        connection = pool.take()
        served.append(perf_counter() - start)
        everybody.wait(10)
        pool.give(connection)

    at_once(BORROWERS, borrower)
    pool.close()
    if len(served) < BORROWERS:
        return f"**only {len(served)} served**"
    told = duration(max(served))
    return f"**{told}**" if max(served) > 4 * CONNECT else told


def timed_out(name: str, ctx: Context) -> str:
    """200 borrowers give up one after another while the only connection is out: what the pool keeps of them."""
    pool = opened(name, ctx.dsn, Options(1, timeout=TIMEOUT))
    if not pool.waits:
        pool.close()
        return "does not wait"
    held = pool.take()
    if not _gives_up(pool):
        pool.give(held)
        return "**they wait for ever**"
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(TIMEOUTS):
        _gives_up(pool)
    gc.collect()
    kept = (len(gc.get_objects()) - before) / TIMEOUTS
    pool.give(held)
    pool.close()
    return "nothing" if kept < 0.5 else f"**{kept:.0f} objects each**"


def queue_limit(name: str, ctx: Context) -> str:
    """A queue of at most 5, and 5 borrowers have given up waiting: what the next one meets, though nobody waits."""
    pool = opened(name, ctx.dsn, Options(1, timeout=TIMEOUT, max_waiting=5))
    if not pool.limits_queue:
        pool.close()
        return "no such limit"
    held = pool.take()
    for _ in range(5):
        _gives_up(pool)
    refused = _refusal(pool)
    pool.give(held)
    pool.close()
    return f"**{refused}**" if "TooMany" in refused else "waits"


def _gives_up(pool: Contestant) -> bool:
    """Whether a borrower, in a thread of its own, is told after a while that there is nothing to be had."""
    return _refusal(pool) != "Stuck"


def _refusal(pool: Contestant) -> str:
    try:
        within(1, pool.take)
    except Exception as error:
        return type(error).__name__
    raise AssertionError("bug: somebody was served while the only connection was out")
