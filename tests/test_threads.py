"""`take` and `give` go without the lock: threads that switch at the worst of moments, on purpose and by the thousand.

The docstring of `penstock.core.machine` argues why that is safe. Here it is attacked: each scenario runs a few threads
against one core and switches between them before every line of it, and at random instructions; then real threads run
under a switch interval of a microsecond.
"""

import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import permutations
from random import Random
from typing import Any

import pytest

import penstock.core.machine
from penstock import Pool, PoolTimeout
from penstock.core import Reason, Settings, Slot, Waiter
from support.fake import FakeConnection, FakeDriver, FakeError, make
from support.invariants import Broken, lost
from support.shell import Shell
from support.stepper import SteppedLock, Stepper
from support.waiting import aside, eventually

MACHINE = penstock.core.machine.__file__
RANDOM_RUNS = 400  # of each scenario, with switches between instructions

Job = Callable[[], None]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.CRITICAL, "penstock")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield


# ------------------------------------------------------------------------------------------ on purpose


class World:
    """A core, its lock, and threads that do with it what the shell for threads does."""

    def __init__(self, stepper: Stepper, size: int, held: int, **settings: Any) -> None:
        self.lock = SteppedLock(stepper)
        self.shell = Shell(Settings(min_size=size, max_size=size, **settings))
        self.shell.event(self.shell.core.open)
        for slot in list(self.shell.to_open):
            self.shell.opened(slot)
        taken = [self.shell.take(f"holder {number}") for number in range(held)]
        self.slots = [slot for slot in taken if slot is not None]
        self.waiting: list[Waiter] = []
        self.last = max(self.shell.core.slots)

    def borrow(self, owner: str) -> Slot | None:
        shell, core = self.shell, self.shell.core
        before = [waiter for waiter in self.waiting if not waiter.settled]
        slot = core.take(owner, None, -1, shell.now)
        if slot is not None:
            if any(not waiter.settled for waiter in before):
                raise Broken(f"3: {owner} was served before somebody who waited already")
            shell.own(slot, owner)
            return slot
        waiter = Waiter(owner, None, -1, shell.now, shell.now + 1000.0)
        with self.lock:
            shell.queue.append(waiter)
            core.acquire(waiter, shell.now)
            self.waiting.append(waiter)
        return None

    def give(self, slot: Slot) -> None:
        del self.shell.held[slot]
        if not self.shell.core.give(slot, self.shell.now):
            self.locked(self.shell.core.requite, slot)

    def locked(self, event: Callable[..., object], *args: Any) -> None:
        with self.lock:
            event(*args, now=self.shell.now)

    def borrow_and_give(self, owner: str) -> None:
        slot = self.borrow(owner)
        if slot is not None:
            self.give(slot)

    def check(self) -> None:
        """After all threads have ended."""
        shell = self.shell
        shell.asked = shell.core.requests
        shell.book()
        shell.come_to_rest()

    def nothing_old(self) -> None:
        old = [slot for slot in self.shell.core.slots.values() if slot.number <= self.last]
        if old:
            raise Broken(f"{old} have outlived a drain")


Scenario = Callable[[Stepper], tuple[World, list[Job]]]


def a_return_meets_two_newcomers(stepper: Stepper) -> tuple[World, list[Job]]:
    world = World(stepper, size=1, held=1)
    return world, [
        lambda: world.give(world.slots[0]),
        lambda: world.borrow_and_give("B"),
        lambda: void(world.borrow("C")),
    ]


def a_return_meets_two_who_keep(stepper: Stepper) -> tuple[World, list[Job]]:
    world = World(stepper, size=1, held=1)
    return world, [
        lambda: world.give(world.slots[0]),
        lambda: void(world.borrow("B")),
        lambda: void(world.borrow("C")),
    ]


def two_returns_meet_two_newcomers(stepper: Stepper) -> tuple[World, list[Job]]:
    world = World(stepper, size=2, held=2)
    return world, [
        lambda: world.give(world.slots[0]),
        lambda: world.give(world.slots[1]),
        lambda: void(world.borrow("B")),
        lambda: void(world.borrow("C")),
    ]


def a_return_meets_a_waiter_who_leaves(stepper: Stepper) -> tuple[World, list[Job]]:
    world = World(stepper, size=1, held=1)

    def wait_and_leave() -> None:
        if world.borrow("B") is None:
            waiter = world.waiting[0]
            with world.lock:
                world.shell.note_effects()
                if waiter.slot is not None:
                    world.shell.served.remove(waiter)
                else:
                    world.shell.queue.remove(waiter)
                world.shell.core.cancel(waiter, world.shell.now)
                world.waiting.clear()

    return world, [lambda: world.give(world.slots[0]), wait_and_leave, lambda: void(world.borrow("C"))]


def a_return_meets_a_waiter_whose_time_is_up(stepper: Stepper) -> tuple[World, list[Job]]:
    world = World(stepper, size=1, held=1)

    def wait_until_the_end() -> None:
        if world.borrow("B") is None:
            assert world.shell.core.leased <= 1  # a place for a switch
            waiter = world.waiting[0]
            if not waiter.settled:
                world.locked(world.shell.core.expire, waiter)

    return world, [lambda: world.give(world.slots[0]), wait_until_the_end, lambda: void(world.borrow("C"))]


def a_return_meets_a_resize(stepper: Stepper) -> tuple[World, list[Job]]:
    world = World(stepper, size=3, held=2)
    return world, [
        lambda: world.give(world.slots[0]),
        lambda: world.locked(world.shell.core.resize, 1, 1),
        lambda: void(world.borrow("B")),
    ]


def a_return_meets_a_drain(stepper: Stepper) -> tuple[World, list[Job]]:
    world = World(stepper, size=2, held=1)
    return world, [
        lambda: world.give(world.slots[0]),
        lambda: world.locked(world.shell.core.drain),
        lambda: world.borrow_and_give("B"),
    ]


def a_return_meets_the_close(stepper: Stepper) -> tuple[World, list[Job]]:
    world = World(stepper, size=2, held=1)
    return world, [
        lambda: world.give(world.slots[0]),
        lambda: world.locked(world.shell.core.close),
        lambda: void(world.borrow("B")),
    ]


def a_return_meets_pause_and_resume(stepper: Stepper) -> tuple[World, list[Job]]:
    world = World(stepper, size=1, held=1)

    def pause_and_resume() -> None:
        with world.lock:
            world.shell.core.pause()
        world.locked(world.shell.core.resume)

    return world, [lambda: world.give(world.slots[0]), pause_and_resume, lambda: world.borrow_and_give("B")]


def a_return_meets_the_tick_that_retires(stepper: Stepper) -> tuple[World, list[Job]]:
    world = World(stepper, size=2, held=1, max_lifetime=5.0)
    world.shell.now = 10.0
    return world, [
        lambda: world.give(world.slots[0]),
        lambda: world.locked(lambda now: void(world.shell.core.tick(now))),
        lambda: world.borrow_and_give("B"),
    ]


def a_return_meets_a_death(stepper: Stepper) -> tuple[World, list[Job]]:
    world = World(stepper, size=3, held=2)

    def find_dead() -> None:
        del world.shell.held[world.slots[1]]
        world.locked(world.shell.core.discard, world.slots[1], Reason.BROKEN)
        with world.lock:
            world.shell.suspects.extend(world.shell.core.doubt())

    return world, [lambda: world.give(world.slots[0]), find_dead, lambda: void(world.borrow("B"))]


SCENARIOS: list[Scenario] = [
    a_return_meets_two_newcomers,
    a_return_meets_two_who_keep,
    two_returns_meet_two_newcomers,
    a_return_meets_a_waiter_who_leaves,
    a_return_meets_a_waiter_whose_time_is_up,
    a_return_meets_a_resize,
    a_return_meets_a_drain,
    a_return_meets_the_close,
    a_return_meets_pause_and_resume,
    a_return_meets_the_tick_that_retires,
    a_return_meets_a_death,
]


def void(_: object) -> None:
    """A job returns nothing."""


def in_order(order: tuple[int, ...], switches: dict[int, int]) -> Callable[[int, list[int]], int | None]:
    """The first of *order* that can run does, until its end; at the steps in *switches* another one comes first."""
    ahead = list(order)
    last = -1

    def choose(step: int, runnable: list[int]) -> int:
        nonlocal last
        if step in switches and step != last and switches[step] in runnable:
            ahead.remove(switches[step])
            ahead.insert(0, switches[step])
        last = step
        return next(number for number in ahead if number in runnable)

    return choose


def play(scenario: Scenario, order: tuple[int, ...], switches: dict[int, int], opcodes: bool = False) -> int:
    """Returns how many steps it took."""
    stepper = Stepper(MACHINE, in_order(order, switches), opcodes)
    world, jobs = scenario(stepper)
    try:
        stepper.run(jobs)
        world.check()
        if scenario is a_return_meets_a_drain:
            world.nothing_old()
    except BaseException as error:
        raise AssertionError(f"{error!r}, with the threads in order {order} and switches {switches}") from error
    return stepper.steps


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_switch_before_every_line(scenario: Scenario) -> None:
    """Invariants 2 and 3, for each order of the threads and a switch to each other one before each line."""
    count = len(scenario(Stepper(MACHINE, lambda *_: None))[1])
    for order in permutations(range(count)):
        steps = play(scenario, order, {})
        for step in range(1, steps + 1):
            for other in range(count):
                play(scenario, order, {step: other})


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_switches_between_instructions(scenario: Scenario) -> None:
    """The same with up to four switches, at random instructions. A failure names them; they can be played again."""
    random = Random(scenario.__name__)
    count = len(scenario(Stepper(MACHINE, lambda *_: None))[1])
    orders = list(permutations(range(count)))
    steps = play(scenario, orders[0], {}, opcodes=True)
    for _ in range(RANDOM_RUNS):
        switches = {random.randrange(1, steps + 1): random.randrange(count) for _ in range(random.randrange(1, 5))}
        play(scenario, random.choice(orders), switches, opcodes=True)


# ------------------------------------------------------------------------------------------ by the thousand


@pytest.fixture
def switching() -> Iterator[None]:
    """The interpreter switches threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def crowd(count: int, seconds: float, job: Callable[[Random], None]) -> None:
    """*count* threads do *job* again and again. Raises what the first of them raises."""
    errors: list[BaseException] = []
    end = time.monotonic() + seconds

    def work(number: int) -> None:
        random = Random(number)
        try:
            while time.monotonic() < end and not errors:
                job(random)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def hold(conn: FakeConnection) -> None:
    """Fails if anybody else holds it."""
    assert conn.in_hand.acquire(blocking=False), "two threads hold one connection"
    conn.use()
    conn.in_hand.release()


def check(pool: Pool[Any], driver: FakeDriver) -> None:
    """Once all threads have ended."""
    pool.resume()
    eventually(lambda: lost(pool._core) is None)
    pool.close()
    eventually(lambda: not driver.live)


@pytest.mark.usefixtures("switching")
def test_each_connection_is_in_one_hand() -> None:
    """Twelve threads on three connections, taking and giving all the time, while somebody resizes, drains, pauses."""
    driver = FakeDriver(is_async=False)
    pool = make(Pool, driver, min_size=1, max_size=3, timeout=20)
    pool.open()

    def job(random: Random) -> None:
        if random.random() < 0.002:
            random.choice((lambda: pool.resize(random.randrange(3), 3), pool.drain, pool.pause, pool.check))()
            pool.resume()
        if random.random() < 0.5:
            with pool.connection() as conn:
                hold(conn)
        else:
            conn = pool.getconn()
            hold(conn)
            pool.putconn(conn)

    crowd(12, 2.0, job)
    assert pool.snapshot().uses > 1000
    assert driver.peak <= 3
    check(pool, driver)


@pytest.mark.usefixtures("switching")
def test_nobody_is_robbed_when_others_are_careless() -> None:
    """Threads that drop, forget and hold too long lose their connections; whoever does it right never does."""
    driver = FakeDriver(is_async=False)
    pool = make(Pool, driver, min_size=3, leak_after=0.02, leak_reclaim=True, timeout=20)
    pool.open()

    def careful() -> None:
        conn = pool.getconn()
        hold(conn)
        pool.putconn(conn)

    def forgetful() -> None:
        kept.append(pool.getconn())

    def slow() -> None:
        try:
            with pool.connection() as conn:
                threading.Event().wait(0.03)
                conn.use()
        except FakeError:
            pass  # it was taken away meanwhile

    kept: list[FakeConnection] = []

    def job(random: Random) -> None:
        what = random.choice((careful, careful, careful, forgetful, slow, pool.getconn))
        errors: list[BaseException] = []

        def run() -> None:
            try:
                what()
            except PoolTimeout as error:
                errors.append(error)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]

    crowd(4, 2.0, job)
    closes = pool.snapshot().closes
    assert closes[Reason.ABANDONED] > 0
    assert closes[Reason.DROPPED] > 0
    kept.clear()
    check(pool, driver)


def test_who_comes_while_another_thread_opens_the_pool_finds_it_open(dsn: str, monkeypatch: Any) -> None:
    """`open` is called by whoever may be first: nobody is told afterwards that the pool is not open yet."""
    half_open, go_on = threading.Event(), threading.Event()
    start = threading.Thread.start

    def stop_at_the_keeper(thread: threading.Thread) -> None:
        start(thread)
        if thread.name.endswith("-keeper"):
            half_open.set()
            go_on.wait(10)

    monkeypatch.setattr(threading.Thread, "start", stop_at_the_keeper)
    pool = Pool(dsn, min_size=1, open=False, timeout=5)

    def use() -> int:
        pool.open()
        with pool.connection() as conn:
            return conn.info.backend_pid

    first = aside(use)
    half_open.wait(10)
    second = aside(use)
    with suppress(TimeoutError):
        second.exception(0.1)  # that it be refused takes no time
    go_on.set()
    assert second.result(10) == first.result(10)
    pool.close()
