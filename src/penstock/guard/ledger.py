"""What is known of connections that are not our pool's: who opened each, who holds it, how it ended.

A `Ledger` is for one database in one process. It tells of itself as a pool does (`observe.sources.Source`), so whatever
observes pools shows it. Nothing is set on a connection: it is known by a weak reference, and by nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
from collections import Counter, deque
from collections.abc import Callable
from enum import Enum
from functools import cached_property
from time import monotonic
from typing import Any
from weakref import ReferenceType, ref

from ..core import Reason, Refusal
from ..pool import events, holders
from ..pool.snapshot import Snapshot
from . import requests
from .timeline import Timeline
from .usage import Usage
from .where import Asked, own, sites

logger = logging.getLogger("penstock.guard")

MOST_SITES = 1000  # lines of code that are told apart; those met later are one
_OTHERS = Asked(((compile("", "<further lines>", "exec"), 0),))
_LONGEST = 1000  # characters of a statement that are kept
_LONGEST_ERROR = 200
_FULL = ("too many clients", "too many connections", "remaining connection slots", "connection limit")


class End(Enum):
    """How a connection left the program's hands."""

    CLOSED = "closed"
    DROPPED = "dropped without close()"
    THREAD = "dropped as its thread ended"
    LOST = "lost: the server or the network ended it"


_REASONS = {End.DROPPED: Reason.DROPPED, End.THREAD: Reason.ABANDONED, End.LOST: Reason.BROKEN}


class Site:
    """A line that opens connections, together with those that led to it.

    :ivar left: of those still open, how many were left behind: what they were opened for is over, they are idle, and
        the same line opened another instead of using them.
    :ivar reused: how many were used again after what they were opened for was over: they are kept on purpose.
    :ivar afterwards: the longest that a dropped one stayed open after its last statement, in seconds.
    """

    def __init__(self, asked: Asked, driver: str) -> None:
        self.asked = asked
        self.driver = driver
        self.opened = 0
        self.in_requests = 0
        self.requests = 0
        self.ended: Counter[End] = Counter()
        self.dropped_in_requests = 0
        self.errors: Counter[str] = Counter()
        self.connect_seconds = 0.0
        self.held = 0.0
        self.longest = 0.0
        self.ran = 0.0
        self.worked = 0.0
        self.most = 0
        self.left = 0
        self.reused = 0
        self.afterwards = 0.0
        self.open: set[Held] = set()

    @cached_property
    def shown(self) -> holders.CallSite:
        return sites(self.asked.lines[:1])[0]


class Held:
    """A connection in the program's hands. Its driver's file tells it of statements; a statement is its thread's alone.

    :ivar since: when it was opened, by the monotonic clock, as all times here.
    :ivar status: tells of the transaction, given the connection, as `Holder.status` has it.
    :ivar working: since when it has been at work: in a statement, or in a transaction; None while it is not.
    :ivar ran: seconds of its statements. *worked*: of those and the transactions round them.
    :ivar over: since when what it was opened for is over, and it was not used; NaN otherwise.
    """

    __slots__ = (
        "_key",
        "_status",
        "_task",
        "_thread",
        "ended",
        "ident",
        "ledger",
        "left",
        "lost",
        "over",
        "ran",
        "ref",
        "request",
        "running",
        "since",
        "site",
        "started",
        "statement",
        "task_name",
        "used",
        "worked",
        "working",
    )

    def __init__(self, ledger: Ledger, site: Site, conn: Any, status: Callable[[Any], str]) -> None:
        self.ledger = ledger
        self.site = site
        self._status = status
        self.since = self.started = self.ended = monotonic()
        self.statement: Any = None
        self.running = self.used = self.left = self.lost = False
        self.ran = self.worked = 0.0
        self.working: float | None = None
        self.over = math.nan
        self.ident = threading.get_ident()
        self._thread = _thread_of(self.ident)
        task = _current_task()
        self._task = None if task is None else ref(task)
        self.task_name = None if task is None else task.get_name()
        self.request = requests.current()
        self._key = id(conn)
        self.ref: ReferenceType[Any] = ref(conn, self._gone)

    # ------------------------------------------------------------------------------------------ statements

    def noted(self, statement: Any) -> None:
        """It is about to be sent."""
        is_long = isinstance(statement, (str, bytes)) and len(statement) > _LONGEST
        self.statement = statement[:_LONGEST] if is_long else statement

    def began(self, statement: Any) -> None:
        """A statement, or anything else that waits for the server."""
        now = self.started = monotonic()
        if statement is not None:
            self.noted(statement)
        self.running = self.used = True
        if self.working is None:
            self.working = now
        if self.over == self.over:
            self.ledger._came_back(self)

    def done(self, conn: Any) -> None:
        """It is over, however it went."""
        now = self.ended = monotonic()
        if self.running:
            self.ran += now - self.started
            self.running = False
        status = self._status(conn)
        if status == "IDLE":
            self._rest(now)
        elif status == "BAD":
            self.lost = True
            self._rest(now)

    def _rest(self, now: float) -> None:
        """It is not needed any more, until the next statement."""
        began = self.working
        if began is not None:
            self.working = None
            self.worked += now - began
            if self.ledger.usage.add(began, now):
                self.ledger._digest()

    def at_work_for(self, now: float) -> float:
        began = self.working
        return 0.0 if began is None else now - began

    # ------------------------------------------------------------------------------------------ its end

    def closed(self) -> None:
        """The program has closed it."""
        self.ledger.end(self, End.LOST if self.lost else End.CLOSED)

    def dropped(self) -> None:
        """Nobody refers to it any more."""
        self._gone(self.ref)

    def _gone(self, _: object) -> None:
        # The garbage collector calls this wherever it finds it, within our own lock for one: it takes none.
        if _live.get(self._key) is self:
            del _live[self._key]
            how = End.LOST if self.lost else End.DROPPED
            if how is End.DROPPED and threading.get_ident() not in threading._active:  # type: ignore[attr-defined]
                how = End.THREAD  # its locals go after everything else of it
            self.ledger._dropped.append((self, how, monotonic()))

    # ------------------------------------------------------------------------------------------ who and what

    def is_over(self, thread: threading.Thread | None, task: asyncio.Task[Any] | None) -> bool:
        """Whether what it was opened for is over, when *thread* and *task* open another at the same line."""
        if self.running:
            return False
        own = None if self._thread is None else self._thread()
        same_thread = own is thread or own is None or not own.is_alive()
        if self.request is not None:
            # Another thread may have one of its own to keep, opened in its first request.
            return self.over == self.over and same_thread
        if not self.used:  # a pool of the program's own, being filled
            return False
        if self._task is not None:
            own_task = self._task()
            return own_task is None or own_task is task or own_task.done()
        return same_thread

    def owner(self) -> str:
        return f"task {self.task_name}" if self.task_name is not None else holders.thread_name(self.ident)

    def holder(self, now: float) -> holders.Holder | None:
        """None: it has gone meanwhile."""
        conn = self.ref()
        if conn is None:
            return None
        try:
            status = self._status(conn)
        except Exception:
            status = "BAD"
        task = None if self._task is None else self._task()
        stack = holders.task_stack(task) if task is not None else holders.thread_stack(self.ident)
        return holders.Holder(
            site=self.site.shown,
            held=now - self.since,
            idle=None if self.running else now - self.ended,
            statement=holders.statement_text(self.statement),
            status="ACTIVE" if self.running and status == "IDLE" else status,
            owner=self.owner(),
            stack=own(stack),
        )


_live: dict[int, Held] = {}  # by the connections' identities
find = _live.get


class Ledger:
    """The connections of one process to one database.

    :param name: the database, without any secret: `orders at db:5432`.
    :param max_size: the line that a pool of theirs holds, if there is one; 0 for none.
    """

    def __init__(self, name: str, *, min_size: int = 0, max_size: int = 0) -> None:
        self.name = name
        self.min_size = min_size
        self.max_size = max_size
        self._listeners: list[tuple[Callable[[Any], object], tuple[type[events.Event], ...]]] = []
        self._start_anew()

    def _start_anew(self) -> None:
        # Guards the figures and the sites. Nothing of the program's is called under it; the garbage collector may run
        # under it, so what it finds is put aside in `_dropped`.
        self._lock = threading.RLock()  # or a signal handler that connects would wait for itself
        self._dropped: deque[tuple[Held, End, float]] = deque()
        self.sites: dict[tuple[Any, ...], Site] = {}
        # Requests that are running, by their numbers: at which lines each has opened connections, and those still open.
        self._requests: dict[int, tuple[set[Site], set[Held]]] = {}
        self.usage = Usage()
        self.timeline = Timeline()
        self.since = monotonic()
        self.opening = self.open = self.most = self.most_in_request = self.connects = self.connect_errors = 0
        self.connect_seconds = self.held = 0.0
        self.ended: Counter[End] = Counter()
        self.errors: Counter[str] = Counter()
        self.last_error: str | None = None

    # ------------------------------------------------------------------------------------------ what happens

    def connecting(self) -> None:
        with self._lock:
            self.opening += 1

    def gave_up(self) -> None:
        """Whoever was connecting has been cancelled."""
        with self._lock:
            self.opening -= 1

    def connect_failed(self, asked: Asked, driver: str, error: BaseException, seconds: float) -> None:
        kind = _kind(error)
        with self._lock:
            self.opening -= 1
            self.connects += 1
            self.connect_errors += 1
            self.connect_seconds += seconds
            self.errors[kind] += 1
            self.last_error = f"{type(error).__name__}: {kind}"
            self._site(asked, driver).errors[kind] += 1
        self._emit(events.ConnectFailed(self.name, error, seconds))

    def connected(self, asked: Asked, driver: str, conn: Any, status: Callable[[Any], str], seconds: float) -> Held:
        """From now on *conn* is in the program's hands, until `Held.closed`, or nobody refers to it any more."""
        self._sweep()
        with self._lock:
            self.opening -= 1
            self.connects += 1
            self.connect_seconds += seconds
            self.last_error = None
            site = self._site(asked, driver)
            site.connect_seconds += seconds
        self._emit(events.Opened(self.name, seconds))
        return self.take(site, conn, status)

    def take(self, site: Site, conn: Any, status: Callable[[Any], str]) -> Held:
        """*conn* comes into somebody's hands."""
        held = Held(self, site, conn, status)
        request = held.request
        before = _live.get(held._key)  # the driver has connected the same object anew
        if before is not None:
            before.ledger.end(before, End.LOST)
        with self._lock:
            left = self._left_behind(site, held)
            site.open.add(held)
            site.opened += 1
            site.most = max(site.most, len(site.open))
            if request is not None:
                site.in_requests += 1
                self._note_request(request, site, held)
            self.open += 1
            self.most = max(self.most, self.open)
            self.timeline.at(self.open)
            _live[held._key] = held
        for each in left:
            self._tell_left(each)
        if self._listeners:
            self._emit(events.Acquired(self.name, site.shown, 0.0))
        return held

    def end(self, held: Held, how: End, now: float | None = None) -> None:
        """It has left the program's hands. No effect a second time."""
        if _live.get(held._key) is held:
            del _live[held._key]
        elif now is None:
            return
        now = monotonic() if now is None else now
        if held.running:
            held.ran += now - held.started
        # Whoever dropped it has not been at work with it since the last statement, whatever transaction was open.
        held._rest(held.ended if how is End.DROPPED or how is End.THREAD else now)
        seconds = now - held.since
        site = held.site
        with self._lock:
            if held not in site.open:  # the parent process's
                return
            site.open.discard(held)
            if held.request is not None and held.request.number in self._requests:
                self._requests[held.request.number][1].discard(held)
            if held.left:
                held.left = False
                site.left -= 1
            site.ended[how] += 1
            if how is End.DROPPED:
                site.dropped_in_requests += held.request is not None
                site.afterwards = max(site.afterwards, now - held.ended)
            site.held += seconds
            site.longest = max(site.longest, seconds)
            site.ran += held.ran
            site.worked += held.worked
            self.ended[how] += 1
            self.held += seconds
            self.open -= 1
            self.timeline.at(self.open)
        if self._listeners:
            self._emit(events.Returned(self.name, site.shown, seconds))
            if how in _REASONS:
                self._emit(events.Closed(self.name, _REASONS[how]))

    # ------------------------------------------------------------------------------------------ leaks

    def _note_request(self, request: requests.Request, site: Site, held: Held) -> None:
        known = self._requests.get(request.number)
        if known is None:
            known = self._requests[request.number] = set(), set()
            request.at_end(lambda: self._request_over(request))
        lines, open_ones = known
        open_ones.add(held)
        self.most_in_request = max(self.most_in_request, len(open_ones))
        if site not in lines:
            lines.add(site)
            site.requests += 1

    def _request_over(self, request: requests.Request) -> None:
        self._sweep()
        with self._lock:
            _, open_ones = self._requests.pop(request.number, ((), ()))
            for held in open_ones:
                held.over = monotonic()
                if not held.running:
                    held._rest(held.ended)

    def _left_behind(self, site: Site, new: Held) -> list[Held]:
        """Those that the line could have used, had it kept them on purpose, instead of opening a new one."""
        thread = None if new._thread is None else new._thread()
        task = None if new._task is None else new._task()
        left = [held for held in site.open if not held.left and held.is_over(thread, task)]
        for held in left:
            held.left = True
            if held.over != held.over:
                held.over = held.ended
            held._rest(held.ended)
            site.left += 1
        return left

    def _tell_left(self, held: Held) -> None:
        if not self._listeners or held.site.asked.pool is not None:
            return
        holder = held.holder(monotonic())
        if holder is None:
            return
        if held.request is not None:
            self._emit(events.OutlivedRequest(self.name, holder, held.request.name))
        else:
            self._emit(events.LeakSuspected(self.name, holder))

    def _came_back(self, held: Held) -> None:
        """It is used after all."""
        with self._lock:
            held.over = math.nan
            held.site.reused += 1
            was_left, held.left = held.left, False
            held.site.left -= was_left
        if was_left and self._listeners:
            self._emit(events.CameBack(self.name, held.site.shown, monotonic() - held.since))

    def _sweep(self) -> None:
        """Account for what the garbage collector has found."""
        while self._dropped:
            try:
                held, how, when = self._dropped.popleft()
            except IndexError:
                return
            self.end(held, how, when)

    def _digest(self) -> None:
        with self._lock:
            self.usage.digest(min(self.at_work(), default=math.inf))

    def at_work(self) -> list[float]:
        """Since when each connection that is at work is. Under the lock."""
        found = [held.working for site in self.sites.values() for held in site.open]
        return [since for since in found if since is not None]

    # ------------------------------------------------------------------------------------------ what is told

    def state(self) -> tuple[float, ...]:
        """Another one when there is anything new."""
        self._sweep()
        with self._lock:
            last = max((max(held.started, held.ended) for site in self.sites.values() for held in site.open), default=0)
            return self.connects, self.ended.total(), last

    def snapshot(self) -> Snapshot:
        """Of what a pool would tell, as much as is known. Every open connection is in somebody's hands.

        *closes* has no connection that the program closed by itself.
        """
        self._sweep()
        with self._lock:
            closes = {reason: self.ended[how] for how, reason in _REASONS.items() if self.ended[how]}
            ended = self.ended.total()
            return Snapshot(
                name=self.name,
                min_size=self.min_size,
                max_size=self.max_size,
                idle=0,
                leased=self.open,
                opening=self.opening,
                closing=0,
                waiting=0,
                paused=False,
                closed=False,
                overloaded=False,
                would_shed=0,
                hold=self.held / ended if ended else 0.0,
                sick=False,
                database_down=False,
                last_error=self.last_error,
                requests=self.connects,
                queued=0,
                waited=0.0,
                held=self.held,
                uses=ended,
                connects=self.connects,
                connect_errors=self.connect_errors,
                connect_seconds=self.connect_seconds,
                lost=self.ended[End.LOST],
                refusals=dict.fromkeys(Refusal, 0),
                closes=closes,
            )

    def holders(self) -> list[holders.Holder]:
        """Who holds which connection now, longest first. A pool that is not ours is a holder too."""
        self._sweep()
        with self._lock:
            held = [held for site in self.sites.values() for held in site.open]
        now = monotonic()
        found = [each.holder(now) for each in sorted(held, key=lambda each: each.since)]
        return [holder for holder in found if holder is not None]

    def listen(self, callback: Callable[[Any], object], *kinds: type[events.Event]) -> Callable[[], None]:
        """As `Pool.listen`: *callback* is told of each transition, or of *kinds* alone. Returns what ends that."""
        told = (callback, kinds or (events.Event,))
        self._listeners = [*self._listeners, told]
        return lambda: self._stop_telling(told)

    def _stop_telling(self, told: object) -> None:
        self._listeners = [each for each in self._listeners if each is not told]

    def _emit(self, event: events.Event) -> None:
        for told in self._listeners:
            callback, kinds = told
            if not isinstance(event, kinds):
                continue
            try:
                callback(event)
            except Exception:
                logger.exception("%s: a listener failed, and is not told any more", self.name)
                self._stop_telling(told)

    # ------------------------------------------------------------------------------------------ what it keeps

    def site(self, asked: Asked, driver: str) -> Site:
        with self._lock:
            return self._site(asked, driver)

    def _site(self, asked: Asked, driver: str) -> Site:
        key = (driver, *asked)
        site = self.sites.get(key)
        if site is None:
            if len(self.sites) >= MOST_SITES:
                key = (driver, *(asked := _OTHERS))
            site = self.sites.setdefault(key, Site(asked, driver))
        return site


def _kind(error: BaseException) -> str:
    """What it is about, without which server and which port; of what may quote a DSN, its class alone."""
    text = str(error)
    for known in _FULL:
        if known in text.lower():
            return known
    of_the_server = isinstance(error, OSError) or getattr(error, "sqlstate", None)
    if not (of_the_server or any(cls.__name__ == "OperationalError" for cls in type(error).__mro__)):
        return type(error).__name__
    line = next(iter(text.strip().splitlines()), "") or type(error).__name__
    return line.rpartition("FATAL: ")[2].strip()[:_LONGEST_ERROR]


def _thread_of(ident: int) -> ReferenceType[threading.Thread] | None:
    thread = threading._active.get(ident)  # type: ignore[attr-defined]
    return None if thread is None else ref(thread)


def _current_task() -> asyncio.Task[Any] | None:
    if asyncio._get_running_loop() is None:
        return None
    return asyncio.current_task()


# ---------------------------------------------------------------------------------------------- one a database


_ledgers: dict[str, Ledger] = {}
_creating = threading.Lock()


def of(name: str) -> Ledger:
    """The ledger of the database *name*, which is observed from now on."""
    ledger = _ledgers.get(name)
    if ledger is None:
        from ..observe import sources

        with _creating:
            ledger = _ledgers.get(name)
            if ledger is None:
                ledger = _ledgers[name] = Ledger(name)
                sources.add(ledger)
    return ledger


def ledgers() -> list[Ledger]:
    """All of this process."""
    return list(_ledgers.values())


def _after_fork() -> None:
    """What the parent opened is the parent's, and counted there."""
    global _creating
    _creating = threading.Lock()
    _live.clear()
    for ledger in _ledgers.values():
        ledger._start_anew()


os.register_at_fork(after_in_child=_after_fork)
