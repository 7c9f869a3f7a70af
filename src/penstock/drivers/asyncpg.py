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
from functools import cache, wraps
from inspect import signature
from itertools import count
from time import monotonic
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg  # type: ignore[import-untyped]
from asyncpg import connect_utils
from asyncpg.protocol.protocol import PreparedStatementState  # type: ignore[import-untyped]

from ..core import Reason
from . import sockets
from .base import Activity, Status
from .session import Touched, reset_statement, touches

_NOTHING = Touched.NOTHING  # its truth is a call of Python, its identity is not
_READ_ONLY = "25006"
_LIMITS = ("25P03", "25P04", "57P05")  # as in `psycopg.py`: it is the client who was slow
_STATEMENTS = ("execute", "executemany", "fetch", "fetchval", "fetchrow", "fetchmany", "copy_from_query")
_COPIES = ("copy_from_table", "copy_to_table", "copy_records_to_table")
_CODECS = ("set_type_codec", "reset_type_codec", "set_builtin_type_codec")
_CALLING_BACK = [
    f"{change}_{kind}"
    for change in ("add", "remove")
    for kind in ("listener", "log_listener", "termination_listener", "query_logger")
]
_CALLBACKS = ("_listeners", "_log_listeners", "_termination_listeners", "_query_loggers")

# As in `psycopg.py`: without these a peer that has vanished is waited for until the kernel gives up.
_NETWORK = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}

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
        if not is_async:
            raise ValueError("driver 'asyncpg' is for asyncio: use it with AsyncPool; Pool takes 'psycopg'")
        given = connection_class or asyncpg.Connection
        if not (isinstance(given, type) and issubclass(given, asyncpg.Connection)):
            raise TypeError(f"connection_class must be asyncpg.Connection or derive from it, not {connection_class!r}")
        self.connection_class = _tracked(given)

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
        _notice_silence(conn)
        return conn

    def noting(self, params: dict[str, Any]) -> None:
        """Have asyncpg's own ``connect``, given these arguments, make a connection that can be adopted."""
        params["connection_class"] = _tracked(params.get("connection_class") or self.connection_class)

    def limits(self, statement: float | None, idle_in_transaction: float | None) -> Mapping[str, str]:
        given = {"statement_timeout": statement, "idle_in_transaction_session_timeout": idle_in_transaction}
        return {name: f"{math.ceil(seconds * 1000)}ms" for name, seconds in given.items() if seconds is not None}

    def adopt(self, conn: Any) -> Any:
        if conn._born is None:  # before `configure`, which may add callbacks, and does so again after a reset
            conn._in_transaction = conn._protocol.is_in_transaction
            conn._born = _callbacks(conn)
            conn._born_writable = not _refuses_to_write(conn)
        conn._activity = Activity()
        conn._touched = _NOTHING
        conn._loss = None
        conn._adopted = _callbacks(conn)
        return _NOTHING

    def probe(self, conn: Any) -> Callable[[int], object]:
        # The event loop reads the socket too. If it was quicker the descriptor is closed, and may be another's by now.
        has_closed, stirred = conn._protocol.is_closed, sockets.stirred(_fileno(conn))
        return lambda milliseconds: has_closed() or stirred(milliseconds)

    def look(self, conn: Any) -> bool:
        try:
            waiting = _peek(_fileno(conn))
        except OSError:
            return False
        # What is encrypted cannot be told apart; and what else comes unasked is most likely a server's goodbye.
        return not conn._protocol.is_ssl and _is_harmless(waiting)

    def status(self, conn: Any) -> Status:
        if conn.is_closed():
            return Status.BROKEN
        if conn._protocol._is_cancelling():
            return Status.INTRANS  # the server has been told to stop, and `settle` waits until it has
        if conn._running or _is_busy(conn._protocol):
            return Status.ACTIVE
        # In a failed one, too: asyncpg knows, but does not tell.
        return Status.INTRANS if conn._in_transaction() else Status.IDLE

    @staticmethod
    def state(conn: Any) -> object:
        return None if conn._running or conn._in_transaction() else conn._touched

    def activity(self, conn: Any) -> Activity:
        return conn._activity  # type: ignore[no-any-return]

    def touched(self, conn: Any, baseline: Any) -> bool:
        return bool(conn._touched & ~Touched.CLIENT)

    def bind(self, conn: Any, until: float, reading: bool) -> None:
        conn._touched |= Touched.BOUND
        conn._bounds = (until, reading)
        if until < math.inf:
            conn._config = _Bounded(conn._config, until)

    def unbind(self, conn: Any) -> None:
        conn._bounds = None
        if isinstance(conn._config, _Bounded):
            conn._config = conn._config.own
        conn._touched &= ~Touched.BOUND

    def unfit(self, conn: Any) -> Reason | None:
        if not conn._touched & Touched.READ_ONLY:
            return None
        return Reason.READ_ONLY if conn._born_writable else Reason.STANDBY

    def failed(self, conn: Any, error: Exception) -> None:
        _failed(conn, error)

    def loss(self, conn: Any) -> Exception | None:
        return conn._loss  # type: ignore[no-any-return]

    def transaction(self, conn: Any) -> Any:
        return conn.transaction()

    async def settle(self, conn: Any, commit: bool) -> None:
        await conn._protocol._wait_for_cancellation()
        conn._top_xact = None
        if not conn._in_transaction():
            return
        try:
            await asyncpg.Connection.execute(conn, "COMMIT" if commit else "ROLLBACK")
        except Exception as error:
            _failed(conn, error)
            raise

    async def reset(self, conn: Any, baseline: Any) -> bool:
        touched = conn._touched
        if touched & Touched.BEYOND_RESET:
            return False
        _restore(conn, conn._born if touched & ~Touched.CLIENT else conn._adopted)
        conn._top_xact = None
        if statement := reset_statement(touched):
            await asyncpg.Connection.execute(conn, statement)
        conn._touched = _NOTHING
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
            sockets.hang_up(_fileno(conn))

    def abandon(self, conn: Any) -> int | None:
        with suppress(OSError):
            return sockets.send_end(_fileno(conn))
        return None

    def silence(self, conn: Any) -> None:
        with suppress(OSError):
            sockets.put_out_of_reach(_fileno(conn))

    def is_timeout(self, error: BaseException) -> bool:
        return isinstance(error, TimeoutError)


# ---------------------------------------------------------------------------------------------- connecting


def _arguments(conninfo: str) -> dict[str, Any]:
    """asyncpg's arguments for *conninfo*: a URL, or libpq's ``key=value`` pairs.

    :raises ValueError: when it does not parse. It shows nothing of it: any piece may be the password.
    """
    parts = None
    given: dict[str, Any] | None = None
    with suppress(ValueError):
        url = _url(conninfo)
        parts = urlsplit(url)
        given = {"dsn": url} if url else {}
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        if timeout := query.pop("connect_timeout", None):  # to asyncpg an argument, and no part of the URL
            dsn = f"{parts.scheme}://{parts.netloc}{parts.path}?{urlencode(query)}"
            given = {"dsn": dsn, "timeout": float(timeout)}
    if parts is None or given is None or (given and parts.scheme not in _SCHEMES):
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


def _notice_silence(conn: Any) -> None:
    """Have the kernel find out when the other side has vanished."""
    with socket.socket(fileno=os.dup(_fileno(conn))) as sock:
        if sock.family == socket.AF_UNIX:
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _NETWORK.items():
            if option := getattr(socket, name, None):  # not every system has each
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _fileno(conn: Any) -> int:
    """:raises OSError: when there is none any more; the number may be another's then."""
    protocol = conn._protocol
    if protocol is None or protocol.is_closed():
        raise OSError("the connection is closed")
    return int(conn._transport.get_extra_info("socket").fileno())


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


def _failed(conn: Any, error: BaseException) -> None:
    """A statement has failed: does that say something of the connection?"""
    if not isinstance(error, (asyncpg.PostgresError, asyncpg.InterfaceError)):
        conn._touched |= Touched.CLIENT  # it was cancelled, or took too long: to be waited for before the next user
    if conn.is_closed():
        if isinstance(error, (asyncpg.PostgresConnectionError, OSError)):
            # Not the error itself: its frames keep the connection.
            conn._loss = None if _sqlstate(error.__cause__) in _LIMITS else type(error)(str(error))
    elif _sqlstate(error) == _READ_ONLY and _is_read_only(conn):
        conn._touched |= Touched.READ_ONLY


def _sqlstate(error: BaseException | None) -> str | None:
    return getattr(error, "sqlstate", None)


def _is_read_only(conn: Any) -> bool:
    """Whether it is the server that does not write, and not that its user has asked it not to."""
    if conn._touched & Touched.SETTINGS:
        return False
    standby = getattr(conn.get_settings(), "in_hot_standby", None)
    if standby is None:  # a server before PostgreSQL 14, or a pooler that does not pass it on
        top = conn._top_xact
        return top is None or not top._readonly
    return standby == "on" or (conn._born_writable and _refuses_to_write(conn))


def _refuses_to_write(conn: Any) -> bool:
    """As the server tells of itself, whenever that changes."""
    settings = conn.get_settings()
    names = ("in_hot_standby", "default_transaction_read_only")
    return "on" in [getattr(settings, name, None) for name in names]


# ---------------------------------------------------------------------------------------------- the connection's class


def _callbacks(conn: Any) -> list[Any]:
    """What is called back when something happens: copies."""
    listeners, *others = (getattr(conn, name) for name in _CALLBACKS)
    return [{channel: set(callbacks) for channel, callbacks in listeners.items()}, *map(set, others)]


def _restore(conn: Any, callbacks: list[Any]) -> None:
    listeners, *others = callbacks
    copies = [{channel: set(callbacks) for channel, callbacks in listeners.items()}, *map(set, others)]
    for name, value in zip(_CALLBACKS, copies, strict=True):
        setattr(conn, name, value)


class _Bounded:
    """A connection's configuration, with a `command_timeout` that shrinks: what is left until the lease's deadline.

    Past it the connection's own counts again: for what asyncpg then does to stop the statement, and for ROLLBACK. No
    other statement is begun.
    """

    __slots__ = ("_until", "own")

    def __init__(self, own: Any, until: float) -> None:
        self.own = own
        self._until = until

    @property
    def command_timeout(self) -> float | None:
        own: float | None = self.own.command_timeout
        left = self._until - monotonic()
        if left <= 0:
            return own
        return left if own is None else min(own, left)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)


@cache
def _tracked(connection_class: Any) -> Any:
    """*connection_class*, noting each statement: for who asks what a holder is doing, and to know what to reset.

    Part of every statement, so the class's own methods are bound here rather than looked up with `super` each time.
    """
    if getattr(connection_class, "_tracked_by_penstock", False):
        return connection_class
    wraps_by_name = {
        **dict.fromkeys(_STATEMENTS, _tracking),
        **dict.fromkeys(_COPIES, lambda method: _tracking(method, "COPY ")),
        # Their users hold them, and no method of the connection tells when they are done: looked into at the return.
        "prepare": lambda method: _marking(_tracking(method), Touched.CLIENT),
        "cursor": lambda method: _marking(_noting(method), Touched.CLIENT),
        **dict.fromkeys(_CALLING_BACK, lambda method: _marking(method, Touched.CLIENT)),
        # asyncpg cannot take a codec back to the one that was there before.
        **dict.fromkeys(_CODECS, lambda method: _marking(method, Touched.BEYOND_RESET)),
        "_cleanup": lambda method: _marking(method, Touched.CLIENT),  # it is closed, by whomever
        "__init__": _beginning,
        "__del__": _ending,
    }
    methods = {
        name: wrap(getattr(connection_class, name))
        for name, wrap in wraps_by_name.items()
        if hasattr(connection_class, name)  # `fetchmany` has come with a release
    }
    marks = {"__module__": connection_class.__module__, "_tracked_by_penstock": True, "_pool": property(_lent, _lend)}
    return type(connection_class.__name__, (connection_class,), methods | marks)


def _lent(conn: Any) -> Any:
    return conn._lent_by


def _lend(conn: Any, pool: Any) -> None:
    """At the beginning and the end of a lease: what was made in another one is refused from now on."""
    conn._lent_by = pool
    conn._pool_release_ctr += 1


def _beginning(init: Any) -> Any:
    @wraps(init)
    def beginning(self: Any, *args: Any, **kwargs: Any) -> None:
        self._activity = Activity()
        self._touched = _NOTHING
        self._running = 0
        self._lent_by = self._born = self._bounds = self._loss = None
        init(self, *args, **kwargs)

    return beginning


def _ending(_: Any) -> Any:
    """In place of asyncpg's warning: the pool tells of a connection that was dropped, and by whom it was taken."""

    def ending(self: Any) -> None:
        with suppress(AttributeError, OSError):  # it has not begun, or is closed
            sockets.hang_up(_fileno(self))

    return ending


def _begin(conn: Any, statement: Any) -> Activity:
    activity: Activity = conn._activity
    activity.statement = statement
    activity.started = monotonic()
    touched = touches(statement)
    if touched is not _NOTHING:
        conn._touched |= touched
    return activity


def _tracking(method: Any, prefix: str = "") -> Any:
    """*prefix*: where the first argument is a table, and asyncpg writes the SQL."""
    name = _first_parameter(method)

    @wraps(method)
    async def tracking(self: Any, *args: Any, **kwargs: Any) -> Any:
        statement = args[0] if args else kwargs.get(name)
        if prefix:
            statement = f"{prefix}{statement}"
        self._running += 1
        activity = _begin(self, statement)
        try:
            if self._bounds is not None:
                await _keep_within_bounds(self, statement)
            return await method(self, *args, **kwargs)
        except BaseException as error:
            _failed(self, error)
            raise
        finally:
            self._running -= 1
            activity.ended = monotonic()

    return tracking


def _noting(method: Any) -> Any:
    name = _first_parameter(method)

    @wraps(method)
    def noting(self: Any, *args: Any, **kwargs: Any) -> Any:
        _begin(self, args[0] if args else kwargs.get(name))
        return method(self, *args, **kwargs)

    return noting


def _marking(method: Any, touched: Touched) -> Any:
    @wraps(method)
    def marking(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._touched |= touched
        return method(self, *args, **kwargs)

    return marking


def _first_parameter(method: Any) -> str:
    return list(signature(method).parameters)[1]


async def _keep_within_bounds(conn: Any, statement: Any) -> None:
    until, reading = conn._bounds
    if until <= monotonic() and not str(statement).lstrip().upper().startswith("ROLLBACK"):
        raise TimeoutError("the declared deadline passed before this statement was sent")
    if reading and not conn._in_transaction() and not conn._touched & Touched.SETTINGS:
        conn._touched |= Touched.SETTINGS
        await conn._protocol.query("SET default_transaction_read_only = on", None)
