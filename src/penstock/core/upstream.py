"""A queue that stands before the pool: in a server's backlog, or before a bounded number of threads.

Such a queue is not the pool's, but its requests are: each is served with its deadline as good as spent. It shows by
the age at which requests come, counted from when their deadline was declared. If for a whole interval nobody comes
fresh, and some come too late, whoever is not fresh is refused at once. That empties the queue in no time, and the
fresh ones are served.

Age alone proves nothing: a request may do something else first, or borrow a second time. So it is over when few are
refused, or when nobody comes fresh all the same, and after an interval in any case. If it is needed again soon, it
begins with the first who comes too late, and lasts twice as long.
"""

from __future__ import annotations

import math

SHARE = 0.1  # of the requests: so many come too late when it begins; when fewer are refused it is over
LONGEST = 4  # intervals


class Upstream:
    """Times in seconds. Called without a lock: a count that is off by one harms nobody.

    :ivar stands: there is such a queue.
    :ivar ends: when that is looked at again.
    """

    def __init__(self, interval: float) -> None:
        self.stands = False
        self.ends = -math.inf
        self._interval = interval
        self._length = interval  # for which it lasts at most
        self._over_at = -math.inf
        self._begin_interval()

    def _begin_interval(self) -> None:
        self._came = 0
        self._late = 0
        self._refused = 0
        self._fresh = 0

    def refuses(self, age: float, target: float, late: bool, now: float) -> bool:
        """Somebody comes. *age*: since its deadline was declared. *late*: too little of it is left to be of use."""
        if now >= self.ends:
            self._end_interval(now)
        self._came += 1
        self._late += late
        self._fresh += age <= target
        if late and not self.stands and not self._fresh and self._ended_lately(now):
            self._begin(now)
        refused = self.stands and age > target
        self._refused += refused
        return refused

    def came_late(self) -> None:
        """Too late even to wait for its turn in the pool, as it turned out."""
        self._late += 1

    def _end_interval(self, now: float) -> None:
        if self.stands:
            if not self._fresh:  # it was no queue, or it would have become short
                self._over_at = -math.inf
            self.stands = self._refused > SHARE * self._came and now < self._over_at
        elif not self._fresh and self._late > SHARE * self._came:
            self._begin(now)
        self._begin_interval()
        self.ends = now + self._interval

    def _begin(self, now: float) -> None:
        longest = LONGEST * self._interval
        self._length = min(2 * self._length, longest) if self._ended_lately(now) else self._interval
        self.stands, self._over_at = True, now + self._length

    def _ended_lately(self, now: float) -> bool:
        return now - self._over_at < LONGEST * self._interval
