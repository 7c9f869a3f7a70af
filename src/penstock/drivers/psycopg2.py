"""psycopg2: `psycopg2.extensions.connection`, and what derives from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from functools import cache, wraps
from operator import attrgetter
from typing import Any

import psycopg2  # type: ignore[import-untyped]
from psycopg2 import errors, extensions, sql

from ..core import Reason
from . import sockets
from .base import Status
from .conninfo import IDLE_LIMIT, added, limits, read, seconds
from .dbapi import DBAPIDriver, lendable, tracked, within
from .libpq import Cancel
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

_STATUS = {
    extensions.TRANSACTION_STATUS_IDLE: Status.IDLE,
    extensions.TRANSACTION_STATUS_ACTIVE: Status.ACTIVE,
    extensions.TRANSACTION_STATUS_INTRANS: Status.INTRANS,
    extensions.TRANSACTION_STATUS_INERROR: Status.INERROR,
    extensions.TRANSACTION_STATUS_UNKNOWN: Status.BROKEN,
}
_OPEN = (extensions.TRANSACTION_STATUS_INTRANS, extensions.TRANSACTION_STATUS_INERROR)
# What a user can set on a connection and the next one would find there. To set them is noted (`_Noting`).
_ATTRIBUTES = ("autocommit", "isolation_level", "readonly", "deferrable", "cursor_factory")
_attributes = attrgetter("encoding", *_ATTRIBUTES)
_SETTING = ("set_client_encoding", "set_isolation_level", "set_session")
# And what is put into these, by the server or by `register_type`, cannot be noted.
_COLLECTIONS = ("notices", "notifies", "string_types", "binary_types")
# psycopg2's own status differs from the server's after a COMMIT that was sent as text, and after `tpc_prepare`.
_noted = attrgetter("_touched", "status", *_COLLECTIONS)
_autocommit = extensions.connection.autocommit  # past our noting

_NOTING = ("execute", "executemany", "callproc", "copy_expert")


class Psycopg2Driver(DBAPIDriver):
    """Satisfies `penstock.drivers.base.Driver`, but for asyncio: `threaded` does that."""

    name = "psycopg2"

    def __init__(self, connection_class: Any, is_async: bool) -> None:
        super().__init__(psycopg2)
        self.query_canceled = errors.QueryCanceled
        self.connection_class = connection_class or extensions.connection
        if not (isinstance(self.connection_class, type) and issubclass(self.connection_class, extensions.connection)):
            raise TypeError(
                f"connection_class must be psycopg2.extensions.connection or derive from it, not {connection_class!r}"
            )

    def fileno(self, conn: Any) -> int | None:
        return int(conn.fileno())

    def plain_cursor(self, conn: Any) -> Any:
        return extensions.connection.cursor(conn, cursor_factory=extensions.cursor)

    @contextmanager
    def in_autocommit(self, conn: Any) -> Iterator[None]:
        autocommit = conn.autocommit
        if not autocommit:  # to set it is no round trip, but where a transaction's characteristics are set in it
            _autocommit.__set__(conn, True)
        try:
            yield
        finally:
            if not autocommit and not conn.closed:
                _autocommit.__set__(conn, False)

    @contextmanager
    def beginning(self, conn: Any) -> Iterator[None]:
        autocommit = conn.autocommit
        if autocommit:
            _autocommit.__set__(conn, False)
        try:
            yield
        finally:
            if autocommit and conn.get_transaction_status() == extensions.TRANSACTION_STATUS_IDLE:
                _autocommit.__set__(conn, True)

    # ------------------------------------------------------------------------------------------ connecting

    def check_conninfo(self, conninfo: str) -> None:
        _parse(conninfo)

    async def connect(
        self, conninfo: str, kwargs: Mapping[str, Any], *, timeout: float, settings: Mapping[str, str]
    ) -> Any:
        if kwargs.get("async_") or kwargs.get("async"):
            raise ValueError(
                "kwargs has async_, and a pool has no use for psycopg2's own asynchronous mode: leave it out."
                " AsyncPool(driver='psycopg2') gives each connection a thread; driver='psycopg' needs none"
            )
        params = {**kwargs, **added({**_parse(conninfo), **kwargs}, timeout, settings)}
        self.noting(params)
        conn = psycopg2.connect(conninfo, **params)
        if limit := settings.get(IDLE_LIMIT):
            conn._idle_limit = seconds(limit)
        return conn

    def noting(self, params: dict[str, Any]) -> None:
        """Have psycopg2's own ``connect``, given these arguments, make a connection that can be adopted."""
        params["connection_factory"] = lendable(params.get("connection_factory") or self.connection_class, _Noting)

    def limits(self, statement: float | None, idle_in_transaction: float | None) -> Mapping[str, str]:
        return limits(statement, idle_in_transaction)

    def adopt(self, conn: Any) -> Any:
        if conn._driver is None:
            conn._born_writable = not _refuses_to_write(conn)
            conn._cancel = Cancel(conn)
        conn._bounds = None
        conn._own_limit = None
        conn._adopted = _attributes(conn)
        status, (touched, own_status, *collections) = super().adopt(conn)
        return status, (touched, own_status, *map(copy, collections))

    # ------------------------------------------------------------------------------------------ what is known

    def look(self, conn: Any) -> bool | None:
        try:
            conn.poll()
        except psycopg2.Error:
            return False
        # Anything but a notification that comes unasked to an idle connection is most likely a goodbye.
        told = bool(conn.notifies)
        conn.notifies.clear()
        return told and not conn.closed and not sockets.stirred(conn.fileno())(0)

    @staticmethod
    def state(conn: Any) -> Any:
        return conn.get_transaction_status(), _noted(conn)

    def status(self, conn: Any) -> Status:
        return _STATUS[conn.get_transaction_status()]

    def touched(self, conn: Any, baseline: Any) -> bool:
        return bool(conn._touched & ANYTHING)

    def bind(self, conn: Any, until: float, reading: bool) -> None:
        conn._bounds = (until, reading)
        conn._touched = Touched.BOUND

    def unbind(self, conn: Any) -> None:
        # What `reading` has had set stays until the transaction has ended: within one it cannot be set.
        reading = conn._bounds[1]
        conn._bounds = None
        if not reading:
            conn._touched &= ~Touched.BOUND

    def unfit(self, conn: Any) -> Reason | None:
        if not conn._touched & Touched.READ_ONLY:
            return None
        return Reason.READ_ONLY if conn._born_writable else Reason.STANDBY

    def failed(self, conn: Any, error: Exception) -> None:
        code = getattr(error, "pgcode", None)
        if code == READ_ONLY and _is_read_only(conn):
            conn._touched |= Touched.READ_ONLY
        elif code in LIMITS:
            conn._limited = True
        elif code == CANCELED and conn._bounds:
            note_deadline(error, conn._bounds[0])
        else:
            super().failed(conn, error)

    def loss(self, conn: Any) -> Exception | None:
        return None if conn._limited else super().loss(conn)

    def was_in_transaction(self, conn: Any) -> bool:
        return conn._was_open or not conn._running  # outside of one nothing but a statement reaches the server

    def told(self, conn: Any, setting: str) -> str | None:
        return conn.get_parameter_status(setting)  # type: ignore[no-any-return]

    def backend(self, conn: Any) -> int:
        return int(conn.info.backend_pid)

    def is_timeout(self, error: BaseException) -> bool:
        # psycopg2 has no error of its own for this. libpq's words are translated where it is built so: the wheels' not.
        return isinstance(error, TimeoutError) or "timeout expired" in str(error)

    # ------------------------------------------------------------------------------------------ what is done

    async def settle(self, conn: Any, commit: bool) -> None:
        await super().settle(conn, commit)
        self._end_begun(conn, commit)

    def _end_begun(self, conn: Any, commit: bool) -> None:
        """End a transaction that was begun in autocommit, with a statement: psycopg2's own methods do nothing there."""
        if conn.get_transaction_status() in _OPEN:
            with self.in_autocommit(conn):
                self.plain_cursor(conn).execute("COMMIT" if commit else "ROLLBACK")

    async def reset(self, conn: Any, baseline: Any) -> bool:
        touched = conn._touched
        if touched & Touched.BEYOND_RESET or conn.status == extensions.STATUS_PREPARED:
            return False
        if conn.status != extensions.STATUS_READY:  # its next user's first statements would be in no transaction
            conn.rollback()
        self._end_begun(conn, commit=False)
        with self.in_autocommit(conn):
            if statement := reset_statement(touched):
                self.plain_cursor(conn).execute(statement)
        _restore(conn, baseline)
        conn._touched = Touched.NOTHING
        return True

    async def cancel(self, conn: Any, timeout: float) -> None:
        within(timeout, conn._cancel, psycopg2.Error)  # libpq's has no time limit of its own


class _Noting(extensions.connection):  # type: ignore[misc]
    """Its cursors' classes take note of what they are given, whatever classes they are."""

    _limited = False
    _was_open = False  # whether a transaction was open when the last statement began, if there is an idle limit
    _touched = Touched.NOTHING
    _bounds: tuple[float, bool] | None = None

    def reset(self) -> None:
        self._touched |= ANYTHING | Touched.CLIENT
        super().reset()

    def cursor(
        self, name: Any = None, cursor_factory: Any = None, withhold: bool = False, scrollable: bool | None = None
    ) -> Any:
        factory = cursor_factory or self.cursor_factory or extensions.cursor
        if isinstance(factory, type):
            if self._bounds is not None:
                factory = _bounded(factory)
            if self._idle_limit < math.inf:
                factory = _looking(factory)
            factory = _tracked(factory)
            if name is not None:
                factory = _declaring(factory)
        else:  # a function, whose cursor is not seen
            self._touched |= ANYTHING
            _ready(self)
        return super().cursor(name, factory, withhold, scrollable)

    def lobject(self, *args: Any, **kwargs: Any) -> Any:
        _ready(self)
        return super().lobject(*args, **kwargs)

    def tpc_begin(self, *args: Any) -> None:
        _ready(self)
        super().tpc_begin(*args)


def _noting(name: str) -> Any:
    """One of psycopg2's attributes, which is noted when it is set."""
    attribute = getattr(extensions.connection, name)

    def set_(conn: Any, value: Any) -> None:
        conn._touched |= Touched.CLIENT
        attribute.__set__(conn, value)

    return property(attribute.__get__, set_, doc=attribute.__doc__)


def _marking(name: str) -> Any:
    """One of its methods, which sets some."""
    method = getattr(extensions.connection, name)

    @wraps(method)
    def marking(conn: Any, *args: Any, **kwargs: Any) -> Any:
        conn._touched |= Touched.CLIENT
        return method(conn, *args, **kwargs)

    return marking


for _name in _ATTRIBUTES:
    setattr(_Noting, _name, _noting(_name))
for _name in _SETTING:
    setattr(_Noting, _name, _marking(_name))


def _tracked(cursor_class: Any) -> Any:
    return tracked(cursor_class, _touches, psycopg2.Error, _NOTING)


@cache
def _declaring(cursor_class: Any) -> Any:
    """A named cursor says WITH HOLD by itself, so its user's statement does not tell that it stays until closed."""

    def execute(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.withhold:
            self.connection._touched |= Touched.CURSORS
        return cursor_class.execute(self, *args, **kwargs)

    marks = {"__module__": cursor_class.__module__, "__doc__": cursor_class.__doc__}
    return type(cursor_class.__name__, (cursor_class,), {"execute": execute, **marks})


def _touches(statement: Any) -> Touched:
    return touches(_text(statement) if isinstance(statement, sql.Composable) else statement)


def _text(composed: Any) -> str:
    """Composed SQL without what quotes its names and values, for which a connection would be needed."""
    if isinstance(composed, sql.Composed):
        return "".join(map(_text, composed.seq))
    if isinstance(composed, sql.SQL):
        return composed.string  # type: ignore[no-any-return]
    if isinstance(composed, sql.Identifier):
        return ".".join(composed.strings)
    return "''"


@cache
def _bounded(cursor_class: Any) -> Any:
    """*cursor_class*, whose statements begin each transaction with the lease's bounds."""

    def execute(self: Any, query: Any, vars: Any = None) -> Any:
        return cursor_class.execute(self, _begun(self, query), vars)

    def first(method: Any) -> Any:
        @wraps(method)
        def bounded(self: Any, *args: Any, **kwargs: Any) -> Any:
            _begun(self, None)
            return method(self, *args, **kwargs)

        return bounded

    names = ("executemany", "callproc", "copy_expert", "copy_from", "copy_to")
    others = {name: first(getattr(cursor_class, name)) for name in names}
    marks = {"__module__": cursor_class.__module__, "__doc__": cursor_class.__doc__}
    return type(cursor_class.__name__, (cursor_class,), {"execute": execute, **others, **marks})


@cache
def _looking(cursor_class: Any) -> Any:
    """*cursor_class*, whose statements first note whether a transaction is open."""

    def first(method: Any) -> Any:
        @wraps(method)
        def looking(self: Any, *args: Any, **kwargs: Any) -> Any:
            conn = self.connection
            conn._was_open = conn.get_transaction_status() != extensions.TRANSACTION_STATUS_IDLE
            return method(self, *args, **kwargs)

        return looking

    methods = {name: first(getattr(cursor_class, name)) for name in _NOTING}
    marks = {"__module__": cursor_class.__module__, "__doc__": cursor_class.__doc__}
    return type(cursor_class.__name__, (cursor_class,), methods | marks)


def _begun(cursor: Any, query: Any) -> Any:
    """*query*, which may begin a transaction, with what bounds that one before it, in the same message.

    psycopg2 makes and sends BEGIN itself, in C, and leaves no room there. A server-side cursor's query, and what is
    not sent by `execute`, cannot take it along either: there it is a round trip. So is the session's own limit,
    which is asked for once, and again after the user has set something.
    """
    conn = cursor.connection
    if conn._bounds is None:  # the cursor has outlived its lease
        return query
    until, _ = conn._bounds
    if conn.get_transaction_status() != extensions.TRANSACTION_STATUS_IDLE:
        return query
    _ready(conn)
    if until == math.inf or conn.autocommit:
        return query
    if conn._own_limit is None or conn._touched & Touched.SETTINGS:
        plain = extensions.connection.cursor(conn, cursor_factory=extensions.cursor)
        plain.execute("SHOW statement_timeout")
        conn._own_limit = milliseconds(plain.fetchone()[0])
        plain.execute(local_limit(until, conn._own_limit))
        return query
    limit = local_limit(until, conn._own_limit)
    if query is None or cursor.name is not None:
        extensions.connection.cursor(conn, cursor_factory=extensions.cursor).execute(limit)
        return query
    if isinstance(query, sql.Composable):
        query = query.as_string(cursor)
    return b"%s;\n%s" % (limit.encode(), query) if isinstance(query, bytes) else f"{limit};\n{query}"


def _parse(conninfo: str) -> dict[str, Any]:
    return read(conninfo, extensions.parse_dsn, psycopg2.Error)


def _ready(conn: Any) -> None:
    """Before what may begin a transaction: let it be read only if the lease is, whatever its user may have set."""
    if conn._bounds is None or not conn._bounds[1]:
        return
    if conn.get_transaction_status() == extensions.TRANSACTION_STATUS_IDLE:
        conn.set_session(readonly=True, autocommit=False)  # in autocommit there would be none


def _restore(conn: Any, baseline: Any) -> None:
    encoding, autocommit, isolation_level, readonly, deferrable, cursor_factory = conn._adopted
    if conn.encoding != encoding:
        conn.set_client_encoding(encoding)
    conn.set_session(*map(_or_default, (isolation_level, readonly, deferrable)), autocommit)
    conn.cursor_factory = cursor_factory
    _, (_, _, notices, notifies, string_types, binary_types) = baseline
    conn.notices, conn.notifies = copy(notices), copy(notifies)
    for now, then in ((conn.string_types, string_types), (conn.binary_types, binary_types)):
        now.clear()
        now.update(then)


def _or_default(value: Any) -> Any:
    return "default" if value is None else value


def _is_read_only(conn: Any) -> bool:
    """Whether it is the server that does not write, and not that its user has asked it not to."""
    if conn._touched & Touched.SETTINGS:
        return False
    standby = conn.get_parameter_status(STANDBY)
    if standby is None:  # a server before PostgreSQL 14, or a pooler that does not pass it on
        return conn.readonly is not True
    return standby == "on" or (conn._born_writable and _refuses_to_write(conn))


def _refuses_to_write(conn: Any) -> bool:
    """As the server tells of itself, whenever that changes."""
    return "on" in map(conn.get_parameter_status, (STANDBY, "default_transaction_read_only"))
