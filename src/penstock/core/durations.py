"""How long things took, counted by bucket: what a histogram is made of, kept so cheaply that it is always there."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

# Upper bounds of the buckets, in seconds; the last one has none. OpenTelemetry's conventions advise none for a pool's
# times. These are what they advise for the time of a database's operations (db.client.operation.duration).
BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
SHORT = BOUNDS[0]  # nobody looks for the bucket of what is no longer: there is the total to tell how many they were
BUCKETS = len(BOUNDS) + 1


@dataclass(slots=True, frozen=True)
class Histogram:
    """How many lasted how long.

    :ivar counts: of each bucket alone: up to the first of `BOUNDS`, from there up to the second ..., beyond the last.
    :ivar total: seconds, of all together.
    """

    counts: tuple[int, ...] = (0,) * BUCKETS
    total: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts)


NONE = Histogram()


class Durations:
    """Takes note of each."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS
        self.total = 0.0

    def note(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def histogram(self, of: int | None = None) -> Histogram:
        """*of*: how many there were in all, where the short ones were not noted one by one."""
        counts = self.counts.copy()
        if of is not None:
            counts[0] = max(0, of - sum(counts[1:]))
        return Histogram(tuple(counts), self.total)
