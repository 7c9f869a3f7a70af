"""The database stops. How long does a caller wait to be told, and is it told why?

The first caller has to find it out; what counts is everybody after that. Each may wait for two seconds.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from time import perf_counter, sleep
from typing import Any, NamedTuple

import psycopg

from bench.context import Context
from bench.pools import ours, ours_async, psycopg_pool_sync, sqlalchemy_engine
from bench.report import Line, Result, figure
from penstock.drill.postgres import EmbeddedPostgres

CLAIM = "database down: how fast the caller is told, and why"
BAR = "error in <= 50 ms once it is known to be down, the driver's error as its cause"

TIMEOUT = 2.0
CALLERS = 20
PAUSE = 0.05  # seconds between callers

Borrow = Callable[[], AbstractContextManager[Any]]
Opened = Callable[[str], AbstractContextManager[Borrow]]


class Refusal(NamedTuple):
    """What a caller is told, and when."""

    after_ms: float
    with_cause: bool


def run(ctx: Context) -> Result:
    mine = {"threads": _told(_ours, CALLERS), "asyncio": asyncio.run(_told_async(CALLERS))}
    peers = {"psycopg_pool": _told(_psycopg_pool, 3), "SQLAlchemy": _told(_sqlalchemy, CALLERS)}
    known = ", ".join(f"{name} {_worst(told)}" for name, told in peers.items())
    return [
        Line(
            f"database down, {shell}: told after (first caller {figure(told[0].after_ms)} ms)",
            _worst(told),
            known,
            "",
            "<= 50 ms, with cause",
            all(one.after_ms <= 50 and one.with_cause for one in told[1:]),
        )
        for shell, told in mine.items()
    ]


def _worst(told: list[Refusal]) -> str:
    """The slowest caller after the first."""
    causes = all(one.with_cause for one in told[1:])
    return f"{figure(max(one.after_ms for one in told[1:]))} ms, {'with' if causes else 'without'} cause"


def refusal(error: BaseException, started: float) -> Refusal:
    """A driver's error counts as its own cause; a pool's has to carry the driver's."""
    cause = error if type(error).__module__.partition(".")[0] == "psycopg" else error.__cause__
    return Refusal((perf_counter() - started) * 1e3, isinstance(cause, psycopg.Error))


def _told(opened: Opened, callers: int) -> list[Refusal]:
    with EmbeddedPostgres(max_connections=20) as server, opened(server.dsn) as borrow:
        server.stop()
        told = []
        for _ in range(callers):
            started = perf_counter()
            try:
                with borrow() as connection:
                    connection.cursor().execute("SELECT 1")
            except Exception as error:
                told.append(refusal(error, started))
            sleep(PAUSE)
        return told


async def _told_async(callers: int) -> list[Refusal]:
    with EmbeddedPostgres(max_connections=20) as server:
        async with ours_async(server.dsn, 4, timeout=TIMEOUT) as pool:
            await asyncio.to_thread(server.stop)
            told = []
            for _ in range(callers):
                started = perf_counter()
                try:
                    async with pool.connection() as connection:
                        await connection.execute("SELECT 1")
                except Exception as error:
                    told.append(refusal(error, started))
                await asyncio.sleep(PAUSE)
            return told


@contextmanager
def _ours(dsn: str) -> Iterator[Borrow]:
    with ours(dsn, 4, timeout=TIMEOUT) as pool:
        yield pool.connection


@contextmanager
def _psycopg_pool(dsn: str) -> Iterator[Borrow]:
    """With one connection: it hands out the dead ones first, and only then has to say what is wrong."""
    with psycopg_pool_sync(dsn, 1, timeout=TIMEOUT) as pool:
        yield pool.connection


@contextmanager
def _sqlalchemy(dsn: str) -> Iterator[Borrow]:
    with sqlalchemy_engine(dsn, 4, pool_timeout=TIMEOUT, pool_pre_ping=True) as engine:
        yield lambda: closing(engine.raw_connection())
