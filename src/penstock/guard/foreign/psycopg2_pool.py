"""psycopg2's own pools, by their `getconn` and `putconn`; statements by the class of the cursors that are made."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

from psycopg2 import extensions  # type: ignore[import-untyped]
from psycopg2.pool import AbstractConnectionPool, PoolError  # type: ignore[import-untyped]

from .status import status
from .watched import Figures, Lease, Watched, harmless, weakly


def known(pool: Any) -> Psycopg2Pool | None:
    return Psycopg2Pool(pool) if isinstance(pool, AbstractConnectionPool) else None


class Psycopg2Pool:
    """Satisfies `watched.Theirs`."""

    def __init__(self, pool: Any) -> None:
        self._pool = weakly(pool)
        given = pool._kwargs.get("dbname") or pool._kwargs.get("database")
        dsn = pool._args[0] if pool._args else pool._kwargs.get("dsn", "")
        self.name = str(given or extensions.parse_dsn(dsn or "").get("dbname") or "psycopg2")

    def attach(self, watched: Watched) -> None:
        pool = self._pool()
        getconn, putconn = pool.getconn, pool.putconn

        def watched_getconn(*args: Any, **kwargs: Any) -> Any:
            try:
                conn = getconn(*args, **kwargs)
            except PoolError:
                watched.refused(0.0)
                raise
            _took(watched, conn)
            return conn

        def watched_putconn(conn: Any = None, *args: Any, **kwargs: Any) -> None:
            _gave(watched, conn)
            putconn(conn, *args, **kwargs)

        pool.getconn, pool.putconn = watched_getconn, watched_putconn

    def detach(self) -> None:
        pool = self._pool()
        if pool is not None:
            pool.__dict__.pop("getconn", None)
            pool.__dict__.pop("putconn", None)

    def release(self, conn: Any) -> None:
        _release(conn)

    def figures(self) -> Figures:
        pool = self._pool()
        if pool is None:
            return Figures(0, 0, 0, closed=True)
        return Figures(pool.minconn, pool.maxconn, len(pool._pool), len(pool._used), 0, pool.closed)

    def status(self, conn: Any) -> str:
        return status(conn)

    def look(self, lease: Lease) -> None:
        pass  # each statement is told of


_leases: dict[int, Lease] = {}  # by the connections' identities, for the cursors


@harmless
def _took(watched: Watched, conn: Any) -> None:
    watched.took(id(conn), weakly(conn))
    lease = watched.lease(id(conn))
    if lease is not None:
        _leases[id(conn)] = lease
        factory = conn.cursor_factory or extensions.cursor
        if isinstance(factory, type):
            conn.cursor_factory = _telling(factory)


@harmless
def _gave(watched: Watched, conn: Any) -> None:
    watched.gave(id(conn))
    _release(conn)


def _release(conn: Any) -> None:
    _leases.pop(id(conn), None)
    factory = getattr(conn, "cursor_factory", None)
    own = getattr(factory, "_watched_by_penstock", None)
    if own is not None:
        conn.cursor_factory = None if own is extensions.cursor else own


@cache
def _telling(cursor_class: Any) -> Any:
    """*cursor_class*, under its own name, telling of its statements."""
    if hasattr(cursor_class, "_watched_by_penstock"):
        return cursor_class
    methods = {name: _tracking(getattr(cursor_class, name)) for name in ("execute", "executemany", "callproc")}
    names = {"__module__": cursor_class.__module__, "__qualname__": cursor_class.__qualname__}
    marks = {**names, "_watched_by_penstock": cursor_class}
    return type(cursor_class.__name__, (cursor_class,), {**methods, **marks})


def _tracking(method: Callable[..., Any]) -> Any:
    @wraps(method)
    def tracking(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        lease = _leases.get(id(self.connection))
        if lease is None:
            return method(self, query, *args, **kwargs)
        lease.began(query)
        try:
            return method(self, query, *args, **kwargs)
        finally:
            lease.done()

    return tracking
