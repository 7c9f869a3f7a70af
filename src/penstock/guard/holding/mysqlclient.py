"""mysqlclient's connections, held."""

from __future__ import annotations

from functools import wraps
from types import ModuleType, TracebackType
from typing import Any

import MySQLdb  # type: ignore[import-untyped]
from MySQLdb.cursors import BaseCursor  # type: ignore[import-untyped]

from ..settings import Settings
from . import mysql
from .connecting import fallback
from .facade import Connection
from .handle import Handle

_POSITIONS = ("host", "user", "password", "database", "port", "unix_socket")


def install(module: ModuleType, settings: Settings) -> None:
    """Let ``MySQLdb.connect`` lend from a pool."""
    original: Any = module.connect

    @wraps(original)
    def connect(*args: Any, **kwargs: Any) -> Any:
        return fallback(
            "mysqlclient", lambda: _held(args, kwargs, settings), lambda: original(*args, **kwargs), MySQLdb.Error
        )

    for name in ("connect", "Connect", "Connection"):
        setattr(module, name, connect)


def _held(args: tuple[Any, ...], kwargs: dict[str, Any], settings: Settings) -> Connection | None:
    if len(args) > len(_POSITIONS):
        return None
    given = {**dict(zip(_POSITIONS, args, strict=False)), **kwargs}
    found = mysql.pool_for("mysqlclient", given, None, settings)
    if found is None:
        return None
    pool, timeout, kept = found
    handle = Handle(_Kind(pool), pool, timeout)
    handle.kept.update(kept)
    return _Connection(handle)


class _Kind(mysql.MySQLKind):
    def closed_error(self) -> Exception:
        return MySQLdb.OperationalError(2006, "")  # type: ignore[no-any-return]


class _Connection(Connection):
    __slots__ = ()
    _cursor_class = mysql.MySQLCursor
    _real_class = BaseCursor

    @property
    def open(self) -> int:
        handle = self._handle
        return int(not handle.closed and not handle.over)

    @property
    def closed(self) -> bool:
        return not self.open

    def close(self) -> None:
        if not self._handle.close():
            raise MySQLdb.ProgrammingError("closing a closed connection")

    def query(self, query: Any) -> None:
        self._handle.states(query)
        self._do("query", query)

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
