"""What a pool costs its driver: psycopg2 through ours, and through the pools that its users have.

Ours looks at every connection before it hands it out. DBUtils is told to ping at each checkout (`ping=1`), but psycopg2
has no ping for it to call: it does not look, and repeats a statement that fails instead. psycopg2's own pool never
looks; with a ping it does what its manual leaves to the user. All connections are in autocommit, so that nothing is
paid for a transaction.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
from dbutils.pooled_db import PooledDB
from psycopg2.pool import ThreadedConnectionPool

import penstock
from bench.context import Context
from bench.measure import AsyncCycles, Cycles, microseconds, microseconds_async
from bench.report import Line, Result, figure, listed, times

CLAIM = (
    "psycopg2 through a pool, validated on every checkout, one thread: taken and given back, with SELECT 1 and without"
)
BAR = "no slower than psycopg2.pool with a ping, nor than DBUtils with ping=1 where a statement is run"

SIZE = 4


def run(ctx: Context) -> Result:
    with ExitStack() as pools:
        pool = pools.enter_context(_ours(ctx.dsn))
        own = pools.enter_context(_psycopg2_pool(ctx.dsn))
        utils = pools.enter_context(_dbutils(ctx.dsn))
        lines: list[Line] = []
        for what, act, bars in (
            ("psycopg2 checkout", _nothing, {"psycopg2.pool, ping": 1}),
            ("psycopg2 checkout + SELECT 1", _select, {"psycopg2.pool, ping": 1, "DBUtils ping=1": 1}),
        ):
            found = microseconds(
                {
                    "ours": _with_connection(pool, act),
                    "psycopg2.pool, ping": _getconn(own, _pinged(act)),
                    "psycopg2.pool": _getconn(own, act),
                    "DBUtils ping=1": _dbutils_connection(utils, act),
                }
            )
            lines += [*times(what, found["ours"], found, bars, "us"), _told(what, found)]
        lines.append(_sqlite3())
    return [*lines, asyncio.run(_threaded(ctx.dsn))]


def _told(what: str, found: dict[str, float]) -> Line:
    """For information: all figures."""
    ours = found.pop("ours")
    return Line(f"{what}, all", f"{figure(ours)} us", listed(found, "us"), "", "", None)


def _sqlite3() -> Line:
    """Beside what most do, as a connection to a file is opened so quickly."""
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "database")
        with penstock.Pool(file, driver="sqlite3", min_size=SIZE, max_size=SIZE, open=True) as pool:
            pool.wait()
            found = microseconds(
                {"ours": _with_connection(pool, _select), "connect each time": _connecting(file)},
            )
    return _told("sqlite3 checkout + SELECT 1", found)


async def _threaded(dsn: str) -> Line:
    """What it costs psycopg2 to be used from asyncio, beside psycopg 3, which needs no threads."""

    def autocommit(conn: Any) -> Any:
        return conn.run(setattr, "autocommit", True) if hasattr(conn, "run") else conn.set_autocommit(True)

    options: dict[str, Any] = {"min_size": SIZE, "max_size": SIZE, "open": False, "configure": autocommit}
    async with (
        penstock.AsyncPool(dsn, driver="psycopg2", **options) as threads,
        penstock.AsyncPool(dsn, **options) as native,
    ):
        await threads.wait()
        await native.wait()
        found = await microseconds_async({"ours": _awaited(threads), "psycopg, no threads": _awaited(native)})
    return _told("psycopg2 in an AsyncPool, checkout + SELECT 1", found)


# ------------------------------------------------------------------------------------------ pools


@contextmanager
def _ours(dsn: str) -> Iterator[Any]:
    with penstock.Pool(dsn, driver="psycopg2", min_size=SIZE, max_size=SIZE, configure=_autocommit, open=True) as pool:
        pool.wait()
        yield pool


@contextmanager
def _psycopg2_pool(dsn: str) -> Iterator[Any]:
    pool = ThreadedConnectionPool(SIZE, SIZE, dsn)
    conns = [pool.getconn() for _ in range(SIZE)]
    for conn in conns:
        _autocommit(conn)
        pool.putconn(conn)
    yield pool
    pool.closeall()


@contextmanager
def _dbutils(dsn: str) -> Iterator[Any]:
    def connect() -> Any:
        conn = psycopg2.connect(dsn)
        _autocommit(conn)
        return conn

    connect.dbapi = psycopg2  # type: ignore[attr-defined]
    pool = PooledDB(connect, mincached=SIZE, maxconnections=SIZE, blocking=True, reset=False, ping=1)
    yield pool
    pool.close()


def _autocommit(conn: Any) -> None:
    conn.autocommit = True


# ------------------------------------------------------------------------------------------ what is done


def _nothing(conn: Any) -> None:
    pass


def _select(conn: Any) -> None:
    cursor = conn.cursor()
    cursor.execute("SELECT 1")
    cursor.fetchone()
    cursor.close()


def _pinged(act: Callable[[Any], None]) -> Callable[[Any], None]:
    def pinged(conn: Any) -> None:
        _select(conn)
        act(conn)

    return pinged


def _with_connection(pool: Any, act: Callable[[Any], None]) -> Cycles:
    def cycles(count: int) -> None:
        for _ in range(count):
            with pool.connection() as conn:
                act(conn)

    return cycles


def _getconn(pool: Any, act: Callable[[Any], None]) -> Cycles:
    def cycles(count: int) -> None:
        for _ in range(count):
            conn = pool.getconn()
            try:
                act(conn)
            finally:
                pool.putconn(conn)

    return cycles


def _dbutils_connection(pool: Any, act: Callable[[Any], None]) -> Cycles:
    def cycles(count: int) -> None:
        for _ in range(count):
            conn = pool.connection()
            try:
                act(conn)
            finally:
                conn.close()

    return cycles


def _connecting(file: str) -> Cycles:
    def cycles(count: int) -> None:
        for _ in range(count):
            conn = sqlite3.connect(file)
            _select(conn)
            conn.close()

    return cycles


def _awaited(pool: Any) -> AsyncCycles:
    async def cycles(count: int) -> None:
        for _ in range(count):
            async with pool.connection() as conn:
                cursor = await conn.execute("SELECT 1")
                await cursor.fetchone()

    return cycles
