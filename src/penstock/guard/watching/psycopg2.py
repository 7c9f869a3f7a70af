"""psycopg2: its classes are C's and cannot be changed, so connections are of a class of that name derived from it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache, lru_cache, wraps
from types import ModuleType
from typing import Any

from psycopg2 import extensions  # type: ignore[import-untyped]

from .. import databases
from ..settings import Settings
from . import opening
from .opening import closing, waiting

_STATUS = {
    extensions.TRANSACTION_STATUS_IDLE: "IDLE",
    extensions.TRANSACTION_STATUS_ACTIVE: "ACTIVE",
    extensions.TRANSACTION_STATUS_INTRANS: "INTRANS",
    extensions.TRANSACTION_STATUS_INERROR: "INERROR",
    extensions.TRANSACTION_STATUS_UNKNOWN: "BAD",
}
_NAMED = ("fetchone", "fetchmany", "fetchall", "scroll")  # of a cursor with a name, each is a statement


def install(module: ModuleType, settings: Settings) -> None:
    """What is wrapped is what `psycopg2.connect` calls: that one stays as it is, wherever it was imported to."""
    connect = module._connect

    @wraps(connect)
    def watched(dsn: Any, connection_factory: Any = None, **kwargs: Any) -> Any:
        note = opening.opening("psycopg2", lambda: _database(dsn), sys._getframe(1))
        if note is None:
            return connect(dsn, connection_factory=connection_factory, **kwargs)
        try:
            conn = connect(dsn, connection_factory=_watching(connection_factory), **kwargs)
        except BaseException as error:
            note.failed(error)
            raise
        if isinstance(conn, _Watched):
            note.opened(conn, status)
        else:
            note.unseen("psycopg2: a connection_factory that is a function and returns psycopg2's own class")
        return conn

    module._connect = watched  # type: ignore[attr-defined]


def status(conn: Any) -> str:
    return _STATUS[conn.get_transaction_status()]


@lru_cache(maxsize=64)
def _database(dsn: Any) -> str:
    """*dsn*: with all that `connect` was given."""
    try:
        params = extensions.parse_dsn(dsn)
    except Exception:  # psycopg2 is about to tell
        params = {}
    return databases.postgresql(params)


def _watching(factory: Any) -> Any:
    """*factory*, making connections of a class of ours."""
    if factory is None:
        factory = extensions.connection
    if isinstance(factory, type):
        return _watched(factory)

    def make(*args: Any, **kwargs: Any) -> Any:
        conn = factory(*args, **kwargs)
        with suppress(TypeError):  # psycopg2's own class, whose connections keep theirs
            conn.__class__ = _watched(type(conn))  # type: ignore[arg-type]
        return conn

    return make


@cache
def _watched(connection_class: Any) -> Any:
    """*connection_class*, under its own name. What it does itself comes before: what reaches psycopg2 counts."""
    bases = (_Watched,) if connection_class is extensions.connection else (connection_class, _Watched)
    return type(connection_class.__name__, bases, _named_as(connection_class))


class _Watched(extensions.connection):  # type: ignore[misc]
    __slots__ = ()

    def cursor(
        self, name: Any = None, cursor_factory: Any = None, withhold: bool = False, scrollable: bool | None = None
    ) -> Any:
        factory = cursor_factory or self.cursor_factory or extensions.cursor
        if isinstance(factory, type):
            factory = _cursor(factory, name is not None)
        return super().cursor(name, factory, withhold, scrollable)


for _name in (
    "commit",
    "rollback",
    "reset",
    "set_client_encoding",
    "poll",
    "tpc_prepare",
    "tpc_commit",
    "tpc_rollback",
):
    setattr(_Watched, _name, waiting(getattr(extensions.connection, _name)))
_Watched.close = closing(extensions.connection.close)


@cache
def _cursor(cursor_class: Any, named: bool) -> Any:
    statements = ("execute", "executemany", "callproc", "copy_expert")
    methods = {name: _tracking(getattr(cursor_class, name)) for name in statements}
    methods |= {name: _tracking(getattr(cursor_class, name), False) for name in ("copy_from", "copy_to")}
    if named:
        methods |= {name: _tracking(getattr(cursor_class, name), False) for name in _NAMED}
    return type(cursor_class.__name__, (cursor_class,), methods | _named_as(cursor_class))


def _tracking(method: Callable[..., Any], is_statement: bool = True) -> Any:
    @wraps(method)
    def tracking(self: Any, *args: Any, **kwargs: Any) -> Any:
        conn = self.connection
        opening.began(conn, args[0] if is_statement and args else None)
        try:
            return method(self, *args, **kwargs)
        finally:
            opening.done(conn)

    return tracking


def _named_as(cls: Any) -> dict[str, Any]:
    marks = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return {**marks, "__slots__": ()}  # psycopg2's own take no attributes
