"""asyncpg: the methods of its connections, its transactions' among them, and of its prepared statements."""

from __future__ import annotations

import sys
from functools import wraps
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from asyncpg import connection, prepared_stmt  # type: ignore[import-untyped]

from .. import databases
from ..settings import Settings
from . import opening
from .opening import closing, closing_async, dropping, waiting_async, wrap

_STATEMENTS = ("execute", "executemany", "fetch", "fetchval", "fetchrow", "fetchmany", "prepare", "copy_from_query")
_COPIES = ("copy_from_table", "copy_to_table", "copy_records_to_table", "reset")
_PREPARED = ("fetch", "fetchval", "fetchrow", "fetchmany", "executemany", "explain")


def install(module: ModuleType, settings: Settings) -> None:
    connect = connection.connect

    @wraps(connect)
    def watched(dsn: Any = None, **kwargs: Any) -> Any:
        note = opening.planned("asyncpg", lambda: _database(dsn, kwargs), sys._getframe(1))
        coroutine = connect(dsn, **kwargs)
        return coroutine if note is None else opening.had(note, coroutine, status)

    module.connect = connection.connect = opening.coroutine_function(watched)  # type: ignore[attr-defined]
    wrap(connection.Connection, waiting_async, *_STATEMENTS, statement=True)
    wrap(connection.Connection, waiting_async, *_COPIES)
    wrap(connection.Connection, closing_async, "close")
    wrap(connection.Connection, closing, "terminate")
    wrap(connection.Connection, dropping, "__del__")
    wrap(prepared_stmt.PreparedStatement, _waiting_prepared, *_PREPARED)


def status(conn: Any) -> str:
    if conn.is_closed():
        return "BAD"
    return "INTRANS" if conn.is_in_transaction() else "IDLE"


def _database(dsn: str | None, kwargs: dict[str, Any]) -> str:
    found = urlsplit(dsn or "")
    try:
        port = found.port
    except ValueError:  # several hosts
        port = None
    params = {"host": found.hostname, "port": port, "dbname": found.path.lstrip("/"), "user": found.username}
    given = {name: kwargs[name] for name in ("host", "port", "user") if kwargs.get(name)}
    if kwargs.get("database"):
        given["dbname"] = kwargs["database"]
    return databases.postgresql({**params, **given})


def _waiting_prepared(method: Any) -> Any:
    @wraps(method)
    async def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        conn = self._connection
        opening.began(conn, self._query)
        try:
            return await method(self, *args, **kwargs)
        finally:
            opening.done(conn)

    return watched
