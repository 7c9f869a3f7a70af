"""psycopg_pool's pools, by their `getconn` and `putconn`; statements by the one method that waits for the server."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolTimeout, TooManyRequests

from .status import status
from .watched import Figures, Lease, Watched, harmless, weakly


def known(pool: Any) -> PsycopgPool | None:
    if isinstance(pool, AsyncConnectionPool):
        return AsyncPsycopgPool(pool)
    return PsycopgPool(pool) if isinstance(pool, ConnectionPool) else None


class PsycopgPool:
    """Satisfies `watched.Theirs`."""

    def __init__(self, pool: Any) -> None:
        self._pool = weakly(pool)  # its methods, which are ours now, refer to us
        self.name = pool.name

    def attach(self, watched: Watched) -> None:
        pool = self._pool()
        getconn, putconn = pool.getconn, pool.putconn

        def watched_getconn(timeout: float | None = None) -> Any:
            began = monotonic()
            try:
                conn = getconn(timeout)
            except (PoolTimeout, TooManyRequests):
                watched.refused(monotonic() - began)
                raise
            _took(watched, conn, monotonic() - began)
            return conn

        def watched_putconn(conn: Any) -> None:
            _gave(watched, conn)
            putconn(conn)

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
        stats = pool.get_stats()
        return Figures(
            min_size=stats["pool_min"],
            max_size=stats["pool_max"],
            idle=stats["pool_available"],
            waiting=stats["requests_waiting"],
            closed=pool.closed,
            connects=stats.get("connections_num", 0),
            connect_errors=stats.get("connections_errors", 0),
            connect_seconds=stats.get("connections_ms", 0) / 1000,
            lost=stats.get("connections_lost", 0),
        )

    def status(self, conn: Any) -> str:
        return status(conn)

    def look(self, lease: Lease) -> None:
        pass  # each statement is told of


class AsyncPsycopgPool(PsycopgPool):
    def attach(self, watched: Watched) -> None:
        pool = self._pool()
        getconn, putconn = pool.getconn, pool.putconn

        async def watched_getconn(timeout: float | None = None) -> Any:
            began = monotonic()
            try:
                conn = await getconn(timeout)
            except (PoolTimeout, TooManyRequests):
                watched.refused(monotonic() - began)
                raise
            _took(watched, conn, monotonic() - began)
            return conn

        async def watched_putconn(conn: Any) -> None:
            _gave(watched, conn)
            await putconn(conn)

        pool.getconn, pool.putconn = watched_getconn, watched_putconn


_AT_ONCE = 0.001  # seconds: what took no longer was waited for by nobody


@harmless
def _took(watched: Watched, conn: Any, waited: float) -> None:
    watched.took(id(conn), weakly(conn), waited if waited > _AT_ONCE else 0.0)
    lease = watched.lease(id(conn))
    if lease is not None:
        is_async = hasattr(conn, "__aenter__")
        conn.wait = (_waiting_async if is_async else _waiting)(type(conn).wait, weakly(conn), lease)


@harmless
def _gave(watched: Watched, conn: Any) -> None:
    _release(conn)
    watched.gave(id(conn))


def _release(conn: Any) -> None:
    conn.__dict__.pop("wait", None)


def _waiting(wait: Callable[..., Any], weak: Any, lease: Lease) -> Any:
    def waiting(gen: Any, *args: Any, **kwargs: Any) -> Any:
        lease.began(_statement(gen))
        try:
            return wait(weak(), gen, *args, **kwargs)
        finally:
            lease.done()

    return waiting


def _waiting_async(wait: Callable[..., Any], weak: Any, lease: Lease) -> Any:
    async def waiting(gen: Any, *args: Any, **kwargs: Any) -> Any:
        lease.began(_statement(gen))
        try:
            return await wait(weak(), gen, *args, **kwargs)
        finally:
            lease.done()

    return waiting


def _statement(gen: Any) -> Any:
    """What is about to be executed: an argument of the generator that does it; None for a commit, say."""
    frame = getattr(gen, "gi_frame", None)
    return None if frame is None else frame.f_locals.get("query")
