"""Any other driver that keeps to PEP 249: ``Pool(driver=DBAPIModule(pymssql), kwargs={...})``.

PEP 249 has no word for what a protocol knows. So of such a connection is not known, and not claimed:

- whether a transaction is open: one that was used, be it by a method of its own that PEP 249 does not know, is rolled
  back when it comes back, unless its user has ended the transaction and done nothing since. That is a round trip.
- whether it still works: one that has shown no sign of life for `check_after` seconds is asked before it is lent. That
  is a round trip, too. Where the connection tells its socket (`fileno`), the kernel is asked each time besides.
- what a statement leaves behind in the session: nothing is reset but `autocommit`, where that is an attribute. Do it
  in the pool's `reset` hook, as the server wants it.
- how to stop a statement, and by when to end it: `cancel` is called where there is one; a deadline bounds the wait for
  a connection, and not the statement.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, partial, wraps
from inspect import getattr_static, isroutine
from operator import attrgetter
from time import monotonic, sleep
from typing import Any

from ..core.settings import check_seconds
from . import sockets
from .base import Status
from .dbapi import DBAPIDriver, Lendable, begin, end, within
from .session import Touched

logger = logging.getLogger("penstock.drivers")

_NEEDED = ("connect", "Error", "OperationalError", "ProgrammingError", "DataError")
_NOTING = ("execute", "executemany", "callproc")
# Of a connection's methods those that are noted elsewhere, or may be called while a statement runs.
_NOT_NOTED = ("cursor", "commit", "rollback", "close", "fileno", "cancel", "interrupt")
_CLOSE_SECONDS = 1.0
_BETWEEN_LOOKS = 0.001
_BEGINS = re.compile(r"\s*(?:begin|start)\b", re.IGNORECASE)
_state = attrgetter("_used", "_running", "_suspect", "_gone")


class Proof:
    """When a connection has last shown that it works. Apart from it, for whoever must not keep the connection."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at = monotonic()


class DBAPIModule(DBAPIDriver):
    """A driver of which nothing is known but that it keeps to PEP 249.

    :param module: the driver's module: `connect`, `Error`, and the other names that PEP 249 gives.
    :param check: a statement that shows that a connection works, whatever it returns.
    :param check_after: seconds without a sign of life after which a connection is asked before it is lent.
    :raises TypeError: when *module* lacks what PEP 249 asks for.
    """

    def __init__(self, module: Any, *, check: str = "SELECT 1", check_after: float = 1.0) -> None:
        missing = [name for name in _NEEDED if not hasattr(module, name)]
        if missing:
            raise TypeError(f"module must be a driver as PEP 249 has them, and {module!r} has no {', '.join(missing)}")
        check_seconds("check_after", check_after)
        super().__init__(module)
        self.name = getattr(module, "__name__", repr(module))
        self._lost: tuple[type[Exception], ...] = (
            self.operational_error,
            getattr(module, "InterfaceError", self.operational_error),
        )
        self._check = check
        self._check_after = check_after
        self._told = False

    def fileno(self, conn: Any) -> int | None:
        fileno = getattr(conn, "fileno", None)
        return fileno() if callable(fileno) else None

    def plain_cursor(self, conn: Any) -> Any:
        return conn._beneath("cursor")

    @contextmanager
    def beginning(self, conn: Any) -> Iterator[None]:
        autocommit = _autocommit(conn)
        if autocommit:
            conn.autocommit = False
        try:
            yield
        finally:
            if autocommit:
                with suppress(self.error):
                    conn.autocommit = True

    # ------------------------------------------------------------------------------------------ connecting

    async def connect(
        self, conninfo: str, kwargs: Mapping[str, Any], *, timeout: float, settings: Mapping[str, str]
    ) -> Any:
        raw = self.module.connect(*([conninfo] if conninfo else []), **kwargs)
        if not self._told:
            self._told = True
            logger.info(
                "%s: nothing is known of its connections but what PEP 249 tells: a used one is rolled back when it"
                " comes back, an idle one is asked after %g s, and no session is reset",
                self.name,
                self._check_after,
            )
        return lent(raw)

    def adopt(self, conn: Any) -> Any:
        conn._used = conn._suspect = conn._begun = False
        return super().adopt(conn)

    # ------------------------------------------------------------------------------------------ what is known

    def probe(self, conn: Any) -> Callable[[int], object]:
        proof, check_after = conn._proof, self._check_after
        stirred: Callable[[int], object] = _never
        with suppress(self.error, OSError):
            if (fd := self.fileno(conn)) is not None:
                stirred = sockets.stirred(fd)
        return lambda milliseconds: monotonic() - proof.at >= check_after or stirred(milliseconds)

    def look(self, conn: Any) -> bool | None:
        return None  # `check` does

    @staticmethod
    def state(conn: Any) -> object:
        return (*_state(conn), _autocommit(conn))

    def status(self, conn: Any) -> Status:
        if conn._gone:
            return Status.BROKEN
        if conn._running:
            return Status.ACTIVE
        return Status.INTRANS if conn._used else Status.IDLE

    def touched(self, conn: Any, baseline: Any) -> bool:
        return False

    def failed(self, conn: Any, error: Exception) -> None:
        if isinstance(error, self._lost):  # of the statement or of the connection: the next look will tell
            conn._suspect = True

    # ------------------------------------------------------------------------------------------ what is done

    async def settle(self, conn: Any, commit: bool) -> None:
        try:
            (conn.commit if commit else conn.rollback)()
            if conn._begun:
                self._end_begun(conn, commit)
        except self._lost as error:
            conn._suspect = True
            if not commit:  # there is nothing to a rollback that could be wrong but the connection
                self._is_gone(conn, error)
            raise

    def _end_begun(self, conn: Any, commit: bool) -> None:
        """End a transaction that was begun in autocommit, with a statement: a module's methods may do nothing there."""
        cursor = self.plain_cursor(conn)
        try:
            cursor.execute("COMMIT" if commit else "ROLLBACK")
        finally:
            cursor.close()
        conn._begun = False
        conn._ended()

    async def reset(self, conn: Any, baseline: Any) -> bool:
        was = baseline[-1]
        if was is not None and _autocommit(conn) is not was:
            conn.autocommit = was
        if conn._suspect:
            await self.check(conn)
            conn._suspect = False
        return True

    async def check(self, conn: Any) -> None:
        conn._running = True  # so that what the cursor calls on its connection is not taken for its user's
        try:
            cursor = self.plain_cursor(conn)
            try:
                cursor.execute(self._check)
                with suppress(self.error):  # it may return no rows
                    cursor.fetchall()
            finally:
                cursor.close()
            conn.rollback()
        except self.error as error:
            self._is_gone(conn, error)
            raise
        finally:
            conn._running = False

    def _is_gone(self, conn: Any, error: Exception) -> None:
        conn._gone = True
        conn._loss = type(error)(str(error))  # not the error itself: its frames keep the connection

    async def cancel(self, conn: Any, timeout: float) -> None:
        cancel = getattr(conn, "cancel", None)
        if callable(cancel):
            within(timeout, cancel, Exception)

    async def close(self, conn: Any) -> int | None:
        if conn._running:
            self.abort(conn)
            _wait_for_end(conn)
        if conn._running:  # many modules end the process if a connection is closed in the midst of its work
            raise self.operational_error(
                "a statement still runs in another thread: it is not closed but left to itself"
            )
        return await super().close(conn)


class _Lent(Lendable):
    """What both kinds of lent connections do. *_beneath* makes the same call on the driver's own."""

    _gone = False
    _begun = False  # a transaction, by a statement, in autocommit
    _proof: Proof

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        return Cursor(self, self._beneath("cursor", *args, **kwargs))

    def commit(self) -> Any:
        result = self._beneath("commit")
        self._ended()
        return result

    def rollback(self) -> Any:
        result = self._beneath("rollback")
        self._ended()
        return result

    def close(self) -> Any:
        pool = self._pool
        if pool is not None and pool.close_returns:
            pool.putconn(self)
            return None
        self._gone = self._ended_here = True
        return self._beneath("close")

    def _ended(self) -> None:
        """The server has answered, and there is no transaction now, unless one was begun by a statement."""
        self._used = self._begun
        self._proof.at = monotonic()

    def _beneath(self, method: str, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


class Proxy(_Lent):
    """Stands before a connection that takes no attributes. `isinstance` tells it from the driver's own."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        if name == "_raw":  # not there yet
            raise AttributeError(name)
        raw = self._raw
        value = getattr(raw, name)
        its_method = getattr(value, "__self__", None) is raw and callable(value)
        return _noting(self, name, value) if its_method and _is_noted(name) else value

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            setattr(self._raw, name, value)

    def __enter__(self) -> Any:
        entered = self._raw.__enter__()
        return self if entered is self._raw else entered

    def __exit__(self, *error: Any) -> Any:
        return self._raw.__exit__(*error)

    def _beneath(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._raw, method)(*args, **kwargs)


class Cursor:
    """Stands before a cursor, and takes note of each statement."""

    def __init__(self, conn: Any, raw: Any) -> None:
        object.__setattr__(self, "connection", conn)
        object.__setattr__(self, "_raw", raw)

    def __getattr__(self, name: str) -> Any:
        value = getattr(object.__getattribute__(self, "_raw"), name)
        return self._noting(value) if name in _NOTING else value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._raw, name, value)

    def __iter__(self) -> Any:
        return iter(self._raw)

    def __next__(self) -> Any:
        return next(self._raw)

    def __enter__(self) -> Any:
        entered = self._raw.__enter__()
        return self if entered is self._raw else entered

    def __exit__(self, *error: Any) -> Any:
        return self._raw.__exit__(*error)

    def _noting(self, method: Any) -> Any:
        conn = self.connection

        def noting(statement: Any, *args: Any, **kwargs: Any) -> Any:
            conn._used = True
            if isinstance(statement, str) and _BEGINS.match(statement) and _autocommit(conn):
                conn._begun = True
            begin(conn, statement, _nothing)
            try:
                result = method(statement, *args, **kwargs)
            except conn._driver.error as error:
                conn._driver.failed(conn, error)
                raise
            finally:
                end(conn)
            conn._proof.at = monotonic()
            return self if result is self._raw else result

        return noting


def _is_noted(name: str) -> bool:
    return not name.startswith("_") and name not in _NOT_NOTED


def _noting(conn: Any, name: str, method: Any) -> Any:
    """*method*, one of the connection's own. It may be a statement: nobody knows, so it counts as one."""

    @wraps(method)
    def noting(*args: Any, **kwargs: Any) -> Any:
        conn._used = True
        if conn._running:  # a cursor calls it, for its statement
            return method(*args, **kwargs)
        begin(conn, args[0] if args and isinstance(args[0], str) else name, _nothing)
        try:
            result = method(*args, **kwargs)
        except conn._driver.error as error:
            conn._driver.failed(conn, error)
            raise
        finally:
            end(conn)
        is_cursor = hasattr(result, "execute") and hasattr(result, "fetchone")
        return Cursor(conn, result) if is_cursor and not isinstance(result, (_Lent, Cursor)) else result

    return noting


def lent(raw: Any) -> Any:
    """*raw* as a pool can lend it: itself, its class changed for one that derives from it; or else behind a proxy."""
    try:
        cls: Any = type(raw)
        raw.__class__ = _swapped(cls)
        conn = raw
    except TypeError:  # a class of C, or with __slots__: it takes no attributes
        conn = Proxy(raw)
    conn._proof = Proof()
    return conn


@cache
def _swapped(connection_class: Any) -> Any:
    def beneath(self: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(connection_class, method)(self, *args, **kwargs)

    marks = {
        "__module__": connection_class.__module__,
        "__qualname__": connection_class.__qualname__,
        "__doc__": connection_class.__doc__,
        "_beneath": beneath,
    }
    methods = {
        name: _noting_method(name, value)
        for name in dir(connection_class)
        if _is_noted(name) and _is_method(value := getattr_static(connection_class, name))
    }
    return type(connection_class.__name__, (_Lent, connection_class), methods | marks)


def _is_method(value: Any) -> bool:
    return isroutine(value) and not isinstance(value, (staticmethod, classmethod))


def _noting_method(name: str, method: Any) -> Any:
    @wraps(method)
    def noting_method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self._driver is None:  # not adopted yet
            return method(self, *args, **kwargs)
        return _noting(self, name, partial(method, self))(*args, **kwargs)

    return noting_method


def _autocommit(conn: Any) -> bool | None:
    """None: it is not the attribute that it is with most."""
    try:
        autocommit = conn.autocommit
    except Exception:  # there is none, or the connection is closed
        return None
    return autocommit if isinstance(autocommit, bool) else None


def _wait_for_end(conn: Any) -> None:
    until = monotonic() + _CLOSE_SECONDS
    while conn._running and monotonic() < until:
        sleep(_BETWEEN_LOOKS)


def _nothing(statement: Any) -> Touched:
    return Touched.NOTHING


def _never(milliseconds: int) -> bool:
    return False
