"""psycopg 3's connections for asyncio, held.

What the program gets is a connection of the class that it asked for, with attributes, handlers and adapters of its own,
over the `PGconn` of one of the pool's: as long as it has one, and then over that of another.
"""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cache, partial
from sys import _getframe
from typing import Any
from weakref import ref

import psycopg
from psycopg import conninfo as dsn
from psycopg._connection_base import BaseConnection
from psycopg._cursor_base import BaseCursor
from psycopg.adapt import AdaptersMap
from psycopg.pq import ConnStatus, TransactionStatus

from ...drivers.base import Activity
from ...drivers.psycopg import tracked
from ...drivers.session import Touched, touches
from .. import databases
from ..settings import Settings
from . import pools
from .aio import HeldAsyncPool, pool_for
from .aio_handle import AsyncHandle

_OF_THE_OBJECT = ("row_factory", "cursor_factory", "autocommit", "context")
_NOTHING = Touched.NOTHING


def install(settings: Settings) -> None:
    """Let ``psycopg.AsyncConnection.connect`` lend from a pool."""
    original: Any = psycopg.AsyncConnection.__dict__["connect"].__func__

    def connect(cls: Any, /, conninfo: str = "", **kwargs: Any) -> Any:
        asking = _getframe(1).f_globals.get("__name__", "")
        if asking.startswith("penstock."):  # a pool of ours
            return original(cls, conninfo, **kwargs)
        if asking.startswith("psycopg_pool."):
            pools.say_once("connections of psycopg_pool are not held: that is a pool already, with a size of its own")
            return original(cls, conninfo, **kwargs)
        return _connect(original, cls, conninfo, kwargs, settings)

    connect.__doc__ = original.__doc__
    psycopg.AsyncConnection.connect = classmethod(connect)  # type: ignore[assignment, method-assign]
    _lead_cursors()


async def _connect(original: Any, cls: Any, conninfo: str, kwargs: Mapping[str, Any], settings: Settings) -> Any:
    try:
        found = _pool(cls, conninfo, kwargs, settings)
    except Exception:
        pools.logger.exception("a connection of psycopg is not held")
        found = None
    if found is None:
        return await original(cls, conninfo, **kwargs)
    pool, timeout = found
    handle = AsyncHandle(_BODY, pool, timeout)
    await handle.open()
    return held(cls)(handle, kwargs)


def _pool(
    cls: Any, conninfo: str, kwargs: Mapping[str, Any], settings: Settings
) -> tuple[HeldAsyncPool, float | None] | None:
    """The pool for these arguments of `connect`, and how long to wait for one; None: they cannot be held."""
    given = {name: value for name, value in kwargs.items() if name not in _OF_THE_OBJECT}
    own = {name: given.pop(name) for name in ("prepare_threshold",) if name in given}
    try:
        params: dict[str, Any] = dsn.conninfo_to_dict(conninfo, **given)
    except (psycopg.Error, TypeError):
        return None  # its own `connect` says what is wrong
    if "replication" in params:
        pools.say_once("psycopg connections for replication are not held")
        return None
    timeout = float(params.pop("connect_timeout", None) or 0) or None
    where = databases.where(params)

    def make() -> Mapping[str, Any]:
        options = {"connect_timeout": timeout} if timeout else {}
        text = dsn.make_conninfo("", **params)
        return {"conninfo": text, "driver": "psycopg", "kwargs": own, "connection_class": cls, **options}

    key = ("psycopg", frozenset(params.items()), frozenset(own.items()), cls)
    return pool_for("psycopg", where, key, settings.max_size, make, databases.title(where)), timeout


def _lead_cursors() -> None:
    """Let a cursor work over what its connection has at the moment, whatever it had when the cursor was made."""
    start: Any = BaseCursor._start_query
    BaseCursor._pgconn = property(lambda self: self._conn.pgconn, lambda self, _: None)  # type: ignore[assignment]

    def _start_query(self: Any, query: Any = None) -> Any:
        if query is not None and (handle := getattr(self._conn, "_handle", None)) is not None:
            handle.states(query)
            if (touched := touches(query)) is not _NOTHING:
                self._conn._touched |= touched
        return start(self, query)

    BaseCursor._start_query = _start_query  # type: ignore[method-assign]


class _Body:
    explicit = False
    mysql = False

    def put_on(self, facade: Any, conn: Any) -> None:
        _hear(facade, conn.pgconn)
        touched, facade._touched_before = facade._touched_before, _NOTHING
        if touched is not _NOTHING:
            conn._touched |= touched

    def take_off(self, facade: Any, conn: Any) -> None:
        _hear(conn, conn.pgconn)
        if facade is not None:
            facade._last = conn.pgconn

    def is_broken(self, conn: Any) -> bool:
        return bool(conn.pgconn.status == ConnStatus.BAD)

    def may_rest(self, conn: Any) -> bool:
        return True

    def closed_error(self) -> Exception:
        return psycopg.OperationalError("the connection is closed")


_BODY = _Body()


def _hear(conn: Any, pgconn: Any) -> None:
    """From now on *conn* is told what the server says unasked."""
    weak = ref(conn)
    pgconn.notice_handler = partial(BaseConnection._notice_handler, weak)
    pgconn.notify_handler = partial(BaseConnection._notify_handler, weak)


class _IdleInfo(psycopg.ConnectionInfo):
    """Of a connection that has none of the pool's at the moment."""

    transaction_status = TransactionStatus.IDLE
    status = ConnStatus.OK
    pipeline_status = psycopg.pq.PipelineStatus.OFF


class _Held:
    """What a held connection does otherwise than psycopg's own. Stands before the program's class."""

    _handle: AsyncHandle
    _last: Any
    _touched_before = _NOTHING  # by a statement that is about to have a connection

    def __init__(self, handle: AsyncHandle, kwargs: Mapping[str, Any]) -> None:
        conn = handle.conn
        self._handle, self._last = handle, conn.pgconn
        super().__init__(conn.pgconn)  # type: ignore[call-arg]
        this: Any = self
        this._autocommit = bool(kwargs.get("autocommit", False))
        this.row_factory = kwargs.get("row_factory") or conn.row_factory
        this.cursor_factory = kwargs.get("cursor_factory") or conn.cursor_factory
        if context := kwargs.get("context"):
            this._adapters = AdaptersMap(context.adapters)
        handle.belongs_to(self)

    def __del__(self) -> None:
        handle: AsyncHandle | None = self.__dict__.get("_handle")
        if handle is not None and not handle.closed:
            warnings.warn(
                f"{object.__repr__(self)} was deleted while still open."
                " Please use 'with' or '.close()' to close the connection properly",
                ResourceWarning,
                stacklevel=2,
            )
            handle.dropped()

    # ------------------------------------------------------------------------------------------ over what it works

    @property
    def pgconn(self) -> Any:
        conn = self._handle.conn
        return self._last if conn is None else conn.pgconn

    @pgconn.setter
    def pgconn(self, _: Any) -> None:
        pass

    @property
    def _prepared(self) -> Any:
        """What is prepared on the server's side goes with the connection there."""
        conn = self._handle.conn
        return self.__dict__["_own_prepared"] if conn is None else conn._prepared

    @_prepared.setter
    def _prepared(self, value: Any) -> None:
        self.__dict__["_own_prepared"] = value

    @property
    def _touched(self) -> Any:
        conn = self._handle.conn
        return self._touched_before if conn is None else conn._touched

    @_touched.setter
    def _touched(self, value: Any) -> None:
        conn = self._handle.conn
        if conn is None:
            self._touched_before = value
        else:
            conn._touched = value

    @property
    def cursor_factory(self) -> Any:
        return self.__dict__["_cursor_factory"]

    @cursor_factory.setter
    def cursor_factory(self, value: Any) -> None:
        self.__dict__["_cursor_factory"] = tracked(value)

    @property
    def server_cursor_factory(self) -> Any:
        return self.__dict__["_server_cursor_factory"]

    @server_cursor_factory.setter
    def server_cursor_factory(self, value: Any) -> None:
        self.__dict__["_server_cursor_factory"] = tracked(value)

    async def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        handle = self._handle
        if handle.conn is None:
            await handle.attach()
        handle.enter()
        try:
            return await super().wait(gen, *args, **kwargs)  # type: ignore[misc]
        finally:
            handle.leave()

    @asynccontextmanager
    async def _pinned(self) -> AsyncIterator[None]:
        """In the block it keeps its connection."""
        handle = self._handle
        if handle.conn is None:
            await handle.attach()
        handle.pinned += 1
        try:
            yield
        finally:
            handle.pinned -= 1
            handle.rest()

    @asynccontextmanager
    async def transaction(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async with self._pinned(), super().transaction(*args, **kwargs) as transaction:  # type: ignore[misc]
            yield transaction

    @asynccontextmanager
    async def pipeline(self) -> AsyncIterator[Any]:
        async with self._pinned(), super().pipeline() as pipeline:  # type: ignore[misc]
            yield pipeline

    async def notifies(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async with self._pinned():
            async for notify in super().notifies(*args, **kwargs):  # type: ignore[misc]
                yield notify

    async def commit(self) -> None:
        await self._ending(super().commit)  # type: ignore[misc]

    async def rollback(self) -> None:
        await self._ending(super().rollback)  # type: ignore[misc]

    async def _ending(self, method: Callable[[], Any]) -> None:
        handle = self._handle
        if handle.conn is not None or handle.over is not None:  # or there is no transaction
            await method()
            handle.wrote = False

    async def close(self) -> None:
        self.__dict__["_closed"] = True
        await self._handle.close()

    # ------------------------------------------------------------------------------------------ how it is

    @property
    def closed(self) -> bool:
        handle = self._handle
        return handle.over is not None or (handle.conn is not None and bool(handle.conn.closed))

    @property
    def broken(self) -> bool:
        return self.closed and not self.__dict__["_closed"]

    @property
    def info(self) -> Any:
        if self._handle.conn is None and self._handle.over is None:
            return _IdleInfo(self._last)
        return super().info  # type: ignore[misc]

    def _check_connection_ok(self) -> None:
        handle = self._handle
        if handle.over is not None:
            raise handle.over()
        if handle.conn is not None:
            super()._check_connection_ok()  # type: ignore[misc]

    def _should_cancel(self) -> bool:
        return self._handle.conn is not None and super()._should_cancel()  # type: ignore[misc]


def _of_the_body(name: str, nobodys: Any = None) -> property:
    """An attribute of the pool's connection: what is noted of its use, and is to be undone after it."""

    def read(self: Any) -> Any:
        conn = self._handle.conn
        return nobodys if conn is None else getattr(conn, name)

    def write(self: Any, value: Any) -> None:
        conn = self._handle.conn
        if conn is not None:
            setattr(conn, name, value)

    return property(read, write)


for _name in ("_bounds", "_loss"):
    setattr(_Held, _name, _of_the_body(_name))
_Held._born_writable = _of_the_body("_born_writable", False)  # type: ignore[attr-defined]
_Held._activity = _of_the_body("_activity", Activity())  # type: ignore[attr-defined]


@cache
def held(connection_class: Any) -> Any:
    """A class for what the program gets in place of connections of *connection_class*."""
    plain = getattr(connection_class, "__origin__", connection_class)
    return type(plain.__name__, (_Held, plain), {"__module__": plain.__module__, "__qualname__": plain.__qualname__})
