"""Somebody takes a connection and never gives it back: drops the reference, or ends, as thread or task, holding it.

A pool of one connection; the figure is how long the next borrower waits for it. Nobody helps: no `gc.collect()`, no
call to the pool but the borrower's own.
"""

import asyncio
import math
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from threading import Thread
from time import perf_counter
from typing import Any, NamedTuple

import asyncpg
from psycopg2.pool import PoolError, ThreadedConnectionPool

from bench.context import Context
from bench.pools import ours, ours_async, psycopg_pool_async, psycopg_pool_sync, queue_pool
from bench.report import Line, Result, figure

CLAIM = "a dropped reference, an ended thread, a finished task"
BAR = "slot back within 100 ms, the line that took it named"

ROUNDS = 5
PATIENCE = 1.0  # seconds; what is not back by then is called lost

Take = Callable[[], Any]  # raises when there is nothing to be had for PATIENCE
TakeAsync = Callable[[], Awaitable[Any]]
Opened = Callable[[str], AbstractContextManager[Take]]
OpenedAsync = Callable[[str], AbstractAsyncContextManager[TakeAsync]]


class Loss(NamedTuple):
    """How it ended."""

    back_after_ms: float  # infinity: lost
    named: bool  # a warning named the line that took it


def run(ctx: Context) -> Result:
    return [*_threads(ctx.dsn), *asyncio.run(_tasks(ctx.dsn))]


def _threads(dsn: str) -> Iterator[Line]:
    peers: dict[str, Opened] = {"psycopg_pool": _psycopg_pool, "SQLAlchemy": _queue_pool, "psycopg2": _psycopg2}
    for what, lose in {"dropped reference": drop, "ended thread": end_thread}.items():
        mine = [_lost(_ours, lose, dsn) for _ in range(ROUNDS)]
        yield _line(what, mine, {name: _lost(opened, lose, dsn) for name, opened in peers.items()})


async def _tasks(dsn: str) -> Result:
    peers: dict[str, OpenedAsync] = {"psycopg_pool": _psycopg_pool_async, "asyncpg": _asyncpg}
    lines = []
    for what, lose in {"dropped reference, asyncio": drop_async, "finished task": finish_task}.items():
        mine = [await _lost_async(_ours_async, lose, dsn) for _ in range(ROUNDS)]
        theirs = {name: await _lost_async(opened, lose, dsn) for name, opened in peers.items()}
        lines.append(_line(what, mine, theirs))
    return lines


def _line(what: str, mine: list[Loss], peers: Mapping[str, Loss]) -> Line:
    worst = max(loss.back_after_ms for loss in mine)
    named = all(loss.named for loss in mine)
    return Line(
        f"{what}: slot back after",
        f"{_back(worst)}, line {'named' if named else 'not named'}",
        ", ".join(f"{name} {_back(loss.back_after_ms)}{' (named)' * loss.named}" for name, loss in peers.items()),
        "",
        "<= 100 ms, named",
        worst <= 100 and named,
    )


def _back(milliseconds: float) -> str:
    return "lost" if math.isinf(milliseconds) else f"{figure(milliseconds)} ms"


# ---- ways to lose a connection; each returns what keeps it alive, if anything does


def drop(take: Take) -> object:
    take()
    return None


def end_thread(take: Take) -> object:
    kept: list[Any] = []
    thread = Thread(target=lambda: kept.append(take()))
    thread.start()
    thread.join()
    return kept


async def drop_async(take: TakeAsync) -> object:
    await take()
    return None


async def finish_task(take: TakeAsync) -> object:
    kept: list[Any] = []

    async def work() -> None:
        kept.append(await take())

    await asyncio.create_task(work())
    return kept


def _lost(opened: Opened, lose: Callable[[Take], object], dsn: str) -> Loss:
    with warnings.catch_warnings(record=True) as said, opened(dsn) as take:
        warnings.simplefilter("always")
        kept = lose(take)
        started = perf_counter()
        try:
            take()
        except Exception:
            return Loss(math.inf, False)
        back_after = perf_counter() - started
        del kept
        return Loss(back_after * 1e3, _named(said))


async def _lost_async(opened: OpenedAsync, lose: Callable[[TakeAsync], Awaitable[object]], dsn: str) -> Loss:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        async with opened(dsn) as take:
            kept = await lose(take)
            started = perf_counter()
            try:
                await take()
            except Exception:
                return Loss(math.inf, False)
            back_after = perf_counter() - started
            del kept
            return Loss(back_after * 1e3, _named(said))


def _named(said: list[warnings.WarningMessage]) -> bool:
    """Whether a warning shows the line of this file that took the connection, which stands below."""
    here = Path(__file__).name
    return any(f"{here}:{line}" in str(warning.message) for warning in said for line in _taking_lines())


def _taking_lines() -> list[int]:
    lines = Path(__file__).read_text().splitlines()
    return [number for number, line in enumerate(lines, 1) if line.strip().endswith("# takes it")]


# ---- the contestants: a pool of one connection, and how to take it


@contextmanager
def _ours(dsn: str) -> Iterator[Take]:
    with ours(dsn, 1) as pool:
        yield lambda: pool.getconn(timeout=PATIENCE)  # takes it


@contextmanager
def _psycopg_pool(dsn: str) -> Iterator[Take]:
    with psycopg_pool_sync(dsn, 1) as pool:
        yield lambda: pool.getconn(timeout=PATIENCE)  # takes it


@contextmanager
def _queue_pool(dsn: str) -> Iterator[Take]:
    with queue_pool(dsn, 1, timeout=PATIENCE) as pool:
        yield lambda: pool.connect()  # takes it


@contextmanager
def _psycopg2(dsn: str) -> Iterator[Take]:
    pool = ThreadedConnectionPool(1, 1, dsn)

    def take() -> Any:
        deadline = time.monotonic() + PATIENCE
        while True:  # it does not wait, so its user has to
            try:
                return pool.getconn()  # takes it
            except PoolError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    yield take
    pool.closeall()


@asynccontextmanager
async def _ours_async(dsn: str) -> AsyncIterator[TakeAsync]:
    async with ours_async(dsn, 1) as pool:
        yield lambda: pool.getconn(timeout=PATIENCE)  # takes it


@asynccontextmanager
async def _psycopg_pool_async(dsn: str) -> AsyncIterator[TakeAsync]:
    async with psycopg_pool_async(dsn, 1) as pool:
        yield lambda: pool.getconn(timeout=PATIENCE)  # takes it


@asynccontextmanager
async def _asyncpg(dsn: str) -> AsyncIterator[TakeAsync]:
    pool = await asyncpg.create_pool(dsn, min_size=1, max_size=1)
    yield lambda: pool.acquire(timeout=PATIENCE)  # takes it
    pool.terminate()  # closing would wait for the lost one
