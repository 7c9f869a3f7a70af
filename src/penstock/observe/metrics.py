"""What is measured: each metric's name, unit and labels, and which figure of a pool, a fleet or a fallback it is.

Names, units and labels are those of OpenTelemetry's semantic conventions for the connection pools of database clients,
wherever they have one; what they know nothing of begins with `penstock.`. How Prometheus spells them is said in
`prometheus`; no library is needed here.

Labels are bounded by what a program consists of: its pools, its lines of code that leak (at most a hundred of each
pool, then `other`), our own enumerations. Nothing that a request brings along is one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..core import Histogram, Refusal
from ..pool.membership import FleetState
from ..pool.snapshot import Snapshot
from .looplag import lag
from .sources import Source

POOL = "db.client.connection.pool.name"
STATE = "db.client.connection.state"
CODE = ("code.file.path", "code.line.number", "code.function.name")

Labels = tuple[str, ...]
Value = float | Histogram


class Kind(Enum):
    """What its value may do."""

    GAUGE = "gauge"  # go up and down
    COUNTER = "counter"  # go up
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One of `METRICS`.

    :ivar unit: as OpenTelemetry has it: `s`, or in braces what is counted. Of a gauge that is 0 or 1 none.
    :ivar labels: their names.
    :ivar most: of several pools of one name, and of several processes, the largest counts, and not all together.
    """

    name: str
    kind: Kind
    unit: str
    help: str
    labels: tuple[str, ...] = (POOL,)
    most: bool = False

    def __hash__(self) -> int:
        return hash(self.name)  # it is a key, often


def _gauge(name: str, unit: str, help: str, *labels: str, most: bool = False) -> Metric:
    return Metric(name, Kind.GAUGE, unit, help, (POOL, *labels), most)


def _counter(name: str, unit: str, help: str, *labels: str) -> Metric:
    return Metric(name, Kind.COUNTER, unit, help, (POOL, *labels))


def _histogram(name: str, help: str) -> Metric:
    return Metric(name, Kind.HISTOGRAM, "s", help)


def _flag(name: str, help: str) -> Metric:
    return _gauge(name, "", help, most=True)


# The conventions', in their words.
COUNT = _gauge(
    "db.client.connection.count",
    "{connection}",
    "The number of connections that are currently in state described by the `state` attribute.",
    STATE,
)
IDLE_MAX = _gauge(
    "db.client.connection.idle.max", "{connection}", "The maximum number of idle open connections allowed."
)
IDLE_MIN = _gauge(
    "db.client.connection.idle.min", "{connection}", "The minimum number of idle open connections allowed."
)
MAX = _gauge("db.client.connection.max", "{connection}", "The maximum number of open connections allowed.")
PENDING = _gauge(
    "db.client.connection.pending_requests",
    "{request}",
    "The number of current pending requests for an open connection.",
)
TIMEOUTS = _counter(
    "db.client.connection.timeouts",
    "{timeout}",
    "The number of connection timeouts that have occurred trying to obtain a connection from the pool.",
)
CREATE_TIME = _histogram("db.client.connection.create_time", "The time it took to create a new connection.")
WAIT_TIME = _histogram("db.client.connection.wait_time", "The time it took to obtain an open connection from the pool.")
USE_TIME = _histogram(
    "db.client.connection.use_time", "The time between borrowing a connection and returning it to the pool."
)

# Ours.
OPENING = _gauge("penstock.connections.opening", "{connection}", "Connections that are being opened.")
CLOSING = _gauge("penstock.connections.closing", "{connection}", "Connections that the server has not let go of yet.")
REQUESTS = _counter("penstock.requests", "{request}", "Connections asked for, however that ended.")
QUEUED = _counter("penstock.requests.queued", "{request}", "Requests that had to wait.")
REFUSALS = _counter("penstock.refusals", "{request}", "Requests that got no connection, by why.", "reason")
WOULD_SHED = _counter(
    "penstock.would_shed", "{request}", "Requests that overload= would have refused at once; they waited instead."
)
CLOSES = _counter("penstock.closes", "{connection}", "Connections closed, by why.", "reason")
CONNECT_ERRORS = _counter("penstock.connect.errors", "{error}", "Attempts to connect that failed.")
LOST = _counter("penstock.connections.lost", "{connection}", "Idle connections that were found dead.")
LEAKS = _counter(
    "penstock.leaks", "{leak}", "Connections reported as suspected leaks, by the line that took them.", *CODE
)
SUSPECTS = _gauge(
    "penstock.leaks.suspected", "{connection}", "Connections in hand that were reported as suspected leaks."
)
OVERLOADED = _flag("penstock.overloaded", "1 while a queue stands, and who may be refused for it is.")
BREAKER = _flag("penstock.breaker.open", "1 while the database ends connections in use, and few are lent at once.")
DOWN = _flag("penstock.database.down", "1 while no connection can be made.")
PAUSED = _flag("penstock.paused", "1 while the pool hands out nothing because somebody paused it.")
LOOP_LAG = _gauge(
    "penstock.event_loop.lag",
    "s",
    "By how much the event loop of an asyncio pool was late, at worst within the last minute.",
    most=True,
)
SHARED = _gauge("penstock.multiplex.connections", "{connection}", "Connections in use that statements share.")
IN_FLIGHT = _gauge("penstock.multiplex.in_flight", "{statement}", "Statements sent on them and not answered.")
STATEMENTS = _counter("penstock.multiplex.statements", "{statement}", "Statements answered on them.")
BUDGET = _gauge("penstock.fleet.budget", "{connection}", "Connections that the whole fleet may have.", most=True)
SHARE = _gauge("penstock.fleet.share", "{connection}", "Connections of these that the pool may have.")
CLAIMED = _gauge(
    "penstock.fleet.claimed", "{connection}", "Connections that the fleet's members have, or may open.", most=True
)
MEMBERS = _gauge("penstock.fleet.members", "{process}", "Processes that share the budget.", most=True)
OUT_OF_TOUCH = _gauge("penstock.fleet.age", "s", "Since the fleet's state was last asked for.", most=True)
ANSWERS = Metric(
    "penstock.fallback.answers",
    Kind.COUNTER,
    "{answer}",
    "Reads, by how they were answered: fresh, loaded, stale (for want of a connection) or refused.",
    ("penstock.fallback.name", "answer"),
)

METRICS = (
    *(COUNT, IDLE_MAX, IDLE_MIN, MAX, PENDING, TIMEOUTS, CREATE_TIME, WAIT_TIME, USE_TIME),
    *(OPENING, CLOSING, REQUESTS, QUEUED, REFUSALS, WOULD_SHED, CLOSES, CONNECT_ERRORS, LOST, LEAKS, SUSPECTS),
    *(OVERLOADED, BREAKER, DOWN, PAUSED, LOOP_LAG, SHARED, IN_FLIGHT, STATEMENTS),
    *(BUDGET, SHARE, CLAIMED, MEMBERS, OUT_OF_TOUCH, ANSWERS),
)

Figure = tuple[Metric, Labels, Value]


def of_source(source: Source, now: Snapshot) -> Iterator[Figure]:
    """All that *source* has; a figure that it cannot have is left out."""
    pool = (now.name,)
    if not getattr(source, "closed", now.closed):  # or there is nothing that it may have
        yield from _line(pool, now)
    yield from _of_pool(pool, now)
    if now.statements or now.multiplexed:
        yield SHARED, pool, now.multiplexed
        yield IN_FLIGHT, pool, now.in_flight
        yield STATEMENTS, pool, now.statements
    late = lag(source)
    if late is not None:
        yield LOOP_LAG, pool, late.worst
    fleet = getattr(source, "fleet", None)
    state = fleet() if fleet is not None else None
    if state is not None:
        yield from _of_fleet(pool, state)


def _line(pool: Labels, now: Snapshot) -> Iterator[Figure]:
    yield IDLE_MIN, pool, now.min_size
    if now.max_size < sys.maxsize:
        yield IDLE_MAX, pool, now.max_size
        yield MAX, pool, now.max_size


def _of_pool(pool: Labels, now: Snapshot) -> Iterator[Figure]:
    yield COUNT, (*pool, "idle"), now.idle
    yield COUNT, (*pool, "used"), now.leased
    yield PENDING, pool, now.waiting
    yield TIMEOUTS, pool, now.refusals.get(Refusal.TIMEOUT, 0)
    yield CREATE_TIME, pool, now.create_time
    yield WAIT_TIME, pool, now.wait_time
    yield USE_TIME, pool, now.use_time
    yield OPENING, pool, now.opening
    yield CLOSING, pool, now.closing
    yield REQUESTS, pool, now.requests
    yield QUEUED, pool, now.queued
    yield WOULD_SHED, pool, now.would_shed
    yield CONNECT_ERRORS, pool, now.connect_errors
    yield LOST, pool, now.lost
    yield SUSPECTS, pool, now.suspects
    yield OVERLOADED, pool, now.overloaded
    yield BREAKER, pool, now.sick
    yield DOWN, pool, now.database_down
    yield PAUSED, pool, now.paused
    for refusal, count in now.refusals.items():
        yield REFUSALS, (*pool, refusal.value), count
    for reason, count in now.closes.items():
        yield CLOSES, (*pool, reason.value), count
    for site, count in now.leaks.items():
        yield LEAKS, (*pool, site.file, str(site.line), site.function), count


def _of_fleet(pool: Labels, state: FleetState) -> Iterator[Figure]:
    yield BUDGET, pool, state.budget
    yield SHARE, pool, state.share
    yield CLAIMED, pool, state.claimed
    yield MEMBERS, pool, state.members
    if state.age < float("inf"):
        yield OUT_OF_TOUCH, pool, state.age


def of_fallbacks() -> Iterator[Figure]:
    """Of each fallback there is, those of one name together."""
    module: Any = sys.modules.get("penstock.fallback.base")  # nobody has one who has not imported it
    for fallback in module.fallbacks() if module is not None else ():
        now = fallback.snapshot()
        yield ANSWERS, (now.name, "fresh"), now.hits
        yield ANSWERS, (now.name, "loaded"), now.loaded
        yield ANSWERS, (now.name, "stale"), now.stood_in
        yield ANSWERS, (now.name, "refused"), now.unavailable
