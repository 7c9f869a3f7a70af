"""A holder that will never return its connection, or does not for too long: what is taken back, named and reported."""

import asyncio
import logging
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from penstock import AsyncPool, Pool, PoolExhausted
from penstock.core import Reason
from penstock.pool import events
from support.waiting import aside, eventually, soon


@pytest.fixture(autouse=True)
def warned() -> Iterator[list[warnings.WarningMessage]]:
    """The ResourceWarnings of a test, whichever thread they come from."""
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always", ResourceWarning)
        yield record


def line_of(function: Callable[..., Any], mark: str) -> int:
    """The line of *function* on which *mark* stands in a comment."""
    from inspect import getsourcelines

    lines, first = getsourcelines(function)
    return next(first + index for index, line in enumerate(lines) if f"# {mark}" in line)


def named(warned: list[warnings.WarningMessage], function: Callable[..., Any]) -> bool:
    """Whether a ResourceWarning names the line of *function* that is marked as taking the connection."""
    place = (__file__, line_of(function, "taken here"))
    return any(
        issubclass(each.category, ResourceWarning) and (each.filename, each.lineno) == place
        and f"{place[0]}:{place[1]}" in str(each.message)
        for each in warned
    )  # fmt: skip


# ------------------------------------------------------------------------------------------ taken back: threads


def drop_one(pool: Pool) -> None:
    conn = pool.getconn()  # taken here
    conn.execute("SELECT 1")
    del conn


def test_a_dropped_reference_is_taken_back(dsn: str, warned: list[warnings.WarningMessage]) -> None:
    """Within 100 ms (the bar; a second here) the slot serves the next, and a ResourceWarning names the line."""
    with Pool(dsn, min_size=1, open=False) as pool:
        pool.wait()
        drop_one(pool)
        assert eventually(lambda: pool.snapshot().closes.get(Reason.DROPPED) == 1) < 1
        with pool.connection(timeout=2) as conn:
            conn.execute("SELECT 1")
        eventually(lambda: named(warned, drop_one))


def test_a_reference_dropped_in_a_cycle_is_taken_back_when_collected(dsn: str) -> None:
    """As an exception's traceback makes them."""
    import gc

    with Pool(dsn, min_size=1, open=False) as pool:
        cycle: list[Any] = [pool.getconn()]
        cycle.append(cycle)
        del cycle
        gc.collect()
        with pool.connection(timeout=2) as conn:
            conn.execute("SELECT 1")


def test_an_ended_thread_s_connection_is_taken_back(dsn: str, warned: list[warnings.WarningMessage]) -> None:
    """Although somebody still refers to it: the object is of no more use, the slot is."""
    kept: list[Any] = []

    def take() -> None:
        kept.append(pool.getconn())  # taken here
        kept[0].execute("SELECT 1")

    with Pool(dsn, min_size=1, open=False) as pool:
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
        assert eventually(lambda: pool.snapshot().closes.get(Reason.ABANDONED) == 1) < 1
        with pool.connection(timeout=2) as conn:
            assert conn is not kept[0]
            conn.execute("SELECT 1")
        eventually(lambda: named(warned, take))
        with pytest.raises(psycopg.OperationalError):
            kept[0].execute("SELECT 1")
        with pytest.raises(ValueError, match="taken back from a holder that had ended"):
            pool.putconn(kept[0])
        assert pool.snapshot().open == 1
        kept.clear()


def test_a_connection_handed_to_another_thread_is_not_taken(dsn: str, warned: list[warnings.WarningMessage]) -> None:
    """It is that thread's: the end of the thread that took it changes nothing."""
    with Pool(dsn, min_size=1, open=False) as pool:
        handed: list[Any] = []
        go_on = threading.Event()

        def take() -> None:
            handed.append(pool.getconn())
            go_on.wait(5)

        thread = threading.Thread(target=take)
        thread.start()
        eventually(lambda: handed)
        handed[0].execute("SELECT 1")
        go_on.set()
        thread.join()
        with pytest.raises(PoolExhausted):
            pool.getconn(timeout=0.2)
        assert handed[0].execute("SELECT 1").fetchone() == (1,)
        pool.putconn(handed[0])
        assert pool.snapshot().idle == 1
        assert not warned


def test_many_short_threads_take_nothing_from_each_other(dsn: str, warned: list[warnings.WarningMessage]) -> None:
    """Idents of threads are used again at once: the end of one must not be taken for another's."""
    with Pool(dsn, min_size=2, max_size=8, open=False) as pool:
        for _ in range(100):
            returned = threading.Thread(target=lambda: pool.putconn(pool.getconn()))
            returned.start()
            returned.join()
            in_hand, go_on = threading.Event(), threading.Event()

            def hold(in_hand: threading.Event = in_hand, go_on: threading.Event = go_on) -> Any:
                conn = pool.getconn()
                in_hand.set()
                go_on.wait(5)
                conn.execute("SELECT 1")
                pool.putconn(conn)

            holder = aside(hold)
            assert in_hand.wait(5)
            go_on.set()
            holder.result(5)
        assert not warned
        assert pool.snapshot().closes == {}


def test_a_with_block_is_never_taken_back(dsn: str, warned: list[warnings.WarningMessage]) -> None:
    """Its own end gives the connection back, wherever that is reached."""
    with Pool(dsn, min_size=1, open=False) as pool:
        checkout = pool.connection()
        thread = threading.Thread(target=checkout.__enter__)
        thread.start()
        thread.join()
        with pytest.raises(PoolExhausted):
            pool.getconn(timeout=0.2)
        checkout.__exit__(None, None, None)
        assert pool.snapshot().idle == 1
        assert not warned


def test_a_holder_that_drops_and_ends_loses_no_slot(dsn: str) -> None:
    """Ten threads that die with an exception while they hold one of two connections."""

    def fail(pool: Pool) -> None:
        conn = pool.getconn()
        conn.execute("SELECT no_such_column")

    with Pool(dsn, min_size=2, open=False) as pool:
        for _ in range(10):
            with pytest.raises(psycopg.Error):
                fail(pool)
        with pool.connection(timeout=2), pool.connection(timeout=2):
            pass


# ------------------------------------------------------------------------------------------ taken back: tasks


async def drop_one_async(pool: AsyncPool) -> None:
    conn = await pool.getconn()  # taken here
    await conn.execute("SELECT 1")
    del conn


def test_async_a_dropped_reference_is_taken_back(dsn: str, warned: list[warnings.WarningMessage]) -> None:
    """As with threads."""

    async def scenario() -> None:
        async with AsyncPool(dsn, min_size=1, open=False) as pool:
            await drop_one_async(pool)
            assert await soon(lambda: pool.snapshot().closes.get(Reason.DROPPED) == 1) < 1
            async with pool.connection(timeout=2) as conn:
                await conn.execute("SELECT 1")
            await soon(lambda: named(warned, drop_one_async))

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["returns", "raises", "is cancelled"])
def test_async_a_finished_task_s_connection_is_taken_back(
    dsn: str, warned: list[warnings.WarningMessage], how: str
) -> None:
    """However it ended."""
    kept: list[Any] = []

    async def take(pool: AsyncPool) -> None:
        kept.append(await pool.getconn())  # taken here
        if how == "raises":
            raise LookupError
        if how == "is cancelled":
            await asyncio.sleep(10)

    async def scenario() -> None:
        async with AsyncPool(dsn, min_size=1, open=False) as pool:
            task = asyncio.create_task(take(pool))
            await soon(lambda: kept)
            if how == "is cancelled":
                task.cancel()
            await asyncio.wait([task])
            assert how != "raises" or isinstance(task.exception(), LookupError)
            assert await soon(lambda: pool.snapshot().closes.get(Reason.ABANDONED) == 1) < 1
            async with pool.connection(timeout=2) as conn:
                await conn.execute("SELECT 1")
            await soon(lambda: named(warned, take))
            with pytest.raises(psycopg.OperationalError):
                await kept[0].execute("SELECT 1")
            kept.clear()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "take",
    [
        pytest.param(lambda pool: asyncio.wait_for(pool.getconn(), 1), id="wait_for"),
        pytest.param(lambda pool: asyncio.create_task(pool.getconn()), id="create_task"),
        pytest.param(lambda pool: asyncio.shield(pool.getconn()), id="shield"),
    ],
)
def test_async_a_task_s_result_is_not_taken(
    dsn: str, warned: list[warnings.WarningMessage], take: Callable[[AsyncPool], Any]
) -> None:
    """The task that ran `getconn` has ended, and handed the connection on."""

    async def scenario() -> None:
        async with AsyncPool(dsn, min_size=1, open=False) as pool:
            conn = await take(pool)
            await asyncio.sleep(0.05)
            cursor = await conn.execute("SELECT 1")
            assert await cursor.fetchone() == (1,)
            await pool.putconn(conn)
            assert pool.snapshot().idle == 1
            assert not warned

    asyncio.run(scenario())


def test_async_gathered_connections_are_not_taken(dsn: str, warned: list[warnings.WarningMessage]) -> None:
    """`gather(pool.getconn(), pool.getconn())`."""

    async def scenario() -> None:
        async with AsyncPool(dsn, min_size=2, open=False) as pool:
            taken = await asyncio.gather(pool.getconn(), pool.getconn())
            await asyncio.sleep(0.05)
            for conn in taken:
                await conn.execute("SELECT 1")
                await pool.putconn(conn)
            assert pool.snapshot().idle == 2
            assert not warned

    asyncio.run(scenario())


def test_async_a_wait_for_that_times_out_loses_nothing(dsn: str) -> None:
    """Whether the connection came just in time or just too late."""

    async def scenario() -> None:
        async with AsyncPool(dsn, min_size=1, open=False) as pool:
            for _ in range(20):
                async with pool.connection():
                    waiting = asyncio.create_task(asyncio.wait_for(pool.getconn(), 0.01))
                    await asyncio.sleep(0.0095)
                [answer] = await asyncio.gather(waiting, return_exceptions=True)
                if not isinstance(answer, BaseException):
                    await pool.putconn(answer)
            async with pool.connection(timeout=2) as conn:
                await conn.execute("SELECT 1")

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------ idle in hand for too long


def messages(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if words in record.getMessage()]


def test_idle_in_hand_past_leak_after_is_reported_once(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """And again as "came back after all" when it did; the connection itself is left alone."""
    caplog.set_level(logging.WARNING, "penstock.pool")
    with Pool(dsn, min_size=1, open=False, leak_after=0.1) as pool:
        with pool.connection() as conn:  # held here
            conn.execute("SELECT 1")
            eventually(lambda: messages(caplog, "is this a leak?"))
            time.sleep(0.3)  # nothing more happens, which no event can tell
            conn.execute("SELECT 1")
        [report] = messages(caplog, "is this a leak?")
        line = line_of(test_idle_in_hand_past_leak_after_is_reported_once, "held here")
        assert f"{__file__}:{line}" in report
        assert "INTRANS" in report
        [back] = messages(caplog, "came back after all")
        assert f"{__file__}:{line}" in back
        assert pool.snapshot().closes == {}
        with pool.connection():
            pass
        assert len(messages(caplog, "came back after all")) == 1


def test_async_idle_in_hand_past_leak_after_is_reported_once(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """As with threads."""
    caplog.set_level(logging.WARNING, "penstock.pool")

    async def scenario() -> None:
        async with AsyncPool(dsn, min_size=1, open=False, leak_after=0.1) as pool:
            async with pool.connection() as conn:
                await conn.execute("SELECT 1")
                await soon(lambda: messages(caplog, "is this a leak?"))
                await asyncio.sleep(0.3)
            assert len(messages(caplog, "is this a leak?")) == 1
            assert len(messages(caplog, "came back after all")) == 1

    asyncio.run(scenario())


def test_a_statement_that_runs_for_long_is_no_leak(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """Only what is idle in hand is."""
    caplog.set_level(logging.WARNING, "penstock.pool")
    with Pool(dsn, min_size=1, open=False, leak_after=0.2) as pool:
        with pool.connection() as conn:
            conn.execute("SELECT pg_sleep(0.6)")
        assert not messages(caplog, "leak")


def test_leak_after_none_reports_nothing(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nor is anything done about it."""
    caplog.set_level(logging.WARNING, "penstock.pool")
    with Pool(dsn, min_size=1, open=False, leak_after=None) as pool:
        with pool.connection() as conn:
            time.sleep(0.2)
            conn.execute("SELECT 1")
        assert not messages(caplog, "leak")


def test_a_leak_is_told_as_events(dsn: str) -> None:
    """LeakSuspected with the holder, CameBack with the line."""
    told: list[events.Event] = []
    with Pool(dsn, min_size=1, open=False, leak_after=0.1) as pool:
        pool.listen(told.append)
        with pool.connection():
            eventually(lambda: any(isinstance(event, events.LeakSuspected) for event in told))
        assert any(isinstance(event, events.CameBack) for event in told)


def test_whether_a_leak_is_suspected_can_be_asked(dsn: str) -> None:
    """Of the pool and of each holder, for as long as it is not back: who begins to watch late missed the event."""
    with Pool(dsn, min_size=2, open=False, leak_after=0.2) as pool:
        with pool.connection() as early:
            eventually(lambda: pool.snapshot().suspects == 1)
            with pool.connection() as late:
                assert early is not late
                assert sorted(holder.suspected for holder in pool.holders()) == [False, True]
        assert pool.snapshot().suspects == 0


def test_an_operator_takes_a_suspected_leak_away(dsn: str) -> None:
    """That of the line named, and nothing that is not suspected."""
    with Pool(dsn, min_size=2, open=False, leak_after=0.2) as pool:
        with pytest.raises(psycopg.OperationalError, match="taken back from this block"), pool.connection():
            eventually(lambda: pool.snapshot().suspects == 1)
            [suspect] = pool.holders()
            with pool.connection() as innocent:
                pool.reclaim(suspect.site._replace(line=1))
                pool.reclaim(suspect.site)
                eventually(lambda: pool.snapshot().closes.get(Reason.RECLAIMED) == 1)
                innocent.execute("SELECT 1")
                assert len(pool.holders()) == 1


def test_leak_reclaim_takes_it_away(dsn: str, warned: list[warnings.WarningMessage]) -> None:
    """The next is served; its holder gets the driver's error at the next use, and is told that its work is lost."""
    with Pool(dsn, min_size=1, open=False, leak_after=0.1, leak_reclaim=True) as pool:
        with pytest.raises(psycopg.OperationalError, match="taken back from this block"), pool.connection() as conn:
            eventually(lambda: pool.snapshot().closes.get(Reason.RECLAIMED) == 1)
            aside(lambda: pool.putconn(pool.getconn(timeout=2))).result(5)
            with pytest.raises(psycopg.OperationalError):
                conn.execute("SELECT 1")
        with pool.connection() as again:
            again.execute("SELECT 1")
        eventually(lambda: pool.snapshot().open == 1)
        assert warned


def test_async_leak_reclaim_takes_it_away(dsn: str) -> None:
    """As with threads."""

    async def scenario() -> None:
        async with AsyncPool(dsn, min_size=1, open=False, leak_after=0.1, leak_reclaim=True) as pool:
            with pytest.raises(psycopg.OperationalError, match="taken back from this block"):
                async with pool.connection() as conn:
                    await soon(lambda: pool.snapshot().closes.get(Reason.RECLAIMED) == 1)
                    other = await asyncio.create_task(pool.getconn(timeout=2))
                    await pool.putconn(other)
                    with pytest.raises(psycopg.OperationalError):
                        await conn.execute("SELECT 1")
            async with pool.connection() as again:
                await again.execute("SELECT 1")
            await soon(lambda: pool.snapshot().open == 1)

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------ who holds what


def test_holders_tells_site_statement_state_owner_and_stack(dsn: str) -> None:
    """Of one idle in a transaction, and of one whose statement runs; the longest first, without parameters."""

    def sleeper() -> None:
        with pool.connection() as conn:
            conn.execute("SELECT pg_sleep(0.3), %s", ["private"])

    with Pool(dsn, min_size=2, open=False) as pool:
        with pool.connection() as conn:  # held here
            conn.execute("SELECT 'hers'")
            running = threading.Thread(target=sleeper, name="sleeper-1")
            running.start()
            eventually(lambda: any(holder.status == "ACTIVE" for holder in pool.holders()))
            idle, active = pool.holders()
        running.join()
        assert idle.site.file == __file__
        assert idle.site.line == line_of(test_holders_tells_site_statement_state_owner_and_stack, "held here")
        assert idle.site.function == "test_holders_tells_site_statement_state_owner_and_stack"
        assert idle.status == "INTRANS"
        assert idle.statement == "SELECT 'hers'"
        assert idle.idle is not None
        assert 0 <= idle.idle <= idle.held
        assert idle.owner == f"thread {threading.current_thread().name}"
        assert idle.stack[0].function == idle.site.function
        assert active.statement == "SELECT pg_sleep(0.3), %s"
        assert active.idle is None
        assert active.owner == "thread sleeper-1"
        assert "private" not in str(active)
        assert pool.holders() == []


def test_the_stack_of_a_running_statement_shows_the_holder_s_own_line(dsn: str) -> None:
    """Where the user's code stands, not only the insides of the driver."""

    def sleeper() -> None:
        with pool.connection() as conn:
            conn.execute("SELECT pg_sleep(0.3)")

    with Pool(dsn, min_size=1, open=False) as pool:
        running = aside(sleeper)
        eventually(lambda: any(holder.status == "ACTIVE" for holder in pool.holders()))
        [holder] = pool.holders()
        running.result(5)
        assert any("sleeper" in frame.function for frame in holder.stack)


def test_async_holders_name_the_task_and_where_it_stands(dsn: str) -> None:
    """From its innermost await outwards."""

    async def stand_here(go_on: asyncio.Event) -> None:
        await go_on.wait()

    async def hold(pool: AsyncPool, in_hand: asyncio.Event, go_on: asyncio.Event) -> None:
        async with pool.connection() as conn:
            await conn.execute("SELECT 'his'")
            in_hand.set()
            await stand_here(go_on)

    async def scenario() -> None:
        in_hand, go_on = asyncio.Event(), asyncio.Event()
        async with AsyncPool(dsn, min_size=1, open=False) as pool:
            task = asyncio.create_task(hold(pool, in_hand, go_on), name="holder-1")
            await in_hand.wait()
            [holder] = pool.holders()
            go_on.set()
            await task
            assert holder.owner == "task holder-1"
            assert holder.site.function.endswith("hold")
            assert holder.statement == "SELECT 'his'"
            assert [frame.function.split(".")[-1] for frame in holder.stack][-2:] == ["stand_here", "hold"]

    asyncio.run(scenario())


def test_holders_shows_no_password_in_a_statement(dsn: str) -> None:
    """`ALTER ROLE ... PASSWORD '...'` has one in its text."""
    with Pool(dsn, min_size=1, open=False) as pool:
        with pool.connection() as conn:
            with pytest.raises(psycopg.Error):
                conn.execute("ALTER ROLE nobody PASSWORD 'hush''hush'")
            [holder] = pool.holders()
            assert "hush" not in str(holder.statement)
            assert "ALTER ROLE nobody" in str(holder.statement)


def test_exhaustion_prints_the_holders_grouped_by_line(dsn: str) -> None:
    """How many, since when, idle in hand or running what, in which state, and where the longest stands now."""
    go_on = threading.Event()

    def idle_holder() -> None:
        with pool.connection() as conn:  # held here
            conn.execute("SELECT 1")
            go_on.wait(10)

    def busy_holder() -> None:
        with pool.connection() as conn:  # busy here
            conn.execute("SELECT pg_sleep(0.8)")

    with Pool(dsn, min_size=3, open=False) as pool:
        pool.wait()
        held = [aside(idle_holder), aside(idle_holder), aside(busy_holder)]
        eventually(lambda: len(pool.holders()) == 3 and any(holder.idle is None for holder in pool.holders()))
        with pytest.raises(PoolExhausted) as caught:
            pool.getconn(timeout=0.2)
        go_on.set()
        for holder in held:
            holder.result(5)
    text = str(caught.value)
    here = test_exhaustion_prints_the_holders_grouped_by_line
    assert "after 0.20 sec: all 3 are held" in text
    assert re.search(rf"2 held by {re.escape(__file__)}:{line_of(here, 'held here')} in .*idle_holder", text)
    assert re.search(rf"1 held by {re.escape(__file__)}:{line_of(here, 'busy here')} in .*busy_holder", text)
    assert re.search(r"2 idle in hand, the longest for \d+\.\d s \(INTRANS\)", text)
    assert "1 running 'SELECT pg_sleep(0.8)'" in text
    assert "now stands at" in text
    assert "idle_holder" in text.split("now stands at", 1)[1]
