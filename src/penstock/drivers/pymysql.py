"""PyMySQL: `pymysql.connections.Connection`, and what derives from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from operator import attrgetter
from typing import Any, ClassVar

import pymysql  # type: ignore[import-untyped]
from pymysql.connections import Connection, MySQLResult  # type: ignore[import-untyped]
from pymysql.cursors import Cursor  # type: ignore[import-untyped]

from . import sockets
from .dbapi import lendable
from .mysql import COM_QUERY, COM_RESET_CONNECTION, RUNNING, START_READING, Flagged, FlaggedResult, MySQLDriver
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

    def bind(self, conn: Any, until: float, reading: bool) -> None:
        super().bind(conn, until, reading)
        conn._own_timeouts = conn._read_timeout, conn._write_timeout

    def unbind(self, conn: Any) -> None:
        super().unbind(conn)
        conn._read_timeout, conn._write_timeout = conn._own_timeouts

    async def close(self, conn: Any) -> int | None:
        if conn._end is not None:  # cut off at a deadline
            end, conn._end = conn._end, None
            return end  # type: ignore[no-any-return]
        if conn._result is not None:
            conn._result.unbuffered_active = False  # or its finalizer would read what is left, from nowhere
        return await super().close(conn)


class _Result(FlaggedResult, MySQLResult):  # type: ignore[misc]
    pass


class _Noting(Flagged, Connection):  # type: ignore[misc]
    """Takes note of each statement, and of how the session is after it."""

    _own_timeouts: tuple[float | None, float | None] = (None, None)  # while a lease's deadline shortens them
    _preferred: ClassVar[Any] = None  # TLS if the server has it: PyMySQL makes this anew for each connection

    def fileno(self) -> int:
        return self._sock.fileno()  # type: ignore[no-any-return]

    def _create_ssl_ctx(self, sslp: Any) -> Any:
        if sslp:
            return super()._create_ssl_ctx(sslp)
        if _Noting._preferred is None:
            _Noting._preferred = super()._create_ssl_ctx(sslp)  # reads all certificates of the system: 30 ms and more
        return _Noting._preferred

    def __del__(self) -> None:
        if self._end is not None:
            sockets.close(self._end)
        super().__del__()

    def _execute_command(self, command: Any, sql: Any) -> None:
        if (patience := self._patience()) < math.inf:
            own = self._own_timeouts
            self._read_timeout, self._write_timeout = (min(limit or patience, patience) for limit in own)
        super()._execute_command(command, sql)

    def _force_close(self) -> None:
        if self._bounds is not None and self._flags & RUNNING and self._sock is not None:
            with suppress(OSError):
                self._end = sockets.send_end(self._sock.fileno())
        super()._force_close()

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
