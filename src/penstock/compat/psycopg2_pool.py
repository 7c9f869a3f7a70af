"""The names of psycopg2.pool: `SimpleConnectionPool`, `ThreadedConnectionPool`, `PoolError`.

What differs is told in docs/compat.md: above all, `getconn` waits where psycopg2's raises at once.
"""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import suppress
from sys import _getframe
from threading import Lock
from typing import Any

try:
    import psycopg2  # type: ignore[import-untyped]
except ModuleNotFoundError as error:
    raise ImportError(f"penstock.compat.psycopg2_pool needs {error.name}: pip install 'penstock[psycopg2]'") from None

from .. import errors
from ..pool.sync import Pool

__all__ = ["AbstractConnectionPool", "PoolError", "SimpleConnectionPool", "ThreadedConnectionPool"]

PoolError = errors.under(errors.PoolError, psycopg2.OperationalError)


class AbstractConnectionPool:
    """At most *maxconn* connections, each made as ``psycopg2.connect(*args, **kwargs)`` makes them.

    :param minconn: connections kept open.
    :param maxconn: connections never exceeded.
    :raises PoolError: when *minconn* is not 0 and no connection can be had.
    """

    def __init__(self, minconn: int, maxconn: int, *args: Any, **kwargs: Any) -> None:
        self.minconn, self.maxconn = int(minconn), int(maxconn)
        options = {**dict(zip(("dsn", "connection_factory", "cursor_factory"), args, strict=False)), **kwargs}
        dsn = options.pop("dsn", None) or ""
        self._pool = Pool[Any](
            dsn, driver="psycopg2", kwargs=options, min_size=self.minconn, max_size=self.maxconn, open=True
        )
        self._lock = Lock()  # guards `_by_key`
        self._by_key: dict[Hashable, Any] = {}
        if self.minconn:
            try:
                self._pool.putconn(self._pool.getconn())
            except BaseException:
                self._pool.close(timeout=0)
                raise

    @property
    def closed(self) -> bool:
        """Whether `closeall` was called."""
        return self._pool.closed

    def getconn(self, key: Hashable = None) -> Any:
        """A connection, to be given back with `putconn`; under a *key* that has one already, that one if it is open.

        :raises PoolError: when none can be had within 30 seconds, or the pool is closed.
        """
        if key is not None and (held := self._held(key)) is not None:
            return held
        frame = _getframe(1)
        conn = self._pool._getconn(None, frame.f_code, frame.f_lasti)
        if key is None:
            return conn
        with self._lock:
            held = self._by_key.setdefault(key, conn)
        if held is not conn:  # another thread was quicker with the same key
            self._pool.putconn(conn)
        return held

    def _held(self, key: Hashable) -> Any:
        """What *key* has. None, too, if that was closed, or the thread that took it has ended and not returned it."""
        with self._lock:
            held = self._by_key.get(key)
        if held is None or self._is_good(held):
            return held
        with self._lock:
            if self._by_key.get(key) is held:
                del self._by_key[key]
        with suppress(ValueError):  # the pool has it already
            self._pool.putconn(held)
        return None

    def _is_good(self, held: Any) -> bool:
        pool = self._pool
        with suppress(ValueError):
            taker = pool._slot_of(held).by_hand
            if taker is not None and taker.ended:
                pool._take_back_from(taker)  # as it is about to do itself; what another thread has used it leaves
                pool._slot_of(held)
            return not held.closed
        return False  # it was taken back

    def putconn(self, conn: Any, key: Hashable = None, close: bool = False) -> None:
        """Give back a connection; with *close*, close it.

        :raises PoolError: when it is not this pool's, or was given back already.
        """
        with self._lock:
            for known, held in list(self._by_key.items()):
                if held is conn:
                    del self._by_key[known]
        if close:
            conn.close()
        try:
            self._pool.putconn(conn)
        except ValueError as error:
            raise PoolError(str(error)) from None

    def closeall(self) -> None:
        """Close the pool, and every connection in it; those that are out are closed when they come back.

        :raises PoolError: when it is closed already.
        """
        if self.closed:
            raise PoolError("connection pool is closed")
        self._pool.close(timeout=0)


class SimpleConnectionPool(AbstractConnectionPool):
    """As psycopg2's, but threads may share it."""


class ThreadedConnectionPool(AbstractConnectionPool):
    """As psycopg2's."""
