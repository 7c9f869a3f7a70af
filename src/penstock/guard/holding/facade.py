"""What the program holds in place of a driver's connections and cursors: objects that pass for them.

They are no instances of the driver's classes, though `isinstance` says so. What they do is done with the connection
that their handle has at the moment; what is not told otherwise here is looked up there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from inspect import isroutine
from types import TracebackType
from typing import Any

from .handle import Handle

_own_set = object.__setattr__


class Connection:
    """A connection of the program's."""

    __slots__ = ("__weakref__", "_handle", "_own")
    _cursor_class: type[Cursor]
    _real_class: Any

    def __init__(self, handle: Handle) -> None:
        _own_set(self, "_handle", handle)
        _own_set(self, "_own", {})
        handle.open(self)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return self._handle.pool._driver.connection_class

    def __repr__(self) -> str:
        handle = self._handle
        state = "closed" if handle.closed else "idle, without a connection" if handle.conn is None else f"{handle.conn}"
        return f"<{type(self).__module__}.{type(self).__name__}: {state}>"

    def __getattr__(self, name: str) -> Any:
        if name in self._own:
            return self._own[name]
        if name.startswith("__"):
            raise AttributeError(name)
        if isroutine(getattr(self.__class__, name, None)):
            return partial(self._do, name)
        handle = self._handle
        if handle.over is not None and not hasattr(self.__class__, name):
            raise AttributeError(f"{name}: {handle.over()}")
        conn = handle.enter()
        try:
            value = getattr(conn, name)
        finally:
            handle.leave()
        if callable(value) and getattr(value, "__self__", None) is conn:
            return partial(self._do, name)
        return self._seen(value)

    def __setattr__(self, name: str, value: Any) -> None:
        handle = self._handle
        conn = handle.enter()
        try:
            if hasattr(conn, name):
                setattr(conn, name, value)
                handle.kind.set_on(conn, name)
            else:
                self._own[name] = value
        finally:
            handle.leave()

    def __delattr__(self, name: str) -> None:
        if name not in self._own:
            raise AttributeError(name)
        del self._own[name]

    def _do(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call the method of this name."""
        handle = self._handle
        conn = handle.enter()
        try:
            result = getattr(conn, name)(*args, **kwargs)
            if result is conn:
                return self
            if isinstance(result, self._real_class):
                return self._cursor_class(self, conn, result, partial(_again, name, args, kwargs))
            return result
        finally:
            handle.leave()

    def _seen(self, value: Any) -> Any:
        return self if value is self._handle.conn and value is not None else value

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        return self._do("cursor", *args, **kwargs)

    def commit(self) -> None:
        self._end("commit")

    def rollback(self) -> None:
        self._end("rollback")

    def _end(self, name: str) -> None:
        handle = self._handle
        if handle.conn is None and handle.over is None:
            return  # there is no transaction
        self._do(name)
        handle.wrote = False

    def close(self) -> None:
        self._handle.close()


def _again(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], conn: Any) -> Any:
    return getattr(conn, name)(*args, **kwargs)


class Cursor:
    """A cursor of the program's. What it has fetched stays, whatever becomes of the connection that it came over."""

    _facade: Connection
    _handle: Handle
    _conn: Any
    _real: Any
    _make: Callable[[Any], Any]
    _again: dict[Any, Callable[[Any], object]]
    _over: bool

    def __init__(self, facade: Connection, conn: Any, real: Any, make: Callable[[Any], Any]) -> None:
        _own_set(self, "_facade", facade)
        _own_set(self, "_handle", facade._handle)
        _own_set(self, "_conn", conn)
        _own_set(self, "_real", real)
        _own_set(self, "_make", make)  # another one like it, over another connection
        _own_set(self, "_again", {})  # what was set on it, to be set on that one too
        _own_set(self, "_over", False)
        facade._handle.cursors.add(self)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return self._real.__class__

    @property
    def connection(self) -> Any:
        return self._facade

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} of {self._facade!r}>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(self._real, name)
        if callable(value) and getattr(value, "__self__", None) is self._real:
            return partial(self._do, name)
        return self._facade if value is self._conn else value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._real, name, value)
        self._again[name] = partial(_set, name, value)

    def _live(self, conn: Any) -> Any:
        """The driver's cursor, over *conn*."""
        if self._conn is not conn and not self._over:
            real = self._make(conn)
            for again in self._again.values():
                again(real)
            _own_set(self, "_real", real)
            _own_set(self, "_conn", conn)
        return self._real

    def _do(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call the method of this name over the connection that the handle has."""
        handle = self._handle
        conn = handle.enter()
        try:
            real = self._live(conn)
            result = getattr(real, name)(*args, **kwargs)
            return self if result is real else result
        finally:
            handle.leave()

    def _read(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method that gives what the driver has received already, or else needs the connection it had before."""
        handle, real = self._handle, self._real
        if not handle.stay(self._conn):
            return getattr(real, name)(*args, **kwargs)
        try:
            return getattr(real, name)(*args, **kwargs)
        finally:
            handle.leave()

    def execute(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        self._handle.states(statement)
        return self._do("execute", statement, *args, **kwargs)

    def executemany(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        self._handle.states(statement)
        return self._do("executemany", statement, *args, **kwargs)

    def callproc(self, *args: Any, **kwargs: Any) -> Any:
        self._handle.states("call")
        return self._do("callproc", *args, **kwargs)

    def fetchone(self, *args: Any, **kwargs: Any) -> Any:
        return self._read("fetchone", *args, **kwargs)

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        return self._read("fetchmany", *args, **kwargs)

    def fetchall(self, *args: Any, **kwargs: Any) -> Any:
        return self._read("fetchall", *args, **kwargs)

    def scroll(self, *args: Any, **kwargs: Any) -> Any:
        return self._read("scroll", *args, **kwargs)

    def nextset(self, *args: Any, **kwargs: Any) -> Any:
        return self._read("nextset", *args, **kwargs)

    def close(self) -> Any:
        _own_set(self, "_over", True)
        if self._handle.conn is not self._conn:
            with suppress(Exception):  # its connection is somebody else's: nothing is sent for what was received whole
                self._real.close()
            return None
        return self._do("close")

    def __iter__(self) -> Iterator[Any]:
        rows = iter(self._real)
        return self if rows is self._real else self._each(rows)

    def _each(self, rows: Iterator[Any]) -> Iterator[Any]:
        while True:
            try:
                row = self._next(rows)
            except StopIteration:
                return
            yield row

    def __next__(self) -> Any:
        return self._next(self._real)

    def _next(self, rows: Iterator[Any]) -> Any:
        handle = self._handle
        if not handle.stay(self._conn):
            return next(rows)
        try:
            return next(rows)
        finally:
            handle.leave()

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _set(name: str, value: Any, real: Any) -> None:
    setattr(real, name, value)


def unwrapped(value: Any) -> Any:
    """The driver's own object for one of ours, as it is at the moment; anything else as it is."""
    kind = type(value)
    if issubclass(kind, Connection):
        conn = value._handle.enter()
        value._handle.leave()
        return conn
    return value._real if issubclass(kind, Cursor) else value
