"""First come, first served: nobody overtakes, nobody starves, however many there are."""

import asyncio
import tracemalloc
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from penstock import AsyncPool, Pool, PoolTimeout, TooManyRequests
from support import virtual
from support.borrowers import OnTime
from support.fake import FakeDriver, make, virtual_pool
from support.invariants import check_at_rest
from support.virtual import VirtualLoop
from support.waiting import aside, eventually

CROWD = 10_000
CONNECTIONS = 10
FAIR = 0.9  # Jain's index; a pool without a queue comes to about 0.2 (`make bench` asks 0.99 of a quiet machine)
BYTES_A_WAITER = 2048  # beyond the task itself


def test_ten_thousand_are_served_in_the_order_in_which_they_came() -> None:
    """10,000 waiters on 10 connections."""

    async def main(loop: VirtualLoop) -> None:
        pool = virtual_pool(loop, FakeDriver(True), min_size=CONNECTIONS)
        await pool.open(wait=True)
        served: list[int] = []

        async def borrow(number: int) -> None:
            async with pool.connection(1000.0):
                served.append(number)
                await asyncio.sleep(0.001)

        await asyncio.gather(*[borrow(number) for number in range(CROWD)])
        assert served == list(range(CROWD))
        assert pool.snapshot().connects == CONNECTIONS
        check_at_rest(pool._core)
        await pool.close()

    virtual.run(main)


def test_a_waiter_costs_little_memory() -> None:
    """At most 2 KiB each beyond the task itself, which waits for nothing but a future in the comparison."""

    async def main(loop: VirtualLoop) -> None:
        pool = virtual_pool(loop, FakeDriver(True), min_size=1)
        await pool.open(wait=True)
        async with pool.connection():
            gate = loop.create_future()
            bare = await _bytes_of(lambda: _await(gate))
            waiting = await _bytes_of(lambda: _await(pool.getconn(1000.0)))
        assert (waiting - bare) / CROWD <= BYTES_A_WAITER
        await pool.close()

    async def _await(something: Any) -> None:
        await something

    async def _bytes_of(make_one: Callable[[], Any]) -> int:
        tracemalloc.start()
        tasks = [asyncio.create_task(make_one()) for _ in range(CROWD)]
        for _ in range(5):
            await asyncio.sleep(0)
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return size

    virtual.run(main)


@pytest.mark.parametrize("seed", range(20))
def test_newcomers_never_barge_in(seed: int) -> None:
    """Whoever asks at the moment of a return comes after all who wait, whichever callback runs first."""

    async def main(loop: VirtualLoop) -> None:
        random = Random(seed)
        pool = virtual_pool(loop, FakeDriver(True), min_size=1)
        await pool.open(wait=True)
        asked: list[int] = []
        served: list[int] = []

        async def borrow(number: int) -> None:
            await asyncio.sleep(random.choice((0.0, 0.001, 0.002, 0.003)))
            asked.append(number)
            async with pool.connection(1000.0):
                served.append(number)
                await asyncio.sleep(random.choice((0.0, 0.001, 0.002)))

        await asyncio.gather(*[borrow(number) for number in range(50)])
        assert served == asked
        await pool.close()

    virtual.run(main, seed)


def test_a_waiter_that_leaves_lets_the_next_move_up() -> None:
    """By its timeout, or by being cancelled: the others keep their order."""

    async def main(loop: VirtualLoop) -> None:
        pool = virtual_pool(loop, FakeDriver(True), min_size=1)
        await pool.open(wait=True)
        served: list[int] = []

        async def borrow(number: int, timeout: float) -> None:
            with OnTime(loop, timeout):
                conn = await pool.getconn(timeout)
            served.append(number)
            await asyncio.sleep(0.01)
            await pool.putconn(conn)

        async with pool.connection():
            tasks = [loop.create_task(borrow(number, 0.1 if number % 3 == 0 else 100.0)) for number in range(9)]
            await asyncio.sleep(0.05)
            tasks[4].cancel()
            await asyncio.sleep(0.1)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert served == [1, 2, 5, 7, 8]
        assert [number for number, result in enumerate(results) if isinstance(result, PoolTimeout)] == [0, 3, 6]
        await pool.close()

    virtual.run(main)


def test_those_who_were_sent_away_do_not_count_as_waiting() -> None:
    """max_waiting bounds who waits now: timed-out and cancelled callers have left."""

    async def main(loop: VirtualLoop) -> None:
        pool = virtual_pool(loop, FakeDriver(True), min_size=1, max_waiting=2)
        await pool.open(wait=True)
        conn = await pool.getconn()
        for _ in range(5):
            with pytest.raises(PoolTimeout):
                await loop.create_task(pool.getconn(0.1))
        waiting = [loop.create_task(pool.getconn(100.0)) for _ in range(2)]
        await asyncio.sleep(0.1)
        with pytest.raises(TooManyRequests, match="max_waiting is 2"):
            await pool.getconn(100.0)
        waiting.pop().cancel()
        waiting.append(loop.create_task(pool.getconn(100.0)))
        await pool.putconn(conn)
        for task in waiting:
            await pool.putconn(await task)
        await pool.close()

    virtual.run(main)


def test_whoever_got_a_dead_connection_stays_first() -> None:
    """What it was served turned out to be dead: it is served again before those who came later."""

    async def main(loop: VirtualLoop) -> None:
        driver = FakeDriver(True, connect_seconds=1.0)
        pool = virtual_pool(loop, driver, min_size=1)
        await pool.open(wait=True)
        served: list[int] = []

        async def borrow(number: int) -> None:
            async with pool.connection(100.0):
                served.append(number)

        conn = await pool.getconn()
        tasks = [loop.create_task(borrow(number)) for number in range(4)]
        await asyncio.sleep(0)
        await pool.putconn(conn)
        conn.end()  # on its way to the first
        await asyncio.gather(*tasks)
        assert served == [0, 1, 2, 3]
        await pool.close()

    virtual.run(main)


def test_a_paused_pool_keeps_its_queue_in_order() -> None:
    """After `resume` they are served as they came, before whoever comes then."""

    async def main(loop: VirtualLoop) -> None:
        pool = virtual_pool(loop, FakeDriver(True), min_size=1)
        await pool.open(wait=True)
        served: list[int] = []

        async def borrow(number: int) -> None:
            async with pool.connection(100.0):
                served.append(number)
                await asyncio.sleep(0.01)

        pool.pause()
        tasks = [loop.create_task(borrow(number)) for number in range(3)]
        await asyncio.sleep(1.0)
        assert not served
        pool.resume()
        tasks.append(loop.create_task(borrow(3)))
        await asyncio.gather(*tasks)
        assert served == [0, 1, 2, 3]
        await pool.close()

    virtual.run(main)


def test_threads_are_served_in_the_order_in_which_they_came() -> None:
    """Two hundred of them, on one connection."""
    pool = make(Pool, FakeDriver(is_async=False), min_size=1, timeout=20)
    pool.open(wait=True)
    served: list[int] = []

    def borrow(number: int) -> None:
        with pool.connection():
            served.append(number)

    threads = []
    with pool.connection():
        for number in range(200):
            threads.append(aside(lambda number=number: borrow(number)))  # type: ignore[misc]
            eventually(lambda number=number: pool.snapshot().waiting == number + 1)  # type: ignore[misc]
    for thread in threads:
        thread.result(10)
    assert served == list(range(200))
    pool.close()


class Service:
    """Who was served, in order. Fairness is measured from when everybody has come until *rounds* each later."""

    def __init__(self, borrowers: int, rounds: int = 30) -> None:
        self.log: list[int] = []
        self.borrowers = borrowers
        self.length = borrowers * rounds
        self.start: int | None = None

    def served(self, number: int) -> bool:
        """Returns whether to go on."""
        self.log.append(number)
        if self.start is None and len(set(self.log)) == self.borrowers:
            self.start = len(self.log)
        return self.start is None or len(self.log) < self.start + self.length

    def jain(self) -> float:
        """1 when all are equal, 1/n when one has all: (sum of x)^2 / (n * sum of x^2). Jain, Chiu, Hawe (1984)."""
        assert self.start is not None
        counts = Counter(self.log[self.start : self.start + self.length])
        return sum(counts.values()) ** 2 / (self.borrowers * sum(count**2 for count in counts.values()))


def test_no_thread_starves(dsn: str) -> None:
    """32 threads on 4 connections of a real server: each is served about as often as the others."""
    service = Service(32)
    with Pool(dsn, min_size=4, open=False) as pool:
        pool.wait()

        def work(number: int) -> None:
            go_on = True
            while go_on:
                with pool.connection() as conn:
                    conn.execute("SELECT 1")
                go_on = service.served(number)

        for thread in [aside(lambda number=number: work(number)) for number in range(service.borrowers)]:  # type: ignore[misc]
            thread.result(30)
    assert service.jain() >= FAIR


def test_no_task_starves(dsn: str) -> None:
    """The same for 64 tasks."""
    service = Service(64)

    async def main() -> None:
        async with AsyncPool(dsn, min_size=4, open=False) as pool:
            await pool.wait()

            async def work(number: int) -> None:
                go_on = True
                while go_on:
                    async with pool.connection() as conn:
                        await conn.execute("SELECT 1")
                    go_on = service.served(number)

            await asyncio.gather(*[work(number) for number in range(service.borrowers)])

    asyncio.run(main())
    assert service.jain() >= FAIR
