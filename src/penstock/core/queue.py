"""Who waits for a connection, and who is next.

Priorities first; within one, first come first served. Two things bend that order, each for a reason:

* Every `TURN`-th connection goes to whoever has waited longest of all, so that no priority starves another.
* While a backlog is worked off, those who declared a deadline are served newest first: the oldest of them have spent
  theirs. Who declared none keeps the turn that first come first served would have given.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from enum import IntEnum
from itertools import chain, count, takewhile
from typing import NamedTuple

from .slots import Waiter

TURN = 8

Lane = OrderedDict[Waiter, None]


class Priority(IntEnum):
    """Who is served first and shed last."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


class Lanes(NamedTuple):
    """Those of one priority, each in the order in which they came."""

    patient: Lane  # who declared no deadline
    hurried: Lane


class Queue:
    """All who wait. A waiter whose key has all the connections that it may have stands aside until one comes back."""

    def __init__(self) -> None:
        self._lanes = tuple(Lanes(OrderedDict(), OrderedDict()) for _ in Priority)
        self._aside: dict[Hashable, Lane] = {}
        self._entered = 0
        self._numbers = count(1)
        self._turns = 0
        self.size = 0  # as `len`, without the call
        self.ready = 0  # those who do not stand aside
        self.sharing = 0  # of these, those who share
        # Where everybody is who asks for nothing special: most queues are nothing else.
        self._usual = self._lanes[Priority.NORMAL].patient

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Waiter]:
        return chain(*chain.from_iterable(self._lanes), *self._aside.values())

    def __contains__(self, waiter: Waiter | None) -> bool:
        return waiter is not None and waiter.lane is not None

    def push(self, waiter: Waiter, first: bool = False) -> None:
        """*first*: before all others of its priority, in any order."""
        patient, hurried = self._lanes[waiter.priority]
        lane = waiter.lane = hurried if waiter.declared and not first else patient
        waiter.ticket = -1 if first else self._entered
        waiter.came = waiter.came or next(self._numbers)
        lane[waiter] = None
        if first:
            self._to_front(waiter)
        self._entered += 1
        self.size += 1
        self.ready += 1
        self.sharing += waiter.shares

    def remove(self, waiter: Waiter) -> None:
        lane, waiter.lane = waiter.lane, None
        assert lane is not None, f"bug: {waiter!r} does not wait"
        del lane[waiter]
        self.size -= 1
        if waiter.aside:
            waiter.aside = False
            if not lane:
                del self._aside[waiter.key]
        else:
            self.ready -= 1
            self.sharing -= waiter.shares

    def next(
        self, newest_first: bool, only_high: bool, only_if: Callable[[Waiter], bool] | None = None
    ) -> Waiter | None:
        """Who is next, and no longer waits. *newest_first*: of those who declared a deadline.

        *only_if*: nobody, unless this is true of whoever is next.
        """
        if self.ready == len(self._usual) and not only_high:
            if not self.ready or (only_if is not None and not only_if(next(iter(self._usual)))):
                return None
            waiter, _ = self._usual.popitem(last=False)
            waiter.lane = None
            self.size -= 1
            self.ready -= 1
            self.sharing -= waiter.shares
            return waiter
        chosen = self._next(newest_first, self._lanes[:1] if only_high else self._lanes)
        if chosen is not None and only_if is not None and not only_if(chosen):
            self._turns -= 1  # it keeps its turn
            return None
        if chosen is not None:
            self.remove(chosen)
        return chosen

    def _next(self, newest_first: bool, all_lanes: tuple[Lanes, ...]) -> Waiter | None:
        waiting = [lanes for lanes in all_lanes if lanes.patient or lanes.hurried]
        if not waiting:
            return None
        self._turns += 1
        if len(waiting) > 1 and self._turns % TURN == 0:
            return min(chain.from_iterable(map(_heads, waiting)), key=_came)
        patient, hurried = waiting[0]
        if not hurried:
            return next(iter(patient))
        head = next(iter(hurried))
        if patient:
            turn = next(iter(patient))
            # In the order of coming, all who came before it have left the queue by the time that it is its turn.
            left = self._entered - self.size
            if turn.ticket < head.ticket or (newest_first and turn.ticket <= left):
                return turn
        return next(reversed(hurried)) if newest_first else head

    def stand_aside(self, waiter: Waiter) -> None:
        """After `next`: its key has all that it may have. It waits on, first of its key to be called back."""
        lane = waiter.lane = self._aside.setdefault(waiter.key, OrderedDict())
        lane[waiter] = None
        waiter.aside = True
        self.size += 1

    def call_back(self, key: Hashable) -> bool:
        """One connection of this key has come back: the first of those aside waits in turn again. Whether one did."""
        aside = self._aside.get(key)
        if not aside:
            return False
        waiter = min(aside, key=_rank)
        self.remove(waiter)
        self._entered -= 1  # it has been counted
        self.push(waiter, first=True)
        # Others may have been called back before, and wait still: they are served as they came.
        lane: Lane = waiter.lane or OrderedDict()
        for other in sorted(takewhile(lambda other: other.ticket == waiter.ticket, lane), key=_rank, reverse=True):
            self._to_front(other)
        return True

    def _to_front(self, waiter: Waiter) -> None:
        assert waiter.lane is not None, f"bug: {waiter!r} does not wait"
        waiter.lane.move_to_end(waiter, last=False)

    def aside_for(self, key: Hashable) -> int:
        """How many of this key stand aside."""
        return len(self._aside.get(key, ()))

    def heads(self) -> list[Waiter]:
        """The first of every lane."""
        return [head for lanes in self._lanes for head in _heads(lanes)]

    def last_below(self, priority: int, everybody: bool) -> Waiter | None:
        """Below *priority*, the lowest first, who came last; of those who declared a deadline unless *everybody*."""
        for lanes in reversed(self._lanes[priority + 1 :]):
            for lane in lanes if everybody else lanes[1:]:
                if lane:
                    return next(reversed(lane))
        return None

    def ahead_of(self, waiter: Waiter) -> int:
        """How many are served before somebody of its priority who comes now."""
        behind = self._lanes[waiter.priority + 1 :]
        return self.ready - sum(len(patient) + len(hurried) for patient, hurried in behind)


def _heads(lanes: Lanes) -> list[Waiter]:
    return [next(iter(lane)) for lane in lanes if lane]


def _rank(waiter: Waiter) -> tuple[int, int]:
    return waiter.priority, waiter.came


def _came(waiter: Waiter) -> float:
    return waiter.since
