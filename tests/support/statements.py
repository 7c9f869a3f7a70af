"""What the tests of statements that share connections have in common: pools for them, and a gate to hold them at."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg.rows import scalar_row

from penstock import AsyncPool
from penstock.drill.postgres import EmbeddedPostgres

from .either import opened
from .invariants import lost
from .waiting import soon

_numbers = count(1)


@asynccontextmanager
async def shared(conninfo: str, size: int = 1, **options: Any) -> AsyncIterator[AsyncPool[Any]]:
    """A pool of so many connections, filled. After the block all must have come back to it."""
    async with opened(AsyncPool, conninfo, **{"min_size": size, **options}) as pool:
        yield pool
        await at_rest(pool)


async def at_rest(pool: AsyncPool[Any]) -> None:
    """Wait until nothing is under way; fails if a slot, a statement or a share of a key was lost."""
    try:
        await soon(lambda: lost(pool._core) is None)
    except AssertionError:
        raise AssertionError(lost(pool._core)) from None
    snapshot = pool.snapshot()
    assert (snapshot.in_flight, snapshot.multiplexed, snapshot.waiting) == (0, 0, 0)


async def ended(*tasks: asyncio.Task[Any]) -> None:
    """Wait for the end of tasks that were cancelled."""
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks), "a cancellation was swallowed"


class Gate:
    """Statements stop at it, on the server, until it is opened: ``await pool.fetchval(gate.query, (7,))`` gives 7."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._number = next(_numbers)
        self._conn = psycopg.connect(server.admin_dsn, autocommit=True, row_factory=scalar_row)
        self.query = f"SELECT %s::int FROM pg_advisory_xact_lock_shared({self._number})"

    def __enter__(self) -> Self:
        self._conn.execute("SELECT pg_advisory_lock(%s)", [self._number])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._conn.close()

    @property
    def held(self) -> int:
        """Statements that stand before it, on the server."""
        query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
        return int(self._conn.execute(query, [self._number]).fetchone() or 0)

    def open(self) -> None:
        """For everybody, once and for all."""
        self._conn.execute("SELECT pg_advisory_unlock_all()")
