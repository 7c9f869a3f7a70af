"""Open-loop load: requests come at times drawn beforehand, however long the answers take.

A closed loop, where each client waits for its answer before it asks again, cannot overload anything: it slows down with
the pool. And time counts from when a request was to come, not from when the generator got round to it, so that a
generator that falls behind makes the figures worse, never better (no "coordinated omission").
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from queue import SimpleQueue
from threading import Thread
from time import perf_counter, process_time
from typing import NamedTuple

from bench.measure import quantile

ANSWERED = "answered"
UNFINISHED = "unfinished"
PATIENT = 60.0  # seconds that a closed loop would wait

Ask = Callable[[int, float], Awaitable[int]]
"""Takes a request's number and the seconds that it has left; the right answer is the number."""
AskInThread = Callable[[int, float], int]
Refused = tuple[type[Exception], ...]
Work = Callable[[int], float]
"""Takes a request's number; how many seconds its statement takes."""


class Outcome(NamedTuple):
    """What became of one request. Times in seconds."""

    number: int
    at: float  # when it was to come, since the load began
    lag: float  # how much later it was sent
    took: float  # from when it was to come until it was answered, or told that it would not be
    fate: str  # ANSWERED, UNFINISHED, or the name of the error


@dataclass(frozen=True, slots=True)
class Load:
    """What became of all requests, and how busy the process that sent them was."""

    outcomes: list[Outcome]
    deadline: float
    cpu: float  # of one core

    def useful(self, outcome: Outcome) -> bool:
        """Whether it was answered in time."""
        return outcome.fate == ANSWERED and outcome.took <= self.deadline

    def useful_work(self, work: Work, since: float, until: float) -> float:
        """Seconds of work a second that was done between two points of time and answered in time."""
        given = [one for one in self.outcomes if since <= one.at + one.took < until]
        return sum(work(one.number) for one in given if self.useful(one)) / (until - since)

    def useful_share(self, since: float, until: float, of: Callable[[int], bool] = lambda number: True) -> float:
        """The share of those that came between two points of time that were answered in time. NaN if none came."""
        came = [one for one in self.outcomes if since <= one.at < until and of(one.number)]
        return sum(map(self.useful, came)) / len(came) if came else float("nan")

    def recovered(self, at: float, until: float, window: float, share: float) -> float:
        """Seconds from *at* until *share* of those that came were answered in time, and in every window from then on.

        Infinity when that was not so in the last window.
        """
        begins = [at + window * number for number in range(int((until - at) / window + 1e-9))]
        good = [self.useful_share(begin, begin + window) >= share for begin in begins]
        bad = [number for number, well in enumerate(good) if not well]
        return 0.0 if not bad else begins[bad[-1] + 1] - at if bad[-1] + 1 < len(begins) else float("inf")

    def answered_after(self, share: float, since: float, until: float) -> float:
        """The time that *share* of those answered at all did not exceed, who came between two points of time.

        NaN if none was.
        """
        came = [one for one in self.outcomes if since <= one.at < until]
        return _quantile([one.took for one in came if one.fate == ANSWERED], share)

    def told_after(self, share: float) -> float:
        """The time that *share* of those did not exceed who were refused, timed out or cut off. NaN if none was."""
        return _quantile([one.took for one in self.outcomes if one.fate != ANSWERED], share)

    def late(self, share: float) -> float:
        """How late the generator was, which has to be next to nothing for the rest to mean anything."""
        return _quantile([one.lag for one in self.outcomes], share)

    def fates(self) -> Counter[str]:
        """How many requests ended in which way."""
        return Counter(one.fate for one in self.outcomes)


def _quantile(figures: list[float], share: float) -> float:
    return quantile(figures, share) if figures else float("nan")


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """When requests come that know nothing of each other: *rate* a second, the same for the same seed."""
    draw = random.Random(seed)
    times: list[float] = []
    at = draw.expovariate(rate)
    while at < seconds:
        times.append(at)
        at += draw.expovariate(rate)
    return times


async def capacity(ask: Ask, refused: Refused, work: Work, clients: int, seconds: float) -> float:
    """Seconds of work a second in a closed loop of *clients*, more than there are connections.

    They have all the time in the world; whoever is refused all the same asks again.
    """
    began = perf_counter()
    answered: list[tuple[float, int]] = []
    numbers = count()

    async def client() -> None:
        while perf_counter() - began < seconds:
            number = next(numbers)
            try:
                answer = await ask(number, PATIENT)
            except refused:
                await asyncio.sleep(0.001)
                continue
            assert answer == number, "a wrong answer"
            answered.append((perf_counter(), number))

    await asyncio.gather(*(client() for _ in range(clients)))
    return _rate(answered, work, began, seconds)


def capacity_in_threads(ask: AskInThread, refused: Refused, work: Work, clients: int, seconds: float) -> float:
    """As `capacity`, with a thread for each client."""
    began = perf_counter()
    answered: list[tuple[float, int]] = []

    def client(first: int) -> None:
        for number in count(first, clients):
            if perf_counter() - began >= seconds:
                return
            with suppress(*refused):
                assert ask(number, PATIENT) == number, "a wrong answer"
                answered.append((perf_counter(), number))

    with ThreadPoolExecutor(clients) as executor:
        list(executor.map(client, range(clients)))
    return _rate(answered, work, began, seconds)


def _rate(answered: list[tuple[float, int]], work: Work, began: float, seconds: float) -> float:
    """Without the beginning, when nobody has an answer yet, and the end, when fewer and fewer ask."""
    steady = sorted(one for one in answered if began + seconds / 5 <= one[0] < began + seconds)
    return sum(work(number) for _, number in steady[1:]) / (steady[-1][0] - steady[0][0])


async def offer(
    schedule: Sequence[float],
    ask: Ask,
    refused: Refused,
    deadline: float,
    began: float | None = None,
) -> Load:
    """Send the requests when they are due; return what became of them.

    Errors other than *refused* are the bench's own mistake, or nothing that the claim is about: they are raised.
    Whoever is not done two seconds after the last one's deadline is cancelled and counts as unfinished. *began*: when
    the schedule's time is 0, by `perf_counter`; by default now.
    """
    outcomes: list[Outcome] = []
    began = perf_counter() if began is None else began
    cpu = process_time()

    async def request(number: int, at: float) -> None:
        sent = perf_counter() - began
        fate = UNFINISHED
        try:
            answer = await ask(number, max(at + deadline - sent, 0.001))
            assert answer == number, "a wrong answer"
            fate = ANSWERED
        except refused as error:
            fate = type(error).__name__
        finally:
            outcomes.append(Outcome(number, at, sent - at, perf_counter() - began - at, fate))

    tasks: list[asyncio.Task[None]] = []
    for number, at in enumerate(schedule):
        await asyncio.sleep(max(0.0, began + at - perf_counter()))
        tasks.append(asyncio.create_task(request(number, at)))
    load = Load(outcomes, deadline, (process_time() - cpu) / (perf_counter() - began))
    _, unfinished = await asyncio.wait(tasks, timeout=deadline + 2.0)
    for task in unfinished:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(ended, Exception):
            raise ended
    assert len(outcomes) == len(schedule), "a request was lost"
    return load


def offer_in_threads(
    schedule: Sequence[float],
    ask: AskInThread,
    refused: Refused,
    deadline: float,
    workers: int,
    began: float | None = None,
) -> Load:
    """As `offer`, for *workers* threads that take requests off one queue, as a WSGI server's do.

    Waiting for a worker counts: it is a part of the request's time, and shows as its lag.
    """
    outcomes: list[Outcome] = []
    errors: list[Exception] = []
    queue: SimpleQueue[tuple[int, float] | None] = SimpleQueue()
    began = perf_counter() + 0.2 if began is None else began  # every worker is there by then

    def worker() -> None:
        while (request := queue.get()) is not None:
            number, at = request
            sent = perf_counter() - began
            try:
                answer = ask(number, max(at + deadline - sent, 0.001))
                assert answer == number, "a wrong answer"
                fate = ANSWERED
            except refused as error:
                fate = type(error).__name__
            except Exception as error:
                errors.append(error)
                fate = type(error).__name__
            outcomes.append(Outcome(number, at, sent - at, perf_counter() - began - at, fate))

    threads = [Thread(target=worker, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    time.sleep(max(0.0, began - perf_counter()))
    cpu = process_time()
    for number, at in enumerate(schedule):
        time.sleep(max(0.0, began + at - perf_counter()))
        queue.put((number, at))
    load = Load(outcomes, deadline, (process_time() - cpu) / (perf_counter() - began))
    for _ in threads:
        queue.put(None)
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    assert len(outcomes) == len(schedule), "a request was lost"
    return load
