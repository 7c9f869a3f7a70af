"""What there is to be alarmed about, what explains what, and what an alert says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ...core.settings import check_count, check_seconds


class Kind(Enum):
    """In this order: whoever comes first is the root of what comes later."""

    DATABASE_DOWN = "database down"
    BREAKER_OPEN = "breaker open"
    LOOP_STARVING = "event loop starving"
    LEAK = "leak suspected"
    FLEET_LINE = "near the fleet's line"
    UTILISATION = "utilisation"
    WAITERS = "waiters"
    TIMEOUTS = "acquire timeouts"


_FAULTS = frozenset({Kind.DATABASE_DOWN, Kind.BREAKER_OPEN, Kind.LOOP_STARVING})

# While one of these is so, its consequence is no alert of its own. A leak explains what it does only as far as it does
# it, so the figures are looked at without the connections that were leaked (`judge`).
EXPLAINED_BY = {
    Kind.DATABASE_DOWN: frozenset[Kind](),
    Kind.BREAKER_OPEN: frozenset({Kind.DATABASE_DOWN}),
    Kind.LOOP_STARVING: frozenset[Kind](),
    Kind.LEAK: frozenset({Kind.LOOP_STARVING}),
    Kind.FLEET_LINE: _FAULTS,
    Kind.UTILISATION: _FAULTS | {Kind.FLEET_LINE},
    Kind.WAITERS: _FAULTS | {Kind.FLEET_LINE, Kind.UTILISATION},
    Kind.TIMEOUTS: _FAULTS | {Kind.FLEET_LINE, Kind.UTILISATION, Kind.WAITERS},
}

# Seconds for which it must be so. What has averages in its condition needs none beyond them. Waiters and timeouts wait
# until it is clear whether there is more to it.
RAISED_AFTER = {
    Kind.DATABASE_DOWN: 2.0,
    Kind.BREAKER_OPEN: 2.0,
    Kind.LOOP_STARVING: 2.0,
    Kind.LEAK: 0.0,
    Kind.FLEET_LINE: 0.0,
    Kind.UTILISATION: 0.0,
    Kind.WAITERS: 10.0,
    Kind.TIMEOUTS: 10.0,
}
CLEARED_AFTER = 10.0  # seconds for which it must not be so


@dataclass(slots=True, frozen=True)
class Thresholds:
    """From where on something is alarming.

    :param utilisation: share of the pool's connections in use, on average over 10 s.
    :param waiters: requests that wait for a connection, on average over 10 s.
    :param loop_lag: seconds by which the event loop is late, on average over 5 s.
    :param fleet: share of the fleet's budget that is claimed.
    :raises ValueError: (or TypeError) naming the argument, what was found and what it may be.
    """

    utilisation: float = 0.8
    waiters: int = 10
    loop_lag: float = 0.1
    fleet: float = 0.9

    def __post_init__(self) -> None:
        for name, share in (("utilisation", self.utilisation), ("fleet", self.fleet)):
            if not isinstance(share, int | float) or not 0 < share <= 1:
                raise ValueError(f"{name} must be a share above 0 and up to 1, such as 0.8, not {share!r}")
        check_count("waiters", self.waiters, at_least=0)
        check_seconds("loop_lag", self.loop_lag)


@dataclass(slots=True, frozen=True)
class Alert:
    """Something to be alarmed about, or, with *cleared*, no more.

    :ivar at: when it was raised, in seconds of the epoch.
    :ivar why: one line.
    :ivar cleared: when it was cleared; None while it lasts.
    :ivar worse: it was raised before, and has come to hold up requests since: told once more.
    """

    pool: str
    kind: Kind
    at: float
    why: str
    in_use: int
    idle: int
    max_size: int
    waiting: int
    cleared: float | None = None
    worse: bool = False

    @property
    def state(self) -> str:
        """In one word."""
        return "cleared" if self.cleared is not None else "worse" if self.worse else "raised"

    def __str__(self) -> str:
        """Structured, one line: the pool's name first, why last."""
        figures = f"in_use={self.in_use} idle={self.idle} max={self.max_size} waiting={self.waiting}"
        return f'{self.pool}: alert="{self.kind.value}" state={self.state} {figures} why="{self.why}"'

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "pool": self.pool,
            "kind": self.kind.value,
            "state": self.state,
            "at": self.at,
            "cleared": self.cleared,
            "why": self.why,
            "in_use": self.in_use,
            "idle": self.idle,
            "max": self.max_size,
            "waiting": self.waiting,
        }
