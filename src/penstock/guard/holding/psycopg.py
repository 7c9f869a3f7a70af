"""psycopg 3's blocking connections, held."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from sys import _getframe
from types import ModuleType, TracebackType
from typing import Any

import psycopg
from psycopg import conninfo as dsn
from psycopg._cursor_base import BaseCursor
from psycopg.adapt import AdaptersMap
from psycopg.pq import TransactionStatus

from ...drivers.psycopg import _ATTRIBUTES
from .. import databases
from ..settings import Settings
from . import pools, psycopg_async
from .connecting import fallback
from .facade import Connection, Cursor
from .handle import Handle, Kind

_OF_THE_OBJECT = ("row_factory", "cursor_factory")


def install(module: ModuleType, settings: Settings) -> None:
    """Let ``psycopg.connect``, and ``psycopg.Connection.connect``, lend from a pool."""
    original: Any = psycopg.Connection.__dict__["connect"].__func__

    def connect(cls: Any, /, conninfo: str = "", **kwargs: Any) -> Any:
        asking = _getframe(1).f_globals.get("__name__", "")

        def theirs() -> Any:
            return original(cls, conninfo, **kwargs)

        if asking.startswith("penstock."):  # a pool of ours
            return theirs()
        if asking.startswith("psycopg_pool."):
            pools.say_once("connections of psycopg_pool are not held: that is a pool already, with a size of its own")
            return theirs()
        return fallback("psycopg", lambda: _held(cls, conninfo, kwargs, settings), theirs, psycopg.Error)

    connect.__doc__ = original.__doc__
    psycopg.Connection.connect = classmethod(connect)  # type: ignore[assignment, method-assign]
    module.connect = psycopg.Connection.connect  # type: ignore[attr-defined]
    _lead_cursors(BaseCursor)
    psycopg_async.install(settings)


def _held(cls: Any, conninfo: str, kwargs: Mapping[str, Any], settings: Settings) -> Connection | None:
    kwargs = dict(kwargs)
    kept = {name: kwargs.pop(name) for name in _OF_THE_OBJECT if kwargs.get(name) is not None}
    own = {name: kwargs.pop(name) for name in ("autocommit", "prepare_threshold", "context") if name in kwargs}
    try:
        params: dict[str, Any] = dsn.conninfo_to_dict(conninfo, **kwargs)
    except (psycopg.Error, TypeError):
        return None  # its own `connect` says what is wrong
    if "replication" in params:
        pools.say_once("psycopg connections for replication are not held")
        return None
    timeout = float(params.pop("connect_timeout", None) or 0) or None
    where = databases.where(params)

    def make() -> tuple[str, dict[str, Any]]:
        options = {"connect_timeout": timeout} if timeout else {}
        return dsn.make_conninfo("", **params), {"kwargs": own, "connection_class": cls, **options}

    key = (frozenset(params.items()), frozenset(own.items()), cls)
    pool = pools.pool_for("psycopg", where, key, settings.max_size, make, databases.title(where))
    handle = Handle(_Kind(pool), pool, timeout)
    handle.kept.update(kept)
    return _Connection(handle)


def _lead_cursors(base: Any) -> None:
    """Let ``psycopg.ClientCursor(conn)``, of a connection of ours, be a cursor of ours."""

    def new(cls: Any, connection: Any = None, *args: Any, **kwargs: Any) -> Any:
        if not issubclass(type(connection), _Connection):
            return object.__new__(cls)
        return connection._made(lambda conn: cls(conn, *args, **kwargs))

    base.__new__ = new


class _Kind(Kind):
    def is_dispensable(self, handle: Handle, conn: Any) -> bool:
        if conn.isolation_level not in (None, psycopg.IsolationLevel.READ_COMMITTED):
            return False  # it sees what there was when it began
        if any(isinstance(cursor._real, psycopg.ServerCursor) for cursor in handle.cursors):
            return False
        return self.undoes(handle, conn)

    def keep(self, conn: Any) -> dict[str, Any]:
        attributes, preparing = conn._adopted
        then = zip(_ATTRIBUTES, attributes, strict=True)
        kept = {name: now for name, value in then if (now := getattr(conn, name)) is not value and now != value}
        if (conn.prepare_threshold, conn.prepared_max) != preparing:
            kept["prepare_threshold"], kept["prepared_max"] = conn.prepare_threshold, conn.prepared_max
        for name, own in zip(("_notice_handlers", "_notify_handlers"), conn._handlers, strict=True):
            if (now := getattr(conn, name)) != own:
                kept[name] = list(now)
        if hasattr(conn, "_pools_adapters"):
            kept["adapters"] = conn._adapters
            self.forget_kept(conn)
        return kept

    def forget_kept(self, conn: Any) -> None:
        if hasattr(conn, "_pools_adapters"):
            conn._adapters = conn._pools_adapters
            del conn._pools_adapters

    def apply(self, conn: Any, kept: dict[str, Any]) -> None:
        for name, value in kept.items():
            if name == "adapters":
                conn._pools_adapters, conn._adapters = conn._adapters, value
            elif name.endswith("_handlers"):
                getattr(conn, name)[:] = value
                conn.add_notice_handler(_nothing)  # so that it is noted that there are others
                conn.remove_notice_handler(_nothing)
            else:
                # By its property, if it has one: that notes it as changed, and what BEGIN is to say.
                setattr(conn, name[1:] if name.startswith("_") else name, value)

    def closed_error(self) -> Exception:
        return psycopg.OperationalError("the connection is closed")


def _nothing(_: object) -> None:
    pass


class _Cursor(Cursor):
    def stream(self, query: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        self._handle.states(query)
        with _Pinned(self._handle, lambda conn: self._live(conn).stream(query, *args, **kwargs)) as rows:
            yield from rows

    def copy(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        self._handle.states(statement)
        return _Pinned(self._handle, lambda conn: self._live(conn).copy(statement, *args, **kwargs))

    @property
    def closed(self) -> bool:
        return self._over or self._handle.closed or bool(self._real.closed)


class _Connection(Connection):
    __slots__ = ()
    _cursor_class = _Cursor
    _real_class = BaseCursor

    @property
    def closed(self) -> bool:
        handle = self._handle
        return handle.closed or handle.over is not None or (handle.conn is not None and handle.conn.closed)

    @property
    def broken(self) -> bool:
        handle = self._handle
        return not handle.closed and (handle.over is not None or (handle.conn is not None and handle.conn.broken))

    @property
    def adapters(self) -> Any:
        """A map of this connection's own, which goes with it."""
        handle = self._handle
        conn = handle.enter()
        try:
            if not hasattr(conn, "_pools_adapters"):
                conn._pools_adapters, conn._adapters = conn._adapters, AdaptersMap(conn.adapters)
                conn._touched |= type(conn._touched).CLIENT
            return conn._adapters
        finally:
            handle.leave()

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        self._handle.states(query)
        return self._do("execute", query, *args, **kwargs)

    def _do(self, name: str, *args: Any, **kwargs: Any) -> Any:
        handle = self._handle
        conn = handle.enter()
        try:
            result = getattr(conn, name)(*args, **kwargs)
            if isinstance(result, BaseCursor):
                make = partial(_like, name, result, args, kwargs)
                return _Cursor(self, conn, result, make)
            return self if result is conn else result
        finally:
            handle.leave()

    def _made(self, make: Callable[[Any], Any]) -> Any:
        handle = self._handle
        conn = handle.enter()
        try:
            return _Cursor(self, conn, make(conn), make)
        finally:
            handle.leave()

    def transaction(self, *args: Any, **kwargs: Any) -> Any:
        return _Pinned(self._handle, lambda conn: conn.transaction(*args, **kwargs))

    def pipeline(self) -> Any:
        return _Pinned(self._handle, lambda conn: conn.pipeline())

    def notifies(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        with _Pinned(self._handle, lambda conn: conn.notifies(*args, **kwargs)) as found:
            yield from found

    def cancel(self) -> None:
        if self._handle.conn is not None:
            self._do("cancel")

    def cancel_safe(self, *args: Any, **kwargs: Any) -> None:
        if self._handle.conn is not None:
            self._do("cancel_safe", *args, **kwargs)

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.closed:
            return
        try:
            if kind is None:
                self.commit()
            elif (conn := self._handle.conn) is not None and conn.pgconn.transaction_status != TransactionStatus.IDLE:
                self.rollback()
        finally:
            self.close()


def _like(name: str, cursor: Any, args: Any, kwargs: Any, conn: Any) -> Any:
    """A cursor over *conn* as *cursor* was made: by `cursor`, or by a method that has executed something with it."""
    return conn.cursor(*args, **kwargs) if name == "cursor" else type(cursor)(conn, row_factory=cursor.row_factory)


class _Pinned:
    """A block, or what is read piece by piece, that needs the same connection from its beginning to its end."""

    def __init__(self, handle: Handle, make: Callable[[Any], Any]) -> None:
        self._handle = handle
        self._make = make
        self._block: Any = None

    def __enter__(self) -> Any:
        handle = self._handle
        conn = handle.enter()
        try:
            self._block = self._make(conn)
            entered = self._block.__enter__() if hasattr(self._block, "__enter__") else self._block
            handle.pinned += 1
            return entered
        finally:
            handle.leave()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Any:
        handle = self._handle
        handle.pinned -= 1
        if not hasattr(self._block, "__exit__"):
            return None
        handle.enter()
        try:
            return self._block.__exit__(kind, error, traceback)
        finally:
            handle.leave()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._block, name)
