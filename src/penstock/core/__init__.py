"""The pool as a pure state machine: events in, effects out. No clock, lock, socket or thread.

A shell (`penstock.pool`) tells the `Core` what happened and when, under whatever lock the shell needs, then carries out
the effects that the core has written down, outside that lock. Every decision is made here; every wait is made there.
"""

from .admission import LONG, Forecast
from .durations import BOUNDS, NONE, Histogram
from .effects import Close, Doubt, Effect, Empty, Full, GaveUp, Open, Wake
from .machine import Core
from .pace import Pace, Verdict
from .queue import Priority
from .settings import Multiplex, Overload, Settings
from .slots import SLOW, Reason, Refusal, Slot, State, Waiter

__all__ = [
    "BOUNDS",
    "LONG",
    "NONE",
    "SLOW",
    "Close",
    "Core",
    "Doubt",
    "Effect",
    "Empty",
    "Forecast",
    "Full",
    "GaveUp",
    "Histogram",
    "Multiplex",
    "Open",
    "Overload",
    "Pace",
    "Priority",
    "Reason",
    "Refusal",
    "Settings",
    "Slot",
    "State",
    "Verdict",
    "Waiter",
    "Wake",
]
