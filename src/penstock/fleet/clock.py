"""A clock that goes on while the machine sleeps: a process that was frozen must know how old its claim is."""

from __future__ import annotations

import time


def clock() -> float:
    """Seconds since some moment."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.time()
