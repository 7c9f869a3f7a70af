"""A pool's size over time: resized, drained, paused, grown and shrunk; and connections that come of age."""

import asyncio
import logging

import pytest

from penstock import PoolTimeout
from penstock.core import Core, Reason, Settings
from support import virtual
from support.fake import FakeDriver, virtual_pool
from support.virtual import VirtualLoop


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "penstock")


def test_smaller_closes_what_is_idle_now_and_what_is_lent_when_it_comes_back() -> None:
    """Nobody's connection is taken away; the surplus goes as it returns."""

    async def main(loop: VirtualLoop) -> None:
        driver = FakeDriver(True)
        pool = virtual_pool(loop, driver, min_size=5)
        await pool.open(wait=True)
        lent = [await pool.getconn() for _ in range(3)]
        await pool.resize(1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(driver.live) == 3
        for left, conn in zip((2, 1, 1), lent, strict=True):
            conn.use()
            await pool.putconn(conn)
            await asyncio.sleep(0.1)
            assert len(driver.live) == left
        assert pool.snapshot().closes == {Reason.SURPLUS: 4}
        await pool.close()

    virtual.run(main)


def test_larger_serves_those_who_wait() -> None:
    """A new maximum is used at once."""

    async def main(loop: VirtualLoop) -> None:
        pool = virtual_pool(loop, FakeDriver(True), min_size=1)
        await pool.open(wait=True)
        first = await pool.getconn()
        second = loop.create_task(pool.getconn(10.0))
        await asyncio.sleep(1.0)
        await pool.resize(1, 2)
        await pool.putconn(await asyncio.wait_for(second, 0.1))
        await pool.putconn(first)
        await pool.close()

    virtual.run(main)


def test_a_resize_that_makes_no_sense_changes_nothing() -> None:
    """Each argument is named."""

    async def main(loop: VirtualLoop) -> None:
        pool = virtual_pool(loop, FakeDriver(True), min_size=2, max_size=3)
        await pool.open()
        for sizes in ((-1, 3), (4, 3), (0, 0)):
            with pytest.raises(ValueError, match=r"min_size|max_size"):
                await pool.resize(*sizes)
        assert (pool.min_size, pool.max_size) == (2, 3)
        await pool.close()

    virtual.run(main)


def test_a_resize_takes_no_longer_for_a_larger_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is done under the pool's lock: a number with many zeros stopped every checkout for half a minute."""
    core = Core(Settings(min_size=0, max_size=2), lambda: 0.5)
    called: list[object] = []

    def counted(waiters: object, key: object) -> bool:
        called.append(key)
        return False

    monkeypatch.setattr(type(core.waiters), "call_back", counted)
    core.resize(0, 10**5, 0.0)
    assert len(called) <= 1


def test_drain_replaces_every_connection() -> None:
    """Idle ones now, lent ones when they come back, and one that was being opened when it is open."""

    async def main(loop: VirtualLoop) -> None:
        driver = FakeDriver(True, connect_seconds=0.1)
        pool = virtual_pool(loop, driver, min_size=2, max_size=3)
        await pool.open(wait=True)
        held = await pool.getconn()
        also = await pool.getconn()
        third = loop.create_task(pool.getconn(5.0))
        await asyncio.sleep(0.05)
        assert pool.snapshot().opening == 1
        await pool.putconn(also)
        await pool.drain()
        before = driver.attempts
        await pool.putconn(await third)
        await pool.putconn(held)
        await asyncio.sleep(1.0)
        assert all(number > before - 1 for number in driver.live)
        assert not driver.live & {held.number, also.number}
        assert pool.snapshot().idle >= 2
        await pool.close()

    virtual.run(main)


def test_while_it_is_paused_nothing_is_handed_out() -> None:
    """Requests wait, each until its own deadline, and the error says why."""

    async def main(loop: VirtualLoop) -> None:
        pool = virtual_pool(loop, FakeDriver(True), min_size=1)
        await pool.open(wait=True)
        pool.pause()
        with pytest.raises(PoolTimeout, match="paused"):
            await pool.getconn(1.0)
        patient = loop.create_task(pool.getconn(5.0))
        await asyncio.sleep(1.0)
        assert not patient.done()
        pool.resume()
        await pool.putconn(await patient)
        await pool.close()

    virtual.run(main)


@pytest.mark.parametrize("held_for", [0.5, 15.0, 25.0])
def test_what_is_unused_above_the_minimum_goes_after_max_idle(held_for: float) -> None:
    """Also when it was in somebody's hand at the moment at which its idleness would have been noticed."""

    async def main(loop: VirtualLoop) -> None:
        driver = FakeDriver(True)
        pool = virtual_pool(loop, driver, min_size=1, max_size=3, max_idle=10.0, leak_after=None)
        await pool.open(wait=True)
        lent = [await pool.getconn() for _ in range(3)]
        await asyncio.sleep(held_for)
        for conn in lent:
            await pool.putconn(conn)
        await asyncio.sleep(9.0)
        assert len(driver.live) == 3
        await asyncio.sleep(12.0)
        assert len(driver.live) == 1
        assert pool.snapshot().closes == {Reason.UNUSED: 2}
        await pool.close()

    virtual.run(main)


def test_the_longest_unused_goes_first() -> None:
    """The most recently used is handed out first, so that under little load the others come of age."""

    async def main(loop: VirtualLoop) -> None:
        driver = FakeDriver(True)
        pool = virtual_pool(loop, driver, min_size=1, max_size=2, max_idle=10.0)
        await pool.open(wait=True)
        first, second = await pool.getconn(), await pool.getconn()
        await pool.putconn(second)
        await pool.putconn(first)
        for _ in range(30):
            async with pool.connection() as conn:
                assert conn is first
            await asyncio.sleep(1.0)
        assert driver.live == {first.number}
        await pool.close()

    virtual.run(main)


def test_each_connection_is_replaced_at_its_own_time() -> None:
    """Within the last tenth of max_lifetime, so that a fleet does not reconnect in one second."""

    async def main(loop: VirtualLoop) -> None:
        driver = FakeDriver(True)
        pool = virtual_pool(loop, driver, min_size=20, max_lifetime=1000.0, max_idle=5000.0)
        await pool.open(wait=True)
        start = loop.time()
        young: list[int] = []
        for _ in range(101):
            young.append(sum(number <= 20 for number in driver.live))
            await asyncio.sleep(10.0 if len(young) > 1 else start + 900.0 - loop.time() - 10.0)
        assert young[1] == 20, "some went too early"
        assert pool.snapshot().closes[Reason.EXPIRED] >= 20
        gone = {young.index(count) for count in range(20) if count in young}
        assert len(gone) >= 5, "they went together"
        assert len(driver.live) == 20
        await pool.close()

    virtual.run(main)


def test_one_that_comes_of_age_in_hand_is_replaced_on_its_return() -> None:
    """It serves its user to the end, and nobody after."""

    async def main(loop: VirtualLoop) -> None:
        driver = FakeDriver(True)
        pool = virtual_pool(loop, driver, min_size=1, max_lifetime=10.0, leak_after=None)
        await pool.open(wait=True)
        conn = await pool.getconn()
        await asyncio.sleep(20.0)
        conn.use()
        await pool.putconn(conn)
        async with pool.connection() as other:
            assert other is not conn
        assert driver.peak == 1
        await pool.close()

    virtual.run(main)


def test_the_limit_holds_while_a_connection_takes_its_time_to_close() -> None:
    """One that is closing still counts: its replacement waits until the server has let go."""

    async def main(loop: VirtualLoop) -> None:
        driver = FakeDriver(True)
        pool = virtual_pool(loop, driver, min_size=2)
        await pool.open(wait=True)
        for _ in range(5):
            await pool.drain()
            async with pool.connection(10.0):
                assert len(driver.live) <= 2
        assert driver.peak == 2
        await pool.close()

    virtual.run(main)
