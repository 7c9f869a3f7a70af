"""PyMySQL: `pymysql.connections.Connection`, and what derives from it."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, ClassVar

import pymysql  # type: ignore[import-untyped]
from pymysql.connections import Connection, MySQLResult  # type: ignore[import-untyped]
from pymysql.cursors import Cursor  # type: ignore[import-untyped]

from .dbapi import lendable
from .mysql import COM_QUERY, COM_RESET_CONNECTION, START_READING, Flagged, FlaggedResult, MySQLDriver
from .mysql_cursors import tracked
from .session import Touched

_ATTRIBUTES = (
    "cursorclass",
    "autocommit_mode",
    "encoders",
    "decoders",
    "use_unicode",
    "max_allowed_packet",
    "_read_timeout",
    "_write_timeout",
)


class PyMySQLDriver(MySQLDriver):
    """Satisfies `penstock.drivers.base.Driver`; for asyncio `threaded` does that."""

    name = "PyMySQL"
    attributes = _ATTRIBUTES
    cursor_class = Cursor
    socket_of = attrgetter("_sock")
    state = attrgetter("_sock", "_flags", "_touched", *_ATTRIBUTES)

    def __init__(self, connection_class: Any, is_async: bool) -> None:
        super().__init__(pymysql)
        self.connection_class = connection_class or Connection
        if not (isinstance(self.connection_class, type) and issubclass(self.connection_class, Connection)):
            raise TypeError(
                f"connection_class must be pymysql.connections.Connection or derive from it, not {connection_class!r}"
            )

    @staticmethod
    def made_lendable(connection_class: Any) -> Any:
        return lendable(connection_class, _Noting)

    async def connect(
        self, conninfo: str, kwargs: Mapping[str, Any], *, timeout: float, settings: Mapping[str, str]
    ) -> Any:
        params = {"connect_timeout": timeout, **self.given(conninfo, kwargs)}
        conn = self.made_lendable(self.connection_class)(**params, defer_connect=True)
        limits = conn._read_timeout, conn._write_timeout
        conn._read_timeout, conn._write_timeout = (min(limit or timeout, timeout) for limit in limits)  # for the login
        conn.connect()
        conn._login_charset = conn.charset, conn.collation
        try:
            await self.begin_session(conn, params, settings)
            self.keep_alive(conn)
        except BaseException:
            conn._force_close()
            raise
        conn._read_timeout, conn._write_timeout = limits
        return conn

    async def renew(self, conn: Any) -> None:
        conn._execute_command(COM_RESET_CONNECTION, b"")
        conn._read_ok_packet()
        conn.set_character_set(*conn._login_charset)

    async def close(self, conn: Any) -> int | None:
        if conn._result is not None:
            conn._result.unbuffered_active = False  # or its finalizer would read what is left, from nowhere
        return await super().close(conn)


class _Result(FlaggedResult, MySQLResult):  # type: ignore[misc]
    pass


class _Noting(Flagged, Connection):  # type: ignore[misc]
    """Takes note of each statement, and of how the session is after it."""

    _preferred: ClassVar[Any] = None  # TLS if the server has it: PyMySQL makes this anew for each connection

    def fileno(self) -> int:
        return self._sock.fileno()  # type: ignore[no-any-return]

    def _create_ssl_ctx(self, sslp: Any) -> Any:
        if sslp:
            return super()._create_ssl_ctx(sslp)
        if _Noting._preferred is None:
            _Noting._preferred = super()._create_ssl_ctx(sslp)  # reads all certificates of the system: 30 ms and more
        return _Noting._preferred

    def cursor(self, cursor: Any = None) -> Any:
        return super().cursor(tracked(cursor or self.cursorclass, pymysql.Error))

    def query(self, sql: Any, unbuffered: bool = False) -> Any:
        if self._must_begin(sql):
            self._start_reading()
        here = self._note(sql)
        try:
            return super().query(self._bounded(sql), unbuffered)
        except pymysql.Error as error:
            self._erred(error)
            raise
        finally:
            self._noted(here)

    def begin(self) -> None:
        if self._reads():
            self._start_reading()
        else:
            super().begin()

    def _start_reading(self) -> None:
        self._execute_command(COM_QUERY, START_READING)
        self._read_ok_packet()

    def _read_query_result(self, unbuffered: bool = False) -> Any:
        # As the original, but for the class of the result.
        self._result = None
        result = _Result(self)
        if unbuffered:
            result.init_unbuffered_query()
        else:
            result.read()
        return self._keep(result)

    def select_db(self, db: Any) -> None:
        super().select_db(db)
        self._touched |= Touched.SETTINGS

    def set_character_set(self, charset: Any, collation: Any = None) -> None:
        super().set_character_set(charset, collation)
        self._touched |= Touched.SETTINGS
