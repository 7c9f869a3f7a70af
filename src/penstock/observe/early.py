"""Says in the log what connections are held for nothing, while there are still others."""

from __future__ import annotations

import logging
import math

from ..pool.profile import Profile

logger = logging.getLogger("penstock.observe")

QUARTER = 0.25  # of a pool's connections idle in hand, on average, that is worth a line
AT_LEAST = 60.0  # seconds that the average is of
AGAIN = 600.0  # seconds between two lines about one pool
_SHOWN = 3


class Early:
    """One pool's."""

    def __init__(self) -> None:
        self._next = -math.inf

    def look(self, name: str, size: int, profile: Profile, now: float) -> None:
        """*size*: connections that it may have."""
        if now < self._next or profile.seconds < AT_LEAST or not size:
            return
        idle = profile.idle / profile.seconds
        if idle < QUARTER * size:
            return
        self._next = now + AGAIN
        logger.warning(
            "%s: %.1f of %d connections are in hand with nothing to do, on average over the last %.0f s: %s",
            *(name, idle, size, profile.seconds, _whose(profile)),
        )


def _whose(profile: Profile) -> str:
    sites = profile.idle_sites[:_SHOWN]
    return ", ".join(f"{each.idle / profile.seconds:.1f} taken at {each.site}" for each in sites)
