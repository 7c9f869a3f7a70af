"""An asyncio event loop without a clock of its own: when nothing is ready, time jumps to the next timer.

An hour of waiting costs nothing, and nothing depends on how busy the machine is. With a seed, whatever is ready runs in
an order drawn from it, one callback at a time; without one, in asyncio's own order. Either way a run can be repeated.
"""

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

START = 1000.0


class Stalled(Exception):
    """Nothing is ready and no timer runs: what is awaited will never happen."""


class VirtualLoop(asyncio.BaseEventLoop):
    """*on_step* is called after each callback: the place for invariants, and for whatever may strike at any moment."""

    # The base class's own, which its stubs do not tell of.
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        self.steps = 0
        self.on_step: Callable[[], None] | None = None
        self.unhandled: list[BaseException] = []
        self._now = START
        self._random = None if seed is None else random.Random(seed)
        self.set_exception_handler(self._note_unhandled)

    def time(self) -> float:
        return self._now

    def _note_unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.unhandled.append(context.get("exception") or RuntimeError(context["message"]))

    def _run_once(self) -> None:
        self._forget_cancelled_timers()
        if not self._ready:
            if not self._scheduled:
                raise Stalled
            self._now = max(self._now, self._scheduled[0].when())
        while self._scheduled and self._scheduled[0].when() <= self._now:
            self._ready.append(heapq.heappop(self._scheduled))
        if self._random is not None and len(self._ready) > 1:
            self._ready.rotate(-self._random.randrange(len(self._ready)))
        handle = self._ready.popleft()
        if handle.cancelled():
            return
        handle._run()
        self.steps += 1
        if self.on_step is not None:
            self.on_step()

    def _forget_cancelled_timers(self) -> None:
        while self._scheduled and self._scheduled[0].cancelled():
            heapq.heappop(self._scheduled)

    def _write_to_self(self) -> None:
        """Wakes a loop that sleeps in the kernel; this one never does."""


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]], seed: int | None = None) -> T:
    """Run *main* to its end, then whatever it has left behind. An error that nobody has looked at is raised here."""
    loop = VirtualLoop(seed)
    try:
        result = loop.run_until_complete(main(loop))
    finally:
        loop.on_step = None
        _end_tasks(loop)
        loop.close()
    if loop.unhandled:
        raise loop.unhandled[0]
    return result


def _end_tasks(loop: VirtualLoop) -> None:
    for _ in range(5):  # the end of one may be the beginning of another
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks))
