"""A caller goes away, at whatever moment: its cancellation is never swallowed, and what it had serves the next."""

import asyncio
import logging
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from random import Random
from types import FrameType
from typing import Any

import psycopg
import pytest

from penstock import AsyncPool, Pool
from penstock.core import Reason
from penstock.drill.postgres import EmbeddedPostgres
from support import virtual
from support.borrowers import come_to_rest
from support.fake import FakeDriver, Outcome, virtual_pool
from support.invariants import check_at_rest, lost
from support.virtual import VirtualLoop
from support.waiting import aside, eventually, soon

ROUNDS = 50


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "penstock")


class Scene:
    """An AsyncPool of one connection in virtual time, and a task that waits for it."""

    def __init__(self, loop: VirtualLoop, size: int = 1, **options: Any) -> None:
        self.loop = loop
        self.driver = FakeDriver(True)
        self.pool = virtual_pool(loop, self.driver, min_size=size, **options)

    async def __aenter__(self) -> "Scene":
        await self.pool.open(wait=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await come_to_rest(self.loop, self.pool, self.driver)

    async def waiter(self, borrow: Callable[[], Awaitable[Any]] | None = None) -> asyncio.Task[Any]:
        task = self.loop.create_task(self._borrow() if borrow is None else _awaited(borrow))
        while len(self.pool._core.waiters) == 0:
            await asyncio.sleep(0)
        return task

    async def _borrow(self) -> int:
        async with self.pool.connection(10.0) as conn:
            conn.use()
            return int(conn.number)


async def _awaited(borrow: Callable[[], Awaitable[Any]]) -> Any:
    return await borrow()


async def _ended(task: asyncio.Task[Any]) -> None:
    """Wait for the end of a task that was cancelled."""
    await asyncio.wait([task])
    assert task.cancelled(), "the cancellation was swallowed"


@pytest.mark.parametrize("first", ["return", "cancel"])
def test_cancelled_at_the_hand_off(first: str) -> None:
    """Served and cancelled in one step of the loop, in either order: cancelled, and the next in line is served."""

    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop) as scene:
            for _ in range(ROUNDS):
                conn = await scene.pool.getconn()
                task, heir = await scene.waiter(), loop.create_task(scene._borrow())
                await asyncio.sleep(0)
                if first == "cancel":
                    task.cancel()
                await scene.pool.putconn(conn)
                if first == "return":
                    task.cancel()
                await _ended(task)
                assert await heir == 1
            assert scene.driver.attempts == 1
            check_at_rest(scene.pool._core)

    virtual.run(main)


@pytest.mark.parametrize("steps", range(8))
def test_cancelled_some_steps_after_the_hand_off(steps: int) -> None:
    """However far the served task has come by then."""

    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop) as scene:
            conn = await scene.pool.getconn()
            task = await scene.waiter()
            await scene.pool.putconn(conn)
            del conn
            for _ in range(steps):
                await asyncio.sleep(0)
            if task.cancel():
                await _ended(task)
            check_at_rest(scene.pool._core)

    virtual.run(main)


def by_wait_for(pool: AsyncPool[Any], seconds: float) -> Awaitable[Any]:
    return asyncio.wait_for(pool.getconn(10.0), seconds)


async def by_timeout(pool: AsyncPool[Any], seconds: float) -> Any:
    async with asyncio.timeout(seconds):
        return await pool.getconn(10.0)


@pytest.mark.parametrize("bound", [by_wait_for, by_timeout])
@pytest.mark.parametrize("seed", range(20))
def test_a_timeout_of_the_caller_s_own_at_the_hand_off(bound: Callable[..., Awaitable[Any]], seed: int) -> None:
    """It ends in the very moment of the return: served or timed out, and never lost."""

    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop) as scene:
            conn = await scene.pool.getconn()
            at = loop.time() + 1.0
            task = await scene.waiter(lambda: bound(scene.pool, at - loop.time()))
            await asyncio.sleep(at - loop.time())
            await scene.pool.putconn(conn)
            del conn
            with suppress(TimeoutError):
                await scene.pool.putconn(await task)
            del task
            check_at_rest(scene.pool._core)

    virtual.run(main, seed)


def test_a_task_group_that_fails_takes_its_waiters_with_it() -> None:
    """One task's error cancels all that wait; the queue is empty then, and the pool as good as new."""

    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop) as scene:
            with pytest.raises(ExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    async with scene.pool.connection():
                        for _ in range(5):
                            group.create_task(scene._borrow())
                        await asyncio.sleep(0.1)
                        raise ValueError
            assert not scene.pool._core.waiters
            check_at_rest(scene.pool._core)

    virtual.run(main)


def test_a_connect_outlives_the_caller_that_started_it() -> None:
    """Invariant 5: it serves the next, who need not connect again."""

    async def main(loop: VirtualLoop) -> None:
        driver = FakeDriver(True, connect_seconds=1.0)
        pool = virtual_pool(loop, driver, min_size=0, max_size=1)
        await pool.open()
        task = loop.create_task(pool.getconn())
        await asyncio.sleep(0.5)
        task.cancel()
        await _ended(task)
        start = loop.time()
        async with pool.connection():
            assert loop.time() - start <= 0.5
        assert driver.attempts == 1
        await pool.close()

    virtual.run(main)


@pytest.mark.parametrize("left", ["begin", "spoil"])
@pytest.mark.parametrize("steps", range(6))
def test_cancelled_while_its_connection_is_made_clean(steps: int, left: str) -> None:
    """What it began goes on without it; the next finds the same connection, clean."""

    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop) as scene:

            async def borrow() -> None:
                async with scene.pool.connection() as conn:
                    getattr(conn, left)()

            task = loop.create_task(borrow())
            for _ in range(steps):
                await asyncio.sleep(0)
            if task.cancel():
                await _ended(task)
            async with scene.pool.connection() as conn:
                assert (conn.status.value, conn.dirt) == ("IDLE", 0)
            assert scene.driver.attempts == 1

    virtual.run(main)


def test_cancelled_while_its_connection_is_checked() -> None:
    """What is half checked is nobody's: it is closed, and replaced."""

    async def main(loop: VirtualLoop) -> None:
        driver = FakeDriver(True)
        pool = virtual_pool(loop, driver, min_size=1, check=driver.check_hook)
        await pool.open(wait=True)
        driver.outcomes["alive"] = Outcome.NEVER
        task = loop.create_task(pool.getconn())
        await asyncio.sleep(0.1)
        task.cancel()
        await _ended(task)
        assert pool.snapshot().closes == {Reason.CHECK_FAILED: 1}
        await come_to_rest(loop, pool, driver)

    virtual.run(main)


@pytest.mark.parametrize("call", ["check", "wait", "drain", "close"])
def test_a_call_upon_the_pool_that_is_cancelled(call: str) -> None:
    """Whatever it has begun is brought to its end without it."""

    async def main(loop: VirtualLoop) -> None:
        for steps in range(1, 8):
            async with Scene(loop, size=3) as scene:
                scene.driver.outcomes["alive"] = scene.driver.outcomes["close"] = Outcome.SLOW
                task = loop.create_task(getattr(scene.pool, call)())
                for _ in range(steps):
                    await asyncio.sleep(0)
                if task.cancel():
                    await _ended(task)

    virtual.run(main)


# ------------------------------------------------------------------------------------------ on a real server


def test_cancelled_at_the_hand_off_on_a_real_server(dsn: str) -> None:
    """0 cancellations swallowed, 0 slots lost; and the connection that changed hands so often is still the same one."""

    async def main() -> None:
        async with AsyncPool(dsn, min_size=1, open=False) as pool:
            await pool.wait()

            async def borrow() -> int:
                async with pool.connection(10.0) as conn:
                    return conn.info.backend_pid

            pid = await borrow()
            for number in range(ROUNDS):
                async with pool.connection():
                    task, heir = asyncio.create_task(borrow()), asyncio.create_task(borrow())
                    while len(pool._waiting) < 2:
                        await asyncio.sleep(0)
                    if number % 2:
                        task.cancel()
                if not number % 2:
                    task.cancel()
                await _ended(task)
                assert await heir == pid
            check_at_rest(pool._core)

    asyncio.run(main())


def test_cancelled_anywhere_on_a_real_server(dsn: str) -> None:
    """While they wait, query, commit or give back: afterwards the pool's three connections are all there, and clean."""

    async def main() -> None:
        random = Random(8)
        async with AsyncPool(dsn, min_size=3, open=False) as pool:
            await pool.wait()

            async def borrow() -> None:
                async with pool.connection(10.0) as conn:
                    await conn.execute("SET work_mem = '7MB'")
                    await conn.execute("SELECT pg_sleep(0.002)")

            for _ in range(20):
                tasks = [asyncio.create_task(borrow()) for _ in range(30)]
                await asyncio.sleep(0.01 * random.random())
                struck = [task for task in random.sample(tasks, 15) if task.cancel()]
                await asyncio.wait(tasks)
                assert all(task.cancelled() for task in struck)
                for task in tasks:
                    task.cancelled() or task.result()
            await soon(lambda: lost(pool._core) is None)
            for _ in range(3):
                async with pool.connection() as conn:
                    row = await (await conn.execute("SHOW work_mem")).fetchone()
                    assert row is not None
                    assert row[0] != "7MB"

    asyncio.run(main())


def test_cancelled_in_a_statement_frees_the_connection_on_the_server(own_postgres: Callable[..., Any]) -> None:
    """The statement that nobody waits for any more does not run on."""
    server: EmbeddedPostgres = own_postgres()

    async def main() -> None:
        async with AsyncPool(server.dsn, min_size=1, open=False) as pool:

            async def sleep() -> None:
                async with pool.connection() as conn:
                    await conn.execute("SELECT pg_sleep(30)")

            task = asyncio.create_task(sleep())
            await soon(lambda: running(server) == 1)
            task.cancel()
            await _ended(task)
            assert running(server) == 0
            async with pool.connection(5.0) as conn:
                await conn.execute("SELECT 1")

    asyncio.run(main())


def running(server: EmbeddedPostgres) -> int:
    with server.admin() as admin:
        row = admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state = 'active'"
        ).fetchone()
    assert row is not None
    return int(row[0])


# ------------------------------------------------------------------------------------------ threads


@pytest.fixture
def interrupt() -> Iterator[Callable[[float], None]]:
    """Raises KeyboardInterrupt in the main thread, some seconds later."""

    def strike(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, strike)
    yield lambda seconds: void(signal.setitimer(signal.ITIMER_REAL, seconds))
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def void(_: object) -> None:
    """Nothing."""


def test_ctrl_c_while_it_waits(dsn: str, interrupt: Callable[[float], None]) -> None:
    """The thread leaves the queue; what comes back serves the next."""
    with Pool(dsn, min_size=1, open=False) as pool:
        release = threading.Event()

        def hold() -> None:
            with pool.connection():
                release.wait(10)

        holder = aside(hold)
        eventually(lambda: pool.snapshot().leased == 1)
        interrupt(0.05)
        with pytest.raises(KeyboardInterrupt):
            pool.getconn(timeout=10)
        assert pool.snapshot().waiting == 0
        release.set()
        holder.result(5)
        with pool.connection(1.0):
            pass
        check_at_rest(pool._core)


# Between the making of a step and its first turn there is nothing to catch it: the step is thrown away, unrun.
@pytest.mark.filterwarnings("ignore:.*was never awaited", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_in_the_midst_of_borrowing(dsn: str, interrupt: Callable[[float], None]) -> None:
    """Wherever it strikes in a statement or on the way back, the connection returns or is replaced."""
    with Pool(dsn, min_size=1, open=False) as pool:
        pool.wait()
        for delay in range(1, 20):
            with suppress(KeyboardInterrupt, psycopg.OperationalError):
                interrupt(delay * 0.001)
                with pool.connection(5.0) as conn:
                    conn.execute("SELECT pg_sleep(0.005)")
                threading.Event().wait(0.05)
            eventually(lambda: lost(pool._core) is None)
