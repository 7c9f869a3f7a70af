"""The contestants of the claims on overload: each answers a request, or raises, with the seconds that it has left.

The work is a statement that sleeps on the server, so that what the database can do is the number of connections over
the time of a statement, and neither the client's processor nor the server's decides anything. The statement echoes the
request's number, so that a wrong answer does not pass for a right one.
"""

import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any

import psycopg
import psycopg_pool
import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine

import penstock
from bench.openloop import Ask, AskInThread, Work
from bench.pools import (
    AUTOCOMMIT,
    asyncpg_pool,
    ours,
    ours_async,
    psycopg_pool_async,
    psycopg_pool_sync,
    sqlalchemy_engine,
)

SIZE = 4
DEADLINE = 0.5
WORK = 0.02

Opened = Callable[[str, Work], AbstractAsyncContextManager[Ask]]
Rank = Callable[[int], penstock.Priority | None]
OpenedThreaded = Callable[[str, Work], AbstractContextManager[AskInThread]]

REFUSED = (
    penstock.PoolError,
    psycopg.errors.QueryCanceled,  # cut off by what was left of the deadline
    psycopg_pool.PoolTimeout,
    psycopg_pool.TooManyRequests,
    sqlalchemy.exc.TimeoutError,
    TimeoutError,  # asyncpg
)

_PSYCOPG = "SELECT %s::int FROM pg_sleep(%s)"
_ASYNCPG = "SELECT $1::int FROM pg_sleep($2)"
_SQLALCHEMY = sqlalchemy.text("SELECT CAST(:number AS int) FROM pg_sleep(:seconds)")


def constant(number: int) -> float:
    """Every request takes the same 20 ms."""
    return WORK


def mixed(number: int) -> float:
    """Nine requests in ten take 5 ms, one takes 100 ms; the same number always the same."""
    return 0.1 if random.Random(number).random() < 0.1 else 0.005


def nothing_special(number: int) -> None:
    """No request has a priority."""


@asynccontextmanager
async def declared(dsn: str, work: Work, priority: Rank = nothing_special) -> AsyncIterator[Ask]:
    """penstock.AsyncPool with every default; each request declares its deadline."""
    async with ours_async(dsn, SIZE, kwargs=AUTOCOMMIT) as pool:

        async def ask(number: int, left: float) -> int:
            with penstock.deadline(left):
                async with pool.connection(priority=priority(number)) as connection:
                    return await ask_psycopg(connection, number, work)

        yield ask


@asynccontextmanager
async def opted_in(dsn: str, work: Work, priority: Rank = nothing_special) -> AsyncIterator[Ask]:
    """penstock.AsyncPool with `overload=`; the requests have a timeout and declare nothing."""
    async with ours_async(dsn, SIZE, kwargs=AUTOCOMMIT, overload=penstock.Overload()) as pool:

        async def ask(number: int, left: float) -> int:
            async with pool.connection(timeout=left, priority=priority(number)) as connection:
                return await ask_psycopg(connection, number, work)

        yield ask


def of_psycopg_pool(cap: float = float("inf"), **options: Any) -> Opened:
    """psycopg_pool, whose acquire timeout is what is left of the deadline, but no more than *cap* seconds."""

    @asynccontextmanager
    async def opened(dsn: str, work: Work) -> AsyncIterator[Ask]:
        async with psycopg_pool_async(dsn, SIZE, kwargs=AUTOCOMMIT, **options) as pool:

            async def ask(number: int, left: float) -> int:
                async with pool.connection(timeout=min(left, cap)) as connection:
                    return await ask_psycopg(connection, number, work)

            yield ask

    return opened


@asynccontextmanager
async def of_psycopg_pool_by_default(dsn: str, work: Work) -> AsyncIterator[Ask]:
    """psycopg_pool with the timeout that it has when nobody sets one: 30 s."""
    async with psycopg_pool_async(dsn, SIZE, kwargs=AUTOCOMMIT) as pool:

        async def ask(number: int, left: float) -> int:
            async with pool.connection() as connection:
                return await ask_psycopg(connection, number, work)

        yield ask


@asynccontextmanager
async def of_asyncpg(dsn: str, work: Work) -> AsyncIterator[Ask]:
    """asyncpg, whose acquire timeout is what is left of the deadline."""
    async with asyncpg_pool(dsn, SIZE) as pool:

        async def ask(number: int, left: float) -> int:
            async with pool.acquire(timeout=left) as connection:
                return int(await connection.fetchval(_ASYNCPG, number, work(number)))

        yield ask


@asynccontextmanager
async def of_sqlalchemy(dsn: str, work: Work) -> AsyncIterator[Ask]:
    """SQLAlchemy's asyncio engine over psycopg; its timeout is the engine's, so it is the whole deadline."""
    engine = create_async_engine(
        dsn.replace("postgresql://", "postgresql+psycopg://", 1),
        pool_size=SIZE,
        max_overflow=0,
        pool_timeout=DEADLINE,
        isolation_level="AUTOCOMMIT",
    )
    try:
        for connection in [await engine.connect() for _ in range(SIZE)]:
            await connection.close()

        async def ask(number: int, left: float) -> int:
            async with engine.connect() as connection:
                found = await connection.execute(_SQLALCHEMY, {"number": number, "seconds": work(number)})
                return int(found.scalar_one())

        yield ask
    finally:
        await engine.dispose()


async def ask_psycopg(connection: Any, number: int, work: Work) -> int:
    """Do the request's work on a psycopg connection."""
    row = await (await connection.execute(_PSYCOPG, (number, work(number)))).fetchone()
    return int(row[0])


@contextmanager
def declared_in_threads(dsn: str, work: Work) -> Iterator[AskInThread]:
    """As `declared`, for threads."""
    with ours(dsn, SIZE, kwargs=AUTOCOMMIT) as pool:

        def ask(number: int, left: float) -> int:
            with penstock.deadline(left), pool.connection() as connection:
                return _ask_psycopg_in_thread(connection, number, work)

        yield ask


@contextmanager
def opted_in_threads(dsn: str, work: Work) -> Iterator[AskInThread]:
    """As `opted_in`, for threads."""
    with ours(dsn, SIZE, kwargs=AUTOCOMMIT, overload=penstock.Overload()) as pool:

        def ask(number: int, left: float) -> int:
            with pool.connection(timeout=left) as connection:
                return _ask_psycopg_in_thread(connection, number, work)

        yield ask


@contextmanager
def of_psycopg_pool_in_threads(dsn: str, work: Work) -> Iterator[AskInThread]:
    """As `of_psycopg_pool`, for threads."""
    with psycopg_pool_sync(dsn, SIZE, kwargs=AUTOCOMMIT) as pool:

        def ask(number: int, left: float) -> int:
            with pool.connection(timeout=left) as connection:
                return _ask_psycopg_in_thread(connection, number, work)

        yield ask


@contextmanager
def of_sqlalchemy_in_threads(dsn: str, work: Work) -> Iterator[AskInThread]:
    """SQLAlchemy's engine over psycopg; its timeout is the engine's, so it is the whole deadline."""
    with sqlalchemy_engine(dsn, SIZE, pool_timeout=DEADLINE, isolation_level="AUTOCOMMIT") as engine:

        def ask(number: int, left: float) -> int:
            with engine.connect() as connection:
                found = connection.execute(_SQLALCHEMY, {"number": number, "seconds": work(number)})
                return int(found.scalar_one())

        yield ask


def _ask_psycopg_in_thread(connection: Any, number: int, work: Work) -> int:
    return int(connection.execute(_PSYCOPG, (number, work(number))).fetchone()[0])
