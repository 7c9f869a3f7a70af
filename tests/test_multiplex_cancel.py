"""A caller goes away, or has no more time, and its statement shares a connection with others: they notice nothing."""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from random import Random
from typing import Any

import psycopg
import pytest

import penstock
from penstock import AsyncPool, Overloaded, PoolError, PoolTimeout, StatementTimeout
from penstock.core import Reason
from penstock.drill.postgres import EmbeddedPostgres
from support.statements import Gate, at_rest, ended, shared
from support.waiting import soon

ACTIVE = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state = 'active' AND query LIKE %s"
LIMIT = "SELECT extract(epoch FROM current_setting('statement_timeout')::interval)::float"


def running(server: EmbeddedPostgres, like: str) -> int:
    """Statements of the ordinary role that the server runs now."""
    with server.admin() as admin:
        row = admin.execute(ACTIVE, [like]).fetchone()
    assert row is not None
    return int(row[0])


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


# ------------------------------------------------------------------------------------------ going away


def test_cancelled_while_it_waits_to_be_sent(postgres: EmbeddedPostgres, dsn: str) -> None:
    """It leaves the queue, was never run, and those behind it are served."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with shared(dsn) as pool:
                async with pool.connection() as conn:
                    await conn.execute("CREATE TEMP TABLE ran (number int)")
                    waiting = [asyncio.create_task(pool.fetchval("SELECT %s::int", (number,))) for number in range(5)]
                    await soon(lambda: pool.snapshot().waiting == 5)
                    waiting[1].cancel()
                    waiting[3].cancel()
                    await ended(waiting[1], waiting[3])
                    assert pool.snapshot().waiting == 3
                assert await asyncio.gather(*waiting[::2]) == [0, 2, 4]
                assert gate.held == 0
                assert pool.snapshot().statements == 3

    run(scenario)


def test_a_lone_one_that_is_cancelled_ends_on_the_server_too(postgres: EmbeddedPostgres, dsn: str) -> None:
    """What nobody waits for does not run on, and its connection is as good as new."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with shared(dsn) as pool:
                lone = asyncio.create_task(pool.fetchval(gate.query, (1,)))
                await soon(lambda: gate.held == 1)
                lone.cancel()
                await ended(lone)
                await soon(lambda: gate.held == 0)
                assert await pool.fetchval("SELECT 2") == 2
                assert pool.snapshot().connects == 1

    run(scenario)


def test_cancelled_in_the_moment_of_being_sent(postgres: EmbeddedPostgres, dsn: str) -> None:
    """A request to stop that comes before the server has begun is in vain: it is made again. 40 times."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with shared(dsn) as pool:
                assert await pool.fetchval("SELECT 1") == 1
                for number in range(40):
                    tasks = [asyncio.create_task(pool.fetchval(gate.query, (n,))) for n in range(1 + number % 3)]
                    while not pool.snapshot().in_flight:
                        await asyncio.sleep(0)
                    for one in tasks:
                        one.cancel()
                    await ended(*tasks)
                    started = time.monotonic()
                    assert await pool.fetchval("SELECT 2", timeout=5) == 2
                    assert time.monotonic() - started < 1.5
                assert gate.held == 0
                assert pool.snapshot().closes == {}

    run(scenario)


def test_one_of_several_is_cancelled_and_the_others_are_answered(postgres: EmbeddedPostgres, dsn: str) -> None:
    """Whichever it is, the one that runs included: what shares its connection is not hit in its place."""

    async def scenario() -> None:
        for which in range(3):
            with Gate(postgres) as gate:
                async with shared(dsn) as pool:
                    both = [asyncio.create_task(pool.fetchval(gate.query, (number,))) for number in range(2)]
                    await soon(lambda: gate.held == 1 and pool.snapshot().in_flight == 2)
                    if which < 2:
                        both[which].cancel()
                        await ended(both[which])
                    gate.open()
                    left = [one for one in both if not one.cancelled()]
                    assert await asyncio.gather(*left) == [number for number in range(2) if number != which]
                    assert await pool.fetchval("SELECT 5") == 5

    run(scenario)


def test_all_are_cancelled_at_once_and_none_runs_on(postgres: EmbeddedPostgres, dsn: str) -> None:
    """As when a request's task group fails: the connection serves the next at once, not after each has had its turn."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with shared(dsn) as pool:
                tasks = [asyncio.create_task(pool.fetchval(gate.query, (number,))) for number in range(20)]
                await soon(lambda: gate.held == 1 and pool.snapshot().in_flight >= 2)
                for one in tasks:
                    one.cancel()
                await ended(*tasks)
                started = time.monotonic()
                assert await pool.fetchval("SELECT 2", timeout=5) == 2
                assert time.monotonic() - started < 2
                assert gate.held == 0
                assert pool.snapshot().connects == 1

    run(scenario)


def test_the_last_of_several_that_is_cancelled_frees_the_connection(postgres: EmbeddedPostgres, dsn: str) -> None:
    """One after the other, the later ones first."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with shared(dsn) as pool:
                tasks = [asyncio.create_task(pool.fetchval(gate.query, (number,))) for number in range(2)]
                await soon(lambda: gate.held == 1 and pool.snapshot().in_flight == 2)
                for one in reversed(tasks):
                    one.cancel()
                    await ended(one)
                await soon(lambda: gate.held == 0)
                assert await pool.fetchval("SELECT 2", timeout=5) == 2

    run(scenario)


def test_a_cancel_request_never_hits_who_comes_next(dsn: str) -> None:
    """100 times: cancelled while it runs, or just as it ends, and the next statement is sent at once."""

    async def scenario() -> None:
        random = Random(4)
        async with shared(dsn) as pool:
            for number in range(100):
                lone = asyncio.create_task(pool.fetchval("SELECT %s::int FROM pg_sleep(0.003)", (number,)))
                await asyncio.sleep(0.004 * random.random())
                lone.cancel()
                later = [asyncio.create_task(pool.fetchval("SELECT %s::int", (number + extra,))) for extra in range(3)]
                assert await asyncio.gather(*later) == [number, number + 1, number + 2]
            assert pool.snapshot().connects == 1

    run(scenario)


def test_answers_are_never_mixed_up_by_those_who_went_away(dsn: str) -> None:
    """1,500 statements over 3 connections, a third of their callers cancelled at any moment."""

    async def scenario() -> None:
        random = Random(5)
        async with shared(dsn, size=3) as pool:

            async def ask(number: int) -> int:
                if number % 11 == 0:
                    with pytest.raises(psycopg.errors.DivisionByZero):
                        await pool.fetchval("SELECT %s::int / 0", (number,))
                    return 0
                if number % 7 == 0:
                    return int(await pool.fetchval("SELECT %s::int FROM pg_sleep(0.001)", (number,)))
                return int(await pool.fetchval("SELECT %s::int", (number,)))

            answered = 0
            for base in range(0, 1500, 100):
                tasks = {number: asyncio.create_task(ask(number)) for number in range(base, base + 100)}
                for _ in range(5):
                    await asyncio.sleep(0.004 * random.random())
                    for number in random.sample(list(tasks), 8):
                        tasks[number].cancel()
                await asyncio.wait(tasks.values())
                for number, one in tasks.items():
                    if not one.cancelled():
                        answered += 1
                        assert one.result() == (0 if number % 11 == 0 else number)
            assert answered > 500
            assert pool.snapshot().closes == {}

    run(scenario)


def test_cancelled_at_any_step_of_the_loop(dsn: str) -> None:
    """However far it has come: nothing is lost, and the next answer is its own."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            for steps in range(12):
                one = asyncio.create_task(pool.fetchval("SELECT 1"))
                for _ in range(steps):
                    await asyncio.sleep(0)
                one.cancel()
                assert await pool.fetchval("SELECT 2") == 2
                await asyncio.wait([one])
                await at_rest(pool)

    run(scenario)


def test_cancelled_at_any_step_of_a_new_connection_s_first_statement(dsn: str) -> None:
    """Before or after it is known what the connection leads to: it serves the next."""

    async def scenario() -> None:
        for steps in range(12):
            async with shared(dsn) as pool:
                one = asyncio.create_task(pool.fetchval("SELECT 1"))
                for _ in range(steps):
                    await asyncio.sleep(0)
                one.cancel()
                await asyncio.wait([one])
                assert await pool.fetchval("SELECT 2") == 2
                await at_rest(pool)
                assert pool.snapshot().connects == 1

    run(scenario)


@pytest.mark.parametrize("steps", range(6))
def test_cancelled_while_a_connection_is_opened_for_it(dsn: str, steps: int) -> None:
    """It outlives who started it, and serves the next."""

    async def scenario() -> None:
        async with shared(dsn, size=0, max_size=1) as pool:
            one = asyncio.create_task(pool.fetchval("SELECT 1"))
            for _ in range(steps):
                await asyncio.sleep(0)
            one.cancel()
            await asyncio.wait([one])
            assert await pool.fetchval("SELECT 2") == 2
            assert pool.snapshot().connects == 1

    run(scenario)


def test_cancelled_while_its_connection_is_checked(dsn: str) -> None:
    """The check goes on without it; the connection is nobody's then."""

    async def scenario() -> None:
        checking, go_on = asyncio.Event(), asyncio.Event()

        async def check(_: Any) -> None:
            checking.set()
            await go_on.wait()

        async with shared(dsn, check=check) as pool:
            one = asyncio.create_task(pool.fetchval("SELECT 1"))
            await checking.wait()
            one.cancel()
            await ended(one)
            go_on.set()
            await at_rest(pool)
            assert await pool.fetchval("SELECT 2") == 2
            assert pool.snapshot().connects == 1

    run(scenario)


def test_a_timeout_of_the_caller_s_own(postgres: EmbeddedPostgres, dsn: str) -> None:
    """asyncio.timeout and wait_for: TimeoutError, at about that time, and the server stops."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with shared(dsn) as pool:
                started = time.monotonic()
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await pool.fetchval(gate.query, (1,))
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(pool.fetch(gate.query, (1,)), 0.1)
                assert time.monotonic() - started < 1
                await soon(lambda: gate.held == 0)
                assert await pool.fetchval("SELECT 2") == 2

    run(scenario)


def test_a_task_group_that_fails_takes_its_statements_with_it(postgres: EmbeddedPostgres, dsn: str) -> None:
    """One's own error, and all others of the group are cancelled: sent or not."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with shared(dsn, size=2) as pool:
                with pytest.raises(ExceptionGroup) as caught:
                    async with asyncio.TaskGroup() as group:
                        for number in range(10):
                            group.create_task(pool.fetchval(gate.query, (number,)))
                        await soon(lambda: gate.held)
                        raise ValueError
                assert [type(error) for error in caught.value.exceptions] == [ValueError]
                assert await pool.fetchval("SELECT 2", timeout=5) == 2
                await at_rest(pool)
                assert gate.held == 0

    run(scenario)


def test_a_cancel_request_that_cannot_be_delivered(proxy: Any, dsn: str) -> None:
    """The server is out of reach: the pool is bounded all the same, and whole again when it is back."""

    async def scenario() -> None:
        async with shared(proxy.through(dsn), max_size=2, timeout=10) as pool:
            lone = asyncio.create_task(pool.fetchval("SELECT pg_sleep(1)"))
            await soon(lambda: pool.snapshot().in_flight == 1)
            proxy.accept_and_freeze()
            lone.cancel()
            await ended(lone)
            proxy.heal()
            assert await pool.fetchval("SELECT 2") == 2

    run(scenario)


# ------------------------------------------------------------------------------------------ declared deadlines


async def declared(pool: AsyncPool[Any], inside: bool, seconds: float, *query: Any) -> Any:
    """Both ways to say until when the answer is wanted."""
    if inside:
        with penstock.deadline(seconds):
            return await pool.fetchval(*query)
    return await pool.fetchval(*query, deadline=seconds)


either_way = pytest.mark.parametrize("inside", [True, False], ids=["with deadline()", "deadline="])


@either_way
def test_a_statement_ends_with_its_deadline(dsn: str, inside: bool) -> None:
    """On the server, too; as StatementTimeout, which is psycopg's QueryCanceled as well."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            started = time.monotonic()
            with pytest.raises(StatementTimeout) as caught:
                await declared(pool, inside, 0.2, "SELECT pg_sleep(10)")
            assert 0.19 <= time.monotonic() - started < 1
            assert isinstance(caught.value, psycopg.errors.QueryCanceled)
            assert isinstance(caught.value, PoolError)
            assert await pool.fetchval("SELECT 2", timeout=2) == 2
            assert pool.snapshot().connects == 1

    run(scenario)


def test_somebody_else_s_cancel_is_not_the_deadline(postgres: EmbeddedPostgres, dsn: str) -> None:
    """An operator's pg_cancel_backend: the server's own error, for that statement alone."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with shared(dsn) as pool:
                for deadline in (None, 10.0):
                    stopped = asyncio.create_task(pool.fetch(gate.query, (1,), deadline=deadline))
                    behind = asyncio.create_task(pool.fetchval("SELECT 2"))
                    await soon(lambda: gate.held == 1)
                    with postgres.admin() as admin:
                        admin.execute("SELECT pg_cancel_backend(pid) FROM pg_locks WHERE NOT granted")
                    with pytest.raises(psycopg.errors.QueryCanceled) as caught:
                        await stopped
                    assert not isinstance(caught.value, StatementTimeout)
                    assert await behind == 2

    run(scenario)


def test_a_deadline_is_no_other_statement_s(postgres: EmbeddedPostgres, dsn: str) -> None:
    """The one in front is ended by the server in time; the one behind is answered, and has no limit of its own."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            hasty = asyncio.create_task(declared(pool, False, 0.2, "SELECT 1 FROM pg_sleep(10)"))
            patient = asyncio.create_task(pool.fetchval(LIMIT))
            with pytest.raises(StatementTimeout):
                await hasty
            assert await patient == 0
            assert running(postgres, "%pg_sleep(10)%") == 0

    run(scenario)


def test_who_stands_behind_a_slow_one_keeps_its_deadline(postgres: EmbeddedPostgres, dsn: str) -> None:
    """It was sent, so it may run later, and the message says so; the slow one is not disturbed."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with shared(dsn) as pool:
                slow = asyncio.create_task(pool.fetchval(gate.query, (1,)))
                hasty = asyncio.create_task(pool.fetchval("SELECT 2", deadline=0.1))
                await soon(lambda: gate.held == 1 and pool.snapshot().in_flight == 2)
                with pytest.raises(StatementTimeout, match="may have run"):
                    await hasty
                gate.open()
                assert await slow == 1

    run(scenario)


@either_way
def test_a_deadline_that_passes_in_the_queue(postgres: EmbeddedPostgres, dsn: str, inside: bool) -> None:
    """It was never sent: refused as a request for a connection is."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            async with pool.connection():
                started = time.monotonic()
                with pytest.raises((Overloaded, PoolTimeout)) as caught:
                    await asyncio.create_task(declared(pool, inside, 0.1, "SELECT 1"))
                assert 0.09 <= time.monotonic() - started < 1
                assert not isinstance(caught.value, StatementTimeout)
            assert pool.snapshot().statements == 0

    run(scenario)


@either_way
def test_a_deadline_that_has_passed_sends_nothing(dsn: str, inside: bool) -> None:
    async def scenario() -> None:
        async with shared(dsn) as pool:
            with pytest.raises(PoolError):
                await declared(pool, inside, 0, "SELECT 1")
            assert pool.snapshot().statements == 0
            assert await pool.fetchval("SELECT 2") == 2

    run(scenario)


@either_way
def test_the_server_is_told_what_is_left(dsn: str, inside: bool) -> None:
    """For that statement; nothing is left set in the session, whoever comes next."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            assert 1 < await declared(pool, inside, 5, LIMIT) <= 5
            assert await pool.fetchval(LIMIT) == 0
            async with pool.connection() as conn:
                row = await (await conn.execute(LIMIT)).fetchone()
                assert row == (0,)
            # The same again while they share the connection, and once they are prepared.
            for _ in range(8):
                several = [declared(pool, inside, 5, LIMIT), pool.fetchval(LIMIT), declared(pool, inside, 9, LIMIT)]
                five, none, nine = await asyncio.gather(*several)
                assert (math.ceil(five), none, math.ceil(nine)) == (5, 0, 9)

    run(scenario)


@pytest.mark.parametrize("way", ["options", "pool", "configure"])
def test_the_session_s_own_limit_counts_if_it_is_shorter(dsn: str, way: str) -> None:
    """And is still there afterwards. Its end is the server's error, not the deadline's."""

    async def configure(conn: Any) -> None:
        await conn.execute("SET statement_timeout = '400ms'")
        await conn.commit()

    options: dict[str, dict[str, Any]] = {
        "options": {"kwargs": {"options": "-c statement_timeout=400ms"}},
        "pool": {"statement_timeout": 0.4},
        "configure": {"configure": configure},
    }

    async def scenario() -> None:
        async with shared(dsn, **options[way]) as pool:
            assert await pool.fetchval(LIMIT, deadline=5) == 0.4
            assert await pool.fetchval(LIMIT, deadline=0.2) < 0.21
            assert await pool.fetchval(LIMIT) == 0.4
            started = time.monotonic()
            with pytest.raises(psycopg.errors.QueryCanceled) as caught:
                await pool.fetchval("SELECT pg_sleep(10)", deadline=5)
            assert time.monotonic() - started < 2
            assert not isinstance(caught.value, StatementTimeout)

    run(scenario)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT pg_sleep(10)",
        "  -- which one\n SELECT pg_sleep(10)",
        "/* which one */ SELECT pg_sleep(10)",
        "(SELECT pg_sleep(10))",
        "WITH a AS MATERIALIZED (SELECT pg_sleep(10)) SELECT * FROM a",
        "VALUES (pg_sleep(10))",
        "EXPLAIN ANALYZE SELECT pg_sleep(10)",
        "CALL waste_time(10)",
    ],
)
def test_whatever_it_begins_with_it_does_not_run_on(postgres: EmbeddedPostgres, dsn: str, query: str) -> None:
    """Though somebody shares its connection, where the server can be told before, and alone in any case."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            await pool.execute(
                "CREATE OR REPLACE PROCEDURE waste_time(seconds int)"
                " LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(seconds); END $$"
            )
            with pytest.raises(StatementTimeout):
                await pool.fetch(query, deadline=0.1)
            assert await pool.fetchval("SELECT 2", timeout=2) == 2
            assert running(postgres, f"%{query.strip()}%") == 0
            assert pool.snapshot().connects == 1

    run(scenario)


@pytest.mark.parametrize("query", ["SELECT %s::int FROM pg_sleep(10)", "-- it\nSELECT %s::int FROM pg_sleep(10)"])
def test_the_server_ends_it_though_others_wait_behind_it(dsn: str, query: str) -> None:
    """It cannot be cancelled then, for that could hit them: the server was told beforehand."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            late = asyncio.create_task(pool.fetchval(query, (1,), deadline=0.2))
            behind = asyncio.create_task(pool.fetchval("SELECT 2"))
            started = time.monotonic()
            with pytest.raises(StatementTimeout):
                await late
            assert await behind == 2
            assert time.monotonic() - started < 2

    run(scenario)


@pytest.mark.parametrize("query", ["VACUUM", "CREATE DATABASE nobody_may", "CHECKPOINT", "SHOW work_mem", "ANALYZE"])
def test_what_may_have_nothing_before_it_goes_without_a_limit(dsn: str, query: str) -> None:
    """These could not run in a transaction that something else has begun."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            with suppress(psycopg.errors.InsufficientPrivilege):
                await pool.execute(query, deadline=10)

    run(scenario)


def test_an_error_before_the_deadline_is_the_statement_s_own(dsn: str) -> None:
    """With a limit sent before it, and prepared under the same Sync."""

    async def scenario() -> None:
        async with shared(dsn, kwargs={"prepare_threshold": 0}) as pool:
            for number in range(12):
                with pytest.raises(psycopg.errors.DivisionByZero):
                    await pool.fetchval("SELECT %s::int / 0", (number,), deadline=5)
                with pytest.raises(psycopg.errors.UndefinedTable):
                    await pool.fetch("SELECT * FROM nowhere WHERE a = %s", (number,), deadline=5)
                with pytest.raises(psycopg.ProgrammingError):
                    await pool.fetch("SELECT %s", (1, 2), deadline=5)
                assert await pool.fetchval("SELECT %s::int", (number,), deadline=5) == number

    run(scenario)


def test_the_earlier_of_two_deadlines_counts_and_none_lifts_it(dsn: str) -> None:
    async def scenario() -> None:
        async with shared(dsn) as pool:
            with penstock.deadline(5):
                assert await pool.fetchval(LIMIT, deadline=2) <= 2
                assert 2 < await pool.fetchval(LIMIT, deadline=50) <= 5
                with penstock.deadline(None):
                    assert await pool.fetchval(LIMIT) == 0

    run(scenario)


def test_a_timeout_bounds_the_wait_and_not_the_statement(postgres: EmbeddedPostgres, dsn: str) -> None:
    """As with `connection`: once it was sent, it may take its time."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with shared(dsn, timeout=0.05) as pool:
                one = asyncio.create_task(pool.fetchval(gate.query, (1,)))
                await soon(lambda: gate.held == 1)
                await asyncio.sleep(0.1)  # past both, which nothing tells of
                gate.open()
                assert await one == 1

    run(scenario)


def test_a_check_that_hangs_does_not_outlast_the_request_s_own_timeout(dsn: str) -> None:
    """An acquire returns or raises by its deadline, whatever the database does."""

    async def scenario() -> None:
        async def check(conn: Any) -> None:
            await conn.execute("SELECT pg_sleep(20)")

        async with shared(dsn, check=check) as pool:
            started = time.monotonic()
            with pytest.raises(PoolTimeout):
                await pool.fetchval("SELECT 1", timeout=0.2)
            assert time.monotonic() - started < 1
            assert pool.snapshot().closes[Reason.CHECK_FAILED] == 1

    run(scenario)


def test_many_deadlines_at_once_lose_nothing(dsn: str) -> None:
    """Some in time and some not, on both sides of the moment: each is answered right or not at all."""

    async def scenario() -> None:
        async with shared(dsn, size=2) as pool:

            async def ask(number: int) -> bool:
                try:
                    answer = await pool.fetchval(
                        "SELECT %s::int FROM pg_sleep(0.002)", (number,), deadline=0.01 * (number % 40 + 1)
                    )
                except (PoolError, psycopg.errors.QueryCanceled):
                    return False
                assert answer == number
                return True

            answers = await asyncio.gather(*(ask(number) for number in range(400)))
            assert any(answers)
            assert not all(answers)
            assert await pool.fetchval(LIMIT) == 0
            assert pool.snapshot().closes == {}

    run(scenario)
