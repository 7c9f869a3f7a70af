"""A pool that is not ours, in the words in which ours tell of themselves."""

from __future__ import annotations

import asyncio
import logging
import sys
from asyncio import _get_running_loop
from collections import Counter
from collections.abc import Callable
from functools import wraps
from threading import get_ident
from time import monotonic
from types import CodeType
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar
from weakref import ReferenceType, ref

from ... import events
from ...core import Reason, Refusal
from ...core.durations import SHORT, Durations, Histogram
from ...integrations.caller import caller, caller_of_me
from ...pool.holders import OTHER, CallSite, Holder, call_site, statement_text, task_stack, thread_name, thread_stack
from ...pool.profile import Glance
from ...pool.snapshot import Snapshot

logger = logging.getLogger("penstock.guard")

P = ParamSpec("P")
T = TypeVar("T")

_MOST_SITES = 100  # lines of code whose leaks are counted apart
_LONG = 1.0  # seconds, as in `events.HeldLong`
_EACH = (events.Acquired, events.Waited, events.Returned, events.HeldLong)  # what each checkout would tell
_DOWN_AFTER = 2.0  # seconds in which connecting fails and never succeeds; then the database is said to be down
_DOWN_FOR = 30.0  # after the last failure: where nobody connects any more, nobody knows
_LEAK_AFTER = 60.0  # what `penstock.watch` takes where nothing is given
_told: set[str] = set()


def harmless(function: Callable[P, T]) -> Callable[P, T | None]:
    """Whatever goes wrong in *function*, the program does not learn of it: it is logged, once."""

    @wraps(function)
    def safe(*args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return function(*args, **kwargs)
        except Exception:
            _failed(function.__qualname__)
            return None

    return safe


def _failed(where: str) -> None:
    """In an `except`."""
    if where not in _told:
        _told.add(where)
        logger.exception("watching failed in %s; the program goes on", where)


class Figures(NamedTuple):
    """What a pool tells of itself. A count that it does not keep is None, and ours counts, from when it was watched."""

    min_size: int
    max_size: int
    idle: int
    leased: int | None = None
    waiting: int | None = None
    closed: bool = False
    connects: int | None = None
    connect_errors: int | None = None
    connect_seconds: float | None = None
    lost: int = 0


class Theirs(Protocol):
    """One kind of pool."""

    name: str

    def attach(self, watched: Watched) -> None:
        """From now on *watched* is told of what happens."""

    def detach(self) -> None:
        """The pool is as it was before."""

    def release(self, conn: Any) -> None:
        """*conn*, which is out, is as it was before. What is done there must not fail for one that was closed."""

    def figures(self) -> Figures: ...

    def status(self, conn: Any) -> str:
        """Of its transaction, as `Holder.status` has it."""

    def look(self, lease: Lease) -> None:
        """Note what a connection was used for since the last look, where nothing tells of that at once."""


class Lease:
    """A connection in somebody's hands.

    :ivar since: when it was lent; *ended*: when its last statement ended. By the monotonic clock, as all times here.
    :ivar uses: what a look counts by, where nothing tells of statements as they come; not set otherwise.
    """

    __slots__ = (
        "_conn",
        "code",
        "ended",
        "ident",
        "lasti",
        "reported",
        "running",
        "since",
        "statement",
        "task",
        "uses",
    )

    def __init__(self, conn: Any, code: CodeType, lasti: int) -> None:
        self._conn = conn
        self.code = code
        self.lasti = lasti
        self.since = self.ended = monotonic()
        self.statement: Any = None
        self.running = self.reported = False
        self.uses: int
        self.ident = get_ident()
        self.task: ReferenceType[asyncio.Task[Any]] | None = None
        if (loop := _get_running_loop()) is not None and (task := asyncio.current_task(loop)) is not None:
            self.task = ref(task)

    @property
    def conn(self) -> Any:
        """None: nobody has it any more."""
        conn = self._conn
        return conn() if isinstance(conn, ReferenceType) else conn

    @property
    def site(self) -> CallSite:
        return call_site(self.code, self.lasti)

    def began(self, statement: Any) -> None:
        self.running = True
        if statement is not None:
            self.statement = statement

    def done(self) -> None:
        self.ended = monotonic()
        self.running = False

    def idle_since(self) -> float | None:
        """None while a statement runs."""
        return None if self.running else self.ended

    def owner(self) -> str:
        if self.task is None:
            return thread_name(self.ident)
        task = self.task()
        return "a task that has ended" if task is None else f"task {task.get_name()}"

    def stack(self) -> tuple[CallSite, ...]:
        task = None if self.task is None else self.task()
        if task is not None:
            return task_stack(task)
        return thread_stack(self.ident) if self.task is None else ()


class Outage:
    """Whether a pool's database is down, by its counts of connects and of failures as they are looked at."""

    def __init__(self) -> None:
        self._counts: tuple[float, int] | None = None
        self._since: float | None = None  # when connecting began to fail
        self._last = 0.0  # when it failed last

    def at(self, now: float, theirs: Figures, opened: int, errors: int) -> bool:
        """Of the counts that *theirs* does not keep, ours."""
        # psycopg_pool counts a connect before it has succeeded, and its time after.
        now_is = (_known(theirs.connect_seconds, opened), _known(theirs.connect_errors, errors))
        before, self._counts = self._counts or now_is, now_is
        if now_is[0] > before[0]:
            self._since = None
        elif now_is[1] > before[1]:
            self._last = now
            self._since = now if self._since is None else self._since
        return self._since is not None and self._last - self._since >= _DOWN_AFTER and now - self._last < _DOWN_FOR


class Watched:
    """What `penstock.watch` returns.

    :ivar name: for logs, events and metrics.
    :ivar on_stop: what is to be done when it is watched no more.
    """

    def __init__(self, theirs: Theirs, pool: Any, name: str | None, leak_after: float | None) -> None:
        self.name = name or theirs.name
        self._theirs = theirs
        self._pool = _weakly(pool)
        self._leak_after = leak_after
        self._listeners: tuple[tuple[Callable[[Any], object], tuple[type[events.Event], ...]], ...] = ()
        self._wanted: frozenset[type[events.Event]] = frozenset()  # of those that each checkout would tell
        self.on_stop: Callable[[], None] = lambda: None
        self._start_anew()
        theirs.attach(self)

    def _start_anew(self) -> None:
        """Also in a forked child, which holds nothing of what its parent holds."""
        self._leases: dict[int, Lease] = {}
        self._waiting = 0
        self._queued = self._uses = self._opened = self._connect_errors = 0
        self._connect_seconds = self._held = 0.0
        self._last_error: str | None = None
        self._outage = Outage()
        self._refusals: Counter[Refusal] = Counter()
        self._closes: Counter[Reason] = Counter()
        self._leaks: Counter[CallSite] = Counter()
        self._waits, self._lasted, self._creations = Durations(), Durations(), Durations()

    def __repr__(self) -> str:
        return f"<Watched {self.name!r}: {len(self._leases)} leased>"

    def watches(self, pool: Any) -> bool:
        return (self._pool() if isinstance(self._pool, ReferenceType) else self._pool) is pool

    def told_again(self, name: str | None, leak_after: float | None) -> None:
        """It was to be watched a second time: as it was said first."""
        given = leak_after not in (self._leak_after, _LEAK_AFTER)
        if given or name not in (self.name, None):
            logger.warning(
                "%s is watched already, with leak_after=%s: name=%r, leak_after=%s have no effect",
                *(self.name, self._leak_after, name, leak_after),
            )

    # ------------------------------------------------------------------------------------------ for who asks

    def snapshot(self) -> Snapshot:
        """Every figure of the pool at this moment; counts are from when it was first watched."""
        theirs = self._theirs.figures()
        leases = list(self._leases.values())
        refused, waits = sum(self._refusals.values()), self._waits
        return Snapshot(
            name=self.name,
            min_size=theirs.min_size,
            max_size=theirs.max_size,
            idle=theirs.idle,
            leased=len(leases) if theirs.leased is None else theirs.leased,
            opening=0,
            closing=0,
            waiting=self._waiting if theirs.waiting is None else theirs.waiting,
            paused=False,
            closed=theirs.closed,
            overloaded=False,
            would_shed=0,
            hold=self._held / self._uses if self._uses else 0.0,
            sick=False,
            database_down=self._outage.at(monotonic(), theirs, self._opened, self._connect_errors),
            last_error=self._last_error,
            requests=self._uses + len(leases) + refused,
            queued=self._queued,
            waited=waits.total,
            held=self._held,
            uses=self._uses,
            connects=_known(theirs.connects, self._opened + self._connect_errors),
            connect_errors=_known(theirs.connect_errors, self._connect_errors),
            connect_seconds=_known(theirs.connect_seconds, self._connect_seconds),
            lost=theirs.lost,
            refusals=dict(self._refusals),
            closes=dict(self._closes),
            wait_time=waits.histogram(self._uses + len(leases)),
            use_time=Histogram(self._lasted.histogram(self._uses).counts, self._held),
            create_time=self._creations.histogram(),
            leaks=dict(self._leaks),
            suspects=sum(lease.reported for lease in leases),
        )

    def holders(self) -> list[Holder]:
        """Who holds which connection, the longest first."""
        found = [self._holder(lease) for lease in list(self._leases.values())]
        return sorted((holder for holder in found if holder is not None), key=lambda holder: -holder.held)

    def listen(self, callback: Callable[[Any], object], *kinds: type[events.Event]) -> Callable[[], None]:
        """Call *callback* with each `penstock.events.Event` from now on; returns what ends that. As `Pool.listen`."""
        if not callable(callback):
            raise TypeError(f"callback must be a function that takes an event, not {callback!r}")
        for kind in kinds:
            if not (isinstance(kind, type) and issubclass(kind, events.Event)):
                raise TypeError(f"kinds must be classes of penstock.events, not {kind!r}")
        self._set_listeners((*self._listeners, (callback, kinds or (events.Event,))))
        return lambda: self._stop_listening(callback)

    def stop(self) -> None:
        """Watch no more: the pool is as it was before."""
        for lease in list(self._leases.values()):
            if (conn := lease.conn) is not None:
                self._release(conn)
        self._theirs.detach()
        self._leases.clear()
        self.on_stop()

    @harmless
    def _release(self, conn: Any) -> None:
        self._theirs.release(conn)

    def _glances(self) -> list[Glance]:
        """What is out now, asking nothing of the connections themselves."""
        leases = list(self._leases.values())
        return [Glance(lease.code, lease.lasti, not lease.running, lease.statement) for lease in leases]

    # ------------------------------------------------------------------------------------------ for who tells

    def took(self, key: int, conn: Any, waited: float = 0.0) -> None:
        """The connection known as *key* is in somebody's hands: of whoever calls this, further out."""
        try:
            before = self._leases.get(key)
            if before is not None and before._conn is not conn:  # it was dropped, and this one has its place in memory
                self.dropped(key)
            lease = self._leases[key] = Lease(conn, *caller_of_me())
            if waited:
                self._queued += 1
                self._waits.note(waited)
            kind = events.Waited if waited else events.Acquired
            if kind in self._wanted:
                self._emit(kind, lease.site, waited)
        except Exception:
            _failed("took")

    def gave(self, key: int) -> None:
        """It is back. No effect a second time."""
        lease = self._leases.pop(key, None)
        if lease is None:
            return
        try:
            held = monotonic() - lease.since
            self._uses += 1
            self._held += held
            if held >= SHORT:
                self._lasted.note(held)
            if lease.reported:
                logger.warning("%s: came back after all, after %.1f s: taken at %s", self.name, held, lease.site)
                self._emit(events.CameBack, lease.site, held)
            kind = events.HeldLong if held > _LONG else events.Returned
            if kind in self._wanted:
                self._emit(kind, lease.site, held)
        except Exception:
            _failed("gave")

    @harmless
    def dropped(self, key: int) -> None:
        """Nobody has it any more, and it was not given back."""
        lease = self._leases.pop(key, None)
        if lease is not None:
            self._uses += 1
            self._held += monotonic() - lease.since
            if not lease.reported:
                self._count_leak(lease.site)
            self._closes[Reason.DROPPED] += 1
            logger.warning("%s: dropped and never given back: taken at %s", self.name, lease.site)
            self._emit(events.Closed, Reason.DROPPED)

    def lease(self, key: int) -> Lease | None:
        return self._leases.get(key)

    def waiting(self, more: int) -> None:
        """So many more wait for a connection."""
        self._waiting += more

    @harmless
    def refused(self, waited: float) -> None:
        """Somebody got no connection: whoever calls this, further out."""
        self._refusals[Refusal.TIMEOUT] += 1
        self._waits.total += waited
        if self._listeners:
            self._emit(events.Refused, call_site(*caller(sys._getframe(1))), Refusal.TIMEOUT, waited)

    @harmless
    def opened(self, seconds: float) -> None:
        self._opened += 1
        self._connect_seconds += seconds
        self._creations.note(seconds)
        self._last_error = None
        self._emit(events.Opened, seconds)

    @harmless
    def connect_failed(self, error: BaseException, seconds: float) -> None:
        self._connect_errors += 1
        self._connect_seconds += seconds
        self._last_error = f"{type(error).__name__}: {' '.join(str(error).split())}"
        self._emit(events.ConnectFailed, error, seconds)

    @harmless
    def note_closed(self, reason: Reason) -> None:
        self._closes[reason] += 1
        self._emit(events.Closed, reason)

    # ------------------------------------------------------------------------------------------ leaks

    @harmless
    def look(self, now: float) -> None:
        """Report who has held a connection idle for too long, once each; and note how connecting goes."""
        self._note_outage(now)
        for key, lease in list(self._leases.items()):
            self._look_at(key, lease, now)

    @harmless
    def _note_outage(self, now: float) -> None:
        self._outage.at(now, self._theirs.figures(), self._opened, self._connect_errors)

    @harmless
    def _look_at(self, key: int, lease: Lease, now: float) -> None:
        """One by one: what cannot be told of one connection hides no other."""
        if lease.conn is None:
            self.dropped(key)
            return
        self._theirs.look(lease)
        idle_since = lease.idle_since()
        if self._leak_after is None or lease.reported or idle_since is None or now - idle_since < self._leak_after:
            return
        holder = self._holder(lease)
        if holder is not None and holder.idle is not None:
            self._report(lease, holder)

    def _report(self, lease: Lease, holder: Holder) -> None:
        lease.reported = True
        self._count_leak(holder.site)
        logger.warning("%s: is this a leak? %s", self.name, holder)
        self._emit(events.LeakSuspected, holder)

    def _count_leak(self, site: CallSite) -> None:
        self._leaks[site if site in self._leaks or len(self._leaks) < _MOST_SITES else OTHER] += 1

    def _holder(self, lease: Lease) -> Holder | None:
        conn = lease.conn
        if conn is None:
            return None
        try:
            self._theirs.look(lease)
            status = self._theirs.status(conn)
        except Exception:  # it is being closed
            status = "BAD"
        idle_since, now = None if status == "ACTIVE" else lease.idle_since(), monotonic()
        return Holder(
            site=lease.site,
            held=now - lease.since,
            idle=None if idle_since is None else now - idle_since,
            statement=statement_text(lease.statement),
            status="ACTIVE" if idle_since is None else status,
            owner=lease.owner(),
            stack=lease.stack(),
            suspected=lease.reported,
        )

    # ------------------------------------------------------------------------------------------ listeners

    def _emit(self, kind: Any, *what: Any) -> None:
        event = None
        for callback, kinds in self._listeners:
            if not issubclass(kind, kinds):
                continue
            try:
                event = event or kind(self.name, *what)
                callback(event)
            except (Exception, SystemExit):
                logger.exception("%s: a listener raised and is dropped: %r", self.name, callback)
                self._stop_listening(callback)

    def _stop_listening(self, callback: Callable[[Any], object]) -> None:
        self._set_listeners(tuple(listener for listener in self._listeners if listener[0] is not callback))

    def _set_listeners(
        self, listeners: tuple[tuple[Callable[[Any], object], tuple[type[events.Event], ...]], ...]
    ) -> None:
        self._listeners = listeners
        self._wanted = frozenset(kind for kind in _EACH if any(issubclass(kind, kinds) for _, kinds in listeners))


def _known(count: Any, ours: Any) -> Any:
    return ours if count is None else count


def _weakly(what: Any) -> Any:
    """A reference that does not keep it, where there can be one."""
    try:
        return ref(what)
    except TypeError:
        return what


weakly = _weakly
