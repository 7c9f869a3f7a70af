"""What the core asks its shell to do. An effect is carried out once, in order, outside the shell's lock."""

from __future__ import annotations

from dataclasses import dataclass

from .slots import Reason, Slot, Waiter


@dataclass(frozen=True)
class Open:
    """Connect for this slot, then report `opened` or `failed`."""

    slot: Slot


@dataclass(frozen=True)
class Close:
    """Close this slot's connection, then report `closed`."""

    slot: Slot
    reason: Reason


@dataclass(frozen=True)
class Wake:
    """Call `tick` at this time, or earlier."""

    at: float


@dataclass(frozen=True)
class Doubt:
    """A connection was proven dead: claim the idle ones with `doubt` and find out which of them still answer."""


@dataclass(frozen=True)
class GaveUp:
    """Connecting has failed for `reconnect_timeout`; nothing is tried again until somebody asks for a connection."""


@dataclass(frozen=True)
class Full:
    """`min_size` connections are idle: whoever waits for that can go on."""


@dataclass(frozen=True)
class Empty:
    """The pool is closed and everything that it lent has come back."""


# A waiter among the effects is settled and to be woken. It is by far the most frequent, so it is not wrapped.
Effect = Waiter | Open | Close | Wake | Doubt | GaveUp | Full | Empty
