"""asyncpg: `asyncpg.Connection` and what derives from it, for `AsyncPool`.

A connection is of a class made here, which derives from the one that was asked for and notes what is done through it:
asyncpg itself does not tell, and resets everything after each use instead, which is a round trip.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from time import monotonic
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg  # type: ignore[import-untyped]
from asyncpg import connect_utils
from asyncpg.protocol.protocol import PreparedStatementState  # type: ignore[import-untyped]

from ..core import Reason
from . import sockets
from .asyncpg_connection import NOTHING, Bounded, Hearing, callbacks, failed, fileno, refuses_to_write, restore, tracked
from .base import Activity, Status
from .conninfo import limits
from .session import Touched, reset_statement

# Past a lease's deadline the server's answer to a cancel request is waited for no longer than this.
_GRACE_SECONDS = 0.5

_PAIR = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))(?=\s|\Z)", re.DOTALL)
_SCHEMES = ("postgresql", "postgres")


class AsyncpgDriver:
    """Satisfies `penstock.drivers.base.Driver`.

    What is guaranteed of a lease that is over: its transactions, cursors and prepared statements raise InterfaceError.
    The connection itself can be used by who has kept it, as with every driver; `penstock.compat.asyncpg` forbids that.
    """

    operational_error: type[Exception] = asyncpg.PostgresConnectionError
    programming_error: type[Exception] = asyncpg.SyntaxOrAccessError
    data_error: type[Exception] = asyncpg.exceptions.DataError
    query_canceled: type[Exception] = asyncpg.QueryCanceledError

    def __init__(self, connection_class: Any, is_async: bool) -> None:
        given = connection_class or asyncpg.Connection
        if not (isinstance(given, type) and issubclass(given, asyncpg.Connection)):
            raise TypeError(f"connection_class must be asyncpg.Connection or derive from it, not {connection_class!r}")
        self.connection_class = tracked(given)

    def check_conninfo(self, conninfo: str) -> None:
        _arguments(conninfo)

    async def connect(
        self, conninfo: str, kwargs: Mapping[str, Any], *, timeout: float, settings: Mapping[str, str]
    ) -> Any:
        arguments = {"timeout": timeout, **_arguments(conninfo), **kwargs}
        begun = dict(arguments.pop("server_settings", None) or {})
        if "application_name" in arguments:  # libpq's name for one of them
            begun["application_name"] = arguments.pop("application_name")
        return await self.dial(server_settings=begun | dict(settings), **arguments)

    async def dial(self, **arguments: Any) -> Any:
        """A new connection, with asyncpg's own arguments."""
        conn = await asyncpg.connect(connection_class=self.connection_class, **arguments)
        sockets.notice_silence(fileno(conn))
        return conn

    def noting(self, params: dict[str, Any]) -> None:
        """Have asyncpg's own ``connect``, given these arguments, make a connection that can be adopted."""
        params["connection_class"] = tracked(params.get("connection_class") or self.connection_class)

    def limits(self, statement: float | None, idle_in_transaction: float | None) -> Mapping[str, str]:
        return limits(statement, idle_in_transaction)

    def adopt(self, conn: Any) -> Any:
        if conn._born is None:  # before `configure`, which may add callbacks, and does so again after a reset
            conn._in_transaction = conn._protocol.is_in_transaction
            conn._born = callbacks(conn)
            conn._born_writable = not refuses_to_write(conn)
            conn._driver = self
            conn._hearing = Hearing(conn._protocol)
            conn._transport.set_protocol(conn._hearing)
        conn._activity = Activity()
        conn._overdue = False
        conn._touched = NOTHING
        conn._loss = None
        conn._adopted = callbacks(conn)
        return NOTHING

    def probe(self, conn: Any) -> Callable[[int], object]:
        # The event loop reads the socket too. If it was quicker the descriptor is closed, and may be another's by now.
        hearing, has_closed, stirred = conn._hearing, conn._protocol.is_closed, sockets.stirred(fileno(conn))
        return lambda milliseconds: hearing.goodbye or has_closed() or stirred(milliseconds)

    def look(self, conn: Any) -> bool:
        if conn._hearing.goodbye:
            return False
        try:
            waiting = _peek(fileno(conn))
        except OSError:
            return False
        # What is encrypted cannot be told apart; and what else comes unasked is most likely a server's goodbye.
        return not conn._protocol.is_ssl and _is_harmless(waiting)

    def status(self, conn: Any) -> Status:
        if conn.is_closed():
            return Status.BROKEN
        # While a statement is being cancelled nothing else can be sent: `settle` and `reset` wait for the end of that.
        if not conn._protocol._is_cancelling() and (conn._running or _is_busy(conn._protocol)):
            return Status.ACTIVE
        # In a failed one, too: asyncpg knows, but does not tell.
        return Status.INTRANS if conn._in_transaction() else Status.IDLE

    @staticmethod
    def state(conn: Any) -> object:
        return None if conn._running or conn._in_transaction() else conn._touched

    def activity(self, conn: Any) -> Activity:
        return conn._activity  # type: ignore[no-any-return]

    def touched(self, conn: Any, baseline: Any) -> bool:
        return bool(conn._touched & ~(Touched.CLIENT | Touched.BOUND))

    def bind(self, conn: Any, until: float, reading: bool) -> None:
        conn._touched |= Touched.BOUND
        conn._bounds = (until, reading)
        if until < math.inf:
            conn._config = Bounded(conn._config, until)

    def unbind(self, conn: Any) -> None:
        conn._overdue = conn._bounds is not None and conn._bounds[0] <= monotonic()
        conn._bounds = None
        if isinstance(conn._config, Bounded):
            conn._config = conn._config.own
        conn._touched &= ~Touched.BOUND

    def unfit(self, conn: Any) -> Reason | None:
        if not conn._touched & Touched.READ_ONLY:
            return None
        return Reason.READ_ONLY if conn._born_writable else Reason.STANDBY

    def failed(self, conn: Any, error: Exception) -> None:
        failed(conn, error)

    def loss(self, conn: Any) -> Exception | None:
        return conn._loss  # type: ignore[no-any-return]

    def transaction(self, conn: Any) -> Any:
        return conn.transaction()

    async def settle(self, conn: Any, commit: bool) -> None:
        try:
            async with asyncio.timeout(_GRACE_SECONDS if conn._overdue else None):
                await conn._protocol._wait_for_cancellation()
        except TimeoutError:
            conn.terminate()
            raise
        conn._top_xact = None
        if not conn._in_transaction():
            return
        try:
            await asyncpg.Connection.execute(conn, "COMMIT" if commit else "ROLLBACK")
        except Exception as error:
            failed(conn, error)
            raise

    async def reset(self, conn: Any, baseline: Any) -> bool:
        touched = conn._touched
        if touched & Touched.BEYOND_RESET:
            return False
        await self.settle(conn, commit=False)  # what was being cancelled may have been a BEGIN
        restore(conn, conn._born if touched & ~Touched.CLIENT else conn._adopted)
        if statement := reset_statement(touched):
            await asyncpg.Connection.execute(conn, statement)
        conn._touched = NOTHING
        return True

    async def ask(self, conn: Any, query: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        numbers = count(1)
        query = re.sub("%s", lambda _: f"${next(numbers)}", query)
        fetch = asyncpg.Connection.fetch  # not the connection's class, which would take note
        try:
            rows = await fetch(conn, query, *params)
        except asyncpg.InvalidSQLStatementNameError:  # DISCARD ALL took it away, which asyncpg does not know
            conn._drop_local_statement_cache()
            rows = await fetch(conn, query, *params)
        return [tuple(row) for row in rows]

    def told(self, conn: Any, setting: str) -> str | None:
        return getattr(conn.get_settings(), setting, None)

    def backend(self, conn: Any) -> int:
        return int(conn.get_server_pid())

    async def check(self, conn: Any) -> None:
        await asyncpg.Connection.execute(conn, "SELECT 1")

    async def cancel(self, conn: Any, timeout: float) -> None:
        protocol = conn._protocol
        with suppress(Exception):
            async with asyncio.timeout(timeout):
                await connect_utils._cancel(
                    loop=conn._loop,
                    addr=conn._addr,
                    params=conn._params,
                    backend_pid=protocol.backend_pid,
                    backend_secret=protocol.backend_secret,
                )

    async def close(self, conn: Any) -> int | None:
        await conn.close()  # which returns once the server has let go
        return None

    def abort(self, conn: Any) -> None:
        if _runs_here(conn._loop):
            conn.terminate()
            return
        with suppress(OSError):
            sockets.hang_up(fileno(conn))

    def abandon(self, conn: Any) -> int | None:
        with suppress(OSError):
            return sockets.send_end(fileno(conn))
        return None

    def silence(self, conn: Any) -> None:
        with suppress(OSError):
            sockets.put_out_of_reach(fileno(conn))

    def is_timeout(self, error: BaseException) -> bool:
        return isinstance(error, TimeoutError)


# ---------------------------------------------------------------------------------------------- connecting


def _arguments(conninfo: str) -> dict[str, Any]:
    """asyncpg's arguments for *conninfo*: a URL, or libpq's ``key=value`` pairs.

    :raises ValueError: when it does not parse. It shows nothing of it: any piece may be the password.
    """
    parts = None
    given: dict[str, Any] = {}
    with suppress(ValueError):
        url = _url(conninfo)
        split = urlsplit(url)
        for each in split.netloc.rpartition("@")[2].split(","):  # there may be several hosts
            urlsplit(f"//{each}").port  # noqa: B018  (raises for one that is no number)
        query = dict(parse_qsl(split.query, keep_blank_values=True, strict_parsing=bool(split.query)))
        if timeout := query.pop("connect_timeout", None):  # to asyncpg an argument, and no part of the URL
            given["timeout"] = float(timeout)
            url = f"{split.scheme}://{split.netloc}{split.path}?{urlencode(query)}"
        if url:
            given["dsn"] = url
        parts = split
    if parts is None or (given and parts.scheme not in _SCHEMES):
        raise ValueError(
            "conninfo does not parse: expected 'postgresql://user:password@host:5432/dbname' or"
            " 'host=... dbname=... user=...'"
        )
    if parts.netloc.count("@") > 1 or "@" in parts.path or "@" in parts.fragment:
        raise ValueError("conninfo has a password with characters that a URL reserves: write %40 for @, %2F for /")
    return given


def _url(conninfo: str) -> str:
    if "://" in conninfo or not conninfo.strip():
        return conninfo.strip()
    pairs, at = {}, 0
    while found := _PAIR.match(conninfo, at):
        pairs[found[1]] = re.sub(r"\\(.)", r"\1", found[3] if found[2] is None else found[2], flags=re.DOTALL)
        at = found.end()
    if conninfo[at:].strip():
        raise ValueError
    return "postgresql://?" + urlencode(pairs)


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


# ---------------------------------------------------------------------------------------------- what the protocol knows


def _is_busy(protocol: Any) -> bool:
    """Whether a statement is under way, by a prepared statement or a cursor too. Sends nothing.

    asyncpg shows it nowhere. But to close a prepared statement it first makes sure that nothing is under way, and then
    that nobody uses the statement; of one in use it raises.
    """
    used = PreparedStatementState("", "", protocol, asyncpg.Record, False)
    used.attach()
    asked = protocol.close_statement(used, None)
    try:
        asked.send(None)
    except asyncpg.InterfaceError:
        return True
    except asyncpg.InternalClientError:
        return False
    asked.close()  # it waits for something: a statement that is being cancelled
    return True


def _peek(fd: int) -> bytes:
    """What the event loop has not read yet; it stays there. Empty at the end.

    :raises OSError: when nothing is there, or the connection was lost.
    """
    with socket.socket(fileno=os.dup(fd)) as sock:
        return sock.recv(65536, socket.MSG_PEEK | socket.MSG_DONTWAIT)


def _is_harmless(data: bytes) -> bool:
    """Whether these messages are such as a server sends unasked and means nothing by: A, N and S.

    Notifications, notices, and settings that have changed.
    """
    at = 0
    while at + 5 <= len(data) and data[at : at + 1] in (b"A", b"N", b"S"):
        at += 1 + struct.unpack_from("!i", data, at + 1)[0]
    return at > 0 and at >= len(data)
