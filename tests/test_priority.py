"""Who is served first: priorities, connections kept for the most urgent, and shares that no one tenant can exceed."""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Hashable
from random import Random
from typing import Any

import pytest

from penstock import (
    AsyncPool,
    Overload,
    Overloaded,
    Pool,
    PoolDeadlock,
    PoolError,
    PoolExhausted,
    PoolTimeout,
    Priority,
)
from penstock.core import Close, Core, Doubt, Open, Reason, Settings, Slot, State, Waiter
from support import virtual
from support.declared import hold_for, learn, refusal, take_all
from support.fake import FakeDriver, FakeError, make, virtual_pool
from support.invariants import Broken, Invariants, check_at_rest
from support.virtual import VirtualLoop
from support.waiting import aside, eventually

HIGH, NORMAL, LOW = Priority.HIGH, Priority.NORMAL, Priority.LOW

Scenario = Callable[[VirtualLoop, AsyncPool[Any]], Coroutine[Any, Any, None]]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "penstock")


def with_pool(scenario: Scenario, **options: Any) -> None:
    """Run *scenario* in virtual time; nothing is lost at its end."""

    async def main(loop: VirtualLoop) -> None:
        pool = virtual_pool(loop, FakeDriver(True), **{"min_size": 2, "name": "web"} | options)
        await pool.open(wait=True)
        await scenario(loop, pool)
        await asyncio.sleep(30.0)
        check_at_rest(pool._core)
        assert not pool._core.waiters._aside
        await pool.close()

    virtual.run(main)


class Line:
    """Borrowers of a pool; *served* names them in the order in which they were."""

    def __init__(self, loop: VirtualLoop, pool: AsyncPool[Any], hold: float = 0.01) -> None:
        self.loop, self.pool, self.hold = loop, pool, hold
        self.served: list[Any] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def join(self, name: Any, **wish: Any) -> asyncio.Task[None]:
        """Queue up, behind all who have come before."""
        self.tasks.append(self.loop.create_task(self._borrow(name, wish)))
        await asyncio.sleep(0)
        return self.tasks[-1]

    async def _borrow(self, name: Any, wish: dict[str, Any]) -> None:
        async with self.pool.connection(**{"timeout": 1000.0} | wish):
            self.served.append(name)
            await asyncio.sleep(self.hold)

    async def end(self) -> list[Any]:
        return await asyncio.gather(*self.tasks, return_exceptions=True)


async def give_back(pool: AsyncPool[Any], conns: list[Any]) -> None:
    for conn in conns:
        await pool.putconn(conn)


# ------------------------------------------------------------------------------------------ priorities


def test_high_comes_before_normal_before_low_and_each_in_the_order_of_coming() -> None:
    """Whoever says nothing is NORMAL."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        kept, line = await take_all(pool), Line(loop, pool)
        for name, priority in (("l1", LOW), ("n1", NORMAL), ("h1", HIGH), ("l2", LOW), ("n2", None), ("h2", HIGH)):
            await line.join(name, priority=priority)
        await give_back(pool, kept)
        await line.end()
        assert line.served == ["h1", "h2", "n1", "n2", "l1", "l2"]

    with_pool(scenario, min_size=1)


def test_every_eighth_goes_to_whoever_has_waited_longest() -> None:
    """So that no priority starves another, however many come that are more urgent."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        kept, line = await take_all(pool), Line(loop, pool)
        for name in ("low 0", "low 1", "low 2"):
            await line.join(name, priority=LOW)
        for number in range(40):
            await asyncio.sleep(0.001)
            await line.join(number, priority=HIGH)
        await give_back(pool, kept)
        await line.end()
        places = [line.served.index(f"low {number}") for number in range(3)]
        assert places[0] <= 8
        assert all(8 * number <= places[number] <= 8 * (number + 1) for number in range(3))
        assert [name for name in line.served if isinstance(name, int)] == list(range(40))

    with_pool(scenario, min_size=1)


def test_low_is_served_while_high_never_ends() -> None:
    """HIGH alone is more than the pool can do; LOW gets its eighth."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        line = Line(loop, pool)
        for number in range(400):
            await line.join((HIGH, number), priority=HIGH)
            if number % 10 == 0:
                await line.join((LOW, number), priority=LOW)
            await asyncio.sleep(0.005)
        low = sum(name[0] is LOW for name in line.served)
        assert low >= 0.08 * len(line.served)
        await line.end()

    with_pool(scenario, min_size=1)


def test_the_lowest_priority_is_shed_first() -> None:
    """Of the same load, HIGH loses nothing, NORMAL something, LOW most."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        await learn(pool, 0.1)
        random, answers = Random(1), Counter[tuple[Priority, bool]]()

        async def ask(priority: Priority) -> None:
            try:
                await hold_for(pool, 0.1, deadline=2.0, priority=priority)
                answers[priority, True] += 1
            except Overloaded:
                answers[priority, False] += 1

        tasks = []
        for _ in range(2000):
            tasks.append(loop.create_task(ask(random.choices(list(Priority), (1, 3, 4))[0])))
            await asyncio.sleep(random.expovariate(60))
        await asyncio.gather(*tasks)
        served = {kind: answers[kind, True] / (answers[kind, True] + answers[kind, False]) for kind in Priority}
        assert served[HIGH] >= 0.99
        assert served[HIGH] > served[NORMAL] > served[LOW]
        assert served[LOW] > 0

    with_pool(scenario)


def test_who_comes_with_a_higher_priority_takes_the_place_of_the_last_with_a_lower_one() -> None:
    """While the pool sheds there is room for few: the one refused is the one who came last, at once."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        await learn(pool, 0.1)
        kept, line = await take_all(pool), Line(loop, pool, 0.1)
        lows = [await line.join(number, priority=LOW, deadline=2.0) for number in range(4)]
        admission = pool._core.admission
        admission.overloaded, admission.ends = True, loop.time() + 1000.0
        asked = loop.time()
        high = await line.join("high", priority=HIGH, deadline=2.0)
        await asyncio.sleep(0)
        assert loop.time() == asked
        assert [task.done() for task in lows] == [False, False, False, True]
        error = lows[3].exception()
        assert isinstance(error, Overloaded)
        assert error.retry_after > 0
        assert not high.done()
        await give_back(pool, kept)
        await line.end()
        assert line.served[0] == "high"
        admission.ends = loop.time()

    with_pool(scenario)


def test_who_declares_nothing_is_not_shed_for_a_higher_priority() -> None:
    """It waits longer, that is all."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        await learn(pool, 0.1)
        kept, line = await take_all(pool), Line(loop, pool, 0.1)
        for number in range(4):
            await line.join(number, priority=LOW)
        admission = pool._core.admission
        admission.overloaded, admission.ends = True, loop.time() + 1000.0
        for number in range(4):
            await line.join(f"high {number}", priority=HIGH, deadline=10.0)
        await give_back(pool, kept)
        await line.end()
        assert [name for name in line.served if isinstance(name, int)] == [0, 1, 2, 3]
        admission.ends = loop.time()

    with_pool(scenario)


@pytest.mark.parametrize("seed", range(10))
def test_within_a_priority_nobody_overtakes_whoever_leaves(seed: int) -> None:
    """Cancelled, timed out, served: the rest keep their order."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        random, line = Random(seed), Line(loop, pool)
        leavers = []
        for number in range(120):
            priority = random.choice(list(Priority))
            timeout = random.choice((0.05, 1000.0, 1000.0))
            task = await line.join((priority, number), priority=priority, timeout=timeout)
            if random.random() < 0.2:
                leavers.append(task)
            await asyncio.sleep(random.choice((0.0, 0.002, 0.008)))
            if leavers and random.random() < 0.3:
                leavers.pop().cancel()
        await line.end()
        for priority in Priority:
            numbers = [number for kind, number in line.served if kind is priority]
            assert numbers == sorted(numbers)

    with_pool(scenario)


# ------------------------------------------------------------------------------------------ a reserve


def test_the_reserve_is_kept_for_high() -> None:
    """One of three: NORMAL and LOW share two; the third is idle beside them until HIGH asks, which has it at once."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        kept, line = [await pool.getconn() for _ in range(2)], Line(loop, pool)
        await line.join("normal")
        await line.join("low", priority=LOW)
        assert (pool.snapshot().idle, pool.snapshot().waiting) == (1, 2)
        asked = loop.time()
        for _ in range(3):
            async with pool.connection(0.0, priority=HIGH):
                assert loop.time() == asked
        assert (pool.snapshot().idle, pool.snapshot().waiting) == (1, 2)
        await give_back(pool, kept)
        await line.end()

    with_pool(scenario, min_size=3, reserve=1)


def test_high_may_use_all_of_the_pool() -> None:
    """The reserve is a floor for it, not a ceiling."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        kept = await take_all(pool, priority=HIGH)
        line = Line(loop, pool)
        await line.join("normal")
        await pool.putconn(kept.pop())
        assert not line.served
        await pool.putconn(kept.pop())
        await line.end()
        assert line.served == ["normal"]
        await give_back(pool, kept)

    with_pool(scenario, min_size=3, reserve=1)


def test_a_pool_that_is_not_full_yet_opens_one_for_high() -> None:
    """min_size=0: the reserve is a place below the limit, not an open connection."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        kept = [await pool.getconn() for _ in range(2)]
        assert isinstance(await refusal(loop.create_task(pool.getconn(0.1))), PoolTimeout)
        await pool.putconn(await pool.getconn(1.0, priority=HIGH))
        await give_back(pool, kept)

    with_pool(scenario, min_size=0, max_size=3, reserve=1)


def test_the_refusal_says_that_the_rest_is_reserved() -> None:
    """Not "2 of 3 are held, 0 are being opened", which would leave anybody wondering; and it names the holders."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        kept = [await pool.getconn() for _ in range(2)]
        error = await refusal(loop.create_task(pool.getconn(0.1)))
        assert isinstance(error, PoolExhausted)
        assert "reserve" in str(error)
        assert __file__ in str(error)
        await give_back(pool, kept)

    with_pool(scenario, min_size=3, reserve=1)


@pytest.mark.parametrize("size", [2, 4, 6])
def test_the_reserve_is_kept_after_a_resize(size: int) -> None:
    """Larger or smaller."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        await pool.resize(size)
        await asyncio.sleep(1.0)
        kept = [await pool.getconn(1.0) for _ in range(size - 1)]
        assert isinstance(await refusal(loop.create_task(pool.getconn(0.1))), PoolTimeout)
        kept.append(await pool.getconn(1.0, priority=HIGH))
        assert pool.snapshot().leased == size
        await give_back(pool, kept)

    with_pool(scenario, min_size=3, reserve=1)


@pytest.mark.parametrize("size", [1, 2])
def test_a_pool_cannot_be_made_as_small_as_its_reserve(size: int) -> None:
    """Or nobody else would ever be served. Nothing has changed then; nor can it begin so."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        with pytest.raises(ValueError, match=rf"reserve \(2\) must be below max_size \({size}\)"):
            await pool.resize(1, size)
        assert (pool.min_size, pool.max_size) == (4, 4)
        assert pool._core.settings().max_size == 4

    with_pool(scenario, min_size=4, reserve=2)
    with pytest.raises(ValueError, match=rf"reserve \(2\) must be below max_size \({size}\)"):
        make(Pool, FakeDriver(False), min_size=1, max_size=size, reserve=2)


@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), (1.0, TypeError), (True, TypeError), ("1", TypeError)])
def test_reserve_and_max_per_key_are_whole_numbers(value: Any, error: type[Exception]) -> None:
    for name in ("reserve", "max_per_key"):
        with pytest.raises(error, match=name):
            make(Pool, FakeDriver(False), min_size=4, **{name: value})
    with pytest.raises(ValueError, match="max_per_key must be 1 or more, not 0"):
        make(Pool, FakeDriver(False), min_size=4, max_per_key=0)


def test_a_full_pool_answers_a_health_check_at_once() -> None:
    """All that ordinary requests may have is held, and a hundred wait: it decides over the process's life."""
    with make(Pool, FakeDriver(False), min_size=3, reserve=1) as pool:
        pool.wait()
        go_on = threading.Event()

        def work() -> None:
            with pool.connection(timeout=20):
                go_on.wait(20)

        busy = [aside(work) for _ in range(100)]
        eventually(lambda: pool.snapshot().waiting == 98)
        for _ in range(20):
            started = pool._clock()
            with pool.connection(timeout=1, priority=HIGH):
                assert pool._clock() - started < 0.1
        go_on.set()
        for thread in busy:
            thread.result(20)
        eventually(lambda: pool.snapshot().idle == 3)


def test_the_reserve_is_for_who_is_under_overload_too() -> None:
    """Ten times what it can do, with deadlines: each health check is answered at once."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        await learn(pool, 0.1)
        tasks = []
        for number in range(500):
            tasks.append(loop.create_task(hold_for(pool, 0.1, deadline=2.0)))
            await asyncio.sleep(0.005)
            if number % 20 == 0:
                asked = loop.time()
                async with pool.connection(deadline=0.1, priority=HIGH):
                    assert loop.time() == asked
        await asyncio.gather(*tasks, return_exceptions=True)

    with_pool(scenario, min_size=3, reserve=1)


def test_a_deadlock_is_still_proven_with_a_reserve() -> None:
    """The reserved connection is none that the circle could ever have."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        all_hold, holding = asyncio.Event(), list[None]()

        async def needs_two() -> str:
            try:
                async with pool.connection():
                    holding.append(None)
                    if len(holding) == 2:
                        all_hold.set()
                    await all_hold.wait()
                    async with pool.connection(1000.0):
                        return "served"
            except PoolDeadlock:
                return "told"

        asked = loop.time()
        assert sorted(await asyncio.gather(needs_two(), needs_two())) == ["served", "told"]
        assert loop.time() - asked < 1.0

    with_pool(scenario, min_size=3, reserve=1)


def test_no_deadlock_for_who_may_have_the_reserve() -> None:
    """The same circle, but the last who asks is HIGH: served, and so are the others then."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        async with pool.connection(), pool.connection():
            async with pool.connection(1.0, priority=HIGH):
                pass

    with_pool(scenario, min_size=3, reserve=1)


# ------------------------------------------------------------------------------------------ shares


def test_one_key_has_no_more_than_its_share_and_others_are_not_held_up() -> None:
    """Ten of one tenant come first; the other tenant's are served beside two of them."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        line = Line(loop, pool, 1.0)
        for number in range(10):
            await line.join(f"a{number}", key="a")
        for number in range(2):
            await line.join(f"b{number}", key="b")
        assert line.served == ["a0", "a1", "b0", "b1"]
        assert (pool.snapshot().idle, pool.snapshot().waiting) == (0, 8)
        await asyncio.sleep(1.5)
        assert line.served[4:] == ["a2", "a3"]
        assert (pool.snapshot().idle, pool.snapshot().waiting) == (2, 6)
        await line.join("nobody's")
        assert line.served[6] == "nobody's"
        await line.end()
        assert [name for name in line.served if name.startswith("a")] == [f"a{number}" for number in range(10)]

    with_pool(scenario, min_size=4, max_per_key=2)


def test_requests_without_a_key_have_no_share() -> None:
    """They may have all of the pool."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        await give_back(pool, await take_all(pool))
        async with pool.connection(0.0, key=None), pool.connection(0.0, key=None):
            pass

    with_pool(scenario, max_per_key=1)


def test_a_key_means_nothing_where_the_pool_has_no_cap() -> None:
    """So that callers may say it everywhere."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        await give_back(pool, await take_all(pool, key="a"))

    with_pool(scenario, min_size=4)


def test_the_refusal_says_that_the_key_has_its_share() -> None:
    """While connections are idle it must: which key, how many it may have."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        kept = await pool.getconn(key="tenant 7")
        error = await refusal(loop.create_task(pool.getconn(0.1, key="tenant 7")))
        assert isinstance(error, PoolTimeout)
        assert "tenant 7" in str(error)
        assert "max_per_key" in str(error)
        await pool.putconn(kept)

    with_pool(scenario, max_per_key=1)


def test_who_stands_aside_may_be_cancelled_or_time_out() -> None:
    """The next of its key moves up."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        kept, line = await pool.getconn(key="a"), Line(loop, pool)
        tasks = [await line.join(number, key="a", timeout=0.1 if number == 1 else 1000.0) for number in range(4)]
        assert pool.snapshot().waiting == 4
        tasks[0].cancel()
        await asyncio.sleep(0.2)
        assert isinstance(tasks[1].exception(), PoolTimeout)
        assert pool.snapshot().waiting == 2
        await pool.putconn(kept)
        await line.end()
        assert line.served == [2, 3]

    with_pool(scenario, max_per_key=1)


def test_all_who_stand_aside_may_go() -> None:
    """Nothing is left of their key, and the pool goes its short way again."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        kept, line = await pool.getconn(key="a"), Line(loop, pool)
        tasks = [await line.join(number, key="a") for number in range(3)]
        for task in tasks:
            task.cancel()
        await line.end()
        assert len(pool._core.waiters) == pool._core.waiters.ready == 0
        await pool.putconn(kept)

    with_pool(scenario, max_per_key=1)


def test_a_connection_that_broke_frees_its_key() -> None:
    """Returned broken, taken back, found dead before it was handed out."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        for _ in range(3):
            with pytest.raises(FakeError):
                async with pool.connection(key="a") as conn:
                    conn.end()
                    conn.use()
            async with pool.connection(1.0, key="a"):
                assert pool._core._tenants == {"a": 1}
        for conn in pool._pool:
            conn.end()
        async with pool.connection(1.0, key="a"):
            assert pool._core._tenants == {"a": 1}
        with pytest.warns(ResourceWarning):  # noqa: PT031
            dropped = await pool.getconn(key="a")
            del dropped, conn
            await asyncio.sleep(0.1)
        async with pool.connection(1.0, key="a"):
            assert pool._core._tenants == {"a": 1}

    with_pool(scenario, max_per_key=1)


def test_a_waiter_of_the_key_is_called_back_when_its_connection_broke() -> None:
    """Not only when it comes back well."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        line = Line(loop, pool)
        with pytest.raises(FakeError):
            async with pool.connection(key="a") as conn:
                await line.join("next", key="a")
                conn.end()
                conn.use()
        await asyncio.sleep(0.1)
        assert line.served == ["next"]

    with_pool(scenario, max_per_key=1)


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
def test_when_the_one_called_back_goes_away_the_next_of_its_key_is_called(how: str) -> None:
    """It was its turn, but somebody HIGH was served first."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        of_a, other, line = await pool.getconn(key="a"), await pool.getconn(), Line(loop, pool, 1.0)
        first = await line.join("a1", key="a", timeout=0.5 if how == "timed out" else 1000.0)
        await line.join("a2", key="a")
        await pool.putconn(other)  # both stand aside
        other = await pool.getconn()
        await line.join("high", priority=HIGH)
        await pool.putconn(of_a)
        await asyncio.sleep(0)
        assert line.served == ["high"]
        if how == "cancelled":
            first.cancel()
        await asyncio.sleep(0.6)
        assert first.done()
        await pool.putconn(other)
        await asyncio.sleep(0)
        assert line.served == ["high", "a2"]
        await line.end()

    with_pool(scenario, max_per_key=1)


def test_who_would_wait_in_vain_for_its_key_s_share_is_refused_at_once() -> None:
    """Its wait is for its share, not for the pool: others' connections do not shorten it."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        await learn(pool, 0.1)
        line = Line(loop, pool, 0.1)
        for number in range(11):
            await line.join(number, key="a")
        asked = loop.time()
        error = await refusal(loop.create_task(pool.getconn(deadline=0.5, key="a")))
        assert isinstance(error, Overloaded)
        assert loop.time() == asked
        assert error.expected_wait == pytest.approx(1.1, abs=0.11)
        await hold_for(pool, 0.1, deadline=0.2, key="b")
        await line.end()

    with_pool(scenario, min_size=4, max_per_key=1)


def test_a_tenant_in_a_storm_does_not_make_others_be_shed() -> None:
    """Its queue stands; theirs does not."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        await learn(pool, 0.05)
        failed: list[PoolError] = []

        async def other() -> None:
            try:
                await hold_for(pool, 0.05, deadline=0.5, key="b")
            except PoolError as error:
                failed.append(error)

        tasks = []
        for number in range(600):
            tasks.append(loop.create_task(hold_for(pool, 0.05, deadline=0.5, key="a")))
            if number % 10 == 0:
                tasks.append(loop.create_task(other()))
            await asyncio.sleep(0.005)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not failed

    with_pool(scenario, min_size=4, max_per_key=2)


def test_high_of_a_key_at_its_cap_does_not_hold_up_the_others_of_its_priority() -> None:
    """Priority decides who is next, not whose share is larger."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        kept, line = [await pool.getconn(key="a"), await pool.getconn()], Line(loop, pool)
        await line.join("high of a", key="a", priority=HIGH)
        await line.join("low of b", key="b", priority=LOW)
        await pool.putconn(kept.pop())
        await asyncio.sleep(0.1)
        assert line.served == ["low of b"]
        await pool.putconn(kept.pop())
        await line.end()

    with_pool(scenario, max_per_key=1)


def test_threads_of_one_key_never_hold_more_than_its_share() -> None:
    """Twenty of three tenants, for half a second."""
    pool = make(Pool, FakeDriver(False), min_size=4, max_per_key=2)
    held, most, lock, stop = Counter[str](), Counter[str](), threading.Lock(), threading.Event()

    def work(key: str) -> int:
        count = 0
        while not stop.is_set():
            with pool.connection(timeout=10, key=key):
                with lock:
                    held[key] += 1
                    most[key] = max(most[key], held[key])
                stop.wait(0.0005)
                with lock:
                    held[key] -= 1
                count += 1
        return count

    with pool:
        pool.wait()
        keys = ["storm"] * 16 + ["b", "b", "c", "c"]
        threads = [aside(lambda key=key: work(key)) for key in keys]  # type: ignore[misc]
        stop.wait(0.5)
        stop.set()
        counts = [thread.result(5) for thread in threads]
        assert min(counts) > 0
        assert most["storm"] == 2
        assert max(most.values()) == 2
        eventually(lambda: pool.snapshot().idle == 4)


# ------------------------------------------------------------------------------------------ any schedule


class Office:
    """A core whose every event is followed by a look at all that must hold, whatever happened.

    Who holds what under which key is counted from the outside, by what the core was told.
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        size = random.randrange(1, 6)
        self.cap = random.choice((None, 1, 2))
        self.reserve = random.choice((0, 0, 1)) if size > 1 else 0
        overload = random.choice((None, Overload()))
        settings = Settings(min_size=size, max_size=size, reserve=self.reserve, max_per_key=self.cap, overload=overload)
        self.core = Core(settings, random.random)
        self.invariants = Invariants(self.core)
        self.now = 0.0
        self.waiting: list[Waiter] = []
        self.held: dict[Slot, Waiter] = {}
        self.opening: list[Slot] = []
        self.closing: list[Slot] = []
        self.suspects: list[Slot] = []
        self.tell(self.core.open)

    def tell(self, event: Callable[..., object], *args: Any, **options: Any) -> None:
        event(*args, now=self.now, **options)
        for effect in self.core.effects():
            if isinstance(effect, Waiter):
                self.waiting.remove(effect)
                if effect.slot is not None:
                    assert effect.slot not in self.held, f"2: {effect.slot!r} is lent twice"
                    self.held[effect.slot] = effect
            elif isinstance(effect, Open):
                self.opening.append(effect.slot)
            elif isinstance(effect, Close):
                self.closing.append(effect.slot)
            elif isinstance(effect, Doubt):
                self.suspects += self.core.doubt()
        self.check()

    def check(self) -> None:
        self.invariants.check()
        core = self.core
        if set(core.waiters) != set(self.waiting) or len(core.waiters) != len(self.waiting):
            raise Broken(f"3: {len(core.waiters)} wait in the core, {len(self.waiting)} outside")
        tenants = Counter(waiter.key for waiter in self.held.values() if waiter.key is not None)
        if self.cap is not None and any(count > self.cap for count in tenants.values()):
            raise Broken(f"shares: {tenants}, and each may have {self.cap}")
        if self.cap is not None and tenants != core._tenants:
            raise Broken(f"shares: {tenants} are held, {core._tenants} are counted")

    # Each is something that may happen.

    def ask(self) -> None:
        key: Hashable = self.random.choice((None, "a", "a", "b"))
        patience = self.random.choice((0.0, 0.05, 1.0, 1000.0))
        priority, declared = self.random.choice(list(Priority)), self.random.random() < 0.5
        until = self.now + patience if declared else float("inf")
        waiter = Waiter(object(), None, -1, self.now, self.now + patience, priority, until, key)
        self.waiting.append(waiter)
        self.tell(self.core.acquire, waiter)

    def give(self) -> None:
        if slot := self._one_held():
            self.tell(self.core.requite, slot)

    def discard(self) -> None:
        if slot := self._one_held():
            self.tell(self.core.discard, slot, self.random.choice((Reason.BROKEN, Reason.UNCLEAN)))

    def reject(self) -> None:
        if slot := self._one_held():
            self.tell(self.core.reject, slot, self.random.choice((Reason.DEAD, Reason.CHECK_FAILED)))

    def answers(self) -> None:
        if self.suspects:
            self.tell(self.core.requite, self.suspects.pop())

    def cancel(self) -> None:
        if self.waiting:
            waiter = self.random.choice(self.waiting)
            self.waiting.remove(waiter)
            self.tell(self.core.cancel, waiter)

    def connects(self) -> None:
        if self.opening:
            slot = self.opening.pop(self.random.randrange(len(self.opening)))
            self.tell(self.core.opened_slot, slot)

    def closes(self) -> None:
        if self.closing:
            slot = self.closing.pop(self.random.randrange(len(self.closing)))
            self.tell(self.core.closed_slot, slot)

    def time(self) -> None:
        self.now += self.random.choice((0.001, 0.02, 0.3, 2.0))
        for waiter in [waiter for waiter in self.waiting if waiter.deadline <= self.now]:
            if not waiter.settled:
                self.tell(self.core.expire, waiter)
        self.tell(self.core.tick)

    def resize(self) -> None:
        size = self.random.randrange(self.reserve + 1, 7)
        self.tell(self.core.resize, size, size)

    def pause(self) -> None:
        self.core.pause()

    def resume(self) -> None:
        self.tell(self.core.resume)

    def _one_held(self) -> Slot | None:
        if not self.held:
            return None
        slot = self.random.choice(list(self.held))
        del self.held[slot]
        return slot

    def come_to_rest(self) -> None:
        """Everybody gives back; whoever waits is served or times out; nothing is left of any key."""
        self.resume()
        for _ in range(2000):
            if not (self.waiting or self.held or self.opening or self.closing or self.suspects):
                break
            for happens in (self.connects, self.closes, self.answers, self.give, self.time):
                happens()
        assert not self.waiting, f"nothing lost: {len(self.waiting)} wait for ever"
        for _ in range(20):
            self.time()
            self.connects()
            self.closes()
        check_at_rest(self.core)
        assert not self.core.waiters._aside
        assert self.core.waiters.ready == 0
        assert {slot.state for slot in self.core.slots.values()} == {State.IDLE}


LIKELY = ["ask"] * 5 + ["give"] * 4 + ["connects"] * 4 + ["closes", "closes", "answers", "answers"] + ["time"] * 2
RARE = ["discard", "reject", "cancel", "cancel", "resize", "pause", "resume", "resume"]


def test_shares_and_reserves_hold_in_random_schedules() -> None:
    """3,000 of 80 events each: no key above its cap, none idle beside whoever may have it, nothing lost."""
    for seed in range(3000):
        random = Random(seed)
        office = Office(random)
        try:
            for _ in range(80):
                getattr(office, random.choice(LIKELY + RARE))()
            office.come_to_rest()
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
