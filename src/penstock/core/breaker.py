"""A database that accepts connections and then ends them in use: not to be met by everybody at once.

What `pace` is for connecting, this is for using. Each connection lost in the midst of a statement counts, if it was
taken after the one before was lost: many that are lost together are one event, such as a failover. After `LOSSES` in
a row the breaker opens: nobody gets a connection for a while. Then one may try, two, four, as in TCP's slow start.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .pace import PATIENCE, Verdict, backoff

LOSSES = 3
HEALED_AT = 32  # connections in use at once without a loss


class Breaker:
    """Limits how many connections are in use at once. Times are seconds of the shell's clock.

    :ivar cap: how many may be; infinity while nothing is wrong.
    :ivar sick: whether there is such a limit now.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self.cap: float = math.inf
        self.sick = False
        self.losses = 0  # in a row
        self.lost_at = -math.inf
        self.lost_since = math.nan
        self.error: BaseException | None = None
        self._opens = 0
        self._retry_at = -math.inf
        self._tried_at = -math.inf

    @property
    def watching(self) -> bool:
        """Whether the next good use is news."""
        return self.losses > 0 or self.sick

    def is_open(self, now: float, trying: int) -> bool:
        """Whether whoever comes now is to be refused: nobody may try yet, or somebody is trying."""
        return self.cap <= 1 and not self.allows(now, trying)

    def allows(self, now: float, trying: int) -> bool:
        """Whether one more connection may be in use than *trying*, those that were lent since the last loss.

        Who has kept one for a while without losing it may keep it for an hour: the next one tries then.
        """
        if not self.sick:
            return True
        return now >= self.next_at() or (now >= self._retry_at and trying < self.cap)

    def tried(self, now: float) -> None:
        """Somebody got a connection although the database is sick."""
        self._tried_at = now

    def next_at(self) -> float:
        """When the next one may, whatever becomes of those before."""
        return max(self._retry_at, self._tried_at + PATIENCE)

    def lost(self, taken_at: float, error: BaseException, now: float) -> bool:
        """A connection that was taken at *taken_at* was lost in use. Whether the breaker opens."""
        if taken_at < self.lost_at:
            return False
        if not self.losses:
            self.lost_since = now
        self.losses += 1
        self.lost_at = now
        self.error = error
        if self.losses < LOSSES and not self.sick:
            return False
        self.cap, self.sick = 1, True
        self._retry_at = now + backoff(self._opens, self._random)
        self._opens += 1
        return True

    def used(self, taken_at: float) -> None:
        """A connection came back from a use that went well."""
        if taken_at < self.lost_at:
            return
        self.losses = 0
        self.cap = self.cap * 2 if self.cap < HEALED_AT else math.inf
        self.sick = self.cap < math.inf
        if not self.sick:
            self.error = None
            self._opens = 0

    def verdict(self) -> Verdict:
        """As `Pace.verdict`."""
        return Verdict(self.error, self.lost_since, self.lost_at, hung=False, unfit=False, lost=True)
