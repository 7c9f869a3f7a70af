"""mysql-connector-python's connections, held.

The driver tells too little of its session to know what was left in it. So a connection stays with its owner until it is
closed, dropped or left behind, and its session is reset by a round trip each time it comes back.
"""

from __future__ import annotations

from functools import wraps
from types import ModuleType, SimpleNamespace, TracebackType
from typing import Any

from ...drivers import generic
from ...drivers.session import Touched
from ..settings import Settings
from . import mysql, pools
from .connecting import fallback
from .facade import Connection, Cursor
from .handle import Handle, Kind

_NAMES = ("Error", "InterfaceError", "OperationalError", "ProgrammingError", "DataError")
_REMEMBERED = ("_charset_id", "_autocommit", "_time_zone", "_sql_mode")
_POOLED = ("pool_name", "pool_size", "failover")


def install(module: ModuleType, settings: Settings) -> None:
    """Let ``mysql.connector.connect`` lend from a pool."""
    original: Any = module.connect
    names = {name: getattr(module, name) for name in _NAMES}
    driver = _Driver(SimpleNamespace(__name__="mysql.connector", connect=original, **names))

    def ours(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Connection | None:
        if args or any(name in kwargs for name in _POOLED):
            pools.say_once("mysql.connector connections of its own pools are not held")
            return None
        timeout = kwargs.get("connection_timeout")
        found = mysql.pool_for("mysql.connector", kwargs, None, settings, driver=driver, reset=_reset)
        if found is None:
            return None
        handle = Handle(_Kind(found[0]), found[0], timeout)
        return _Connection(handle)

    @wraps(original)
    def connect(*args: Any, **kwargs: Any) -> Any:
        return fallback("mysql.connector", lambda: ours(args, kwargs), lambda: original(*args, **kwargs), module.Error)

    module.connect = connect  # type: ignore[attr-defined]


def _reset(conn: Any) -> None:
    raw = getattr(conn, "_raw", conn)
    database, remembered = conn._first
    for name, value in remembered.items():  # it sets these on the server again after the reset
        setattr(raw, name, value)
    if not conn._beneath("cmd_reset_connection"):
        raise conn._driver.operational_error("the server has not reset the session")
    if database:
        conn._beneath("cmd_init_db", database)
    elif raw.database:
        raise conn._driver.operational_error("a database was chosen with USE on a connection that had none")
    conn._ended()


class _Driver(generic.DBAPIModule):
    """The generic one, which knows the class of what it connects."""

    connection_class: Any = object

    async def connect(self, conninfo: Any, kwargs: Any, **options: Any) -> Any:
        conn = await super().connect(conninfo, kwargs, **options)
        raw = getattr(conn, "_raw", conn)
        self.connection_class = type(raw)
        conn._first = raw.database, {name: getattr(raw, name) for name in _REMEMBERED if hasattr(raw, name)}
        return conn


class _Kind(Kind):
    mysql = True
    everything = Touched.NOTHING  # `_reset` does it, each time

    def is_clean(self, conn: Any) -> bool:
        return False  # whether it is cannot be seen

    def closed_error(self) -> Exception:
        return self.driver.operational_error("MySQL Connection not available.")


class _Connection(Connection):
    __slots__ = ()
    _cursor_class = Cursor
    _real_class = generic.Cursor

    def is_connected(self) -> bool:
        handle = self._handle
        return handle.over is None and (handle.conn is None or bool(self._do("is_connected")))

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
