"""Would threads gain from sharing multiplexed connections through an event loop in one more thread?

There is no bar: it is what decides whether the pool for threads gets a `fetch()` of its own. Each statement would cross
from its thread to the loop's and back, which are two changes of thread under one interpreter's lock.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from threading import Barrier, Thread
from time import perf_counter, sleep
from typing import Any

from bench.context import Context
from bench.measure import interleave
from bench.multiplexed import OURS, POINT, accounts, numbers
from bench.pools import AUTOCOMMIT, ours, psycopg_pool_sync
from bench.report import Line, Result, figure, listed

CLAIM = "point query by 1, 8, 32 and 200 threads on 4 connections, borrowed or shared through one loop"
BAR = "none: it shows whether sharing would pay"

SIZE = 4
THREADS = (1, 8, 32, 200)

Ask = Callable[[int], int]


def run(ctx: Context) -> Result:
    rounds, seconds = (1, 0.6) if ctx.quick else (5, 0.7)
    with accounts(ctx), ExitStack() as pools:
        asks = {
            "shared": pools.enter_context(_through_a_loop(ctx.dsn)),
            "connection()": _by_lease(pools.enter_context(ours(ctx.dsn, SIZE, kwargs=AUTOCOMMIT))),
            "psycopg_pool": _by_lease(pools.enter_context(psycopg_pool_sync(ctx.dsn, SIZE, kwargs=AUTOCOMMIT))),
        }
        return [_line(threads, asks, rounds, seconds) for threads in THREADS]


def _line(threads: int, asks: dict[str, Ask], rounds: int, seconds: float) -> Line:
    found = interleave({name: _turn(ask, threads, seconds) for name, ask in asks.items()}, rounds)
    middle = {name: median(turns) for name, turns in found.items()}
    shared = middle.pop("shared")
    return Line(
        f"point query, {threads} thread{'s' * (threads > 1)}, shared through one loop / connection()",
        f"{figure(shared)} /s",
        listed(middle, "/s"),
        f"{shared / middle['connection()']:.2f}x",
        "",
        None,
    )


@contextmanager
def _through_a_loop(dsn: str) -> Iterator[Ask]:
    """penstock.AsyncPool in a thread of its own, where other threads bring what they have to ask."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="shared-loop", daemon=True)
    thread.start()
    opened = OURS.opened(dsn, SIZE)
    pool = asyncio.run_coroutine_threadsafe(opened.__aenter__(), loop).result()
    asked = OURS.asks(pool, POINT)
    try:
        yield lambda account: asyncio.run_coroutine_threadsafe(asked(account), loop).result()
    finally:
        asyncio.run_coroutine_threadsafe(opened.__aexit__(None, None, None), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _by_lease(pool: Any) -> Ask:
    """A connection borrowed for one statement."""

    def ask(account: int) -> int:
        with pool.connection() as connection:
            return int(connection.execute(POINT.psycopg, (account,)).fetchone()[0])

    return ask


def _turn(ask: Ask, threads: int, seconds: float) -> Callable[[], float]:
    return lambda: _per_second(ask, threads, seconds)


def _per_second(ask: Ask, threads: int, seconds: float) -> float:
    """Right answers a second, where so many threads ask one thing after the other."""
    start = Barrier(threads + 1)
    answered = [0] * threads
    ends: list[float] = []

    def client(number: int) -> None:
        wanted = numbers(number)
        start.wait()
        end = ends[0]
        while perf_counter() < end:
            account, held = next(wanted)
            assert ask(account) == held, "a wrong answer"
            answered[number] += 1

    clients = [Thread(target=client, args=(number,), daemon=True) for number in range(threads)]
    for thread in clients:
        thread.start()
    while start.n_waiting < threads:
        sleep(0.01)
    started = perf_counter()
    ends.append(started + seconds)
    start.wait()
    for thread in clients:
        thread.join()
    return sum(answered) / (perf_counter() - started)
