"""psycopg_pool's pools for threads."""

from __future__ import annotations

from time import monotonic, sleep

from ... import errors
from ...pool.sync import C, Pool
from .common import PAUSE, Null, Workers

__all__ = ["ConnectionPool", "NullConnectionPool"]


class ConnectionPool(Workers, Pool[C]):
    """`penstock.Pool`, which has psycopg_pool's names and defaults.

    :param num_workers: connections opened at once up to `min_size`; above that it is one by one then, as psycopg's pool
        grows. Where it is not given, as many as are needed.
    """


class NullConnectionPool(Null, ConnectionPool[C]):
    """A pool that keeps no connection: each is closed by who gives it back, unless somebody waits for it.

    As `penstock.Pool`, but that `min_size` is 0, `max_size` may be 0, for any number, and `max_idle` and `num_workers`
    mean nothing.
    """

    def wait(self, timeout: float = 30.0) -> None:
        """Open a connection, to see that one can be had, and close it.

        :raises PoolTimeout: when none is open within *timeout* seconds; the pool is closed then.
        :raises PoolClosed: when the pool is not open, or is closed meanwhile.
        """
        self._check_open()
        until = monotonic() + timeout
        while True:
            try:
                self._hand_back(self._borrow(max(0.0, until - monotonic())))
                return
            except errors.PoolTimeout as error:
                if not isinstance(error, errors.DatabaseUnavailable) or monotonic() + PAUSE >= until:
                    self.close()
                    raise
            sleep(PAUSE)
