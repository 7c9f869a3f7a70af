"""Some contestants wait for ever. The table does not."""

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


class Stuck(Exception):
    """It was still at it when our patience ended."""


def within(seconds: float, work: Callable[[], T]) -> T:
    """What `work` returns or raises, done in a thread of its own. Raises Stuck when it takes longer."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    if wait_for([future], seconds).not_done:
        raise Stuck(f"still waiting after {seconds:g} s")
    return future.result()


def at_once(count: int, work: Callable[[int], None]) -> None:
    """Run `work` in `count` threads, each with its number; return when they have ended, or after 15 s."""
    threads = [Thread(target=work, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
