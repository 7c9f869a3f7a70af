"""Answers and questions of any size on a shared connection: memory stays bounded, and nobody is stuck behind them."""

import asyncio
import gc
import os
import pickle
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from penstock import AsyncPool, Multiplex, PoolError, ResultTooLarge
from penstock.drill.postgres import EmbeddedPostgres
from penstock.multiplex.statement import Statement
from support.statements import Gate, at_rest, shared
from support.waiting import soon

KIB, MIB = 2**10, 2**20
STATM = Path("/proc/self/statm")
LARGE = "SELECT repeat('x', 10000) FROM generate_series(1, 13000)"  # 124 MiB


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 60))


def resident() -> int:
    """Bytes of memory that this process has now."""
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def no_more_than(most: int) -> AsyncIterator[None]:
    """Fails if the process grows by more than that many bytes, at any moment at which the event loop goes round."""
    if not STATM.exists():
        pytest.skip("there is no /proc here to ask for the memory in use")
    before, peak = resident(), 0

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, resident())
            await asyncio.sleep(0)

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
    assert peak - before < most, f"grew by {(peak - before) / MIB:.0f} MiB"


def bound(max_result: int) -> dict[str, Any]:
    return {"multiplex": Multiplex(max_result=max_result)}


TOO_LARGE = {
    "many rows": "SELECT i, repeat('x', 20) FROM generate_series(1, 80000) i",
    "wide rows": "SELECT repeat('x', 300000) FROM generate_series(1, 10) i",
    "one row": "SELECT repeat('x', 3000000)",
    "two rows, the second": "SELECT repeat('x', CASE i WHEN 2 THEN 3000000 ELSE 1 END) FROM generate_series(1, 2) i",
    "wide here and there": "SELECT repeat('x', CASE i % 64 WHEN 9 THEN 600000 ELSE 1 END)"
    " FROM generate_series(1, 300) i",
    "rows of NULL": "SELECT NULL FROM generate_series(1, 40000)",
    "rows of nothing": "SELECT FROM generate_series(1, 40000)",
    "many columns": "SELECT " + ", ".join(["repeat('x', 20000)"] * 100),
    "the last rows": "SELECT repeat('x', CASE WHEN i > 64 THEN 100000 ELSE 1 END) FROM generate_series(1, 90) i",
}


@pytest.mark.parametrize("which", TOO_LARGE)
def test_what_is_larger_than_max_result_is_refused(dsn: str, which: str) -> None:
    """However it is made up; before and after it is prepared; the connection is as good as before."""

    async def scenario() -> None:
        async with shared(dsn, kwargs={"prepare_threshold": 1}, **bound(MIB)) as pool:
            for _ in range(3):
                with pytest.raises(ResultTooLarge) as caught:
                    await pool.fetch(TOO_LARGE[which])
                assert await pool.fetchval("SELECT 2") == 2
            assert isinstance(caught.value, psycopg.Error)
            assert isinstance(caught.value, PoolError)
            assert pool.snapshot().connects == 1

    run(scenario)


def test_the_message_says_how_to_read_it_all_the_same(dsn: str) -> None:
    """And the way that it names works."""

    async def scenario() -> None:
        async with shared(dsn, **bound(MIB)) as pool:
            with pytest.raises(ResultTooLarge) as caught:
                await pool.fetch(TOO_LARGE["many rows"])
            message = str(caught.value)
            for words in ("max_result=1,048,576", "pool.connection()", "stream"):
                assert words in message
            assert str(pickle.loads(pickle.dumps(caught.value))) == message
            read = 0
            async with pool.connection() as conn, conn.cursor() as cursor:
                async for _ in cursor.stream(TOO_LARGE["many rows"]):
                    read += 1
            assert read == 80_000

    run(scenario)


@pytest.mark.parametrize("rows", [1, 2, 63, 64, 65, 128, 500])
def test_what_is_a_little_smaller_is_answered_in_full(dsn: str, rows: int) -> None:
    """In however many parts it comes."""

    async def scenario() -> None:
        wide = int(0.95 * MIB / rows)
        async with shared(dsn, **bound(MIB)) as pool:
            answer = await pool.fetch("SELECT i, repeat('x', %s) FROM generate_series(1, %s) i", (wide, rows))
            assert [row[0] for row in answer] == list(range(1, rows + 1))
            assert all(len(row[1]) == wide for row in answer)

    run(scenario)


@pytest.mark.parametrize("ask", ["fetchval", "fetchrow"])
def test_one_row_that_is_too_large_is_refused_as_well(dsn: str, ask: str) -> None:
    """A value of hundreds of megabytes is no better for being one."""

    async def scenario() -> None:
        async with shared(dsn, **bound(MIB)) as pool:
            with pytest.raises(ResultTooLarge):
                await getattr(pool, ask)("SELECT repeat('x', 3000000)")
            assert await pool.fetchval("SELECT 2") == 2

    run(scenario)


def test_others_on_the_same_connection_are_answered(postgres: EmbeddedPostgres, dsn: str) -> None:
    """Those sent before and those behind it: none hears of it."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with shared(dsn, **bound(MIB)) as pool:
                before = asyncio.create_task(pool.fetchval(gate.query, (1,)))
                large = asyncio.create_task(pool.fetch(LARGE))
                after = [asyncio.create_task(pool.fetchval("SELECT %s::int", (number,))) for number in range(50)]
                await soon(lambda: gate.held == 1)
                gate.open()
                with pytest.raises(ResultTooLarge):
                    await large
                assert await before == 1
                assert await asyncio.gather(*after) == list(range(50))
                assert pool.snapshot().connects == 1

    run(scenario)


def test_a_result_without_end_is_ended_on_the_server(dsn: str) -> None:
    """If nobody stands behind it: the connection is free again at once."""

    async def scenario() -> None:
        async with shared(dsn, **bound(MIB)) as pool:
            started = time.monotonic()
            with pytest.raises(ResultTooLarge):
                await pool.fetch("SELECT repeat('x', 1000) FROM (SELECT generate_series(1, 1000000000)) i")
            assert await pool.fetchval("SELECT 2") == 2
            assert time.monotonic() - started < 5

    run(scenario)


def test_of_a_statement_that_writes_it_says_that_it_may_have_run(dsn: str) -> None:
    """It was sent, and whether it was stopped in time nobody can know: to repeat it may be to do it twice."""

    async def scenario() -> None:
        async with shared(dsn, **bound(MIB)) as pool:
            await pool.execute("DROP TABLE IF EXISTS large_returning")
            await pool.execute("CREATE TABLE large_returning (a text)")
            with pytest.raises(ResultTooLarge, match="may have run"):
                await pool.fetch(
                    "INSERT INTO large_returning SELECT repeat('x', 1000) FROM generate_series(1, 5000) RETURNING a"
                )

    run(scenario)


def test_memory_is_bounded_while_too_much_comes(postgres: EmbeddedPostgres, dsn: str) -> None:
    """124 MiB are refused at 1 MiB, though somebody stands behind it, so that all of it comes."""

    async def scenario() -> None:
        async with shared(dsn, **bound(MIB)) as pool:
            assert await pool.fetchval("SELECT 1") == 1
            async with no_more_than(24 * MIB):
                large = asyncio.create_task(pool.fetch(LARGE))
                behind = asyncio.create_task(pool.fetchval("SELECT 2"))
                with pytest.raises(ResultTooLarge):
                    await large
                assert await behind == 2

    run(scenario)


@pytest.mark.parametrize("ask", ["fetchrow", "fetchval", "execute"])
def test_who_wants_one_row_keeps_no_more(dsn: str, ask: str) -> None:
    """124 MiB come; what is asked for is answered."""
    answers = {"fetchrow": ("x" * 10_000,), "fetchval": "x" * 10_000, "execute": "SELECT 13000"}

    async def scenario() -> None:
        async with shared(dsn, **bound(MIB)) as pool:
            assert await pool.fetchval("SELECT 1") == 1
            async with no_more_than(24 * MIB):
                assert await getattr(pool, ask)(LARGE) == answers[ask]

    run(scenario)


def test_an_answer_that_is_refused_leaves_nothing_behind(dsn: str) -> None:
    """20 in turn, 2.4 GiB in all had they been kept or read to the end."""

    async def scenario() -> None:
        async with shared(dsn, **bound(MIB)) as pool:
            assert await pool.fetchval("SELECT 1") == 1
            async with no_more_than(48 * MIB):
                for _ in range(20):
                    with pytest.raises(ResultTooLarge):
                        await pool.fetch(LARGE)
            await at_rest(pool)

    run(scenario)


def test_nothing_is_left_for_the_garbage_collector(dsn: str) -> None:
    """An answer is gone with its last use, however its statement was served: at once, queued, failed, too late."""

    async def scenario() -> None:
        async with shared(dsn, multiplex=Multiplex(max_in_flight=8)) as pool:

            async def ask(number: int) -> None:
                query = "SELECT %s::int / 0" if number % 9 == 0 else "SELECT %s::int"
                deadline = 0.005 if number % 10 == 3 else None
                with suppress(psycopg.errors.DivisionByZero, PoolError):
                    await pool.fetch(query, (number,), deadline=deadline)

            await ask(1)
            gc.collect()
            gc.disable()
            try:
                await asyncio.gather(*(ask(number) for number in range(200)))
                await at_rest(pool)
                left = sum(isinstance(thing, Statement) for thing in gc.get_objects())
            finally:
                gc.enable()
            assert left == 0

    run(scenario)


def test_a_parameter_is_kept_no_longer_than_it_takes(dsn: str) -> None:
    """Not until its statement's text is used again, though the connection is never idle."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            done = False

            async def keep_busy() -> None:
                while not done:
                    await pool.fetch("SELECT 1")

            busy = [asyncio.create_task(keep_busy()) for _ in range(5)]
            assert await pool.fetchval("SELECT 0, length(%s)", (b"x" * (10 * MIB),)) == 0
            async with no_more_than(64 * MIB):
                for number in range(12):
                    query = f"SELECT {number}, length(%s)"
                    assert await pool.fetchval(query, (b"x" * (10 * MIB),)) == number
            done = True
            await asyncio.gather(*busy)

    run(scenario)


# ------------------------------------------------------------------------------------------ much in both directions


def test_large_parameters_are_sent_while_answers_come(dsn: str) -> None:
    """40 MiB each way over one connection: neither side waits for the other to read first."""

    async def scenario() -> None:
        async with shared(dsn, **bound(64 * MIB)) as pool:

            async def echo(number: int) -> None:
                text = chr(ord("a") + number) * (10 * MIB)
                assert await pool.fetchval("SELECT %s::text", (text,)) == text

            await asyncio.gather(*(echo(number) for number in range(4)))

    run(scenario)


def test_small_ones_go_on_beside_a_large_parameter(dsn: str) -> None:
    """What cannot be written yet keeps nothing else from being answered."""

    async def scenario() -> None:
        async with shared(dsn, size=2) as pool:
            large = asyncio.create_task(pool.fetchval("SELECT length(%s)", ("x" * (40 * MIB),)))
            answers = await asyncio.gather(*(pool.fetchval("SELECT %s::int", (number,)) for number in range(300)))
            assert answers == list(range(300))
            assert await large == 40 * MIB

    run(scenario)


def test_large_parameters_and_large_answers_by_many(dsn: str) -> None:
    """60 tasks, each sending or asking for a megabyte, over one connection."""

    async def scenario() -> None:
        async with shared(dsn) as pool:

            async def talk(number: int) -> None:
                if number % 2:
                    assert await pool.fetchval("SELECT length(%s)", ("x" * (MIB + number),)) == MIB + number
                else:
                    assert len(await pool.fetchval("SELECT repeat('x', %s)", (MIB + number,))) == MIB + number

            await asyncio.gather(*(talk(number) for number in range(60)))

    run(scenario)


def test_thousands_of_large_answers_to_a_program_that_is_slow_to_read(dsn: str) -> None:
    """150 MiB in all: what the program has not asked for waits with the server, not here."""

    async def scenario() -> None:
        async with shared(dsn, size=2, multiplex=Multiplex(max_in_flight=32)) as pool:
            read = 0

            async def ask(number: int) -> None:
                nonlocal read
                length = 50 * KIB + number
                answer = await pool.fetchval("SELECT repeat('x', %s)", (length,))
                assert len(answer) == length
                read += 1
                if read % 100 == 0:
                    time.sleep(0.01)  # busy with something else, and so is the whole event loop

            async with no_more_than(64 * MIB):
                await asyncio.gather(*(ask(number) for number in range(3000)))
            assert read == 3000

    run(scenario)


def test_a_parameter_that_cannot_be_sent_is_its_sender_s_error(dsn: str) -> None:
    """More parameters than the protocol can count, a NUL in a text: psycopg's own words, and the others go on."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            good = [asyncio.create_task(pool.fetchval("SELECT %s::int", (number,))) for number in range(20)]
            many = "SELECT " + ", ".join(["%s::int"] * 70_000)
            with pytest.raises(psycopg.Error):
                await pool.fetch(many, list(range(70_000)))
            with pytest.raises(psycopg.Error):
                await pool.fetch(many, list(range(70_000)), deadline=10)
            with pytest.raises(psycopg.DataError):
                await pool.fetch("SELECT %s::text", ("a\0b",))
            assert await asyncio.gather(*good) == list(range(20))
            assert await pool.fetchval("SELECT 2", deadline=10) == 2
            assert pool.snapshot().connects == 1

    run(scenario)


# ------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"max_result": 0}, ValueError, "max_result must be 65536 or more, not 0"),
        ({"max_result": -5}, ValueError, "max_result must be 65536 or more, not -5"),
        ({"max_result": 1.5}, TypeError, "max_result must be a whole number, not 1.5"),
        ({"max_result": True}, TypeError, "max_result must be a whole number, not True"),
        ({"max_in_flight": 0}, ValueError, "max_in_flight must be 1 or more, not 0"),
        ({"max_in_flight": "8"}, TypeError, "max_in_flight must be a whole number, not '8'"),
        ({"target": 0}, ValueError, "target must be 0.0001 to 60 seconds, not 0"),
        ({"target": float("nan")}, ValueError, "target must be 0 seconds or more, not nan"),
        ({"target": "5ms"}, TypeError, "target must be a number of seconds, not '5ms'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error) as caught:
        Multiplex(**options)
    assert says in str(caught.value)


@pytest.mark.parametrize("value", [16 * MIB, {"max_result": 1}, "yes"])
def test_a_pool_takes_them_as_one_object(dsn: str, value: Any) -> None:
    with pytest.raises(TypeError, match=r"multiplex must be a penstock\.Multiplex, not"):
        AsyncPool(dsn, open=False, multiplex=value)


@pytest.mark.parametrize("max_in_flight", [1, 3])
def test_no_more_are_in_flight_on_a_connection_than_it_may_have(dsn: str, max_in_flight: int) -> None:
    """At any moment at which the event loop goes round."""

    async def scenario() -> None:
        settings = Multiplex(target=60, max_in_flight=max_in_flight)
        async with shared(dsn, size=2, multiplex=settings) as pool:
            most = 0

            async def ask(number: int) -> None:
                nonlocal most
                assert await pool.fetchval("SELECT %s::int", (number,)) == number
                most = max(most, pool.snapshot().in_flight)

            await asyncio.gather(*(ask(number) for number in range(200)))
            assert 0 < most <= 2 * max_in_flight

    run(scenario)
