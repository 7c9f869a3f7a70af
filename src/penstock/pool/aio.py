"""The pool for asyncio: no lock, a future a waiter, and a short-lived task for whatever has to wait.

Everything happens in one event loop, the one that the pool was opened in; what comes from elsewhere (a finalizer,
another thread) is brought there. A step that must not be left half done, such as the rollback of a returned
connection, is a task of its own, so that cancelling its caller does not cancel it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import warnings
from asyncio import current_task, get_running_loop
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from sys import _getframe
from types import CodeType, TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar
from weakref import WeakMethod, WeakSet, ref

from .. import errors
from ..core import Close, Doubt, Effect, Empty, Full, GaveUp, Open, Priority, Reason, Refusal, Slot, State, Waiter, Wake
from ..drivers import check_connection, sockets
from ..drivers.base import Status, settled
from . import registry, steps
from .base import CLEAN_SECONDS, LINGER, LONGEST_SLEEP, NO_LINGER, BasePool
from .holders import CallSite, call_site, task_stack
from .membership import NotNow
from .terms import Wish, declared

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from psycopg import AsyncConnection
    from psycopg.rows import TupleRow
    from typing_extensions import TypeVar as TypeVarWithDefault

    C = TypeVarWithDefault("C", default=AsyncConnection[TupleRow])
else:
    C = TypeVar("C")

logger = logging.getLogger("penstock.pool")


class AsyncCheckout(Generic[C]):
    """A connection for the length of an `async with` block. Made by `AsyncPool.connection`."""

    __slots__ = ("_code", "_conn", "_lasti", "_pool", "_slot", "_uses")
    _wish: Wish | None = None

    def __init__(self, pool: AsyncPool[C], code: CodeType, lasti: int) -> None:
        self._pool = pool
        self._code = code
        self._lasti = lasti

    async def __aenter__(self) -> C:
        pool = self._pool
        loop = get_running_loop()
        if pool._plain and loop is pool._loop:
            slot = pool._core.take(_owner(loop), self._code, self._lasti, pool._clock())
            if slot is not None and not slot.probe(0):
                conn = slot.conn
                slot.conn = None
                conn._pool = pool
                self._slot = slot
                self._uses = slot.uses
                self._conn = conn
                return conn  # type: ignore[no-any-return]
        else:
            slot = None
        self._slot = slot = await pool._acquire(slot, self._wish, self._code, self._lasti)
        self._conn = conn = slot.conn
        slot.conn = None
        conn._pool = pool
        self._uses = slot.uses
        return conn  # type: ignore[no-any-return]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pool, slot, conn = self._pool, self._slot, self._conn
        if slot.uses != self._uses:  # this lease is over already
            if slot.reported and kind is None:
                raise pool._was_reclaimed()
            return  # the connection was put back in the block, or is the parent's, and this is a forked child
        if pool._plain and not slot.reported and pool._state(conn) == slot.baseline:
            conn._pool = None
            slot.conn = conn  # first: whoever is handed the slot finds the connection in it
            core, now = pool._core, pool._clock()
            if not core.give(slot, now):
                pool._emit_returned(slot, now - slot.since)
                core.requite(slot, now)
                pool._carry_out(core.effects())
                if core.keeps_none:
                    await pool._parted(slot)
            return
        await pool._finish(slot, conn, commit=kind is None)


class BoundAsyncCheckout(AsyncCheckout[C]):
    """One with a wish of its own, or under a declared deadline. Apart, so that all others need not even look."""

    __slots__ = ("_wish",)

    def __init__(self, pool: AsyncPool[C], wish: Wish | None, code: CodeType, lasti: int) -> None:
        super().__init__(pool, code, lasti)
        self._wish = wish

    async def __aenter__(self) -> C:
        terms = self._pool._arrive(self._wish, self._code, self._lasti)
        conn = await super().__aenter__()
        self._pool._bind(self._slot, conn, terms)
        return conn

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._slot.uses == self._uses:  # or this lease is over already
            self._pool._unbind(self._slot, self._conn)
        await super().__aexit__(kind, error, traceback)


class AsyncPool(BasePool[C]):
    """A pool of connections for asyncio, with the names and defaults of psycopg's own pool.

    As `Pool`, whose parameters it has. Its hooks, `conninfo`, `kwargs` and `reconnect_failed` may be plain functions or
    coroutine functions. It belongs to the event loop that it was opened in: open it there, with ``await pool.open()``
    or ``async with``.
    """

    _is_async: ClassVar[bool] = True

    def _start_anew(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[Any]] = set()  # nothing else refers to them: the loop does so weakly
        self._connecting: dict[asyncio.Task[Any], Slot] = {}
        self._parting: dict[Slot, asyncio.Task[Any]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next_tick = math.inf
        self._full = asyncio.Event()
        self._empty = asyncio.Event()
        self._told_of_end: WeakSet[asyncio.Task[Any]] = WeakSet()

    # ------------------------------------------------------------------------------------------ opening and closing

    async def __aenter__(self) -> Self:
        self._forget_implicit_opening()
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        """Start connecting and accepting requests, in the running event loop. No effect on an open pool.

        :param wait: whether to return only when `min_size` connections are open, as `wait` does.
        :raises PoolClosed: when the pool was closed before: it cannot be opened again.
        """
        self._open()
        if wait:
            await self.wait(timeout)

    def _open_at_once(self) -> None:
        try:
            get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                f"{self.name}: an AsyncPool is opened in a running event loop: pass open=False here,"
                " and `await pool.open()` there"
            ) from None
        if not self._opened_implicitly:
            self._warn_opened_in_constructor()
        self._open()

    def _warn_opened_implicitly(self, site: CallSite) -> None:
        self._forget_implicit_opening()
        self._warn_opened_in_constructor()

    def _warn_opened_in_constructor(self) -> None:
        warnings.warn(
            f"{self.name}: an AsyncPool should not be opened by its constructor: pass open=False and"
            " `await pool.open()`, or use it as a context manager: `async with AsyncPool(...) as pool:`",
            RuntimeWarning,
            stacklevel=4,
        )

    def _open(self) -> None:
        self._reopen = False
        if self._core.closed:
            raise errors.under(errors.PoolClosed, self._driver.operational_error)(
                f"the pool {self.name!r} has already been opened and closed and cannot be reused: make a new one"
            )
        if self._core.opened:
            return
        self._loop = get_running_loop()
        registry.opened(self)
        self._event(self._core.open)
        if self._membership is not None:
            self._membership.begin()
        self._tick()

    async def wait(self, timeout: float = 30.0) -> None:
        """Wait until `min_size` connections are idle; of a pool with a `fleet`, as many of them as its share allows.

        :raises PoolTimeout: when they are not within *timeout* seconds; the pool is closed then.
        :raises PoolClosed: when the pool is not open, or is closed meanwhile.
        """
        self._check_open()
        self._full.clear()
        if self._core.fill():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._full.wait()
            self._check_open()  # it may have been closed meanwhile
            return
        error = self._not_filled(timeout)
        await self.close()
        raise error from self._core.pace.error

    async def close(self, timeout: float = 5.0) -> None:
        """Close the pool. Requests that wait are refused now; work under way may end within *timeout* seconds.

        What is still out then is named in the log and closed when it comes back. A caller that holds a connection
        itself is not kept waiting for it.
        """
        if self._reopen:  # in a forked child that has not used the pool: there is nothing to close
            self._reopen = False
            self._core.closed = True
        if self._core.closed or self._loop is None:
            return
        self._event(self._core.close)
        if self._membership is not None:
            self._membership.end()
        self._full.set()  # who waits for that waits no more
        if self._connecting:  # each is closed when it comes, if it comes soon
            await asyncio.wait(self._connecting, timeout=min(timeout, LINGER))
        for task in list(self._connecting):
            task.cancel()
        owner = _owner(self._loop)
        if not any(slot.owner == owner for slot in self._core.leases()):
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._empty.wait()
        if self._membership is not None:
            await self._membership.leave()
        if self._timer is not None:
            self._timer.cancel()
        self._log_still_out()

    def _is_over(self) -> bool:
        return self._core.closed or (self._loop is not None and self._loop.is_closed())

    def _check_open(self) -> None:
        if self._reopen:
            self._open()
        if self.closed:
            now = self._clock()
            waiter = Waiter(None, None, -1, now, now)
            waiter.refusal = Refusal.CLOSED if self._core.closed else Refusal.NOT_OPEN
            self._refuse(waiter, 0)
        if get_running_loop() is not self._loop:
            raise errors.under(errors.WrongEventLoop, self._driver.operational_error)(
                f"{self.name}: this pool was opened in another event loop, where its connections live:"
                " make one AsyncPool for each loop"
            )

    # ------------------------------------------------------------------------------------------ borrowing

    def connection(
        self,
        timeout: float | None = None,
        priority: Priority | None = None,
        deadline: float | None = None,
        key: Hashable = None,
    ) -> AsyncCheckout[C]:
        """A connection for an `async with` block.

        At its end the transaction is committed, or rolled back if the block raised, and the connection given back.

        :param timeout: seconds to wait for one; by default the pool's.
        :param priority: who is served first and shed last where requests wait; by default NORMAL.
        :param deadline: seconds from now by which the answer is wanted, as `penstock.deadline` declares it.
        :param key: whose request it is (a tenant, an endpoint), where the pool has a `max_per_key`.
        :raises Overloaded: when it would have waited in vain: with a declared deadline, or the pool's `overload`.
        :raises PoolTimeout: when there was none in time: `PoolExhausted` naming the holders, or `DatabaseUnavailable`
            with the driver's error as its cause.
        :raises TooManyRequests: when `max_waiting` requests wait already.
        :raises PoolDeadlock: when the wait could never end.
        :raises PoolClosed: when the pool is not open.
        :raises WrongEventLoop: when the pool was opened in another event loop.
        """
        frame = _getframe(1)
        if timeout is None and priority is None and deadline is None and key is None and declared() is None:
            return AsyncCheckout(self, frame.f_code, frame.f_lasti)
        return BoundAsyncCheckout(self, self._wish(timeout, priority, deadline, key), frame.f_code, frame.f_lasti)

    @asynccontextmanager
    async def _transaction(self, checkout: AsyncCheckout[C]) -> AsyncIterator[C]:
        async with checkout as conn, self._driver.transaction(conn):  # type: ignore[union-attr]
            yield conn

    def transaction(
        self,
        timeout: float | None = None,
        priority: Priority | None = None,
        deadline: float | None = None,
        key: Hashable = None,
    ) -> AbstractAsyncContextManager[C]:
        """A connection inside a transaction, for an `async with` block: committed at its end, rolled back if it raises.

        Unlike `connection`, also where the connection is in autocommit. Raises as `connection` does.
        """
        frame, wish = _getframe(1), self._wish(timeout, priority, deadline, key)
        return self._transaction(BoundAsyncCheckout(self, wish, frame.f_code, frame.f_lasti))

    def getconn(
        self,
        timeout: float | None = None,
        priority: Priority | None = None,
        deadline: float | None = None,
        key: Hashable = None,
    ) -> Coroutine[Any, Any, C]:
        """A connection, which must be given back with `putconn`. Prefer `connection`. Raises as `connection` does.

        One that is dropped, or whose task has ended, is taken back with a ResourceWarning.
        """
        wish = self._wish(timeout, priority, deadline, key)
        frame = _getframe(1)  # here: inside the coroutine, who called it may be the event loop
        return self._getconn(wish, frame.f_code, frame.f_lasti)

    async def _getconn(self, wish: Wish | None, code: CodeType, lasti: int) -> C:
        terms = self._arrive(wish, code, lasti)
        slot = await self._acquire(None, wish, code, lasti)
        task = current_task()
        slot.by_hand = slot.owner
        if task is not None and task not in self._told_of_end:
            self._told_of_end.add(task)
            task.add_done_callback(_weakly(self._task_ended))
        conn, slot.conn = slot.conn, None
        conn._pool = self
        self._bind(slot, conn, terms)
        return conn  # type: ignore[no-any-return]

    async def putconn(self, conn: C) -> None:
        """Give back a connection that `getconn` gave. An open transaction is rolled back.

        :raises ValueError: when it is not this pool's, or was given back already.
        """
        slot = self._slot_of(conn)
        slot.by_hand = None
        self._unbind(slot, conn)
        await self._give_back(slot, conn)

    async def _acquire(self, slot: Slot | None, wish: Wish | None, code: CodeType, lasti: int) -> Slot:
        """A connection that is fit for use, still in its slot. *slot*: one taken already, to be looked at closer."""
        waiter = self._ask(wish, code, lasti)
        since, timeout = waiter.since, waiter.deadline - waiter.since
        again = False
        while True:
            if slot is None:
                slot = await self._wait_for(waiter, timeout, again)
            if (self._kit.check is None and not slot.probe(0)) or await self._fit(slot, waiter.deadline):
                if self._listeners:
                    self._emit_acquired(slot, self._clock() - since, waiter.waited > 0)
                return slot
            slot, waiter.slot, again = None, None, True

    def _ask(self, wish: Wish | None, code: CodeType, lasti: int) -> Waiter:
        """Somebody asks for a connection, here and now; raises if there is no asking."""
        if self._core.closed or get_running_loop() is not self._loop:
            self._check_open()
        if self._opened_implicitly:
            self._warn_opened_implicitly(call_site(code, lasti))
        assert self._loop is not None
        owner = _owner(self._loop)
        if self._nested != "allow":
            self._check_nested(owner, code, lasti)
        return self._waiter(owner, wish, code, lasti, self._clock())

    async def _borrow(self, timeout: float) -> C:
        """A connection for the pool's own purposes: before all who wait, and none of anybody's requests."""
        since = self._clock()
        waiter = Waiter(None, None, -1, since, since + timeout, priority=Priority.HIGH)
        while True:
            slot = await self._wait_for(waiter, timeout, again=True)
            if not slot.probe(0) or self._driver.look(slot.conn) is not False:
                conn, slot.conn = slot.conn, None
                return conn  # type: ignore[no-any-return]
            self._event(self._core.reject, slot, Reason.DEAD)
            waiter.slot = None

    async def _hand_back(self, conn: C) -> None:
        """After `_borrow`. Where nothing was left behind, there is nothing to reset."""
        slot = self._slot_of(conn)
        if self._state(conn) != slot.baseline:
            await self._give_back(slot, conn)
            return
        slot.conn = conn
        self._event(self._core.requite, slot)
        if self._core.keeps_none:
            await self._parted(slot)

    async def _wait_for(self, waiter: Waiter, timeout: float, again: bool) -> Slot:
        assert self._loop is not None
        waiter.wake = wake = self._loop.create_future()
        core = self._core
        core.acquire(waiter, self._clock() if again else waiter.since, again)
        effects = core.effects()
        if effects:
            self._carry_out(effects)
        if waiter.slot is None and waiter.refusal is None:
            # One timer, at the earliest deadline, does for all waiters: one for each would cost more than the wait.
            if waiter.deadline < self._next_tick:
                self._wake_at(waiter.deadline)
            try:
                await wake
            except BaseException:  # cancelled, perhaps in the very moment of being served: that goes to the next
                self._event(core.cancel, waiter)
                raise
        if waiter.slot is None:
            self._refuse(waiter, timeout)
        return waiter.slot

    async def _fit(self, slot: Slot, deadline: float) -> bool:
        """Whether the connection can be handed out; if not, it is gone already."""
        alive = not slot.probe(0) or self._driver.look(slot.conn)
        if alive is False:
            self._event(self._core.reject, slot, Reason.DEAD)
            return False
        if self._kit.check is None and alive is True:
            return True
        left = deadline - self._clock()
        if left <= 0:  # no time to check it, which is not the connection's fault
            self._event(self._core.unused, slot)
            return False
        try:
            # Later than the cut-off, so that it is not by cancelling that a silent check ends.
            async with asyncio.timeout(left + 0.005):
                with self._cut_off(slot.conn, deadline):
                    await steps.check(self._kit, slot.conn)
        except Exception as error:
            logger.info("%s: a connection failed check: %s", self.name, error)
            if self._kit.check is None:  # the driver's own check
                self._event(self._core.reject, slot, Reason.DEAD)
            else:
                self._event(self._core.reject, slot, Reason.CHECK_FAILED, error=None if slot.proven else error)
            return False
        except BaseException:
            self._event(self._core.reject, slot, Reason.CHECK_FAILED)
            raise
        slot.proven = True
        return True

    # ------------------------------------------------------------------------------------------ giving back

    async def _finish(self, slot: Slot, conn: Any, commit: bool) -> None:
        try:
            status = self._driver.status(conn)
            if commit and status in (Status.INTRANS, Status.INERROR):
                await self._driver.settle(conn, commit=True)
        finally:
            await self._give_back(slot, conn, expected=not commit)
        if status is Status.ACTIVE and commit:
            raise self._never_settled()

    async def _give_back(self, slot: Slot, conn: Any, expected: bool = False) -> None:
        """*expected*: that a transaction is open is no surprise, as the block that it belongs to has raised."""
        if slot.state is not State.LEASED:
            return  # it was taken back before
        if self._kit.reset is None and self._state(conn) == slot.baseline:
            self._returned(slot, conn, None)
        elif self._goes_as_it_is(slot, conn):
            self._returned(slot, conn, Reason.UNUSED)
        else:
            await asyncio.shield(self._spawn(self._clean(slot, conn, expected)))
        if self._core.keeps_none:
            await self._parted(slot)

    async def _clean(self, slot: Slot, conn: Any, expected: bool) -> None:
        reason: Reason | None = Reason.UNCLEAN
        if slot.owner is not None:  # who gave it back, and did not wait for the end of this, may ask for another one
            slot.owner = _owner(get_running_loop())
        try:
            async with asyncio.timeout(CLEAN_SECONDS + 1):
                with self._cut_off(conn, self._clock() + CLEAN_SECONDS):
                    reason = await steps.clean(self._kit, conn, slot.baseline, expected)
        except TimeoutError:
            logger.warning("%s: a returned connection was not reset within %g s", self.name, CLEAN_SECONDS)
        finally:
            self._returned(slot, conn, reason)

    async def _parted(self, slot: Slot) -> None:
        """Of a pool that is closed, or keeps none idle, who gives a connection back finds it closed."""
        task = self._parting.get(slot)
        if task is not None:
            await asyncio.shield(task)

    def _returned(self, slot: Slot, conn: Any, reason: Reason | None) -> None:
        conn._pool = None
        slot.conn = conn
        if slot.reported:
            self._came_back(slot, self._clock())
        self._emit_returned(slot, self._clock() - slot.since)
        if reason is None:
            self._event(self._core.requite, slot)
        else:
            self._event(self._core.discard, slot, reason, error=self._driver.loss(conn))

    @contextmanager
    def _cut_off(self, conn: Any, deadline: float) -> Iterator[None]:
        """Should the block last past *deadline*, its connection's traffic is ended, and the block with an error.

        To cancel it instead would not do: a driver that is cancelled asks the server to stop, and waits for its answer.
        """
        assert self._loop is not None
        timer = self._loop.call_later(max(0.0, deadline - self._clock()), self._driver.abort, conn)
        try:
            yield
        finally:
            timer.cancel()

    # ------------------------------------------------------------------------------------------ carrying out

    def _event(self, event: Callable[..., object], *args: Any, **options: Any) -> None:
        event(*args, now=self._clock(), **options)
        effects = self._core.effects()
        if effects:
            self._carry_out(effects)

    def _carry_out(self, effects: list[Effect]) -> None:
        if self._loop is None or self._loop.is_closed():
            return  # nothing can be done any more, and nobody waits for it
        for effect in effects:
            match effect:
                case Waiter(wake=wake):
                    if not wake.done():
                        wake.set_result(None)
                case Open():
                    task = self._spawn(self._connect(effect.slot))
                    self._connecting[task] = effect.slot
                    task.add_done_callback(_weakly(self._connect_ended))
                case Close(slot=slot):
                    task = self._parting[slot] = self._spawn(self._part(effect))
                    task.add_done_callback(lambda _, slot=slot: self._parting.pop(slot, None))  # type: ignore[misc]
                case Wake():
                    self._wake_at(effect.at)
                case Doubt():
                    self._doubt()
                case Full():
                    self._full.set()
                case Empty():
                    self._empty.set()
                case GaveUp():
                    self._log_gave_up()
                    if self.reconnect_failed is not None:
                        self._spawn(self._call_reconnect_failed())

    async def _call_reconnect_failed(self) -> None:
        try:
            if self.reconnect_failed is not None:
                await settled(self.reconnect_failed(self))
        except Exception:
            logger.exception("%s: reconnect_failed raised", self.name)

    def _spawn(self, job: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        assert self._loop is not None
        task = self._loop.create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _connect(self, slot: Slot) -> None:
        started = self._clock()
        try:
            async with asyncio.timeout(self._kit.connect_timeout):
                conn, baseline = await steps.open_connection(self._kit, self)
            self._settle_in(slot, conn, baseline)
        except asyncio.CancelledError:
            raise  # `_connect_ended` sees to the slot
        except NotNow as later:
            self._event(self._core.put_off, slot, later.seconds)
        except BaseException as error:  # whatever it is, the slot must not be lost
            if isinstance(error, TimeoutError) and not str(error):
                error = TimeoutError(f"no answer within connect_timeout={self._kit.connect_timeout:g} s")
            try:
                self._log_failed(error, self._clock() - started)
            finally:
                self._event(self._core.failed, slot, error, hung=self._driver.is_timeout(error))
        else:
            self._event(self._core.opened_slot, slot)
            self._log_opened(slot, self._clock() - started)

    def _connect_ended(self, task: asyncio.Task[Any]) -> None:
        slot = self._connecting.pop(task)
        if slot.state is State.OPENING:  # cancelled, perhaps before its first step, where no `except` sees it
            self._event(self._core.failed, slot, None)

    def _doubt(self, within: float = CLEAN_SECONDS) -> None:
        """Ask the kernel about every idle connection; whatever it does not know as dead has to answer for itself."""
        for slot in self._core.doubt():
            if slot.probe(0) and self._driver.look(slot.conn) is False:
                self._event(self._core.reject, slot, Reason.DEAD)
            else:
                self._spawn(self._verify(slot, within))

    async def _verify(self, slot: Slot, within: float = CLEAN_SECONDS) -> bool:
        try:
            async with asyncio.timeout(within + 1):
                with self._cut_off(slot.conn, self._clock() + within):
                    await self._driver.check(slot.conn)
        except BaseException as error:
            self._event(self._core.reject, slot, Reason.DEAD)
            if not isinstance(error, Exception):
                raise
            return False
        self._event(self._core.requite, slot)
        return True

    async def _part(self, effect: Close) -> None:
        slot = effect.slot
        conn = slot.conn
        self._move_out(slot)
        try:
            if conn is not None:
                async with asyncio.timeout(2 * LINGER):
                    end = await steps.close(self._kit, conn, effect.reason)
                if end is not None:
                    await sockets.await_end(end, 0 if effect.reason in NO_LINGER else LINGER)
        except TimeoutError:
            self._driver.abort(conn)
        finally:
            self._event(self._core.closed_slot, slot)
            self._log_closed(effect, repr(conn))

    # ------------------------------------------------------------------------------------------ the pool as a whole

    async def resize(self, min_size: int, max_size: int | None = None) -> None:
        """Change the sizes. Idle connections above the new maximum are closed now, leased ones when they come back.

        Of a pool with a `fleet` these are the sizes that it would have: it has its share of the fleet within them.

        :raises ValueError: when no pool can have these sizes; nothing has changed then.
        """
        self._change_sizes(min_size, min_size if max_size is None else max_size)

    async def drain(self) -> None:
        """Replace every connection: idle ones now, leased ones when they come back."""
        self._event(self._core.drain)

    def pause(self) -> None:
        """Hand out no connection until `resume`. Requests wait, each until its own timeout."""
        self._core.pause()

    def resume(self) -> None:
        """Hand out connections again, to those who wait first."""
        self._event(self._core.resume)

    async def check(self) -> None:
        """Make sure of every idle connection with a round trip; replace those that do not answer."""
        tasks = [self._spawn(self._verify(slot)) for slot in self._core.doubt()]
        for answered in await asyncio.shield(asyncio.gather(*tasks)):
            if not answered:
                logger.warning("%s: an idle connection failed its check and is replaced", self.name)
        self._event(self._core.refill)

    @staticmethod
    async def check_connection(conn: Any) -> None:
        """A `check` for those who want a round trip before each use all the same.

        :raises Exception: the driver's own, when the connection does not answer.
        """
        await check_connection(conn)

    # ------------------------------------------------------------------------------------------ looking after it

    def _tell(self, call: Callable[[], object]) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: there is nobody left to tell
                self._loop.call_soon_threadsafe(call)

    def _wake_at(self, at: float) -> None:
        if at >= self._next_tick or self._loop is None or self._loop.is_closed():
            return
        if self._timer is not None:
            self._timer.cancel()
        self._next_tick = at
        self._timer = self._loop.call_later(max(0.0, at - self._clock()), _tick, ref(self))

    def _tick(self) -> None:
        now = self._clock()
        self._next_tick = math.inf
        due = min(self._core.tick(now), self._watch_holders(now), now + LONGEST_SLEEP)
        self._carry_out(self._core.effects())
        if not self._core.closed:
            self._wake_at(due)

    def _take_back(self, slot: Slot, reason: Reason) -> None:
        conn = slot.ref() if slot.ref is not None else None
        if slot.state is not State.LEASED or slot.conn is not None or (reason is Reason.DROPPED and conn is not None):
            return
        site = call_site(slot.code, slot.lasti)
        slot.conn = conn
        self._event(self._core.discard, slot, reason)
        self._warn_taken_back(site, reason)

    def _task_ended(self, task: asyncio.Task[Any]) -> None:
        self._holder_ended(ref(task))

    def _holder_ended(self, owner: Any) -> None:
        for slot in self._core.leases():
            conn = slot.ref() if slot.by_hand == owner and slot.ref is not None else None
            if conn is not None and not self._left_to_another(conn, owner()):
                self._take_back(slot, Reason.ABANDONED)

    def _left_to_another(self, conn: Any, task: asyncio.Task[Any] | None) -> bool:
        """Whether a task that has ended left the connection to another one: as its result, or in the midst of work."""
        if self._driver.status(conn) is Status.ACTIVE:
            return True
        # `wait_for(pool.getconn(), 1)` on Python 3.11 and `create_task(pool.getconn())` have a task for getconn alone.
        # Not `task.exception()`: to ask for it counts as having seen it, and nobody else would hear of it.
        return task is not None and not task.cancelled() and getattr(task, "_result", None) is conn

    def _owner_name(self, owner: Any) -> str:
        task = owner()
        return f"task {task.get_name()}" if task is not None else "a task that has ended"

    def _owner_stack(self, owner: Any) -> tuple[CallSite, ...]:
        task = owner()
        return task_stack(task) if task is not None else ()

    def _at_exit(self) -> None:
        pass  # the loop is gone, and with it all that could say goodbye in order


def _owner(loop: asyncio.AbstractEventLoop) -> Any:
    """The running task, by a reference that does not keep it: it may hold, in its frames, what the pool lent it."""
    task = current_task(loop)
    return None if task is None else ref(task)


def _weakly(method: Callable[[asyncio.Task[Any]], None]) -> Callable[[asyncio.Task[Any]], None]:
    """A method for a task to call at its end, which does not keep the pool for that long."""
    weak = WeakMethod(method)

    def call(task: asyncio.Task[Any]) -> None:
        if (method := weak()) is not None:
            method(task)

    return call


def _tick(pool: ref[AsyncPool[Any]]) -> None:
    """A timer must not keep a pool that was dropped."""
    keeper = pool()
    if keeper is not None:
        keeper._tick()
