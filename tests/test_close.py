"""The end of a pool: by `close`, by the interpreter's exit, or because nobody refers to it. And changes before that."""

import asyncio
import gc
import logging
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from typing import Any

import psycopg
import pytest

from penstock import AsyncPool, Pool, PoolClosed, PoolTimeout
from penstock.core import Reason
from penstock.drill.postgres import EmbeddedPostgres
from support.either import Kind, borrowed, both, opened, request, settled
from support.waiting import aside, eventually, soon

AT_ONCE = 1.0


def sessions(postgres: EmbeddedPostgres, name: str) -> int:
    """Sessions that the server knows under that application_name."""
    with postgres.admin() as admin:
        row = admin.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [name]).fetchone()
    assert row is not None
    return int(row[0])


# ------------------------------------------------------------------------------------------ close


@both
def test_closing_ends_all_sessions(postgres: EmbeddedPostgres, kind: Kind) -> None:
    """When `close` returns, the server knows none of them any more."""

    async def scenario() -> None:
        async with opened(kind, postgres.dsn, min_size=3, kwargs={"application_name": "to-close"}) as pool:
            assert sessions(postgres, "to-close") == 3
            await settled(pool.close())
            assert sessions(postgres, "to-close") == 0
            assert pool.closed
            assert pool.snapshot().open == 0
            assert pool.snapshot().closes == {Reason.POOL_CLOSED: 3}

    asyncio.run(scenario())


def test_work_under_way_may_end_within_the_grace_period(dsn: str) -> None:
    """`close` waits for it, and then waits no longer; those who wait for a connection are refused at once."""

    def work() -> Any:
        with pool.connection() as conn:
            in_hand.set()
            return conn.execute("SELECT pg_sleep(0.3), 42").fetchone()

    in_hand = threading.Event()
    pool = Pool(dsn, min_size=1, open=False)
    pool.open()
    under_way = aside(work)
    assert in_hand.wait(5)
    waiting = aside(pool.getconn)
    eventually(lambda: pool.snapshot().waiting == 1)
    started = time.monotonic()
    closing = aside(pool.close)
    with pytest.raises(PoolClosed, match="is already closed"):
        waiting.result(AT_ONCE)
    assert time.monotonic() - started < 0.25
    with pytest.raises(PoolClosed):
        pool.getconn()
    closing.result(5)
    assert time.monotonic() - started < 2
    assert under_way.done()
    assert under_way.result()[1] == 42
    assert pool.snapshot().open == 0


def test_async_work_under_way_may_end_within_the_grace_period(dsn: str) -> None:
    """As with threads."""

    async def work(pool: AsyncPool, in_hand: asyncio.Event) -> Any:
        async with pool.connection() as conn:
            in_hand.set()
            return await (await conn.execute("SELECT pg_sleep(0.3), 42")).fetchone()

    async def scenario() -> None:
        pool = AsyncPool(dsn, min_size=1, open=False)
        await pool.open()
        in_hand = asyncio.Event()
        under_way = asyncio.create_task(work(pool, in_hand))
        await in_hand.wait()
        waiting = asyncio.create_task(pool.getconn())
        await soon(lambda: pool.snapshot().waiting == 1)
        closing = asyncio.create_task(pool.close())
        with pytest.raises(PoolClosed):
            await waiting
        assert not under_way.done()
        await closing
        assert (await under_way)[1] == 42
        assert pool.snapshot().open == 0

    asyncio.run(scenario())


def test_what_is_out_past_the_grace_period_is_named_and_closed_on_return(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The one who has it may go on; when it comes back it is closed."""
    caplog.set_level(logging.WARNING, "penstock.pool")
    in_hand, go_on = threading.Event(), threading.Event()

    def work() -> Any:
        with pool.connection() as conn:
            in_hand.set()
            go_on.wait(5)
            conn.execute("SELECT 1")
        return conn

    pool = Pool(dsn, min_size=1, open=False)
    pool.open()
    under_way = aside(work)
    assert in_hand.wait(5)
    started = time.monotonic()
    pool.close(timeout=0.2)
    assert 0.15 < time.monotonic() - started < AT_ONCE
    assert "closed with 1 connections still out" in caplog.text
    assert "test_what_is_out_past_the_grace_period" in caplog.text
    go_on.set()
    assert under_way.result(5).closed
    eventually(lambda: pool.snapshot().open == 0)


@both
def test_a_connection_returned_after_close_is_closed(dsn: str, kind: Kind) -> None:
    """By hand; the return itself is no error."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=2) as pool:
            conn = await settled(pool.getconn())
            await settled(conn.execute("SELECT 1"))
            started = time.monotonic()
            await settled(pool.close())
            assert time.monotonic() - started < AT_ONCE  # its holder itself is not kept waiting for it
            assert not conn.closed
            await settled(conn.commit())
            await settled(pool.putconn(conn))
            assert conn.closed
            await soon(lambda: pool.snapshot().open == 0)  # the idle one, which nobody waited for, is on its way out

    asyncio.run(scenario())


@both
def test_a_holder_may_close_the_pool_in_its_own_block(dsn: str, kind: Kind) -> None:
    """It does not wait for itself."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            started = time.monotonic()
            async with borrowed(pool) as conn:
                await settled(pool.close())
                await settled(conn.execute("SELECT 1"))
            assert time.monotonic() - started < AT_ONCE
            assert conn.closed

    asyncio.run(scenario())


@both
def test_closing_twice_is_once(dsn: str, kind: Kind) -> None:
    """And a closed pool stays closed, with a clear word."""

    async def scenario() -> None:
        pool = kind(dsn, open=False, name="water")
        await settled(pool.open())
        await settled(pool.close())
        await settled(pool.close())
        with pytest.raises(PoolClosed, match="'water' is already closed"):
            await settled(pool.getconn())
        with pytest.raises(PoolClosed, match=r"'water' has already been opened and closed.*make a new one"):
            await settled(pool.open())

    asyncio.run(scenario())


@both
def test_closing_at_once_after_opening_loses_nothing(postgres: EmbeddedPostgres, kind: Kind) -> None:
    """Connections that were just being opened are closed as they arrive."""

    async def scenario() -> None:
        for _ in range(10):
            pool = kind(postgres.dsn, open=False, kwargs={"application_name": "short-lived"})
            await settled(pool.open())
            await settled(pool.close())
            await soon(lambda pool=pool: pool.snapshot().open == 0)  # type: ignore[misc]
        await soon(lambda: sessions(postgres, "short-lived") == 0)

    asyncio.run(scenario())


def test_a_pool_s_threads_end_with_it(dsn: str) -> None:
    """None of its own is left behind."""
    with Pool(dsn, min_size=3, open=False, name="thready") as pool:
        pool.wait()
        assert any(thread.name == "thready-keeper" for thread in threading.enumerate())
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("thready")])


def test_a_pool_that_is_dropped_is_collected(postgres: EmbeddedPostgres) -> None:
    """Without `close`: its memory, its thread and its sessions go."""
    pool = Pool(postgres.dsn, min_size=2, open=False, name="dropped", kwargs={"application_name": "dropped"})
    pool.open(wait=True)
    pool.putconn(pool.getconn())
    gone = weakref.ref(pool)
    del pool
    eventually(lambda: gc.collect() is not None and gone() is None)
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("dropped")])
    eventually(lambda: sessions(postgres, "dropped") == 0)


# ------------------------------------------------------------------------------------------ the interpreter's exit

PREAMBLE = """
import asyncio, sys, threading
from penstock import AsyncPool, Pool
dsn = sys.argv[1]
"""

EXITS = {
    "idle": """
        pool = Pool(dsn, min_size=2, open=True)
        pool.wait()
    """,
    "at once": """
        pool = Pool(dsn, min_size=2, open=True)
    """,
    "in hand": """
        pool = Pool(dsn, min_size=2, open=True)
        conn = pool.getconn()
        conn.execute("SELECT 1")
    """,
    "in a daemon thread's hand": """
        pool = Pool(dsn, min_size=2, open=True)
        ready = threading.Event()
        def work():
            with pool.connection() as conn:
                ready.set()
                conn.execute("SELECT pg_sleep(5)")
        threading.Thread(target=work, daemon=True).start()
        ready.wait()
    """,
    "while a daemon thread waits": """
        pool = Pool(dsn, min_size=1, open=True)
        conn = pool.getconn()
        threading.Thread(target=pool.getconn, daemon=True).start()
    """,
    "in a global of a function": """
        def main():
            main.pool = Pool(dsn, min_size=2, open=True)
            with main.pool.connection() as conn:
                conn.execute("SELECT 1")
        main()
    """,
    "async, idle": """
        async def main():
            global pool
            pool = AsyncPool(dsn, min_size=2, open=False)
            await pool.open(wait=True)
        asyncio.run(main())
    """,
    "async, at once": """
        async def main():
            global pool
            pool = AsyncPool(dsn, min_size=2, open=False)
            await pool.open()
        asyncio.run(main())
    """,
    "async, in hand": """
        async def main():
            global pool, conn
            pool = AsyncPool(dsn, min_size=2, open=False)
            await pool.open()
            conn = await pool.getconn()
            await conn.execute("SELECT 1")
        asyncio.run(main())
    """,
    "async, dropped": """
        async def main():
            pool = AsyncPool(dsn, min_size=2, open=False)
            await pool.open(wait=True)
            async with pool.connection() as conn:
                await conn.execute("SELECT 1")
        asyncio.run(main())
    """,
}


@pytest.mark.parametrize("how", EXITS)
def test_the_interpreter_exits_in_peace_without_close(dsn: str, how: str) -> None:
    """Status 0, no traceback, no hang."""
    code = PREAMBLE + textwrap.dedent(EXITS[how])
    ended = subprocess.run([sys.executable, "-c", code, dsn], capture_output=True, text=True, timeout=20, check=False)
    assert "Traceback" not in ended.stderr
    assert "ignored" not in ended.stderr  # "Exception ignored in ...", as finalizers' errors are reported
    assert ended.returncode == 0, ended.stderr


def test_idle_connections_say_goodbye_at_exit(own_postgres: Any) -> None:
    """The server has no lost client to report."""
    server = own_postgres()
    code = PREAMBLE + textwrap.dedent(EXITS["idle"])
    subprocess.run([sys.executable, "-c", code, server.dsn], timeout=20, check=True)
    assert "unexpected EOF" not in server._log.read_text()


# ------------------------------------------------------------------------------------------ changes while it lives


@both
def test_drain_replaces_every_connection(dsn: str, kind: Kind) -> None:
    """Idle ones now, the one in hand when it comes back, and no request fails."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=3) as pool:
            before = {conn.info.backend_pid for conn in pool._pool}
            async with borrowed(pool) as conn:
                await settled(pool.drain())
                assert await request(pool, "SELECT pg_backend_pid()", timeout=5) not in before
                await settled(conn.execute("SELECT 1"))
            await soon(lambda: pool.snapshot().idle == 3)
            assert not before & {conn.info.backend_pid for conn in pool._pool}
            assert pool.snapshot().closes == {Reason.DRAINED: 3}

    asyncio.run(scenario())


@both
def test_resize_takes_effect_at_once(dsn: str, kind: Kind) -> None:
    """Up: filled; down: idle ones closed now, those in hand when they come back."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            await settled(pool.resize(4))
            assert (pool.min_size, pool.max_size) == (4, 4)
            await soon(lambda: pool.snapshot().idle == 4)
            async with borrowed(pool):
                await settled(pool.resize(1, 2))
                await soon(lambda: pool.snapshot().open == 2)
                await settled(pool.resize(1))
                await soon(lambda: pool.snapshot().open == 1)
            assert await request(pool) == 1
            assert pool.snapshot().closes == {Reason.SURPLUS: 3}

    asyncio.run(scenario())


@both
def test_a_resize_lets_those_who_wait_in(dsn: str, kind: Kind) -> None:
    """A bigger pool serves them."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            async with borrowed(pool):
                if kind is Pool:
                    waiting: Any = asyncio.create_task(asyncio.to_thread(lambda: pool.putconn(pool.getconn(timeout=5))))
                else:
                    waiting = asyncio.create_task(request(pool, timeout=5))
                await soon(lambda: pool.snapshot().waiting == 1)
                await settled(pool.resize(1, 2))
                await asyncio.wait_for(waiting, 5)

    asyncio.run(scenario())


@both
def test_a_paused_pool_hands_out_nothing_until_it_is_resumed(dsn: str, kind: Kind) -> None:
    """Requests wait, each until its own timeout; then all are served."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=2) as pool:
            async with borrowed(pool) as conn:
                pool.pause()
                await settled(conn.execute("SELECT 1"))
            with pytest.raises(PoolTimeout, match="the pool is paused"):
                await request(pool, timeout=0.1)
            if kind is Pool:
                waiting = [asyncio.create_task(asyncio.to_thread(lambda: pool.putconn(pool.getconn()))) for _ in "abc"]
            else:
                waiting = [asyncio.create_task(request(pool)) for _ in "abc"]
            await soon(lambda: pool.snapshot().waiting == 3)
            assert pool.snapshot().paused
            pool.resume()
            await asyncio.wait_for(asyncio.gather(*waiting), 5)

    asyncio.run(scenario())


@both
def test_check_replaces_what_does_not_answer(
    postgres: EmbeddedPostgres, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    """And leaves the others."""
    caplog.set_level(logging.WARNING, "penstock.pool")

    async def scenario() -> None:
        async with opened(kind, postgres.dsn, min_size=3) as pool:
            pids = [conn.info.backend_pid for conn in pool._pool]
            with postgres.admin() as admin:
                admin.execute("SELECT pg_terminate_backend(%s, 2000)", [pids[0]])
            await settled(pool.check())
            await soon(lambda: pool.snapshot().idle == 3)
            now = {conn.info.backend_pid for conn in pool._pool}
            assert set(pids[1:]) < now
            assert pids[0] not in now

    asyncio.run(scenario())
    assert "failed its check and is replaced" in caplog.text


@both
def test_wait_returns_when_the_pool_is_full(dsn: str, kind: Kind) -> None:
    """`min_size` connections are idle; on a full pool at once."""

    async def scenario() -> None:
        async with opened(kind, dsn, wait=False, min_size=3) as pool:
            await settled(pool.wait(timeout=5))
            assert pool.snapshot().idle == 3
            await settled(pool.wait(timeout=0.01))

    asyncio.run(scenario())


def test_wait_ends_when_the_pool_is_closed_meanwhile(dsn: str) -> None:
    """Nobody sits out a timeout for what will not come any more. Threads."""
    with Pool(dsn, min_size=1, open=True) as pool, pool.connection():
        waiting = aside(lambda: pool.wait(30))
        eventually(lambda: pool._core._filling)
        pool.close(timeout=0)
        with pytest.raises(PoolClosed):
            waiting.result(AT_ONCE)


def test_wait_ends_when_the_pool_is_closed_meanwhile_in_asyncio(dsn: str) -> None:
    async def scenario() -> None:
        async with AsyncPool(dsn, min_size=1, open=False) as pool, pool.connection():
            waiting = asyncio.create_task(pool.wait(30))
            await soon(lambda: pool._core._filling)
            await pool.close(timeout=0)
            with pytest.raises(PoolClosed):
                await asyncio.wait_for(waiting, AT_ONCE)

    asyncio.run(scenario())


@both
def test_max_idle_and_max_lifetime_let_connections_go(dsn: str, kind: Kind) -> None:
    """Unused ones above `min_size`, and old ones, which are replaced."""

    async def scenario() -> None:
        async with opened(kind, dsn, wait=False, min_size=1, max_size=3, max_idle=0.1) as pool:
            async with borrowed(pool), borrowed(pool), borrowed(pool):
                pass
            await soon(lambda: pool.snapshot().open == 1)
            assert pool.snapshot().closes == {Reason.UNUSED: 2}
        async with opened(kind, dsn, min_size=2, max_lifetime=0.2) as pool:
            before = {conn.info.backend_pid for conn in pool._pool}
            await soon(lambda: pool.snapshot().idle == 2 and pool.snapshot().closes.get(Reason.EXPIRED, 0) >= 2)
            assert not before & {conn.info.backend_pid for conn in pool._pool}

    asyncio.run(scenario())


@both
def test_server_side_timeouts_are_set_with_the_login(dsn: str, kind: Kind) -> None:
    """Beside whatever `options` say already, and they survive a reset."""

    async def scenario() -> None:
        options: dict[str, Any] = {"statement_timeout": 0.2, "idle_in_transaction_timeout": 1.5}
        kwargs = {"options": "-c work_mem=6MB"}
        async with opened(kind, dsn, min_size=1, kwargs=kwargs, **options) as pool:
            async with borrowed(pool) as conn:
                await settled(conn.execute("SET statement_timeout = 0"))
            assert await request(pool, "SHOW statement_timeout") == "200ms"
            assert await request(pool, "SHOW idle_in_transaction_session_timeout") == "1500ms"
            assert await request(pool, "SHOW work_mem") == "6MB"
            with pytest.raises(psycopg.errors.QueryCanceled):
                await request(pool, "SELECT pg_sleep(5)")
            assert await request(pool) == 1

    asyncio.run(scenario())
