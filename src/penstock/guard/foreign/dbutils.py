"""DBUtils' PooledDB, with connections that are one thread's at a time, by what lends them and takes them back.

Nothing tells of statements: a holder's idle time counts from when he took the connection.
"""

from __future__ import annotations

import sys
from time import monotonic
from typing import Any

from dbutils.pooled_db import PooledDB, TooManyConnectionsError  # type: ignore[import-untyped]

from .status import status
from .watched import Figures, Lease, Watched, harmless, weakly

_AT_ONCE = 0.001  # seconds: what took no longer was waited for by nobody


def known(pool: Any) -> DBUtils | None:
    """:raises TypeError: for one whose connections are shared among threads."""
    if not isinstance(pool, PooledDB):
        return None
    if pool._maxshared:
        raise TypeError("watch() takes a PooledDB whose connections are not shared: PooledDB(..., maxshared=0)")
    return DBUtils(pool)


class DBUtils:
    """Satisfies `watched.Theirs`."""

    def __init__(self, pool: Any) -> None:
        self._pool = weakly(pool)
        self.name = f"{getattr(pool._creator, '__name__', None) or 'a function'} (DBUtils)"

    def attach(self, watched: Watched) -> None:
        pool = self._pool()
        connection, cache = pool.connection, pool.cache

        def watched_connection(*args: Any, **kwargs: Any) -> Any:
            began = monotonic()
            try:
                lent = connection(*args, **kwargs)
            except TooManyConnectionsError:
                watched.refused(monotonic() - began)
                raise
            _took(watched, lent, monotonic() - began)
            return lent

        def watched_cache(con: Any) -> None:
            watched.gave(id(con))
            cache(con)

        pool.connection, pool.cache = watched_connection, watched_cache

    def detach(self) -> None:
        pool = self._pool()
        if pool is not None:
            pool.__dict__.pop("connection", None)
            pool.__dict__.pop("cache", None)

    def release(self, conn: Any) -> None:
        pass  # nothing was changed in it

    def figures(self) -> Figures:
        pool = self._pool()
        if pool is None:
            return Figures(0, 0, 0, closed=True)
        return Figures(0, pool._maxconnections or sys.maxsize, len(pool._idle_cache), pool._connections)

    def status(self, conn: Any) -> str:
        return status(getattr(conn, "_con", conn))

    def look(self, lease: Lease) -> None:
        pass


@harmless
def _took(watched: Watched, lent: Any, waited: float) -> None:
    watched.took(id(lent._con), weakly(lent._con), waited if waited > _AT_ONCE else 0.0)
