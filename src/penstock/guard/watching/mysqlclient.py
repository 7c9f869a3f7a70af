"""mysqlclient: its connections' class is Python's, over one of C's that does not tell of the transaction."""

from __future__ import annotations

import sys
from functools import wraps
from types import ModuleType
from typing import Any

from MySQLdb.connections import Connection  # type: ignore[import-untyped]

from .. import databases, ledger
from ..settings import Settings
from . import opening
from .opening import closing, waiting, wrap

_POSITIONAL = ("host", "user", "password", "database", "port", "unix_socket")
_ENDS = (b"COMMIT", b"ROLLBACK")


def install(module: ModuleType, settings: Settings) -> None:
    init = Connection.__init__

    @wraps(init)
    def watched(self: Any, *args: Any, **kwargs: Any) -> None:
        def database() -> str:
            return databases.mysql({**dict(zip(_POSITIONAL, args, strict=False)), **kwargs})

        note = opening.opening("mysqlclient", database, sys._getframe(1))
        if note is None:
            init(self, *args, **kwargs)
            return
        try:
            init(self, *args, **kwargs)
        except BaseException as error:
            note.failed(error)
            raise
        note.opened(self, status)

    Connection.__init__ = watched
    wrap(Connection, waiting, "query", statement=True)
    for name in ("ping", "select_db", "next_result", "store_result", "use_result"):
        setattr(Connection, name, waiting(getattr(Connection, name)))
    for name in ("commit", "rollback"):
        setattr(Connection, name, _ending(getattr(Connection, name), name.upper().encode()))
    Connection.close = closing(Connection.close)


def status(conn: Any) -> str:
    """Without autocommit each statement begins a transaction, if there is none."""
    if not conn.open:
        return "BAD"
    held = ledger.find(id(conn))
    last = None if held is None else held.statement
    if last is None or conn.get_autocommit():
        return "IDLE"
    word = (last if isinstance(last, bytes) else str(last).encode()).lstrip()[:8].upper()
    return "IDLE" if word.startswith(_ENDS) else "INTRANS"


def _ending(method: Any, statement: bytes) -> Any:
    @wraps(method)
    def watched(self: Any) -> Any:
        opening.began(self, statement)
        try:
            return method(self)
        finally:
            opening.done(self)

    return watched
