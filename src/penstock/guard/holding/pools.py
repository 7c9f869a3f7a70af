"""One line per database and process, and the pools below it: one for each way to connect that the program has.

Most programs have one way, and so one pool. Where there are more (another password, other options), their pools share
the line: a connection is opened only when all of them together are below it, and what one of them has idle gives way
to what another one needs.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import random
import sys
from collections.abc import Callable, Hashable, Mapping
from sys import _getframe
from threading import Lock, RLock, get_ident
from time import monotonic
from types import CodeType
from typing import TYPE_CHECKING, Any

from ...core import Priority, Reason, Slot, State
from ...drivers.base import Status
from ...pool.holders import _is_inner, report
from ...pool.sync import Pool
from ...pool.terms import Wish

if TYPE_CHECKING:
    from .handle import Handle

logger = logging.getLogger("penstock.guard")

_LATER = 0.01  # seconds
LOOK_AGAIN = 0.02  # seconds after which it is looked again for whom somebody waits for
_PATIENCE = 1.0  # after which it is looked among what the garbage collector would find
_COLLECTING = 0.02  # of the time, at most
_databases: dict[Hashable, Database] = {}
_opening = RLock()  # guards `_databases` and each one's `pools`; again, when the collector runs a destructor under it
_POOLS = 20  # of one database: more are ways to connect that were used once, as with a job's name in the arguments
_JUST_NOW = 0.1  # seconds in which a pool that was asked for may not have been asked for a connection yet


class HeldPool(Pool[Any]):
    """A pool whose connections are lent to handles, which may give them up while their owners keep them."""

    def __init__(self, database: Database, conninfo: str, **options: Any) -> None:
        self.database = database
        self.asked = monotonic()
        super().__init__(
            conninfo, min_size=0, max_size=database.max_size, name=database.name, leak_after=None, open=False, **options
        )

    def lend(self, handle: Handle, timeout: float | None, code: CodeType, lasti: int) -> Any:
        """As `_getconn`, but that the end of a thread is no end of what it has taken: `handle` knows more."""
        slot = None
        wish = None
        if timeout is not None:
            wish = Wish(timeout, -math.inf, math.inf, Priority.NORMAL, None)
        try:
            if self._plain:
                slot = self._core.take(get_ident(), code, lasti, monotonic())
            if slot is None or slot.probe(0):
                slot = self._acquire(slot, wish, code, lasti)
            slot.by_hand = handle
            conn = slot.conn
            conn._pool = self
            slot.conn = None  # last, as in `_getconn`
            return conn
        except BaseException:
            self._salvage(slot)
            raise

    def take_in(self, conn: Any) -> None:
        """As `putconn`; that a transaction is open is no surprise here: to close a connection rolls it back."""
        slot = self._slot_of(conn)
        slot.by_hand = None
        self._unbind(slot, conn)
        # One that has broken says nothing here of those that can be had: each user hears of his own, as ever.
        broken = self._driver.status(conn) is Status.BROKEN
        if broken or self.database.is_due_elsewhere(self):
            conn._pool = None
            slot.conn = conn
            self._event(self._core.discard, slot, Reason.BROKEN if broken else Reason.OVERFLOW)
        else:
            self._give_back(slot, conn, expected=True)

    @property
    def waited_for(self) -> bool:
        return bool(self._core.waiters)

    def give_way(self) -> bool:
        """Close an idle connection, so that another pool may open one."""
        slot = self._core.take(None, None, -1, monotonic())
        if slot is not None:
            self._event(self._core.discard, slot, Reason.OVERFLOW)
        return slot is not None

    def _make_room(self) -> bool:
        if monotonic() + LOOK_AGAIN < self._next_tick:
            self._tell(_nothing)  # so that it is looked again, for as long as somebody waits
        return self.database.make_room()

    def _tick(self) -> None:
        super()._tick()
        if self.waited_for:
            self._spawn(self.database.look_again)
            self._next_tick = min(self._next_tick, monotonic() + LOOK_AGAIN)

    def _is_handed_on(self, slot: Slot) -> bool:
        handle: Handle | None = slot.by_hand
        return handle is None or handle.may_come_back() or self._driver.status(handle.conn) is Status.ACTIVE

    def _connect(self, slot: Slot) -> None:
        if self.database.finds_room(self, slot):
            super()._connect(slot)
        else:
            self._event(self._core.put_off, slot, soon())


class Database:
    """What a process has to do with one database.

    :ivar pools: by the arguments of `connect`.
    :ivar handles: the program's connections that are not closed.
    :ivar sticky: whether the program asks its sessions what they did last, as ``LAST_INSERT_ID()`` does.
    """

    def __init__(self, name: str, max_size: int) -> None:
        self.name = name
        self.max_size = max_size
        self.pools: dict[Hashable, HeldPool] = {}
        self.handles: set[Handle] = set()
        self.sticky = False
        self._start_anew()

    def _start_anew(self) -> None:
        self._lock = Lock()  # guards `_admitted`
        self._admitted: set[Slot] = set()
        self._collects_from = -math.inf

    def admits(self, slot: Slot) -> bool:
        """Whether this slot's connection may be opened now: it counts from then on, until the server has let go."""
        with self._lock:
            self._admitted = {slot for slot in self._admitted if slot.state is not State.GONE}
            if len(self._admitted) >= self.max_size:
                return False
            self._admitted.add(slot)
            return True

    def finds_room(self, pool: Any, slot: Slot) -> bool:
        """As `admits`; where there is no room, another pool than *pool* is asked to make some, one connection's."""
        if self.admits(slot):
            return True
        if not any(each.state is State.CLOSING for each in tuple(self._admitted)):  # that makes room already
            for other in tuple(self.pools.values()):
                if other is not pool and other.give_way():
                    break
        return False

    @property
    def is_full(self) -> bool:
        return len(self._admitted) >= self.max_size

    @property
    def waited_for(self) -> bool:
        return any(pool.waited_for for pool in tuple(self.pools.values()))

    def make_room(self, hard: bool = False) -> bool:
        """Have that handle give up its connection which does not need it, and has not used it for the longest."""
        holding = [handle for handle in tuple(self.handles) if handle.conn is not None]
        holding.sort(key=lambda handle: handle.used)
        return any(handle.give_up(hard) for handle in holding)

    def exhausted(self, why: str) -> str:
        """What to say to somebody who has waited in vain: who holds, and what can be done."""
        holders = [holder for pool in tuple(self.pools.values()) for holder in pool.holders()]
        return (
            f"{self.name}: {why}: {len(holders)} are held in this process,"
            f" and `penstock run --hold --max {self.max_size}` allows no more\n{report(holders)}\n"
            "  Give them back sooner (close, commit), or raise --max; PENSTOCK=off leaves connections alone"
        )

    def look_again(self) -> None:
        """Somebody waits on. Found here is what comes back unnoticed: a result dropped half read, above all."""
        now = monotonic()
        since = min(map(_longest, tuple(self.pools.values())), default=math.inf)
        if self.waited_for:
            self.make_room(hard=now - since > _PATIENCE)
        if now - since > _PATIENCE:
            self.collect()

    def look_again_in_loop(self) -> None:
        """As `look_again`, in an event loop, where nothing may be done that takes a while."""
        self.make_room()
        if monotonic() - min(map(_longest, tuple(self.pools.values())), default=math.inf) > _PATIENCE:
            self.collect()

    def collect(self) -> bool:
        """Have connections come back that were dropped in a circle of references. False: that was done just now."""
        began = monotonic()
        if began < self._collects_from:
            return False
        gc.collect()
        self._collects_from = (ended := monotonic()) + (ended - began) / _COLLECTING
        return True

    def is_due_elsewhere(self, pool: HeldPool) -> bool:
        """Whether somebody has waited at another pool for longer than anybody at this one."""
        if len(self.pools) == 1 or not self.is_full:
            return False
        since = _longest(pool)
        return any(_longest(other) < since for other in self.pools.values() if other is not pool)

    def after_fork(self) -> None:
        self._start_anew()
        for handle in self.handles:
            handle.after_fork()


def soon() -> float:
    """Seconds after which an attempt is made again for which there was no room."""
    return _LATER * (1 + random.random())


def _longest(pool: HeldPool) -> float:
    """Since when the first one waits."""
    return min((waiter.since for waiter in list(pool._core.waiters)), default=math.inf)


def pool_for(
    driver: str,
    where: tuple[str, ...],
    key: Hashable,
    max_size: int,
    make: Callable[[], tuple[str, Mapping[str, Any]]],
    title: str,
) -> HeldPool:
    """The pool for connections to *where*, made with the arguments that *key* stands for.

    *make* says what a new one is made with: a conninfo, and `Pool`'s options.
    """
    new = False
    with _opening:
        database = _databases.get((driver, where))
        if database is None:
            database = Database(f"{driver} {title}", max_size)
        pool = database.pools.get(key)
        if pool is None or pool._core.closed:
            conninfo, options = make()
            pool = HeldPool(database, conninfo, **{"driver": driver, **options})
            database.pools = {**database.pools, key: pool}
            new = True
        pool.asked = monotonic()
        if (driver, where) not in _databases:
            _databases[driver, where] = database
            say(f"{driver} connections to {title} are held to {max_size} a process")
    pool.open()  # not under the lock: it starts a thread
    if new:
        for other in superfluous(list(database.pools.values())):
            forget(other)
    return pool


def superfluous(found: list[Any]) -> list[Any]:
    """Of more pools than there should be, those that have been asked for the longest ago."""
    if len(found) <= _POOLS:
        return []
    before = monotonic() - _JUST_NOW
    return [pool for pool in sorted(found, key=lambda pool: pool.asked)[:-_POOLS] if pool.asked < before]


def forget(pool: HeldPool) -> None:
    """If it has no connection, and nobody has one of it: most likely it is not asked for again.

    As with a wrong password, or a job's own name among the arguments.
    """
    with _opening:
        database = pool.database
        if pool._core.slots or pool.waited_for or any(handle.pool is pool for handle in tuple(database.handles)):
            return
        database.pools = {key: other for key, other in database.pools.items() if other is not pool}
    pool.close(timeout=0)


def site() -> tuple[CodeType, int]:
    """The line of the program's own that is being run: not a driver's, a framework's or ours."""
    frame = innermost = _getframe(2)
    while _is_inner(frame.f_globals.get("__name__", "") + "."):
        if frame.f_back is None:
            return innermost.f_code, innermost.f_lasti
        frame = frame.f_back
    return frame.f_code, frame.f_lasti


def say(text: str) -> None:
    """To the log; and where a program has none, to whoever sits before it. Others may read what it writes."""
    logger.info("%s", text)
    if not logger.hasHandlers() and sys.stderr is not None and sys.stderr.isatty():
        print(f"penstock: {text}", file=sys.stderr)


def _nothing() -> None:
    pass


_said: set[str] = set()


def say_once(text: str) -> None:
    if text not in _said:
        _said.add(text)
        say(text)


def _after_fork() -> None:
    global _opening
    _opening = RLock()
    for database in _databases.values():
        database.after_fork()


os.register_at_fork(after_in_child=_after_fork)  # after the pools' own, of `pool.registry`
