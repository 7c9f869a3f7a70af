"""Every figure of a pool at one moment, in one immutable object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..core import NONE, Core, Histogram, Reason, Refusal
from .holders import CallSite
from .profile import NOTHING, Profile


@dataclass(slots=True, frozen=True)
class Snapshot:
    """Counts are of connections or of requests since the pool was opened; times are seconds."""

    name: str
    min_size: int
    max_size: int
    idle: int
    leased: int
    opening: int
    closing: int
    waiting: int
    paused: bool
    closed: bool
    overloaded: bool  # a queue stands, in the pool or before it: requests that may be shed are
    would_shed: int  # requests that waited, and would have been refused had they declared a deadline (or `overload=`)
    hold: float  # seconds for which a connection is held, on average, of late; 0 while unknown
    sick: bool  # the database ends connections in use: few are lent at once
    database_down: bool
    last_error: str | None  # of the failing attempts to connect; None once one has succeeded
    requests: int
    queued: int  # requests that had to wait
    waited: float  # by all of them together
    held: float  # by all leases that have ended
    uses: int  # leases that have ended
    connects: int  # attempts
    connect_errors: int
    connect_seconds: float
    lost: int  # idle connections found dead
    refusals: Mapping[Refusal, int]
    closes: Mapping[Reason, int]
    multiplexed: int = 0  # leased connections that statements share
    in_flight: int = 0  # statements sent on them and not answered
    statements: int = 0  # statements answered on them
    wait_time: Histogram = NONE  # until a connection was lent; of those found free, no time
    use_time: Histogram = NONE  # of leases that have ended, and of statements that shared one
    create_time: Histogram = NONE  # of connections opened
    leaks: Mapping[CallSite, int] = field(default_factory=dict)  # connections reported as suspected leaks
    since: float = 0.0  # of the monotonic clock, when counting began: anew in a forked child, or when a pool is
    suspects: int = 0  # connections in hand that were reported as suspected leaks, and are not back yet
    profile: Profile = NOTHING  # what connections were held for, over the last minutes; empty where nobody looks

    @property
    def open(self) -> int:
        """Connections that exist as far as the server is concerned, or are about to."""
        return self.idle + self.leased + self.opening + self.closing


def snapshot(
    name: str, core: Core, now: float, since: float, leaks: Mapping[CallSite, int], profile: Profile = NOTHING
) -> Snapshot:
    error = core.pace.error
    return Snapshot(
        name=name,
        min_size=core.min_size,
        max_size=core.max_size,
        idle=len(core.idle),
        leased=core.leased,
        opening=len(core.opening),
        closing=core.closing,
        waiting=len(core.waiters),
        paused=core.paused,
        closed=core.closed,
        overloaded=core.admission.sheds_now(now),
        would_shed=core.admission.would_shed,
        hold=core.admission.hold,
        sick=core.breaker.sick,
        database_down=core.pace.down,
        last_error=None if error is None else f"{type(error).__name__}: {error}",
        requests=core.requests,
        queued=core.queued,
        waited=core.waited,
        held=core.held,
        uses=core.uses,
        connects=core.connects,
        connect_errors=core.connect_errors,
        connect_seconds=core.connect_seconds,
        lost=core.lost,
        refusals=dict(core.refusals),
        closes=dict(core.closes),
        wait_time=core.waits.histogram(core.served),
        use_time=core.lasted,
        create_time=core.creations.histogram(),
        leaks=dict(leaks),
        since=since,
        suspects=sum(slot.reported for slot in list(core.slots.values())),
        profile=profile,
    )


_BAD_RETURNS = (Reason.BROKEN, Reason.BUSY, Reason.UNCLEAN)


def counters(of: Snapshot) -> dict[str, int]:
    """The counters of psycopg's pool, under its names; milliseconds where it has them."""
    return {
        "requests_num": of.requests,
        "requests_queued": of.queued,
        "requests_wait_ms": int(of.waited * 1000),
        "requests_errors": sum(count for refusal, count in of.refusals.items() if refusal is not Refusal.NOT_OPEN),
        "usage_ms": int(of.held * 1000),
        "returns_bad": sum(of.closes.get(reason, 0) for reason in _BAD_RETURNS),
        "connections_num": of.connects,
        "connections_ms": int(of.connect_seconds * 1000),
        "connections_errors": of.connect_errors,
        "connections_lost": of.lost,
    }


def measures(of: Snapshot) -> dict[str, int]:
    """The measures of psycopg's pool, under its names."""
    return {
        "pool_min": of.min_size,
        "pool_max": of.max_size,
        "pool_size": of.idle + of.leased + of.opening,
        "pool_available": of.idle,
        "requests_waiting": of.waiting,
    }
