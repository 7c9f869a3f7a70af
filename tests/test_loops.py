"""One event loop a pool: another one is told so clearly; uvloop's is as good as asyncio's."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import psycopg
import pytest

from penstock import AsyncPool, PoolError, WrongEventLoop
from support.either import ask, request
from support.waiting import aside, soon


def in_another_loop(work: Coroutine[Any, Any, Any]) -> Any:
    """Run in a thread of its own, which has a loop of its own."""
    return aside(lambda: asyncio.run(work)).result(10)


def test_another_loop_is_told_so(dsn: str) -> None:
    """While the pool's own goes on: for each way of asking, and nothing is taken."""

    async def scenario() -> None:
        async with AsyncPool(dsn, min_size=1, open=False, name="homely") as pool:
            assert await request(pool) == 1

            async def trespass() -> None:
                with pytest.raises(WrongEventLoop, match=r"homely: .*another event loop.*one AsyncPool for each loop"):
                    await pool.getconn()
                with pytest.raises(WrongEventLoop):
                    async with pool.connection():
                        pass
                with pytest.raises(WrongEventLoop):
                    async with pool.transaction():
                        pass
                with pytest.raises(WrongEventLoop) as caught:
                    await pool.wait()
                assert isinstance(caught.value, PoolError)
                assert isinstance(caught.value, psycopg.OperationalError)

            await asyncio.to_thread(in_another_loop, trespass())
            assert pool.snapshot().idle == 1
            assert await request(pool) == 1

    asyncio.run(scenario())


def test_a_second_asyncio_run_is_told_so(dsn: str) -> None:
    """The commonest way to meet it: a pool made at import, a loop for each request or test."""
    pool = AsyncPool(dsn, min_size=1, open=False)

    async def first() -> None:
        await pool.open()
        assert await request(pool) == 1

    async def second() -> None:
        with pytest.raises(WrongEventLoop):
            await request(pool)

    asyncio.run(first())
    asyncio.run(second())


def test_a_pool_made_outside_is_opened_where_it_is_used(dsn: str) -> None:
    """The constructor needs no loop if it is not to open the pool."""
    pool = AsyncPool(dsn, min_size=1, open=False)

    async def scenario() -> None:
        async with pool:
            assert await request(pool) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("open", [True, None])
def test_opening_without_a_loop_says_what_to_do(dsn: str, open: bool | None) -> None:
    """Nothing has begun then."""
    with pytest.raises(RuntimeError, match=r"pass open=False here, and `await pool\.open\(\)` there"):
        AsyncPool(dsn, open=open)


async def open_and_use(dsn: str, open: bool | None) -> AsyncPool[Any]:
    pool: AsyncPool[Any] = AsyncPool(dsn, min_size=1, open=open)
    assert await request(pool) == 1
    return pool


@pytest.mark.parametrize("open", [True, None])
def test_opening_in_the_constructor_works_and_warns(dsn: str, open: bool | None) -> None:
    """As psycopg's does."""

    async def scenario() -> None:
        with pytest.warns(RuntimeWarning, match="should not be opened by its constructor"):
            pool = await open_and_use(dsn, open)
        await pool.close()

    asyncio.run(scenario())


def test_opening_in_the_constructor_is_fine_for_async_with(dsn: str) -> None:
    """`async with AsyncPool(...)`: not a word."""

    async def scenario() -> None:
        async with AsyncPool(dsn, min_size=1) as pool:
            assert await request(pool) == 1

    asyncio.run(scenario())


def test_two_loops_with_a_pool_each(dsn: str) -> None:
    """In two threads at once."""
    together = threading.Barrier(2)

    async def scenario() -> int:
        async with AsyncPool(dsn, min_size=1, open=False) as pool:
            together.wait(5)
            for _ in range(50):
                assert await request(pool) == 1
            return int(await request(pool, "SELECT pg_backend_pid()"))

    ends = [aside(lambda: asyncio.run(scenario())) for _ in range(2)]
    assert len({end.result(10) for end in ends}) == 2


def test_uvloop_works(dsn: str) -> None:
    """Contention, cancellation, timeouts, dropped references and closing."""
    uvloop = pytest.importorskip("uvloop")

    async def work(pool: AsyncPool[Any], seconds: float) -> Any:
        async with pool.connection() as conn:
            return await ask(conn, "SELECT pg_sleep(%s) IS NULL", seconds)

    async def drop_one(pool: AsyncPool[Any]) -> None:
        await pool.getconn()
        await soon(lambda: pool.snapshot().closes)

    async def scenario() -> None:
        assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")
        async with AsyncPool(dsn, min_size=2, max_size=3, open=False) as pool:
            await asyncio.gather(*(work(pool, 0.001) for _ in range(100)))
            tasks = [asyncio.create_task(work(pool, 0.2)) for _ in range(10)]
            await asyncio.sleep(0.05)
            for task in tasks[1::2]:
                task.cancel()
            await asyncio.wait(tasks)
            assert [task.cancelled() for task in tasks] == [False, True] * 5
            with pytest.warns(ResourceWarning):
                await drop_one(pool)
            await pool.drain()
            assert await request(pool) == 1
        await soon(lambda: pool.snapshot().open == 0)

    uvloop.run(scenario())
