"""Waiting for what is about to happen, with a bound."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

PAUSE = 0.002


def eventually(condition: Callable[[], object], seconds: float = 5.0) -> float:
    """Wait until *condition* is true; fails after *seconds*. Returns how long that took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"still not so after {seconds:g} s"
        time.sleep(PAUSE)
    return time.monotonic() - started


async def soon(condition: Callable[[], object], seconds: float = 5.0) -> float:
    """As `eventually`, while the event loop goes on."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"still not so after {seconds:g} s"
        await asyncio.sleep(PAUSE)
    return time.monotonic() - started


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
