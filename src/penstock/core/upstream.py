"""A queue that stands before the pool: in a server's backlog, or before a bounded number of threads.

Such a queue is not the pool's, but its requests are: each is served with its deadline as good as spent. It shows by
the age at which requests come, counted from when their deadline was declared. While for a whole interval nobody comes
fresh, and some come too late, whoever is not fresh is refused at once. That empties the queue in no time, and the
fresh ones are served.

Age alone proves nothing: a request may do something else first, or borrow a second time.
"""

from __future__ import annotations

import math

EASE = 0.1  # share of the requests, as in `admission`


class Upstream:
    """Times in seconds. Called without a lock: a count that is off by one harms nobody."""

    def __init__(self, interval: float) -> None:
        self.stands = False
        self._interval = interval
        self._ends = -math.inf
        self._begin()

    def _begin(self) -> None:
        self._came = 0
        self._late = 0
        self._refused = 0
        self._fresh = False  # somebody was

    def refuses(self, age: float, target: float, late: bool, now: float) -> bool:
        """Somebody comes. *age*: since its deadline was declared. *late*: too little of it is left to be of use."""
        if now >= self._ends:
            if self.stands:
                self.stands = self._refused > EASE * self._came
            else:
                self.stands = not self._fresh and self._late > EASE * self._came
            self._begin()
            self._ends = now + self._interval
        self._came += 1
        self._late += late
        self._fresh = self._fresh or age <= target
        refused = self.stands and age > 2 * target
        self._refused += refused
        return refused

    def came_late(self) -> None:
        """Too late even to wait for its turn in the pool, as it turned out."""
        self._late += 1
