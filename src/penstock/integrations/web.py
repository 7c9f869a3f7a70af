"""What the middlewares for ASGI and WSGI have in common: which errors mean 503, who is ready, when a request came."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..core import Priority
from ..core.settings import check_seconds
from ..errors import DatabaseUnavailable, Overloaded, PoolError, PoolTimeout, TooManyRequests
from ..pool.base import BasePool
from ..pool.snapshot import Snapshot
from ..pool.sync import Pool

logger = logging.getLogger("penstock.web")

REFUSALS = (PoolTimeout, Overloaded, TooManyRequests)  # there is no connection now, and there may be one in a while
PROBE_SECONDS = 1.0  # that a readiness probe may wait for a connection, where none is open

_RETRY_AFTER = 1  # seconds, where the pool knows nothing better
_RETRY_WHEN_DOWN = 5
_CAUSES = 5  # that are looked through: libraries wrap their driver's errors once or twice
_LOG_SECONDS = 10.0  # between two lines about requests that were turned away
_OLDEST = 3600.0  # seconds: a request that seems older than this has a time that means something else


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes


@dataclass(frozen=True, slots=True)
class Options:
    """What both middlewares are told.

    :raises ValueError: (or TypeError) naming the argument, what was found and what it may be.
    """

    deadline: float | None
    arrival_header: str | None
    live: str | None
    ready: str | None

    def __post_init__(self) -> None:
        if self.deadline is not None:
            check_seconds("deadline", self.deadline)
        if self.arrival_header is not None and self.deadline is None:
            raise ValueError("arrival_header says since when a deadline counts: give a deadline= too")
        for name, path in (("live", self.live), ("ready", self.ready)):
            if path is not None and not isinstance(path, str):
                raise TypeError(f'{name} must be a path, as in {name}="/{name}z", not {path!r}')
            if path is not None and not path.startswith("/"):
                raise ValueError(f"{name} must be a path that begins with a slash, not {path!r}")
        if self.live is not None and self.live == self.ready:
            raise ValueError(f"live and ready must be two paths: both are {self.live!r}")


def checked(pools: Iterable[Any], kind: type[BasePool[Any]], what: str) -> list[Any]:
    """:raises TypeError: when they are not a list of pools of that kind."""
    if isinstance(pools, BasePool) or not isinstance(pools, Iterable):
        raise TypeError(f"pools must be a list of {what}, as in pools=[pool], and not a {type(pools).__name__}")
    found = list(pools)
    for pool in found:
        if not isinstance(pool, kind):
            raise TypeError(f"pools must be a list of {what}, and there is a {type(pool).__name__} in it")
    return found


# ------------------------------------------------------------------------------------------ no connection to be had


def refusal_in(error: BaseException | None) -> PoolError | None:
    """The pool's refusal that *error* is, or was raised from; None if it is about something else."""
    for _ in range(_CAUSES):
        if isinstance(error, REFUSALS):
            return error
        if error is None:
            return None
        error = error.__cause__
    return None


def busy(refusal: PoolError) -> Answer:
    """503, and when to come back. Nothing of what the pool says of itself is told."""
    seconds = retry_after(refusal)
    down = isinstance(refusal, DatabaseUnavailable)
    why = "The database is unavailable." if down else "There is more to do than can be done right now."
    detail = f"{why} Try again in {seconds} s."
    body = {"title": "Service Unavailable", "status": 503, "detail": detail}
    headers = [("retry-after", str(seconds)), ("cache-control", "no-store")]
    return _json(503, body, "application/problem+json", headers)


def retry_after(refusal: PoolError) -> int:
    """Whole seconds, at least one."""
    if isinstance(refusal, Overloaded):
        return max(1, math.ceil(refusal.retry_after))
    return _RETRY_WHEN_DOWN if isinstance(refusal, DatabaseUnavailable) else _RETRY_AFTER


class TurnedAway:
    """Logs which requests were answered with 503, and why: the first at once, then one line for all in a while."""

    def __init__(self) -> None:
        self._unlogged = 0
        self._logged_at = -math.inf

    def note(self, request: str, refusal: PoolError) -> None:
        self._unlogged += 1
        now = time.monotonic()
        if now - self._logged_at < _LOG_SECONDS:
            return
        many, self._unlogged, self._logged_at = self._unlogged, 0, now
        count = f" ({many} requests since the last such line)" if many > 1 else ""
        logger.warning("503 for %s%s: %s: %s", request, count, type(refusal).__name__, refusal)


# ------------------------------------------------------------------------------------------ health


def alive() -> Answer:
    """The process answers, and no more than that: to end it because the database is down would help nobody."""
    return _health(200, {"status": "alive"})


def ready(states: Iterable[tuple[str, str | None]]) -> Answer:
    """*states*: of each pool its name, and what keeps it from serving; None if nothing does."""
    found: dict[str, str | None] = {}
    for name, why in states:
        found[name] = found.get(name) or why  # of two of one name, the one that is not ready
    pools = {name: why or "ready" for name, why in found.items()}
    if any(found.values()):
        return _health(503, {"status": "not ready", "pools": pools})
    return _health(200, {"status": "ready", "pools": pools})


def in_use(snapshot: Snapshot) -> bool:
    """Whether all that may be open is in somebody's hands: who has them knows best whether they work."""
    return not (snapshot.closed or snapshot.database_down) and snapshot.leased >= snapshot.max_size


def probe(pool: Pool[Any]) -> str | None:
    """What keeps a pool for threads from serving; None if nothing does. One that is busy is not asked."""
    if in_use(pool.snapshot()):
        return None
    try:
        with pool.connection(PROBE_SECONDS, Priority.HIGH):
            return None
    except PoolError as error:
        return unready(error)


def unready(error: PoolError) -> str | None:
    """What it says of a pool that a connection could not be had, in a word or two. To be busy is to be ready."""
    if isinstance(error, (Overloaded, TooManyRequests)):
        return None
    if isinstance(error, DatabaseUnavailable):
        return "the database is unavailable"
    return "no connection" if isinstance(error, PoolTimeout) else "not open"


def _health(status: int, body: dict[str, Any]) -> Answer:
    return _json(status, body, "application/json", [("cache-control", "no-store")])


def _json(status: int, body: dict[str, Any], kind: str, headers: list[tuple[str, str]]) -> Answer:
    text = json.dumps(body).encode()
    own = [("content-type", kind), ("content-length", str(len(text)))]
    return Answer(status, "OK" if status == 200 else "Service Unavailable", own + headers, text)


# ------------------------------------------------------------------------------------------ when it came


def waited(header: str | None) -> float:
    """Seconds since a proxy took the request in, as its ``X-Request-Start`` has it; 0 where that cannot be known.

    Proxies write seconds, milliseconds, microseconds or nanoseconds since 1970, with ``t=`` before or without. The
    clocks of two machines differ: a time that has yet to come counts as now.
    """
    try:
        came = float((header or "").removeprefix("t="))
    except ValueError:
        return 0.0
    now = time.time()
    if math.isinf(came):
        return 0.0
    while came > 100 * now:  # seconds of today are 1.8e9, milliseconds 1.8e12
        came /= 1000
    age = now - came
    return age if 0 < age < _OLDEST else 0.0
