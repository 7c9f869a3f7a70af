"""How late the event loops of asyncio pools are: what makes every await slow, a checkout among them, though connections
are idle.

A loop is asked to run a function that does nothing, from another thread, about once a second; what matters is when it
gets round to it. A loop that is not running is not asked, and nothing here keeps one alive.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

from .sources import Source, sources

PERIOD = 1.0  # seconds between two questions
REMEMBERED = 60  # answers


@dataclass(slots=True, frozen=True)
class LoopLag:
    """Seconds.

    :ivar last: by which the loop was late, at the last answer; if it has not answered for longer than that, that.
    :ivar stuck: for how long it has owed an answer; 0 while it owes none.
    :ivar worst: within the last minute.
    """

    last: float
    stuck: float
    worst: float


class _Asked:
    """One loop."""

    def __init__(self) -> None:
        self.answers: deque[float] = deque(maxlen=REMEMBERED)
        self.at: float | None = None  # when it was asked what it has not answered
        self.next = 0.0
        self.void = False  # it has not been running all the while

    def answer(self, asked: float) -> None:
        """In the loop."""
        if not self.void:
            self.answers.append(monotonic() - asked)
        self.at, self.void = None, False

    def lag(self, now: float) -> LoopLag | None:
        asked = self.at
        owed = 0.0 if asked is None or self.void else now - asked
        answers = list(self.answers)
        if not answers and not owed:
            return None
        last = max(owed, answers[-1] if answers else 0.0)
        return LoopLag(last, owed, max([last, *answers]))


_asked: WeakKeyDictionary[asyncio.AbstractEventLoop, _Asked] = WeakKeyDictionary()


def ask(now: float, among: Iterable[Source] | None = None) -> None:
    """Ask each loop that owes no answer and has not been asked for a while. Takes microseconds; to be called often."""
    for loop in _loops(sources() if among is None else among):
        asked = _asked.get(loop) or _asked.setdefault(loop, _Asked())
        if not loop.is_running():
            asked.void = asked.at is not None
        elif asked.at is None and now >= asked.next:
            asked.at, asked.next = now, now + PERIOD
            try:
                loop.call_soon_threadsafe(partial(asked.answer, now))
            except RuntimeError:  # closed since
                asked.at = None


def lag(source: Any) -> LoopLag | None:
    """Of the event loop that *source* belongs to; None if it has none, or nothing is known of it yet."""
    loop = _loop(source)
    asked = None if loop is None else _asked.get(loop)
    return None if asked is None else asked.lag(monotonic())


def _loops(among: Iterable[Source]) -> set[asyncio.AbstractEventLoop]:
    found = {_loop(source) for source in among}
    return {loop for loop in found if loop is not None}


def _loop(source: Any) -> asyncio.AbstractEventLoop | None:
    loop = getattr(source, "_loop", None)
    return loop if isinstance(loop, asyncio.AbstractEventLoop) else None
