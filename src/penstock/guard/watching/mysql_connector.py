"""mysql.connector: two classes of connections, one over its own C library and one in Python."""

from __future__ import annotations

import sys
from functools import wraps
from types import ModuleType
from typing import Any

from mysql.connector.connection import MySQLConnection

from .. import databases
from ..settings import Settings
from . import opening
from .opening import closing, waiting, wrap

_WAITING = ("cmd_stmt_prepare", "cmd_stmt_execute", "commit", "rollback", "get_rows", "get_row", "next_result")


def install(module: ModuleType, settings: Settings) -> None:
    _watch(MySQLConnection)
    if getattr(module, "HAVE_CEXT", False):
        _watch(module.CMySQLConnection)


def _watch(connection_class: Any) -> None:
    wrap(connection_class, _connecting, "_open_connection")
    wrap(connection_class, waiting, "cmd_query", statement=True)
    wrap(connection_class, waiting, *_WAITING)
    wrap(connection_class, closing, "close", "disconnect", "shutdown")


def _connecting(connect: Any) -> Any:
    @wraps(connect)
    def watched(self: Any) -> None:
        note = opening.opening("mysql.connector", lambda: _database(self), sys._getframe(1))
        if note is None:
            connect(self)
            return
        try:
            connect(self)
        except BaseException as error:
            note.failed(error)
            raise
        note.opened(self, status)

    return watched


def _database(conn: Any) -> str:
    names = ("host", "port", "database", "unix_socket")
    return databases.mysql({name: getattr(conn, f"_{name}", None) for name in names})


def status(conn: Any) -> str:
    if not (getattr(conn, "_cmysql", None) or getattr(conn, "_socket", None)):
        return "BAD"
    return "INTRANS" if conn.in_transaction else "IDLE"
