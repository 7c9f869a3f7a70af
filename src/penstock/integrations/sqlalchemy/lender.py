"""Our pool for threads, and our pool for asyncio, where what they lend is a place for one of SQLAlchemy's connections.

A place is open at once, as SQLAlchemy connects in it when it is first used; and who takes it out of the pool has closed
its connection before. So nothing here waits for the server, and what is the pool's, its limit, its queue, its order and
its account of who holds what, stays as it is.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections import deque
from collections.abc import Callable, Collection, Mapping
from random import random
from threading import get_ident
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any, cast
from weakref import ref

from sqlalchemy import exc
from sqlalchemy.util import await_only, greenlet_spawn

from ... import errors
from ...core import Close, Effect, Open, Reason, Slot, State, Waiter
from ...core.pace import Pace
from ...drivers import sockets
from ...drivers.base import Activity, Driver, Status
from ...pool import aio, events, steps, sync
from ...pool.base import LINGER, BasePool, noted, one_line
from ...pool.terms import declared
from ..caller import caller
from .record import Record

if TYPE_CHECKING:
    from .pool import PenstockPool

UNSEEN = 0.05  # seconds: less would round to less than nothing
_EVENT_LOOPS = ("asyncio.", "uvloop", "anyio.", "trio.")


class NoConnection(exc.TimeoutError):
    """What SQLAlchemy's users catch when they get no connection; its code leads to SQLAlchemy's page about that."""

    code = "3o7r"


class LongestIdleFirst(deque[Slot]):
    """Idle places, as the core keeps them, of which the one that has rested longest is taken first."""

    append = deque.appendleft


class AtOnce(Pace):
    """To open a place costs nothing, so none waits its turn."""

    def next_at(self, now: float, under_way: int) -> float:
        return now


class Records:
    """A driver whose connections are SQLAlchemy's records: as much of one as a pool needs that never connects."""

    operational_error: type[Exception] = NoConnection

    def __init__(self, is_async: bool) -> None:
        self._is_async = is_async

    def check_conninfo(self, conninfo: str) -> None:
        pass

    def limits(self, statement: float | None, idle_in_transaction: float | None) -> Mapping[str, str]:
        return {}

    def state(self, record: Record) -> object:
        return None

    def probe(self, record: Record) -> Callable[[int], object]:
        return bool  # of 0: the record looks for itself, because its connection changes

    def status(self, record: Record) -> Status:
        return record.status()

    def activity(self, record: Record) -> Activity:
        activity = record.activity()
        if activity is None:  # its statements are not seen: as if one had just ended, so that no leak is suspected
            activity = Activity()
            activity.ended -= UNSEEN
        return activity

    async def close(self, record: Record) -> int | None:
        if record.dbapi_connection is not None:
            if self._is_async:
                await greenlet_spawn(record.close)
            else:
                record.close()
        return None

    def abort(self, record: Record) -> None:
        if record.driver is not None:
            record.driver.abort(record.real)

    def abandon(self, record: Record) -> int | None:
        return None if record.driver is None else record.driver.abandon(record.real)

    def silence(self, record: Record) -> None:
        if record.driver is not None:
            record.driver.silence(record.real)


class Lender(BasePool[Any]):
    """What both have in common."""

    def __init__(self, owner: PenstockPool, **options: Any) -> None:
        self._owner = ref(owner)
        self._kept = owner._kept
        self._lifo = owner._lifo
        driver = cast("Driver", Records(self._is_async))
        super().__init__(driver=driver, open=False, min_size=0, max_lifetime=math.inf, **options)

    def _start_anew(self) -> None:
        super()._start_anew()
        self._core.pace = AtOnce(math.inf, random)
        if not self._lifo:
            self._core.idle = LongestIdleFirst()  # type: ignore[assignment]

    def _after_fork(self) -> None:
        foreign = list(self._core.slots.values())
        super()._after_fork()
        for slot in foreign:  # the parent's: a child that closes what it inherited gives no place of its own back
            slot.state = State.GONE

    def heed(self, former: Lender) -> None:
        """Whoever listens to the *former* one listens to this one too."""
        self._set_listeners(former._listeners)

    def settle(self, record: Record) -> None:
        """The record comes back, clean as SQLAlchemy understands it."""
        record.slot.dropped = False
        record.settled()
        if record.opened or record.slot.state is not State.LEASED:
            self.rest(record)
        else:
            self._remove(record, Reason.NEVER_OPEN)

    def rest(self, record: Record) -> None:
        """The record comes back, and nothing need be done about its connection."""
        slot, core = record.slot, self._core
        slot.baseline = None
        if len(core.idle) >= self._kept and not core.waiters.size and slot.state is State.LEASED:
            self._remove(record, Reason.OVERFLOW)
            return
        now = record.rested = monotonic()
        slot.conn = record  # first: whoever is handed the slot finds the record in it
        if not self._plain or slot.reported or not core.give(slot, now):
            self._rest(record, slot, now)

    def _rest(self, record: Record, slot: Slot, now: float) -> None:
        if slot.state is not State.LEASED:
            record.close()  # its place was taken from its holder, or is the parent process's
            return
        if slot.reported:
            self._came_back(slot, now)
        self._emit_returned(slot, now - slot.since)
        if now >= slot.expires:
            self._remove(record, slot.retire)
        else:
            self._event(self._core.requite, slot)

    def dispose(self) -> None:
        """Close what is idle now, what is lent when it comes back."""
        claimed = self._claim_idle()
        try:
            while claimed:
                self._remove(claimed[-1].conn, Reason.DRAINED)
                claimed.pop()
        except BaseException:  # cancelled, or Ctrl-C: what is not closed yet goes on
            for slot in claimed:
                self._event(self._core.unused, slot)
            raise
        self._event(self._core.drain)

    def connected(self, seconds: float) -> None:
        """SQLAlchemy has connected."""
        self._core.note_connect(seconds)
        self._emit(events.Opened(self.name, seconds))

    def connect_failed(self, error: BaseException, seconds: float) -> None:
        if isinstance(error, asyncio.CancelledError):
            return  # the end of its event loop, or of the engine: it says nothing of the server
        self._core.connects += 1
        self._core.connect_errors += 1
        self._core.connect_seconds += seconds
        self._log_failure(one_line(error), seconds)
        self._emit(events.ConnectFailed(self.name, error, seconds))
        if isinstance(error, Exception):  # the user gets the driver's error, and a web request is turned away as by us
            noted(errors.DatabaseUnavailable(f"{self.name}: connecting failed: {one_line(error)}"))

    def goes_on_without(self, record: Record) -> bool:
        """Whether its holder has gone while it was prepared, and it comes back by itself."""
        return False

    def lost(self) -> None:
        """A connection was found dead before it was lent."""
        self._core.lost += 1

    def take_up(self, dropped: Callable[[], None]) -> None:
        """Bring back what was *dropped*: at once, or by whoever looks after the pool if that is not safe here."""
        raise NotImplementedError

    def _claim_idle(self) -> list[Slot]:
        raise NotImplementedError

    def _remove(self, record: Record, reason: Reason) -> None:
        """Close the connection here and now, and give up its place."""
        try:
            record.close()
        finally:
            record.slot.conn = record
            self._event(self._core.discard, record.slot, reason)

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Open():
                    self._open_place(effect.slot)
                case Close(slot=Slot(conn=Record(dbapi_connection=None))):
                    self._close_place(effect)
                case _:
                    super()._carry_out([effect])  # type: ignore[misc]

    def _open_place(self, slot: Slot) -> None:
        owner = self._owner()
        assert owner is not None, "bug: a pool of SQLAlchemy's that is gone wants connections"
        record = Record(owner, self, slot)
        self._settle_in(slot, record, None)
        self._event(self._core.opened_slot, slot, connected=False)

    def _close_place(self, effect: Close) -> None:
        shown = repr(effect.slot.conn)
        self._move_out(effect.slot)
        self._event(self._core.closed_slot, effect.slot)
        self._log_closed(effect, shown)


class ThreadLender(Lender, sync.Pool[Any]):
    """For engines."""

    def lend(self) -> Record:
        code, lasti = caller(sys._getframe(2))
        slot = None
        try:
            if (terms := declared()) is not None:
                self._arrive(None, code, lasti)
            if self._plain:
                slot = self._core.take(get_ident(), code, lasti, monotonic())
            if slot is None:
                slot = self._acquire(None, None, code, lasti)
            if terms is not None:
                self._note_lent(slot, terms)
            record: Record = slot.conn
            slot.conn = None  # last: until then `_salvage` finds it where it was
            return record
        except BaseException:
            self._salvage(slot)
            raise

    def _wait_for(self, waiter: Waiter, timeout: float, again: bool) -> Slot:
        if not self._core.opened:
            self._open()
        return super()._wait_for(waiter, timeout, again)

    def take_up(self, dropped: Callable[[], None]) -> None:
        if self._lock.acquire(blocking=False):  # or it may be this thread that has it, and would wait for itself
            self._lock.release()
            dropped()
        else:
            self._tell(dropped)

    def _claim_idle(self) -> list[Slot]:
        with self._lock:
            return self._core.doubt()

    def _handed_on(self, slots: Collection[Slot]) -> bool:
        """Where there is an event loop, requests wander from thread to thread: whoever waits may not be who holds."""
        return any(map(self._used_elsewhere, slots)) or any(map(_runs_event_loop, sys._current_frames().values()))


class TaskLender(Lender, aio.AsyncPool[Any]):
    """For asyncio engines. Called within SQLAlchemy's greenlets."""

    def _start_anew(self) -> None:
        super()._start_anew()
        self._left: set[asyncio.Task[Any]] = set()  # what is prepared for nobody any more

    def lend(self) -> Record:
        code, lasti = caller(sys._getframe(2))
        slot = None
        assert self._loop is not None
        if (terms := declared()) is not None:
            self._arrive(None, code, lasti)
        if self._plain:
            slot = self._core.take(aio._owner(self._loop), code, lasti, monotonic())
        if slot is None:
            slot = await_only(self._acquire(None, None, code, lasti))
        if terms is not None:
            self._note_lent(slot, terms)
        slot.by_hand = slot.owner  # it may be handed on to another task
        record: Record = slot.conn
        slot.conn = None
        return record

    def take_up(self, dropped: Callable[[], None]) -> None:
        if self._loop is None or self._loop.is_closed():  # then nothing is under way that this could come amidst
            dropped()
        else:
            self._tell(dropped)

    def prepare(self, record: Record) -> Any:
        """In a task of its own: whoever is cancelled meanwhile leaves no connection half made on the server."""
        record.under_way = task = self._spawn(greenlet_spawn(self._prepare, record))
        try:
            conn = await_only(asyncio.shield(task))
        except asyncio.CancelledError:
            raise  # SQLAlchemy has the record brought back: see `goes_on_without`
        except BaseException:
            record.under_way = None
            raise
        record.under_way = None
        return conn

    def _prepare(self, record: Record) -> Any:
        try:
            conn = record.prepare()
        except BaseException as error:
            if record.under_way is not None:
                raise
            record._checkin_failed(error, _fairy_was_created=False)
            if not isinstance(error, Exception):
                raise
            return None  # nobody is left to hear of it
        if record.under_way is None:
            record.checkin(_fairy_was_created=False)
        return conn

    def goes_on_without(self, record: Record) -> bool:
        task, record.under_way = record.under_way, None
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            return False
        if task.done():  # in the same instant
            record.checkin(_fairy_was_created=False)
        else:
            record.slot.owner = record.slot.by_hand = record.fairy_ref = None
            self._left.add(task)
            task.add_done_callback(self._left.discard)
        return True

    async def settle_down(self) -> None:
        """At the end: wait a moment for what is prepared for nobody. It is closed when it comes."""
        if self._left:
            _, late = await asyncio.wait(self._left, timeout=LINGER)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def begin(self) -> None:
        self._open()

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        return self._loop

    def let_go(self) -> None:
        """The loop is closed: part with what is idle, as far as that can be done without one."""
        for slot in self._claim_idle():
            driver, conn = slot.conn.driver, slot.conn.real
            if driver is None:
                continue
            try:
                end = steps.run(driver.close(conn))
            except Exception:  # it waits for the server, which nothing can any more
                driver.abort(conn)
            else:
                if end is not None:
                    sockets.close(end)

    def _claim_idle(self) -> list[Slot]:
        return self._core.doubt()


def _runs_event_loop(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(_EVENT_LOOPS):
            return True
        frame = frame.f_back
    return False
