"""aiomysql: as PyMySQL, but that a connection closes itself when it is dropped."""

from __future__ import annotations

import sys
from functools import wraps
from types import ModuleType
from typing import Any

from aiomysql import connection  # type: ignore[import-untyped]

from .. import databases
from ..settings import Settings
from . import opening
from .opening import closing, dropping, waiting_async, wrap

_IN_TRANSACTION = 1  # of the server's status flags


def install(module: ModuleType, settings: Settings) -> None:
    connect = connection._connect

    @wraps(connect)
    def watched(*args: Any, **kwargs: Any) -> Any:
        note = opening.planned("aiomysql", lambda: databases.mysql(kwargs), sys._getframe(1))
        coroutine = connect(*args, **kwargs)
        return coroutine if note is None else opening.had(note, coroutine, status)

    connection._connect = opening.coroutine_function(watched)
    wrap(connection.Connection, waiting_async, "query", statement=True)
    wrap(connection.Connection, waiting_async, "begin", "commit", "rollback", "ping", "select_db", "next_result")
    wrap(connection.Connection, closing, "close")
    wrap(connection.Connection, dropping, "__del__")


def status(conn: Any) -> str:
    if conn._writer is None:
        return "BAD"
    result = conn._result
    flags = getattr(result, "server_status", None) or conn.server_status
    return "INTRANS" if flags & _IN_TRANSACTION else "IDLE"
