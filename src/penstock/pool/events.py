"""What `listen()` tells: each transition of a pool, as a small frozen object.

Times are seconds. A `CallSite` is the line of the user's that asked for the connection.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..core import Reason, Refusal
from .holders import CallSite, Holder


@dataclass(frozen=True)
class Event:
    """Base of all events."""

    pool: str  # its name


@dataclass(frozen=True)
class Opened(Event):
    seconds: float  # that connecting, logging in and configuring took


@dataclass(frozen=True)
class ConnectFailed(Event):
    error: BaseException
    seconds: float


@dataclass(frozen=True)
class Closed(Event):
    reason: Reason


@dataclass(frozen=True)
class Acquired(Event):
    site: CallSite
    waited: float


@dataclass(frozen=True)
class Waited(Acquired):
    """There was none to be had at once."""


@dataclass(frozen=True)
class Returned(Event):
    site: CallSite
    held: float


@dataclass(frozen=True)
class HeldLong(Returned):
    """It was held for more than a second."""


@dataclass(frozen=True)
class Refused(Event):
    site: CallSite
    refusal: Refusal
    waited: float


@dataclass(frozen=True)
class LeakSuspected(Event):
    """A connection has been idle in hand for longer than `leak_after`."""

    holder: Holder


@dataclass(frozen=True)
class OutlivedRequest(Event):
    """The web request that a connection was taken for is over, and it was not given back."""

    holder: Holder
    request: str  # its method and route


@dataclass(frozen=True)
class CameBack(Event):
    """A suspected leak was given back after all."""

    site: CallSite
    held: float


@dataclass(frozen=True)
class TakenBack(Event):
    """The pool took a connection back that its holder would never have returned."""

    site: CallSite
    reason: Reason


@dataclass(frozen=True)
class GaveUp(Event):
    """Connecting failed for `reconnect_timeout`."""

    error: BaseException | None
