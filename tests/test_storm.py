"""How fast connections are opened: at once where that helps, and never so many that a database falls over."""

import asyncio
import logging
from itertools import pairwise
from typing import Any

import pytest

from penstock import DatabaseUnavailable, PoolError
from penstock.pool import events
from support import virtual
from support.borrowers import OnTime
from support.fake import FakeDriver, Outcome, virtual_pool
from support.virtual import VirtualLoop


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "penstock")


class Attempts(FakeDriver):
    """Takes note of when each attempt to connect began."""

    def __init__(self, loop: VirtualLoop, **options: Any) -> None:
        super().__init__(True, loop.time, **options)
        self.times: list[float] = []

    async def connect(self, *args: Any, **options: Any) -> Any:
        self.times.append(self.clock())
        return await super().connect(*args, **options)


def test_a_spike_is_served_in_the_time_of_one_connect() -> None:
    """20 borrowers at once, a connect takes 50 ms: each is served within 65 ms."""

    async def main(loop: VirtualLoop) -> None:
        pool = virtual_pool(loop, FakeDriver(True, connect_seconds=0.05), min_size=0, max_size=20)
        await pool.open()

        async def borrow() -> None:
            with OnTime(loop, 0.055):
                conn = await pool.getconn()
            await asyncio.sleep(1.0)
            await pool.putconn(conn)

        await asyncio.gather(*[borrow() for _ in range(20)])
        assert pool.snapshot().connects == 20
        await pool.close()

    virtual.run(main)


def test_quick_users_share_few_connections() -> None:
    """Who is done before a new connection could be open makes the pool no larger."""

    async def main(loop: VirtualLoop) -> None:
        driver = FakeDriver(True, connect_seconds=0.05)
        pool = virtual_pool(loop, driver, min_size=1, max_size=20)
        await pool.open(wait=True)

        async def borrow() -> None:
            async with pool.connection():
                await asyncio.sleep(0.0001)

        await borrow()
        for _ in range(5):
            await asyncio.gather(*[borrow() for _ in range(20)])
        assert driver.attempts <= 3
        await pool.close()

    virtual.run(main)


def test_a_fleet_that_starts_opens_a_bounded_number_a_second() -> None:
    """200 wanted at once: a burst of 32, and 32 a second from then on."""

    async def main(loop: VirtualLoop) -> None:
        driver = Attempts(loop)
        pool = virtual_pool(loop, driver, min_size=200)
        await pool.open(wait=True)
        assert len(driver.times) == 200
        start = driver.times[0]
        for seconds in range(6):
            begun = sum(time <= start + seconds for time in driver.times)
            assert begun <= 32 + 32 * seconds + 1
        assert driver.times[-1] - start == pytest.approx((200 - 32) / 32, rel=0.05)
        await pool.close()

    virtual.run(main)


def test_while_the_database_refuses_the_pauses_grow_and_one_attempt_is_under_way() -> None:
    """From milliseconds to two seconds, each cut by chance, so that no two processes knock together."""

    async def main(loop: VirtualLoop) -> None:
        driver = Attempts(loop, connect_seconds=0.001)
        driver.outcomes["connect"] = Outcome.ERROR
        pool = virtual_pool(loop, driver, min_size=4)
        await pool.open()
        await asyncio.sleep(60.0)
        afterwards = [time for time in driver.times if time > driver.times[0] + 0.01]
        pauses = [later - earlier for earlier, later in pairwise(afterwards)]
        assert len(afterwards) < 50
        assert max(pauses) <= 2.01
        assert min(pauses[8:]) >= 1.5
        assert len({round(pause, 6) for pause in pauses[8:]}) > 10
        driver.heal()
        await asyncio.sleep(2.5)
        assert pool.snapshot().idle == 4
        await pool.close()

    virtual.run(main)


def test_who_gives_up_says_so_and_starts_again_when_asked() -> None:
    """After reconnect_timeout nothing is tried any more; the next request has it tried at once."""

    async def main(loop: VirtualLoop) -> None:
        driver = Attempts(loop)
        driver.outcomes["connect"] = Outcome.ERROR
        told: list[Any] = []
        pool = virtual_pool(loop, driver, min_size=1, reconnect_timeout=5.0, reconnect_failed=told.append)
        heard: list[events.Event] = []
        pool.listen(heard.append)
        await pool.open()
        await asyncio.sleep(60.0)
        assert told == [pool]
        assert [event for event in heard if isinstance(event, events.GaveUp)] != []
        assert driver.times[-1] - driver.times[0] == pytest.approx(5.0, abs=0.1)
        with pytest.raises(DatabaseUnavailable):
            await pool.getconn()
        driver.heal()
        await asyncio.sleep(2.5)
        async with pool.connection(0.0):
            pass
        await pool.close()

    virtual.run(main)


def test_one_connect_that_hangs_blocks_nobody() -> None:
    """Invariant 4: the next attempt is made within about a second, while the first still hangs."""

    async def main(loop: VirtualLoop) -> None:
        driver = FakeDriver(True)
        outcomes = iter([Outcome.NEVER])
        driver.outcomes["connect"] = lambda: next(outcomes, Outcome.OK)
        pool = virtual_pool(loop, driver, min_size=0, max_size=2, connect_timeout=60.0)
        await pool.open()
        with OnTime(loop, 1.5):
            await pool.putconn(await pool.getconn())
        assert pool.snapshot().opening == 1
        await pool.close()

    virtual.run(main)


def test_who_waits_hears_of_the_refusal_not_of_the_timeout() -> None:
    """While the database is down nobody waits out 30 s: two failures are proof, and the error carries the cause."""

    async def main(loop: VirtualLoop) -> None:
        driver = FakeDriver(True)
        driver.outcomes["connect"] = Outcome.ERROR
        pool = virtual_pool(loop, driver, min_size=0, max_size=4)
        await pool.open()
        for timeout in (0.5, 0.05, 0.05):
            with OnTime(loop, timeout), pytest.raises(DatabaseUnavailable, match="connect failed") as caught:
                await pool.getconn(30.0)
            assert isinstance(caught.value.__cause__, driver.operational_error)
            await asyncio.sleep(0.1)
        await pool.close()

    virtual.run(main)


def test_callers_of_a_dead_database_do_not_dial_it_each() -> None:
    """A thousand requests a second that are refused make a few dozen attempts, not thousands."""

    async def main(loop: VirtualLoop) -> None:
        driver = FakeDriver(True, connect_seconds=0.001)
        driver.outcomes["connect"] = Outcome.ERROR
        pool = virtual_pool(loop, driver, min_size=0, max_size=10)
        await pool.open()

        async def ask() -> None:
            with pytest.raises(PoolError):
                await pool.getconn(1.0)

        for _ in range(1000):
            task = loop.create_task(ask())
            await asyncio.sleep(0.001)
        await task
        assert driver.attempts <= 60
        await pool.close()

    virtual.run(main)
