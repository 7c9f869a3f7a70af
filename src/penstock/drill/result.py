"""What one arm did, in figures that all come from its answers and samples."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.drill.arms.arm import Arm
from penstock.drill.kinds import REFUSED, SHED
from penstock.drill.measure import Answer, Mark, Sample


@dataclass(slots=True, kw_only=True)
class Result:
    """One arm in one scenario; it grows while the load runs. Times in seconds, unless the name says ms."""

    arm: type[Arm]
    line: int
    pool_size: int
    instances: int
    deadline: float
    seconds: float
    answers: list[Answer] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    healed_at: float | None = None

    @property
    def requests(self) -> int:
        return len(self.answers)

    @property
    def ok(self) -> int:
        """Requests that were answered, late ones included."""
        return sum(answer.error is None for answer in self.answers)

    @property
    def losses(self) -> list[Answer]:
        """Requests that ended in an error, or in nothing."""
        return [answer for answer in self.answers if answer.error is not None]

    @property
    def lost(self) -> int:
        return len(self.losses)

    @property
    def errors(self) -> dict[str, int]:
        """Lost requests by kind, the most frequent first."""
        return dict(Counter(str(answer.error) for answer in self.losses).most_common())

    @property
    def retried(self) -> int:
        """Requests that needed their second try, and got an answer from it."""
        return sum(answer.retried is not None and answer.error is None for answer in self.answers)

    @property
    def refused(self) -> int:
        """How often a client was told that there are too many, first tries included."""
        return sum((answer.error == REFUSED) + (answer.retried == REFUSED) for answer in self.answers)

    @property
    def useful(self) -> int:
        """Requests answered within their deadline."""
        return sum(answer.error is None and answer.latency <= self.deadline for answer in self.answers)

    @property
    def late(self) -> int:
        """Requests answered after their deadline."""
        return self.ok - self.useful

    @property
    def shed(self) -> int:
        """Requests that the pool refused at once, because it could not have served them in time."""
        return sum(answer.error == SHED for answer in self.answers)

    @property
    def useful_share(self) -> float:
        return self.useful / self.requests if self.answers else 0.0

    @property
    def held(self) -> int:
        """Connections held at the last look."""
        return self.samples[-1].held if self.samples else 0

    @property
    def peak(self) -> int:
        """Connections held at most, at any look."""
        return max((sample.held for sample in self.samples), default=0)

    @property
    def crossed(self) -> bool:
        """Whether the arm wanted more connections than there are: it was seen above the line, or was refused."""
        return self.peak > self.line or self.refused > 0

    @property
    def p50_ms(self) -> float | None:
        return self._quantile_ms(0.50)

    @property
    def p99_ms(self) -> float | None:
        return self._quantile_ms(0.99)

    @property
    def recovery(self) -> float | None:
        """From the last healing to the end of the first request that was begun after it and answered."""
        if self.healed_at is None:
            return None
        ends = [answer.end for answer in self.answers if answer.error is None and answer.start >= self.healed_at]
        return min(ends) - self.healed_at if ends else None

    @property
    def good(self) -> bool:
        """Whether the arm did what a service needs of it."""
        return not self.crossed and self.lost == 0 and self.requests > 0

    @property
    def failed(self) -> bool:
        """Whether the drill fails with this arm."""
        return self.arm.judged and not self.good

    def _quantile_ms(self, share: float) -> float | None:
        # Of the answered requests: a refusal is fast, and would make the worst arm look quick.
        return quantile_ms([answer.latency for answer in self.answers if answer.error is None], share)


def quantile_ms(seconds: Sequence[float], share: float) -> float | None:
    """Return the least of `seconds`, in ms, that a `share` of them does not exceed (the nearest rank)."""
    if not seconds:
        return None
    return 1000 * sorted(seconds)[max(0, math.ceil(share * len(seconds)) - 1)]
