"""The smallest pool that has every kind of trouble: two connections, three tasks. All orders of events."""

import asyncio
import logging
import math
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest

from penstock import PoolError
from penstock.core import Reason, Settings, Slot, Waiter
from support import virtual
from support.borrowers import come_to_rest
from support.fake import FakeDriver, FakeError, Outcome, virtual_pool
from support.invariants import Invariants
from support.shell import Shell
from support.virtual import VirtualLoop

Event = tuple[Any, ...]
Path = tuple[Event, ...]

TASKS = ("A", "B", "C")
FAILURES = 2  # of connects, in one history
PAUSES = 1  # times that time passes, in one history


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "penstock")


# ------------------------------------------------------------------------------------------------ the core


class History:
    """A pool of at most two, three tasks, and what has happened so far. Each task borrows once."""

    def __init__(self, min_size: int) -> None:
        self.shell = Shell(Settings(min_size=min_size, max_size=2))
        self.waiting: dict[str, Waiter] = {}
        self.holding: dict[str, Slot] = {}
        self.ended: set[str] = set()
        self.failures = self.pauses = 0
        self.shell.event(self.shell.core.open)

    def possible(self) -> Iterator[Event]:
        newcomers = [task for task in TASKS if task not in {*self.waiting, *self.holding, *self.ended}]
        for task in newcomers[:1]:  # they are alike, so it is no matter which of them comes first
            yield "ask", task
        for task, waiter in self.waiting.items():
            yield "cancel", task
            if waiter.settled:
                yield "wake", task
        for task in self.holding:
            yield "give", task
            yield "break", task
        for slot in self.shell.to_open:
            yield "opened", slot.number
            if self.failures < FAILURES:
                yield "failed", slot.number
        for slot in self.shell.to_close:
            yield "closed", slot.number
        for slot in self.shell.suspects:
            yield "answers", slot.number
            yield "is dead", slot.number
        if (self.shell.to_open or self.failures) and self.pauses < PAUSES and self.shell.wake_at < math.inf:
            yield ("time passes",)

    def happen(self, event: Event) -> None:
        shell = self.shell
        match event:
            case "ask", task:
                self._ask(task)
            case "cancel", task:
                waiter = self.waiting.pop(task)
                self.ended.add(task)
                if not waiter.refusal:
                    shell.cancel(waiter)
            case "wake", task:
                waiter = self.waiting.pop(task)
                if waiter.refusal:
                    self.ended.add(task)
                else:
                    self.holding[task] = shell.collect(waiter)
            case "give", task:
                self.ended.add(task)
                shell.give(self.holding.pop(task))
            case "break", task:
                self.ended.add(task)
                shell.discard(self.holding.pop(task), Reason.BROKEN)
            case "opened", number:
                shell.opened(_numbered(shell.to_open, number))
            case "failed", number:
                self.failures += 1
                shell.failed(_numbered(shell.to_open, number))
            case "closed", number:
                shell.closed(_numbered(shell.to_close, number))
            case "answers", number:
                shell.absolve(_numbered(shell.suspects, number))
            case "is dead", number:
                shell.convict(_numbered(shell.suspects, number))
            case _:
                self.pauses += 1
                shell.wake()

    def _ask(self, task: str) -> None:
        slot = self.shell.take(task)
        if slot is not None:
            self.holding[task] = slot
        else:
            self.waiting[task] = self.shell.acquire(task, 1000.0)

    def likeness(self) -> object:
        """Equal for two histories after which the same can happen: those need to be gone on from once only."""
        shell, core, pace = self.shell, self.shell.core, self.shell.core.pace
        alias = {number: place for place, number in enumerate(core.slots)}
        return (
            tuple((slot.state, slot.owner, slot.overdue, shell.now - slot.started) for slot in core.slots.values()),
            tuple(alias[slot.number] for slot in core.idle),
            tuple(waiter.owner for waiter in core.waiters),
            tuple((task, w.refusal, w.slot and alias[w.slot.number]) for task, w in self.waiting.items()),
            tuple((task, alias[slot.number]) for task, slot in self.holding.items()),
            tuple(sorted(self.ended)),
            tuple(alias[slot.number] for slot in shell.suspects),
            (self.failures, self.pauses, pace.down, pace.hung, pace.next_at(shell.now, 0) - shell.now),
            shell.wake_at - shell.now,
        )


def _numbered(slots: list[Slot], number: int) -> Slot:
    return next(slot for slot in slots if slot.number == number)


def _replay(min_size: int, path: Path) -> History:
    history = History(min_size)
    for event in path:
        history.happen(event)
    return history


@pytest.mark.parametrize("min_size", [0, 1, 2])
def test_core_in_every_order_of_events(min_size: int) -> None:
    """Invariants 1 to 3 after each event of each history; from each, the pool comes to rest with nothing lost."""
    seen: set[object] = set()
    ahead: list[Path] = [()]
    while ahead:
        path = ahead.pop()
        try:
            history = _replay(min_size, path)
            alike = history.likeness()
            if alike in seen:
                continue
            seen.add(alike)
            ahead.extend((*path, event) for event in history.possible())
            history.shell.come_to_rest()
        except AssertionError as error:
            raise AssertionError(f"{error}\nafter {path}") from error
    assert len(seen) > 1000, "that cannot have been all"


# ------------------------------------------------------------------------------------------------ the asyncio shell


class Scene:
    """Three tasks on two connections, the same each time, until somebody is cancelled after a given number of steps."""

    def __init__(self, connect: list[Outcome], **options: Any) -> None:
        self.connect = connect
        self.options = options

    def play(self, strikes: tuple[tuple[int, int], ...] = ()) -> int:
        """*strikes*: after which step to cancel which task. Returns how many steps it took."""
        return virtual.run(lambda loop: self._main(loop, dict(strikes)))

    async def _main(self, loop: VirtualLoop, strikes: dict[int, int]) -> int:
        driver = FakeDriver(True, connect_seconds=0.01)
        outcomes = iter(self.connect)
        driver.outcomes["connect"] = lambda: next(outcomes, Outcome.OK)
        options = {name: getattr(driver, hook) for name, hook in self.options.items()}
        pool = virtual_pool(loop, driver, min_size=1, max_size=2, connect_timeout=0.5, **options)
        invariants = Invariants(pool._core)
        struck: set[int] = set()
        await pool.open()
        first = loop.steps
        tasks = [loop.create_task(self._borrow(pool, number)) for number in range(3)]

        def step() -> None:
            invariants.check()
            victim = strikes.get(loop.steps - first)
            if victim is not None and tasks[victim].cancel():
                struck.add(victim)

        loop.on_step = step
        await asyncio.gather(*tasks, return_exceptions=True)
        steps = loop.steps - first
        for number, task in enumerate(tasks):
            assert task.cancelled() == (number in struck), "a cancellation was swallowed"
            task.cancelled() or task.result()
        tasks.clear()
        loop.on_step = invariants.check
        await come_to_rest(loop, pool, driver)
        return steps

    async def _borrow(self, pool: Any, number: int) -> None:
        """One gives back a clean connection, one a spoilt one, one a transaction left open."""
        try:
            async with pool.connection(1.0) as conn:
                await asyncio.sleep(0.01)
                (conn.use, conn.spoil, conn.begin)[number]()
        except (PoolError, FakeError):
            pass


SCENES = {
    "plain": Scene([]),
    "the first connect fails": Scene([Outcome.ERROR]),
    "the first connect hangs": Scene([Outcome.NEVER]),
    "with hooks": Scene([], configure="configure", check="check_hook", reset="reset_hook"),
}


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_asyncio_cancelled_at_every_await_point(scene: Scene) -> None:
    """Invariant 5: each task is cancelled after each step, alone; no slot is lost, whatever it waited for."""
    steps = scene.play()
    for step in range(steps + 1):
        for victim in range(3):
            scene.play(((step, victim),))


def test_asyncio_two_cancelled_at_every_two_await_points() -> None:
    """The same for two tasks at any two steps: what the first was served goes to the next, who is cancelled too."""
    scene = SCENES["plain"]
    steps = range(scene.play() + 1)
    for (step, other_step), (victim, other) in _pairs(steps):
        scene.play(((step, victim), (other_step, other)))


def _pairs(steps: range) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    for two_steps in combinations(steps, 2):
        for victim in range(3):
            for other in range(3):
                yield two_steps, (victim, other)
