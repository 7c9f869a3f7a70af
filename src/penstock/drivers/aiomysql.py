"""aiomysql: `aiomysql.Connection`, and what derives from it. For asyncio alone."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from operator import attrgetter
from typing import Any
from weakref import WeakKeyDictionary

import aiomysql  # type: ignore[import-untyped]
from aiomysql.connection import MySQLResult  # type: ignore[import-untyped]

from . import sockets
from .dbapi import Lendable, lendable
from .mysql import (
    COM_QUERY,
    COM_RESET_CONNECTION,
    RUNNING,
    START_READING,
    Flagged,
    FlaggedResult,
    MySQLDriver,
    transaction_of,
)
from .mysql_cursors import tracked
from .session import Touched

_ATTRIBUTES = ("cursorclass", "autocommit_mode", "encoders", "decoders", "use_unicode", "_echo")
_QUIT = b"\x01\0\0\0\x01"  # COM_QUIT


class AiomysqlDriver(MySQLDriver):
    """Satisfies `penstock.drivers.base.Driver`."""

    blocking = False
    name = "aiomysql"
    attributes = _ATTRIBUTES
    cursor_class = aiomysql.Cursor
    socket_of = attrgetter("_wire")
    state = attrgetter("_wire", "_flags", "_touched", *_ATTRIBUTES)

    def __init__(self, connection_class: Any, is_async: bool) -> None:
        super().__init__(aiomysql)
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
        self.connection_class = connection_class or aiomysql.Connection
        if not (isinstance(self.connection_class, type) and issubclass(self.connection_class, aiomysql.Connection)):
            raise TypeError(f"connection_class must be aiomysql.Connection or derive from it, not {connection_class!r}")

    @staticmethod
    def made_lendable(connection_class: Any) -> Any:
        return lendable(connection_class, _Noting, _Lendable)

    async def connect(
        self, conninfo: str, kwargs: Mapping[str, Any], *, timeout: float, settings: Mapping[str, str]
    ) -> Any:
        given = {"connect_timeout": timeout, **self.given(conninfo, kwargs)}
        params = dict(given)
        if "database" in params:
            params["db"] = params.pop("database")
        conn = self.made_lendable(self.connection_class)(**params)
        # Its module's own, all connections': one of them that changes its own must change no other's.
        conn.encoders, conn.decoders = dict(conn.encoders), dict(conn.decoders)
        conn._login_charset = conn.charset
        try:
            await conn._connect()
            await self.begin_session(conn, given, settings)
            self.keep_alive(conn)
        except BaseException:  # a cancelled login leaves its socket open otherwise
            conn.close()
            raise
        return conn

    def probe(self, conn: Any) -> Callable[[int], object]:
        stirred, reader = sockets.stirred(conn._wire.fileno()), conn._reader
        # The event loop reads what comes before anybody asks the kernel.
        return lambda wait: reader._eof or reader._exception or reader._buffer or stirred(wait)

    def transaction(self, conn: Any) -> Any:
        return transaction_of(conn, aiomysql.Error)

    async def check(self, conn: Any) -> None:
        await conn.ping(reconnect=False)

    async def renew(self, conn: Any) -> None:
        await conn._execute_command(COM_RESET_CONNECTION, b"")
        await conn._read_ok_packet()
        await conn.set_charset(conn._login_charset)

    def within(self, seconds: float) -> Mapping[str, Any]:
        return {"connect_timeout": seconds}  # `alone` bounds the rest

    @asynccontextmanager
    async def alone(self, seconds: float) -> AsyncIterator[None]:
        """As with a blocking driver, in each event loop; *seconds* bound the block, too."""
        turn = self._turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        async with asyncio.timeout(seconds), turn:
            yield

    async def see_off(self, conn: Any, seconds: float) -> None:
        try:
            conn._writer.write(_QUIT)
            await conn._reader.read()
        finally:
            conn.close()

    async def close(self, conn: Any) -> int | None:
        end: int | None = None
        if conn._end is not None:  # closed by a cancellation
            end, conn._end = conn._end, None
            return end
        if conn._writer is None:
            return None
        if conn._flags & RUNNING:
            end = self.abandon(conn)
            conn._writer.transport.close()  # whoever waits for an answer is told so
            return end
        with suppress(OSError):
            end = self._duplicate(conn)
        conn._writer.write(_QUIT)  # nobody waits until it has been sent
        conn.close()
        return end


class _Lendable(Lendable):
    def close(self) -> Any:
        reader, had_ended = self._reader, self._ended_here  # type: ignore[attr-defined]
        lost = reader is not None and (reader._eof or reader._exception)
        result = super().close()
        if lost:  # aiomysql itself closes what the server, or the network, has ended
            self._ended_here = had_ended
        return result

    def _give_back(self, pool: Any) -> asyncio.Task[None]:
        """`close` of aiomysql is no coroutine, so this is done whether anybody awaits it or not."""
        returning: asyncio.Task[None] = asyncio.ensure_future(pool.putconn(self))
        self._returning = returning  # kept, or it might be collected half way
        return returning


class _Result(FlaggedResult, MySQLResult):  # type: ignore[misc]
    pass


class _Noting(Flagged, aiomysql.Connection):  # type: ignore[misc]
    """Takes note of each statement, and of how the session is after it."""

    _writer: Any
    _reader: Any

    def __del__(self) -> None:
        if self._end is not None:
            sockets.close(self._end)
        if self._writer is not None:  # the pool itself warns of one that was dropped
            with suppress(RuntimeError):  # the event loop has closed
                self._writer.transport.abort()
            self._writer = self._reader = None

    @property
    def _wire(self) -> Any:
        return None if self._writer is None else self._writer.transport.get_extra_info("socket")

    def _close_on_cancel(self) -> None:
        self._ended_here = True
        if self._activity is not None and self._wire is not None:
            with suppress(OSError):
                self._end = sockets.send_end(self._wire.fileno())
        super()._close_on_cancel()

    async def ensure_closed(self) -> None:
        """Close the connection; lent by a pool with `close_returns`, give it back."""
        pool = self._pool
        if pool is not None and pool.close_returns:
            await pool.putconn(self)
        else:
            await super().ensure_closed()

    def cursor(self, *cursors: Any) -> Any:
        return super().cursor(tracked(cursors[0] if len(cursors) == 1 else self.cursorclass, aiomysql.Error))

    async def query(self, sql: Any, unbuffered: bool = False) -> Any:
        if self._must_begin(sql):
            await self._start_reading()
        here = self._note(sql)
        try:
            if (patience := self._patience()) == math.inf:
                return await super().query(self._bounded(sql), unbuffered)
            try:
                async with asyncio.timeout(patience):
                    return await super().query(self._bounded(sql), unbuffered)
            except TimeoutError:
                raise aiomysql.OperationalError(
                    2013, "Lost connection to MySQL server during query (its deadline has passed)"
                ) from None
        except aiomysql.Error as error:
            self._erred(error)
            raise
        finally:
            self._noted(here)

    async def begin(self) -> None:
        if self._reads():
            await self._start_reading()
        else:
            await super().begin()

    async def _start_reading(self) -> None:
        await self._execute_command(COM_QUERY, START_READING)
        await self._read_ok_packet()

    async def _read_query_result(self, unbuffered: bool = False) -> None:
        # As the original, but for the class of the result.
        self._result = None
        result = _Result(self)
        if unbuffered:
            try:
                await result.init_unbuffered_query()
            except BaseException:
                result.unbuffered_active = False
                result.connection = None
                raise
        else:
            await result.read()
        self._keep(result)

    async def select_db(self, db: Any) -> None:
        await super().select_db(db)
        self._touched |= Touched.SETTINGS

    async def set_charset(self, charset: Any) -> None:
        await super().set_charset(charset)
        self._touched |= Touched.SETTINGS
