"""psycopg 3: `psycopg.Connection` for threads, `psycopg.AsyncConnection` for asyncio, and what derives from them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, wraps
from operator import attrgetter
from threading import get_ident
from time import monotonic
from typing import Any, get_origin
from weakref import WeakMethod, ref

import psycopg
from psycopg import generators
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus
from psycopg.rows import tuple_row

from ..core import Reason
from . import sockets
from .base import Activity, Status, settled
from .conninfo import added, limits, parse
from .session import (
    ANYTHING,
    CANCELED,
    LIMITS,
    READ_ONLY,
    STANDBY,
    Touched,
    local_limit,
    milliseconds,
    note_deadline,
    reset_statement,
    touches,
)

_NOTHING = Touched.NOTHING  # its truth is a call of Python, its identity is not
_OMITTED: Any = object()  # a parameter's name differs from method to method, so it is passed on as it was given
_STATUS = {
    TransactionStatus.IDLE: Status.IDLE,
    TransactionStatus.ACTIVE: Status.ACTIVE,
    TransactionStatus.INTRANS: Status.INTRANS,
    TransactionStatus.INERROR: Status.INERROR,
    TransactionStatus.UNKNOWN: Status.BROKEN,
}

# What a user can set on a connection object and the next one would find there: the attributes behind psycopg's own
# properties, which are set alike on both classes of connection.
_ATTRIBUTES = (
    "_autocommit",
    "_isolation_level",
    "_read_only",
    "_deferrable",
    "row_factory",
    "cursor_factory",
    "server_cursor_factory",
)
_attributes = attrgetter(*_ATTRIBUTES)
_preparing = attrgetter("_prepared.prepare_threshold", "_prepared.prepared_max")
# Part of every return, so in one call of C: what the protocol knows of the transaction, what was noted as touched, and
# those attributes that can be set without our noting it (see `_watch`).
_state = attrgetter("pgconn.transaction_status", "_touched", "row_factory", "cursor_factory", "server_cursor_factory")

_STANDBY = STANDBY.encode()


class PsycopgDriver:
    """Satisfies `penstock.drivers.base.Driver`."""

    operational_error: type[Exception] = psycopg.OperationalError
    programming_error: type[Exception] = psycopg.ProgrammingError
    data_error: type[Exception] = psycopg.DataError
    query_canceled: type[Exception] = psycopg.errors.QueryCanceled
    state = staticmethod(_state)
    shares = True  # statements of many tasks can share its connections: see `penstock.multiplex`

    def __init__(self, connection_class: Any, is_async: bool) -> None:
        own = psycopg.AsyncConnection if is_async else psycopg.Connection
        self.connection_class = connection_class or own
        plain = get_origin(self.connection_class) or self.connection_class  # of MyConnection[MyRow], MyConnection
        if not (isinstance(plain, type) and issubclass(plain, own)):
            raise TypeError(
                f"connection_class must be psycopg.{own.__name__} or derive from it, not {connection_class!r}"
            )

    def check_conninfo(self, conninfo: str) -> None:
        parse(conninfo)

    async def connect(
        self, conninfo: str, kwargs: Mapping[str, Any], *, timeout: float, settings: Mapping[str, str]
    ) -> Any:
        params = {**kwargs, **added({**parse(conninfo), **kwargs}, timeout, settings)}
        return await settled(self.connection_class.connect(conninfo, **params))

    def limits(self, statement: float | None, idle_in_transaction: float | None) -> Mapping[str, str]:
        return limits(statement, idle_in_transaction)

    def adopt(self, conn: Any) -> Any:
        if not hasattr(
            conn, "_activity"
        ):  # before `configure`, which may add handlers, and does so again after a reset
            conn._born_writable = not _refuses_to_write(conn)
            conn._bounds = None
            conn._handlers = (list(conn._notice_handlers), list(conn._notify_handlers))
            _watch(conn)
        conn._activity = Activity()
        conn._touched = Touched.NOTHING
        conn._loss = None
        conn._own_limit = None
        conn.cursor_factory = tracked(conn.cursor_factory)
        conn.server_cursor_factory = tracked(conn.server_cursor_factory)
        conn._adopted = (_attributes(conn), _preparing(conn))
        return _state(conn)

    def probe(self, conn: Any) -> Callable[[int], object]:
        return sockets.stirred(conn.fileno())

    def look(self, conn: Any) -> bool:
        pgconn = conn.pgconn
        try:
            pgconn.consume_input()
            told = False
            while pgconn.notifies():
                told = True  # a notification, for nobody: who listened has given the connection back
        except psycopg.Error:
            return False
        # Anything else that comes unasked to an idle connection is most likely a server that says goodbye.
        return told and bool(pgconn.status == ConnStatus.OK)

    def status(self, conn: Any) -> Status:
        return _STATUS[conn.pgconn.transaction_status]

    def activity(self, conn: Any) -> Activity:
        return conn._activity  # type: ignore[no-any-return]

    def touched(self, conn: Any, baseline: Any) -> bool:
        return bool(self._touched(conn, baseline) & ~(Touched.CLIENT | Touched.BOUND))

    def bind(self, conn: Any, until: float, reading: bool) -> None:
        if "_exec_command" not in conn.__dict__:
            conn._exec_command = _beginning_bounded(conn, conn._exec_command)
        conn._bounds = (until, reading)
        conn._touched = Touched.BOUND
        if reading:  # in autocommit there would be no transaction to be read only
            conn._autocommit = False

    def unbind(self, conn: Any) -> None:
        _, reading = conn._bounds
        conn._bounds = None
        if reading:
            conn._autocommit = conn._adopted[0][0]
        # Usually there is nothing else, and to take a flag out of others is a call of Python.
        conn._touched = _NOTHING if conn._touched is Touched.BOUND else conn._touched & ~Touched.BOUND

    def unfit(self, conn: Any) -> Reason | None:
        if not conn._touched & Touched.READ_ONLY:
            return None
        return Reason.READ_ONLY if conn._born_writable else Reason.STANDBY

    def failed(self, conn: Any, error: Exception) -> None:
        if isinstance(error, psycopg.Error):
            _failed(conn, error)

    def loss(self, conn: Any) -> Exception | None:
        if conn._loss is None and conn.broken:  # by COPY, say, whose errors are not seen
            return psycopg.OperationalError("the connection was lost")
        return conn._loss or None

    def transaction(self, conn: Any) -> Any:
        return conn.transaction()

    async def settle(self, conn: Any, commit: bool) -> None:
        try:
            await settled(conn.commit() if commit else conn.rollback())
        except psycopg.Error as error:
            _failed(conn, error)
            raise

    async def reset(self, conn: Any, baseline: Any) -> bool:
        touched = self._touched(conn, baseline)
        if touched & Touched.BEYOND_RESET or conn._tpc is not None:
            return False
        self._restore(conn)
        if statement := reset_statement(touched):
            await _in_autocommit(conn, statement)
        conn._touched = Touched.NOTHING
        return True

    async def ask(self, conn: Any, query: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        plain: Any = psycopg.AsyncCursor if isinstance(conn, psycopg.AsyncConnection) else psycopg.Cursor
        autocommit, conn._autocommit = conn._autocommit, True
        try:
            cursor = plain(conn, row_factory=tuple_row)  # not the connection's class, which would take note
            try:
                await settled(cursor.execute(query, params, prepare=True))
            except psycopg.errors.InvalidSqlStatementName:  # DISCARD ALL took it away, which psycopg does not know
                conn._prepared.clear()
                await settled(cursor.execute(query, params, prepare=False))
            except psycopg.errors.DuplicatePreparedStatement:  # another session's, lent by a pooler
                await settled(cursor.execute(query, params, prepare=False))
            rows: list[tuple[Any, ...]] = await settled(cursor.fetchall())
            return rows
        finally:
            conn._autocommit = autocommit

    def told(self, conn: Any, setting: str) -> str | None:
        value = conn.pgconn.parameter_status(setting.encode())
        return None if value is None else value.decode(errors="replace")

    def backend(self, conn: Any) -> int:
        return int(conn.pgconn.backend_pid)

    async def check(self, conn: Any) -> None:
        await check_connection(conn)

    async def cancel(self, conn: Any, timeout: float) -> None:
        with suppress(psycopg.Error):
            await settled(conn.cancel_safe(timeout=timeout))

    async def close(self, conn: Any) -> int | None:
        end = None
        with suppress(psycopg.Error, OSError):
            end = os.dup(conn.pgconn.socket)
        try:
            await settled(conn.close())
        except BaseException:
            if end is not None:
                sockets.close(end)
            raise
        return end

    def abort(self, conn: Any) -> None:
        with suppress(psycopg.Error):
            sockets.hang_up(conn.pgconn.socket)

    def abandon(self, conn: Any) -> int | None:
        with suppress(psycopg.Error, OSError):
            return sockets.send_end(conn.pgconn.socket)
        return None

    def silence(self, conn: Any) -> None:
        with suppress(psycopg.Error, OSError):
            sockets.put_out_of_reach(conn.pgconn.socket)

    def is_timeout(self, error: BaseException) -> bool:
        return isinstance(error, (TimeoutError, psycopg.errors.ConnectionTimeout))

    def _touched(self, conn: Any, baseline: Any) -> Touched:
        """What was touched; through cursors of a class that the user has put in place, anything may have been."""
        touched: Touched = conn._touched
        return touched if _state(conn)[3:] == baseline[3:] else touched | ANYTHING

    def _restore(self, conn: Any) -> None:
        attributes, (conn._prepared.prepare_threshold, conn._prepared.prepared_max) = conn._adopted
        for name, value in zip(_ATTRIBUTES, attributes, strict=True):
            setattr(conn, name, value)
        conn._begin_statement = b""  # made of isolation level, read only and deferrable
        conn._notice_handlers[:], conn._notify_handlers[:] = conn._handlers


def _beginning_bounded(conn: Any, execute: Any) -> Any:
    """psycopg's method for BEGIN, COMMIT and their like: with the lease's bounds sent along with BEGIN."""
    weak, execute = ref(conn), WeakMethod(execute)

    def exec_command(command: Any, *args: Any, **kwargs: Any) -> Any:
        conn = weak()
        if conn is None or not conn._bounds or not isinstance(command, bytes) or not command.startswith(b"BEGIN"):
            return execute()(command, *args, **kwargs)
        until, reading = conn._bounds
        if reading:
            command = command.replace(b" READ WRITE", b"") + b" READ ONLY"
        # In pipeline mode each statement is a message of its own, and a second one would be a result too many.
        if conn._pipeline or until == math.inf:
            return execute()(command, *args, **kwargs)
        return _begin_bounded(conn, command, until)

    return exec_command


def _begin_bounded(conn: Any, begin: bytes, until: float) -> Any:
    """BEGIN, with `statement_timeout` for this transaction: what is left, but no more than the session's own limit.

    With SET, not with set_config: a SELECT would take the transaction's snapshot, before whatever its user wants to do
    first (LOCK TABLE, SET TRANSACTION). Role, database or `configure` may have set the session's own limit; it is asked
    for with the first BEGIN, which costs that one a round trip, and again once the user has set something.
    """
    if conn._own_limit is None or conn._touched & Touched.SETTINGS:
        began, shown = yield from _all_results(conn, begin + b"; SHOW statement_timeout")
        conn._own_limit = milliseconds(shown.get_value(0, 0).decode())
        yield from _all_results(conn, local_limit(until, conn._own_limit).encode())
        return began
    results = yield from _all_results(conn, begin + b"; " + local_limit(until, conn._own_limit).encode())
    return results[0]


def _all_results(conn: Any, statements: bytes) -> Any:
    conn._check_connection_ok()
    conn.pgconn.send_query(statements)
    results = yield from generators.execute(conn.pgconn)
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result, encoding=conn.info.encoding)
    return results


async def check_connection(conn: Any) -> None:
    """One round trip, in no transaction. Raises the driver's error if the connection does not work."""
    await _in_autocommit(conn, "")


async def _in_autocommit(conn: Any, statement: str) -> None:
    autocommit, conn._autocommit = conn._autocommit, True
    try:
        await settled(conn.execute(statement))
    finally:
        conn._autocommit = autocommit


def _watch(conn: Any) -> None:
    """From now on what sets one of the connection's attributes, or adds a handler, marks it as touched.

    All but the factories, which are plain attributes: to watch those would make each statement dearer.
    """
    # psycopg's setters of autocommit, isolation level, read only and deferrable all begin with this check.
    conn._check_intrans_gen = _marking(conn, conn._check_intrans_gen)
    conn.tpc_prepare = _marking(conn, conn.tpc_prepare)  # after which psycopg refuses all but its end
    conn.add_notice_handler = _marking(conn, conn.add_notice_handler)
    conn.add_notify_handler = _marking(conn, conn.add_notify_handler)
    conn._prepared.__class__ = _watched(conn._prepared.__class__)
    conn._prepared._conn = ref(conn)


def _marking(conn: Any, method: Any) -> Any:
    """A method of *conn* that marks it as touched, and does not keep it: it is kept by it."""
    weak, method = ref(conn), WeakMethod(method)

    def marking(*args: Any) -> Any:
        _mark(weak())
        return method()(*args)

    return marking


def _mark(conn: Any) -> None:
    conn._touched |= Touched.CLIENT


@cache
def _watched(manager: Any) -> Any:
    """psycopg's manager of prepared statements, marking its connection as touched when it is set otherwise."""

    def setattr_(self: Any, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name in ("prepare_threshold", "prepared_max") and (conn := self._conn()) is not None:
            _mark(conn)

    return type(manager.__name__, (manager,), {"__module__": manager.__module__, "__setattr__": setattr_})


@cache
def tracked(cursor_class: Any) -> Any:
    """*cursor_class*, taking note of each statement: for who asks what a holder is doing, and to know what to reset.

    Part of every statement, so the class's own methods are bound here rather than looked up with `super` each time.
    """
    if getattr(cursor_class, "_tracked_by_penstock", False):
        return cursor_class
    is_async = issubclass(cursor_class, (psycopg.AsyncCursor, psycopg.AsyncServerCursor))
    wrap = _tracking_async if is_async else _tracking
    methods = {name: wrap(getattr(cursor_class, name)) for name in ("execute", "executemany")}
    if issubclass(cursor_class, (psycopg.ServerCursor, psycopg.AsyncServerCursor)):
        methods["execute"] = _declaring(methods["execute"])
    # The end of these is the user's to choose: until then the connection's own status tells that they run.
    methods |= {name: _noting(getattr(cursor_class, name)) for name in ("stream", "copy")}
    marks = {"__module__": cursor_class.__module__, "_tracked_by_penstock": True}
    return type(cursor_class.__name__, (cursor_class,), methods | marks)


def _begin(conn: Any, statement: Any) -> Activity:
    activity: Activity = conn._activity
    activity.statement = statement
    activity.thread = get_ident()
    activity.started = monotonic()
    if conn._bounds is not None and conn._bounds[1]:  # whatever its user may have set
        conn._autocommit = False
    touched = touches(statement)
    if touched is not _NOTHING:
        conn._touched |= touched
    return activity


def _failed(conn: Any, error: psycopg.Error) -> None:
    """A statement has failed: does that say something of the connection?"""
    if conn.broken:
        # Not the error itself: its frames keep the connection.
        conn._loss = False if error.sqlstate in LIMITS else type(error)(str(error))
    elif error.sqlstate == READ_ONLY and _is_read_only(conn):
        conn._touched |= Touched.READ_ONLY
    elif error.sqlstate == CANCELED and conn._bounds:
        note_deadline(error, conn._bounds[0])


def _is_read_only(conn: Any) -> bool:
    """Whether it is the server that does not write, and not that its user has asked it not to."""
    if conn._touched & Touched.SETTINGS:
        return False
    standby = conn.pgconn.parameter_status(_STANDBY)
    if standby is None:  # a server before PostgreSQL 14, or a pooler that does not pass it on
        return conn.read_only is not True and not (conn._bounds and conn._bounds[1])
    return standby == b"on" or (conn._born_writable and _refuses_to_write(conn))


def _refuses_to_write(conn: Any) -> bool:
    """As the server tells of itself, whenever that changes."""
    return b"on" in map(conn.pgconn.parameter_status, (_STANDBY, b"default_transaction_read_only"))


def _tracking(method: Any) -> Any:
    @wraps(method)
    def tracking(self: Any, query: Any, params: Any = _OMITTED, **kwargs: Any) -> Any:
        activity = _begin(self._conn, query)
        try:
            if params is _OMITTED:
                return method(self, query, **kwargs)
            return method(self, query, params, **kwargs)
        except psycopg.Error as error:
            _failed(self._conn, error)
            raise
        finally:
            activity.ended = monotonic()

    return tracking


def _tracking_async(method: Any) -> Any:
    @wraps(method)
    async def tracking(self: Any, query: Any, params: Any = _OMITTED, **kwargs: Any) -> Any:
        activity = _begin(self._conn, query)
        try:
            if params is _OMITTED:
                return await method(self, query, **kwargs)
            return await method(self, query, params, **kwargs)
        except psycopg.Error as error:
            _failed(self._conn, error)
            raise
        finally:
            activity.ended = monotonic()

    return tracking


def _declaring(method: Any) -> Any:
    """A server cursor says WITH HOLD by itself, so its user's statement does not tell that it stays until closed."""

    @wraps(method)
    def declaring(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.withhold:
            self._conn._touched |= Touched.CURSORS
        return method(self, *args, **kwargs)

    return declaring


def _noting(method: Any) -> Any:
    @wraps(method)
    def noting(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        _begin(self._conn, query)
        return method(self, query, *args, **kwargs)

    return noting
