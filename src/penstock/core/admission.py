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
SLOW = 10  # times `hold`, after which a connection is not counted on to come back in time
LONG = 1.0  # seconds; a connection held for longer counts for `hold` only where most are
LONGEST_RETRY = 5.0  # seconds after which anybody may try again; up to twice as long, by chance
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

    def is_slow(self, held: float) -> bool:
        """Whether a connection has been held for so long that nobody should count on it."""
        return held > max(LONG, SLOW * self.hold)

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
        elif not self.hold:
            self.hold = held  # a first guess, until an interval has ended

    def look(self, queue: Queue, now: float) -> None:
        """Before somebody who waited is served. Not at how long that one waited: one of high priority never does."""
        self.moved = not self._stands(queue, now)

    def end_interval(self, now: float, slots: list[Slot], queue: Queue) -> None:
        """To be called from `ends` on."""
        served = self._measure(slots)
        if now > self.ends + self.interval:  # nobody has had to wait for a while
            self.overloaded = False
        elif self.overloaded:
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
        elif served >= max(1, len(slots)):
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
        in_time = wait * MARGIN <= left and wait * MARGIN + self._needs(waiter) <= waiter.until - now
        if in_time and not stands:
            return None
        return Forecast(self._retry_after(wait), wait, 0.0, left, stands, ahead, connections, self.hold)

    def _retry_after(self, wait: float = 0.0) -> float:
        """Not before it may have changed, nor all at once, nor for ever: a wait that long is anybody's guess."""
        return min(max(wait, self.interval), LONGEST_RETRY) * (1 + self._random())

    def comes_late(self, since: float, until: float, spare: bool, now: float) -> Forecast | None:
        """Whether a request whose deadline was declared at *since* comes too late to be of use, and why.

        One whose deadline has passed always does; *spare*: for no other reason. To be asked of every request with a
        declared deadline; needs no lock.
        """
        patience, age, left = until - since, now - since, until - now
        if left < -patience:  # no request that waited, but something that outlived one
            return Forecast(self._retry_after(), 0.0, age, left, False, 0, 0, self.hold)
        late = left <= min(self.hold, patience / 4)
        refused = self.upstream.refuses(age, self._target_of(patience), late, now)
        if left > 0 and (spare or not refused):
            return None
        return Forecast(self._retry_after(), 0.0, age, left, self.upstream.stands, 0, 0, self.hold)

    def _target_of(self, patience: float) -> float:
        """Seconds of waiting from which on a queue counts as standing."""
        target = SHARE * patience if self._target is None else self._target
        return max(LEAST, target, min(2 * TURNS * self.hold, patience / 4))

    def too_late(self, waiter: Waiter, waiting: int, connections: int, now: float) -> Forecast:
        """Why a waiter is shed from the queue."""
        waited, left = now - waiter.since, waiter.deadline - now
        return Forecast(self._retry_after(), 0.0, waited, left, self.overloaded, waiting, connections, self.hold)

    def has_backlog(self, waiting: int, connections: int) -> bool:
        """While the pool sheds: whether more wait than may join now. The newest of them first, then."""
        return waiting * self.hold > connections * max(LEAST, TURNS * self.hold)

    def is_late(self, waiter: Waiter, now: float) -> bool:
        """Whether a waiter is to be shed from the queue: what it was waiting for has come too late."""
        if not self.sheds(waiter):
            return False
        if self.overloaded and now - waiter.since > 2 * self._target_of(waiter.deadline - waiter.since):
            return True
        # A connection is at hand, so unless a queue stands it has the benefit of the doubt: its own work may be shorter
        # than that of others.
        return now + self._needs(waiter, 0.75 if self.overloaded else 0.5) > waiter.until

    def _needs(self, waiter: Waiter, most: float = 0.75) -> float:
        """Seconds that a waiter needs the connection for: as long as others, as far as anybody knows.

        *most*: of what it had when it came.
        """
        return min(self.hold, most * (waiter.until - waiter.since))
