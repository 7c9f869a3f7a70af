"""The figures that metrics are made of: every lease, wait and connect is in its bucket, once."""

import asyncio
import threading
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from penstock import Pool
from penstock.core import BOUNDS, Histogram
from penstock.integrations.sqlalchemy import PenstockPool
from penstock.pool.holders import OTHER
from support.fake import FakeDriver, make, virtual_pool
from support.virtual import run
from support.waiting import eventually


def spread(histogram: Histogram) -> dict[float, int]:
    """Upper bound to count, where there is one."""
    counts = zip([*BOUNDS, float("inf")], histogram.counts, strict=True)
    return {bound: count for bound, count in counts if count}


def test_each_use_is_in_the_bucket_of_its_time() -> None:
    """Whether it came back by the short way or, held for long or needed by others, the long one."""

    async def scenario(loop: Any) -> None:
        async with virtual_pool(loop, FakeDriver(True), min_size=1) as pool:
            for seconds in (0, 0, 0.0005, 0.003, 0.004, 0.07, 0.7, 7, 70):
                async with pool.connection():
                    await asyncio.sleep(seconds)

            async def use() -> None:
                async with pool.connection():
                    await asyncio.sleep(0.02)

            await asyncio.gather(use(), use())
            now = pool.snapshot()
            assert spread(now.use_time) == {0.001: 3, 0.005: 2, 0.05: 2, 0.1: 1, 1.0: 1, 10.0: 1, float("inf"): 1}
            assert now.use_time.count == now.uses == 11
            assert now.use_time.total == now.held

    run(scenario)


def test_uses_are_counted_on_when_their_connection_has_gone() -> None:
    """A histogram's buckets never go down."""

    async def scenario(loop: Any) -> None:
        async with virtual_pool(loop, FakeDriver(True), min_size=1) as pool:
            async with pool.connection():
                await asyncio.sleep(0.003)
            before = pool.snapshot().use_time
            await pool.drain()
            async with pool.connection():
                await asyncio.sleep(0.003)
            assert spread(before) == {0.005: 1}
            assert spread(pool.snapshot().use_time) == {0.005: 2}

    run(scenario)


def test_each_wait_is_in_the_bucket_of_its_time_and_who_did_not_wait_in_the_first() -> None:
    """Those alone who were served; refusals are counted apart."""

    async def scenario(loop: Any) -> None:
        async with virtual_pool(loop, FakeDriver(True), min_size=1) as pool:
            await pool.wait()

            async def use() -> None:
                async with pool.connection(timeout=0.5):
                    await asyncio.sleep(0.2)

            results = await asyncio.gather(*(use() for _ in range(5)), return_exceptions=True)
            assert sum(result is not None for result in results) == 2
            now = pool.snapshot()
            assert spread(now.wait_time) == {0.001: 1, 0.5: 2}
            assert abs(now.wait_time.total - 0.6) < 0.001

    run(scenario)


def test_each_connect_is_in_the_bucket_of_its_time() -> None:
    """Those that succeeded."""

    async def scenario(loop: Any) -> None:
        driver = FakeDriver(True, connect_seconds=0.03)
        async with virtual_pool(loop, driver, min_size=2) as pool:
            await pool.wait()
            now = pool.snapshot()
            assert spread(now.create_time) == {0.05: 2}
            assert abs(now.create_time.total - now.connect_seconds) < 1e-9

    run(scenario)


def test_what_sqlalchemy_connects_is_counted_once(tmp_path: Path) -> None:
    """When it connects, and not when it is given a place to connect in."""
    engine = create_engine(f"sqlite:///{tmp_path}/db", poolclass=PenstockPool)
    for _ in range(2):
        with engine.connect() as conn:
            conn.execute(text("SELECT 1"))
    now = engine.pool.snapshot()  # type: ignore[attr-defined]
    engine.dispose()
    assert now.create_time.count == now.connects == 1
    assert now.create_time.total == now.connect_seconds > 0
    assert now.use_time.count == 2


def test_uses_by_many_threads_are_all_counted() -> None:
    """Without a lock on the short way: each notes its own in what it holds."""
    with make(Pool, FakeDriver(False), min_size=4) as pool:
        pool.wait()

        def use() -> None:
            for number in range(300):
                with pool.connection():
                    if number % 30 == 0:
                        threading.Event().wait(0.002)

        threads = [threading.Thread(target=use) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        now = pool.snapshot()
        assert now.use_time.count == now.wait_time.count == 2400
        assert sum(now.use_time.counts[1:]) >= 80


def leak(pool: Any, sites: int) -> list[Any]:
    """Take so many connections, each on a line of its own."""
    lines = "\n".join("conns.append(pool.getconn())" for _ in range(sites))
    conns: list[Any] = []
    exec(compile(lines, "leaks.py", "exec"), {"conns": conns, "pool": pool})
    return conns


def test_leaks_are_counted_by_line_and_no_more_lines_than_can_be_shown() -> None:
    """A program whose lines are without number, as generated ones are, has `other` for the rest."""
    with make(Pool, FakeDriver(False), min_size=105, leak_after=0.01) as pool:
        pool.wait()
        conns = leak(pool, 105)
        eventually(lambda: sum(pool.snapshot().leaks.values()) == 105, 20)
        leaks = pool.snapshot().leaks
        assert len(leaks) == 101
        assert leaks[OTHER] == 5
        assert {site.file for site in leaks} == {"leaks.py", "other"}
        for conn in conns:
            pool.putconn(conn)
        assert sum(pool.snapshot().leaks.values()) == 105
