"""asyncpg's pool. Its objects have no room for anything of ours, so it becomes one of a class derived from its own.

Nothing is noted of a statement as it runs: a look finds it in the frames of the task that waits for it, and finds from
asyncpg's own count of queries whether there were any since the last look. So times of idling are right to a second.
"""

from __future__ import annotations

from time import monotonic
from types import CoroutineType
from typing import Any
from urllib.parse import urlsplit

import asyncpg  # type: ignore[import-untyped]

from .status import status
from .watched import Figures, Lease, Watched, harmless

_AT_ONCE = 0.001  # seconds: what took no longer was waited for by nobody
_STATEMENTS = ("asyncpg.connection", "asyncpg.prepared_stmt", "asyncpg.cursor")


def known(pool: Any) -> AsyncpgPool | None:
    return AsyncpgPool(pool) if isinstance(pool, asyncpg.Pool) else None


class AsyncpgPool:
    """Satisfies `watched.Theirs`."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        given = str(pool._connect_args[0]) if pool._connect_args else ""
        self.name = pool._connect_kwargs.get("database") or urlsplit(given).path.strip("/") or "asyncpg"
        self._own = type(pool)

    def attach(self, watched: Watched) -> None:
        own: Any = self._own

        async def _acquire(pool: Any, timeout: float | None) -> Any:
            began = monotonic()
            try:
                proxy = await own._acquire(pool, timeout)
            except TimeoutError:
                watched.refused(monotonic() - began)
                raise
            _took(watched, proxy, monotonic() - began)
            return proxy

        async def release(pool: Any, connection: Any, *, timeout: float | None = None) -> None:
            watched.gave(id(getattr(connection, "_con", None)))
            await own.release(pool, connection, timeout=timeout)

        methods = {"__slots__": (), "__module__": own.__module__, "__qualname__": own.__qualname__}
        self._pool.__class__ = type(own.__name__, (own,), {**methods, "_acquire": _acquire, "release": release})

    def detach(self) -> None:
        self._pool.__class__ = self._own

    def release(self, conn: Any) -> None:
        pass  # nothing was changed in it

    def figures(self) -> Figures:
        pool = self._pool
        if pool._queue is None:  # not open yet
            return Figures(pool._minsize, pool._maxsize, 0)
        return Figures(
            min_size=pool.get_min_size(),
            max_size=pool.get_max_size(),
            idle=pool.get_idle_size(),
            waiting=len(pool._queue._getters),
            closed=pool._closed,
        )

    def status(self, conn: Any) -> str:
        return status(conn)

    def look(self, lease: Lease) -> None:
        protocol = lease.conn._protocol
        if protocol is None:  # it was terminated, which takes it from nobody's hands
            if lease.running:
                lease.done()
            return
        count = protocol.queries_count
        task = None if lease.task is None else lease.task()
        running, statement = _running(task)
        if running and not lease.running:
            lease.began(statement)
        elif not running and (lease.running or count != lease.uses):
            lease.done()
        lease.uses = count


@harmless
def _took(watched: Watched, proxy: Any, waited: float) -> None:
    conn = proxy._con
    watched.took(id(conn), conn, waited if waited > _AT_ONCE else 0.0)
    lease = watched.lease(id(conn))
    if lease is not None:
        lease.uses = conn._protocol.queries_count


def _running(task: Any) -> tuple[bool, Any]:
    """Whether the task waits for a statement's answer, and for which one's."""
    awaited: Any = None if task is None else task.get_coro()
    while isinstance(awaited, CoroutineType):
        frame = awaited.cr_frame
        if frame is not None and frame.f_globals.get("__name__") in _STATEMENTS:
            return True, frame.f_locals.get("query") or frame.f_locals.get("command")
        awaited = awaited.cr_await
    return False, None
