"""PyMySQL's connections, held."""

from __future__ import annotations

from types import ModuleType, TracebackType
from typing import Any

import pymysql  # type: ignore[import-untyped]
from pymysql import err
from pymysql.connections import Connection as Real  # type: ignore[import-untyped]

from ...drivers.dbapi import Lendable
from ..settings import Settings
from . import mysql, pools
from .connecting import fallback
from .facade import Connection
from .handle import Handle


def install(module: ModuleType, settings: Settings) -> None:
    """Let ``pymysql.connect``, which is the class of connections, lend from a pool."""

    def new(cls: Any, *args: Any, **kwargs: Any) -> Any:
        def theirs() -> Any:
            return object.__new__(cls)

        if issubclass(cls, Lendable):
            return theirs()  # a pool of ours
        return fallback("PyMySQL", lambda: _held(cls, args, kwargs, settings), theirs, err.Error)

    Real.__new__ = new


def _held(cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any], settings: Settings) -> Connection | None:
    if args or kwargs.get("defer_connect") or cls.__init__ is not Real.__init__:
        pools.say_once("PyMySQL connections that connect later, or in a way of their own, are not held")
        return None
    found = mysql.pool_for("pymysql", kwargs, None if cls is Real else cls, settings)
    if found is None:
        return None
    pool, timeout, kept = found
    handle = Handle(_Kind(pool), pool, timeout)
    handle.kept.update(kept)
    return _Connection(handle)


class _Kind(mysql.MySQLKind):
    def closed_error(self) -> Exception:
        return err.InterfaceError(0, "")  # type: ignore[no-any-return]


class _Connection(Connection):
    __slots__ = ()
    _cursor_class = mysql.MySQLCursor
    _real_class = pymysql.cursors.Cursor

    @property
    def open(self) -> bool:
        handle = self._handle
        return not handle.closed and not handle.over and (handle.conn is None or handle.conn.open)

    def close(self) -> None:
        if not self._handle.close():
            raise err.Error("Already closed")

    def query(self, sql: Any, unbuffered: bool = False) -> Any:
        self._handle.states(sql)
        return self._do("query", sql, unbuffered)

    def ping(self, reconnect: bool = False) -> None:
        """Ask the server; with *reconnect*, open the connection again if it was closed or has been lost."""
        handle = self._handle
        if reconnect and not self.open:
            handle.reopen(self)
        elif handle.closed:
            raise err.Error("Already closed")
        self._do("ping", reconnect)

    def connect(self, sock: Any = None) -> None:
        self._handle.reopen(self)

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
