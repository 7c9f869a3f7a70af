"""Waiting for what is about to happen, with a bound."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

PAUSE = 0.002
FORGIVEN = 0.1  # at most, of one pause that took longer: beyond that it is our own event loop that stood still


class Patience:
    """So many seconds, of which those do not count in which a busy machine let us not run."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.started = self._looked = time.monotonic()
        self._late = 0.0

    def look(self) -> None:
        """Before each pause."""
        self._looked = time.monotonic()
        assert self._looked - self.started - self._late < self.seconds, f"still not so after {self.seconds:g} s"

    def paused(self) -> None:
        """After it."""
        self._late += min(max(0.0, time.monotonic() - self._looked - PAUSE), FORGIVEN)

    def took(self) -> float:
        return time.monotonic() - self.started


def eventually(condition: Callable[[], object], seconds: float = 5.0) -> float:
    """Wait until *condition* is true; fails after *seconds*. Returns how long that took."""
    patience = Patience(seconds)
    while not condition():
        patience.look()
        time.sleep(PAUSE)
        patience.paused()
    return patience.took()


async def soon(condition: Callable[[], object], seconds: float = 5.0) -> float:
    """As `eventually`, while the event loop goes on."""
    patience = Patience(seconds)
    while not condition():
        patience.look()
        await asyncio.sleep(PAUSE)
        patience.paused()
    return patience.took()


def aside(job: Callable[[], T]) -> "Future[T]":
    """Run *job* in a thread of its own; its result, or what it raised, is the future's."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(job())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
