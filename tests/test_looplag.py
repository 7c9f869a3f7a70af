"""An event loop that is late is told apart from a pool that is exhausted, by figures that cost it nothing."""

import asyncio
import gc
import threading
import time
import weakref
from typing import Any

import pytest

from penstock.observe import looplag
from support.waiting import eventually, soon


class InLoop:
    """What belongs to an event loop, as an asyncio pool does."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loop = loop


def ask(source: Any, now: float | None = None) -> None:
    looplag.ask(time.monotonic() if now is None else now, [source])


def test_a_loop_that_runs_is_not_late() -> None:
    async def run() -> looplag.LoopLag | None:
        source = InLoop(asyncio.get_running_loop())
        await asyncio.to_thread(ask, source)
        await soon(lambda: looplag.lag(source) is not None)
        return looplag.lag(source)

    lag = asyncio.run(run())
    assert lag is not None
    assert lag.stuck == 0
    assert lag.last < 1


def test_a_loop_that_stands_still_is_late_while_it_does_and_has_been_afterwards() -> None:
    def seen(source: InLoop) -> looplag.LoopLag:
        ask(source)
        eventually(lambda: (lag := looplag.lag(source)) is not None and lag.stuck > 0.2)
        lag = looplag.lag(source)
        assert lag is not None
        return lag

    async def run() -> tuple[looplag.LoopLag, looplag.LoopLag]:
        source = InLoop(asyncio.get_running_loop())
        found: list[looplag.LoopLag] = []
        looking = threading.Thread(target=lambda: found.append(seen(source)))
        looking.start()
        looking.join(10)  # the loop stands still here
        await soon(lambda: (lag := looplag.lag(source)) is not None and not lag.stuck)
        after = looplag.lag(source)
        assert after is not None
        return found[0], after

    meanwhile, after = asyncio.run(run())
    assert meanwhile.last == meanwhile.worst == meanwhile.stuck > 0.2
    assert after.worst >= meanwhile.stuck
    assert after.stuck == 0


def test_a_loop_that_does_not_run_is_not_late() -> None:
    """Between two calls of `run_until_complete` nobody waits for it."""
    loop = asyncio.new_event_loop()
    source = InLoop(loop)
    ask(source)
    assert looplag.lag(source) is None

    async def be_asked() -> None:
        await asyncio.to_thread(ask, source)  # answered, or left unanswered as it stops

    loop.run_until_complete(be_asked())
    ask(source)  # it does not run: what it owes does not count
    time.sleep(0.05)
    loop.run_until_complete(asyncio.sleep(0))
    lag = looplag.lag(source)
    assert lag is None or lag.worst < 0.05
    loop.close()
    ask(source)


def test_a_loop_is_asked_once_a_second_and_not_again_before_it_has_answered() -> None:
    async def run() -> int:
        loop = asyncio.get_running_loop()
        source, asked = InLoop(loop), 0
        original = loop.call_soon_threadsafe

        def counting(*args: Any, **options: Any) -> Any:
            nonlocal asked
            asked += 1
            return original(*args, **options)

        loop.call_soon_threadsafe = counting  # type: ignore[method-assign]
        now = time.monotonic()
        for step in range(20):  # two seconds of looks, in none of which it can answer
            ask(source, now + step / 10)
        await asyncio.sleep(0)
        ask(source, now + looplag.PERIOD - 0.01)
        ask(source, now + looplag.PERIOD)
        return asked

    assert asyncio.run(run()) == 2


def test_nothing_keeps_a_loop_alive() -> None:
    async def be_asked() -> None:
        source = InLoop(asyncio.get_running_loop())
        await asyncio.to_thread(ask, source)
        await soon(lambda: looplag.lag(source) is not None)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(be_asked())
    gone = weakref.ref(loop)
    loop.close()
    del loop
    eventually(lambda: gc.collect() is not None and gone() is None)


@pytest.mark.parametrize("source", [InLoop(None), object()])
def test_what_has_no_loop_has_no_lag(source: Any) -> None:
    ask(source)
    assert looplag.lag(source) is None
