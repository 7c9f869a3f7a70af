"""The database goes away, in each of the ways in which it does, and comes back."""

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from penstock import DatabaseUnavailable, PoolTimeout
from penstock.core import Reason
from penstock.drill.postgres import EmbeddedPostgres
from penstock.pool import events
from support.either import Kind, borrowed, both, opened, request, settled
from support.waiting import soon

Server = Callable[..., EmbeddedPostgres]

APPS = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'"


def sessions(server: EmbeddedPostgres) -> int:
    """Sessions of the ordinary role that the server knows."""
    with server.admin() as admin:
        row = admin.execute(APPS).fetchone()
    assert row is not None
    return int(row[0])


async def end_all(server: EmbeddedPostgres) -> None:
    server.terminate_all()
    await soon(lambda: sessions(server) == 0)


async def served(pool: Any, seconds: float = 5.0) -> float:
    """How long it takes until a request is served, though some may be refused before."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        try:
            await request(pool, timeout=1)
        except PoolTimeout:
            await asyncio.sleep(0.01)
        else:
            return time.monotonic() - started
    raise AssertionError(f"not served within {seconds:g} s")


@both
def test_no_request_sees_that_the_server_ended_all_idle_connections(own_postgres: Server, kind: Kind) -> None:
    """100 requests after it: no error; the first good connection at once (the bar is 50 ms)."""

    async def scenario() -> None:
        server = own_postgres(max_connections=16)
        async with opened(kind, server.dsn, min_size=8) as pool:
            await end_all(server)
            started = time.monotonic()
            assert await request(pool) == 1
            assert time.monotonic() - started < 0.5
            for _ in range(99):
                assert await request(pool) == 1
            assert pool.snapshot().closes[Reason.DEAD] == 8

    asyncio.run(scenario())


@both
def test_no_request_sees_that_the_server_was_restarted(own_postgres: Server, kind: Kind) -> None:
    """In order, and after a crash."""

    async def scenario() -> None:
        server = own_postgres()
        async with opened(kind, server.dsn, min_size=2) as pool:
            for mode in ("fast", "immediate"):
                server.restart(mode)
                for _ in range(20):
                    assert await request(pool) == 1

    asyncio.run(scenario())


@both
def test_one_proven_death_makes_the_others_suspect(own_postgres: Server, kind: Kind) -> None:
    """Those that live have to answer a round trip before anybody gets them, and stay."""

    async def scenario() -> None:
        server = own_postgres()
        changed = "SELECT array_agg(state_change) FROM pg_stat_activity WHERE usename = 'app' AND pid = ANY(%s)"
        async with opened(kind, server.dsn, min_size=3) as pool:
            pids = [conn.info.backend_pid for conn in pool._pool]
            with server.admin() as admin:
                before = admin.execute(changed, [pids[:2]]).fetchone()
                admin.execute("SELECT pg_terminate_backend(%s, 2000)", [pids[2]])
                assert await request(pool) == 1
                await soon(lambda: set(pids[:2]) <= {conn.info.backend_pid for conn in pool._pool})
                after = admin.execute(changed, [pids[:2]]).fetchone()
            assert before is not None
            assert after is not None
            assert all(now > then for now, then in zip(after[0], before[0], strict=True))
            assert set(pids[:2]) <= {conn.info.backend_pid for conn in pool._pool}

    asyncio.run(scenario())


@both
def test_a_connection_that_dies_in_hand_is_an_error_once(own_postgres: Server, kind: Kind) -> None:
    """Who has it sees the driver's error; it is closed as broken; the others are found dead before their next use."""

    async def scenario() -> None:
        server = own_postgres()
        async with opened(kind, server.dsn, min_size=3) as pool:
            with pytest.raises(psycopg.OperationalError):
                async with borrowed(pool) as conn:
                    await end_all(server)
                    await settled(conn.execute("SELECT 1"))
            for _ in range(10):
                assert await request(pool) == 1
            closes = pool.snapshot().closes
            assert closes[Reason.BROKEN] == 1
            assert closes[Reason.DEAD] == 2

    asyncio.run(scenario())


@both
def test_while_the_database_is_down_requests_fail_fast_with_its_error(own_postgres: Server, kind: Kind) -> None:
    """DatabaseUnavailable, a PoolTimeout, whose cause is the driver's error; 50 ms is the bar once it is known."""

    async def scenario() -> None:
        server = own_postgres()
        async with opened(kind, server.dsn, min_size=2) as pool:
            server.stop()
            with pytest.raises(DatabaseUnavailable):
                await request(pool, timeout=10)
            for _ in range(5):
                started = time.monotonic()
                with pytest.raises(DatabaseUnavailable) as caught:
                    await request(pool, timeout=10)
                assert time.monotonic() - started < 0.5
                assert isinstance(caught.value, PoolTimeout)
                assert isinstance(caught.value, psycopg.OperationalError)
                assert isinstance(caught.value.__cause__, psycopg.OperationalError)
                assert "refused" in str(caught.value)
            assert pool.snapshot().database_down
            assert await pool_is_empty(pool)

    asyncio.run(scenario())


async def pool_is_empty(pool: Any) -> bool:
    await soon(lambda: pool.snapshot().open - pool.snapshot().opening == 0)
    return True


@both
def test_all_who_wait_are_told_when_the_database_goes_down(own_postgres: Server, kind: Kind) -> None:
    """Nobody waits out a timeout for a database that is known to be down: twenty at once."""

    async def scenario() -> None:
        server = own_postgres()
        server.stop()
        async with opened(kind, server.dsn, wait=False, min_size=0, max_size=4) as pool:
            started = time.monotonic()
            answers = await all_at_once(pool, 20)
            assert time.monotonic() - started < 2
            assert [type(answer).__name__ for answer in answers] == ["DatabaseUnavailable"] * 20

    asyncio.run(scenario())


async def all_at_once(pool: Any, count: int) -> list[Any]:
    """Requests by that many tasks; those of a Pool in threads, each with an event loop of its own."""
    if pool._is_async:
        return await asyncio.gather(*(request(pool, timeout=10) for _ in range(count)), return_exceptions=True)
    loop = asyncio.get_running_loop()
    jobs = [loop.run_in_executor(None, lambda: asyncio.run(request(pool, timeout=10))) for _ in range(count)]
    return await asyncio.gather(*jobs, return_exceptions=True)


@both
def test_served_again_when_the_database_is_back(own_postgres: Server, kind: Kind) -> None:
    """And filled up to `min_size` again, without anybody asking."""

    async def scenario() -> None:
        server = own_postgres()
        async with opened(kind, server.dsn, min_size=2) as pool:
            server.stop()
            with pytest.raises(DatabaseUnavailable):
                await request(pool, timeout=10)
            server.start()
            assert await served(pool) < 5
            await soon(lambda: pool.snapshot().idle == 2)
            assert not pool.snapshot().database_down
            assert pool.snapshot().last_error is None

    asyncio.run(scenario())


@both
def test_an_idle_pool_fills_up_again_by_itself(own_postgres: Server, kind: Kind) -> None:
    """A pool that nobody uses finds its database healed within the longest pause (2 s)."""

    async def scenario() -> None:
        server = own_postgres()
        server.stop()
        async with opened(kind, server.dsn, wait=False, min_size=2) as pool:
            await soon(lambda: pool.snapshot().connect_errors >= 2)
            server.start()
            await soon(lambda: pool.snapshot().idle == 2, seconds=6)

    asyncio.run(scenario())


@both
def test_a_full_server_is_named_as_the_cause(own_postgres: Server, kind: Kind) -> None:
    """Too many clients: refused at once with the server's words; served as soon as there is room."""

    async def scenario() -> None:
        server = own_postgres(max_connections=8)
        with ExitStack() as others:
            for _ in range(5):  # three are the superuser's
                others.enter_context(psycopg.connect(server.dsn))
            async with opened(kind, server.dsn, wait=False, min_size=2) as pool:
                started = time.monotonic()
                with pytest.raises(DatabaseUnavailable) as caught:
                    await request(pool, timeout=10)
                assert time.monotonic() - started < 2
                assert "too many clients" in str(caught.value) or "remaining connection slots" in str(caught.value)
                others.close()
                assert await served(pool) < 5

    asyncio.run(scenario())


@both
def test_a_full_server_does_not_stop_who_can_wait_for_a_connection_in_use(own_postgres: Server, kind: Kind) -> None:
    """The pool cannot grow, so requests share what it has; not one of them fails."""

    async def scenario() -> None:
        server = own_postgres(max_connections=8)
        async with opened(kind, server.dsn, min_size=2, max_size=5) as pool:
            with ExitStack() as others:
                for _ in range(3):
                    others.enter_context(psycopg.connect(server.dsn))
                for _ in range(3):
                    assert await all_at_once(pool, 20) == [1] * 20

    asyncio.run(scenario())


@both
def test_reconnect_failed_is_called_and_a_later_request_starts_again(own_postgres: Server, kind: Kind) -> None:
    """Having given up, the pool leaves the database alone until somebody asks."""

    async def scenario() -> None:
        server = own_postgres()
        server.stop()
        called: list[Any] = []
        attempts: list[events.Event] = []
        options = {"min_size": 1, "reconnect_timeout": 0.3, "reconnect_failed": called.append}
        async with opened(kind, server.dsn, wait=False, **options) as pool:
            pool.listen(lambda event: attempts.extend([event] if isinstance(event, events.ConnectFailed) else []))
            await soon(lambda: called)
            assert called == [pool]
            tried = len(attempts)
            await asyncio.sleep(0.5)  # nothing happens, which no event can tell
            assert len(attempts) == tried
            with pytest.raises(DatabaseUnavailable):
                await request(pool, timeout=10)
            await soon(lambda: len(attempts) > tried)
            server.start()
            assert await served(pool) < 5
            assert called == [pool]

    asyncio.run(scenario())


def test_reconnect_failed_may_be_a_coroutine_function(own_postgres: Server) -> None:
    """Of an AsyncPool."""

    async def scenario() -> None:
        from penstock import AsyncPool

        server = own_postgres()
        server.stop()
        called = asyncio.Event()

        async def tell(pool: Any) -> None:
            await asyncio.sleep(0)
            called.set()

        async with opened(AsyncPool, server.dsn, wait=False, reconnect_timeout=0.1, reconnect_failed=tell):
            await asyncio.wait_for(called.wait(), 5)

    asyncio.run(scenario())


@both
def test_waiting_for_a_pool_that_cannot_fill_fails_with_the_reason(own_postgres: Server, kind: Kind) -> None:
    """`wait` raises PoolTimeout with the driver's error as its cause, and closes the pool."""

    async def scenario() -> None:
        server = own_postgres()
        server.stop()
        pool = kind(server.dsn, open=False)
        with pytest.raises(PoolTimeout) as caught:
            await settled(pool.open(wait=True, timeout=0.3))
        assert isinstance(caught.value.__cause__, psycopg.OperationalError)
        assert pool.closed

    asyncio.run(scenario())
