"""The network goes wrong without a word. Whatever it does, an acquire returns or raises by its deadline.

The bar is 10 ms past it. A shared machine may stop us for longer than that, so what is asserted is `SLACK`.
"""

import asyncio
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from penstock import DatabaseUnavailable, Pool, PoolTimeout
from penstock.core import Reason
from penstock.drill.proxy import ChaosProxy
from penstock.drivers import sockets
from support.either import Kind, borrowed, both, opened, request, settled
from support.waiting import aside, eventually, soon

BAR = 0.010
SLACK = 0.25


on_new_connections = pytest.mark.parametrize("fault", ["silence", "accept_and_freeze", "freeze_login", "refuse"])


async def late(pool: Any, timeout: float) -> float:
    """How long after its deadline an acquire that must fail did so (negative: before)."""
    started = time.monotonic()
    with pytest.raises(PoolTimeout):
        await request(pool, timeout=timeout)
    return time.monotonic() - started - timeout


# ------------------------------------------------------------------------------------------ while connecting


@both
@on_new_connections
def test_an_acquire_that_needs_a_new_connection_fails_on_time(
    proxy: ChaosProxy, dsn: str, kind: Kind, fault: str
) -> None:
    """Before its deadline when the database is known to be down, never after it; the median is held to the bar."""

    async def scenario() -> None:
        getattr(proxy, fault)()
        options = {"min_size": 0, "max_size": 2, "connect_timeout": 0.5}
        async with opened(kind, proxy.through(dsn), wait=False, **options) as pool:
            lateness = [await late(pool, 0.05) for _ in range(9)] + [await late(pool, 0.6)]
            assert max(lateness) < SLACK
            assert statistics.median(lateness) < BAR

    asyncio.run(scenario())


@both
@on_new_connections
def test_it_heals(proxy: ChaosProxy, dsn: str, kind: Kind, fault: str) -> None:
    """The first success comes within five seconds of healing, with the defaults."""

    async def scenario() -> None:
        getattr(proxy, fault)()
        async with opened(kind, proxy.through(dsn), wait=False, min_size=1) as pool:
            await late(pool, 0.3)
            proxy.heal()
            healed = time.monotonic()
            while True:
                try:
                    assert await request(pool, timeout=1) == 1
                    break
                except PoolTimeout:
                    await asyncio.sleep(0.02)
            assert time.monotonic() - healed < 5

    asyncio.run(scenario())


@both
def test_silence_is_known_after_the_connect_timeout(proxy: ChaosProxy, dsn: str, kind: Kind) -> None:
    """From then on requests are refused at once (the bar is 50 ms): "does not answer", with a cause."""

    async def scenario() -> None:
        proxy.accept_and_freeze()
        options = {"min_size": 0, "max_size": 1, "connect_timeout": 0.3}
        async with opened(kind, proxy.through(dsn), wait=False, **options) as pool:
            started = time.monotonic()
            with pytest.raises(DatabaseUnavailable, match="does not answer") as caught:
                await request(pool, timeout=10)
            assert 0.3 <= time.monotonic() - started < 0.3 + SLACK
            assert caught.value.__cause__ is not None
            started = time.monotonic()
            with pytest.raises(DatabaseUnavailable):
                await request(pool, timeout=10)
            assert time.monotonic() - started < SLACK

    asyncio.run(scenario())


@both
def test_a_connect_that_hangs_blocks_nobody_who_can_be_served_otherwise(
    proxy: ChaosProxy, dsn: str, kind: Kind
) -> None:
    """Two requests, two attempts; the one that works serves the first."""

    async def scenario() -> None:
        proxy.accept_and_freeze()
        ways = iter([proxy.through(dsn)])
        options = {"min_size": 0, "max_size": 3, "connect_timeout": 3.0}
        async with opened(kind, lambda: next(ways, dsn), wait=False, **options) as pool:
            started = time.monotonic()
            answers = await asyncio.gather(*(beside(pool) for _ in range(4)))
            assert answers == [1] * 4
            assert time.monotonic() - started < 1.0 + SLACK  # our patience with an attempt, at most
            assert pool.snapshot().opening >= 1  # the one that hangs still does

    asyncio.run(scenario())


@both
def test_a_single_request_is_served_by_a_second_attempt_when_the_first_hangs(
    proxy: ChaosProxy, dsn: str, kind: Kind
) -> None:
    """Our patience with an attempt is a second, whatever `connect_timeout` is."""

    async def scenario() -> None:
        proxy.accept_and_freeze()
        ways = iter([proxy.through(dsn)])
        async with opened(kind, lambda: next(ways, dsn), wait=False, min_size=0, max_size=2) as pool:
            started = time.monotonic()
            assert await request(pool, timeout=10) == 1
            assert time.monotonic() - started < 1.0 + SLACK

    asyncio.run(scenario())


async def beside(pool: Any) -> Any:
    """A request of a task, or of a thread, of its own."""
    if pool._is_async:
        return await request(pool, timeout=10)
    return await asyncio.to_thread(lambda: asyncio.run(request(pool, timeout=10)))


@both
def test_a_connect_that_hangs_keeps_no_returned_connection_from_who_waits(
    proxy: ChaosProxy, dsn: str, kind: Kind
) -> None:
    """Nor does it slow the hand-off."""

    async def scenario() -> None:
        async with opened(kind, proxy.through(dsn), min_size=1, max_size=2) as pool:
            proxy.accept_and_freeze()
            async with borrowed(pool):
                waiting = asyncio.create_task(beside(pool))
                await soon(lambda: pool.snapshot().opening == 1)
                assert not waiting.done()
            returned = time.monotonic()
            assert await waiting == 1
            assert time.monotonic() - returned < SLACK
            assert pool.snapshot().opening == 1

    asyncio.run(scenario())


@both
def test_slow_login_is_not_taken_for_a_dead_one(proxy: ChaosProxy, dsn: str, kind: Kind) -> None:
    """30 ms each way: it takes its time, and works."""

    async def scenario() -> None:
        proxy.delay(0.03)
        async with opened(kind, proxy.through(dsn), wait=False, min_size=2) as pool:
            assert await request(pool, timeout=5) == 1
            await soon(lambda: pool.snapshot().idle == 2)
            assert pool.snapshot().connect_errors == 0

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------ on connections that exist


@both
@pytest.mark.parametrize("fault", ["reset", "half_close"])
def test_no_request_sees_that_idle_connections_were_cut(proxy: ChaosProxy, dsn: str, kind: Kind, fault: str) -> None:
    """RST and FIN are known to the kernel: those connections are never handed out."""

    async def scenario() -> None:
        async with opened(kind, proxy.through(dsn), min_size=4) as pool:
            getattr(proxy, fault)()
            await soon(lambda: all(sockets.stirred(conn.fileno())(0) for conn in pool._pool))
            for _ in range(20):
                assert await request(pool) == 1
            await soon(lambda: pool.snapshot().closes.get(Reason.DEAD) == 4)

    asyncio.run(scenario())


@both
def test_asking_the_kernel_costs_no_round_trip(proxy: ChaosProxy, dsn: str, kind: Kind) -> None:
    """With 100 ms each way, fifty validated checkouts take no time to speak of."""

    async def scenario() -> None:
        async with opened(kind, proxy.through(dsn), min_size=1) as pool:
            proxy.delay(0.1)
            started = time.monotonic()
            for _ in range(50):
                async with borrowed(pool):
                    pass
            assert time.monotonic() - started < 0.2

    asyncio.run(scenario())


@both
def test_a_check_that_hangs_ends_with_the_deadline(proxy: ChaosProxy, dsn: str, kind: Kind) -> None:
    """`check` is a round trip into the silence."""

    async def scenario() -> None:
        options: dict[str, Any] = {"min_size": 1, "check": kind.check_connection, "connect_timeout": 0.3}
        async with opened(kind, proxy.through(dsn), **options) as pool:
            assert await request(pool) == 1
            proxy.silence()
            assert await late(pool, 0.2) < SLACK
            proxy.heal()
            assert await request(pool, timeout=5) == 1

    asyncio.run(scenario())


@both
def test_those_whose_statement_hangs_make_nobody_else_late(proxy: ChaosProxy, dsn: str, kind: Kind) -> None:
    """All connections are in hands that wait for the network; everybody else is told on time."""

    async def scenario() -> None:
        async with opened(kind, proxy.through(dsn), min_size=2, connect_timeout=0.5) as pool:
            proxy.silence()
            hanging = [asyncio.create_task(beside(pool)) for _ in range(2)]
            await soon(lambda: pool.snapshot().leased == 2)
            lateness = [await late(pool, 0.05) for _ in range(9)]
            assert max(lateness) < SLACK
            assert statistics.median(lateness) < BAR
            proxy.heal()
            assert await asyncio.gather(*hanging) == [1, 1]
            assert await request(pool) == 1

    asyncio.run(scenario())


@both
def test_a_rollback_that_hangs_is_cut_off(
    proxy: ChaosProxy, dsn: str, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder is not kept for longer than CLEAN_SECONDS; the connection is closed, its slot serves others."""
    monkeypatch.setattr("penstock.pool.sync.CLEAN_SECONDS", 0.3)
    monkeypatch.setattr("penstock.pool.aio.CLEAN_SECONDS", 0.3)

    async def scenario() -> None:
        async with opened(kind, proxy.through(dsn), min_size=1) as pool:
            conn = await settled(pool.getconn())
            await settled(conn.execute("SELECT 1"))
            proxy.silence()
            started = time.monotonic()
            await settled(pool.putconn(conn))
            assert time.monotonic() - started < 0.3 + SLACK
            proxy.heal()
            assert await request(pool, timeout=5) == 1
            assert pool.snapshot().closes == {Reason.BROKEN: 1}

    asyncio.run(scenario())


@both
def test_a_suspect_that_does_not_answer_is_handed_to_nobody(
    proxy: ChaosProxy, dsn: str, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is proven dead, the others are mute: requests are served by new ones meanwhile."""
    monkeypatch.setattr("penstock.pool.sync.CLEAN_SECONDS", 0.5)
    monkeypatch.setattr("penstock.pool.aio.CLEAN_SECONDS", 0.5)

    async def scenario() -> None:
        ways = iter([proxy.through(dsn)] * 3)
        options: dict[str, Any] = {"min_size": 3, "max_size": 6}
        async with opened(kind, lambda: next(ways, dsn), **options) as pool:
            newest = pool._pool[-1].info.backend_pid
            proxy.silence()
            kill_socket(pool._pool[-1])
            started = time.monotonic()
            for _ in range(10):
                assert await request(pool, "SELECT pg_backend_pid()", timeout=5) != newest
            assert time.monotonic() - started < 0.5
            await soon(lambda: pool.snapshot().closes.get(Reason.DEAD) == 3)

    asyncio.run(scenario())


def kill_socket(conn: Any) -> None:
    """As if the peer had closed it."""
    sockets.hang_up(conn.fileno())


def test_closing_into_the_silence_ends(proxy: ChaosProxy, dsn: str) -> None:
    """`close` waits for its grace period, not for the network."""
    pool = Pool(proxy.through(dsn), min_size=2, open=False)
    pool.open(wait=True, timeout=10)
    proxy.silence()
    hanging = aside(lambda: run_one(pool))
    eventually(lambda: pool.snapshot().leased == 1)
    started = time.monotonic()
    pool.close(timeout=0.3)
    assert time.monotonic() - started < 2
    proxy.heal()
    hanging.result(5)


def run_one(pool: Pool[Any]) -> None:
    with pool.connection() as conn:
        try:
            conn.execute("SELECT 1")
        except psycopg.Error:
            pass


def test_threads_under_load_see_a_blackhole_and_its_end(proxy: ChaosProxy, dsn: str) -> None:
    """Eight threads throughout: none late, all served within five seconds of healing."""
    lateness: list[float] = []
    served: list[float] = []
    stop = threading.Event()

    def worker() -> None:
        while not stop.is_set():
            started = time.monotonic()
            try:
                with pool.connection(timeout=0.2) as conn:
                    lateness.append(time.monotonic() - started - 0.2)
                    conn.execute("SELECT 1")
                    served.append(time.monotonic())
            except PoolTimeout:
                lateness.append(time.monotonic() - started - 0.2)
                stop.wait(0.01)
            except psycopg.Error:
                pass

    with Pool(proxy.through(dsn), min_size=4, open=False, connect_timeout=0.5) as pool:
        pool.wait()
        workers: list[Any] = [aside(worker) for _ in range(8)]
        eventually(lambda: len(served) > 50)
        proxy.silence()
        time.sleep(1.0)
        proxy.heal()
        healed = time.monotonic()
        eventually(lambda: served and served[-1] > healed, 5)
        so_far: Callable[[], int] = served.__len__
        before = so_far()
        eventually(lambda: so_far() > before + 50)
        stop.set()
        for each in workers:
            each.result(5)
    assert max(lateness) < SLACK
