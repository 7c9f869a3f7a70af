"""What can be done is measured first, then more than that is asked for, of one contestant after the other."""

import asyncio
import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from bench.context import Context
from bench.openloop import Load, Work, capacity, capacity_in_threads, offer, offer_in_threads, poisson
from bench.overloaded import DEADLINE, REFUSED, SIZE, Opened, OpenedThreaded
from bench.report import duration

WARM_UP = 1.5  # seconds until a queue that nobody sheds is as long as the deadline, at 1.5x
CLOSED_SECONDS = 2.0


class Figures(NamedTuple):
    """What one turn, or the median of several, came to. Times in seconds."""

    share: float  # answers within the deadline, of the capacity
    p99: float  # of whatever was answered, in time or not
    p99_at_first: float  # of those who came while the queue was growing
    told: float  # how long a refusal took, from the first on: the median
    told_p99: float
    told_worst: float  # over all rounds
    late: float  # how late the generator was: p99
    cpu: float  # of one core: the client's


@dataclass(frozen=True, slots=True)
class Contestant:
    """What it can do in a closed loop of so many seconds, and what becomes of a schedule."""

    closed: Callable[[float], float]
    load: Callable[[Sequence[float]], Load]


def tasks(dsn: str, opened: Opened, work: Work) -> Contestant:
    """A contestant under asyncio, its pool opened anew for each turn."""

    async def closed(seconds: float) -> float:
        async with opened(dsn, work) as ask:
            return await capacity(ask, REFUSED, work, 2 * SIZE, seconds)

    async def load(schedule: Sequence[float]) -> Load:
        async with opened(dsn, work) as ask:
            return await offer(schedule, ask, REFUSED, DEADLINE)

    return Contestant(lambda seconds: asyncio.run(closed(seconds)), lambda schedule: asyncio.run(load(schedule)))


def threads(dsn: str, opened: OpenedThreaded, work: Work, workers: int) -> Contestant:
    """A contestant under that many threads, its pool opened anew for each turn."""

    def closed(seconds: float) -> float:
        with opened(dsn, work) as ask:
            return capacity_in_threads(ask, REFUSED, work, 2 * SIZE, seconds)

    def load(schedule: Sequence[float]) -> Load:
        with opened(dsn, work) as ask:
            return offer_in_threads(schedule, ask, REFUSED, DEADLINE, workers)

    return Contestant(closed, load)


def compare(
    ctx: Context,
    contestants: Mapping[str, Contestant],
    work: Work,
    factors: Sequence[float],
    rounds: int,
    seconds: float,
) -> dict[float, dict[str, Figures]]:
    """Every contestant under every factor of the capacity, once a round; medians by factor and name."""
    found: dict[float, dict[str, list[Figures]]] = {factor: {name: [] for name in contestants} for factor in factors}
    for number in range(rounds):
        best = measured(ctx, contestants, work)
        for factor in factors:
            schedule = poisson(factor * best / mean(work), WARM_UP + seconds, seed=number)
            for name in rotated(list(contestants), number):
                gc.collect()
                load = contestants[name].load(schedule)
                found[factor][name].append(_figures(load, work, best, WARM_UP, WARM_UP + seconds))
                ctx.say(f"{factor:g}x, {name}: {told(load)}")
    return {factor: {name: _medians(each) for name, each in by_name.items()} for factor, by_name in found.items()}


def measured(ctx: Context, contestants: Mapping[str, Contestant], work: Work) -> float:
    """What can be done: the best that any of them does in a closed loop. In seconds of work a second."""
    best = max(contestant.closed(CLOSED_SECONDS) for contestant in contestants.values())
    ctx.say(f"capacity: {best / mean(work):.0f}/s, {best:.2f} of {SIZE} connections at work")
    return best


def mean(work: Work) -> float:
    """Seconds of work that a request comes to."""
    return sum(map(work, range(10_000))) / 10_000


def rotated(names: Sequence[str], number: int) -> list[str]:
    """Whose turn it is in this round: A B C, B C A, ..."""
    first = number % len(names)
    return [*names[first:], *names[:first]]


def told(load: Load) -> str:
    """What became of a load, and how late the generator was at its latest."""
    fates = ", ".join(f"{count:,} {fate}" for fate, count in load.fates().most_common())
    return f"{fates}; generator late by {duration(load.late(0.99))} (p99), {duration(load.late(1.0))} (worst)"


def _figures(load: Load, work: Work, best: float, since: float, until: float) -> Figures:
    """*best*: the capacity. From *since* to *until* the load was steady."""
    return Figures(
        load.useful_work(work, since, until) / best,
        load.answered_after(0.99, since, until),
        load.answered_after(0.99, 0.0, since),
        load.told_after(0.5),
        load.told_after(0.99),
        load.told_after(1.0),
        load.late(0.99),
        load.cpu,
    )


def _medians(rounds: Sequence[Figures]) -> Figures:
    middle = Figures(*map(median, zip(*rounds, strict=True)))
    return middle._replace(told_worst=max(one.told_worst for one in rounds))
