"""PyMySQL: all in Python, so its class is changed where it stands."""

from __future__ import annotations

import sys
from functools import wraps
from types import ModuleType
from typing import Any

from pymysql.connections import Connection  # type: ignore[import-untyped]

from .. import databases
from ..settings import Settings
from . import opening
from .opening import closing, waiting, wrap

_IN_TRANSACTION = 1  # of the server's status flags


def install(module: ModuleType, settings: Settings) -> None:
    connect = Connection.connect

    @wraps(connect)
    def watched(self: Any, *args: Any, **kwargs: Any) -> None:
        note = opening.opening("pymysql", lambda: databases.mysql(vars(self)), sys._getframe(1))
        if note is None:
            connect(self, *args, **kwargs)
            return
        try:
            connect(self, *args, **kwargs)
        except BaseException as error:
            note.failed(error)
            raise
        note.opened(self, status)

    Connection.connect = watched
    wrap(Connection, waiting, "query", statement=True)
    wrap(Connection, waiting, "begin", "commit", "rollback", "ping", "select_db", "next_result")
    wrap(Connection, closing, "close")


def status(conn: Any) -> str:
    if conn._sock is None:
        return "BAD"
    return "INTRANS" if conn.server_status & _IN_TRANSACTION else "IDLE"
