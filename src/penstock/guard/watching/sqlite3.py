"""sqlite3: its classes are C's, as psycopg2's are. What is only in memory, or of a temporary file, is nobody's."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable
from functools import cache, wraps
from types import ModuleType
from typing import Any

from ..settings import Settings
from . import opening
from .opening import closing, waiting

_FACTORY = 5  # its position among the arguments of `connect`


def install(module: ModuleType, settings: Settings) -> None:
    connect = sqlite3.connect

    @wraps(connect)
    def watched(*args: Any, **kwargs: Any) -> Any:
        name = _database(args[0] if args else kwargs.get("database"))
        note = None if name is None else opening.opening("sqlite3", lambda: name, sys._getframe(1))
        if note is None:
            return connect(*args, **kwargs)
        try:
            conn = connect(*_watching(args, kwargs), **kwargs)
        except BaseException as error:
            note.failed(error)
            raise
        if isinstance(conn, _Watched):
            note.opened(conn, status)
        else:
            note.unseen("sqlite3: a factory that is a function")
        return conn

    sqlite3.connect = sqlite3.dbapi2.connect = watched


def status(conn: Any) -> str:
    try:
        return "INTRANS" if conn.in_transaction else "IDLE"
    except sqlite3.ProgrammingError:  # it is closed
        return "BAD"


def _database(file: Any) -> str | None:
    try:
        name = os.fsdecode(file)
    except TypeError:  # sqlite3 is about to tell
        return None
    return None if not name or ":memory:" in name or "mode=memory" in name else name


def _watching(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments with the factory in them, or in *kwargs*, replaced by one of ours, if it is a class."""
    positional = len(args) > _FACTORY
    factory = args[_FACTORY] if positional else kwargs.get("factory", sqlite3.Connection)
    if not isinstance(factory, type):
        return args
    if positional:
        return (*args[:_FACTORY], _watched(factory), *args[_FACTORY + 1 :])
    kwargs["factory"] = _watched(factory)
    return args


@cache
def _watched(connection_class: Any) -> Any:
    bases = (_Watched,) if connection_class is sqlite3.Connection else (connection_class, _Watched)
    return type(connection_class.__name__, bases, _named_as(connection_class))


class _Watched(sqlite3.Connection):
    def cursor(self, factory: Any = sqlite3.Cursor) -> Any:
        return super().cursor(_cursor(factory) if isinstance(factory, type) else factory)

    # The class beneath makes a cursor of its own for these.

    def execute(self, *args: Any) -> Any:
        return self.cursor().execute(*args)

    def executemany(self, *args: Any) -> Any:
        return self.cursor().executemany(*args)

    def executescript(self, *args: Any) -> Any:
        return self.cursor().executescript(*args)


for _name in ("commit", "rollback"):
    setattr(_Watched, _name, waiting(getattr(sqlite3.Connection, _name)))
_Watched.close = closing(sqlite3.Connection.close)  # type: ignore[method-assign]


@cache
def _cursor(cursor_class: Any) -> Any:
    names = ("execute", "executemany", "executescript")
    methods = {name: _tracking(getattr(cursor_class, name)) for name in names}
    return type(cursor_class.__name__, (cursor_class,), methods | _named_as(cursor_class))


def _tracking(method: Callable[..., Any]) -> Any:
    @wraps(method)
    def tracking(self: Any, *args: Any) -> Any:
        conn = self.connection
        opening.began(conn, args[0] if args else None)
        try:
            return method(self, *args)
        finally:
            opening.done(conn)

    return tracking


def _named_as(cls: Any) -> dict[str, Any]:
    return {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
