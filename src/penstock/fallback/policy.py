"""What a reader is told, from what is known. Pure: no clock, no lock, no I/O. Times are seconds of one clock."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeVar

from ..core.settings import check_seconds
from .trouble import Trouble

T = TypeVar("T")

PAUSE = 0.25  # seconds after a failed load in which only one tries again


@dataclass(slots=True, frozen=True)
class Answer(Generic[T]):
    """A value, how many seconds ago it was loaded, and whether it stood in for one that should have been loaded."""

    value: T
    age: float
    stood_in: bool


@dataclass(slots=True, frozen=True)
class Entry:
    """A value, and when it was loaded."""

    value: Any
    at: float


@dataclass(slots=True, frozen=True)
class Limits:
    """Up to which age in seconds a value counts as fresh, and up to which it may stand in.

    :raises ValueError: (or TypeError) naming the argument, what was found and what it may be.
    """

    fresh: float
    stale: float

    def __post_init__(self) -> None:
        check_seconds("fresh", self.fresh)
        check_seconds("stale", self.stale)
        if self.stale < self.fresh:
            raise ValueError(f"stale ({self.stale:g} s) must not be less than fresh ({self.fresh:g} s)")

    def but(self, fresh: float | None, stale: float | None) -> Limits:
        """These limits, with what is not None in their place."""
        if fresh is None and stale is None:
            return self
        return Limits(self.fresh if fresh is None else fresh, self.stale if stale is None else stale)


class Do(Enum):
    """What becomes of a reader."""

    ANSWER = "with what is there"
    LOAD = "load, and wait for it as without a cache"
    TRY = "load beside the reader, who waits for a moment only"
    REFUSE = "at once"


def decide(age: float | None, limits: Limits, *, down: bool, resting: bool) -> Do:
    """*age*: of the value in the cache, if any. *down*: the database is. *resting*: no load should begin now."""
    if age is not None and age < limits.fresh:
        return Do.ANSWER
    stands_in = age is not None and age <= limits.stale
    if not stands_in and not down:
        return Do.LOAD
    if not resting:
        return Do.TRY
    return Do.ANSWER if stands_in else Do.REFUSE


class Health:
    """What the last loads say of the database.

    After a failure nobody tries for a `PAUSE`, then one does; the first success ends it. The database counts as down
    when the pool says so, or when two connections in a row were lost: a single one may have been ended by hand.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None  # of the last load, if it failed
        self.down = False
        self._lost = False
        self._retry_at = -math.inf

    def resting(self, now: float) -> bool:
        return self.error is not None and now < self._retry_at

    def trying(self, now: float) -> None:
        """Somebody does: others wait and see."""
        self._retry_at = now + PAUSE

    def failed(self, error: BaseException, trouble: Trouble, now: float) -> None:
        self.down = trouble is Trouble.DOWN or (trouble is Trouble.LOST and self._lost)
        self._lost = trouble is not Trouble.BUSY
        self.error = error
        self._retry_at = now + PAUSE

    def worked(self) -> None:
        self.error = None
        self.down = self._lost = False
