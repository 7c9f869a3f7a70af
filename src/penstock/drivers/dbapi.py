"""What every PEP 249 driver has in common, behind the protocol of `base`.

A specific driver derives from `DBAPIDriver` and adds what its protocol knows: whether a transaction is open, what a
statement leaves behind in a session, how to stop one. It connects a subclass of the driver's own connection class
(`lendable`), so that `isinstance` holds for its users, and lets that one's cursors take note of each statement
(`tracked`). All of these drivers block; for asyncio, `threaded` gives each connection a thread.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache, wraps
from threading import Thread, get_ident
from time import monotonic
from typing import Any

from ..core import Reason
from . import sockets
from .base import Activity, Status, settled
from .session import Touched

_NOTHING = Touched.NOTHING
NEARLY = 0.9  # the server counts from when it has sent its answer, and we from when it has come


class Lendable:
    """Comes before a driver's own connection class: `close` may give the connection back, as psycopg's does.

    :ivar _driver: who to ask about it; for `check_connection`, which is given nothing but the connection.
    :ivar _running: whether a statement has begun and not ended: another thread's, when it is asked.
    :ivar _ended_here: whether this side has ended the connection, or brought its end about: that is no loss.
    :ivar _idle_limit: seconds after which the server ends a session that is idle in a transaction, as the pool asked.
    """

    _pool: Any = None
    _driver: Any = None
    _running = False
    _ended_here = False
    _idle_limit = math.inf

    def close(self) -> Any:
        """Close the connection; lent by a pool with `close_returns`, give it back."""
        pool = self._pool
        if pool is not None and pool.close_returns:
            return self._give_back(pool)
        self._pool = None  # oracledb has a use of its own for this name
        self._ended_here = True
        return super().close()  # type: ignore[misc]

    def _give_back(self, pool: Any) -> Any:
        pool.putconn(self)


@cache
def lendable(connection_class: Any, noting: Any, lend: type[Lendable] = Lendable) -> Any:
    """*connection_class* fit to be lent, under its own name.

    *noting* derives from the driver's own connection class, and comes after *connection_class* and before that one:
    whatever cursor a user's class asks for, it is the last to choose its class.
    """
    if issubclass(connection_class, Lendable):
        return connection_class
    bases = (lend, noting) if issubclass(noting, connection_class) else (lend, connection_class, noting)
    return type(connection_class.__name__, bases, _named_as(connection_class))


def _named_as(cls: Any) -> dict[str, Any]:
    return {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}


def begin(conn: Any, statement: Any, touches: Callable[[Any], Touched]) -> None:
    """A statement begins: note it. Whoever calls this calls `end` when it is over."""
    activity: Activity = conn._activity
    activity.statement = statement
    activity.thread = get_ident()
    activity.started = monotonic()
    conn._running = True
    touched = touches(statement)
    if touched is not _NOTHING:  # its truth is a call of Python, its identity is not
        conn._touched |= touched


def end(conn: Any) -> None:
    conn._running = False
    conn._activity.ended = monotonic()


@cache
def tracked(
    cursor_class: Any,
    touches: Callable[[Any], Touched],
    error: type[Exception],
    names: tuple[str, ...] = ("execute", "executemany"),
) -> Any:
    """*cursor_class*, its methods *names* taking note of each statement, which is their first argument.

    *touches* says what a statement leaves behind; *error* is the driver's. The cursor knows its connection as
    `connection`, which all drivers have though PEP 249 does not ask for it.
    """
    if getattr(cursor_class, "_tracked_by_penstock", False):
        return cursor_class
    methods = {
        name: _tracking(getattr(cursor_class, name), touches, error) for name in names if hasattr(cursor_class, name)
    }
    marks = {**_named_as(cursor_class), "_tracked_by_penstock": True}
    return type(cursor_class.__name__, (cursor_class,), methods | marks)


def _tracking(method: Any, touches: Callable[[Any], Touched], error_class: type[Exception]) -> Any:
    @wraps(method)
    def tracking(self: Any, statement: Any, *args: Any, **kwargs: Any) -> Any:
        conn = self.connection
        begin(conn, statement, touches)
        try:
            return method(self, statement, *args, **kwargs)
        except error_class as error:
            conn._driver.failed(conn, error)
            raise
        finally:
            end(conn)

    return tracking


def put_out_of_reach(conn: Any, error: type[Exception]) -> None:
    """In a forked child, of a connection whose socket or file cannot be taken from it: nothing can be done with it.

    Not even its end reaches the parent's: it is kept for ever, as its driver would say goodbye for both.
    """
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(conn))

    def refuse(self: Any, name: str) -> Any:
        if name.startswith("__") or name in ("_pool", "_driver"):
            return object.__getattribute__(self, name)
        raise error("this connection is the parent process's: take one from the pool")

    marks = {
        "__getattribute__": refuse,
        "__enter__": lambda self: self,
        "__exit__": lambda self, *error: None,
        "__repr__": object.__repr__,
    }
    conn.__class__ = type("ParentsConnection", (type(conn),), marks)


def within(seconds: float, call: Callable[[], object], error: type[Exception]) -> None:
    """Make a blocking call that knows no time limit, and wait for it no longer than that. *error* means nothing."""

    def run() -> None:
        with suppress(error):
            call()

    thread = Thread(target=run, name="penstock-cancel", daemon=True)
    thread.start()
    thread.join(seconds)


class DBAPIDriver:
    """Satisfies `penstock.drivers.base.Driver` together with what a subclass adds.

    A subclass has to say: `connect`, `status`, `state`, `plain_cursor`, and, where there is a socket, `fileno`. The
    others have a meaning here that holds for any module that keeps to PEP 249.
    """

    blocking = True  # so that an AsyncPool gives each connection a thread
    name = "this driver"

    def __init__(self, module: Any) -> None:
        self.module = module
        self.error: type[Exception] = module.Error
        self.operational_error: type[Exception] = module.OperationalError
        self.programming_error: type[Exception] = module.ProgrammingError
        self.data_error: type[Exception] = module.DataError
        self.query_canceled: type[Exception] = module.OperationalError

    # ------------------------------------------------------------------------------------------ for subclasses

    def fileno(self, conn: Any) -> int | None:
        """The connection's socket; None if it has none any more."""
        return None

    def plain_cursor(self, conn: Any) -> Any:
        """A cursor of the driver's own, giving tuples, that takes no note of what it is given."""
        raise NotImplementedError

    def in_autocommit(self, conn: Any) -> AbstractContextManager[Any]:
        """For the length of a block, a statement opens no transaction."""
        return nullcontext()

    def beginning(self, conn: Any) -> AbstractContextManager[Any]:
        """For the length of a block, which begins in no transaction: a statement, or the block itself, opens one."""
        return nullcontext()

    def was_in_transaction(self, conn: Any) -> bool:
        """Of a connection that has just ended: whether it was in one when its last statement began."""
        return False

    def was_impatient(self, conn: Any, error: Exception) -> bool:
        """Of a connection that has just ended with *error*: whether a time limit of this side's has ended it."""
        return False

    def restore(self, conn: Any, touched: Touched) -> None:
        """Set back what was *touched*, on the server and on the object. The connection is in no transaction."""

    # ------------------------------------------------------------------------------------------ connecting

    def check_conninfo(self, conninfo: str) -> None:
        pass

    async def connect(
        self, conninfo: str, kwargs: Mapping[str, Any], *, timeout: float, settings: Mapping[str, str]
    ) -> Any:
        raise NotImplementedError

    def limits(self, statement: float | None, idle_in_transaction: float | None) -> Mapping[str, str]:
        given = {"statement_timeout": statement, "idle_in_transaction_timeout": idle_in_transaction}
        for argument, seconds in given.items():
            if seconds is not None:
                raise ValueError(
                    f"{argument} ({seconds:g}) cannot be had with {self.name}, which knows no such setting of its"
                    " server: leave it out"
                )
        return {}

    def adopt(self, conn: Any) -> Any:
        conn._driver = self
        conn._activity = Activity()
        conn._touched = _NOTHING
        conn._loss = None
        return self.state(conn)

    # ------------------------------------------------------------------------------------------ what is known

    def probe(self, conn: Any) -> Callable[[int], object]:
        fd = self.fileno(conn)
        if fd is None:
            raise self.operational_error("the connection was closed as soon as it was made")
        return sockets.stirred(fd)

    def look(self, conn: Any) -> bool | None:
        return False  # nobody speaks unasked on an idle connection, but to say goodbye

    def status(self, conn: Any) -> Status:
        raise NotImplementedError

    state: Callable[[Any], object]  # a function rather than a method where it can be: it is part of every return

    def activity(self, conn: Any) -> Activity:
        return conn._activity  # type: ignore[no-any-return]

    def touched(self, conn: Any, baseline: Any) -> bool:
        return bool(conn._touched & ~Touched.CLIENT)

    def bind(self, conn: Any, until: float, reading: bool) -> None:
        pass

    def unbind(self, conn: Any) -> None:
        pass

    def unfit(self, conn: Any) -> Reason | None:
        return None

    def failed(self, conn: Any, error: Exception) -> None:
        if conn._loss is not None or conn._ended_here or self.status(conn) is not Status.BROKEN:
            return
        if self._sat_idle(conn) or self.was_impatient(conn, error):
            conn._ended_here = True
        else:
            conn._loss = type(error)(str(error))  # not the error itself: its frames keep the connection

    def loss(self, conn: Any) -> Exception | None:
        if conn._loss is None and not conn._ended_here and self.status(conn) is Status.BROKEN:
            # Not by a statement: by the user's own commit, or as rows were fetched.
            self.failed(conn, self.operational_error("the connection was lost"))
        return conn._loss  # type: ignore[no-any-return]

    def _sat_idle(self, conn: Any) -> bool:
        """Whether the server has ended the session as the pool has told it to, for its user's idling."""
        activity: Activity = conn._activity
        asked = activity.started if conn._running else monotonic()
        return asked - activity.ended >= NEARLY * conn._idle_limit and self.was_in_transaction(conn)

    def told(self, conn: Any, setting: str) -> str | None:
        return None

    def backend(self, conn: Any) -> int:
        return 0

    def is_timeout(self, error: BaseException) -> bool:
        return isinstance(error, TimeoutError)

    # ------------------------------------------------------------------------------------------ what is done

    @contextmanager
    def transaction(self, conn: Any) -> Iterator[Any]:
        with self.beginning(conn):
            try:
                yield conn
            except BaseException:
                with suppress(self.error):  # what the block raised says more
                    conn.rollback()
                raise
            conn.commit()

    async def settle(self, conn: Any, commit: bool) -> None:
        try:
            await settled(conn.commit() if commit else conn.rollback())
        except self.error as error:
            self.failed(conn, error)
            raise

    async def reset(self, conn: Any, baseline: Any) -> bool:
        touched = conn._touched
        if touched & Touched.BEYOND_RESET:
            return False
        self.restore(conn, touched)
        conn._touched = _NOTHING
        return True

    async def ask(self, conn: Any, query: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self.in_autocommit(conn):
            cursor = self.plain_cursor(conn)
            try:
                cursor.execute(query, tuple(params)) if params else cursor.execute(query)
                return [tuple(row) for row in cursor.fetchall()]
            finally:
                cursor.close()

    async def check(self, conn: Any) -> None:
        await self.ask(conn, "SELECT 1", ())

    async def cancel(self, conn: Any, timeout: float) -> None:
        pass

    async def close(self, conn: Any) -> int | None:
        end = None
        with suppress(self.error, OSError):
            end = self._duplicate(conn)
        try:
            conn.close()
        except BaseException:
            if end is not None:
                sockets.close(end)
            raise
        return end

    def _duplicate(self, conn: Any) -> int | None:
        fd = self.fileno(conn)
        return None if fd is None else os.dup(fd)

    def abort(self, conn: Any) -> None:
        with suppress(self.error, OSError):
            if (fd := self.fileno(conn)) is not None:
                sockets.hang_up(fd)

    def abandon(self, conn: Any) -> int | None:
        with suppress(self.error, OSError):
            if (fd := self.fileno(conn)) is not None:
                return sockets.send_end(fd)
        return None

    def silence(self, conn: Any) -> None:
        fd = None
        with suppress(self.error, OSError):
            fd = self.fileno(conn)
        if fd is not None:
            sockets.put_out_of_reach(fd)
        else:
            put_out_of_reach(conn, self.programming_error)
