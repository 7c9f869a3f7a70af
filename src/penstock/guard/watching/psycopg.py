"""psycopg 3, for threads and for asyncio: whatever waits for the server on a connection does so in its `wait`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import lru_cache, wraps
from types import ModuleType
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from .. import databases
from ..settings import Settings
from . import opening
from .opening import waiting, waiting_async, wrap

_STATUS = ("IDLE", "ACTIVE", "INTRANS", "INERROR", "BAD")  # by libpq's numbers
_WHERE = ("host", "hostaddr", "port", "dbname", "user")


def install(module: ModuleType, settings: Settings) -> None:
    for connection in (psycopg.Connection, psycopg.AsyncConnection):
        is_async = connection is psycopg.AsyncConnection
        connect = vars(connection)["connect"].__func__
        connection.connect = classmethod((_connecting_async if is_async else _connecting)(connect))  # type: ignore[assignment]
        wrap(connection, waiting_async if is_async else waiting, "wait")
        wrap(connection, _closing_async if is_async else _closing, "close")
    for cursor in (psycopg.Cursor, psycopg.AsyncCursor, psycopg.ServerCursor, psycopg.AsyncServerCursor):
        wrap(cursor, _noting, "execute", "executemany", "stream", "copy")
    module.connect = psycopg.Connection.connect  # type: ignore[attr-defined]


def status(conn: Any) -> str:
    return _STATUS[conn.pgconn.transaction_status]


def _connecting(connect: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(connect)
    def watched(cls: Any, conninfo: str = "", **kwargs: Any) -> Any:
        note = opening.opening("psycopg", lambda: _database(conninfo, kwargs), sys._getframe(1))
        if note is None:
            return connect(cls, conninfo, **kwargs)
        try:
            conn = connect(cls, conninfo, **kwargs)
        except BaseException as error:
            note.failed(error)
            raise
        note.opened(conn, status)
        return conn

    return watched


def _connecting_async(connect: Callable[..., Any]) -> Any:
    @wraps(connect)
    def watched(cls: Any, conninfo: str = "", **kwargs: Any) -> Any:
        # Here, where it is called: it may be awaited by a task that says nothing of who asked.
        note = opening.planned("psycopg (asyncio)", lambda: _database(conninfo, kwargs), sys._getframe(1))
        coroutine = connect(cls, conninfo, **kwargs)
        return coroutine if note is None else opening.had(note, coroutine, status)

    return opening.coroutine_function(watched)


def _database(conninfo: str, kwargs: dict[str, Any]) -> str:
    return _named(conninfo, tuple((name, kwargs[name]) for name in _WHERE if name in kwargs))


@lru_cache(maxsize=64)
def _named(conninfo: str, kwargs: tuple[tuple[str, Any], ...]) -> str:
    try:
        params: dict[str, Any] = dict(conninfo_to_dict(conninfo))
    except psycopg.Error:  # it is about to tell
        params = {}
    return databases.postgresql({**params, **dict(kwargs)})


def _closing(close: Any) -> Any:
    @wraps(close)
    def watched(self: Any) -> None:
        try:
            close(self)
        finally:
            if self.closed:  # and not given back to a pool
                opening.closed(self)

    return watched


def _closing_async(close: Any) -> Any:
    @wraps(close)
    async def watched(self: Any) -> None:
        try:
            await close(self)
        finally:
            if self.closed:
                opening.closed(self)

    return watched


def _noting(method: Any) -> Any:
    @wraps(method)
    def watched(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        opening.noted(self.connection, query)
        return method(self, query, *args, **kwargs)

    return opening.coroutine_function(watched) if inspect.iscoroutinefunction(method) else watched
