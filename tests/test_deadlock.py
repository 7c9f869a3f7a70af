"""A wait that could never end is refused at once, with the proof; one that may end is not."""

import asyncio
import gc
import logging
import threading
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest

from penstock import AsyncPool, NestedCheckout, Pool, PoolDeadlock, PoolExhausted
from support.waiting import aside, eventually, soon

AT_ONCE = 1.0  # seconds; the pool's timeout is 30


def test_one_thread_that_needs_two_of_one(dsn: str) -> None:
    """Told at once, with the line that holds the only connection; which stays as good as it was."""
    with Pool(dsn, min_size=1, open=False) as pool:
        with pool.connection() as conn:
            started = time.monotonic()
            with pytest.raises(PoolDeadlock) as caught:
                pool.getconn()
            assert time.monotonic() - started < AT_ONCE
            assert conn.execute("SELECT 1").fetchone() == (1,)
        text = str(caught.value)
        assert "this would wait for ever. All 1 connections are held by threads that wait for another" in text
        assert f"1 held by {__file__}:" in text
        assert "in test_one_thread_that_needs_two_of_one" in text
        assert pool.snapshot().idle == 1


def test_by_hand_as_well_as_in_a_block(dsn: str) -> None:
    """A connection taken with `getconn` counts as its taker's until it is put back."""
    with Pool(dsn, min_size=1, open=False) as pool:
        conn = pool.getconn()
        with pytest.raises(PoolDeadlock):
            pool.getconn()
        pool.putconn(conn)
        with pool.connection(timeout=1):
            pass


def test_two_threads_that_wait_for_each_other(dsn: str) -> None:
    """One of them is told, which lets the other go on."""
    both_hold = threading.Barrier(2)

    def needs_two() -> str:
        try:
            with pool.connection():
                both_hold.wait(5)
                with pool.connection():
                    return "served"
        except PoolDeadlock as error:
            return str(error)

    with Pool(dsn, min_size=2, open=False) as pool:
        pool.wait()
        started = time.monotonic()
        ends = [aside(needs_two), aside(needs_two)]
        proof, other = sorted(end.result(10) for end in ends)
        assert other == "served"
        assert "2 held by" in proof
        assert time.monotonic() - started < AT_ONCE
        assert pool.snapshot().idle == 2


def test_async_one_task_that_needs_two_of_one(dsn: str) -> None:
    """As with threads."""

    async def scenario() -> None:
        async with AsyncPool(dsn, min_size=1, open=False) as pool:
            async with pool.connection():
                started = time.monotonic()
                with pytest.raises(PoolDeadlock, match="All 1 connections are held by tasks that wait"):
                    await pool.getconn()
                assert time.monotonic() - started < AT_ONCE
            assert pool.snapshot().idle == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("size", [2, 4])
def test_async_tasks_that_wait_for_each_other(dsn: str, size: int) -> None:
    """The last to ask closes the circle and is told; all others are served."""

    async def needs_two(pool: AsyncPool, all_hold: asyncio.Event, holding: list[None]) -> str:
        try:
            async with pool.connection():
                holding.append(None)
                if len(holding) == size:
                    all_hold.set()
                await all_hold.wait()
                async with pool.connection():
                    return "served"
        except PoolDeadlock:
            return "told"

    async def scenario() -> None:
        async with AsyncPool(dsn, min_size=size, open=False) as pool:
            await pool.wait()
            all_hold, holding = asyncio.Event(), list[None]()
            needy = [needs_two(pool, all_hold, holding) for _ in range(size)]
            ends = await asyncio.wait_for(asyncio.gather(*needy), 10)
            assert sorted(ends) == ["served"] * (size - 1) + ["told"]
            assert pool.snapshot().idle == size

    asyncio.run(scenario())


def test_who_waits_without_holding_is_served_when_the_circle_is_broken(dsn: str) -> None:
    """It was first in the queue, and holds nothing that anybody waits for."""
    with Pool(dsn, min_size=1, open=False) as pool:
        with pool.connection():
            innocent = aside(lambda: pool.putconn(pool.getconn()))
            eventually(lambda: pool.snapshot().waiting == 1)
            with pytest.raises(PoolDeadlock):
                pool.getconn()
        innocent.result(5)


def test_no_deadlock_while_a_holder_does_not_wait(dsn: str) -> None:
    """It may give its connection back: here it does."""
    go_on = threading.Event()

    def hold() -> None:
        with pool.connection():
            in_hand.set()
            go_on.wait(5)

    def free_one() -> None:
        eventually(lambda: pool.snapshot().waiting == 1)
        go_on.set()

    in_hand = threading.Event()
    with Pool(dsn, min_size=2, open=False) as pool:
        holder = aside(hold)
        assert in_hand.wait(5)
        with pool.connection():
            with pytest.raises(PoolExhausted):
                pool.getconn(timeout=0.1)
            second = aside(free_one)
            with pool.connection(timeout=5):
                pass
            second.result(5)
        holder.result(5)


def test_no_deadlock_when_the_reference_was_dropped(dsn: str) -> None:
    """The connection is about to be taken back, so the wait does end."""

    def drop_and_ask(pool: Pool) -> None:
        for _ in range(5):
            pool.getconn()  # the only reference is gone at once
            with pool.connection(timeout=5):
                pass

    with Pool(dsn, min_size=1, open=False) as pool:
        with pytest.warns(ResourceWarning):
            drop_and_ask(pool)


def test_async_no_deadlock_when_the_reference_was_dropped(dsn: str) -> None:
    """As with threads."""

    async def scenario() -> None:
        async with AsyncPool(dsn, min_size=1, open=False) as pool:
            for _ in range(5):
                await pool.getconn()  # the only reference is gone at once
                async with pool.connection(timeout=5):
                    pass

    with pytest.warns(ResourceWarning):
        asyncio.run(scenario())


def test_async_no_deadlock_when_the_holders_task_has_ended(dsn: str) -> None:
    """What it has taken was handed on, to one who does not wait."""

    async def scenario() -> None:
        async with AsyncPool(dsn, min_size=1, open=False) as pool, AsyncExitStack() as stack:
            await pool.wait()

            async def takes() -> None:
                await stack.enter_async_context(pool.connection())

            async def waits() -> None:
                async with pool.connection(timeout=5):
                    pass

            await asyncio.create_task(takes())
            gc.collect()
            waiting = asyncio.create_task(waits())
            await soon(lambda: pool.snapshot().waiting == 1 or waiting.done())
            await stack.aclose()
            await waiting

    asyncio.run(scenario())


def test_no_deadlock_while_the_pool_may_grow(dsn: str) -> None:
    """A second one is opened."""
    with Pool(dsn, min_size=1, max_size=2, open=False) as pool:
        with pool.connection() as one, pool.connection() as other:
            assert one is not other


def test_no_deadlock_while_a_connection_is_being_replaced(dsn: str) -> None:
    """One that is just closing makes room."""
    with Pool(dsn, min_size=2, open=False) as pool:
        pool.wait()
        for _ in range(10):
            with pool.connection():
                pool.drain()  # the other one
                with pool.connection(timeout=5) as conn:
                    conn.execute("SELECT 1")


def test_a_deadlock_is_an_event_of_its_own(dsn: str) -> None:
    """Counted among the refusals."""
    from penstock.core import Refusal

    with Pool(dsn, min_size=1, open=False) as pool:
        with pool.connection():
            with pytest.raises(PoolDeadlock):
                pool.getconn()
        assert pool.snapshot().refusals == {Refusal.DEADLOCK: 1}


# ------------------------------------------------------------------------------------------ nested checkouts


def test_nested_raise_names_both_lines(dsn: str) -> None:
    """Even though there would be a second connection."""
    with Pool(dsn, min_size=2, open=False, nested="raise") as pool:
        with pool.connection():
            with pytest.raises(NestedCheckout) as caught:
                pool.getconn()
        assert str(caught.value).count(f"{__file__}:") == 2
        assert "while" in str(caught.value)
        pool.putconn(pool.getconn())
        assert aside(lambda: pool.snapshot().leased).result(5) == 0


def test_nested_warn_logs_both_lines_and_serves(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing else is different."""
    caplog.set_level(logging.WARNING, "penstock.pool")
    with Pool(dsn, min_size=2, open=False, nested="warn") as pool:
        with pool.connection(), pool.connection() as conn:
            conn.execute("SELECT 1")
    [message] = [record.getMessage() for record in caplog.records]
    assert message.count(f"{__file__}:") == 2


def test_nested_means_one_thread(dsn: str) -> None:
    """Two threads with a connection each are no nesting."""
    with Pool(dsn, min_size=2, open=False, nested="raise") as pool:
        with pool.connection():
            aside(lambda: pool.putconn(pool.getconn())).result(5)


def test_async_nested_means_one_task(dsn: str) -> None:
    """The same task is told; another one is served."""

    async def other(pool: AsyncPool) -> Any:
        async with pool.connection() as conn:
            return conn

    async def scenario() -> None:
        async with AsyncPool(dsn, min_size=2, open=False, nested="raise") as pool:
            async with pool.connection():
                with pytest.raises(NestedCheckout):
                    await pool.getconn()
                await asyncio.create_task(other(pool))
            await soon(lambda: pool.snapshot().idle == 2)

    asyncio.run(scenario())


def test_who_did_not_wait_for_the_cleaning_holds_nothing(dsn: str) -> None:
    """A return that was cancelled goes on by itself; its task may ask for a connection, and is served after that."""
    resume = asyncio.Event()

    async def reset(conn: Any) -> None:
        await resume.wait()

    async def scenario() -> None:
        async with AsyncPool(dsn, min_size=1, open=False, reset=reset) as pool:
            conn = await pool.getconn()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await pool.putconn(conn)
            asyncio.get_running_loop().call_soon(resume.set)
            async with pool.connection(timeout=5) as again:
                assert again is conn

    asyncio.run(scenario())
