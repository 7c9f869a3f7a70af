"""What became of a job: how many users are saved, how often, how fast."""

from dataclasses import dataclass, field
from itertools import pairwise

from penstock.drill.result import Result

STOOD_STILL = 2.0  # seconds without anything saved, at the end, that are no accident


@dataclass(slots=True, kw_only=True)
class BatchResult(Result):
    """As a `Result`; there are no requests to the service.

    :ivar items: users in all.
    :ivar progress: how many rows there were, and when.
    :ivar ends: when each of its processes ended, and whether of itself.
    :ivar memory: of its process, in bytes, and when.
    :ivar distinct: users who are saved at the end.
    :ivar failed_items: users whom the job says it has given up, and keeps in a list.
    :ivar errors_told: what a process said that ended with an error.
    """

    items: int
    progress: list[tuple[float, int]] = field(default_factory=list)
    ends: list[tuple[float, bool]] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)
    distinct: int = 0
    passed: int = 0
    failed_items: int = 0
    errors_told: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Rows that were saved."""
        return self.progress[-1][1] if self.progress else 0

    @property
    def twice(self) -> int:
        """Rows too many: users who were saved more than once."""
        return self.rows - self.distinct

    @property
    def gone(self) -> int:
        """Users whom it has passed by, and who are neither saved nor in any list."""
        return max(0, self.passed - self.distinct - self.failed_items)

    @property
    def complete(self) -> bool:
        """Whether it came to its end."""
        return bool(self.ends) and self.ends[-1][1] and not self.errors_told

    @property
    def last_saved(self) -> float:
        """When the last row was saved."""
        rows = self.rows
        return next((at for at, saved in self.progress if saved == rows), 0.0)

    @property
    def stood_still(self) -> float:
        """Seconds at the end in which nothing was saved, of a job that did not come to its end."""
        if self.complete or not self.progress:
            return 0.0
        still = self.progress[-1][0] - self.last_saved
        return still if still >= STOOD_STILL else 0.0

    @property
    def per_second(self) -> float:
        """Rows saved a second: by one that came to its end in all its time, starts and kills included.

        By another one while it saved: its starts, and the time in which it stood still, do not count.
        """
        if self.complete:
            return self.rows / self.last_saved if self.last_saved else 0.0
        gained = sum(rows for rows, _ in self._spans)
        return gained / sum(seconds for _, seconds in self._spans) if gained else 0.0

    @property
    def _spans(self) -> list[tuple[int, float]]:
        """Of each process, the rows saved after its first, and the seconds from that to its last."""
        spans, begin = [], 0.0
        for end, _ in self.ends:
            looks = [look for look in self.progress if begin <= look[0] <= end]
            moved = [later for earlier, later in pairwise(looks) if later[1] > earlier[1]]
            if len(moved) > 1:
                spans.append((moved[-1][1] - moved[0][1], moved[-1][0] - moved[0][0]))
            begin = end
        return spans

    @property
    def seconds_for_all(self) -> float | None:
        """Seconds for all users: measured, of one that came to its end; else at the pace that it had."""
        if self.complete:
            return self.last_saved
        return self.items / self.per_second if self.per_second else None

    @property
    def good(self) -> bool:
        return self.complete and not self.crossed and not self.twice and not self.gone
