"""20 borrowers arrive at once at a pool with nothing open, each wants a connection of its own, connecting takes 50 ms.

Every contestant connects with the same function: it sleeps 50 ms and hands over a connection opened beforehand, so that
what is compared is how many the pool opens at a time, not how fast a server can fork.
"""

import queue
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from statistics import median
from threading import Barrier, Thread
from time import perf_counter
from typing import Any

import psycopg
import psycopg_pool
from dbutils.pooled_db import PooledDB
from sqlalchemy.pool import QueuePool

import penstock
from bench.context import Context
from bench.measure import interleave
from bench.report import Result, at_most, listed

CLAIM = "20 borrowers arrive at once, connect takes 50 ms: the last one served"
BAR = "<= 65 ms"

BORROWERS = 20
CONNECT_SECONDS = 0.05
ROUNDS = 5

Borrow = Callable[[], AbstractContextManager[Any]]
Opened = Callable[[str], AbstractContextManager[Borrow]]


def run(ctx: Context) -> Result:
    contestants = {"ours": _ours, "psycopg_pool": _psycopg_pool, "SQLAlchemy": _queue_pool, "DBUtils": _dbutils}
    found = interleave({name: _turn(ctx.dsn, opened) for name, opened in contestants.items()}, ROUNDS)
    served = {name: median(turns) for name, turns in found.items()}
    return [at_most("spike of 20: last one served", served.pop("ours"), 65, "ms", peers=listed(served, "ms"))]


@contextmanager
def slow_connections(dsn: str) -> Iterator[type[psycopg.Connection[Any]]]:
    """A class whose `connect` takes 50 ms, and no more and no less."""
    ready: queue.SimpleQueue[psycopg.Connection[Any]] = queue.SimpleQueue()

    class Slow(psycopg.Connection[Any]):
        @classmethod
        def connect(cls, conninfo: str = "", **kwargs: Any) -> Any:
            time.sleep(CONNECT_SECONDS)
            return ready.get_nowait()

    every = [psycopg.connect(dsn, autocommit=True) for _ in range(BORROWERS)]
    for connection in every:
        ready.put(connection)
    try:
        yield Slow
    finally:
        for connection in every:
            connection.close()


@contextmanager
def _ours(dsn: str) -> Iterator[Borrow]:
    with (
        slow_connections(dsn) as slow,
        penstock.Pool(dsn, min_size=0, max_size=BORROWERS, connection_class=slow) as pool,
    ):
        yield pool.connection


@contextmanager
def _psycopg_pool(dsn: str) -> Iterator[Borrow]:
    with (
        slow_connections(dsn) as slow,
        psycopg_pool.ConnectionPool(dsn, min_size=0, max_size=BORROWERS, connection_class=slow, open=True) as pool,
    ):
        yield pool.connection


@contextmanager
def _queue_pool(dsn: str) -> Iterator[Borrow]:
    with slow_connections(dsn) as slow:
        pool = QueuePool(lambda: slow.connect(), pool_size=BORROWERS, max_overflow=0)  # type: ignore[arg-type]
        yield lambda: closing(pool.connect())
        pool.dispose()


@contextmanager
def _dbutils(dsn: str) -> Iterator[Borrow]:
    with slow_connections(dsn) as slow:
        pool = PooledDB(slow.connect, maxconnections=BORROWERS, blocking=True, failures=(psycopg.Error,))
        yield lambda: closing(pool.connection())
        pool.close()


def _turn(dsn: str, opened: Opened) -> Callable[[], float]:
    return lambda: last_served(dsn, opened)


def last_served(dsn: str, opened: Opened) -> float:
    """Milliseconds until everybody holds a connection."""
    start = Barrier(BORROWERS + 1)
    everybody = Barrier(BORROWERS)
    served: list[float] = []

    def borrower(borrow: Borrow) -> None:
        start.wait()
        with borrow():
            served.append(perf_counter())
            everybody.wait(10)

    with opened(dsn) as borrow:
        threads = [Thread(target=borrower, args=(borrow,), daemon=True) for _ in range(BORROWERS)]
        for thread in threads:
            thread.start()
        began = perf_counter()
        start.wait()
        for thread in threads:
            thread.join()
    if len(served) < BORROWERS:
        return float("inf")
    return (max(served) - began) * 1e3
