"""The pool for threads: a lock round the core, a lock a waiter, and threads for whatever may block.

The user's threads wait for the core's word only, never for a connect. Connecting, and closing while the server lets go,
each have a short-lived thread of their own, so that one that hangs blocks nobody. The keeper, one daemon thread a pool,
does what is due and takes back what was dropped.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from queue import Empty as QueueEmpty
from queue import SimpleQueue
from sys import _getframe
from threading import TIMEOUT_MAX, get_ident
from time import monotonic
from types import CodeType, TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar
from weakref import ref

from .. import errors
from ..core import (
    Close,
    Doubt,
    Effect,
    Empty,
    Full,
    GaveUp,
    Open,
    Priority,
    Reason,
    Refusal,
    Slot,
    State,
    Waiter,
    Wake,
)
from ..drivers import check_connection, sockets
from ..drivers.base import Status
from . import registry, steps
from .base import CLEAN_SECONDS, LINGER, LONGEST_SLEEP, NO_LINGER, BasePool
from .holders import CallSite, call_site, thread_name, thread_stack
from .membership import NotNow
from .terms import Wish, declared

if TYPE_CHECKING:
    from typing import Self

    from psycopg import Connection
    from psycopg.rows import TupleRow
    from typing_extensions import TypeVar as TypeVarWithDefault

    C = TypeVarWithDefault("C", default=Connection[TupleRow])
else:
    C = TypeVar("C")

logger = logging.getLogger("penstock.pool")


class Checkout(Generic[C]):
    """A connection for the length of a `with` block. Made by `Pool.connection` and `Pool.transaction`."""

    __slots__ = ("_code", "_conn", "_lasti", "_pool", "_slot", "_uses")
    _wish: Wish | None = None

    def __init__(self, pool: Pool[C], code: CodeType, lasti: int) -> None:
        self._pool = pool
        self._code = code
        self._lasti = lasti

    def __enter__(self) -> C:
        pool, slot = self._pool, None
        try:
            if pool._plain:
                slot = pool._core.take(get_ident(), self._code, self._lasti, monotonic())
            if slot is None or slot.probe(0):
                slot = pool._acquire(slot, self._wish, self._code, self._lasti)
            conn = slot.conn
            conn._pool = pool
            self._uses = slot.uses
            self._slot = slot
            self._conn = conn
            slot.conn = None  # last: until then `_salvage` finds the connection where it was
            return conn  # type: ignore[no-any-return]
        except BaseException:
            pool._salvage(slot)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pool, slot, conn = self._pool, self._slot, self._conn
        if slot.uses != self._uses:  # this lease is over already
            if slot.reported and kind is None:
                raise pool._was_reclaimed()
            return  # the connection was put back in the block, or is the parent's, and this is a forked child
        if pool._plain and not slot.reported and pool._state(conn) == slot.baseline:
            try:
                conn._pool = None
                slot.conn = conn  # first: whoever is handed the slot finds the connection in it
                if not pool._core.give(slot, monotonic()):
                    pool._emit_returned(slot, monotonic() - slot.since)
                    pool._requite(slot)
            except BaseException:
                pool._salvage(slot)
                raise
            return
        pool._finish(slot, conn, commit=kind is None)


class BoundCheckout(Checkout[C]):
    """One with a wish of its own, or under a declared deadline. Apart, so that all others need not even look."""

    __slots__ = ("_wish",)

    def __init__(self, pool: Pool[C], wish: Wish | None, code: CodeType, lasti: int) -> None:
        super().__init__(pool, code, lasti)
        self._wish = wish

    def __enter__(self) -> C:
        terms = self._pool._arrive(self._wish, self._code, self._lasti)
        conn = super().__enter__()
        self._pool._bind(self._slot, conn, terms)
        return conn

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._slot.uses == self._uses:  # or this lease is over already
            self._pool._unbind(self._slot, self._conn)
        super().__exit__(kind, error, traceback)


class Pool(BasePool[C]):
    """A pool of connections for threads, with the names and defaults of psycopg's own pool.

    Sizes are in connections, times in seconds.

    :param conninfo: connection string or URL, or a function that returns one (asked at each connect).
    :param driver: the database driver; ``"psycopg"`` is psycopg 3.
    :param connection_class: class to connect with; by default the driver's own.
    :param kwargs: arguments for its ``connect``, or a function that returns them (asked at each connect).
    :param min_size: connections kept open.
    :param max_size: connections never exceeded, opening and closing ones included. By default `min_size`. With a fleet
        also ``"auto"``: the whole fleet's size is found by the work that gets done, within the budget.
    :param open: whether the constructor opens the pool; None opens it and warns at first use, as psycopg's does.
    :param configure: called with each new connection, and again after what it set had to be reset.
    :param check: called with each connection that is about to be handed out; if it raises, another one is taken. Not
        needed to find dead connections: the kernel is asked each time, without a round trip.
    :param reset: called with each connection that comes back, after the pool's own reset.
    :param name: for logs and errors; ``pool-1`` and so on by default.
    :param close_returns: whether ``conn.close()`` gives the connection back (psycopg 3.3 or newer).
    :param timeout: how long a request waits for a connection.
    :param max_waiting: requests that may wait at once; 0 for any number.
    :param max_lifetime: after which a connection is replaced; each lives up to a tenth less, by chance.
    :param max_idle: after which an unused connection above `min_size` is closed. 0: by who gives it back, unless
        somebody waits for it, so that the pool bounds connections and keeps none.
    :param reconnect_timeout: of failed attempts to connect, after which the pool tries no more until somebody asks.
    :param reconnect_failed: called with the pool when it has given up so.
    :param num_workers: accepted and means nothing here: connects have threads of their own.
    :param connect_timeout: for one attempt to connect: names resolved, connected, encrypted, logged in.
    :param statement_timeout: after which the server ends a statement. Sent with the login, no round trip.
    :param idle_in_transaction_timeout: after which the server ends a session idle in a transaction. Sent likewise.
    :param leak_after: idle in hand for this long, a holder is reported, once; None for never.
    :param leak_reclaim: whether the pool takes such a connection away from its holder.
    :param nested: what to do about a thread that asks for a second connection while it holds one: ``"allow"`` it,
        ``"warn"`` in the log, or ``"raise"`` `NestedCheckout`.
    :param overload: that requests which would wait in vain are refused at once (`Overloaded`), whether they declare a
        deadline or not. Without it only those that do are.
    :param reserve: connections kept for `Priority.HIGH`: health checks, operators.
    :param max_per_key: connections that requests of one ``key=`` may hold at once; None for any number.
    :param multiplex: how statements share connections in an `AsyncPool`; accepted here, and means nothing.
    :param fleet: the processes that this one shares a budget with (`penstock.Fleet`). Its share is the pool's size
        then, within `max_size`; `min_size` connections are kept open where the share allows it.
    :raises ValueError: (or TypeError) naming the argument, what was found and what it may be.
    """

    _is_async: ClassVar[bool] = False

    def _start_anew(self) -> None:
        # Guards the core and nothing else. Nothing that waits, logs or calls the user's code runs under it.
        self._lock = threading.Lock()
        self._opening = threading.RLock()  # whoever comes while another thread opens the pool finds it open
        self._errands: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._keeper: threading.Thread | None = None
        self._next_tick = math.inf
        self._watched: dict[object, tuple[float, Any]] = {}  # connections in a step, to be cut off at a time
        self._kit.guard = self._guard
        self._full = threading.Event()
        self._empty = threading.Event()

    # ------------------------------------------------------------------------------------------ opening and closing

    def __enter__(self) -> Self:
        self._forget_implicit_opening()
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_errands"):
            self._errands.put(None)

    def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        """Start connecting and accepting requests. No effect on an open pool.

        :param wait: whether to return only when `min_size` connections are open, as `wait` does.
        :raises PoolClosed: when the pool was closed before: it cannot be opened again.
        """
        self._open()
        if wait:
            self.wait(timeout)

    def _open(self) -> None:
        if self._keeper is not None and not self.closed:
            return
        with self._opening:
            self._open_once()

    def _open_once(self) -> None:
        # The keeper refers to the pool weakly, so dropping the pool ends it.
        keeper = threading.Thread(
            target=_keep, args=(ref(self), self._errands), name=f"{self.name}-keeper", daemon=True
        )
        with self._lock:
            if self._core.closed:
                raise errors.under(errors.PoolClosed, self._driver.operational_error)(
                    f"the pool {self.name!r} has already been opened and closed and cannot be reused: make a new one"
                )
            if self._keeper is not None:
                return
            self._keeper = keeper
        try:
            keeper.start()
        except RuntimeError:  # no thread could be had: nothing has happened yet
            self._keeper = None
            raise
        registry.opened(self)
        self._event(self._core.open)
        if self._membership is not None:
            self._membership.begin()

    def wait(self, timeout: float = 30.0) -> None:
        """Wait until `min_size` connections are idle; of a pool with a `fleet`, as many of them as its share allows.

        :raises PoolTimeout: when they are not within *timeout* seconds; the pool is closed then.
        :raises PoolClosed: when the pool is not open, or is closed meanwhile.
        """
        self._check_open()
        with self._lock:
            full = self._core.fill()
            if not full:
                self._full.clear()  # under the lock, or one could clear what was set for another
        filled = full or self._full.wait(timeout) or len(self._core.idle) >= self.min_size
        self._check_open()  # it may have been closed meanwhile
        if filled:
            return
        error = self._not_filled(timeout)
        self.close()
        raise error from self._core.pace.error

    def close(self, timeout: float = 5.0) -> None:
        """Close the pool. Requests that wait are refused now; work under way may end within *timeout* seconds.

        What is still out then is named in the log and closed when it comes back. A caller that holds a connection
        itself is not kept waiting for it.
        """
        with self._lock:
            if self._reopen:  # in a forked child that has not used the pool: there is nothing to close
                self._reopen = False
                self._core.closed = True
            if self._core.closed or not self._core.opened:
                return
            self._core.close(monotonic())
            effects = self._core.effects()
            if self._membership is not None:
                self._membership.end()
            self._full.set()  # who waits for that waits no more
            mine = any(slot.owner == get_ident() for slot in self._core.leases())
        for effect in effects:  # side by side, as each may take a while
            if not isinstance(effect, Close) or not self._spawn(self._part, effect):
                self._carry_out([effect])
        if not mine:
            self._empty.wait(timeout)
        if self._membership is not None:
            steps.run(self._membership.leave())
        self._log_still_out()
        if self._empty.is_set() and self._keeper is not None and self._keeper is not threading.current_thread():
            self._keeper.join(timeout)

    def _is_over(self) -> bool:
        return self._core.closed and not self._core.slots

    def _check_open(self) -> None:
        if self._reopen:
            self._revive()
        if self.closed:
            now = monotonic()
            waiter = Waiter(None, None, -1, now, now)
            waiter.refusal = Refusal.CLOSED if self._core.closed else Refusal.NOT_OPEN
            self._refuse(waiter, 0)

    # ------------------------------------------------------------------------------------------ borrowing

    def connection(
        self,
        timeout: float | None = None,
        priority: Priority | None = None,
        deadline: float | None = None,
        key: Hashable = None,
    ) -> Checkout[C]:
        """A connection for a `with` block.

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
        """
        frame = _getframe(1)
        if timeout is None and priority is None and deadline is None and key is None and declared() is None:
            return Checkout(self, frame.f_code, frame.f_lasti)
        return BoundCheckout(self, self._wish(timeout, priority, deadline, key), frame.f_code, frame.f_lasti)

    @contextmanager
    def _transaction(self, checkout: Checkout[C]) -> Iterator[C]:
        with checkout as conn, self._driver.transaction(conn):  # type: ignore[union-attr]
            yield conn

    def transaction(
        self,
        timeout: float | None = None,
        priority: Priority | None = None,
        deadline: float | None = None,
        key: Hashable = None,
    ) -> AbstractContextManager[C]:
        """A connection inside a transaction, for a `with` block: committed at its end, rolled back if it raises.

        Unlike `connection`, also where the connection is in autocommit. Raises as `connection` does.
        """
        frame, wish = _getframe(1), self._wish(timeout, priority, deadline, key)
        return self._transaction(BoundCheckout(self, wish, frame.f_code, frame.f_lasti))

    def getconn(
        self,
        timeout: float | None = None,
        priority: Priority | None = None,
        deadline: float | None = None,
        key: Hashable = None,
    ) -> C:
        """A connection, which must be given back with `putconn`. Prefer `connection`. Raises as `connection` does.

        One that is dropped, or whose thread has ended, is taken back with a ResourceWarning.
        """
        frame, wish = _getframe(1), self._wish(timeout, priority, deadline, key)
        return self._getconn(wish, frame.f_code, frame.f_lasti)

    def _getconn(self, wish: Wish | None, code: CodeType, lasti: int) -> C:
        slot = None
        terms = self._arrive(wish, code, lasti)
        try:
            if self._plain:
                slot = self._core.take(get_ident(), code, lasti, monotonic())
            if slot is None or slot.probe(0):
                slot = self._acquire(slot, wish, code, lasti)
            slot.by_hand = registry.tell_of_end(self)
            conn = slot.conn
            conn._pool = self
            self._bind(slot, conn, terms)
            slot.conn = None  # last, as in `Checkout`
            return conn  # type: ignore[no-any-return]
        except BaseException:
            self._salvage(slot)
            raise

    def putconn(self, conn: C) -> None:
        """Give back a connection that `getconn` gave. An open transaction is rolled back.

        :raises ValueError: when it is not this pool's, or was given back already.
        """
        slot = self._slot_of(conn)
        slot.by_hand = None
        self._unbind(slot, conn)
        if self._plain and not slot.reported and self._state(conn) == slot.baseline:
            conn._pool = None  # type: ignore[attr-defined]
            slot.conn = conn
            if not self._core.give(slot, monotonic()):
                self._emit_returned(slot, monotonic() - slot.since)
                self._requite(slot)
            return
        self._give_back(slot, conn)

    def _borrow(self, timeout: float) -> C:
        """A connection for the pool's own purposes: before all who wait, and none of anybody's requests."""
        since = monotonic()
        waiter = Waiter(None, None, -1, since, since + timeout, priority=Priority.HIGH)
        while True:
            slot = self._wait_for(waiter, timeout, again=True)
            if not slot.probe(0) or self._driver.look(slot.conn) is not False:
                conn, slot.conn = slot.conn, None
                return conn  # type: ignore[no-any-return]
            self._event(self._core.reject, slot, Reason.DEAD)
            waiter.slot = None

    def _hand_back(self, conn: C) -> None:
        """After `_borrow`. Where nothing was left behind, there is nothing to reset."""
        slot = self._slot_of(conn)
        if self._state(conn) != slot.baseline:
            self._give_back(slot, conn)
            return
        slot.conn = conn
        self._requite(slot)

    def _acquire(self, slot: Slot | None, wish: Wish | None, code: CodeType, lasti: int) -> Slot:
        """A connection that is fit for use, still in its slot. *slot*: one taken already, to be looked at closer."""
        owner, since = get_ident(), monotonic()
        if not self._plain:
            self._look_before(owner, code, lasti)
        waiter = self._waiter(owner, wish, code, lasti, since)
        timeout = waiter.deadline - since
        again = False
        try:
            while True:
                if slot is None:
                    slot = self._wait_for(waiter, timeout, again)
                if (self._kit.check is None and not slot.probe(0)) or self._fit(slot, waiter.deadline):
                    if self._listeners:
                        self._emit_acquired(slot, monotonic() - since, waiter.waited > 0)
                    return slot
                slot, waiter.slot, again = None, None, True
        except BaseException:
            self._salvage(slot)
            raise

    def _salvage(self, slot: Slot | None) -> None:
        """A signal's exception may strike anywhere: a lease whose connection is in its slot is over."""
        if slot is not None and slot.state is State.LEASED and slot.conn is not None and slot.owner == get_ident():
            self._unbind(slot, slot.conn)
            self._event(self._core.unused, slot)

    def _look_before(self, owner: int, code: CodeType, lasti: int) -> None:
        if self._opened_implicitly:
            self._warn_opened_implicitly(call_site(code, lasti))
        if self._nested != "allow":
            self._check_nested(owner, code, lasti)

    def _wait_for(self, waiter: Waiter, timeout: float, again: bool) -> Slot:
        if self._reopen:
            self._revive()
        waiter.wake = wake = threading.Lock()
        wake.acquire()
        core = self._core
        now = monotonic() if again else waiter.since
        try:
            with self._lock:
                core.acquire(waiter, now, again)
                effects = core.effects()
            if effects:
                self._carry_out(effects)
                now = monotonic()
            if not waiter.settled and self._make_room():
                now = monotonic()
            left = waiter.deadline - now
            if left > 0:
                wake.acquire(timeout=left if left < TIMEOUT_MAX else -1)
            if waiter.slot is None and waiter.refusal is None:
                self._event(core.expire, waiter)
        except BaseException:  # KeyboardInterrupt above all: what it may have been served goes to the next
            self._event(core.cancel, waiter)
            raise
        if waiter.slot is None:
            self._refuse(waiter, timeout)
        return waiter.slot

    def _make_room(self) -> bool:
        """Somebody is queued, and about to wait: have a connection come back, if that can be. Whether it took time."""
        return False

    def _fit(self, slot: Slot, deadline: float) -> bool:
        """Whether the connection can be handed out; if not, it is gone already."""
        alive = not slot.probe(0) or self._driver.look(slot.conn)
        if alive is False:
            self._event(self._core.reject, slot, Reason.DEAD)
            return False
        if self._kit.check is None and alive is True:
            return True
        if monotonic() >= deadline:  # no time to check it, which is not the connection's fault
            self._event(self._core.unused, slot)
            return False
        try:
            with self._cut_off(slot.conn, deadline):
                steps.run(steps.check(self._kit, slot.conn))
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
        if monotonic() >= deadline:  # too late, and cut off meanwhile
            self._event(self._core.reject, slot, Reason.CHECK_FAILED)
            return False
        slot.proven = True
        return True

    # ------------------------------------------------------------------------------------------ giving back

    def _finish(self, slot: Slot, conn: Any, commit: bool) -> None:
        try:
            status = self._driver.status(conn)
            if commit and status in (Status.INTRANS, Status.INERROR):
                steps.run(self._driver.settle(conn, commit=True))
        finally:
            self._give_back(slot, conn, expected=not commit)
        if status is Status.ACTIVE and commit:
            raise self._never_settled()

    def _give_back(self, slot: Slot, conn: Any, expected: bool = False) -> None:
        """*expected*: that a transaction is open is no surprise, as the block that it belongs to has raised."""
        if slot.state is not State.LEASED:
            return  # it was taken back before
        reason = None
        if self._kit.reset is not None or self._state(conn) != slot.baseline:
            unwanted = self._goes_as_it_is(slot, conn)
            reason = Reason.UNUSED if unwanted else self._clean(conn, slot.baseline, expected)
        conn._pool = None
        slot.conn = conn
        if slot.reported:
            self._came_back(slot, monotonic())
        self._emit_returned(slot, monotonic() - slot.since)
        if reason is None:
            self._requite(slot)
        else:
            self._event(self._core.discard, slot, reason, error=self._driver.loss(conn))

    def _clean(self, conn: Any, baseline: Any, expected: bool) -> Reason | None:
        try:
            with self._cut_off(conn, monotonic() + CLEAN_SECONDS):
                return steps.run(steps.clean(self._kit, conn, baseline, expected))
        except BaseException as error:  # SystemExit and its like, from a hook: the slot must not be lost
            logger.warning("%s: a returned connection was not reset: %s", self.name, type(error).__name__)
            return Reason.UNCLEAN

    def _requite(self, slot: Slot) -> None:
        core = self._core
        with self._lock:
            core.requite(slot, monotonic())
            effects = core.effects()
        self._carry_out(effects)

    def _guard(self, conn: Any) -> AbstractContextManager[None]:
        """For `configure`, as long as an attempt to connect may take."""
        return self._cut_off(conn, monotonic() + self._kit.connect_timeout)

    @contextmanager
    def _cut_off(self, conn: Any, deadline: float) -> Iterator[None]:
        """Should the block last past *deadline*, its connection's traffic is ended, and the block with an error."""
        mark = object()  # not the thread: a hook may use the pool itself
        self._watched[mark] = (deadline, conn)
        if deadline < self._next_tick:
            self._tell(_nothing)
        try:
            yield
        finally:
            del self._watched[mark]

    # ------------------------------------------------------------------------------------------ carrying out

    def _event(self, event: Callable[..., object], *args: Any, **options: Any) -> None:
        with self._lock:
            event(*args, now=monotonic(), **options)
            effects = self._core.effects()
        if effects:
            self._carry_out(effects)

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Waiter(wake=wake):
                    wake.release()
                case Open():
                    if not self._spawn(self._connect, effect.slot):
                        self._event(
                            self._core.failed, effect.slot, RuntimeError("no thread could be started to connect")
                        )
                case Close():
                    self._close_slot(effect)
                case Wake():
                    if effect.at < self._next_tick:
                        self._tell(_nothing)
                case Doubt():
                    self._doubt()
                case Full():
                    self._full.set()
                case Empty():
                    self._empty.set()
                    self._errands.put(None)  # not before: until then the keeper may have to cut off a rollback
                case GaveUp():
                    self._log_gave_up()
                    if self.reconnect_failed is not None:
                        self._spawn(self._call_reconnect_failed)

    def _call_reconnect_failed(self) -> None:
        try:
            if self.reconnect_failed is not None:
                self.reconnect_failed(self)
        except Exception:
            logger.exception("%s: reconnect_failed raised", self.name)

    def _spawn(self, job: Callable[..., object], *args: Any) -> bool:
        """Run *job* in a thread of its own. False: no thread could be had."""
        name = f"{self.name}-{job.__name__.strip('_')}"
        thread = threading.Thread(target=registry.run, args=(job, *args), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # too many already, or the interpreter is on its way out
            return False
        return True

    def _connect(self, slot: Slot) -> None:
        started = monotonic()
        try:
            conn, baseline = steps.run(steps.open_connection(self._kit, self))
            self._settle_in(slot, conn, baseline)
        except NotNow as later:
            self._event(self._core.put_off, slot, later.seconds)
        except BaseException as error:  # whatever it is, the slot must not be lost
            try:
                self._log_failed(error, monotonic() - started)
            finally:
                self._event(self._core.failed, slot, error, hung=self._driver.is_timeout(error))
        else:
            self._event(self._core.opened_slot, slot)
            self._log_opened(slot, monotonic() - started)

    def _doubt(self, within: float = CLEAN_SECONDS) -> None:
        """Ask the kernel about every idle connection; whatever it does not know as dead has to answer for itself."""
        with self._lock:
            suspects = self._core.doubt()
        for slot in suspects:
            if slot.probe(0) and self._driver.look(slot.conn) is False:
                self._event(self._core.reject, slot, Reason.DEAD)
            elif not self._spawn(self._verify, slot, within):
                self._verify(slot, within)

    def _verify(self, slot: Slot, within: float = CLEAN_SECONDS) -> bool:
        try:
            with self._cut_off(slot.conn, monotonic() + within):
                steps.run(self._driver.check(slot.conn))
        except BaseException as error:
            self._event(self._core.reject, slot, Reason.DEAD)
            if not isinstance(error, Exception):
                raise
            return False
        self._requite(slot)
        return True

    def _close_slot(self, effect: Close) -> None:
        # A connection that the server has ended is gone at once; any other keeps its slot until the server lets go.
        # Of a pool that is closed, or keeps none idle, who gives a connection back closes it, and finds it closed.
        mine = self._core.keeps_none and threading.current_thread() is not self._keeper
        if effect.reason in NO_LINGER or mine or not self._spawn(self._part, effect):
            self._part(effect)

    def _part(self, effect: Close) -> None:
        slot = effect.slot
        conn = slot.conn
        self._move_out(slot)
        if conn is not None:
            with self._cut_off(conn, monotonic() + LINGER):
                end = steps.run(steps.close(self._kit, conn, effect.reason))
            if end is not None:
                sockets.wait_for_end(end, 0 if effect.reason in NO_LINGER else LINGER)
        self._event(self._core.closed_slot, slot)
        self._log_closed(effect, repr(conn))

    # ------------------------------------------------------------------------------------------ the pool as a whole

    def resize(self, min_size: int, max_size: int | None = None) -> None:
        """Change the sizes. Idle connections above the new maximum are closed now, leased ones when they come back.

        Of a pool with a `fleet` these are the sizes that it would have: it has its share of the fleet within them.

        :raises ValueError: when no pool can have these sizes; nothing has changed then.
        """
        self._change_sizes(min_size, min_size if max_size is None else max_size)

    def drain(self) -> None:
        """Replace every connection: idle ones now, leased ones when they come back."""
        self._event(self._core.drain)

    def pause(self) -> None:
        """Hand out no connection until `resume`. Requests wait, each until its own timeout."""
        with self._lock:
            self._core.pause()

    def resume(self) -> None:
        """Hand out connections again, to those who wait first."""
        self._event(self._core.resume)

    def check(self) -> None:
        """Make sure of every idle connection with a round trip; replace those that do not answer."""
        with self._lock:
            suspects = self._core.doubt()
        try:
            while suspects:
                if not self._verify(suspects.pop()):
                    logger.warning("%s: an idle connection failed its check and is replaced", self.name)
        finally:
            for slot in suspects:
                self._requite(slot)
        self._event(self._core.refill)

    @staticmethod
    def check_connection(conn: Any) -> None:
        """A `check` for those who want a round trip before each use all the same.

        :raises Exception: the driver's own, when the connection does not answer.
        """
        steps.run(check_connection(conn))

    # ------------------------------------------------------------------------------------------ looking after it

    def _tell(self, call: Callable[[], object]) -> None:
        self._errands.put(call)  # SimpleQueue: may be called from a finalizer, in the midst of anything

    def _tick(self) -> None:
        now = monotonic()
        self._next_tick = math.inf  # before the core is asked: whoever wants a tick from now on says so
        with self._lock:
            due = self._core.tick(now)
            effects = self._core.effects()
        wakes = [effect.at for effect in effects if isinstance(effect, Wake)]
        self._carry_out([effect for effect in effects if not isinstance(effect, Wake)])  # or it would wake itself
        self._next_tick = min(due, now + LONGEST_SLEEP, self._watch_holders(now), self._abort_overdue(now), *wakes)

    def _abort_overdue(self, now: float) -> float:
        due = math.inf
        for deadline, conn in list(self._watched.values()):
            if deadline <= now:
                self._driver.abort(conn)
            else:
                due = min(due, deadline)
        return due

    def _take_back(self, slot: Slot, reason: Reason) -> None:
        conn = slot.ref() if slot.ref is not None else None
        with self._lock:
            if (
                slot.state is not State.LEASED
                or slot.conn is not None
                or (reason is Reason.DROPPED and conn is not None)
            ):
                return
            site = call_site(slot.code, slot.lasti)
            slot.conn = conn
            self._core.discard(slot, reason, monotonic())
            effects = self._core.effects()
        self._warn_taken_back(site, reason)
        self._carry_out(effects)

    def _holder_ended(self, owner: Any) -> None:
        self._tell(lambda: self._take_back_from(owner))

    def _take_back_from(self, token: object) -> None:
        for slot in self._core.leases():
            if slot.by_hand is token and not self._used_elsewhere(slot):
                self._take_back(slot, Reason.ABANDONED)

    def _used_elsewhere(self, slot: Slot) -> bool:
        """Whether another thread has used the connection since: it was handed on, and is that thread's now."""
        conn = slot.ref() if slot.ref is not None else None
        if conn is None:
            return False
        activity = self._driver.activity(conn)
        handed_on = activity.started >= slot.since and activity.thread != slot.owner
        return handed_on and any(alive.ident == activity.thread for alive in threading.enumerate())

    def _is_handed_on(self, slot: Slot) -> bool:
        by_hand: registry.Token | None = slot.by_hand
        return by_hand is not None and (by_hand.ended or super()._is_handed_on(slot) or self._used_elsewhere(slot))

    def _owner_name(self, owner: Any) -> str:
        return thread_name(owner)

    def _owner_stack(self, owner: Any) -> tuple[CallSite, ...]:
        return thread_stack(owner)

    def _open_at_once(self) -> None:
        self._open()

    def _revive(self) -> None:
        """In a forked child, the first use of a pool that was open in the parent opens it anew."""
        self._open()
        self._reopen = False  # last: another thread must not find the pool neither open nor about to be

    def _at_exit(self) -> None:
        with self._lock:
            self._core.close(monotonic())  # who asks for a connection after this, in a finalizer, is refused at once
            effects = self._core.effects()
        for effect in effects:
            if isinstance(effect, Close) and effect.slot.conn is not None:
                steps.run(steps.close(self._kit, effect.slot.conn))


def _nothing() -> None:
    pass


def _keep(pool: ref[Pool[Any]], errands: SimpleQueue[Callable[[], object] | None]) -> None:
    """The keeper's loop. It refers to the pool only while it works, so that a dropped pool is collected."""
    errand: Callable[[], object] | None = _nothing
    while errand is not None:
        keeper = pool()
        if keeper is None:
            return
        longest = LONGEST_SLEEP
        try:
            errand()
            keeper._tick()
        except Exception:
            logger.exception("%s: bug: the keeper stumbled", keeper.name)
            longest = 1.0
        sleep = min(max(0.0, keeper._next_tick - monotonic()), longest)
        del keeper, errand
        try:
            errand = errands.get(timeout=sleep)
        except QueueEmpty:
            errand = _nothing
