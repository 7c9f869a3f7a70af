"""psycopg2's connections, held."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module
from types import ModuleType, TracebackType
from typing import Any

import psycopg2  # type: ignore[import-untyped]
from psycopg2 import extensions
from psycopg2.sql import Composable  # type: ignore[import-untyped]

from ...drivers.dbapi import Lendable
from ...drivers.psycopg2 import _text
from .. import databases
from ..settings import Settings
from . import pools
from .connecting import fallback
from .facade import Connection, Cursor, unwrapped
from .handle import Handle, Kind

_ATTRIBUTES = ("autocommit", "isolation_level", "readonly", "deferrable", "cursor_factory")
_STRANGERS = ("async", "async_", "replication")


def install(module: ModuleType, settings: Settings) -> None:
    """Let ``psycopg2.connect`` lend from a pool."""
    module.connect = _connecting(module.connect, settings)  # type: ignore[attr-defined]
    _open_up()


def _connecting(original: Callable[..., Any], settings: Settings) -> Callable[..., Any]:
    @wraps(original)
    def connect(
        dsn: str | None = None, connection_factory: Any = None, cursor_factory: Any = None, **kwargs: Any
    ) -> Any:
        def theirs() -> Any:
            return original(dsn, connection_factory, cursor_factory, **kwargs)

        if isinstance(connection_factory, type) and issubclass(connection_factory, Lendable):
            return theirs()  # a pool of ours

        def ours() -> Connection | None:
            found = _pool(dsn, connection_factory, kwargs, settings)
            if found is None:
                return None
            pool, timeout = found
            handle = Handle(_Kind(pool), pool, timeout)
            if cursor_factory is not None:
                handle.kept["cursor_factory"] = cursor_factory
            return _Connection(handle)

        return fallback("psycopg2", ours, theirs, psycopg2.Error)

    return connect


def _pool(
    dsn: str | None, factory: Any, kwargs: Mapping[str, Any], settings: Settings
) -> tuple[pools.HeldPool, float | None] | None:
    """The pool for these arguments of `connect`, and how long to wait for one; None: they cannot be held."""
    try:
        conninfo = extensions.make_dsn(dsn, **{name: value for name, value in kwargs.items() if name not in _STRANGERS})
        params = extensions.parse_dsn(conninfo)
    except (psycopg2.Error, TypeError):
        return None  # its own `connect` says what is wrong
    if any(kwargs.get(name) for name in _STRANGERS) or "replication" in params:
        pools.say_once("psycopg2 connections in asynchronous mode, or for replication, are not held")
        return None
    if factory is not None and not (isinstance(factory, type) and issubclass(factory, extensions.connection)):
        pools.say_once("psycopg2 connections that a function makes (connection_factory) are not held")
        return None
    if hasattr(factory, "start_replication") or "Replication" in getattr(factory, "__name__", ""):
        pools.say_once("psycopg2 connections in asynchronous mode, or for replication, are not held")
        return None
    where = databases.where(params)
    timeout = float(params.pop("connect_timeout", 0)) or None

    def make() -> tuple[str, dict[str, Any]]:
        options = {"connect_timeout": timeout} if timeout else {}
        return extensions.make_dsn(**params), {"connection_class": factory, **options}

    key = (frozenset(params.items()), factory)
    return pools.pool_for("psycopg2", where, key, settings.max_size, make, databases.title(where)), timeout


class _Kind(Kind):
    def is_clean(self, conn: Any) -> bool:
        ready: bool = conn.status == extensions.STATUS_READY
        return False if conn.notifies or not ready else super().is_clean(conn)

    def is_spare(self, handle: Handle, conn: Any) -> bool:
        # psycopg2 lets nobody read what it has received once the connection is closed, as it may be by its next user.
        return self.is_clean(conn) and not any(cursor._is_unread(conn) for cursor in handle.cursors)

    def is_dispensable(self, handle: Handle, conn: Any) -> bool:
        if conn.isolation_level not in (None, extensions.ISOLATION_LEVEL_READ_COMMITTED):
            return False  # it sees what there was when it began
        if any(cursor._is_unread(conn) or cursor._real.name is not None for cursor in handle.cursors):
            return False
        return not conn.notifies and self.undoes(handle, conn)

    def keep(self, conn: Any) -> dict[str, Any]:
        encoding, *attributes = conn._adopted
        then = zip(_ATTRIBUTES, attributes, strict=True)
        kept = {name: now for name, value in then if (now := getattr(conn, name)) != value}
        if conn.encoding != encoding:
            kept["encoding"] = conn.encoding
        for name in ("notices", "string_types", "binary_types"):
            if found := getattr(conn, name):
                kept[name] = found.copy()
        return kept

    def apply(self, conn: Any, kept: dict[str, Any]) -> None:
        for name, value in kept.items():
            if name == "encoding":
                conn.set_client_encoding(value)
            elif name == "notices":
                conn.notices.extend(value)
            elif name in ("string_types", "binary_types"):
                getattr(conn, name).update(value)
            else:
                setattr(conn, name, value)

    def closed_error(self) -> Exception:
        return psycopg2.InterfaceError("connection already closed")  # type: ignore[no-any-return]


class _Cursor(Cursor, extensions.cursor):  # type: ignore[misc]
    """A cursor of psycopg2's, too: a type caster that is called with anything else ends the process."""

    def __init__(self, facade: Connection, conn: Any, real: Any, make: Callable[[Any], Any]) -> None:
        super().__init__(facade, conn, real, make)
        extensions.cursor.__init__(self, conn)

    def execute(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        self._handle.states(_text(statement) if isinstance(statement, Composable) else statement)
        return self._do("execute", statement, *args, **kwargs)

    def _is_unread(self, conn: Any) -> bool:
        real = self._real
        return self._conn is conn and not self._over and real.description is not None and real.rownumber < real.rowcount

    def _check(self) -> None:
        if self._handle.closed:
            raise psycopg2.InterfaceError("cursor already closed")

    def _do(self, name: str, *args: Any, **kwargs: Any) -> Any:
        self._check()
        return super()._do(name, *args, **kwargs)

    def _read(self, name: str, *args: Any, **kwargs: Any) -> Any:
        self._check()
        if self._real.name is None:
            return getattr(self._real, name)(*args, **kwargs)
        return super()._read(name, *args, **kwargs)

    def _next(self, rows: Any) -> Any:
        self._check()
        return next(rows) if self._real.name is None else super()._next(rows)

    @property
    def closed(self) -> bool:
        return self._over or self._handle.closed

    def close(self) -> None:
        if not self._handle.closed:
            super().close()

    def mogrify(self, *args: Any, **kwargs: Any) -> Any:
        """With a cursor of its own, if this one's results came over another connection."""
        self._check()
        handle = self._handle
        conn = handle.enter()
        try:
            return (self._real if conn is self._conn else self._make(conn)).mogrify(*args, **kwargs)
        finally:
            handle.leave()


def _looked_up(name: str) -> Any:
    """What psycopg2's cursor has under this name is the real one's."""

    def get(cursor: Any) -> Any:
        return cursor.__getattr__(name)

    return property(get, lambda cursor, value: cursor.__setattr__(name, value))


for _name in vars(extensions.cursor):
    if not _name.startswith("__") and not hasattr(Cursor, _name) and _name not in vars(_Cursor):
        setattr(_Cursor, _name, _looked_up(_name))


class _Connection(Connection):
    __slots__ = ()
    _cursor_class = _Cursor
    _real_class = extensions.cursor

    @property
    def closed(self) -> int:
        handle = self._handle
        if handle.closed:
            return 1
        conn = handle.conn
        return 2 if handle.over else 0 if conn is None else conn.closed

    @property
    def status(self) -> int:
        conn = self._handle.conn
        return extensions.STATUS_READY if conn is None else conn.status  # type: ignore[no-any-return]

    def get_transaction_status(self) -> int:
        handle = self._handle
        if handle.closed or handle.over:
            return extensions.TRANSACTION_STATUS_UNKNOWN  # type: ignore[no-any-return]
        conn = handle.conn
        return extensions.TRANSACTION_STATUS_IDLE if conn is None else conn.get_transaction_status()  # type: ignore[no-any-return]

    def cancel(self) -> None:
        self._handle.check()
        if self._handle.conn is not None:
            self._do("cancel")

    def __enter__(self) -> Any:
        handle = self._handle
        conn = handle.enter()
        try:
            conn.__enter__()
            handle.pinned += 1
        finally:
            handle.leave()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        handle = self._handle
        handle.pinned -= 1
        self._do("__exit__", kind, error, traceback)
        handle.wrote = False


# ---------------------------------------------------------------------------------------------- functions in C


def _open_up() -> None:
    """Let those of psycopg2's functions that insist on its own objects have them."""
    register_type, adapt, quote_ident = extensions.register_type, extensions.adapt, extensions.quote_ident
    encrypt_password = extensions.encrypt_password

    @wraps(register_type)
    def registering(obj: Any, conn_or_curs: Any = None) -> None:
        if conn_or_curs is None:
            register_type(obj)
            return
        register_type(obj, unwrapped(conn_or_curs))
        if issubclass(type(conn_or_curs), Cursor):
            conn_or_curs._again[id(obj)] = lambda real: register_type(obj, real)

    @wraps(adapt)
    def adapting(obj: Any, *args: Any) -> Any:
        adapted = adapt(obj, *args)
        return _Adapted(adapted) if hasattr(adapted, "prepare") else adapted

    @wraps(quote_ident)
    def quoting(name: Any, scope: Any) -> Any:
        return quote_ident(name, unwrapped(scope))

    @wraps(encrypt_password)
    def encrypting(password: Any, user: Any, scope: Any = None, algorithm: Any = None) -> Any:
        return encrypt_password(password, user, unwrapped(scope), algorithm)

    for original, ours in (
        (register_type, registering),
        (adapt, adapting),
        (quote_ident, quoting),
        (encrypt_password, encrypting),
    ):
        setattr(extensions, original.__name__, ours)
    for name in ("psycopg2._json", "psycopg2._range"):  # which have it already
        import_module(name).register_type = registering  # type: ignore[attr-defined]


class _Adapted:
    """An adapter, which `prepare` gives the connection that is to quote for it."""

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)

    def __str__(self) -> str:
        return str(self._adapter)

    def prepare(self, conn: Any) -> None:
        self._adapter.prepare(unwrapped(conn))
