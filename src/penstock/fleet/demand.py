"""How many connections a pool has use for: those in use, half of those waited for, and those that nobody waited for.

Seconds of use per second are connections in use, on average, and seconds of waiting per second are requests that wait
(Little's law). A request that was refused at once would have been one in use for as long as others are. All are taken
from totals, so that nothing is missed between two looks.
"""

from __future__ import annotations

from ..core import Core, Refusal

WAITING = 0.5  # of who waits: a connection that is freed serves several of them
SMOOTHING = 0.5  # weight of the last look; the rest is what was found before


def totals(core: Core, now: float) -> tuple[float, float]:
    """Seconds for which connections were used, and requests waited, since the beginning and until now."""
    used = core.held + sum(now - slot.since for slot in core.leases())
    waited = core.waited + sum(now - waiter.since for waiter in list(core.waiters))
    return used, waited


class Meter:
    """One pool's. *now*: seconds of the pool's clock."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._used = self._waited = 0.0
        self._shed = 0
        self.demand = 0.0

    def assume(self, demand: float) -> None:
        """With nothing measured yet: at least so much."""
        self.demand = max(self.demand, demand)

    def read(self, core: Core, now: float) -> float:
        """The demand since this was last asked, smoothed."""
        used, waited = totals(core, now)
        shed = core.refusals[Refusal.OVERLOADED] + core.refusals[Refusal.QUEUE_FULL]
        if self._at is not None and now > self._at:
            seconds = now - self._at
            found = max(0.0, used - self._used) + WAITING * max(0.0, waited - self._waited)
            found += (shed - self._shed) * core.admission.hold
            self.demand += SMOOTHING * (found / seconds - self.demand)
        elif self._at is None:
            self.demand = len(core.leases()) + WAITING * len(core.waiters)
        self._at, self._used, self._waited, self._shed = now, used, waited, shed
        return self.demand
