"""Whether a request may wait: what it can expect, and whether the queue has become a standing one.

A queue that forms and dissolves is good: it keeps the connections busy. One that stands only makes everybody late by
the same amount. CoDel (RFC 8289; folly's form of it) tells them apart by the least wait of an interval: while nobody
has been served within the target for a whole interval, there is more work than can be done, and some of it must go.

What goes is decided when it comes, by what it can expect, so that a refusal costs no time; not in the queue, where it
would have waited in vain.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from .queue import Queue
from .settings import Overload
from .slots import Slot, Waiter
from .upstream import Upstream

LEAST = 0.005  # seconds of waiting that nobody calls a queue (CoDel's own target)
LONG = 1.0  # seconds; a connection held for longer counts for `hold` only where most are
SHARE = 0.1  # of what a request is willing to wait: its target, if none was set
TURNS = 2  # holds that a request may wait for while the pool sheds: enough that no connection is ever idle,
#            and no more than a quarter of its deadline
MARGIN = 1.25  # by which a wait may turn out longer than expected
EASE = 0.25  # share of the requests that find a connection free when there is no overload any more


class Forecast(NamedTuple):
    """Why a request was shed. Times in seconds."""

    retry_after: float
    wait: float  # expected, until it would have had a connection
    waited: float  # already, since it came or since its deadline was declared
    left: float  # until its deadline
    stands: bool  # the queue: it was not for the deadline alone
    waiting: int  # requests before it
    connections: int  # that serve them
    hold: float  # how long one is held, on average


class Admission:
    """Measures the queue, and judges who may join it.

    :ivar hold: seconds for which a connection is held, in the last interval with any use; 0 while unknown.
    :ivar overloaded: the queue stands, so the pool sheds.
    """

    def __init__(self, overload: Overload | None, random: Callable[[], float]) -> None:
        self.everybody = overload is not None  # or only those who declare a deadline
        settings = overload or Overload()
        self._target = settings.target
        self.interval = settings.interval
        self._random = random
        self.upstream = Upstream(settings.interval)
        self.hold = 0.0
        self.overloaded = False
        self.would_shed = 0
        self.ends = -math.inf  # of the interval
        self._long = 0  # leases of this interval
        self._long_held = 0.0
        self.waited = 0  # how many were served in this interval after a wait
        self.moved = True  # in this interval somebody was served when nobody had waited too long, or there was no queue
        self.silent_since = -math.inf  # no connection has come back, or was lent, since

    def sheds(self, waiter: Waiter) -> bool:
        """Whether this waiter may be shed at all."""
        return self.everybody or waiter.declared

    def queue_began(self, last_lent: float) -> None:
        self.moved = True
        self.silent_since = max(self.silent_since, last_lent)

    def sheds_now(self, now: float) -> bool:
        """Whether a queue stands, in the pool or before it; not if nobody has come since, to take note of its end."""
        here = self.overloaded and now < self.ends + self.interval
        return here or (self.upstream.stands and now < self.upstream.ends + self.interval)

    def came_back(self, held: float, now: float) -> None:
        """A connection came back; to be called at least for those that were held for longer than `LONG`."""
        self.silent_since = now
        if held > LONG:
            self._long += 1
            self._long_held += held
        if not self.hold:
            self.hold = held  # a first guess, until an interval has ended

    def look(self, queue: Queue, now: float) -> None:
        """Before somebody who waited is served. Not at how long that one waited: one of high priority never does."""
        self.moved = not self._stands(queue, now)

    def end_interval(self, now: float, slots: list[Slot], queue: Queue) -> None:
        """To be called from `ends` on."""
        served = self._measure(slots)
        if self.overloaded:
            at_once = served - self.waited
            self.overloaded = at_once <= EASE * served and (served > 0 or len(queue) > 0)
        else:
            self.overloaded = not self.moved and self._stands(queue, now)
        self.waited = 0
        self.moved = not queue
        self.ends = now + self.interval

    def _measure(self, slots: list[Slot]) -> int:
        """How many leases have ended since it was last asked; sets `hold`."""
        served, held = 0, 0.0
        for slot in slots:
            served += slot.uses - slot.noted_uses
            held += slot.held - slot.noted_held
            slot.noted_uses, slot.noted_held = slot.uses, slot.held
        short = served - self._long
        if short > self._long:  # a job that has one for an hour says nothing of what the others do
            self.hold = (held - self._long_held) / short
        elif served:
            self.hold = held / served
        self._long, self._long_held = 0, 0.0
        return served

    def _stands(self, queue: Queue, now: float) -> bool:
        """Whether anybody has waited for longer than a queue may make them wait."""
        return any(now - head.since > self._target_of(head.deadline - head.since) for head in queue.heads())

    def has_time(self, waiter: Waiter, waiting: int, connections: int, now: float) -> bool:
        """Whether there is nothing to judge: declares nothing, and will be served in time by any reckoning."""
        if waiter.declared or self.everybody or self.overloaded:
            return False
        wait = waiting * self.hold / connections + now - self.silent_since
        return wait * MARGIN <= waiter.deadline - now

    def judge(self, waiter: Waiter, ahead: int, connections: int, now: float) -> Forecast | None:
        """Why this waiter should be shed, or None if it may wait.

        *ahead*: how many must be served from what comes back before this one is; less than 0: it is served otherwise.
        The wait expected is that for *ahead* and one more returns, at `hold` / *connections* each; when nothing has
        come back for longer than one hold, as long again.
        """
        if ahead < 0:
            return None
        patience, left = waiter.deadline - waiter.since, waiter.deadline - now
        hold = min(self.hold, patience)  # longer ones say no more: a job of an hour may just have ended
        wait = (ahead + 1) * hold / connections
        stands = self.overloaded and ahead > 0 and wait > max(LEAST, min(TURNS * hold, patience / 4))
        silence = now - self.silent_since
        if silence > hold:
            wait += silence
        if not stands and wait * MARGIN + self._needs(waiter) <= left:
            return None
        retry_after = max(wait, self.interval) * (1 + self._random())
        return Forecast(retry_after, wait, 0.0, left, stands, ahead, connections, self.hold)

    def comes_late(self, since: float, until: float, now: float) -> Forecast | None:
        """Whether a request whose deadline was declared at *since* comes too late to be of use, and why.

        One whose deadline has passed always does. To be asked of every request with a declared deadline; needs no lock.
        """
        patience, age, left = until - since, now - since, until - now
        if left < -patience:  # no request that waited, but something that outlived one
            retry_after = self.interval * (1 + self._random())
            return Forecast(retry_after, 0.0, age, left, False, 0, 0, self.hold)
        late = left <= min(self.hold, patience / 4)
        if not self.upstream.refuses(age, self._target_of(patience), late, now) and left > 0:
            return None
        retry_after = self.interval * (1 + self._random())
        return Forecast(retry_after, 0.0, age, left, self.upstream.stands, 0, 0, self.hold)

    def _target_of(self, patience: float) -> float:
        """Seconds of waiting from which on a queue counts as standing."""
        target = SHARE * patience if self._target is None else self._target
        return max(LEAST, target, 2 * TURNS * self.hold)

    def too_late(self, waiter: Waiter, waiting: int, connections: int, now: float) -> Forecast:
        """Why a waiter is shed from the queue."""
        retry_after = self.interval * (1 + self._random())
        waited, left = now - waiter.since, waiter.deadline - now
        return Forecast(retry_after, 0.0, waited, left, self.overloaded, waiting, connections, self.hold)

    def has_backlog(self, waiting: int, connections: int) -> bool:
        """Whether more wait than may join while the pool sheds: the newest of them first, then."""
        return self.overloaded and waiting * self.hold > connections * max(LEAST, TURNS * self.hold)

    def is_late(self, waiter: Waiter, now: float) -> bool:
        """Whether a waiter is to be shed from the queue: what it was waiting for has come too late."""
        if not self.sheds(waiter):
            return False
        if self.overloaded and now - waiter.since > 2 * self._target_of(waiter.deadline - waiter.since):
            return True
        return waiter.declared and now + self._needs(waiter) > waiter.deadline

    def _needs(self, waiter: Waiter) -> float:
        """Seconds of its deadline that a waiter needs the connection for: as long as others, as far as anybody knows.

        A quarter of its time at most, as its own work may be shorter. A timeout bounds nothing but the wait.
        """
        return min(self.hold, (waiter.deadline - waiter.since) / 4) if waiter.declared else 0.0
