"""Until when an answer is wanted: declared once, it bounds the wait for a connection and what is done with it."""

import asyncio
import math
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, nullcontext, suppress
from contextvars import copy_context
from typing import Any, TypeVar

import psycopg
import pytest
from bench.wire import Wire

import penstock
from penstock import AsyncPool, Overloaded, Pool, PoolError, PoolTimeout, deadline
from penstock.core import Reason
from penstock.drill.postgres import EmbeddedPostgres
from penstock.pool import events
from penstock.pool.terms import declared, reading
from support.declared import every_way, lent
from support.either import Kind, ask, borrowed, both, opened, request, settled
from support.fake import FakeDriver, make
from support.waiting import aside, soon

T = TypeVar("T")

LIMIT = "SELECT extract(epoch FROM current_setting('statement_timeout')::interval)::float"


def left() -> float:
    """Seconds until what is declared here; infinity for nothing."""
    terms = declared()
    return math.inf if terms is None else terms.until - time.monotonic()


# ------------------------------------------------------------------------------------------ the context manager


def test_it_counts_in_its_block_and_no_further() -> None:
    """`left` is what is left of it, also after it has passed."""
    assert left() == math.inf
    with deadline(0.5) as until:
        assert until.left == pytest.approx(0.5, abs=0.1)
        assert left() == pytest.approx(until.left, abs=0.01)
    assert left() == math.inf
    with deadline(0) as until:
        assert until.left <= 0


def test_it_ends_with_its_block_however_that_ends() -> None:
    """By an exception, too."""
    with suppress(ValueError), deadline(1):
        raise ValueError
    assert left() == math.inf


@pytest.mark.parametrize(("outer", "inner"), [(0.5, 5.0), (5.0, 0.5)])
def test_of_two_the_earlier_counts(outer: float, inner: float) -> None:
    """A library cannot give itself more time than its caller has; the outer one counts again after the inner."""
    with deadline(outer) as first, deadline(inner) as second:
        assert second.left == pytest.approx(0.5, abs=0.1)
        assert left() == pytest.approx(0.5, abs=0.1)
        assert first.left == pytest.approx(outer, abs=0.1)
    with deadline(outer):
        with deadline(inner):
            pass
        assert left() == pytest.approx(outer, abs=0.1)


def test_one_can_be_used_again_but_not_twice_at_once() -> None:
    """It begins anew each time."""
    again = deadline(0.5)
    for _ in range(2):
        with again:
            assert again.left == pytest.approx(0.5, abs=0.1)
            with pytest.raises(RuntimeError, match="in use already: make one for each block"):
                with again:
                    raise AssertionError("let in twice")
            assert left() == pytest.approx(0.5, abs=0.1)
    assert left() == math.inf


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        (-1, ValueError, "seconds must be 0 seconds or more, not -1"),
        (math.nan, ValueError, "seconds must be 0 seconds or more, not nan"),
        ("1", TypeError, "seconds must be a number of seconds, not '1'"),
        (10**400, ValueError, "math.inf is no limit"),
        (True, TypeError, "seconds must be a number of seconds, not True"),
    ],
)
def test_what_is_no_length_of_time_is_refused(value: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=re.escape(says)):
        deadline(value)


def test_none_lifts_what_was_declared_outside() -> None:
    """For work that a request starts and that outlives it."""
    with deadline(0.5):
        with deadline(None) as until:
            assert until.left == left() == math.inf
            with deadline(5):
                assert left() == pytest.approx(5, abs=0.1)
        assert left() == pytest.approx(0.5, abs=0.1)


def test_a_block_that_ends_in_another_context_raises_nothing_of_its_own() -> None:
    """As the teardown of a sync generator may, which frameworks run in a thread: its own exception counts."""

    def dependency() -> Iterator[None]:
        with deadline(1):
            yield

    generator = dependency()
    copy_context().run(next, generator)
    with pytest.raises(ZeroDivisionError):
        generator.throw(ZeroDivisionError())
    assert left() == math.inf


def test_infinity_is_none() -> None:
    """Whoever passes it on from a setting need not ask first."""
    with deadline(math.inf) as until:
        assert until.left == math.inf
        with deadline(1):
            assert left() <= 1
        assert left() == math.inf


def test_each_task_has_its_own_and_its_children_inherit_it() -> None:
    """What one task declares is nothing to another that runs in between."""

    async def child() -> float:
        return left()

    async def one(seconds: float) -> None:
        with deadline(seconds):
            await asyncio.sleep(0.01)
            assert left() == pytest.approx(seconds, abs=0.2)
            assert await asyncio.create_task(child()) == pytest.approx(seconds, abs=0.2)
            assert await asyncio.to_thread(left) == pytest.approx(seconds, abs=0.2)

    async def main() -> None:
        await asyncio.gather(one(1), one(5), one(10))
        assert left() == math.inf

    asyncio.run(main())


def test_a_new_thread_has_none_unless_it_is_given_the_context() -> None:
    """As with every context variable."""
    with deadline(1):
        assert aside(left).result(5) == math.inf
        context = copy_context()
        assert aside(lambda: context.run(left)).result(5) <= 1


def test_it_is_part_of_the_public_face() -> None:
    assert penstock.deadline is deadline
    assert "deadline" in penstock.__all__


# ------------------------------------------------------------------------------------------ the wait


def declare(inside: bool, seconds: float) -> tuple[Any, dict[str, Any]]:
    """Both ways to say it: round the request, or with it."""
    return (deadline(seconds), {}) if inside else (nullcontext(), {"deadline": seconds})


either_way = pytest.mark.parametrize("inside", [True, False], ids=["with deadline()", "deadline="])


async def elsewhere(kind: Kind, job: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run *job* as another borrower: in a thread of its own, or as a task."""
    if kind is Pool:
        return await asyncio.to_thread(lambda: asyncio.run(job()))
    return await asyncio.create_task(job())


@both
@every_way
@either_way
def test_a_request_waits_no_longer_than_its_deadline(kind: Kind, way: str, inside: bool, dsn: str) -> None:
    """Although the pool's timeout, and its own, are longer."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:

            async def late() -> None:
                context, wish = declare(inside, 0.1)
                with context:
                    async with lent(pool, way, timeout=20, **wish):
                        raise AssertionError("served")

            async with borrowed(pool):
                started = time.monotonic()
                with pytest.raises(PoolError) as caught:
                    await elsewhere(kind, late)
                assert 0.09 <= time.monotonic() - started < 1.0
                assert isinstance(caught.value, (PoolTimeout, Overloaded))
                assert isinstance(caught.value, psycopg.OperationalError)
                assert pool.snapshot().waiting == 0
            assert await request(pool) == 1

    asyncio.run(scenario())


@both
@every_way
def test_the_request_s_own_timeout_still_counts_if_it_is_shorter(kind: Kind, way: str, dsn: str) -> None:
    """A deadline gives nobody more patience."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:

            async def late() -> None:
                async with lent(pool, way, timeout=0.1, deadline=20):
                    raise AssertionError("served")

            async with borrowed(pool):
                started = time.monotonic()
                with pytest.raises(PoolError):
                    await elsewhere(kind, late)
                assert time.monotonic() - started < 1.0

    asyncio.run(scenario())


@both
@every_way
@either_way
@pytest.mark.parametrize("busy", [False, True])
def test_a_deadline_that_has_passed_lends_nothing_and_loses_nothing(
    kind: Kind, way: str, inside: bool, busy: bool, dsn: str
) -> None:
    """Nobody waits for the answer. Whether a connection is idle or not, and the words make sense."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=2) as pool:

            async def late() -> None:
                context, wish = declare(inside, 0.0)
                with context:
                    async with lent(pool, way, **wish):
                        raise AssertionError("served")

            held = [await settled(pool.getconn()) for _ in range(2 if busy else 0)]
            for _ in range(3):
                with pytest.raises(Overloaded) as caught:
                    await elsewhere(kind, late)
                assert caught.value.retry_after > 0
                assert not re.search(r" -\d", str(caught.value)), str(caught.value)
            for conn in held:
                await settled(pool.putconn(conn))
            await soon(lambda: pool.snapshot().idle == 2)
            assert await request(pool) == 1
            snapshot = pool.snapshot()
            assert (snapshot.connects, snapshot.closes, snapshot.leased) == (2, {}, 0)

    asyncio.run(scenario())


def test_a_check_that_takes_longer_than_the_deadline_costs_the_connection_and_no_time() -> None:
    """What cannot be had by then is not waited for."""
    driver = FakeDriver(False)
    gate = threading.Event()

    def check(conn: Any) -> None:
        gate.wait(0.3)

    with make(Pool, driver, min_size=1, check=check) as pool:
        pool.wait()
        started = time.monotonic()
        with pytest.raises(PoolError):
            pool.getconn(deadline=0.1)
        assert time.monotonic() - started < 0.6
        gate.set()
        with pool.connection():
            pass


@both
@pytest.mark.parametrize("name", ["connection", "getconn", "transaction"])
@pytest.mark.parametrize(
    ("wish", "error", "says"),
    [
        ({"deadline": -1}, ValueError, "deadline must be 0 seconds or more, not -1"),
        ({"deadline": math.nan}, ValueError, "deadline must be 0 seconds or more, not nan"),
        ({"deadline": "1"}, TypeError, "deadline must be a number of seconds, not '1'"),
        ({"timeout": -1}, ValueError, "timeout must be 0 seconds or more, not -1"),
        ({"priority": 0}, TypeError, "priority must be a penstock.Priority, not 0"),
        ({"priority": "HIGH"}, TypeError, "priority must be a penstock.Priority, not 'HIGH'"),
        ({"key": [1]}, TypeError, "key must be hashable, not [1]"),
    ],
)
def test_a_bad_argument_is_refused_before_anything_is_taken(
    kind: Kind, name: str, wish: dict[str, Any], error: type[Exception], says: str
) -> None:
    """Where it was written, not where it is awaited."""
    pool: Any = make(Pool, FakeDriver(False)) if kind is Pool else make(AsyncPool, FakeDriver(True))
    with pytest.raises(error, match=re.escape(says)):
        getattr(pool, name)(**wish)


# ------------------------------------------------------------------------------------------ the statements


@both
@every_way
@either_way
def test_a_transaction_s_statements_have_what_is_left(kind: Kind, way: str, inside: bool, dsn: str) -> None:
    """In every transaction of the lease anew, savepoints included; and the next lease has none of it."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            context, wish = declare(inside, 5.0)
            with context:
                async with lent(pool, way, **wish) as conn:
                    first = await ask(conn, LIMIT)
                    assert 3.0 < first <= 5.001
                    async with transaction(conn):
                        assert await ask(conn, LIMIT) == first
                    if way != "transaction":
                        await settled(conn.commit())
                        await asyncio.sleep(0.05)
                        assert await ask(conn, LIMIT) <= first - 0.04
            assert await request(pool, LIMIT) == 0
            async with lent(pool, way) as conn:
                assert await ask(conn, LIMIT) == 0
            assert pool.snapshot().connects == 1

    asyncio.run(scenario())


@asynccontextmanager
async def transaction(conn: Any, name: str | None = None) -> AsyncIterator[None]:
    """psycopg's own block, over either kind of connection."""
    block = conn.transaction(name)
    if isinstance(conn, psycopg.Connection):
        with block:
            yield
    else:
        async with block:
            yield


SHORTER: dict[str, dict[str, Any]] = {
    "conninfo": {"kwargs": {"options": "-c statement_timeout=1500"}},
    "statement_timeout=": {"statement_timeout": 1.5},
}


@both
@pytest.mark.parametrize("said", SHORTER)
def test_never_longer_than_the_session_s_own_limit(kind: Kind, said: str, dsn: str) -> None:
    """Which whoever runs the database has set for a reason; it is back for the next lease."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1, **SHORTER[said]) as pool:
            async with lent(pool, deadline=60) as conn:
                assert await ask(conn, LIMIT) == 1.5
            async with lent(pool, deadline=1.0) as conn:
                assert await ask(conn, LIMIT) <= 1.0
            assert await request(pool, LIMIT) == 1.5

    asyncio.run(scenario())


@both
@pytest.mark.parametrize(("limit", "seconds"), [("1500", 1.5), ("20s", 20), ("1min", 60), ("90s", 90), ("1d", 86400)])
def test_never_longer_than_the_role_s_limit(kind: Kind, limit: str, seconds: float, postgres: EmbeddedPostgres) -> None:
    """In whatever unit the server shows it."""

    async def scenario() -> None:
        async with opened(kind, postgres.dsn, min_size=1) as pool:
            async with lent(pool, deadline=1000.0) as conn:
                assert await ask(conn, LIMIT) == pytest.approx(min(seconds, 1000.0), rel=0.01)
            assert await request(pool, LIMIT) == seconds

    with postgres.admin() as admin:
        admin.execute(f"ALTER ROLE app SET statement_timeout = '{limit}'".encode())
        try:
            asyncio.run(scenario())
        finally:
            admin.execute("ALTER ROLE app RESET statement_timeout")


@both
def test_a_limit_that_the_user_sets_counts_from_then_on(kind: Kind, dsn: str) -> None:
    """A shorter one for the session holds in the next transaction too, and is undone with the lease."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            async with lent(pool, deadline=60) as conn:
                await settled(conn.execute("SET LOCAL statement_timeout = '7s'"))
                assert await ask(conn, LIMIT) == 7
                await settled(conn.commit())
                await settled(conn.execute("SET statement_timeout = '2s'"))
                await settled(conn.commit())
                assert await ask(conn, LIMIT) == 2
            assert await request(pool, LIMIT) == 0

    asyncio.run(scenario())


@both
@pytest.mark.parametrize("seconds", [86400.0 * 24, 86400.0 * 25, 1e9, 1e300, math.inf])
def test_a_very_long_deadline_is_as_good_as_none(kind: Kind, seconds: float, dsn: str) -> None:
    """The server counts in 32 bits of milliseconds: 24.8 days."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            async with lent(pool, deadline=seconds) as conn:
                assert await ask(conn, "SELECT 1") == 1
                assert await ask(conn, LIMIT) in (0, pytest.approx(min(seconds, 2**31 / 1000), rel=0.01))

    asyncio.run(scenario())


@both
def test_a_statement_is_ended_when_the_time_is_over(kind: Kind, dsn: str) -> None:
    """By the server, about then; the connection serves on."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            session = await request(pool, "SELECT pg_backend_pid()")
            for way in ("connection", "getconn", "transaction"):
                started = time.monotonic()
                with pytest.raises(psycopg.errors.QueryCanceled, match="statement timeout") as ended:
                    async with lent(pool, way, deadline=0.3) as conn:
                        await settled(conn.execute("SELECT pg_sleep(20)"))
                assert "penstock.deadline" in ended.value.__notes__[0]
                assert 0.25 <= time.monotonic() - started < 1.5
                assert await request(pool, LIMIT) == 0
            assert await request(pool, "SELECT pg_backend_pid()") == session
            assert not pool.snapshot().sick

    asyncio.run(scenario())


def test_a_statement_ended_by_another_limit_is_not_laid_to_the_deadline(dsn: str) -> None:
    with Pool(dsn, min_size=1, statement_timeout=0.05) as pool, penstock.deadline(30):
        with pytest.raises(psycopg.errors.QueryCanceled) as ended, pool.connection() as conn:
            conn.execute("SELECT pg_sleep(20)")
    assert not hasattr(ended.value, "__notes__")


def test_psycopg2_s_error_tells_whose_timeout_it_was_too(dsn: str) -> None:
    with Pool(dsn, driver="psycopg2", min_size=1) as pool, penstock.deadline(0.3):
        with pytest.raises(Exception, match="statement timeout") as ended, pool.connection() as conn:
            conn.cursor().execute("SELECT pg_sleep(20)")
    assert "penstock.deadline" in ended.value.__notes__[0]


@both
def test_a_transaction_begun_after_the_deadline_does_nothing(kind: Kind, dsn: str) -> None:
    """Its first statement that takes any time is ended at once; the work before it was committed."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            async with lent(pool, deadline=0.2) as conn:
                await settled(conn.execute("SELECT 1"))
                await settled(conn.commit())
                await asyncio.sleep(0.25)
                started = time.monotonic()
                with pytest.raises(psycopg.errors.QueryCanceled):
                    await settled(conn.execute("SELECT pg_sleep(20)"))
                assert time.monotonic() - started < 1.0
                await settled(conn.rollback())
            assert await request(pool, LIMIT) == 0

    asyncio.run(scenario())


@both
def test_in_autocommit_a_statement_is_unbounded_and_a_transaction_block_is_not(kind: Kind, dsn: str) -> None:
    """There is no BEGIN to send the limit with; what is asked for works as it always does."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1, kwargs={"autocommit": True}) as pool:
            async with lent(pool, deadline=5) as conn:
                assert await ask(conn, LIMIT) == 0
                await settled(conn.execute("CREATE TEMP TABLE mine (x int)"))
                async with transaction(conn):
                    assert 3 < await ask(conn, LIMIT) <= 5.001
                assert await ask(conn, LIMIT) == 0
            async with lent(pool, "transaction", deadline=5) as conn:
                assert 3 < await ask(conn, LIMIT) <= 5.001
            assert await request(pool, LIMIT) == 0
            assert pool.snapshot().closes == {}

    asyncio.run(scenario())


@both
def test_in_pipeline_mode_everything_works(kind: Kind, dsn: str) -> None:
    """Before, in and after it; and the next lease is as it should be."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            async with lent(pool, deadline=5) as conn:
                assert 3 < await ask(conn, LIMIT) <= 5.001
                await settled(conn.commit())
                async with pipeline(conn):
                    cursors = [await settled(conn.execute("SELECT %s::int", [number])) for number in range(3)]
                    rows = [await settled(cursor.fetchone()) for cursor in cursors]
                assert rows == [(0,), (1,), (2,)]
                await settled(conn.commit())
                assert 3 < await ask(conn, LIMIT) <= 5.001
            assert await request(pool, LIMIT) == 0
            assert pool.snapshot().closes == {}

    asyncio.run(scenario())


@asynccontextmanager
async def pipeline(conn: Any) -> AsyncIterator[None]:
    if isinstance(conn, psycopg.Connection):
        with conn.pipeline():
            yield
    else:
        async with conn.pipeline():
            yield


@both
def test_everything_that_psycopg_can_do_works_under_a_deadline(kind: Kind, dsn: str) -> None:
    """Server-side cursors, savepoints, isolation levels, prepared statements, two-phase commit in one phase."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            async with lent(pool, deadline=20) as conn:
                cursor = conn.cursor("mine")
                await settled(cursor.execute("SELECT generate_series(1, 100)"))
                assert await settled(cursor.fetchmany(2)) == [(1,), (2,)]
                await settled(cursor.scroll(1))
                assert await settled(cursor.fetchone()) == (4,)
                await settled(cursor.close())
                async with transaction(conn, "named"), transaction(conn):
                    await settled(conn.execute("SELECT 1", prepare=True))
            async with lent(pool, deadline=20) as conn:
                await settled(conn.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE))
                assert await ask(conn, "SHOW transaction_isolation") == "serializable"
                assert await ask(conn, LIMIT) > 0
            async with lent(pool, deadline=20) as conn:
                await settled(conn.set_read_only(True))
                assert await ask(conn, "SHOW transaction_read_only") == "on"
            async with lent(pool, deadline=20) as conn:
                await settled(conn.tpc_begin(conn.xid(1, "penstock", "deadline")))
                assert await ask(conn, LIMIT) > 0
                await settled(conn.tpc_commit())
            assert await request(pool, LIMIT) == 0
            assert await request(pool, "SHOW transaction_isolation") == "read committed"

    asyncio.run(scenario())


@both
@every_way
def test_it_is_undone_after_an_error_in_the_block(kind: Kind, way: str, dsn: str) -> None:
    """The block's own, a statement's, or in a transaction that has failed already."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            for statement in ("SELECT 1", "SELECT 1/0", None):
                with suppress(psycopg.Error, ValueError):
                    async with lent(pool, way, deadline=5) as conn:
                        if statement is not None:
                            await settled(conn.execute(statement))
                        raise ValueError
                async with borrowed(pool) as conn:
                    assert await ask(conn, LIMIT) == 0
                    assert await ask(conn, "SHOW transaction_read_only") == "off"
            assert pool.snapshot().connects == 1

    asyncio.run(scenario())


@both
@every_way
def test_a_bound_connection_that_breaks_is_replaced(kind: Kind, way: str, postgres: EmbeddedPostgres) -> None:
    """As any other."""

    async def scenario() -> None:
        async with opened(kind, postgres.dsn, min_size=1) as pool:
            with pytest.raises(psycopg.OperationalError):
                async with lent(pool, way, deadline=5) as conn:
                    await settled(conn.execute("SELECT pg_terminate_backend(pg_backend_pid())"))
            assert await request(pool, LIMIT) == 0
            await soon(lambda: pool.snapshot().idle == 1)
            assert pool.snapshot().closes == {Reason.BROKEN: 1}

    asyncio.run(scenario())


def test_a_bound_connection_whose_holder_was_cancelled_comes_back(dsn: str) -> None:
    """In the midst of a statement or of a wait: nothing is lost and nothing stays bound."""

    async def scenario() -> None:
        async with opened(AsyncPool, dsn, min_size=2) as pool:

            async def work() -> None:
                async with pool.connection(deadline=5) as conn:
                    await conn.execute("SELECT pg_sleep(10)")

            tasks = [asyncio.create_task(work()) for _ in range(6)]
            await soon(lambda: pool.snapshot().waiting == 4)
            with psycopg.connect(dsn, autocommit=True) as observer:
                await soon(lambda: observer.execute(SLEEPING).fetchone() == (2,))  # or the server has nothing to cancel
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await soon(lambda: pool.snapshot().idle == 2)
            for _ in range(4):
                assert await request(pool, LIMIT) == 0
            assert pool.snapshot().waiting == 0

    asyncio.run(scenario())


SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(10)'"


@both
def test_a_bound_connection_that_is_dropped_is_taken_back(kind: Kind, dsn: str) -> None:
    """With the warning that any dropped one gets."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            conn = await settled(pool.getconn(deadline=5))
            with pytest.warns(ResourceWarning, match="its holder dropped it"):  # noqa: PT031
                del conn
                await soon(lambda: pool.snapshot().closes.get(Reason.DROPPED))
            await soon(lambda: pool.snapshot().idle == 1)
            assert await request(pool, LIMIT) == 0

    asyncio.run(scenario())


@both
@either_way
def test_no_round_trip_is_added(kind: Kind, inside: bool, postgres: EmbeddedPostgres) -> None:
    """One statement under a deadline costs what it costs without, counted on the wire."""

    async def cost(pool: Any, wire: Wire, seconds: float | None) -> int:
        before = wire.round_trips
        for _ in range(20):
            context, wish = (nullcontext(), {}) if seconds is None else declare(inside, seconds)
            with context:
                async with lent(pool, **wish) as conn:
                    await settled(conn.execute("SELECT 1"))
        return wire.round_trips - before

    async def scenario() -> None:
        with Wire(postgres.host, postgres.port) as wire:
            async with opened(kind, wire.through(postgres.dsn), min_size=1) as pool:
                await cost(pool, wire, 5.0)  # a connection's first asks for the session's own limit
                assert await cost(pool, wire, 5.0) == await cost(pool, wire, None) == 60

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------ reading


@both
@every_way
def test_reading_makes_a_write_fail_and_is_undone(kind: Kind, way: str, dsn: str) -> None:
    """With an error that is no OperationalError, so that nobody takes it for an outage; and no connection is lost."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            with reading(), pytest.raises(psycopg.errors.ReadOnlySqlTransaction) as caught:
                async with lent(pool, way) as conn:
                    assert await ask(conn, "SELECT 1") == 1
                    await settled(conn.execute("CREATE TABLE written (x int)"))
            assert not isinstance(caught.value, psycopg.OperationalError)
            async with borrowed(pool) as conn:
                assert await ask(conn, "SHOW transaction_read_only") == "off"
                await settled(conn.execute("CREATE TEMP TABLE mine (x int)"))
            assert pool.snapshot().closes == {}

    asyncio.run(scenario())


WRITES = ["autocommit", "pipeline", "autocommit pipeline", "read write", "read only", "deferrable"]


@both
@pytest.mark.parametrize("mode", WRITES)
def test_reading_holds_in_every_mode_of_the_connection(kind: Kind, mode: str, dsn: str) -> None:
    """Wherever a loader might get its connection from."""

    async def scenario() -> None:
        options: dict[str, Any] = {"kwargs": {"autocommit": True}} if "autocommit" in mode else {}
        async with opened(kind, dsn, min_size=1, **options) as pool:
            with reading(), pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                async with lent(pool) as conn:
                    if mode in ("read write", "read only"):
                        await settled(conn.set_read_only(mode == "read only"))
                    if mode == "deferrable":
                        await settled(conn.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE))
                        await settled(conn.set_deferrable(True))
                    if "pipeline" in mode:
                        async with pipeline(conn):
                            await settled(conn.execute("CREATE TABLE written_in_a_mode (x int)"))
                    else:
                        await settled(conn.execute("CREATE TABLE written_in_a_mode (x int)"))
            assert await request(pool, "SELECT to_regclass('written_in_a_mode')") is None
            async with borrowed(pool) as conn:
                await settled(conn.execute("CREATE TEMP TABLE mine (x int)"))

    asyncio.run(scenario())


@both
def test_reading_and_a_deadline_go_together(kind: Kind, dsn: str) -> None:
    """In whichever order they are declared, and what is read under them can be used."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            orders: list[list[Any]] = [[reading(), deadline(5)], [deadline(5), reading()]]
            for first, second in orders:
                with first, second:
                    async with borrowed(pool) as conn:
                        assert 3 < await ask(conn, LIMIT) <= 5.001
                        assert await ask(conn, "SHOW transaction_read_only") == "on"
            with reading():
                async with borrowed(pool) as conn:
                    assert await ask(conn, LIMIT) == 0
                    assert await ask(conn, "SHOW transaction_read_only") == "on"
            assert await request(pool, "SHOW transaction_read_only") == "off"

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------ both shells say the same


@both
def test_a_request_refused_for_its_deadline_is_told_to_listeners_once(kind: Kind, dsn: str) -> None:
    """As refused, and as nothing else: neither acquired nor returned."""

    async def scenario() -> None:
        heard: list[events.Event] = []
        async with opened(kind, dsn, min_size=1) as pool:
            pool.listen(heard.append)
            with pytest.raises(PoolError):
                async with lent(pool, deadline=0):
                    raise AssertionError("served")
            await soon(lambda: pool.snapshot().idle == 1)
            assert [type(event) for event in heard] == [events.Refused]
            assert sum(pool.snapshot().refusals.values()) == 1

    asyncio.run(scenario())
