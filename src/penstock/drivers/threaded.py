"""Connections that block, for asyncio: each has a thread of its own, which ends with it.

So there are never more threads than connections, and whatever may wait is done in the thread that made the connection,
by one after the other. What cannot wait the event loop does itself: to ask for the connection's status, to note what
binds a lease, to read what has come for an idle connection.
"""

from __future__ import annotations

import asyncio
from asyncio import get_running_loop
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from threading import Condition, Thread
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ..core import Reason
from . import sockets
from .base import Activity, Driver, Status

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Self

T = TypeVar("T")
_CANCEL_SECONDS = 1.0  # to ask the server to stop a statement
_BETWEEN_CANCELS = 0.05  # and twice as long after each
_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class Worker:
    """One thread, which does one thing after the other until it is told to end."""

    def __init__(self) -> None:
        self._given = 0  # counted by the event loop alone,
        self._done = 0  # and this one by the thread alone
        # Held for a moment only, never while a call is made. Guards what is under way, and who is stopping that.
        self._turn = Condition()
        self._under_way: asyncio.Future[Any] | None = None
        self._stopping: Thread | None = None
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        Thread(target=_work, args=(self._queue,), name="penstock-connection", daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether anything is under way, be it that nobody waits for it any more."""
        return self._given != self._done

    def give(self, call: Callable[[], T], due: bool = False) -> asyncio.Future[T]:
        """Have *call* done. To cancel the future is to cease waiting for it.

        It is done all the same if it has begun. If it has not, it is only when it is *due*.
        """
        loop = get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._given += 1
        self._queue.put((loop, future, partial(self._do, future, call, due)))
        return future

    def stop(self, call: Callable[[], object], future: asyncio.Future[Any] | None = None) -> None:
        """Have *call* stop what is under way, in a thread of its own; nothing else begins before that has ended.

        With *future*: if it is this one. Should *call* come before there is anything to stop, it is made again.
        """
        with self._turn:
            under_way = self._under_way
            if under_way is None or self._stopping is not None or future not in (None, under_way):
                return
            stopping = Thread(target=self._stop, args=(under_way, call), name="penstock-cancel", daemon=True)
            with suppress(RuntimeError):  # no thread to be had: then it runs to its end
                stopping.start()
                self._stopping = stopping

    def end(self) -> None:
        """After what it has been given so far."""
        self._queue.put(None)

    def _stop(self, future: asyncio.Future[Any], call: Callable[[], object]) -> None:
        until, pause = monotonic() + _CANCEL_SECONDS, _BETWEEN_CANCELS
        while self._under_way is future and monotonic() < until:
            call()
            with self._turn:
                self._turn.wait_for(lambda: self._under_way is not future, pause)
            pause *= 2

    def _do(self, future: asyncio.Future[T], call: Callable[[], T], due: bool) -> T | None:
        try:
            with self._turn:
                if future.cancelled() and not due:
                    return None
                self._under_way = future
            try:
                return call()
            finally:
                self._ended()
        finally:
            self._done += 1

    def _ended(self) -> None:
        with self._turn:
            self._under_way = None
            stopping, self._stopping = self._stopping, None
            self._turn.notify_all()
        if stopping is not None:
            stopping.join()  # or it would stop what comes next


def _work(queue: SimpleQueue[_Job | None]) -> None:
    while (job := queue.get()) is not None:
        loop, future, call = job
        result: Any = None
        error: BaseException | None = None
        try:
            result = call()
        except StopIteration as raised:  # which no future takes
            error = RuntimeError(f"raised StopIteration: {raised}")
        except BaseException as raised:  # whoever waits for it has to hear of it
            error = raised
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_deliver, future, result, error)
        del job, loop, future, call, result, error  # or the last result would be kept until there is another


def _deliver(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # cancelled
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


class Connection:
    """A blocking connection with awaitable methods. Whatever has none here is for `run`.

    :ivar raw: the driver's own connection. What does I/O on it blocks the event loop: pass such things to `run`.
    """

    _pool: Any = None

    def __init__(self, driver: ThreadedDriver, worker: Worker, raw: Any) -> None:
        self._driver = driver
        self._worker: Worker | None = worker
        self.raw = raw

    def __del__(self) -> None:
        if self._worker is not None:
            self._worker.end()

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} of {self.raw!r}>"

    async def run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """What *function* returns, called in the connection's thread with the driver's own connection before *args*.

        When the task is cancelled it is so at once; the server is asked to stop the statement, where the driver can
        ask. The connection is fit for use again when the function has ended; one given back before is closed.
        """
        return await self._run(partial(function, self.raw, *args, **kwargs))

    async def _run(self, call: Callable[[], T], due: bool = False) -> T:
        running = self._give(partial(copy_context().run, call), due)
        try:
            return await running
        except asyncio.CancelledError:
            self._driver.stop(self, running)
            raise

    def cursor(self, *args: Any, **kwargs: Any) -> Cursor:
        """The driver's cursor, with awaitable methods; made at its first use, in the connection's thread."""
        return Cursor(self, args, kwargs)

    async def execute(self, statement: Any, *args: Any) -> Cursor:
        """A new cursor that has executed *statement*, with *args* as the driver's own `execute` takes them."""
        return await self.cursor().execute(statement, *args)

    async def commit(self) -> None:
        await self.run(_commit)

    async def rollback(self) -> None:
        await self.run(_rollback)

    async def close(self) -> None:
        """Close the connection; lent by a pool with `close_returns`, give it back."""
        pool = self._pool
        if pool is not None and pool.close_returns:
            await pool.putconn(self)
        elif self._worker is not None:
            try:
                await self._give(self.raw.close, due=True)
            finally:
                self._end()

    def _give(self, call: Callable[[], T], due: bool = False) -> asyncio.Future[T]:
        if self._worker is None:
            raise self._driver.operational_error("the connection is closed")
        return self._worker.give(call, due)

    def _end(self) -> None:
        if self._worker is not None:
            self._worker.end()
            self._worker = None


class Cursor:
    """A blocking cursor with awaitable methods. For `async with` and `async for`.

    :ivar raw: the driver's own cursor; None before its first use.
    """

    def __init__(self, conn: Connection, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.connection = conn
        self.raw: Any = None
        self._made = (args, kwargs)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # While a statement that nobody waits for any more runs, the thread would close it after that only.
        if self.raw is not None and not self.connection._driver.busy(self.connection):
            await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        row = await self.fetchone()
        if row is None:
            raise StopAsyncIteration
        return row

    def __getattr__(self, name: str) -> Any:
        """What the driver's cursor has beside its methods: `description`, `rowcount`, `lastrowid` and their like."""
        if self.raw is None:
            raise AttributeError(f"{name}: the cursor is made at its first use")
        value = getattr(self.raw, name)
        if callable(value):
            raise AttributeError(f"{name} may block: await cursor.run(type(cursor.raw).{name}, ...)")
        return value

    async def execute(self, *args: Any, **kwargs: Any) -> Self:
        await self._run("execute", *args, **kwargs)
        return self

    async def executemany(self, *args: Any, **kwargs: Any) -> Self:
        await self._run("executemany", *args, **kwargs)
        return self

    async def fetchone(self) -> Any:
        return await self._run("fetchone")

    async def fetchmany(self, *args: Any) -> Any:
        return await self._run("fetchmany", *args)

    async def fetchall(self) -> Any:
        return await self._run("fetchall")

    async def close(self) -> None:
        if self.raw is not None:
            await self._run("close")

    async def run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """As the connection's `run`, with the driver's own cursor before *args*."""
        return await self.connection.run(self._with_cursor, function, *args, **kwargs)

    def _run(self, method: str, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        return self.connection.run(self._method, method, *args, **kwargs)

    def _method(self, raw: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._cursor(raw), method)(*args, **kwargs)

    def _with_cursor(self, raw: Any, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return function(self._cursor(raw), *args, **kwargs)

    def _cursor(self, raw: Any) -> Any:
        if self.raw is None:
            args, kwargs = self._made
            self.raw = raw.cursor(*args, **kwargs)
        return self.raw


def _commit(raw: Any) -> None:
    raw.commit()


def _rollback(raw: Any) -> None:
    raw.rollback()


class ThreadedDriver:
    """Satisfies `penstock.drivers.base.Driver` over asyncio, with one that satisfies it and blocks."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.operational_error = driver.operational_error
        self.programming_error = driver.programming_error
        self.data_error = driver.data_error
        self.query_canceled = driver.query_canceled
        self._state = driver.state

    def busy(self, conn: Connection) -> bool:
        """Whether its thread is at work: for nobody, if the one who asks has the connection to himself."""
        return conn._worker is not None and conn._worker.busy

    def stop(self, conn: Connection, running: asyncio.Future[Any] | None = None) -> None:
        """Nobody waits any more for what runs on the connection: ask the server to end it, and do not wait.

        *running*: what is meant, if that is not whatever runs.
        """
        if conn._worker is not None:
            conn._worker.stop(lambda: _drive(self.driver.cancel(conn.raw, _CANCEL_SECONDS)), running)

    # ------------------------------------------------------------------------------------------ connecting

    def check_conninfo(self, conninfo: str) -> None:
        self.driver.check_conninfo(conninfo)

    def limits(self, statement: float | None, idle_in_transaction: float | None) -> Mapping[str, str]:
        return self.driver.limits(statement, idle_in_transaction)

    async def connect(
        self, conninfo: str, kwargs: Mapping[str, Any], *, timeout: float, settings: Mapping[str, str]
    ) -> Any:
        worker, made = Worker(), list[Any]()
        dial = partial(self.driver.connect, conninfo, kwargs, timeout=timeout, settings=settings)
        connecting = worker.give(lambda: made.append(_drive(dial())))
        connecting.add_done_callback(_seen)
        try:
            await asyncio.shield(connecting)
        except asyncio.CancelledError:
            # It may still reach the server, so its place is taken until it has ended; unless that is cancelled, too.
            worker.give(lambda: _part_with(self.driver, made), due=True).cancel()
            worker.end()
            await asyncio.wait([connecting])
            raise
        except BaseException:
            worker.end()
            raise
        return Connection(self, worker, made.pop())

    def adopt(self, conn: Connection) -> Any:
        return (False, self.driver.adopt(conn.raw))

    # ------------------------------------------------------------------------------------------ what is known

    def probe(self, conn: Connection) -> Callable[[int], object]:
        return self.driver.probe(conn.raw)

    def look(self, conn: Connection) -> bool | None:
        return self.driver.look(conn.raw)

    def status(self, conn: Connection) -> Status:
        if conn._worker is None:
            return Status.BROKEN
        status = self.driver.status(conn.raw)
        return Status.ACTIVE if conn._worker.busy and status is not Status.BROKEN else status

    def state(self, conn: Connection) -> object:
        worker = conn._worker
        return (worker is None or worker.busy, self._state(conn.raw))

    def activity(self, conn: Connection) -> Activity:
        return self.driver.activity(conn.raw)

    def touched(self, conn: Connection, baseline: Any) -> bool:
        return self.driver.touched(conn.raw, baseline[1])

    def bind(self, conn: Connection, until: float, reading: bool) -> None:
        self.driver.bind(conn.raw, until, reading)

    def unbind(self, conn: Connection) -> None:
        self.driver.unbind(conn.raw)

    def unfit(self, conn: Connection) -> Reason | None:
        return self.driver.unfit(conn.raw)

    def failed(self, conn: Connection, error: Exception) -> None:
        self.driver.failed(conn.raw, error)

    def loss(self, conn: Connection) -> Exception | None:
        return self.driver.loss(conn.raw)

    def told(self, conn: Connection, setting: str) -> str | None:
        return self.driver.told(conn.raw, setting)

    def backend(self, conn: Connection) -> int:
        return self.driver.backend(conn.raw)

    def is_timeout(self, error: BaseException) -> bool:
        return self.driver.is_timeout(error)

    # ------------------------------------------------------------------------------------------ what is done

    @asynccontextmanager
    async def transaction(self, conn: Connection) -> AsyncIterator[Any]:
        block: Any = self.driver.transaction(conn.raw)
        try:
            await conn.run(_enter, block)
            yield conn
        except BaseException as error:
            # It is left in its thread whatever happens: as garbage it would roll back where it is dropped, in the event
            # loop's thread, and what the connection's next user has done.
            if self.busy(conn):  # with what nobody waits for any more: then the pool closes the connection
                conn._give(partial(_exit, block, asyncio.CancelledError()), due=True).cancel()
            elif conn._worker is not None:
                await conn._run(partial(_exit, block, error), due=True)
            raise
        await conn._run(partial(_exit, block, None), due=True)

    async def settle(self, conn: Connection, commit: bool) -> None:
        await conn._give(lambda: _drive(self.driver.settle(conn.raw, commit)))

    async def reset(self, conn: Connection, baseline: Any) -> bool:
        return await conn._give(lambda: _drive(self.driver.reset(conn.raw, baseline[1])))

    async def ask(self, conn: Connection, query: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        return await conn._give(lambda: _drive(self.driver.ask(conn.raw, query, params)))

    async def check(self, conn: Connection) -> None:
        await conn._give(lambda: _drive(self.driver.check(conn.raw)))

    async def cancel(self, conn: Connection, timeout: float) -> None:
        self.stop(conn)

    async def close(self, conn: Connection) -> int | None:
        try:
            closing = conn._give(lambda: _drive(self.driver.close(conn.raw)), due=True)
            try:
                return await asyncio.shield(closing)
            except asyncio.CancelledError:
                closing.add_done_callback(_close_end)
                raise
        finally:
            conn._end()

    def abort(self, conn: Connection) -> None:
        self.driver.abort(conn.raw)

    def abandon(self, conn: Connection) -> int | None:
        return self.driver.abandon(conn.raw)

    def silence(self, conn: Connection) -> None:
        conn._worker = None  # there are no threads in a child
        self.driver.silence(conn.raw)


def _drive(step: Coroutine[Any, Any, T]) -> T:
    """A step of a driver that blocks, taken to its end here and now."""
    try:
        step.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    step.close()
    raise AssertionError("bug: a driver that blocks has suspended")


def _part_with(driver: Driver, unwanted: list[Any]) -> None:
    for raw in unwanted:
        end = _drive(driver.close(raw))
        if end is not None:
            sockets.close(end)


def _seen(future: asyncio.Future[Any]) -> None:
    """An error that nobody waits for any more is no news to the event loop."""
    if not future.cancelled():
        future.exception()


def _close_end(closing: asyncio.Future[int | None]) -> None:
    """What the closing of a connection has returned to nobody."""
    if not closing.cancelled() and closing.exception() is None and (end := closing.result()) is not None:
        sockets.close(end)


def _enter(raw: Any, block: Any) -> None:
    block.__enter__()


def _exit(block: Any, error: BaseException | None) -> None:
    block.__exit__(type(error) if error is not None else None, error, None)
