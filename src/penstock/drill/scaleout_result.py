"""What became of one arm while processes came and went: against the line, and of what is there to use."""

from dataclasses import dataclass, field
from itertools import pairwise
from statistics import mean
from typing import NamedTuple

from penstock.drill.measure import Answer
from penstock.drill.result import Result, quantile_ms

ENOUGH = 0.9  # of the budget in use, once a change has settled
REUSED_SECONDS = 10.0  # until what the killed had is used by others
REUSED = 0.9  # of it


class Change(NamedTuple):
    """A change that has settled: looked at from `begin` to `end`, with so many processes ready."""

    label: str
    begin: float
    end: float
    members: int


@dataclass(slots=True, kw_only=True)
class ScaleOutResult(Result):
    """As a `Result`. The line is the budget of all processes.

    :ivar processes: how many there were, and when.
    :ivar apart: answers of the processes that were to be cut off.
    :ivar joined: seconds that each process took until it had a connection.
    :ivar not_ready: processes that got none in time, or could not start; `failures` says why.
    :ivar deploy: seconds that it took, the wait for the network included; None until it is over.
    """

    processes: list[tuple[float, int]] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    apart: list[Answer] = field(default_factory=list)
    joined: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    not_ready: int = 0
    killed: int = 0
    killed_at: float | None = None
    deploy: float | None = None

    @property
    def above(self) -> int:
        """Looks at which there were more connections than the budget has."""
        return sum(sample.held > self.line for sample in self.samples)

    def gap(self, share: float) -> float:
        """Seconds between two looks that a `share` of them do not exceed: what was above for less may be missed."""
        at = [sample.at for sample in self.samples]
        gaps = [later - earlier for earlier, later in pairwise(at)]
        return (quantile_ms(gaps, share) or 0.0) / 1000

    def ready_after(self, share: float) -> float | None:
        """Seconds from a process's start in which a `share` of them had a connection; None if there were none."""
        found = quantile_ms(self.joined, share)
        return None if found is None else found / 1000

    def held_in(self, change: Change) -> float:
        """Connections that were open, on average, once the change had settled."""
        return mean([s.held for s in self.samples if change.begin <= s.at < change.end] or [0])

    def used_in(self, change: Change) -> float:
        """Those of them that were in use: at work, or in a transaction."""
        found = [s.active + s.idle_in_transaction for s in self.samples if change.begin <= s.at < change.end]
        return mean(found or [0])

    def share_in(self, change: Change) -> float:
        """What was in use, as a share of the budget."""
        return self.used_in(change) / self.line

    @property
    def reused_after(self) -> float | None:
        """Seconds from the kill until others had taken what the killed had (nine tenths of it).

        None if nobody was killed, or they did not within the drill.
        """
        if self.killed_at is None:
            return None
        before = mean([s.held for s in self.samples if self.killed_at - 1 <= s.at < self.killed_at] or [0])
        after = [s for s in self.samples if s.at >= self.killed_at]
        lowest = min((s for s in after if s.at < self.killed_at + 2), key=lambda s: s.held, default=None)
        if lowest is None:
            return None
        enough = lowest.held + REUSED * (before - lowest.held)
        found = (s.at - self.killed_at for s in after if s.at >= lowest.at and s.held >= enough)
        return next(found, None)

    @property
    def shares_good(self) -> bool:
        return all(self.share_in(change) >= ENOUGH for change in self.changes)

    @property
    def reused_good(self) -> bool:
        return not self.killed or (self.reused_after is not None and self.reused_after <= REUSED_SECONDS)

    @property
    def good(self) -> bool:
        answered = self.requests > 0 and self.lost == 0 and self.not_ready == 0
        return answered and not self.crossed and self.shares_good and self.reused_good
