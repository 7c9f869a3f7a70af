"""aiomysql's connections, held.

What the program gets is a connection of the class that it asked for, whose attributes are those of one of the pool's:
as long as it has one, and then those of another.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from functools import cache, wraps
from inspect import getattr_static, iscoroutinefunction, signature
from types import ModuleType
from typing import Any

import aiomysql  # type: ignore[import-untyped]
from aiomysql.utils import _ConnectionContextManager  # type: ignore[import-untyped]

from ..settings import Settings
from . import pools
from .aio import HeldAsyncPool, pool_for
from .aio_handle import AsyncHandle
from .mysql import _frozen, _text

_OWN = ("_handle", "_last", "_result_had", "_later", "cursorclass", "_echo")  # and not of the pool's connection


def install(module: ModuleType, settings: Settings) -> None:
    """Let ``aiomysql.connect`` lend from a pool."""
    original = module.connect
    connect = _connecting(original, settings)
    modules: tuple[Any, ...] = (module, module.connection, sys.modules["aiomysql.pool"])
    for each in modules:
        each.connect = connect


def _connecting(original: Callable[..., Any], settings: Settings) -> Callable[..., Any]:
    parameters = signature(original)

    @wraps(original)
    def connect(*args: Any, **kwargs: Any) -> Any:
        try:
            given = parameters.bind(*args, **kwargs).arguments
        except TypeError:
            return original(*args, **kwargs)  # which says what is wrong
        return _ConnectionContextManager(_connect(original, given, settings))

    return connect


async def _connect(original: Callable[..., Any], given: Mapping[str, Any], settings: Settings) -> Any:
    try:
        found = _pool(given, settings)
    except Exception:
        pools.logger.exception("a connection of aiomysql is not held")
        found = None
    if found is None:
        return await original(**given)
    pool, timeout = found
    handle = AsyncHandle(_BODY, pool, timeout)
    await handle.open()
    driver: Any = pool._driver
    return held(driver.made_lendable(driver.connection_class))(handle, given)


def _pool(given: Mapping[str, Any], settings: Settings) -> tuple[HeldAsyncPool, float | None] | None:
    """The pool for these arguments of `connect`, and how long to wait for one; None: they cannot be held."""
    if given.get("loop") is not None:
        return None
    params = {name: value for name, value in given.items() if name not in ("cursorclass", "connect_timeout", "echo")}
    try:
        key = ("aiomysql", _frozen(params))
        hash(key)
    except TypeError:
        pools.say_once("aiomysql connections with arguments that cannot be compared are not held")
        return None
    timeout = given.get("connect_timeout")
    host, port = params.get("host") or params.get("unix_socket") or "localhost", params.get("port") or 3306
    where = (_text(host), str(port), _text(params.get("db") or ""), _text(params.get("user") or ""))

    def make() -> Mapping[str, Any]:
        return {
            "driver": "aiomysql",
            "kwargs": params,
            **({"connect_timeout": float(timeout)} if timeout else {}),
        }

    title = f"{_text(params.get('db') or 'no database yet')} at {_text(host)}:{port}"
    return pool_for("aiomysql", where, key, settings.max_size, make, title), timeout


class _Body:
    explicit = False
    mysql = True

    def put_on(self, facade: Any, conn: Any) -> None:
        later, facade._later = facade._later, {}
        for name, value in later.items():
            setattr(conn, name, value)

    def take_off(self, facade: Any, conn: Any) -> None:
        if facade is not None:
            facade._last, facade._result_had = conn, conn._result
        conn._result = None

    def is_broken(self, conn: Any) -> bool:
        return conn._writer is None

    def may_rest(self, conn: Any) -> bool:
        return not conn._running

    def closed_error(self) -> Exception:
        return aiomysql.InterfaceError("(0, 'Not connected')")  # type: ignore[no-any-return]


_BODY = _Body()


class _Held:
    """What a held connection does otherwise than aiomysql's own. Stands before the program's class."""

    _handle: AsyncHandle
    _last: Any
    _later: dict[str, Any]
    _result_had: Any

    def __init__(self, handle: AsyncHandle, given: Mapping[str, Any]) -> None:
        self._handle, self._last, self._later, self._result_had = handle, handle.conn, {}, None
        self.cursorclass: Any = given.get("cursorclass") or handle.conn.cursorclass
        self._echo: Any = given.get("echo", False)
        handle.belongs_to(self)

    def __getattr__(self, name: str) -> Any:
        if name in _OWN:
            raise AttributeError(name)
        return _read(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            object.__setattr__(self, name, value)
        else:
            _write(self, name, value)

    def __del__(self) -> None:
        handle: AsyncHandle | None = self.__dict__.get("_handle")
        if handle is not None and not handle.closed:
            warnings.warn(f"Unclosed connection {self!r}", ResourceWarning, stacklevel=2)
            handle.dropped()

    @property
    def _result(self) -> Any:
        conn = self._handle.conn
        return self._result_had if conn is None else conn._result

    @property
    def closed(self) -> bool:
        handle = self._handle
        return handle.over is not None or (handle.conn is not None and handle.conn._writer is None)

    def _ensure_alive(self) -> None:
        handle = self._handle
        if handle.over is not None:
            raise handle.over()
        if handle.conn is not None:
            super()._ensure_alive()  # type: ignore[misc]

    def close(self) -> None:
        handle = self._handle
        if handle.is_busy and handle.conn is not None:  # aiomysql itself, in the midst of an answer that does not come
            handle.conn.close()
            handle.lost()
        else:
            handle.close_soon()

    def _close_on_cancel(self) -> None:
        handle = self._handle
        if handle.conn is not None:
            handle.conn._close_on_cancel()
            handle.lost()

    async def ensure_closed(self) -> None:
        await self._handle.close()

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind:
            self.close()
        else:
            await self.ensure_closed()

    async def query(self, sql: Any, unbuffered: bool = False) -> Any:
        self._handle.states(sql)
        return await super().query(sql, unbuffered)  # type: ignore[misc]

    async def ping(self, reconnect: bool = True) -> None:
        """As aiomysql's own, but that a connection which has ended is replaced by another one of the pool's."""
        handle = self._handle
        try:
            if handle.over is not None:
                raise handle.over()
            if handle.conn is not None:
                await self._ping()
        except Exception:
            if not reconnect:
                raise
            await handle.reopen(self)

    async def _ping(self) -> None:
        await super().ping(False)  # type: ignore[misc]


def _using(method: Any, ends: bool) -> Any:
    """*ends*: it ends a transaction, and without a connection there is none."""

    @wraps(method)
    async def using(self: Any, *args: Any, **kwargs: Any) -> Any:
        handle = self._handle
        if handle.conn is None:
            if ends and handle.over is None:
                return None
            await handle.attach()
        handle.enter()
        try:
            result = await method(self, *args, **kwargs)
            if ends:
                handle.wrote = False
            return result
        finally:
            handle.leave()

    return using


def _read(facade: Any, name: str) -> Any:
    conn = facade._handle.conn
    if conn is None and name in facade._later:
        return facade._later[name]
    return getattr(facade._last if conn is None else conn, name)


def _write(facade: Any, name: str, value: Any) -> None:
    handle = facade._handle
    if handle.conn is None:
        facade._later[name] = value
        return
    setattr(handle.conn, name, value)
    if name == "_running" and not value:
        handle.rest_soon()  # it could not part with its connection before: a cursor is about to be done


def _of_the_session(name: str, default: Any) -> property:
    """What a class says for all connections, until one says otherwise; *default* where there is no session now."""

    def read(self: Any) -> Any:
        conn = self._handle.conn
        if conn is not None:
            return getattr(conn, name)
        return getattr(self._last, name) if name == "_server_status" else self._later.get(name, default)

    return property(read)


_NEEDING_NONE = ("ensure_closed", "ping")


@cache
def held(connection_class: Any) -> Any:
    """A class for what the program gets in place of connections of *connection_class*, which can be lent."""
    methods: dict[str, Any] = {
        "__module__": aiomysql.Connection.__module__,
        "__qualname__": connection_class.__qualname__,
    }
    for name in dir(connection_class):
        value = getattr_static(connection_class, name)
        if iscoroutinefunction(value) and not name.startswith("_") and name not in _NEEDING_NONE:
            methods[name] = _using(getattr(_Held, name, value), name in ("commit", "rollback"))
        elif not name.startswith("__") and not callable(value) and not hasattr(value, "__get__"):
            methods[name] = _of_the_session(name, value)
    methods["_ping"] = _using(_Held._ping, False)
    return type(connection_class.__name__, (_Held, connection_class), methods)
