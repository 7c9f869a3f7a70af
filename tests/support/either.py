"""One scenario for both classes: over a `Pool` nothing in it ever suspends, over an `AsyncPool` it is awaited."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from inspect import isawaitable
from typing import Any

import pytest

from penstock import AsyncPool, Pool

EitherPool = Pool[Any] | AsyncPool[Any]
Kind = type[Pool[Any]] | type[AsyncPool[Any]]

both = pytest.mark.parametrize("kind", [Pool, AsyncPool])


async def settled(value: Any) -> Any:
    """What an AsyncPool's method returns, awaited; what a Pool's returns, as it is."""
    return await value if isawaitable(value) else value


@asynccontextmanager
async def opened(kind: Kind, conninfo: Any, *, wait: bool = True, **options: Any) -> AsyncIterator[Any]:
    """A pool for the length of the block; with *wait*, filled at its beginning."""
    pool = kind(conninfo, open=False, **options)
    await settled(pool.open(wait=wait, timeout=10))
    try:
        yield pool
    finally:
        await settled(pool.close(timeout=1))


@asynccontextmanager
async def borrowed(pool: Any, timeout: float | None = None) -> AsyncIterator[Any]:
    """`pool.connection(timeout)`."""
    async with entered(pool.connection(timeout)) as conn:
        yield conn


@asynccontextmanager
async def in_transaction(pool: Any, timeout: float | None = None) -> AsyncIterator[Any]:
    """`pool.transaction(timeout)`."""
    async with entered(pool.transaction(timeout)) as conn:
        yield conn


@asynccontextmanager
async def entered(block: Any) -> AsyncIterator[Any]:
    """A block that a pool of either kind has made."""
    if hasattr(block, "__aenter__"):
        async with block as conn:
            yield conn
    else:
        with block as conn:
            yield conn


async def ask(conn: Any, statement: Any, *params: Any) -> Any:
    """The first column of the first row."""
    cursor = await settled(conn.execute(statement, params or None))
    row = await settled(cursor.fetchone())
    return row[0]


async def request(pool: Any, statement: Any = "SELECT 1", timeout: float | None = None) -> Any:
    """Borrow a connection, ask, give it back."""
    async with borrowed(pool, timeout) as conn:
        return await ask(conn, statement)
