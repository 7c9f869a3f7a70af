"""What connections are held for, as found by looking now and then. Who looks is `penstock.observe`'s business."""

from __future__ import annotations

from dataclasses import dataclass
from types import CodeType
from typing import Any, NamedTuple

from .holders import CallSite


class Glance(NamedTuple):
    """A connection in somebody's hands at this moment."""

    code: CodeType | None  # where it was taken, as a lease notes it
    lasti: int
    idle: bool  # no statement runs on it
    statement: Any  # the last one, as the driver was given it


@dataclass(slots=True, frozen=True)
class SiteTime:
    """A line of code, and how long what was taken there was held. Seconds, of all its connections together."""

    site: CallSite
    held: float
    idle: float  # of these, in hand without a statement running


@dataclass(slots=True, frozen=True)
class StatementTime:
    """A statement without its values, and the seconds that it ran, on all connections together."""

    statement: str
    ran: float


@dataclass(slots=True, frozen=True)
class Profile:
    """Of the last `seconds`, about. Divided by these, a time is a number of connections, on average.

    Each list begins with the most, and leaves out the rest.
    """

    seconds: float = 0.0
    held: float = 0.0  # by all lines of code
    idle: float = 0.0
    sites: tuple[SiteTime, ...] = ()  # by time held
    idle_sites: tuple[SiteTime, ...] = ()  # by time held idle in hand
    statements: tuple[StatementTime, ...] = ()


NOTHING = Profile()
