"""What pools of several sizes would have done with the work that a program gave its connections.

Work is when a connection was needed: from a statement to its answer, or to the end of its transaction. What a program
holds beyond that, a pool could have lent to others.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush, heapreplace
from typing import Any

SIZES = (1, 2, 3, 5, 10, 20, 50)
_BATCH = 512  # intervals that are gone through at once: a millisecond or two
_MOST = 32 * _BATCH  # that wait for one that goes on and on


@dataclass(slots=True)
class Queue:
    """A pool of *size*, first come first served, and what its waits would have been."""

    size: int
    waits: int = 0
    waited: float = 0.0
    longest: float = 0.0
    _free: list[float] = field(default_factory=list)  # when each connection is done

    def feed(self, start: float, seconds: float) -> None:
        free = self._free
        if len(free) < self.size:
            heappush(free, start + seconds)
            return
        wait = free[0] - start
        if wait > 0:
            self.waits += 1
            self.waited += wait
            self.longest = max(self.longest, wait)
            start = free[0]
        heapreplace(free, start + seconds)


class Usage:
    """Fed with intervals of work, in the order in which they end; figures them in the order in which they began.

    Its memory is bounded: intervals are forgotten as soon as none that began before them can come any more. `add` may
    be called by any thread; everything else by one at a time.
    """

    def __init__(self, sizes: tuple[int, ...] = SIZES) -> None:
        self.queues = [Queue(size) for size in sizes]
        self.count = 0
        self.seconds = 0.0
        self.most = 0  # connections at work at once
        self.levels: dict[int, float] = {}  # for how many seconds so many were at work
        self._pending: deque[tuple[float, float]] = deque()
        self._early: list[tuple[float, float]] = []  # taken from there, and not yet their turn
        self._ends: list[float] = []
        self._last = -math.inf

    def add(self, start: float, end: float) -> bool:
        """Whether it is time for `digest`."""
        self._pending.append((start, end))
        return len(self._pending) >= _BATCH

    def digest(self, before: float = math.inf) -> None:
        """Figure what began *before*: whatever is still at work began later, or then."""
        waiting = self._early
        while True:
            try:
                waiting.append(self._pending.popleft())
            except IndexError:
                break
        waiting.sort()
        if len(waiting) > _MOST:
            before = math.inf
        done = 0
        for start, end in waiting:
            if start >= before:
                break
            self._feed(max(start, self._last), end)
            done += 1
        self._early = waiting[done:]

    def _feed(self, start: float, end: float) -> None:
        self.count += 1
        seconds = max(0.0, end - start)
        self.seconds += seconds
        self._pass(start)
        heappush(self._ends, end)
        self.most = max(self.most, len(self._ends))
        for queue in self.queues:
            queue.feed(start, seconds)

    def _pass(self, now: float) -> None:
        _account(self._ends, self.levels, self._last, now)
        self._last = max(self._last, now)

    def told(self, at_work: list[float], now: float) -> dict[str, Any]:
        """As a document, with what is *at_work* since those times as if it ended *now*. More may come."""
        self.digest(min(at_work, default=math.inf))
        twin = Usage(())
        twin.queues = [replace(queue, _free=list(queue._free)) for queue in self.queues]
        twin.count, twin.seconds, twin.most, twin._last = self.count, self.seconds, self.most, self._last
        twin.levels, twin._ends = dict(self.levels), list(self._ends)
        twin._early = [*self._early, *((since, now) for since in at_work)]
        twin.digest()
        _account(twin._ends, twin.levels, twin._last, math.inf)
        return {
            "count": twin.count,
            "seconds": twin.seconds,
            "most": twin.most,
            "p99": quantile(twin.levels, 0.99),
            "pools": [
                {"size": q.size, "waits": q.waits, "waited": q.waited, "longest": q.longest} for q in twin.queues
            ],
        }


def _account(ends: list[float], levels: dict[int, float], last: float, now: float) -> None:
    """For the time from *last* until *now*; *ends* is a heap, of what is at work."""
    while ends and ends[0] <= now:
        many, end = len(ends), heappop(ends)
        if end > last:
            levels[many] = levels.get(many, 0.0) + end - last
            last = end
    if ends and now > last:
        levels[len(ends)] = levels.get(len(ends), 0.0) + now - last


def quantile(levels: dict[int, float], share: float) -> int:
    """So many were enough for *share* of the time in which any was at work."""
    left = share * sum(levels.values())
    for many in sorted(levels):
        left -= levels[many]
        if left <= 1e-9:
            return many
    return max(levels, default=0)
