"""asyncpg's connections, held.

What the program gets is a connection of the class that it asked for, with callbacks, transactions and attributes of
its own, over the protocol of one of the pool's: as long as it has one, and then over that of another.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Mapping
from functools import cache, wraps
from inspect import Signature, iscoroutinefunction, signature
from types import ModuleType
from typing import Any

import asyncpg  # type: ignore[import-untyped]
from asyncpg import connect_utils

from ... import errors
from ...drivers import sockets
from ...drivers.asyncpg import AsyncpgDriver
from ...drivers.asyncpg_connection import NOTHING, fileno
from ...drivers.base import Activity
from ...drivers.session import Touched
from .. import databases
from ..settings import Settings
from . import pools
from .aio import HeldAsyncPool, pool_for
from .aio_handle import AsyncHandle

_CONNECT_SECONDS = 60.0  # asyncpg's default
_RESET = Touched.SETTINGS | Touched.LISTENS | Touched.LOCKS | Touched.CURSORS  # what asyncpg's own reset takes away
_OF_THE_BODY = ("_activity", "_touched", "_running", "_bounds", "_loss", "_hearing", "_lent_by", "_stmts_to_close")
_OF_THE_FACADE = (
    *(f"{change}_{kind}_listener" for change in ("add", "remove") for kind in ("log", "termination")),
    *("add_query_logger", "remove_query_logger"),
)  # callbacks that nobody else's connection has: there is nothing to undo


def install(module: ModuleType, settings: Settings) -> None:
    """Let ``asyncpg.connect`` lend from a pool."""
    connect = _connecting(module.connect, settings)
    module.connect = module.connection.connect = connect  # type: ignore[attr-defined]


def _connecting(original: Callable[..., Any], settings: Settings) -> Callable[..., Any]:
    parameters = signature(original)

    @wraps(original)
    async def connect(*args: Any, **kwargs: Any) -> Any:
        pool = timeout = None
        try:
            found = _pool(original, parameters, args, kwargs, settings)
        except Exception:
            pools.logger.exception("a connection of asyncpg is not held")
            found = None
        if found is None:
            return await original(*args, **kwargs)
        pool, timeout = found
        handle = AsyncHandle(_BODY, pool, timeout)
        try:
            await handle.open()
        except errors.PoolTimeout as error:
            raise errors.under(_plain(error), TimeoutError)(str(error)) from error.__cause__
        return held(pool.connection_class)(handle)

    return connect


def _plain(error: errors.PoolError) -> type[errors.PoolError]:
    """Its kind, without the driver's class beside it."""
    return next(kind for kind in type(error).__mro__ if kind in _OURS)


_OURS = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.PoolError)}


# ---------------------------------------------------------------------------------------------- which pool


def _pool(
    original: Callable[..., Any], parameters: Signature, args: Any, kwargs: Mapping[str, Any], settings: Settings
) -> tuple[HeldAsyncPool, float | None] | None:
    """The pool for these arguments of `connect`, and how long to wait for one; None: they cannot be held."""
    try:
        bound = parameters.bind(*args, **kwargs)
    except TypeError:
        return None  # asyncpg's own says what is wrong
    given = bound.arguments
    if given.get("loop") is not None or not _is_theirs(given.get("connection_class")):
        return None
    if callable(given.get("password")):
        pools.say_once("asyncpg connections whose password is asked for (a function) are not held")
        return None
    try:
        key = ("asyncpg", *sorted((name, _hashable(value)) for name, value in given.items()))
        hash(key)
    except TypeError:
        pools.say_once("asyncpg connections with arguments that cannot be told apart (unhashable) are not held")
        return None
    bound.apply_defaults()
    try:
        where, title = _where(bound.arguments)
    except Exception:
        return None
    timeout = given.get("timeout")

    def make() -> Mapping[str, Any]:
        return {
            "driver": _Driver(original, bound.arguments),
            "connect_timeout": _CONNECT_SECONDS if timeout is None else timeout,
        }

    return pool_for("asyncpg", where, key, settings.max_size, make, title), timeout


def _is_theirs(connection_class: Any) -> bool:
    """Whether it is no pool of ours that connects; and what asyncpg takes for a class at all."""
    if connection_class is None:
        return True
    return asyncpg.Connection in connection_class.__mro__ and not hasattr(connection_class, "_tracked_by_penstock")


def _hashable(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple(sorted((key, _hashable(each)) for key, each in value.items()))
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


_PARSED = tuple(signature(connect_utils._parse_connect_arguments).parameters)


def _where(arguments: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """Which database that is, by asyncpg's own reading of its arguments, the environment and its files."""
    addresses, params, _ = connect_utils._parse_connect_arguments(**{name: arguments[name] for name in _PARSED})
    pairs = [(address, "") if isinstance(address, str) else (address[0], str(address[1])) for address in addresses]
    hosts, ports = (",".join(each) for each in zip(*pairs, strict=True))
    found = [f"{host}:{port}" if port else host for host, port in pairs]
    database, user = str(params.database), str(params.user)
    return databases.resolved(hosts, ports, database, user), f"{database} at {', '.join(found)}"


class _Driver(AsyncpgDriver):
    """asyncpg's connections, made with its own `connect` and the program's arguments."""

    def __init__(self, original: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        super().__init__(arguments["connection_class"], is_async=True)
        self._original = original
        self._arguments = {**arguments, "connection_class": self.connection_class}

    def check_conninfo(self, conninfo: str) -> None:
        pass

    async def connect(self, conninfo: str, kwargs: Any, *, timeout: float, settings: Any) -> Any:
        conn = await self._original(**self._arguments)
        sockets.notice_silence(fileno(conn))
        return conn


# ---------------------------------------------------------------------------------------------- what the program gets


class _Parted:
    """The protocol of a connection that has none at the moment. It knows what was last known."""

    queries_count = 0

    def __init__(self, protocol: Any, connected: bool) -> None:
        self._last = protocol
        self._connected = connected

    def is_connected(self) -> bool:
        return self._connected

    def is_closed(self) -> bool:
        return not self._connected

    def is_in_transaction(self) -> bool:
        return False

    def _is_cancelling(self) -> bool:
        return False

    def abort(self) -> None:
        self._connected = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._last, name)


class _Body:
    explicit = True
    mysql = False

    def put_on(self, facade: Any, conn: Any) -> None:
        for name in ("_protocol", "_transport", "_stmt_cache", "_config", "_reset_query"):
            setattr(facade, name, getattr(conn, name))
        conn._protocol.set_connection(facade)

    def take_off(self, facade: Any, conn: Any) -> None:
        protocol = conn._protocol
        if protocol is not None:
            protocol.set_connection(conn)
        if facade is None:
            return
        facade._stmt_cache = facade._own_cache
        facade._top_xact = facade._transport = None
        facade._last = conn
        if facade._protocol is not None:
            facade._protocol = _Parted(facade._protocol, connected=facade._handle.over is None)

    def is_broken(self, conn: Any) -> bool:
        return False  # `_cleanup` tells of it

    def may_rest(self, conn: Any) -> bool:
        return True

    def closed_error(self) -> Exception:
        return asyncpg.InterfaceError("connection is closed")  # type: ignore[no-any-return]


_BODY = _Body()


@cache
def held(connection_class: Any) -> Any:
    """A tracked class, for what the program gets in place of its connections."""
    theirs = connection_class.__mro__[1]
    methods = {
        name: _using(getattr(connection_class, name))
        for name in dir(theirs)
        if not name.startswith("_") and name != "close" and iscoroutinefunction(getattr(theirs, name))
    }
    methods |= {name: getattr(theirs, name) for name in _OF_THE_FACADE if hasattr(theirs, name)}
    methods |= {name: _of_the_body(name) for name in _OF_THE_BODY}

    def begin(self: Any, handle: AsyncHandle) -> None:
        conn = handle.conn
        self._handle, self._last = handle, _BEGINNING
        theirs.__init__(self, conn._protocol, conn._transport, conn._loop, conn._addr, conn._config, conn._params)
        self._own_cache, self._last = self._stmt_cache, None
        handle.belongs_to(self)

    methods |= {
        "__module__": theirs.__module__,
        "__init__": begin,
        "__del__": _dropped,
        "_cleanup": _cleaning_up(theirs._cleanup),
        "_maybe_gc_stmt": _forget_statement,
        "reset": _resetting(methods["reset"]),
    }
    if theirs.close is asyncpg.Connection.close:
        methods["close"] = _close
    return type(theirs.__name__, (connection_class,), methods)


def _using(method: Any) -> Any:
    @wraps(method)
    async def using(self: Any, *args: Any, **kwargs: Any) -> Any:
        handle = self._handle
        if handle.conn is None:
            await handle.attach()
        if args and isinstance(args[0], str):
            handle.states(args[0])
        handle.enter()
        try:
            return await method(self, *args, **kwargs)
        finally:
            handle.leave()

    return using


def _of_the_body(name: str) -> property:
    """An attribute of the pool's connection: what is noted of its use, and is to be undone after it."""

    def read(self: Any) -> Any:
        conn = self._handle.conn
        return _NOBODYS[name]() if conn is None else getattr(conn, name)

    def write(self: Any, value: Any) -> None:
        conn = self._handle.conn
        if conn is not None and self._last is not _BEGINNING:
            setattr(conn, name, value)

    return property(read, write)


_BEGINNING = object()
_NOBODYS: dict[str, Callable[[], Any]] = {
    "_activity": Activity,
    "_touched": lambda: NOTHING,
    "_running": int,
    "_stmts_to_close": set,
    **dict.fromkeys(("_bounds", "_loss", "_hearing", "_lent_by"), lambda: None),
}


def _dropped(self: Any) -> None:
    handle = self.__dict__.get("_handle")
    if handle is None or handle.closed:
        return
    warnings.warn(
        f"unclosed connection {self!r}; run in asyncio debug mode to show the traceback of connection origin",
        ResourceWarning,
        stacklevel=2,
    )
    if handle.conn is not None and handle.conn._protocol is not None:
        handle.conn._protocol.set_connection(handle.conn)  # which refers weakly, and asks it for its settings
    handle.dropped()


def _cleaning_up(method: Any) -> Any:
    @wraps(method)
    def _cleanup(self: Any) -> None:
        """It is closed: by its user, or by the server."""
        handle = self._handle
        if handle.conn is not None:
            handle.lost()
        method(self)

    return _cleanup


async def _close(self: Any, *, timeout: float | None = None) -> None:
    handle = self._handle
    if handle.closed:
        return
    async with asyncio.timeout(timeout):
        await handle.close()
    asyncpg.Connection._cleanup(self)


def _forget_statement(self: Any, statement: Any) -> None:
    """A prepared statement is not used any more: the connection that it was prepared on sees to it."""
    conn = self._handle.conn or self._last
    if conn is not None:
        conn._maybe_gc_stmt(statement)


def _resetting(method: Any) -> Any:
    @wraps(method)
    async def reset(self: Any, *, timeout: float | None = None) -> None:
        await method(self, timeout=timeout)
        if type(self).get_reset_query is asyncpg.Connection.get_reset_query:
            self._touched &= ~_RESET

    return reset
