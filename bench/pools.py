"""The contestants, each opened the way its manual says, with a fixed number of connections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg
import psycopg
import psycopg_pool
import sqlalchemy
from dbutils.pooled_db import PooledDB
from sqlalchemy.pool import QueuePool

import penstock

AUTOCOMMIT = {"autocommit": True}


@contextmanager
def ours(dsn: str, size: int, **options: Any) -> Iterator[penstock.Pool[Any]]:
    """penstock.Pool, with every default: validated on each checkout, holders on."""
    with penstock.Pool(dsn, min_size=size, max_size=size, **options) as pool:
        pool.wait()
        yield pool


@contextmanager
def psycopg_pool_sync(dsn: str, size: int, **options: Any) -> Iterator[psycopg_pool.ConnectionPool[Any]]:
    with psycopg_pool.ConnectionPool(dsn, min_size=size, max_size=size, open=True, **options) as pool:
        pool.wait()
        yield pool


@contextmanager
def sqlalchemy_engine(dsn: str, size: int, connect: Callable[[], Any] | None = None, **options: Any) -> Iterator[Any]:
    """A SQLAlchemy engine over psycopg, its connections open already."""
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=connect or (lambda: psycopg.connect(dsn)),
        pool_size=size,
        max_overflow=0,
        **options,
    )
    try:
        engine.connect().close()  # the first connection is used to look at the server; let that be over
        for connection in [engine.raw_connection() for _ in range(size)]:
            connection.close()
        yield engine
    finally:
        engine.dispose()


@contextmanager
def queue_pool(dsn: str, size: int, **options: Any) -> Iterator[QueuePool]:
    """SQLAlchemy's pool alone, over psycopg in autocommit, with nothing to reset: at its fastest."""
    pool = QueuePool(
        lambda: psycopg.connect(dsn, autocommit=True),  # type: ignore[arg-type]
        pool_size=size,
        max_overflow=0,
        reset_on_return=None,
        **options,
    )
    try:
        for connection in [pool.connect() for _ in range(size)]:
            connection.close()
        yield pool
    finally:
        pool.dispose()


@contextmanager
def dbutils_pool(dsn: str, size: int) -> Iterator[Any]:
    """DBUtils' PooledDB over psycopg in autocommit; it waits for a connection, without any time limit."""
    pool = PooledDB(
        psycopg, mincached=size, maxconnections=size, blocking=True, reset=False, conninfo=dsn, autocommit=True
    )
    try:
        yield pool
    finally:
        pool.close()


@asynccontextmanager
async def ours_async(dsn: str, size: int, **options: Any) -> AsyncIterator[penstock.AsyncPool[Any]]:
    """penstock.AsyncPool, with every default."""
    async with penstock.AsyncPool(dsn, min_size=size, max_size=size, open=False, **options) as pool:
        await pool.wait()
        yield pool


@asynccontextmanager
async def psycopg_pool_async(
    dsn: str, size: int, **options: Any
) -> AsyncIterator[psycopg_pool.AsyncConnectionPool[Any]]:
    async with psycopg_pool.AsyncConnectionPool(dsn, min_size=size, max_size=size, open=False, **options) as pool:
        await pool.wait()
        yield pool


@asynccontextmanager
async def asyncpg_pool(dsn: str, size: int, **options: Any) -> AsyncIterator[Any]:
    async with asyncpg.create_pool(dsn, min_size=size, max_size=size, **options) as pool:
        yield pool
