"""The class that asyncpg's connections are made of: the one that was asked for, and noting what is done through it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import cache, wraps
from inspect import signature
from time import monotonic
from typing import Any

import asyncpg  # type: ignore[import-untyped]

from . import sockets
from .base import Activity
from .session import LIMITS, READ_ONLY, Touched, touches

NOTHING = Touched.NOTHING  # its truth is a call of Python, its identity is not

_GOODBYE = b"\0VFATAL\0C"  # within an ErrorResponse, before its SQLSTATE; what a server sends last
_GOODBYE_BYTES = 512  # at the end of what was received
_TOO_LITTLE = 0.005  # seconds before a deadline: timers may end early, and what is begun then comes to nothing

_STATEMENTS = ("execute", "executemany", "fetch", "fetchval", "fetchrow", "fetchmany", "copy_from_query")
_COPIES = ("copy_from_table", "copy_to_table", "copy_records_to_table")
_CODECS = ("set_type_codec", "reset_type_codec", "set_builtin_type_codec")
_CALLING_BACK = [
    f"{change}_{kind}"
    for change in ("add", "remove")
    for kind in ("listener", "log_listener", "termination_listener", "query_logger")
]
_CALLBACKS = ("_listeners", "_log_listeners", "_termination_listeners", "_query_loggers")


def fileno(conn: Any) -> int:
    """:raises OSError: when there is none any more; the number may be another's then."""
    protocol = conn._protocol
    if protocol is None or protocol.is_closed():
        raise OSError("the connection is closed")
    return int(conn._transport.get_extra_info("socket").fileno())


def failed(conn: Any, error: BaseException) -> None:
    """A statement has failed: does that say something of the connection?"""
    if not isinstance(error, (asyncpg.PostgresError, asyncpg.InterfaceError)):
        conn._touched |= Touched.CLIENT  # it was cancelled, or took too long: to be waited for before the next user
    if conn.is_closed():
        if isinstance(error, (asyncpg.PostgresConnectionError, OSError)):
            # Not the error itself: its frames keep the connection.
            conn._loss = None if _sqlstate(error.__cause__) in LIMITS else type(error)(str(error))
    elif _sqlstate(error) == READ_ONLY and _is_read_only(conn):
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
    return standby == "on" or (conn._born_writable and refuses_to_write(conn))


def refuses_to_write(conn: Any) -> bool:
    """As the server tells of itself, whenever that changes."""
    settings = conn.get_settings()
    names = ("in_hot_standby", "default_transaction_read_only")
    return "on" in [getattr(settings, name, None) for name in names]


def callbacks(conn: Any) -> list[Any]:
    """What is called back when something happens: copies."""
    listeners, *others = (getattr(conn, name) for name in _CALLBACKS)
    return [{channel: set(callbacks) for channel, callbacks in listeners.items()}, *map(set, others)]


def restore(conn: Any, callbacks: list[Any]) -> None:
    listeners, *others = callbacks
    copies = [{channel: set(callbacks) for channel, callbacks in listeners.items()}, *map(set, others)]
    for name, value in zip(_CALLBACKS, copies, strict=True):
        setattr(conn, name, value)


class Bounded:
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
        if left <= _TOO_LITTLE:
            return own
        return left if own is None else min(own, left)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)


class Hearing(asyncio.Protocol):
    """Between the transport and asyncpg's protocol: hears the server's goodbye.

    To an idle connection it comes a moment before the end. The event loop reads it, so that the kernel has nothing to
    tell; asyncpg keeps it to itself, and fails at the next statement.
    """

    def __init__(self, protocol: Any) -> None:
        self.goodbye = False
        self._receive = protocol.data_received
        self.connection_lost = protocol.connection_lost  # type: ignore[method-assign]
        self.eof_received = protocol.eof_received  # type: ignore[method-assign]
        self.pause_writing = protocol.pause_writing  # type: ignore[method-assign]
        self.resume_writing = protocol.resume_writing  # type: ignore[method-assign]

    def data_received(self, data: bytes) -> None:
        if data.find(_GOODBYE, -_GOODBYE_BYTES) >= 0:
            self.goodbye = True
        self._receive(data)


@cache
def tracked(connection_class: Any) -> Any:
    """*connection_class*, noting each statement: for who asks what a holder is doing, and to know what to reset.

    Part of every statement, so the class's own methods are bound here rather than looked up with `super` each time.
    """
    if getattr(connection_class, "_tracked_by_penstock", False):
        return connection_class
    wraps_by_name = {
        **dict.fromkeys(_STATEMENTS, _tracking),
        **dict.fromkeys(_COPIES, lambda method: _tracking(method, "COPY ")),
        # Their users hold them, and no method of the connection tells when they are done: looked into at the return.
        "prepare": lambda method: _naming(_marking(_tracking(method), Touched.CLIENT)),
        "cursor": lambda method: _marking(_noting(method), Touched.CLIENT),
        **dict.fromkeys(_CALLING_BACK, lambda method: _marking(method, Touched.CLIENT)),
        # asyncpg cannot take a codec back to the one that was there before.
        **dict.fromkeys(_CODECS, lambda method: _marking(method, Touched.BEYOND_RESET)),
        "_cleanup": lambda method: _marking(method, Touched.CLIENT),  # it is closed, by whomever
        "close": _giving_back,
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
        self._touched = NOTHING
        self._running = 0
        self._lent_by = self._born = self._bounds = self._loss = self._hearing = None
        init(self, *args, **kwargs)

    return beginning


def _giving_back(close: Any) -> Any:
    @wraps(close)
    async def giving_back(self: Any, *args: Any, **kwargs: Any) -> None:
        if self._lent_by is not None and self._lent_by.close_returns:
            await self._lent_by.putconn(self)
        else:
            await close(self, *args, **kwargs)

    return giving_back


def _ending(_: Any) -> Any:
    """In place of asyncpg's warning: the pool tells of a connection that was dropped, and by whom it was taken."""

    def ending(self: Any) -> None:
        with suppress(AttributeError, OSError):  # it has not begun, or is closed
            sockets.hang_up(fileno(self))

    return ending


def _begin(conn: Any, statement: Any) -> Activity:
    activity: Activity = conn._activity
    activity.statement = statement
    activity.started = monotonic()
    touched = touches(statement)
    if touched is not NOTHING:
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
            failed(self, error)
            if isinstance(error, asyncpg.InternalClientError) and self._hearing is not None and self._hearing.goodbye:
                raise asyncpg.ConnectionDoesNotExistError("the server has ended the connection") from error
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


def _naming(prepare: Any) -> Any:
    """A statement with a name of its user's choice is as one of SQL's PREPARE: the next could not have it again."""

    @wraps(prepare)
    def naming(self: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(kwargs.get("name"), str):
            self._touched |= Touched.BEYOND_RESET
        return prepare(self, *args, **kwargs)

    return naming


def _first_parameter(method: Any) -> str:
    return list(signature(method).parameters)[1]


async def _keep_within_bounds(conn: Any, statement: Any) -> None:
    until, reading = conn._bounds
    if until - monotonic() <= _TOO_LITTLE and not str(statement).lstrip().upper().startswith("ROLLBACK"):
        raise TimeoutError("the declared deadline passed before this statement was sent")
    if reading and not conn._in_transaction() and not conn._touched & Touched.SETTINGS:
        conn._touched |= Touched.SETTINGS
        await conn._protocol.query("SET default_transaction_read_only = on", None)
