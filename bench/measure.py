"""How figures are taken: contestants in turn, the garbage collected before each, medians at the end."""

import gc
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from statistics import median
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")

ROUNDS = 7
SECONDS = 0.1  # that one contestant's turn lasts

Cycles = Callable[[int], None]
AsyncCycles = Callable[[int], Awaitable[None]]


def turns(names: Sequence[str], rounds: int) -> Iterator[str]:
    """Whose turn it is: A B C, B C A, ... so that whatever else the machine does hits all alike."""
    for number in range(rounds):
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            gc.collect()
            yield name


def interleave(contestants: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Run every contestant once a round; return what each turn gave."""
    found: dict[str, list[T]] = {name: [] for name in contestants}
    for name in turns(list(contestants), rounds):
        found[name].append(contestants[name]())
    return found


async def interleave_async(contestants: Mapping[str, Callable[[], Awaitable[T]]], rounds: int) -> dict[str, list[T]]:
    """As `interleave`, for coroutine functions in one event loop."""
    found: dict[str, list[T]] = {name: [] for name in contestants}
    for name in turns(list(contestants), rounds):
        found[name].append(await contestants[name]())
    return found


def microseconds(contestants: Mapping[str, Cycles]) -> dict[str, float]:
    """The median time of one cycle. A contestant does as many cycles at a call as it is told."""
    counts = {name: _enough(_timed(cycles, 50) / 50) for name, cycles in contestants.items()}
    found = interleave({name: _turn(cycles, counts[name]) for name, cycles in contestants.items()}, ROUNDS)
    return {name: median(figures) * 1e6 for name, figures in found.items()}


async def microseconds_async(contestants: Mapping[str, AsyncCycles]) -> dict[str, float]:
    """As `microseconds`, for coroutine functions in one event loop."""
    counts = {name: _enough(await _timed_async(cycles, 50) / 50) for name, cycles in contestants.items()}
    found = await interleave_async(
        {name: _turn_async(cycles, counts[name]) for name, cycles in contestants.items()}, ROUNDS
    )
    return {name: median(figures) * 1e6 for name, figures in found.items()}


def quantile(figures: Sequence[float], share: float) -> float:
    """The figure that `share` of all are not above (nearest rank)."""
    return sorted(figures)[max(0, math.ceil(share * len(figures)) - 1)]


def jain(figures: Sequence[float]) -> float:
    """How evenly something was shared out: 1 is perfectly, 1/n is all to one.

    R. Jain, D. Chiu, W. Hawe, "A Quantitative Measure of Fairness", DEC-TR-301, 1984.
    """
    return sum(figures) ** 2 / (len(figures) * sum(figure * figure for figure in figures))


def _enough(seconds: float) -> int:
    return max(1, round(SECONDS / seconds))


def _timed(cycles: Cycles, count: int) -> float:
    started = perf_counter()
    cycles(count)
    return perf_counter() - started


async def _timed_async(cycles: AsyncCycles, count: int) -> float:
    started = perf_counter()
    await cycles(count)
    return perf_counter() - started


def _turn(cycles: Cycles, count: int) -> Callable[[], float]:
    return lambda: _timed(cycles, count) / count


def _turn_async(cycles: AsyncCycles, count: int) -> Callable[[], Awaitable[float]]:
    async def turn() -> float:
        return await _timed_async(cycles, count) / count

    return turn
