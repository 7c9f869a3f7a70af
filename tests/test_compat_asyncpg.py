"""asyncpg's pool in shape, Penstock's in what it does. Its own tests judge the shape (bench/suites/asyncpg.py)."""

import asyncio
import time
from collections.abc import Callable
from inspect import currentframe
from typing import Any

import pytest

import penstock
from penstock.core import Reason
from penstock.drill.postgres import EmbeddedPostgres
from support.waiting import soon

asyncpg = pytest.importorskip("asyncpg")

from penstock.compat.asyncpg import Pool, create_pool  # noqa: E402


def line() -> int:
    """The caller's own."""
    frame = currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def sent(proxy: Any) -> int:
    """Statements that the connection has sent, the pool's own too."""
    return int(proxy._con._protocol.queries_count)


def test_a_clean_release_sends_nothing(dsn: str) -> None:
    """And a release that is not clean leaves the session as it was."""

    async def scenario() -> None:
        async with create_pool(dsn, min_size=1, max_size=1) as pool:
            async with pool.acquire() as conn:
                await conn.fetchval("SELECT 1")
                before = sent(conn)
            async with pool.acquire() as conn:
                assert sent(conn) == before
                await conn.execute("SET work_mem = '7MB'")
                await conn.execute("SELECT pg_advisory_lock(7)")
            async with pool.acquire() as conn:
                assert await conn.fetchval("SHOW work_mem") == "4MB"
                assert await conn.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0

    asyncio.run(scenario())


def test_the_holder_is_the_user_s_line(dsn: str) -> None:
    """Of a block, of an awaited acquire, and of a shortcut, whose caller is meant."""

    async def scenario() -> None:
        async with create_pool(dsn, min_size=1, max_size=3) as pool:
            conn = await pool.acquire()
            lines = [line() - 1]
            async with pool.acquire():
                lines.append(line() - 1)

                async def ask() -> None:
                    await pool.fetchval("SELECT pg_sleep(6)")

                lines.append(line() - 2)
                asking = asyncio.ensure_future(ask())
                await soon(lambda: len(pool.penstock.holders()) == 3)
                assert sorted(holder.site.line for holder in pool.penstock.holders()) == sorted(lines)
                assert {holder.site.file for holder in pool.penstock.holders()} == {__file__}
                asking.cancel()
            await pool.release(conn)

    asyncio.run(scenario())


def test_who_waits_in_vain_hears_of_the_holders(dsn: str) -> None:
    """In a TimeoutError, which is what asyncpg's pool raises, without a word."""

    async def scenario() -> None:
        async with create_pool(dsn, min_size=1, max_size=1) as pool:
            taken, leave = asyncio.Event(), asyncio.Event()

            async def hold() -> None:
                async with pool.acquire():
                    taken.set()
                    await leave.wait()

            holding = asyncio.ensure_future(hold())
            await taken.wait()
            with pytest.raises(TimeoutError, match=f"1 held by {__file__}:") as caught:
                await pool.acquire(timeout=0.02)
            assert isinstance(caught.value, penstock.PoolExhausted)
            leave.set()
            await holding

    asyncio.run(scenario())


def test_what_connecting_raises_is_raised(dsn: str, own_postgres: Callable[..., EmbeddedPostgres]) -> None:
    """At the beginning and later, as with asyncpg's pool: no other error than its users know."""

    async def scenario() -> None:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await create_pool(dsn, password="wrong")
        with pytest.raises(OSError, match=r"Connect call failed|Connection refused|Multiple exceptions"):
            await create_pool("postgresql://app@localhost:1/postgres")
        server = own_postgres()
        async with create_pool(server.dsn, min_size=1, max_size=2) as pool:
            server.stop()
            for _ in range(2):
                with pytest.raises((OSError, asyncpg.PostgresError)):
                    await asyncio.wait_for(pool.acquire(), 5)

    asyncio.run(scenario())


def test_who_resets_in_a_way_of_their_own_is_asked_each_time(dsn: str) -> None:
    """A `reset` hook, or a connection class with its own: what is not known to be needed may be all the same."""
    told: list[str] = []

    class Mine(asyncpg.Connection):  # type: ignore[misc]
        def get_reset_query(self) -> str:
            told.append("query")
            return "SELECT 1"

    async def reset(conn: Any) -> None:
        told.append("hook")
        await conn.execute("SET work_mem = '5MB'")

    async def scenario() -> None:
        async with create_pool(dsn, min_size=1, max_size=1, connection_class=Mine) as pool:
            for _ in range(2):
                async with pool.acquire():
                    pass
        assert told == ["query", "query"]
        told.clear()
        async with create_pool(dsn, min_size=1, max_size=1, reset=reset) as pool:
            for _ in range(2):
                async with pool.acquire():
                    pass
            assert told == ["hook", "hook"]
            assert await pool.fetchval("SHOW work_mem") == "5MB"
            assert pool.penstock.snapshot().closes == {}

    asyncio.run(scenario())


def test_setup_may_set_codecs_each_time(dsn: str) -> None:
    """It is done anew for each borrower, so its codecs cost no session."""

    async def setup(conn: Any) -> None:
        await conn.set_type_codec("int4", schema="pg_catalog", encoder=str, decoder=lambda _: "set up", format="text")

    async def scenario() -> None:
        async with create_pool(dsn, min_size=1, max_size=1, setup=setup) as pool:
            for _ in range(2):
                assert await pool.fetchval("SELECT 1") == "set up"
            assert pool.penstock.snapshot().closes == {}

    asyncio.run(scenario())


def test_a_setup_that_fails_costs_the_connection_and_not_its_place(dsn: str) -> None:
    """Its error is the borrower's."""
    broken = True

    async def setup(conn: Any) -> None:
        if broken:
            raise ZeroDivisionError

    async def scenario() -> None:
        nonlocal broken
        async with create_pool(dsn, min_size=1, max_size=1, setup=setup) as pool:
            for _ in range(2):
                with pytest.raises(ZeroDivisionError):
                    await pool.acquire()
            broken = False
            assert await pool.fetchval("SELECT 1") == 1
            assert pool.penstock.snapshot().closes == {Reason.BROKEN: 2}

    asyncio.run(scenario())


def test_an_idle_connection_s_end_is_noticed_at_once(postgres: EmbeddedPostgres) -> None:
    """By the event loop, without anybody asking; the pool fills up again."""

    async def scenario() -> None:
        async with create_pool(postgres.dsn, min_size=2, max_size=2) as pool:
            async with pool.acquire() as conn:
                pid = conn.get_server_pid()
            with postgres.admin() as admin:
                admin.execute("SELECT pg_terminate_backend(%s, 2000)", [pid])
            await soon(lambda: pool.penstock.snapshot().closes == {Reason.DEAD: 1})
            await soon(lambda: pool.get_idle_size() == 2)

    asyncio.run(scenario())


def test_a_connection_that_its_user_ends_frees_its_place_at_once(dsn: str) -> None:
    """Before its release, which has nothing left to do; its proxy is of no use any more."""

    async def scenario() -> None:
        async with create_pool(dsn, min_size=0, max_size=1) as pool:
            for end in ("terminate", "close"):
                conn = await pool.acquire()
                ended = getattr(conn, end)()
                if ended is not None:
                    await ended
                other = await pool.acquire(timeout=5)
                with pytest.raises(asyncpg.InterfaceError, match="released back to the pool"):
                    await conn.fetchval("SELECT 1")
                await pool.release(conn)
                assert await other.fetchval("SELECT 1") == 1
                await pool.release(other)

    asyncio.run(scenario())


def test_a_release_cancelled_or_out_of_time_loses_no_place(dsn: str) -> None:
    """What cannot be cleaned in time is closed."""

    class Slow(asyncpg.Connection):  # type: ignore[misc]
        async def reset(self, *, timeout: float | None = None) -> None:
            await self.execute("SELECT pg_sleep(6)")

    async def scenario() -> None:
        async with create_pool(dsn, min_size=1, max_size=1, connection_class=Slow) as pool:
            conn = await pool.acquire()
            with pytest.raises(TimeoutError):
                await pool.release(conn, timeout=0.05)
            conn = await pool.acquire(timeout=5)
            releasing = asyncio.ensure_future(pool.release(conn, timeout=0.3))
            await asyncio.sleep(0)
            releasing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await releasing
            pool.penstock._driver.abort(pool._connections()[0])
            await soon(lambda: pool.get_idle_size() == 1)
            conn = await pool.acquire(timeout=5)
            conn.terminate()

    asyncio.run(scenario())


def test_a_declared_deadline_counts(dsn: str) -> None:
    """For the wait and for each statement; and is over with its block."""

    async def scenario() -> None:
        async with create_pool(dsn, min_size=1, max_size=1) as pool:
            started = time.monotonic()
            with penstock.deadline(0.1):
                with pytest.raises(TimeoutError):
                    await pool.fetchval("SELECT pg_sleep(6)")
            assert time.monotonic() - started < 2
            assert await pool.fetchval("SELECT 1") == 1

    asyncio.run(scenario())


def test_a_connect_hook_has_to_pass_the_class_on(dsn: str) -> None:
    """What it makes otherwise could not be told from others, and is refused with what to do."""

    async def connect(*args: Any, connection_class: Any, **kwargs: Any) -> Any:
        return await asyncpg.connect(*args, **kwargs)

    async def scenario() -> None:
        with pytest.raises(asyncpg.InterfaceError, match="pass connection_class on to"):
            await create_pool(dsn, connect=connect)

    asyncio.run(scenario())


def test_max_queries_and_expiry_replace_connections(dsn: str) -> None:
    """When they come back, and with the arguments of now."""

    async def scenario() -> None:
        async with create_pool(dsn, min_size=1, max_size=1, max_queries=2) as pool:
            first = await pool.fetchval("SELECT pg_backend_pid()")
            assert await pool.fetchval("SELECT pg_backend_pid()") == first
            second = await pool.fetchval("SELECT pg_backend_pid()")
            assert second != first
            pool.set_connect_args(dsn, server_settings={"application_name": "anew"})
            await pool.expire_connections()
            assert await pool.fetchval("SHOW application_name") == "anew"

    asyncio.run(scenario())


def test_a_pool_that_was_closed_or_not_begun_says_so(dsn: str) -> None:
    """In asyncpg's words."""

    async def scenario() -> None:
        pool = create_pool(dsn, min_size=1)
        assert isinstance(pool, Pool)
        assert isinstance(pool, asyncpg.Pool)
        with pytest.raises(asyncpg.InterfaceError, match="pool is not initialized"):
            await pool.fetchval("SELECT 1")
        await pool
        conn = await pool.acquire()
        pool.terminate()
        with pytest.raises(asyncpg.InterfaceError):
            await conn.fetchval("SELECT 1")
        with pytest.raises(asyncpg.InterfaceError, match="pool is closed"):
            await pool.acquire()
        await soon(lambda: not pool.penstock._core.slots)

    asyncio.run(scenario())
