"""SQLAlchemy's pools, by the two methods that each of them lends and takes back with, and by SQLAlchemy's events.

Its events for a checkout and a statement would cost 3 and 15 microseconds each; what is done here costs half a one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import monotonic
from typing import Any
from weakref import WeakSet

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool, Pool, QueuePool

from ...core import Reason
from .status import status
from .watched import Figures, Lease, Watched

_EXECUTE = ("do_execute", "do_executemany")  # with a cursor, a statement, parameters and perhaps a context
_EXECUTE_BARE = "do_execute_no_params"


def known(pool: Any) -> SQLAlchemy | None:
    """:raises TypeError: for an engine whose pool is ours."""
    if isinstance(pool, AsyncEngine):
        pool = pool.sync_engine
    if not isinstance(pool, (Engine, Pool)):
        return None
    beneath = pool.pool if isinstance(pool, Engine) else pool
    if any(base.__module__.startswith("penstock.") for base in type(beneath).__mro__):
        raise TypeError("this engine's pool is Penstock's: it tells of itself by holders(), snapshot() and listen()")
    return SQLAlchemy(pool)


class SQLAlchemy:
    """Satisfies `watched.Theirs`. A connection is known by its record, which the pool keeps for it."""

    def __init__(self, pool: Engine | Pool) -> None:
        self._engine = pool if isinstance(pool, Engine) else None
        self._pool: Any = pool.pool if isinstance(pool, Engine) else pool
        url = None if self._engine is None else self._engine.url
        self.name = f"{url.database or url.get_backend_name()} (SQLAlchemy)" if url is not None else _logging_name(pool)
        self._listening: list[tuple[Any, str, Callable[..., Any]]] = []
        self._heard: WeakSet[Any] = WeakSet()  # its pool, and those before it that connections are still out of
        self._dialling: dict[int, float] = {}  # by the record: since when
        self._broken: set[int] = set()

    def attach(self, watched: Watched) -> None:
        self._watched = watched
        self._listen(self._pool, "close", self._close)
        self._listen(self._pool, "invalidate", self._invalidate)
        self._listen(self._pool, "connect", self._connect)
        if self._engine is not None:
            dialect: Any = self._engine.dialect
            for name in _EXECUTE:
                setattr(dialect, name, self._telling(getattr(dialect, name)))
            setattr(dialect, _EXECUTE_BARE, self._telling_bare(getattr(dialect, _EXECUTE_BARE)))
        self._hear(self._pool)

    def detach(self) -> None:
        for target, name, function in self._listening:
            if event.contains(target, name, function):
                event.remove(target, name, function)
        self._listening.clear()
        for pool in list(self._heard):
            _leave(pool)
        self._heard.clear()
        if self._engine is not None:
            for name in (*_EXECUTE, _EXECUTE_BARE):
                self._engine.dialect.__dict__.pop(name, None)

    def release(self, conn: Any) -> None:
        pass  # nothing was changed in it

    def figures(self) -> Figures:
        pool = self._pool if self._engine is None else self._engine.pool
        if isinstance(pool, QueuePool):
            size, most = pool.size(), pool._max_overflow
            limit = sys.maxsize if most < 0 else size + most
            return Figures(0, limit, pool.checkedin(), max(0, pool.checkedout()))
        return Figures(0, sys.maxsize if isinstance(pool, NullPool) else 1, 0)

    def status(self, conn: Any) -> str:
        return "BAD" if conn.dbapi_connection is None else status(conn.dbapi_connection)

    def look(self, lease: Lease) -> None:
        pass  # each statement is told of

    # ------------------------------------------------------------------------------------------ lent and taken back

    def _hear(self, pool: Any) -> None:
        watched = self._watched
        get, give, connect = pool._do_get, pool._do_return_conn, pool._invoke_creator
        recreate = pool.recreate
        own = type(pool)._do_get
        theirs = getattr(pool, "_pool", None) if isinstance(pool, QueuePool) else None

        def took(record: Any, waited: float = 0.0) -> Any:
            watched.took(id(record), record, waited)
            if pool._pre_ping and (lease := watched.lease(id(record))) is not None:
                lease.began(None)  # nobody has it in hand until `_checked_out`
            return record

        def getting() -> Any:
            if theirs is None or not -1 < pool._max_overflow <= pool._overflow or theirs.qsize():
                return took(get())
            began = monotonic()
            watched.waiting(1)
            try:
                record = own(pool)
            except PoolTimeout:
                watched.refused(monotonic() - began)
                raise
            finally:
                watched.waiting(-1)
            return took(record, monotonic() - began)

        def giving(record: Any) -> None:
            watched.gave(id(record))
            give(record)

        def connecting(record: Any) -> Any:
            """Also of a connection that was lent already and turned out to be too old, or dead."""
            lease = watched.lease(id(record))
            if lease is not None:
                lease.began(None)
            began = self._dialling[id(record)] = monotonic()
            try:
                return connect(record)
            except Exception as error:
                self._dialling.pop(id(record), None)
                watched.connect_failed(error, monotonic() - began)
                raise
            finally:
                if lease is not None:
                    lease.done()

        def recreating() -> Any:
            """The engine is being disposed of and gets another. What is out of this one still comes back to it."""
            self._pool = recreate()
            self._hear(self._pool)
            return self._pool

        connecting.own = connect  # type: ignore[attr-defined]
        pool._do_get, pool._do_return_conn, pool._invoke_creator = getting, giving, connecting
        if self._engine is not None:
            pool.recreate = recreating
        if pool._pre_ping and not event.contains(pool, "checkout", self._checked_out):
            self._listen(pool, "checkout", self._checked_out)
        self._heard.add(pool)

    def _checked_out(self, conn: Any, record: Any, proxy: Any) -> None:
        lease = self._watched.lease(id(record))
        if lease is not None:
            lease.done()

    def _connect(self, conn: Any, record: Any) -> None:
        began = self._dialling.pop(id(record), None)
        self._watched.opened(0.0 if began is None else monotonic() - began)

    def _close(self, conn: Any, record: Any) -> None:
        broken = id(record) in self._broken
        self._broken.discard(id(record))
        self._watched.note_closed(Reason.BROKEN if broken else Reason.THEIRS)

    def _invalidate(self, conn: Any, record: Any, error: Any) -> None:
        self._broken.add(id(record))

    # ------------------------------------------------------------------------------------------ statements

    def _telling(self, execute: Callable[..., Any]) -> Callable[..., Any]:
        def telling(cursor: Any, statement: Any, parameters: Any, context: Any = None) -> Any:
            lease = self._lease(context)
            if lease is None:
                return execute(cursor, statement, parameters, context)
            lease.statement, lease.running = statement, True
            try:
                return execute(cursor, statement, parameters, context)
            finally:
                lease.ended, lease.running = monotonic(), False

        return telling

    def _telling_bare(self, execute: Callable[..., Any]) -> Callable[..., Any]:
        def telling(cursor: Any, statement: Any, context: Any = None) -> Any:
            lease = self._lease(context)
            if lease is None:
                return execute(cursor, statement, context)
            lease.statement, lease.running = statement, True
            try:
                return execute(cursor, statement, context)
            finally:
                lease.ended, lease.running = monotonic(), False

        return telling

    def _lease(self, context: Any) -> Lease | None:
        """Of the connection that a statement is executed on."""
        try:
            return self._watched.lease(id(context.root_connection._dbapi_connection._connection_record))
        except AttributeError:  # the dialect's own, or on a connection that was detached
            return None

    def _listen(self, target: Any, name: str, function: Callable[..., Any]) -> None:
        event.listen(target, name, function)
        self._listening.append((target, name, function))


def _leave(pool: Any) -> None:
    for name in ("_do_get", "_do_return_conn", "recreate"):
        pool.__dict__.pop(name, None)
    pool._invoke_creator = getattr(pool._invoke_creator, "own", pool._invoke_creator)


def _logging_name(pool: Any) -> str:
    return str(getattr(pool, "logging_name", None) or type(pool).__name__)
