"""Statements that share connections and callers who want one to themselves live in one pool, under its rules."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

import psycopg
import pytest

from penstock import (
    AsyncPool,
    ConnectionLost,
    Multiplex,
    NestedCheckout,
    PoolClosed,
    PoolDeadlock,
    PoolExhausted,
    PoolTimeout,
    Priority,
    TooManyRequests,
    WrongEventLoop,
)
from penstock.core import Reason
from penstock.drill.postgres import EmbeddedPostgres
from penstock.fallback import AsyncFallback
from penstock.pool import events
from support.either import opened
from support.invariants import Invariants
from support.statements import Gate, at_rest, shared
from support.waiting import aside, soon

Pool = AsyncPool[Any]


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


class Load:
    """Tasks that ask one quick statement after the other until the block ends; any error of theirs is the test's."""

    def __init__(self, pool: Pool, tasks: int = 20, **wish: Any) -> None:
        self.pool = pool
        self.answered = 0
        self._count = tasks
        self._wish = wish
        self._stop = False

    async def __aenter__(self) -> "Load":
        self._tasks = [asyncio.create_task(self._ask(number)) for number in range(self._count)]
        await self.more(self._count)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def more(self, count: int) -> None:
        """Wait for so many further answers."""
        until = self.answered + count
        await soon(lambda: self.answered >= until or any(task.done() for task in self._tasks))

    async def _ask(self, number: int) -> None:
        while not self._stop:
            assert await self.pool.fetchval("SELECT %s::int", (number,), **self._wish) == number
            self.answered += 1


async def noting(order: list[Any], name: Any, work: Coroutine[Any, Any, Any]) -> None:
    await work
    order.append(name)


async def borrow(pool: Pool, **wish: Any) -> None:
    async with pool.connection(**wish) as conn:
        await conn.execute("SELECT 1")


# ------------------------------------------------------------------------------------------ who comes first


def test_first_come_first_served_across_both(dsn: str) -> None:
    """Of one connection, in turn: neither kind overtakes the other."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            order: list[Any] = []
            async with pool.connection():
                tasks = []
                for number in range(12):
                    work = borrow(pool) if number % 4 == 3 else pool.fetch("SELECT 1")
                    tasks.append(asyncio.create_task(noting(order, number, work)))
                await soon(lambda: pool.snapshot().waiting == 12)
            await asyncio.gather(*tasks)
            assert order == list(range(12))

    run(scenario)


def test_statements_under_way_are_joined_by_nobody_who_comes_after_a_borrower(
    postgres: EmbeddedPostgres, dsn: str
) -> None:
    """Who waits for a whole connection gets it when those under way are answered, not when nobody asks any more."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with shared(dsn, multiplex=Multiplex(target=60)) as pool:
                order: list[Any] = []
                tasks = [asyncio.create_task(noting(order, "under way", pool.fetch(gate.query, (1,))))]
                await soon(lambda: gate.held == 1)
                tasks.append(asyncio.create_task(noting(order, "borrower", borrow(pool))))
                await soon(lambda: pool.snapshot().waiting == 1)
                tasks += [asyncio.create_task(noting(order, number, pool.fetch("SELECT 1"))) for number in range(5)]
                await soon(lambda: pool.snapshot().waiting == 6)
                assert pool.snapshot().in_flight == 1
                gate.open()
                await asyncio.gather(*tasks)
                assert order == ["under way", "borrower", 0, 1, 2, 3, 4]

    run(scenario)


def test_a_borrower_is_served_under_a_flood_of_statements(dsn: str) -> None:
    """And the flood goes on."""

    async def scenario() -> None:
        for size in (1, 3):
            async with shared(dsn, size=size) as pool:
                async with Load(pool, tasks=50) as load:
                    for _ in range(30):
                        started = time.monotonic()
                        await borrow(pool, timeout=5)
                        assert time.monotonic() - started < 1
                        await load.more(1)

    run(scenario)


@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_when_the_borrower_in_front_gives_up_those_behind_go_on(postgres: EmbeddedPostgres, dsn: str, how: str) -> None:
    """Statements that only waited for their turn behind it are sent as soon as there is room."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with shared(dsn) as pool:
                held = asyncio.create_task(pool.fetchval(gate.query, (1,)))
                await soon(lambda: gate.held == 1)
                borrower = asyncio.create_task(borrow(pool, timeout=0.1 if how == "timeout" else 20))
                await soon(lambda: pool.snapshot().waiting == 1)
                behind = [asyncio.create_task(pool.fetchval("SELECT %s::int", (n,))) for n in range(3)]
                await soon(lambda: pool.snapshot().waiting == 4)
                if how == "cancel":
                    borrower.cancel()
                await asyncio.wait([borrower])
                assert borrower.cancelled() or isinstance(borrower.exception(), PoolTimeout)
                gate.open()
                assert await asyncio.gather(held, *behind) == [1, 0, 1, 2]

    run(scenario)


def test_priorities_hold_across_both(dsn: str) -> None:
    async def scenario() -> None:
        async with shared(dsn) as pool:
            order: list[Any] = []
            async with pool.connection():
                tasks = []
                for number, priority in enumerate([Priority.LOW, Priority.NORMAL, Priority.HIGH] * 2):
                    work = borrow(pool, priority=priority) if number < 3 else pool.fetch("SELECT 1", priority=priority)
                    tasks.append(asyncio.create_task(noting(order, priority, work)))
                await soon(lambda: pool.snapshot().waiting == 6)
            await asyncio.gather(*tasks)
            assert order == sorted(order)

    run(scenario)


@pytest.mark.parametrize("options", [{}, {"max_per_key": 9}, {"reserve": 1, "size": 2}], ids=str)
def test_who_will_not_wait_is_served_if_there_is_room(dsn: str, options: dict[str, Any]) -> None:
    """timeout=0: by an idle connection, or beside others on one that is in use."""

    async def scenario() -> None:
        async with shared(dsn, multiplex=Multiplex(target=1), **options) as pool:
            assert await pool.fetchval("SELECT 1", timeout=0) == 1
            assert await asyncio.gather(*(pool.fetchval("SELECT 1", timeout=0) for _ in range(2))) == [1, 1]
            async with pool.connection():
                with pytest.raises(PoolTimeout):
                    await asyncio.create_task(pool.fetchval("SELECT 1", timeout=0))

    run(scenario)


# ------------------------------------------------------------------------------------------ limits


def test_max_waiting_counts_statements(dsn: str) -> None:
    async def scenario() -> None:
        async with shared(dsn, max_waiting=3) as pool:
            async with pool.connection():
                tasks = [asyncio.create_task(pool.fetchval("SELECT 1")) for _ in range(3)]
                await soon(lambda: pool.snapshot().waiting == 3)
                with pytest.raises(TooManyRequests, match="3 requests are waiting already, and max_waiting is 3"):
                    await asyncio.create_task(pool.fetchval("SELECT 1"))
                with pytest.raises(TooManyRequests):
                    await asyncio.create_task(borrow(pool))
            assert await asyncio.gather(*tasks) == [1, 1, 1]

    run(scenario)


def test_a_timeout_names_who_holds_the_connections(postgres: EmbeddedPostgres, dsn: str) -> None:
    """Borrowers and statements alike, and it comes in time."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with shared(dsn, size=2, multiplex=Multiplex(max_in_flight=1)) as pool:
                held = asyncio.create_task(pool.fetchval(gate.query, (1,)))
                await soon(lambda: gate.held == 1)
                async with pool.connection():
                    started = time.monotonic()
                    with pytest.raises(PoolExhausted) as caught:
                        await asyncio.create_task(pool.fetchval("SELECT 2", timeout=0.2))
                    assert 0.19 <= time.monotonic() - started < 1
                message = str(caught.value)
                assert "couldn't get a connection after 0.20 sec" in message
                assert message.count(f"1 held by {__file__}:") == 2
                assert "pg_advisory_xact_lock_shared" in message
                gate.open()
                assert await held == 1

    run(scenario)


def test_a_reserve_is_kept_for_high(dsn: str) -> None:
    """From statements, too; those that are HIGH have it."""

    async def scenario() -> None:
        async with shared(dsn, size=2, reserve=1) as pool:
            async with pool.connection():
                with pytest.raises(PoolExhausted, match="kept in reserve"):
                    await asyncio.create_task(pool.fetchval("SELECT 1", timeout=0.1))
                assert await asyncio.create_task(pool.fetchval("SELECT 2", priority=Priority.HIGH, timeout=1)) == 2
                await asyncio.create_task(borrow(pool, priority=Priority.HIGH, timeout=1))
            assert await pool.fetchval("SELECT 1") == 1

    run(scenario)


def test_a_key_has_no_more_than_its_share(postgres: EmbeddedPostgres, dsn: str) -> None:
    """Statements and borrowed connections count alike; others are not held up."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with shared(dsn, size=4, max_per_key=2, multiplex=Multiplex(max_in_flight=1)) as pool:
                of_a = [asyncio.create_task(pool.fetchval(gate.query, (n,), key="a")) for n in range(6)]
                await soon(lambda: gate.held == 2)
                late = asyncio.create_task(borrow(pool, key="a"))
                others = [pool.fetchval("SELECT %s::int", (n,), key=n % 3) for n in range(30)]
                assert await asyncio.gather(*others) == list(range(30))
                await borrow(pool, key="b")
                assert (pool.snapshot().in_flight, pool.snapshot().waiting) == (2, 5)
                gate.open()
                assert await asyncio.gather(*of_a) == list(range(6))
                await late

    run(scenario)


def test_a_key_s_share_comes_back_however_its_statement_ends(postgres: EmbeddedPostgres, dsn: str) -> None:
    """Answered, wrong, refused before it was sent, too late, cancelled, lost."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with shared(dsn, size=2, max_per_key=1) as pool:
                for _ in range(3):
                    assert await pool.fetchval("SELECT 1", key="a", timeout=2) == 1
                    with pytest.raises(psycopg.errors.DivisionByZero):
                        await pool.fetch("SELECT 1 / 0", key="a", timeout=2)
                    with pytest.raises(psycopg.ProgrammingError):
                        await pool.fetch("SELECT %s, %s", (1,), key="a", timeout=2)
                    with pytest.raises(psycopg.errors.QueryCanceled):
                        await pool.fetch(gate.query, (1,), key="a", deadline=0.1)
                    cancelled = asyncio.create_task(pool.fetch(gate.query, (1,), key="a", timeout=2))
                    await soon(lambda: gate.held == 1)
                    cancelled.cancel()
                    await asyncio.wait([cancelled])
                    with pytest.raises(ConnectionLost):
                        await pool.fetch("SELECT pg_terminate_backend(pg_backend_pid())", key="a", timeout=2)
                    assert await pool.fetchval("SELECT 1", key="a", timeout=2) == 1
                    await soon(lambda: not pool._core._tenants)

    run(scenario)


@pytest.mark.alone
@pytest.mark.parametrize("key", [None, "tenant"])
def test_slow_statements_leave_the_last_connection_to_the_quick(dsn: str, key: str | None) -> None:
    """Once they are known to be slow: however many there are, a quick one does not stand behind them."""

    async def scenario() -> None:
        slow = "SELECT pg_sleep(0.3)"
        async with shared(dsn, size=3) as pool:
            for _ in range(2):
                await pool.fetch(slow)
                await pool.fetch("SELECT 1")
            waits = []
            many = [asyncio.create_task(pool.fetch(slow, key=key)) for _ in range(6)]
            await soon(lambda: pool.snapshot().in_flight >= 2)
            while not all(task.done() for task in many):
                started = time.monotonic()
                await pool.fetch("SELECT 1")
                waits.append(time.monotonic() - started)
            await asyncio.gather(*many)
            assert max(waits) < 0.25

    run(scenario)


@pytest.mark.parametrize("met_before", [0, 20])
def test_few_connections_are_opened_if_few_keep_up(dsn: str, met_before: int) -> None:
    """50 tasks of a quick statement, known or not: batches are what pays. Best of three: others use this machine."""

    async def opened_by_a_burst() -> int:
        async with shared(dsn, size=1, max_size=10) as pool:
            for number in range(met_before):
                assert await pool.fetchval("SELECT %s::int", (number,)) == number

            async def ask(number: int) -> None:
                for _ in range(40):
                    assert await pool.fetchval("SELECT %s::int", (number,)) == number

            await asyncio.gather(*(ask(number) for number in range(50)))
            return pool.snapshot().connects

    async def scenario() -> None:
        assert min([await opened_by_a_burst() for _ in range(3)]) <= 3

    run(scenario)


def test_more_are_opened_when_those_in_use_cannot_keep_up(dsn: str) -> None:
    """Slow statements, at once: up to the limit, and no further."""

    async def scenario() -> None:
        async with shared(dsn, size=1, max_size=4) as pool:
            most = 0

            async def watch() -> None:
                nonlocal most
                while True:
                    most = max(most, pool.snapshot().open)
                    await asyncio.sleep(0)

            watcher = asyncio.create_task(watch())
            started = time.monotonic()
            await asyncio.gather(*(pool.fetch("SELECT pg_sleep(0.05)") for _ in range(24)))
            assert time.monotonic() - started < 0.05 * 24 * 0.75
            watcher.cancel()
            assert 2 <= most <= 4

    run(scenario)


# ------------------------------------------------------------------------------------------ operators


def test_a_paused_pool_sends_nothing(postgres: EmbeddedPostgres, dsn: str) -> None:
    """What is under way is answered; what comes waits, until its timeout or `resume`."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with shared(dsn, multiplex=Multiplex(target=60)) as pool:
                under_way = asyncio.create_task(pool.fetchval(gate.query, (1,)))
                await soon(lambda: gate.held == 1)
                pool.pause()
                with pytest.raises(PoolTimeout, match="the pool is paused"):
                    await pool.fetchval("SELECT 1", timeout=0.1)
                waiting = [asyncio.create_task(pool.fetchval("SELECT %s::int", (n,))) for n in range(20)]
                await soon(lambda: pool.snapshot().waiting == 20)
                assert pool.snapshot().in_flight == 1
                gate.open()
                assert await under_way == 1
                assert pool.snapshot().waiting == 20
                pool.resume()
                assert await asyncio.gather(*waiting) == list(range(20))

    run(scenario)


def test_resized_under_load(dsn: str) -> None:
    """Up and down, while statements flow and connections are borrowed: never an error, never above the limit."""

    async def scenario() -> None:
        async with shared(dsn, size=4) as pool:
            invariants = Invariants(pool._core)
            async with Load(pool) as load:
                for size in (1, 3, 1, 2, 5, 1, 4):
                    await pool.resize(size)
                    await asyncio.gather(*(borrow(pool) for _ in range(4)))
                    await load.more(50)
                    invariants.check()
                    await soon(lambda size=size: pool.snapshot().open <= size)  # type: ignore[misc]

    run(scenario)


def test_a_larger_pool_serves_who_waits(dsn: str) -> None:
    async def scenario() -> None:
        async with shared(dsn) as pool:
            async with pool.connection():
                waiting = asyncio.create_task(pool.fetchval("SELECT 1"))
                await soon(lambda: pool.snapshot().waiting == 1)
                await pool.resize(1, 2)
                assert await waiting == 1

    run(scenario)


def drained(pool: Pool) -> int:
    return pool.snapshot().closes.get(Reason.DRAINED, 0)


def test_drained_under_load(dsn: str) -> None:
    """Each connection is replaced, and nobody notices."""

    async def scenario() -> None:
        async with shared(dsn, size=2) as pool:
            async with Load(pool) as load:
                for number in range(1, 6):
                    await soon(lambda: pool.snapshot().idle + pool.snapshot().leased == 2)
                    await pool.drain()
                    await soon(lambda number=number: drained(pool) == 2 * number)  # type: ignore[misc]
                    await load.more(50)

    run(scenario)


def test_connections_end_with_their_lifetime_under_constant_load(dsn: str) -> None:
    """One that is never idle is not kept for ever; what is under way on it is answered."""

    async def scenario() -> None:
        async with shared(dsn, size=2, max_lifetime=0.3) as pool:
            async with Load(pool):
                await soon(lambda: pool.snapshot().closes.get(Reason.EXPIRED, 0) >= 6)
            assert set(pool.snapshot().closes) == {Reason.EXPIRED}

    run(scenario)


def test_checked_under_load(dsn: str) -> None:
    async def scenario() -> None:
        async with shared(dsn, size=3) as pool:
            async with Load(pool) as load:
                for _ in range(10):
                    await pool.check()
                    await load.more(20)
            assert pool.snapshot().closes == {}

    run(scenario)


# ------------------------------------------------------------------------------------------ not open, closed, elsewhere


def test_close_waits_for_what_is_under_way(postgres: EmbeddedPostgres, dsn: str) -> None:
    """It is answered; what waits, and what comes, is told that the pool is closed."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with opened(AsyncPool, dsn, min_size=1, multiplex=Multiplex(max_in_flight=1)) as pool:
                under_way = asyncio.create_task(pool.fetchval(gate.query, (1,)))
                await soon(lambda: gate.held == 1)
                waiting = asyncio.create_task(pool.fetchval("SELECT 2"))
                await soon(lambda: pool.snapshot().waiting == 1)
                closing = asyncio.create_task(pool.close())
                with pytest.raises(PoolClosed, match="is already closed"):
                    await waiting
                with pytest.raises(PoolClosed, match="is already closed"):
                    await pool.fetchval("SELECT 3")
                assert not closing.done()
                gate.open()
                await closing
                assert await under_way == 1
                assert pool.snapshot().open == 0

    run(scenario)


def test_close_does_not_wait_for_ever(postgres: EmbeddedPostgres, dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """It names whom it leaves behind, who is answered all the same; then the connection is closed."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with opened(AsyncPool, dsn, min_size=1) as pool:
                under_way = asyncio.create_task(pool.fetchval(gate.query, (1,)))
                await soon(lambda: gate.held == 1)
                started = time.monotonic()
                await pool.close(timeout=0.1)
                assert time.monotonic() - started < 1
                assert "1 connections still out" in caplog.text
                assert f"{__file__}:" in caplog.text
                gate.open()
                assert await under_way == 1
                await soon(lambda: pool.snapshot().open == 0)

    run(scenario)


def test_a_pool_that_is_not_open(dsn: str) -> None:
    async def scenario() -> None:
        pool = AsyncPool(dsn, open=False)
        with pytest.raises(PoolClosed, match="is not open yet"):
            await pool.fetch("SELECT 1")
        with pytest.raises(PoolClosed, match="is not open yet"):
            await pool.fetch("SELECT 1", deadline=5)

    run(scenario)


def test_another_event_loop_is_told_so(dsn: str) -> None:
    """While statements flow in the pool's own."""

    async def scenario() -> None:
        async with shared(dsn) as pool:

            async def trespass() -> None:
                for ask in (pool.fetch, pool.fetchrow, pool.fetchval, pool.execute):
                    with pytest.raises(WrongEventLoop, match="one AsyncPool for each loop"):
                        await ask("SELECT 1")
                    with pytest.raises(WrongEventLoop):
                        await ask("SELECT 1", deadline=5)

            async with Load(pool):
                await asyncio.to_thread(lambda: aside(lambda: asyncio.run(trespass())).result(10))

    run(scenario)


# ------------------------------------------------------------------------------------------ hooks


def test_hooks_are_called_once_a_burst_and_not_for_each_statement(dsn: str) -> None:
    """What a connection is lent for is all that is sent on it until it runs empty."""
    calls: Counter[str] = Counter()

    async def check(conn: Any) -> None:
        calls["check"] += 1

    async def reset(conn: Any) -> None:
        calls["reset"] += 1

    async def configure(conn: Any) -> None:
        calls["configure"] += 1
        await conn.execute("SET work_mem = '7MB'")
        await conn.commit()

    async def scenario() -> None:
        async with shared(dsn, configure=configure, check=check, reset=reset) as pool:
            for burst in range(1, 4):
                assert await asyncio.gather(*(pool.fetchval("SHOW work_mem") for _ in range(50))) == ["7MB"] * 50
                await at_rest(pool)
                assert calls["check"] == calls["reset"]
                assert burst <= calls["check"] <= 3 * burst
            assert calls["configure"] == 1

    run(scenario)


def test_one_that_fails_its_check_is_replaced(dsn: str) -> None:
    """The statement goes to another; so it is when its reset fails."""
    trouble = iter([None, "check", None, None, None])

    async def check(conn: Any) -> None:
        if next(trouble, None):
            raise psycopg.OperationalError("not well")

    async def scenario() -> None:
        async with shared(dsn, check=check) as pool:
            for number in range(4):
                assert await pool.fetchval("SELECT %s::int", (number,)) == number
                await at_rest(pool)
            assert pool.snapshot().closes == {Reason.CHECK_FAILED: 1}

    run(scenario)


def test_a_reset_that_fails_costs_the_connection(dsn: str) -> None:
    async def reset(conn: Any) -> None:
        raise ValueError("no")

    async def scenario() -> None:
        async with shared(dsn, reset=reset) as pool:
            for number in range(3):
                assert await pool.fetchval("SELECT %s::int", (number,)) == number
                await at_rest(pool)
            assert pool.snapshot().closes == {Reason.UNCLEAN: 3}

    run(scenario)


# ------------------------------------------------------------------------------------------ watched


def test_events_balance(postgres: EmbeddedPostgres, dsn: str) -> None:
    """Each connection that was taken for statements was given back, whatever became of them; and nothing slows down."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with shared(dsn, size=2) as pool:
                told: list[events.Event] = []
                pool.listen(told.append)
                await asyncio.gather(*(pool.fetch("SELECT 1") for _ in range(100)))
                await asyncio.gather(*(pool.fetch("SELECT 1 / 0") for _ in range(20)), return_exceptions=True)
                with suppress(ConnectionLost):
                    await pool.fetch("SELECT pg_terminate_backend(pg_backend_pid())")
                cancelled = asyncio.create_task(pool.fetch(gate.query, (1,)))
                await soon(lambda: gate.held == 1)
                cancelled.cancel()
                await asyncio.wait([cancelled])
                await borrow(pool)
                await at_rest(pool)
                counts = Counter(type(event) for event in told)
                assert counts[events.Acquired] + counts[events.Waited] == counts[events.Returned] > 0
                assert counts[events.Closed] == counts[events.Opened] == 1
                assert counts[events.Refused] == 0
                sites = {event.site for event in told if isinstance(event, events.Acquired)}
                assert {site.file for site in sites} == {__file__}

    run(scenario)


def test_what_is_told_of_a_return_is_how_long_it_was_out(dsn: str) -> None:
    """As of a borrowed connection."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            held: list[float] = []
            pool.listen(lambda event: held.append(event.held) if isinstance(event, events.Returned) else None)
            await pool.fetch("SELECT pg_sleep(0.15)")
            await at_rest(pool)
            assert held == [pytest.approx(0.15, abs=0.1)]

    run(scenario)


def test_the_holders_are_those_who_asked(postgres: EmbeddedPostgres, dsn: str) -> None:
    """The line of the oldest statement under way, its text, and how many there are."""

    async def asks(pool: Pool, gate: Gate) -> Any:
        return await pool.fetchval(gate.query, (1,))

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with shared(dsn) as pool:
                assert pool.holders() == []
                tasks = [asyncio.create_task(asks(pool, gate))]
                tasks += [asyncio.create_task(pool.fetchval("SELECT 2")) for _ in range(3)]
                await soon(lambda: gate.held == 1)
                in_flight = pool.snapshot().in_flight
                (holder,) = pool.holders()
                assert (holder.site.file, holder.status, holder.idle) == (__file__, "ACTIVE", None)
                assert "asks" in holder.site.function
                assert "pg_advisory_xact_lock_shared" in str(holder.statement)
                assert 0 <= holder.held < 5
                assert f"{in_flight} in flight" in str(holder)
                gate.open()
                await asyncio.gather(*tasks)
                await at_rest(pool)
                assert pool.holders() == []

    run(scenario)


def test_a_long_statement_is_no_leak(postgres: EmbeddedPostgres, dsn: str) -> None:
    """Nor is a connection that is shared without end: nobody has forgotten it."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with shared(dsn, size=2, leak_after=0.1, leak_reclaim=True) as pool:
                told: list[events.Event] = []
                pool.listen(told.append)
                long = asyncio.create_task(pool.fetchval(gate.query, (1,)))
                await soon(lambda: gate.held == 1)
                started = time.monotonic()
                async with Load(pool) as load:
                    while time.monotonic() - started < 0.6:
                        await load.more(10)
                    gate.open()  # some may have been sent behind it
                assert await long == 1
                await at_rest(pool)
                assert not [event for event in told if isinstance(event, (events.LeakSuspected, events.TakenBack))]
                assert pool.snapshot().closes == {}

    run(scenario)


def test_the_figures_count_statements_as_requests(dsn: str) -> None:
    """Each once: asked, answered, used; refused ones as refused."""

    async def scenario() -> None:
        async with shared(dsn, size=2) as pool:
            await asyncio.gather(*(pool.fetch("SELECT 1") for _ in range(200)))
            await asyncio.gather(*(pool.fetch("SELECT 1 / 0") for _ in range(10)), return_exceptions=True)
            await borrow(pool)
            await at_rest(pool)
            snapshot, stats = pool.snapshot(), pool.get_stats()
            assert snapshot.statements == 210
            assert (snapshot.requests, snapshot.uses) == (211, 211)
            assert (stats["requests_num"], stats["requests_errors"]) == (211, 0)
            assert snapshot.hold > 0

    run(scenario)


def test_a_listener_that_raises_breaks_nothing(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "penstock")

    async def scenario() -> None:
        async with shared(dsn) as pool:
            pool.listen(lambda event: 1 / 0)
            answers = await asyncio.gather(*(pool.fetchval("SELECT %s::int", (number,)) for number in range(50)))
            assert answers == list(range(50))

    run(scenario)


# ------------------------------------------------------------------------------------------ a task that holds one


def test_a_task_that_holds_the_only_connection_and_asks(dsn: str) -> None:
    """It would wait for itself: told at once. The connection in hand is as good as it was."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            async with pool.connection() as conn:
                started = time.monotonic()
                with pytest.raises(PoolDeadlock, match="All 1 connections are held by tasks that wait"):
                    await pool.fetchval("SELECT 1")
                assert time.monotonic() - started < 1
                await conn.execute("SELECT 1")
            assert await pool.fetchval("SELECT 1") == 1

    run(scenario)


def test_tasks_that_hold_all_and_ask(dsn: str) -> None:
    """One of them is told, and the others go on when it leaves."""

    async def scenario() -> None:
        async with shared(dsn, size=2) as pool:
            both_hold = asyncio.Barrier(2)

            async def needs_two() -> str:
                try:
                    async with pool.connection():
                        await both_hold.wait()
                        return str(await pool.fetchval("SELECT 'served'"))
                except PoolDeadlock:
                    return "deadlock"

            assert sorted(await asyncio.gather(needs_two(), needs_two())) == ["deadlock", "served"]

    run(scenario)


def test_who_holds_one_may_ask_while_statements_share_another(postgres: EmbeddedPostgres, dsn: str) -> None:
    """They end: that is no deadlock."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with shared(dsn, size=2, multiplex=Multiplex(max_in_flight=1)) as pool:
                held = asyncio.create_task(pool.fetchval(gate.query, (1,)))
                await soon(lambda: gate.held == 1)

                async def holds_and_asks() -> int:
                    async with pool.connection():
                        return int(await pool.fetchval("SELECT 2"))

                asking = asyncio.create_task(holds_and_asks())
                await soon(lambda: pool.snapshot().waiting == 1)
                gate.open()
                assert (await held, await asking) == (1, 2)

    run(scenario)


def test_nested_counts_a_statement_as_a_second_connection(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """Refused, or told in the log, with both lines; and statements of one task at once are no such thing."""

    async def scenario() -> None:
        async with shared(dsn, size=2, nested="raise") as pool:
            async with pool.connection():
                with pytest.raises(NestedCheckout, match=r"asks for a connection while .* holds one"):
                    await pool.fetchval("SELECT 1")
                assert await asyncio.create_task(pool.fetchval("SELECT 1")) == 1
            assert await asyncio.gather(*(pool.fetchval("SELECT 1") for _ in range(20))) == [1] * 20
        async with shared(dsn, size=2, nested="warn") as pool:
            async with pool.connection():
                assert await pool.fetchval("SELECT 1") == 1
            assert caplog.text.count("asks for a connection while") == 1

    run(scenario)


# ------------------------------------------------------------------------------------------ a fallback's loads


def test_a_fallback_s_loads_are_read_only(dsn: str) -> None:
    """Whatever they begin with; a write is refused, and others on the same connection may write."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            await pool.execute("DROP TABLE IF EXISTS prices")
            await pool.execute("CREATE TABLE prices (a int)")
            fallback = AsyncFallback(fresh=0)
            read_only = "SELECT current_setting('transaction_read_only')"
            for number, query in enumerate(
                [read_only, f"-- prices\n{read_only}", f"/* a */ {read_only}", "SHOW work_mem"]
            ):
                answer = await fallback.get(str(number), partial(pool.fetchval, query))
                assert answer.value in ("on", await pool.fetchval("SHOW work_mem"))
            for query in ("INSERT INTO prices VALUES (1)", "CREATE TABLE no (a int)", "ANALYZE prices"):
                with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                    write: Callable[[], Any] = partial(pool.execute, query)
                    await fallback.get(query, write)
                assert await pool.execute("INSERT INTO prices VALUES (2)") == "INSERT 0 1"
            assert await pool.fetchval(read_only) == "off"
            assert await pool.fetchval("SELECT count(*) FROM prices WHERE a = 1") == 0
            assert pool.snapshot().closes == {}

    run(scenario)


def test_a_fallback_answers_when_the_pool_cannot(own_postgres: Callable[..., EmbeddedPostgres]) -> None:
    """With the last good value."""

    async def scenario() -> None:
        server = own_postgres()
        async with opened(AsyncPool, server.dsn, min_size=1) as pool:
            fallback = AsyncFallback(fresh=0, stale=60)

            async def load() -> Any:
                return await pool.fetchval("SELECT 7")

            assert (await fallback.get("k", load)).value == 7
            server.stop()
            answer = await fallback.get("k", load)
            assert (answer.value, answer.stood_in) == (7, True)

    run(scenario)
