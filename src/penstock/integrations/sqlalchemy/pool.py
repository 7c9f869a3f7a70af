"""The pools to be named to `create_engine` and `create_async_engine`."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast
from weakref import WeakSet

from sqlalchemy import event, exc
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool, PoolProxiedConnection, QueuePool
from sqlalchemy.pool.base import _ConnectionFairy
from sqlalchemy.util import await_only, safe_reraise
from sqlalchemy.util.concurrency import in_greenlet

from ... import errors
from ...core import Overload
from ...core.settings import check_count, check_seconds
from ...drivers import sockets
from ...pool import events
from ...pool.base import LINGER
from ...pool.holders import Holder
from ...pool.snapshot import Snapshot
from .lease import Lease
from .lender import Lender, NoConnection, TaskLender, ThreadLender
from .record import Record, end_of, note

LINGER_BROKEN = 0.05  # seconds, as LINGER, for a server that most likely has let go already, or never will
AT_ONCE = 0.001  # seconds that who does not want to wait waits all the same, for a place to be made


@dataclass(slots=True)
class Idle:
    """QueuePool's queue, for whoever looks into it."""

    queue: list[Any]
    maxsize: int
    use_lifo: bool

    def qsize(self) -> int:
        return len(self.queue)

    def empty(self) -> bool:
        return not self.queue


class PenstockPool(QueuePool):
    """SQLAlchemy's QueuePool on Penstock: ``create_engine(url, poolclass=PenstockPool)``.

    What SQLAlchemy knows means what it means there, with the same defaults. `create_engine` takes ours by these names:
    ``create_engine(url, poolclass=PenstockPool, leak_after=30)``.

    :param creator: what connects.
    :param pool_size: connections kept open; 0 for any number. They are opened as they are needed.
    :param max_overflow: connections beyond that, closed when they come back; -1 for any number.
    :param timeout: seconds to wait for one; None for ever.
    :param use_lifo: whether the one that came back last is lent first, so that the others age.
    :param name: for logs, errors and metrics; by default `logging_name`, or else ``pool-1`` and so on.
    :param leak_after: idle in hand for this long (seconds), a holder is reported, once; None for never.
    :param leak_reclaim: whether the pool takes such a connection away from its holder.
    :param nested: what to do about a thread or task that asks for a second connection while it holds one: ``"allow"``
        it, ``"warn"`` in the log, or ``"raise"`` `penstock.NestedCheckout`.
    :param overload: that requests which would wait in vain are refused at once.
    :param max_waiting: requests that may wait at once; 0 for any number.
    :param max_idle: seconds after which an unused connection is closed; by default never, as SQLAlchemy does.
    :param kw: `recycle`, `pre_ping`, `reset_on_return`, `echo`, `logging_name`, `events`, `dialect`: as of any of
        SQLAlchemy's pools. With `pre_ping` a connection is asked only where the kernel cannot tell; see `docs`.
    :raises ValueError: (or TypeError) naming the argument, what was found and what it may be.
    """

    _is_asyncio = False
    _lender: Any = None
    _lender_class: type[Lender] = ThreadLender

    def __new__(cls, creator: Any, *args: Any, dialect: Any = None, **kw: Any) -> PenstockPool:
        """Named to `create_async_engine`, it is the one for asyncio."""
        if cls is PenstockPool and getattr(dialect, "is_async", False) is True:
            cls = AsyncPenstockPool
        return super().__new__(cls)

    def __init__(
        self,
        creator: Any,
        pool_size: int = 5,
        max_overflow: int = 10,
        timeout: float | None = 30.0,
        use_lifo: bool = False,
        name: str | None = None,
        leak_after: float | None = 60.0,
        leak_reclaim: bool = False,
        nested: Literal["allow", "warn", "raise"] = "allow",
        overload: Overload | None = None,
        max_waiting: int = 0,
        max_idle: float = math.inf,
        **kw: Any,
    ) -> None:
        check_count("pool_size", pool_size, at_least=0)
        if pool_size:  # or there is no limit that it would be beyond
            check_count("max_overflow", max_overflow, at_least=-1)
        if timeout is not None:
            check_seconds("pool_timeout", timeout)
        Pool.__init__(self, creator, **kw)
        if isinstance(self._dialect, Dialect) and not event.contains(self._dialect, "do_connect", note):
            event.listen(self._dialect, "do_connect", note)
        self._size = pool_size
        self._kept = pool_size or sys.maxsize
        self._max_overflow = -1 if pool_size == 0 else max_overflow
        self._timeout = timeout  # type: ignore[assignment]
        self._lifo = use_lifo
        self._doubted = -math.inf  # since when what is idle is suspect, by the monotonic clock
        self._options: dict[str, Any] = {
            "name": name,
            "leak_after": leak_after,
            "leak_reclaim": leak_reclaim,
            "nested": nested,
            "overload": overload,
            "max_waiting": max_waiting,
            "max_idle": max_idle,
        }
        self._lenders: WeakSet[Lender] = WeakSet()  # all that were ever beneath this engine, one after the other
        self._lender = self._make_lender()  # opened with the first connection: an unused engine starts no thread
        self._options["name"] = self._lender.name  # also of those that follow it

    # ------------------------------------------------------------------------------------------ as SQLAlchemy asks

    def connect(self) -> PoolProxiedConnection:
        record = self._do_get()
        try:
            conn = record.get_connection()
        except BaseException as error:
            with safe_reraise():
                record._checkin_failed(error, _fairy_was_created=False)
        echo = self._should_log_debug()
        lease = Lease(self, conn, record, echo)
        if echo:
            self.logger.debug("Connection %r checked out from pool", conn)
        if self.dispatch.checkout or (self._pre_ping and not record.fresh):
            return _ConnectionFairy._checkout(self, fairy=lease)
        record.fresh = False
        lease._counter = 1
        return lease

    def _should_wrap_creator(self, creator: Any) -> Any:
        create = super()._should_wrap_creator(creator)

        def noted(record: Any) -> Any:
            conn = create(record)
            record.made(conn)
            return conn

        return noted

    def _do_get(self) -> Record:
        lender: ThreadLender = self._lender
        return lender.lend()

    def _prepare(self, record: Record) -> Any:
        return record.prepare()

    def _do_return_conn(self, record: Any) -> None:
        record.lender.settle(record)

    def _close_connection(self, connection: Any, *, terminate: bool = False) -> None:
        """Until the server has let go of it, it counts there: its place must not be another's before that."""
        end = None if self._is_asyncio else end_of(self._dialect.get_driver_connection(connection))
        try:
            super()._close_connection(connection, terminate=terminate)
        finally:
            if end is not None:
                sockets.wait_for_end(end, LINGER_BROKEN if terminate else LINGER)

    def recreate(self) -> PenstockPool:
        self.logger.info("Pool recreating")
        anew = self.__class__(
            self._creator,
            pool_size=self._size,
            max_overflow=self._max_overflow,
            timeout=self._timeout,
            use_lifo=self._lifo,
            pre_ping=self._pre_ping,
            recycle=self._recycle,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            _dispatch=self.dispatch,
            dialect=self._dialect,
            **self._options,
        )
        anew._lenders = self._lenders
        self._lenders.add(anew._lender)
        anew._lender.heed(self._lender)
        return anew

    def dispose(self) -> None:
        self._lender.dispose()
        self.logger.info("Pool disposed. %s", self.status())

    def size(self) -> int:
        return self._size

    def checkedin(self) -> int:
        return len(self._lender._core.idle)

    def checkedout(self) -> int:
        return self._lender._core.leased  # type: ignore[no-any-return]

    def overflow(self) -> int:
        return self._overflow if self._size else 0

    # ------------------------------------------------------------------------------------------ ours beside it

    def holders(self) -> list[Holder]:
        """Who holds which connection, the longest first: the line that took it, and what is done with it."""
        return self._lender.holders()  # type: ignore[no-any-return]

    def snapshot(self) -> Snapshot:
        """Every figure of the pool at this moment."""
        return self._lender.snapshot()  # type: ignore[no-any-return]

    def listen(self, callback: Callable[[Any], object], *kinds: type[events.Event]) -> Callable[[], None]:
        """Call *callback* with each `penstock.events.Event` of these *kinds* from now on; returns what ends that.

        After `engine.dispose()` it hears of the pool that the engine has then.
        """
        self._lender.listen(callback, *kinds)
        return partial(_stop_listening, self._lenders, callback)

    # ------------------------------------------------------------------------------------------ QueuePool's privates

    @property
    def _overflow(self) -> int:  # type: ignore[override]
        return self.checkedin() + self.checkedout() - self._size

    @property
    def _pool(self) -> Idle:  # type: ignore[override]
        return Idle(self._lender._pool, self._size, self._lifo)

    # ------------------------------------------------------------------------------------------

    def _make_lender(self) -> Lender:
        lender = self._lender_class(self, **self._lender_options())
        if self._lender is not None:
            lender.heed(self._lender)
        self._lenders.add(lender)
        return lender

    def _lender_options(self) -> dict[str, Any]:
        unlimited = self._max_overflow < 0
        return self._options | {
            "name": self._options["name"] or self._orig_logging_name,
            "max_size": sys.maxsize if unlimited else self._size + self._max_overflow,
            "timeout": math.inf if self._timeout is None else max(self._timeout, AT_ONCE),
        }


class AsyncPenstockPool(PenstockPool, AsyncAdaptedQueuePool):
    """As `PenstockPool`, for asyncio engines: ``create_async_engine(url, poolclass=AsyncPenstockPool)``.

    It belongs to the event loop in which the engine is first used. Once that loop is closed it starts anew in another.
    """

    _is_asyncio = True
    _lender_class = TaskLender
    _dialect = AsyncAdaptedQueuePool._dialect

    def _do_get(self) -> Record:
        lender: TaskLender = self._lender
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise exc.MissingGreenlet(
                f"{lender.name}: a connection of an asyncio engine was asked for outside of any event loop"
            ) from None
        if loop is not lender.loop:
            lender = self._lender = self._settle_in(lender)
        return lender.lend()

    def _prepare(self, record: Record) -> Any:
        lender = cast("TaskLender", record.lender)
        return lender.prepare(record)

    def dispose(self) -> None:
        lender: TaskLender = self._lender
        if lender.loop is not None and lender.loop.is_closed():
            lender.let_go()
            self._lender = self._make_lender()
        super().dispose()
        if lender.loop is asyncio._get_running_loop() and in_greenlet():
            await_only(lender.settle_down())

    def _settle_in(self, lender: TaskLender) -> TaskLender:
        """In the running event loop: the first, or one after the end of that."""
        if lender.loop is not None:
            if not lender.loop.is_closed():
                raise errors.under(errors.WrongEventLoop, NoConnection)(
                    f"{lender.name}: this engine was first used in another event loop, where its connections live:"
                    " make an engine for each loop, or `await engine.dispose()` there before it is used here"
                )
            lender.let_go()
            lender = cast("TaskLender", self._make_lender())
        lender.begin()
        return lender


def _stop_listening(lenders: Iterable[Lender], callback: Callable[[Any], object]) -> None:
    for lender in list(lenders):
        lender._stop_listening(callback)
