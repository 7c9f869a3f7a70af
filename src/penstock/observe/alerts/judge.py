"""One pool's figures in, alerts raised and cleared out: pure, in whatever time it is told.

Only the root of a trouble is an alert. A dead database makes waiters, timeouts and a pool in full use; so does a leak,
and a starving event loop. So each kind has those that explain it (`kinds.EXPLAINED_BY`): while one of these is so it is
not raised, and where it was raised before its root was known it is cleared in favour of that. What a trouble leaves
behind (a queue that is worked off) is explained until the alert is cleared, which takes 10 s without the trouble.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import fmean

from ...core import Reason, Refusal
from ...pool.holders import Holder
from ...pool.membership import FleetState
from ...pool.snapshot import Snapshot
from .kinds import CLEARED_AFTER, EXPLAINED_BY, RAISED_AFTER, Alert, Kind, Thresholds

WINDOW = 10.0  # seconds over which use and waiters are averaged
LAG_WINDOW = 5.0
LAGGING = 3  # looks in it with a loop that is late: one long callback is no starvation
PARKED = 5.0  # seconds idle in hand, from which on a connection in a full pool counts as leaked
SICK_FOR = 30.0  # seconds since a connection was last lost or refused: a breaker that nobody meets alarms nobody
TIMED_OUT_FOR = 20.0  # seconds for which an acquire timeout is remembered
_SITES = 3


@dataclass(slots=True, frozen=True)
class Figures:
    """What is known of a pool at one moment.

    :ivar at: seconds of any clock that only goes forward.
    :ivar holders: those there are, where `Judge.wants_holders` asked for them.
    :ivar loop_lag: seconds by which its event loop is late; None where it has none.
    """

    at: float
    snapshot: Snapshot
    holders: Sequence[Holder] = ()
    fleet: FleetState | None = None
    loop_lag: float | None = None


@dataclass(slots=True)
class _Watch:
    """One kind's state. Times are of the figures' clock."""

    so_since: float | None = None
    not_so_since: float | None = None
    raised: Alert | None = None
    worse: bool = False  # which has been told


class _Sample:
    __slots__ = ("at", "lag", "timeouts", "use", "uses", "waiting")

    def __init__(self, figures: Figures) -> None:
        pool = figures.snapshot
        self.at = figures.at
        self.use = used(pool) / pool.max_size if pool.max_size else 0.0
        self.waiting = pool.waiting
        self.uses = pool.uses
        self.timeouts = pool.refusals.get(Refusal.TIMEOUT, 0)
        self.lag = figures.loop_lag


def used(pool: Snapshot) -> int:
    """Connections in use. Those that statements share are always lent; they are full when somebody has to wait."""
    return pool.leased if pool.waiting else pool.leased - pool.multiplexed


class Judge:
    """Look about once a second.

    :param name: the pool's.
    """

    def __init__(self, name: str, thresholds: Thresholds) -> None:
        self._name = name
        self._is = thresholds
        self._began = False
        self._samples: deque[_Sample] = deque()
        self._watches = {kind: _Watch() for kind in Kind}
        self._timeouts = 0  # when last looked at
        self._timed_out_at: float | None = None
        self._times_out = False  # since the look before
        self._was_full = False  # then
        self._leak_hurts = False  # requests wait for what it holds
        self._sick = 0
        self._sick_at: float | None = None

    @property
    def active(self) -> list[Alert]:
        """What is raised now, roots first."""
        return [watch.raised for watch in self._watches.values() if watch.raised is not None]

    def wants_holders(self, pool: Snapshot) -> bool:
        """Whether to bring the holders: telling where each stands is not free, and mostly nobody needs to know."""
        crowded = 0 < self._is.utilisation * pool.max_size < used(pool)
        return pool.suspects > 0 or crowded or self._is_full()

    def look(self, figures: Figures, now: float) -> list[Alert]:
        """What has been raised or cleared. *now*: seconds of the epoch."""
        if not self._began:
            self._began = True
            self._timeouts, self._sick = _timeouts(figures.snapshot), _losses(figures.snapshot)
        self._note(figures)
        so = dict(self._found(figures))
        changes: list[Alert] = []
        for kind, watch in self._watches.items():
            changes += self._settle(kind, watch, so, figures, now)
        return changes

    def end(self, now: float, pool: Snapshot | None = None) -> list[Alert]:
        """The pool is gone, and its alerts with it. *pool*: what is known of it."""
        over = [watch for watch in self._watches.values() if watch.raised]
        return [self._cleared(watch, "the pool is closed", now, pool) for watch in over]

    # ------------------------------------------------------------------------------------------ raised and cleared

    def _settle(self, kind: Kind, watch: _Watch, so: dict[Kind, str], figures: Figures, now: float) -> Iterator[Alert]:
        at, why = figures.at, so.get(kind)
        roots = [root for root in EXPLAINED_BY[kind] if root in so or self._watches[root].raised is not None]
        root = next((root for root in Kind if root in roots and self._watches[root].raised is not None), None)
        if root is not None and not (kind is Kind.LEAK and watch.raised):  # a leak known before it remains one
            watch.so_since = None
            if kind is Kind.TIMEOUTS:
                self._timed_out_at = None
            if watch.raised is not None:
                yield self._cleared(watch, f"explained by: {root.value}", now, figures.snapshot)
            return
        if why is None:
            watch.so_since = None
            if watch.raised is not None:
                watch.not_so_since = at if watch.not_so_since is None else watch.not_so_since
                if at - watch.not_so_since >= CLEARED_AFTER:
                    yield self._cleared(watch, f"not so for {CLEARED_AFTER:g} s", now, figures.snapshot)
            return
        watch.not_so_since = None
        watch.so_since = at if watch.so_since is None else watch.so_since
        if watch.raised is not None:
            watch.raised = self._alert(kind, why, figures.snapshot, watch.raised.at)
            if kind is Kind.LEAK and self._leak_hurts and not watch.worse:
                watch.worse = True
                yield replace(watch.raised, worse=True)
        elif not roots and at - watch.so_since >= RAISED_AFTER[kind]:
            watch.raised = self._alert(kind, why, figures.snapshot, now)
            watch.worse = self._leak_hurts
            yield watch.raised

    def _alert(self, kind: Kind, why: str, pool: Snapshot, at: float) -> Alert:
        why = " ".join(why.replace('"', "'").split())
        return Alert(self._name, kind, at, why, pool.leased, pool.idle, pool.max_size, pool.waiting)

    @staticmethod
    def _cleared(watch: _Watch, why: str, now: float, pool: Snapshot | None) -> Alert:
        assert watch.raised is not None, "bug: what was not raised is cleared"
        alert, watch.raised, watch.not_so_since = watch.raised, None, None
        if pool is not None:
            alert = replace(alert, in_use=pool.leased, idle=pool.idle, max_size=pool.max_size, waiting=pool.waiting)
        return replace(alert, why=why, cleared=now)

    # ------------------------------------------------------------------------------------------ what is so

    def _note(self, figures: Figures) -> None:
        pool = figures.snapshot
        self._samples.append(_Sample(figures))
        while len(self._samples) > 1 and self._samples[1].at <= figures.at - WINDOW:
            self._samples.popleft()
        timed_out = _timeouts(pool) > self._timeouts
        # The last of those that a leak made may be seen only when it has been given back.
        leaking = self._watches[Kind.LEAK].raised is not None and (self._was_full or self._is_full())
        if timed_out and not leaking:
            self._timed_out_at = figures.at
        self._times_out, self._was_full = timed_out, _is_all_out(pool) or self._is_full()
        if _losses(pool) > self._sick:
            self._sick_at = figures.at
        self._timeouts, self._sick = _timeouts(pool), _losses(pool)

    def _is_full(self) -> bool:
        """On average, once there is an average."""
        samples = self._samples
        if not samples or samples[-1].at - samples[0].at < WINDOW:
            return False
        return fmean(sample.use for sample in samples) > self._is.utilisation

    def _found(self, figures: Figures) -> Iterator[tuple[Kind, str]]:
        pool, full = figures.snapshot, self._is_full()
        if pool.database_down:
            yield Kind.DATABASE_DOWN, f"no connection can be opened: {pool.last_error or 'no answer'}"
        if pool.sick and self._sick_at is not None and figures.at - self._sick_at <= SICK_FOR:
            yield Kind.BREAKER_OPEN, "the database ends connections in use: few are lent at once until uses go well"
        if (lag := self._lag()) is not None:
            yield Kind.LOOP_STARVING, _starving(lag, pool)
        parked = _parked(figures.holders, full and not pool.database_down and not pool.sick)
        works = full and (used(pool) - len(parked)) > self._is.utilisation * pool.max_size
        self._leak_hurts = bool(parked) and not works and (full or (self._times_out and _is_all_out(pool)))
        if parked:
            yield Kind.LEAK, _leak(parked)
        if works:
            if _is_near(figures.fleet, self._is.fleet):
                yield Kind.FLEET_LINE, _fleet(figures.fleet, pool)
            yield Kind.UTILISATION, self._utilisation(figures)
        elif full and parked:  # and so does whoever waits
            self._timed_out_at = None
            return
        if (waiting := fmean(sample.waiting for sample in self._samples)) > self._is.waiters:
            yield Kind.WAITERS, f"{waiting:.0f} requests wait, on average over {WINDOW:g} s{_beside(pool)}"
        if self._timed_out_at is not None and figures.at - self._timed_out_at <= TIMED_OUT_FOR:
            yield Kind.TIMEOUTS, f"requests got no connection within their timeout{_beside(pool)}"

    def _lag(self) -> float | None:
        recent = [
            sample.lag
            for sample in self._samples
            if sample.lag is not None and sample.at > self._samples[-1].at - LAG_WINDOW
        ]
        late = [lag for lag in recent if lag > self._is.loop_lag]
        return fmean(recent) if len(late) >= LAGGING and fmean(recent) > self._is.loop_lag else None

    def _utilisation(self, figures: Figures) -> str:
        pool, first = figures.snapshot, self._samples[0]
        why = f"over {self._is.utilisation:.0%} of the connections in use on average over {WINDOW:g} s"
        if pool.waiting:
            why += f", {pool.waiting} wait"
        if pool.uses == first.uses:
            why += f"; none has come back for {WINDOW:g} s: slow statements, a lock, or a database that does not answer"
        return f"{why}; held by {_sites(figures.holders)}" if figures.holders else why


def _is_all_out(pool: Snapshot) -> bool:
    return 0 < pool.max_size <= used(pool)


def _timeouts(pool: Snapshot) -> int:
    return pool.refusals.get(Refusal.TIMEOUT, 0)


def _losses(pool: Snapshot) -> int:
    return pool.refusals.get(Refusal.UNAVAILABLE, 0) + pool.closes.get(Reason.BROKEN, 0)


def _parked(holders: Sequence[Holder], full: bool) -> list[Holder]:
    """Who has a connection and does nothing with it: suspected by the pool, or, where it is full, for long enough."""
    return [
        holder for holder in holders if holder.suspected or (full and holder.idle is not None and holder.idle >= PARKED)
    ]


def _is_near(fleet: FleetState | None, share: float) -> bool:
    return fleet is not None and fleet.claimed >= share * fleet.budget


def _starving(lag: float, pool: Snapshot) -> str:
    late = f"the event loop is {lag:.2f} s late on average over {LAG_WINDOW:g} s: something blocks it"
    if pool.idle:
        return f"{late}. Acquire is slow although {pool.idle} connections are idle: this is not exhaustion"
    return f"{late}. Connections come back late for that: this is not exhaustion, and more would not help"


def _leak(parked: Sequence[Holder]) -> str:
    connections = "1 connection is" if len(parked) == 1 else f"{len(parked)} connections are"
    longest = max(holder.idle if holder.idle is not None else holder.held for holder in parked)
    return f"{connections} held and not used, for up to {longest:.0f} s, by {_sites(parked)}"


def _fleet(fleet: FleetState | None, pool: Snapshot) -> str:
    assert fleet is not None, "bug: near the line of no fleet"
    claimed = f"{fleet.claimed} of the {fleet.budget} connections of fleet {fleet.name!r} are claimed"
    return f"{claimed} by {fleet.members} processes, and this one's share of {fleet.share} is in use{_beside(pool)}"


def _beside(pool: Snapshot) -> str:
    busy = f"; {pool.leased} of {pool.max_size} are in use" if pool.max_size else f"; {pool.leased} are in use"
    if pool.paused:
        return f"{busy}, the pool is paused"
    return f"{busy}, {pool.opening} are being opened" if pool.opening else busy


def _sites(holders: Sequence[Holder]) -> str:
    """The lines that hold most, first."""
    ordered = sorted(holders, key=lambda holder: holder.site)
    groups = [(site, len(list(group))) for site, group in groupby(ordered, key=lambda holder: holder.site)]
    groups.sort(key=lambda item: -item[1])
    shown = [f"{site} ({count})" for site, count in groups[:_SITES]]
    return ", ".join(shown) + (f" and {len(groups) - _SITES} more lines" if len(groups) > _SITES else "")
