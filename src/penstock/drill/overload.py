"""What one arm did under an open loop: what became of each request that arrived, before, in and after the spike."""

import math
from collections import Counter
from dataclasses import dataclass

from penstock.drill.kinds import SHED, WRONG
from penstock.drill.measure import Answer
from penstock.drill.result import Result, quantile_ms

USEFUL, LATE = "useful", "late"

ENOUGH = 0.9  # useful answers in the spike, as a share of the capacity
RECOVERED = 0.99  # useful answers after it, as a share of what arrived
OFFERED = 0.95  # what must really have arrived of the spike, or it was none


@dataclass(frozen=True, slots=True)
class Spike:
    """When the spike is, how many requests are due in it, and how many the database can do in a second, as measured."""

    capacity: float
    due: int
    begin: float
    end: float

    @property
    def could(self) -> float:
        """How many requests the database could have answered in the spike."""
        return self.capacity * (self.end - self.begin)


@dataclass(slots=True, kw_only=True)
class OverloadResult(Result):
    """As a `Result`, but a request refused at once is not lost: who sent it was told, and nothing was done in vain."""

    spike: Spike

    def fate(self, answer: Answer) -> str:
        """Return what became of a request: useful, late, refused at once, or the kind of its error."""
        return answer.error or (USEFUL if answer.latency <= self.deadline else LATE)

    @property
    def fates(self) -> Counter[str]:
        """Requests by what became of them."""
        return Counter(map(self.fate, self.answers))

    @property
    def losses(self) -> list[Answer]:
        """Requests that ended in an error, or in nothing; not those that were refused at once."""
        return [answer for answer in self.answers if answer.error not in (None, SHED)]

    @property
    def offered(self) -> float:
        """Requests a second that arrived in the spike."""
        return self._came / (self.spike.end - self.spike.begin)

    @property
    def lag_p99_ms(self) -> float | None:
        """How late the load was handed to the service at worst, but for one request in a hundred."""
        return quantile_ms([answer.lag for answer in self.answers], 0.99)

    @property
    def useful_in_spike(self) -> float:
        """Useful answers given in the spike, as a share of what the database could have answered."""
        given = sum(
            self.fate(answer) == USEFUL and self.spike.begin <= answer.end < self.spike.end for answer in self.answers
        )
        return given / self.spike.could

    def refusal_ms(self, share: float) -> float | None:
        """Return within how many ms of its arrival a `share` of the refusals came."""
        return quantile_ms([answer.latency for answer in self.answers if answer.error == SHED], share)

    @property
    def recovery(self) -> float | None:
        """From the spike's end to when 99 % of the arrivals, from then to the load's end, got a useful answer.

        None: not within the drill. A moment counts only if enough of the load follows it to say so: the length of a
        deadline, or half of all that follows the spike if that is less.
        """
        last = self.seconds - min(self.deadline, (self.seconds - self.spike.end) / 2)
        after = [answer for answer in self.answers if answer.start >= self.spike.end]
        useful, since = 0, None
        for number, answer in enumerate(sorted(after, key=lambda answer: -answer.start), 1):
            useful += self.fate(answer) == USEFUL
            if answer.start <= last and useful >= RECOVERED * number:
                since = answer.start
        return None if since is None else since - self.spike.end

    @property
    def really_offered(self) -> bool:
        """Whether the spike was one: the machine could make all those requests."""
        return self._came >= OFFERED * self.spike.due

    @property
    def good(self) -> bool:
        enough = self.useful_in_spike >= ENOUGH and self.recovery is not None
        return enough and self.really_offered and not self.crossed and WRONG not in self.errors

    @property
    def _came(self) -> int:
        # By when they did arrive, not by when they should have.
        return sum(self.spike.begin <= answer.start + answer.lag < self.spike.end for answer in self.answers)

    def over_time(self, seconds: float) -> list[Counter[str]]:
        """Return what became of the requests that arrived in each `seconds` of the load."""
        buckets: list[Counter[str]] = [Counter() for _ in range(math.ceil(self.seconds / seconds))]
        for answer in self.answers:
            buckets[min(len(buckets) - 1, int(answer.start / seconds))][self.fate(answer)] += 1
        return buckets
