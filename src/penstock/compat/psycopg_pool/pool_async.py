"""psycopg_pool's pools for asyncio."""

from __future__ import annotations

import asyncio
from time import monotonic

from ... import errors
from ...multiplex.aio import AsyncPool
from ...pool.aio import C
from .common import PAUSE, Null, Workers

__all__ = ["AsyncConnectionPool", "AsyncNullConnectionPool"]


class AsyncConnectionPool(Workers, AsyncPool[C]):
    """`penstock.AsyncPool`, which has psycopg_pool's names and defaults.

    :param num_workers: connections opened at once up to `min_size`; above that it is one by one then, as psycopg's pool
        grows. Where it is not given, as many as are needed.
    """


class AsyncNullConnectionPool(Null, AsyncConnectionPool[C]):
    """A pool that keeps no connection: each is closed by who gives it back, unless somebody waits for it.

    As `penstock.AsyncPool`, but that `min_size` is 0, `max_size` may be 0, for any number, and `max_idle` and
    `num_workers` mean nothing.
    """

    async def wait(self, timeout: float = 30.0) -> None:
        """Open a connection, to see that one can be had, and close it.

        :raises PoolTimeout: when none is open within *timeout* seconds; the pool is closed then.
        :raises PoolClosed: when the pool is not open, or is closed meanwhile.
        """
        self._check_open()
        until = monotonic() + timeout
        while True:
            try:
                await self._hand_back(await self._borrow(max(0.0, until - monotonic())))
                return
            except errors.PoolTimeout as error:
                if not isinstance(error, errors.DatabaseUnavailable) or monotonic() + PAUSE >= until:
                    await self.close()
                    raise
            await asyncio.sleep(PAUSE)
