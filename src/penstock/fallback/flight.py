"""One load under way, and all who wait for it (singleflight, as in Go's groupcache)."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

from .policy import Entry
from .trouble import Trouble


@dataclass(slots=True, frozen=True)
class Outcome:
    """Of a load: the entry, or the error. Neither: look again, as memory has it now or somebody else has to load."""

    entry: Entry | None = None
    error: BaseException | None = None
    trouble: Trouble | None = None
    traceback: TracebackType | None = None  # as it was raised: each reader that it is raised to would add its own


class Flight:
    """`beside`: nobody's thread or task is held up until it lands."""

    __slots__ = ("beside", "future", "runner", "started")

    def __init__(self, started: float, beside: bool) -> None:
        self.started = started
        self.beside = beside
        self.future: Future[Outcome] = Future()
        self.future.set_running_or_notify_cancel()  # no reader that goes away cancels it for the others
        self.runner: object = None  # the thread or task that loads; an event loop itself keeps a task but weakly


class Ticket(NamedTuple):
    """A reader's place in a flight: whether it has to begin it, how long it waits, and what it falls back on."""

    flight: Flight
    leads: bool
    patience: float | None
    entry: Entry | None
