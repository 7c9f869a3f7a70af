"""More is asked than can be done: what is answered is answered in time, and the rest is told so at once.

The first part puts the core under open-loop load in virtual time; the second asks a pool for single requests.
"""

import asyncio
import heapq
import logging
import os
import pickle
import re
import signal
import threading
from collections.abc import AsyncIterator, Callable
from functools import cache
from random import Random
from typing import Any

import pytest

from penstock import (
    AsyncPool,
    Overload,
    Overloaded,
    Pool,
    PoolClosed,
    PoolError,
    PoolExhausted,
    PoolTimeout,
    Priority,
)
from penstock.core import Core, Open, Refusal, Settings, Slot
from penstock.pool import events
from support import virtual
from support.declared import hold_for, learn, refusal, take_all
from support.fake import FakeDriver, FakeError, Outcome, make, virtual_pool
from support.invariants import check_at_rest
from support.openload import Hold, OpenLoad, Phase, constant, exponential, mixed, percentile, share
from support.virtual import VirtualLoop
from support.waiting import aside, eventually

DEADLINE = 0.5
AT_ONCE = 0.005  # seconds that a refusal may take
HOLDS: dict[str, Hold] = {"constant": constant(0.02), "mixed": mixed, "exponential": exponential(0.02)}

holds = pytest.mark.parametrize("hold", HOLDS)
sizes = pytest.mark.parametrize("connections", [4, 10])


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "penstock")


# ------------------------------------------------------------------------------------------ under load


@cache
def under(connections: int, hold: str, load: float) -> Phase:
    """Ten seconds of *load* times the capacity, its onset included."""
    simulation = OpenLoad(Settings(min_size=connections, max_size=connections), HOLDS[hold], DEADLINE)
    simulation.run((2.0, 0.7), (10.0, load))
    return simulation.between(2.0, 12.0)


@sizes
@holds
@pytest.mark.parametrize("load", [1.5, 3.0, 10.0])
def test_the_connections_work_for_answers_that_come_in_time(connections: int, hold: str, load: float) -> None:
    """The bar: 95 % of what they can do; and the 99th percentile of what was accepted is within the deadline."""
    phase = under(connections, hold, load)
    assert phase.useful_share_of_capacity >= 0.95
    assert percentile(phase.accepted, 99) <= DEADLINE


@sizes
@holds
def test_who_is_refused_is_refused_as_it_comes(connections: int, hold: str) -> None:
    """At ten times the capacity fewer than one in a hundred has waited at all: those who came before it was known."""
    refused = under(connections, hold, 10.0).refused
    assert len(refused) > 10_000
    assert share(refused, lambda answer: answer.seconds > AT_ONCE) < 0.01


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "asks more"])
@holds
def test_after_a_minute_of_overload_all_is_well_within_two_seconds(hold: str, plain: bool) -> None:
    """60 s at three times the capacity, then 0.7 times: 99 % useful from the third second on, until the end.

    Also where the pool has more to ask than whether one is idle (a check, a listener, a reserve), so that it goes
    without its short way.
    """
    simulation = OpenLoad(Settings(min_size=4, max_size=4), HOLDS[hold], DEADLINE, plain=plain)
    simulation.run((2.0, 0.7), (60.0, 3.0), (12.0, 0.7))
    assert simulation.between(64.0, 74.0).useful_share >= 0.99
    assert not simulation.core.admission.overloaded


@sizes
@holds
def test_high_priority_is_served_at_three_times_the_capacity(connections: int, hold: str) -> None:
    """A tenth of the traffic is HIGH: 99 % of it is answered in time."""
    size = Settings(min_size=connections, max_size=connections)
    simulation = OpenLoad(size, HOLDS[hold], DEADLINE, high=0.1)
    simulation.run((2.0, 0.7), (20.0, 3.0))
    high = simulation.between(2.0, 22.0).of(Priority.HIGH)
    assert len(high) > 1000
    assert share(high, lambda answer: answer.useful) >= 0.99


@sizes
@holds
def test_a_normal_load_sheds_nobody(connections: int, hold: str) -> None:
    """At 0.7 times the capacity queues form and dissolve; everybody is served in time."""
    simulation = OpenLoad(Settings(min_size=connections, max_size=connections), HOLDS[hold], DEADLINE)
    simulation.run((20.0, 0.7))
    assert simulation.between(0.0, 20.0).useful_share == 1.0


def test_a_long_job_that_ends_makes_nobody_else_be_refused() -> None:
    """300 s in one lease say nothing of the others, which hold theirs for 20 ms as they always did."""
    quick, first = exponential(0.02), [300.0]
    simulation = OpenLoad(Settings(min_size=4, max_size=4), quick, DEADLINE)
    simulation.hold = lambda random: first.pop() if first else quick(random)
    simulation.run((310.0, 0.6))
    job = max(simulation.answers, key=lambda answer: answer.held)
    assert job.held == 300.0
    assert not simulation.between(job.ended - 2.0, job.ended + 5.0).refused


@pytest.mark.parametrize("timeout", [DEADLINE, 30.0])
def test_who_declares_nothing_is_served_first_come_first_served_as_ever(timeout: float) -> None:
    """The contrast. Nothing is shed, however useless the answers are by then; what would have been is counted."""
    simulation = OpenLoad(Settings(min_size=4, max_size=4), mixed, DEADLINE, declared=False, timeout=timeout)
    simulation.run((2.0, 0.7), (10.0, 3.0))
    phase = simulation.between(2.0, 12.0)
    assert set(phase.refusals) <= {Refusal.TIMEOUT}
    assert all(answer.seconds == pytest.approx(timeout) for answer in phase.refused)
    assert simulation.served == sorted(simulation.served)
    assert phase.useful_share_of_capacity < 0.5
    assert simulation.core.admission.would_shed > 1000


def test_a_pool_with_overload_sheds_those_who_declare_nothing_too() -> None:
    """`overload=` opts all of them in: their timeout is taken for what they are willing to wait."""
    settings = Settings(min_size=4, max_size=4, overload=Overload())
    simulation = OpenLoad(settings, mixed, DEADLINE, declared=False, timeout=DEADLINE)
    simulation.run((2.0, 0.7), (10.0, 3.0))
    phase = simulation.between(2.0, 12.0)
    assert phase.useful_share_of_capacity >= 0.95
    assert phase.refusals[Refusal.OVERLOADED] > 3000
    assert simulation.core.admission.would_shed == 0


@pytest.mark.parametrize("target", [0.02, 0.2])
def test_the_target_says_how_long_a_queue_may_stand(target: float) -> None:
    """No less than a few holds (they are 5 ms here), and the sooner the shorter."""
    settings = Settings(min_size=4, max_size=4, overload=Overload(target=target, interval=0.1))
    simulation = OpenLoad(settings, constant(0.005), wanted=5.0, declared=False, timeout=5.0)
    simulation.run((5.0, 1.2), (15.0, 1.5))
    assert percentile(simulation.between(10.0, 20.0).accepted, 99) <= 2 * target + 0.005


# ------------------------------------------------------------------------------------------ a queue before the pool


def backlog(load: float, workers: int, seconds: float) -> list[tuple[float, float, bool]]:
    """A service with a bounded number of threads before 4 connections, whose requests queue for a thread, oldest first.

    Each as when it came, when it was answered, and whether that was no refusal. They hold for 20 ms.
    """
    random, ends, came, now = Random(1), [0.0] * workers, 0.0, 0.0
    core = Core(Settings(min_size=4, max_size=4), random.random)
    _open_all(core)
    busy: list[tuple[float, Slot]] = []
    answers = []
    while (came := came + random.expovariate(200 * load)) < seconds:
        now = max(came, heapq.heappop(ends))
        while busy and busy[0][0] <= now:
            ended, slot = heapq.heappop(busy)
            assert core.give(slot, ended)
        refused = core.admission.comes_late(came, came + DEADLINE, False, now) is not None
        slot_or_none = None if refused else core.take(1, None, -1, now)
        assert refused or slot_or_none is not None
        if slot_or_none is not None:
            heapq.heappush(busy, (now + 0.02, slot_or_none))
        answers.append((came, now if refused else now + 0.02, not refused))
        heapq.heappush(ends, answers[-1][1])
    return answers


def _open_all(core: Core) -> None:
    core.open(0.0)
    while opening := [effect.slot for effect in core.effects() if isinstance(effect, Open)]:
        for slot in opening:
            core.opened_slot(slot, 0.0)


@pytest.mark.parametrize("load", [1.5, 3.0, 10.0])
def test_a_queue_before_the_pool_does_not_eat_the_deadlines(load: float) -> None:
    """As many threads as connections, so nobody ever waits in the pool: the age of what comes tells."""
    answers = backlog(load, workers=4, seconds=20.0)
    useful = sum(served and ended - came <= DEADLINE for came, ended, served in answers)
    assert useful >= 0.9 * 20.0 * 200


def test_a_queue_before_the_pool_that_dissolves_costs_nobody_anything() -> None:
    """At 0.8 times the capacity some come late, and all are served."""
    assert all(served for _, _, served in backlog(0.8, workers=4, seconds=60.0))


# ------------------------------------------------------------------------------------------ one request

Scenario = Callable[[VirtualLoop, AsyncPool[Any]], Any]


def with_pool(scenario: Scenario, hold: float | None = 0.1, **options: Any) -> None:
    """Run *scenario* in virtual time with a pool that knows how long its connections are held."""

    async def main(loop: VirtualLoop) -> None:
        pool = virtual_pool(loop, FakeDriver(True), **{"min_size": 2, "name": "web"} | options)
        await pool.open(wait=True)
        if hold is not None:
            await learn(pool, hold)
        await scenario(loop, pool)
        await asyncio.sleep(30.0)
        check_at_rest(pool._core)
        await pool.close()

    virtual.run(main)


async def queue_up(loop: VirtualLoop, pool: AsyncPool[Any], count: int, hold: float = 0.1) -> list[asyncio.Task[None]]:
    """*count* who declare nothing and hold for as long as others do, the first of them served at once."""
    tasks = [loop.create_task(hold_for(pool, hold)) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


def test_who_would_wait_in_vain_is_refused_at_once_with_the_figures() -> None:
    """Ten wait for two connections held for 0.1 s each: the next would wait 0.55 s, and has 0.3 s."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        tasks = await queue_up(loop, pool, 12)
        asked = loop.time()
        error = await refusal(pool.getconn(deadline=0.3))
        assert loop.time() == asked
        assert isinstance(error, Overloaded)
        assert (error.pool, error.waiting, error.connections, error.waited) == ("web", 10, 2, 0.0)
        assert error.hold == pytest.approx(0.1)
        assert error.expected_wait == pytest.approx(0.55)
        assert error.deadline == pytest.approx(0.3)
        assert error.retry_after > 0
        assert error.hint is None
        await asyncio.gather(*tasks)

    with_pool(scenario)


def test_who_can_be_served_in_time_waits() -> None:
    """The same queue, and a deadline that it can meet; without a queue any deadline can be met."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        await hold_for(pool, 0.1, deadline=0.001)
        tasks = await queue_up(loop, pool, 12)
        asked = loop.time()
        await hold_for(pool, 0.1, deadline=1.0)
        assert loop.time() - asked == pytest.approx(0.7)
        await asyncio.gather(*tasks)

    with_pool(scenario)


def test_those_who_come_later_are_told_to_wait_longer_each_by_chance() -> None:
    """So that they do not all come again in the same moment."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        tasks = await queue_up(loop, pool, 12)
        told = {(await refusal(pool.getconn(deadline=0.3))).retry_after for _ in range(20)}  # type: ignore[attr-defined]
        assert len(told) > 10
        assert all(0.5 <= seconds <= 3.0 for seconds in told)
        await asyncio.gather(*tasks)

    with_pool(scenario)


def test_the_message_is_for_people() -> None:
    """Which pool, what it would have waited, what it had, why, and when to come again."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        tasks = await queue_up(loop, pool, 12)
        error = await refusal(pool.getconn(deadline=0.3))
        assert re.fullmatch(
            r"web: overloaded: this request would wait 0\.550 s, and has 0\.300 s left until its deadline"
            r" \(requests before it: 10, connections: 2, held for 0\.100 s each\)\. Try again in \d\.\d s",
            str(error),
        )
        await asyncio.gather(*tasks)

    with_pool(scenario)


@pytest.mark.parametrize("deadline", [0.25, 0.3, 0.4, 0.6])
def test_every_message_of_a_pool_under_overload_is_true(deadline: float) -> None:
    """It speaks of a standing queue only where one stands, and of no time before 0."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        seen: list[tuple[bool, Overloaded]] = []

        async def ask() -> None:
            try:
                await hold_for(pool, 0.1, deadline=deadline)
            except Overloaded as error:
                seen.append((pool.snapshot().overloaded, error))

        tasks = [loop.create_task(ask()) async for _ in every(0.01, 400)]
        await asyncio.gather(*tasks)
        assert len(seen) > 100
        for overloaded, error in seen:
            text = str(error)
            assert "-" not in text, text
            assert overloaded or "standing" not in text, text
            assert overloaded or not error.stands
            assert error.retry_after > 0
            assert error.expected_wait >= 0
            assert error.waited >= 0

    with_pool(scenario)


async def every(seconds: float, times: int) -> AsyncIterator[int]:
    """Count, at that pace."""
    for number in range(times):
        yield number
        await asyncio.sleep(seconds)


def test_it_is_an_error_of_the_pool_and_of_the_driver_and_can_be_sent_to_another_process() -> None:
    """`except psycopg.OperationalError` in existing code catches it; its figures survive pickling."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        tasks = await queue_up(loop, pool, 12)
        error = await refusal(pool.getconn(deadline=0.3))
        assert isinstance(error, Overloaded)
        assert isinstance(error, PoolError)
        assert isinstance(error, FakeError)
        assert not isinstance(error, PoolTimeout)
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)
        await asyncio.gather(*tasks)

    with_pool(scenario)


def test_it_is_psycopg_s_operational_error(dsn: str) -> None:
    """Of a real pool: a second request finds nothing to wait for in time."""
    import psycopg

    with Pool(dsn, min_size=1, open=False) as pool:
        pool.wait()
        pool._core.admission.hold = 1.0
        with pool.connection():
            other = aside(lambda: pool.getconn(deadline=0.2))
            error = other.exception(5)
        assert isinstance(error, Overloaded)
        assert isinstance(error, psycopg.OperationalError)
        assert type(pickle.loads(pickle.dumps(error))) is type(error)


def test_nobody_is_shed_who_declares_nothing() -> None:
    """Five hundred wait for two connections, each is served within its timeout, in the order in which they came."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        served: list[int] = []

        async def borrow(number: int) -> None:
            async with pool.connection(timeout=30.0):
                served.append(number)
                await asyncio.sleep(0.1)

        await asyncio.gather(*[borrow(number) for number in range(500)])
        assert served == list(range(500))
        snapshot = pool.snapshot()
        assert snapshot.refusals == {}
        assert snapshot.would_shed > 0

    with_pool(scenario)


def test_would_shed_counts_those_whom_a_deadline_would_have_shed() -> None:
    """With a timeout that cannot be met, though they are left to wait for it."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        tasks = await queue_up(loop, pool, 12)
        before = pool.snapshot().would_shed
        error = await refusal(pool.getconn(0.3))
        assert isinstance(error, PoolExhausted)
        assert pool.snapshot().would_shed == before + 1
        assert isinstance(await refusal(pool.getconn(deadline=0.1)), Overloaded)
        assert pool.snapshot().would_shed == before + 1
        await asyncio.gather(*tasks)

    with_pool(scenario)


def test_with_overload_a_timeout_is_enough_to_be_refused_at_once() -> None:
    """No deadline is declared."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        tasks = await queue_up(loop, pool, 12)
        asked = loop.time()
        assert isinstance(await refusal(pool.getconn(0.3)), Overloaded)
        assert loop.time() == asked
        await asyncio.gather(*tasks)

    with_pool(scenario, overload=Overload())


def test_in_a_backlog_the_newest_come_first_and_who_declared_nothing_keeps_its_turn() -> None:
    """The oldest of those with deadlines have spent theirs. Those without lose no time to anybody."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        served: list[int] = []

        async def borrow(number: int) -> None:
            wish: dict[str, Any] = {"timeout": 100.0} if number % 5 == 0 else {"deadline": 100.0}
            async with pool.connection(**wish):
                served.append(number)
                await asyncio.sleep(0.1)

        kept = await take_all(pool)
        tasks = [loop.create_task(borrow(number)) for number in range(40)]
        await asyncio.sleep(0)
        admission = pool._core.admission
        admission.overloaded, admission.ends = True, loop.time() + 1000.0
        for conn in kept:
            await pool.putconn(conn)
        await asyncio.gather(*tasks)
        hurried = [number for number in served if number % 5]
        backlog = hurried[:24]
        assert backlog == sorted(backlog, reverse=True)
        assert backlog[0] == 39
        assert [number for number in served if number % 5 == 0] == list(range(0, 40, 5))
        assert all(served.index(number) <= number for number in range(0, 40, 5))
        admission.ends = loop.time()

    with_pool(scenario)


def test_who_has_waited_far_too_long_in_a_standing_queue_is_shed_from_it() -> None:
    """Twice its target, well before its deadline. Who declared nothing stays, and so does who has just come."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        kept = await take_all(pool)
        late = [loop.create_task(hold_for(pool, 0.1, timeout=200.0, deadline=100.0)) for _ in range(6)]
        patient = loop.create_task(hold_for(pool, 0.1, timeout=100.0))
        await asyncio.sleep(21.0)
        fresh = loop.create_task(hold_for(pool, 0.1, timeout=200.0, deadline=100.0))
        await asyncio.sleep(0)
        admission = pool._core.admission
        admission.overloaded, admission.ends = True, loop.time() + 1000.0
        shed_at = loop.time()
        await pool.putconn(kept.pop())
        errors = await asyncio.gather(*late, return_exceptions=True)
        assert loop.time() == shed_at
        for error in errors:
            assert isinstance(error, Overloaded)
            assert error.waited == pytest.approx(21.0)
            assert error.deadline == pytest.approx(79.0)
            assert "has waited 21.000 s" in str(error)
        await pool.putconn(kept.pop())
        await asyncio.gather(patient, fresh)
        admission.ends = loop.time()

    with_pool(scenario)


def test_a_leak_is_named_to_those_who_are_refused_for_it() -> None:
    """No connection comes back, so the wait cannot be known; who has held one the longest is named."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        async def leaks() -> Any:
            return await pool.getconn()

        kept = [await leaks() for _ in range(2)]
        await asyncio.sleep(5.0)
        asking = [loop.create_task(refusal(pool.getconn(deadline=0.5))) async for _ in every(0.1, 30)]
        errors = await asyncio.gather(*asking)
        assert sum(isinstance(error, Overloaded) and error.waited == 0 for error in errors) >= 15
        last = errors[-1]
        assert isinstance(last, Overloaded)
        assert last.hint is not None
        assert re.match(rf"Held longest: by {re.escape(__file__)}:\d+ in .*leaks.*, for [78]\.\d s", last.hint)
        assert str(last).endswith(last.hint)
        for conn in kept:
            await pool.putconn(conn)

    with_pool(scenario, leak_after=None)


def test_a_leak_is_named_to_threads_too() -> None:
    """Within a second, of a Pool."""
    pool = make(Pool, FakeDriver(False), min_size=1, name="web", leak_after=None)
    with pool:
        conn = pool.getconn()
        pool._core.leases()[0].since -= 60.0
        ends = [aside(lambda: pool.getconn(deadline=0.3)) for _ in range(3)]
        errors = [end.exception(5) for end in ends]
        assert all(isinstance(error, PoolError) for error in errors)
        late = aside(lambda: pool.getconn(deadline=0.1)).exception(5)
        assert isinstance(late, (Overloaded, PoolExhausted))
        assert __file__ in str(late)
        pool.putconn(conn)


def test_cancelled_waiters_leave_no_trace() -> None:
    """Those who went away count as nobody's wait, nor do they make the next one's seem longer."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        kept = await take_all(pool)
        tasks = [loop.create_task(pool.getconn(deadline=10.0)) for _ in range(20)]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert pool.snapshot().waiting == 0
        assert not pool._core._waiting_owners
        assert not pool._core._rush
        waiting = loop.create_task(pool.getconn(deadline=0.3))
        await asyncio.sleep(0.01)
        for conn in kept:
            await pool.putconn(conn)
        await pool.putconn(await waiting)

    with_pool(scenario)


def test_who_gives_up_as_it_is_served_does_not_shorten_the_measured_hold() -> None:
    """It has used nothing: a lease of no time would promise others a wait that is none."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        kept = await take_all(pool)
        uses = pool.snapshot().uses
        tasks = [loop.create_task(pool.getconn()) for _ in range(2)]
        await asyncio.sleep(0)
        for conn, task in zip(kept, tasks, strict=True):
            await pool.putconn(conn)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert pool.snapshot().idle == 2
        assert pool.snapshot().uses == uses + 2

    with_pool(scenario)


# ------------------------------------------------------------------------------------------ what is free


def test_nobody_is_refused_while_a_connection_can_be_opened() -> None:
    """Held for a second each, of late: but none is in use now, and to open one takes 5 ms."""

    async def main(loop: VirtualLoop) -> None:
        driver = FakeDriver(True, connect_seconds=0.005)
        pool = virtual_pool(loop, driver, min_size=0, max_size=2, max_idle=1.0)
        await pool.open()
        await learn(pool, 1.0)
        await asyncio.sleep(10.0)
        assert pool.snapshot().open == 0
        await asyncio.gather(*[hold_for(pool, 0.001, deadline=0.2) for _ in range(2)])
        await pool.close()

    virtual.run(main)


def test_nobody_is_refused_while_the_pool_makes_sure_of_its_connections() -> None:
    """All have to answer first, after a loss or because somebody asked: they are back sooner than any borrower."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        driver: FakeDriver = pool._driver  # type: ignore[assignment]
        driver.outcomes["alive"] = Outcome.SLOW
        checks = loop.create_task(pool.check())
        await asyncio.sleep(0.01)
        assert pool.snapshot().idle == 0
        await asyncio.gather(*[hold_for(pool, 0.001, deadline=1.0) for _ in range(2)])
        await checks
        driver.heal()

    with_pool(scenario, hold=4.0)


def test_in_a_pool_that_is_used_now_and_then_a_long_job_says_nothing_of_the_others() -> None:
    """Ten minutes, the only ones in a while; then six come at once, and two of them can be served at a time."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        for _ in range(20):
            await hold_for(pool, 0.02)
            await asyncio.sleep(0.2)
        await hold_for(pool, 600.0)
        await asyncio.sleep(1.0)
        await asyncio.gather(*[hold_for(pool, 0.02, deadline=0.5) for _ in range(6)])

    with_pool(scenario, hold=None)


# ------------------------------------------------------------------------------------------ what can be seen


def test_events_figures_and_counters_tell_of_it() -> None:
    """Refused with OVERLOADED, once each; in the snapshot; in psycopg's counters as errors."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        heard: list[events.Event] = []
        pool.listen(heard.append)
        before = pool.get_stats()
        tasks = await queue_up(loop, pool, 12)
        for _ in range(3):
            await refusal(pool.getconn(deadline=0.3))
        refused = [event for event in heard if isinstance(event, events.Refused)]
        assert [event.refusal for event in refused] == [Refusal.OVERLOADED] * 3
        assert all(event.site.file == __file__ and event.waited == 0.0 for event in refused)
        snapshot = pool.snapshot()
        assert snapshot.refusals == {Refusal.OVERLOADED: 3}
        assert snapshot.hold == pytest.approx(0.1)
        stats = pool.get_stats()
        assert stats["requests_errors"] == before.get("requests_errors", 0) + 3
        assert stats["requests_num"] == before["requests_num"] + 15
        await asyncio.gather(*tasks)

    with_pool(scenario)


def test_the_snapshot_says_that_it_is_overloaded_and_when_it_is_no_more() -> None:
    """Also when nobody asks any more, so that nothing happens that could tell."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        tasks = []
        seen = set()
        async for _ in every(0.01, 300):
            tasks.append(loop.create_task(hold_for(pool, 0.1, deadline=2.0)))
            seen.add(pool.snapshot().overloaded)
        assert seen == {False, True}
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(2.0)
        assert not pool.snapshot().overloaded

    with_pool(scenario)


# ------------------------------------------------------------------------------------------ the pool as a whole


async def overload(loop: VirtualLoop, pool: AsyncPool[Any], seconds: float) -> list[asyncio.Task[None]]:
    """Five times what two connections can do."""
    return [loop.create_task(hold_for(pool, 0.1, deadline=0.6)) async for _ in every(0.01, round(seconds / 0.01))]


def outcomes(results: list[Any]) -> dict[str, int]:
    names = [type(result).__name__ for result in results]
    return {name: names.count(name) for name in names}


def test_a_pool_that_grows_under_overload_serves_more() -> None:
    """And one that shrinks loses nobody on the way."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        async def served_in(seconds: float) -> int:
            before = pool.snapshot().uses
            tasks.extend(await overload(loop, pool, seconds))
            return pool.snapshot().uses - before

        tasks: list[asyncio.Task[None]] = []
        await served_in(2.0)
        assert await served_in(2.0) == pytest.approx(40, abs=4)
        await pool.resize(4)
        assert await served_in(2.0) == pytest.approx(80, abs=8)
        await pool.resize(1)
        assert await served_in(2.0) == pytest.approx(20, abs=6)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert set(outcomes(results)) == {"NoneType", "Overloaded"}

    with_pool(scenario)


def test_a_paused_pool_under_overload_refuses_who_would_wait_too_long_and_then_goes_on() -> None:
    """While it is paused nothing comes back, which is what the wait is judged by."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        tasks = await overload(loop, pool, 2.0)
        pool.pause()
        tasks += await overload(loop, pool, 2.0)
        pool.resume()
        before = pool.snapshot().uses
        tasks += await overload(loop, pool, 2.0)
        assert pool.snapshot().uses - before >= 30
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert set(outcomes(results)) <= {"NoneType", "Overloaded", "PoolTimeout"}

    with_pool(scenario)


def test_a_pool_drained_under_overload_replaces_each_connection_and_serves_on() -> None:
    """No request fails for it."""

    async def scenario(loop: VirtualLoop, pool: AsyncPool[Any]) -> None:
        tasks = await overload(loop, pool, 1.0)
        await pool.drain()
        before = pool.snapshot().uses
        tasks += await overload(loop, pool, 2.0)
        assert pool.snapshot().uses - before >= 36
        assert pool.snapshot().connects == 4
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert set(outcomes(results)) == {"NoneType", "Overloaded"}

    with_pool(scenario)


def test_a_pool_closed_under_overload_tells_all_who_wait() -> None:
    """And everybody who comes then."""

    async def main(loop: VirtualLoop) -> None:
        pool = virtual_pool(loop, FakeDriver(True), min_size=2)
        await pool.open(wait=True)
        tasks = await overload(loop, pool, 1.0)
        waiting = pool.snapshot().waiting
        assert waiting > 0
        await pool.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert outcomes(results)["PoolClosed"] == waiting
        assert isinstance(await refusal(pool.getconn(deadline=0.1)), PoolClosed)
        check_at_rest(pool._core)

    virtual.run(main)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_child_forked_under_overload_starts_with_an_empty_queue() -> None:
    """Its pool has the parent's options, and none of the parent's troubles."""
    options = {"min_size": 2, "overload": Overload(), "reserve": 1, "max_per_key": 2, "timeout": 5}
    with make(Pool, FakeDriver(False), **options) as pool:
        pool.wait()
        pool._core.admission.hold, pool._core.admission.overloaded = 1.0, True
        kept = [pool.getconn(priority=Priority.HIGH) for _ in range(2)]
        waits = aside(lambda: pool.putconn(pool.getconn(timeout=4)))
        eventually(lambda: pool.snapshot().waiting == 1)

        def child() -> bool:
            snapshot = pool.snapshot()
            with pool.connection(deadline=1.0, key="a"):
                pass
            return (snapshot.waiting, snapshot.overloaded, snapshot.hold, pool._core.reserve) == (0, False, 0, 1)

        assert in_child(child)
        for conn in kept:
            pool.putconn(conn)
        waits.result(5)


def in_child(job: Callable[[], bool]) -> bool:
    """Whether *job* is true in a forked child."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)
        try:
            os._exit(0 if job() else 1)
        finally:
            os._exit(2)
    return os.waitpid(pid, 0)[1] == 0


def test_threads_under_overload_are_answered_in_time_or_refused() -> None:
    """Sixteen threads, four times what two connections can do: nobody is late, nothing is lost."""
    pool = make(Pool, FakeDriver(False), min_size=2)
    stop = threading.Event()
    waited: list[float] = []

    def work() -> tuple[int, int]:
        served = refused = 0
        while not stop.is_set():
            started = pool._clock()
            try:
                with pool.connection(deadline=0.2):
                    waited.append(pool._clock() - started)
                    stop.wait(0.02)
                    served += 1
            except Overloaded:
                refused += 1
                stop.wait(0.02)
        return served, refused

    with pool:
        pool.wait()
        threads = [aside(work) for _ in range(16)]
        stop.wait(2.0)
        stop.set()
        results = [thread.result(5) for thread in threads]
        assert sum(served for served, _ in results) >= 100
        assert sum(refused for _, refused in results) >= 100
        assert sorted(waited)[round(len(waited) * 0.99) - 1] <= 0.2
        eventually(lambda: pool.snapshot().idle == 2)
        check_at_rest(pool._core)


# ------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"target": -1}, ValueError, "target must be 0 seconds or more, not -1"),
        ({"target": float("nan")}, ValueError, "target must be 0 seconds or more, not nan"),
        ({"target": "1"}, TypeError, "target must be a number of seconds, not '1'"),
        ({"interval": 0}, ValueError, "interval must be 0.01 to 60 seconds, not 0"),
        ({"interval": float("inf")}, ValueError, "interval must be 0.01 to 60 seconds, not inf"),
        ({"interval": None}, TypeError, "interval must be a number of seconds, not None"),
    ],
)
def test_overload_says_what_is_wrong_with_its_arguments(
    options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=re.escape(says)):
        Overload(**options)


@pytest.mark.parametrize("value", [True, 0.5, {}, Overload])
def test_overload_must_be_an_overload(value: Any) -> None:
    with pytest.raises(TypeError, match=r"overload must be a penstock\.Overload"):
        Pool("", open=False, overload=value)
