"""What a pool promises, it promises with every driver: the invariants, driver by driver, in either kind of pool."""

import asyncio
import gc
import os
import signal
import socket
import time
import warnings
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from inspect import currentframe
from typing import Any

import pytest

import penstock
from penstock import Pool, PoolExhausted
from penstock.core import Reason
from penstock.drivers import load
from penstock.drivers.base import Status
from penstock.pool import steps
from penstock.pool.terms import reading
from support.drivers import EACH, POSTGRES, Place
from support.either import borrowed, in_transaction, settled
from support.waiting import aside, soon
from test_fork import in_child


@pytest.fixture(params=EACH)
def place(request: pytest.FixtureRequest) -> Place:
    """Where the pools of one driver and kind connect to."""
    case, kind = request.param
    made: Place = case.place(request, case, kind)
    return made


async def count(place: Place, pool: Any) -> Any:
    async with borrowed(pool, timeout=5) as conn:
        return await place.case.value(conn, f"SELECT count(*) FROM {place.table}")


def insert(place: Place) -> str:
    return f"INSERT INTO {place.table} VALUES (1)"


def line() -> int:
    """The caller's own."""
    frame = currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


# ------------------------------------------------------------------------------------------ returned clean


def test_a_block_commits_and_the_same_session_serves_the_next(place: Place) -> None:
    """Untouched but for its transaction: nothing is closed."""

    async def scenario() -> None:
        async with place.opened(min_size=1) as pool:
            async with borrowed(pool) as conn:
                session = await place.session(conn)
                await place.case.do(conn, insert(place))
            assert await count(place, pool) == 1
            async with borrowed(pool) as conn:
                assert await place.session(conn) == session
            assert pool.snapshot().closes == {}

    asyncio.run(scenario())


def test_a_block_that_raises_rolls_back(place: Place) -> None:
    """Whatever was begun in it."""

    async def scenario() -> None:
        async with place.opened(min_size=1) as pool:
            with pytest.raises(ZeroDivisionError):
                async with borrowed(pool) as conn:
                    await place.case.write(conn, insert(place))
                    raise ZeroDivisionError
            assert await count(place, pool) == 0
            assert pool.snapshot().closes == {}

    asyncio.run(scenario())


def test_a_transaction_left_open_is_rolled_back(place: Place) -> None:
    """Whoever takes a connection by hand and forgets to commit leaves nothing to the next."""

    async def scenario() -> None:
        async with place.opened(min_size=1) as pool:
            conn = await settled(pool.getconn())
            await place.case.write(conn, insert(place))
            await settled(pool.putconn(conn))
            assert await count(place, pool) == 0
            assert pool.snapshot().closes == {}

    asyncio.run(scenario())


def test_a_failed_statement_spoils_nothing_for_the_next(place: Place) -> None:
    """The error is the driver's own; the connection stays."""

    async def scenario() -> None:
        async with place.opened(min_size=1) as pool:
            with pytest.raises(place.case.error):
                async with borrowed(pool) as conn:
                    await place.case.do(conn, "SELECT x FROM no_such_table")
            assert await count(place, pool) == 0
            assert pool.snapshot().closes == {}

    asyncio.run(scenario())


def test_a_transaction_block_commits_or_rolls_back_in_autocommit_too(place: Place) -> None:
    """And leaves the connection in autocommit."""
    if place.case.set_autocommit is None:
        pytest.skip("this driver knows of none")

    async def scenario() -> None:
        async with place.opened(min_size=1, configure=place.case.set_autocommit) as pool:
            async with in_transaction(pool) as conn:
                await place.case.do(conn, insert(place))
            assert await count(place, pool) == 1
            with pytest.raises(ZeroDivisionError):
                async with in_transaction(pool) as conn:
                    await place.case.do(conn, insert(place))
                    raise ZeroDivisionError
            assert await count(place, pool) == 1
            with pytest.raises(ZeroDivisionError):
                async with borrowed(pool) as conn:
                    await place.case.do(conn, insert(place))
                    raise ZeroDivisionError
            assert await count(place, pool) == 2
            assert pool.snapshot().closes == {}

    asyncio.run(scenario())


def test_a_transaction_begun_in_autocommit_ends_with_its_lease(place: Place) -> None:
    """By a statement, which a driver's own commit and rollback may take no notice of."""

    async def scenario() -> None:
        async with place.opened(min_size=1, configure=place.case.set_autocommit) as pool:
            conn = await settled(pool.getconn())
            await place.case.do(conn, "BEGIN")
            await place.case.do(conn, insert(place))
            await settled(pool.putconn(conn))
            assert await count(place, pool) == 0
            async with borrowed(pool) as conn:
                await place.case.do(conn, "BEGIN")
                await place.case.do(conn, insert(place))
            assert await count(place, pool) == 1
            assert pool.snapshot().closes == {}

    asyncio.run(scenario())


def test_what_was_done_to_the_session_is_undone(place: Place) -> None:
    """The next user has a session as if new; another one where it cannot be undone."""
    if not place.case.resets:
        pytest.skip("this driver cannot")

    async def scenario() -> None:
        async with place.opened(min_size=1) as pool:
            for statement, question, clean in place.case.dialect.left_behind:
                async with borrowed(pool, timeout=5) as conn:
                    await place.case.do(conn, statement)
                    if hasattr(conn, "commit"):  # LISTEN begins with that
                        await settled(conn.commit())
                    assert await place.case.value(conn, question) != clean, f"{statement} does nothing"
                async with borrowed(pool, timeout=5) as conn:
                    assert await place.case.value(conn, question) == clean, statement

    asyncio.run(scenario())


def test_hooks_and_arguments_are_asked_for_each_connection(place: Place) -> None:
    """`kwargs` as a function at each connect; `configure` once for each, and again after what it set was reset."""
    told: list[str] = []

    def kwargs() -> dict[str, Any]:
        told.append("kwargs")
        return place.kwargs

    def configure(conn: Any) -> None:
        told.append("configure")

    async def scenario() -> None:
        async with place.opened(min_size=2, kwargs=kwargs, configure=configure) as pool:
            assert sorted(told) == ["configure", "configure", "kwargs", "kwargs"]
            told.clear()
            if not place.case.resets:
                return
            async with borrowed(pool) as conn:
                await place.case.do(conn, place.case.dialect.left_behind[0][0])
            assert told == ["configure"]

    asyncio.run(scenario())


@pytest.mark.parametrize("autocommit", [False, True])
def test_a_block_that_only_reads_cannot_write(place: Place, autocommit: bool) -> None:
    """However its transaction begins: by itself, by a block, by a statement, by the driver's own method."""
    if not place.case.reads or (autocommit and place.case.set_autocommit is None):
        pytest.skip("this driver cannot")

    async def write(conn: Any, begin: str | None) -> None:
        if begin is not None:
            await place.case.do(conn, begin)
        await place.case.do(conn, insert(place))

    async def begun(conn: Any) -> None:
        await settled(conn.begin())
        await place.case.do(conn, insert(place))

    async def refused(block: Any, work: Any) -> None:
        with reading(), pytest.raises(place.case.error):
            async with block() as conn:
                await work(conn)

    async def scenario() -> None:
        configure = place.case.set_autocommit if autocommit else None
        async with place.opened(min_size=1, configure=configure) as pool:
            for begin in (None, "BEGIN", "/* why */ begin;"):
                await refused(lambda: borrowed(pool), lambda conn, begin=begin: write(conn, begin))
            await refused(lambda: in_transaction(pool), lambda conn: write(conn, None))
            async with borrowed(pool) as conn:
                has_begin = hasattr(conn, "begin")
            if has_begin:
                await refused(lambda: borrowed(pool), begun)
            assert await count(place, pool) == 0
            async with in_transaction(pool) as conn:  # and the next can
                await place.case.do(conn, insert(place))
            assert await count(place, pool) == 1
            assert pool.snapshot().closes == {}

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------ dead and broken


def test_a_connection_that_the_server_has_ended_is_never_handed_out(place: Place) -> None:
    """The kernel knows, and nobody sees an error."""
    if place.kill is None:
        pytest.skip("there is no server")

    async def scenario() -> None:
        async with place.opened(min_size=2) as pool:
            async with borrowed(pool) as one, borrowed(pool) as other:
                sessions = {await place.session(one), await place.session(other)}
            for session in sessions:
                place.kill(session)
            for _ in range(3):
                assert await count(place, pool) == 0
            assert pool.snapshot().closes == {Reason.DEAD: 2}

    asyncio.run(scenario())


def test_a_connection_lost_in_use_is_an_error_once(place: Place) -> None:
    """Its holder's; the next has another one, and the slot is free again."""
    if place.kill is None:
        pytest.skip("there is no server")

    async def scenario() -> None:
        async with place.opened(min_size=1) as pool:
            with pytest.raises(place.case.error):
                async with borrowed(pool) as conn:
                    place.kill(await place.session(conn))
                    await place.case.do(conn, insert(place))
            assert await count(place, pool) == 0
            assert pool.snapshot().closes == {Reason.BROKEN: 1}

    asyncio.run(scenario())


def test_a_connection_closed_by_its_user_is_replaced(place: Place) -> None:
    """A slot is never lost."""

    async def scenario() -> None:
        async with place.opened(min_size=1) as pool:
            async with borrowed(pool) as conn:
                await settled(conn.close())
            assert await count(place, pool) == 0
            assert pool.snapshot().closes == {Reason.BROKEN: 1}

    asyncio.run(scenario())


def test_with_close_returns_close_gives_the_connection_back(place: Place) -> None:
    """For code that was written without a pool."""

    async def scenario() -> None:
        async with place.opened(min_size=1, close_returns=True) as pool:
            conn = await settled(pool.getconn())
            session = await place.session(conn)
            await place.case.write(conn, insert(place))
            await settled(conn.close())
            async with borrowed(pool, timeout=5) as conn:
                assert await place.session(conn) == session
            assert await count(place, pool) == 0
            assert pool.snapshot().closes == {}

    asyncio.run(scenario())


def test_check_connection_asks_the_driver(place: Place) -> None:
    """For those who want a round trip before each use; it raises when there is no answer."""

    async def scenario() -> None:
        check = place.kind.check_connection
        async with place.opened(min_size=1, check=check) as pool:
            assert await count(place, pool) == 0
            async with borrowed(pool) as conn:
                await settled(check(conn))
                await settled(conn.close())
                with pytest.raises(place.case.error):
                    await settled(check(conn))

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------ in time


def test_who_waits_in_vain_hears_of_the_holder_in_time(place: Place) -> None:
    """By the line that took the connection; the error is also the driver's own OperationalError."""

    async def scenario() -> None:
        async with place.opened(min_size=1) as pool:
            conn = await settled(pool.getconn())
            taken = line() - 1
            await place.case.do(conn, "SELECT 1")
            started = time.monotonic()
            with pytest.raises(PoolExhausted, match=f"{__file__}:{taken} ") as refused:
                if place.kind is Pool:
                    await asyncio.to_thread(pool.getconn, timeout=0.05)
                else:
                    await asyncio.ensure_future(pool.getconn(timeout=0.05))
            assert time.monotonic() - started < 1
            assert isinstance(refused.value, pool._driver.operational_error)
            assert [holder.statement for holder in pool.holders()] == ["SELECT 1"]
            await settled(pool.putconn(conn))

    asyncio.run(scenario())


def test_a_deadline_ends_a_statement(place: Place) -> None:
    """The server's, or whoever else can; the second time as the first, and no later statement is bound by it."""
    if not place.case.bounded:
        pytest.skip("this driver cannot")

    async def scenario() -> None:
        async with place.opened(min_size=1) as pool:
            for _ in range(2):
                started = time.monotonic()
                with pytest.raises(place.case.error), penstock.deadline(0.2):
                    async with borrowed(pool) as conn:
                        if place.case.begin is not None:
                            await place.case.do(conn, place.case.begin)
                        await place.case.do(conn, place.case.dialect.slow)
                assert 0.1 < time.monotonic() - started < 2
            async with borrowed(pool) as conn:
                assert await place.case.value(conn, "SELECT 42") == 42
            assert pool.snapshot().closes == {}

    asyncio.run(scenario())


def test_a_check_that_hangs_is_cut_off(place: Place) -> None:
    """An acquire ends by its deadline, whatever the server does."""
    if not place.case.stops:
        pytest.skip("this driver cannot")

    def check(conn: Any) -> Any:
        return place.case.do(conn, place.case.dialect.slow) if place.kind is not Pool else at_once(conn)

    def at_once(conn: Any) -> None:
        conn.cursor().execute(place.case.dialect.slow)

    async def scenario() -> None:
        async with place.opened(min_size=1, check=check) as pool:
            started = time.monotonic()
            with pytest.raises(penstock.PoolTimeout):
                async with borrowed(pool, timeout=0.2):
                    pass
            assert time.monotonic() - started < 2

    asyncio.run(scenario())


def test_a_connection_returned_while_a_statement_runs_is_closed(place: Place) -> None:
    """And the statement stopped: nobody waits for its end any more."""
    if not place.case.stops:
        pytest.skip("this driver cannot")
    question = place.case.dialect.running

    async def scenario() -> None:
        if question is not None:  # what another test has cut off may go on for a while
            await soon(lambda: place.ask(question) == 0, seconds=10)
        async with place.opened(min_size=1) as pool:
            conn = await settled(pool.getconn())
            running: Any
            if place.kind is Pool:
                running = asyncio.wrap_future(aside(lambda: conn.cursor().execute(place.case.dialect.slow)))
            else:
                running = asyncio.ensure_future(place.case.do(conn, place.case.dialect.slow))
            await soon(lambda: pool.holders()[0].status == "ACTIVE")
            if question is not None:  # and not its transaction's BEGIN
                await soon(lambda: place.ask(question) == 1)
            started = time.monotonic()
            await settled(pool.putconn(conn))
            assert await count(place, pool) == 0
            assert time.monotonic() - started < 3
            with pytest.raises((*place.case.errors, OSError)):
                await running
            assert time.monotonic() - started < 3
            assert pool.snapshot().closes == {Reason.BUSY: 1}

    asyncio.run(scenario())


def test_a_cancelled_task_is_cancelled_at_once_and_its_statement_stopped(place: Place) -> None:
    """The next has a connection, and the server nothing left to do for nobody."""
    if place.kind is Pool or not place.case.stops:
        pytest.skip("a thread is not cancelled, nor what this driver does")
    running = place.case.dialect.running

    async def scenario() -> None:
        if running is not None:  # what another test has cut off may go on for a while
            await soon(lambda: place.ask(running) == 0, seconds=10)
        async with place.opened(min_size=1) as pool:

            async def borrow() -> None:
                async with borrowed(pool) as conn:
                    await place.case.do(conn, place.case.dialect.slow)

            task = asyncio.ensure_future(borrow())
            await soon(lambda: pool.holders() and pool.holders()[0].status == "ACTIVE")
            if running is not None:
                await soon(lambda: place.ask(running) == 1)
            started = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - started < 1
            assert await count(place, pool) == 0
            if running is not None:
                await soon(lambda: place.ask(running) == 0)
            assert pool.snapshot().open == 1

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------ never lost


def test_a_dropped_connection_is_taken_back_and_its_line_named(place: Place) -> None:
    """The slot serves the next."""
    taken = 0

    async def drop(pool: Any) -> None:
        nonlocal taken
        conn = await settled(pool.getconn())
        taken = line() - 1
        await place.case.do(conn, "SELECT 1")
        del conn

    async def scenario() -> None:
        async with place.opened(min_size=1) as pool:
            await drop(pool)
            gc.collect()
            assert await count(place, pool) == 0

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", ResourceWarning)
        asyncio.run(scenario())
    assert (__file__, taken) in [(each.filename, each.lineno) for each in warned]


def test_a_forked_child_starts_anew_and_leaves_the_parents_alone(place: Place) -> None:
    """Another session in the child; the parent's transaction, open at the fork, is as it was."""

    def child() -> str:
        with pool.connection(timeout=10) as mine:
            return f"{now(place.session(mine))}, {pool.snapshot().open}"

    if place.kind is not Pool:
        pytest.skip("an AsyncPool belongs to its loop")
    with Pool(place.conninfo, driver=place.driver(), kwargs=place.kwargs, min_size=1, open=False) as pool:
        with pool.connection() as conn:
            session = now(place.session(conn))
            now(place.case.do(conn, "SELECT 1"))
            answer = in_child(child)
            assert answer.endswith(", 1"), answer
            theirs = answer.removesuffix(", 1")
            if place.case.dialect.session is not None:
                assert int(theirs) != session
            now(place.case.do(conn, insert(place)))
        assert now(count(place, pool)) == 1
        assert pool.snapshot().closes == {}


def now(step: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine over blocking connections returns."""
    try:
        step.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


# ------------------------------------------------------------------------------------------ whose connection it is


def test_a_lent_connection_is_the_driver_s_own(place: Place) -> None:
    """`isinstance` holds, for whatever asks."""
    if place.kind is not Pool:
        pytest.skip("over asyncio it may be a thread's")

    async def scenario() -> None:
        async with place.opened(min_size=1) as pool:
            async with borrowed(pool) as conn:
                assert isinstance(conn, place.case.connection)

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------ what is no loss


async def still_serves(place: Place, pool: Any) -> None:
    assert not pool.snapshot().sick
    assert await count(place, pool) == 0


def test_who_closes_ten_connections_has_made_no_database_sick(place: Place) -> None:
    """Nor who uses them afterwards: the eleventh request is served."""

    async def scenario() -> None:
        async with place.opened(min_size=1, max_size=1) as pool:
            for used_again in [False, True] * 5:
                with suppress(*place.case.errors):
                    async with borrowed(pool, 5) as conn:
                        await count_in(place, conn)
                        await settled(conn.close())
                        if used_again:
                            await count_in(place, conn)
            await still_serves(place, pool)

    asyncio.run(scenario())


async def count_in(place: Place, conn: Any) -> Any:
    return await place.case.value(conn, f"SELECT count(*) FROM {place.table}")


def test_ten_cancelled_tasks_have_made_no_database_sick(place: Place) -> None:
    """Whatever their driver does to the connection: the eleventh request is served."""
    if place.kind is Pool or not place.case.stops:
        pytest.skip("a thread is not cancelled, nor what this driver does")

    async def scenario() -> None:
        async with place.opened(min_size=1, max_size=1) as pool:

            async def borrow() -> None:
                async with borrowed(pool, 5) as conn:
                    await place.case.do(conn, place.case.dialect.slow)

            for _ in range(10):
                task = asyncio.ensure_future(borrow())
                await soon(lambda: pool.holders() and pool.holders()[0].status == "ACTIVE")
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await still_serves(place, pool)

    asyncio.run(scenario())


def test_one_that_sat_idle_in_a_transaction_is_no_loss(place: Place) -> None:
    """The server has ended it as the pool has told it to: no sign of a sick database, however many there are."""
    if place.case.dialect.session is None or not place.case.resets:
        pytest.skip("this driver has no such limit")
    seconds = 0.1 if place.case.dialect is POSTGRES else 1.0  # MariaDB counts in whole ones

    async def scenario() -> None:
        async with place.opened(min_size=1, max_size=1, idle_in_transaction_timeout=seconds) as pool:
            conn = await settled(pool.getconn())
            number = await place.session(conn)
            await place.case.write(conn, insert(place))
            assert place.ask is not None
            await soon(lambda: not place.ask(alive(place, number)), seconds=10)
            with pytest.raises(place.case.error):
                await place.case.do(conn, insert(place))
            assert pool._driver.status(conn) is Status.BROKEN
            assert pool._driver.loss(conn) is None
            await settled(pool.putconn(conn))
            await still_serves(place, pool)

    asyncio.run(scenario())


def alive(place: Place, number: Any) -> str:
    if place.case.dialect is POSTGRES:
        return f"SELECT count(*) FROM pg_stat_activity WHERE pid = {number}"
    return f"SELECT COUNT(*) FROM information_schema.processlist WHERE id = {number}"


def test_three_that_the_server_ended_have_made_it_sick(place: Place) -> None:
    """An idle limit that has not passed excuses nothing."""
    if place.kill is None or not place.case.resets:
        pytest.skip("there is no server, or its driver cannot tell")

    async def scenario() -> None:
        async with place.opened(min_size=1, max_size=1, idle_in_transaction_timeout=60) as pool:
            for _ in range(3):
                conn = await settled(pool.getconn())
                number = await place.session(conn)
                await place.case.write(conn, insert(place))
                place.kill(number)
                with pytest.raises(place.case.error):
                    await place.case.do(conn, insert(place))
                await settled(pool.putconn(conn))
            assert pool.snapshot().sick

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------ a server that has frozen


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_deadline_holds_when_the_server_has_frozen(place: Place, request: pytest.FixtureRequest) -> None:
    """The connection is cut off half a second later, and counts as no loss; thawed, the server serves again."""
    if place.case.name not in ("pymysql", "aiomysql", "asyncpg"):
        pytest.skip("the deadline is the server's to keep")

    async def scenario() -> None:
        async with place.opened(min_size=1) as pool:
            with penstock.deadline(0.2):
                conn = await settled(pool.getconn())
                number = await place.session(conn)
            pid = number if place.case.dialect is POSTGRES else request.getfixturevalue("mariadb")._process.pid
            started = time.monotonic()
            with frozen(pid):
                with pytest.raises(place.case.error):
                    await count_in(place, conn)
                await settled(pool.putconn(conn))
                assert 0.1 < time.monotonic() - started < 2.5
            await still_serves(place, pool)

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------ why a connect failed


@pytest.mark.parametrize("listens", [False, True])
def test_a_mysql_server_that_refuses_is_not_one_that_does_not_answer(listens: bool) -> None:
    """Though libmariadb has the same number for both."""
    pytest.importorskip("MySQLdb")
    driver = load("mysqlclient", None, is_async=False)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listens:
            server.listen()
        conninfo = f"mysql://app@127.0.0.1:{server.getsockname()[1]}/app"
        with pytest.raises(driver.operational_error) as caught:
            steps.run(driver.connect(conninfo, {}, timeout=1, settings={}))
    assert driver.is_timeout(caught.value) is listens
