"""When the event loop last looked for what has come, and how long it has waited for that.

An answer is read when the loop gets to it, which under load is long after it came. To charge that time to the server
would make every statement of a busy program look slow. What is certain is this: it had not come when the loop looked
the time before, nor while the loop had nothing to do.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable
from time import thread_time


class Pulse:
    """One event loop's. Times are seconds of *clock*.

    :ivar looked: when it had last looked before the round of callbacks that runs now, or earlier.
    """

    __slots__ = ("_clock", "_due", "_latest", "_loop", "looked")

    def __init__(self, loop: AbstractEventLoop, clock: Callable[[], float]) -> None:
        self._loop = loop
        self._clock = clock
        self._due = False
        self.looked = self._latest = clock()

    def beat(self) -> None:
        """Take note of when the next round begins: what was set to run in this one runs there first."""
        if not self._due:
            self._due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._due = False
        self.looked, self._latest = self._latest, self._clock()


busy = thread_time  # seconds for which this thread has worked, rather than waited
