"""Drivers that block, used from asyncio: a thread a connection, no more, and none left over."""

import asyncio
import gc
import os
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from penstock import AsyncPool, Pool, PoolTimeout
from penstock.core import Reason
from penstock.drill.postgres import EmbeddedPostgres
from penstock.drivers import load
from penstock.drivers.sqlite3 import Sqlite3Driver
from penstock.drivers.threaded import ThreadedDriver, Worker
from support.waiting import soon


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "penstock-connection"]


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "database")


def test_there_are_never_more_threads_than_connections(dsn: str) -> None:
    """However many tasks come; and none is left when the pool is closed."""

    async def ask(pool: Any) -> int:
        async with pool.connection() as conn:
            cursor = await conn.execute("SELECT pg_sleep(0.005)")
            await cursor.fetchall()
            return len(threads())

    async def scenario() -> None:
        async with AsyncPool(dsn, driver="psycopg2", min_size=0, max_size=3, open=False) as pool:
            seen = await asyncio.gather(*[ask(pool) for _ in range(50)])
            assert max(seen) <= 3
        await soon(lambda: not threads())

    asyncio.run(scenario())


def test_a_dropped_connection_leaves_no_thread(file: str) -> None:
    """Nor does a pool that was never closed keep one for a connection that it has lost."""

    async def scenario() -> None:
        async with AsyncPool(file, driver="sqlite3", min_size=0, max_size=1, open=False) as pool:
            conn = await pool.getconn()
            del conn
            await soon(lambda: pool.snapshot().closes == {Reason.DROPPED: 1})
            await soon(lambda: not threads())

    with pytest.warns(ResourceWarning, match=__file__):
        asyncio.run(scenario())


async def served(pool: Any) -> bool:
    try:
        async with pool.connection(timeout=0.5):
            return True
    except PoolTimeout:
        return False


def test_a_connect_that_was_given_up_leaves_neither_thread_nor_session(postgres: EmbeddedPostgres) -> None:
    """Its slot is taken until the thread has ended; what it has connected to after all is closed."""
    connecting, go_on = threading.Event(), threading.Event()

    class Slow(psycopg2.extensions.connection):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            connecting.set()
            go_on.wait(5)

    async def scenario() -> None:
        pool: AsyncPool[Any]
        async with AsyncPool(
            postgres.dsn,
            driver="psycopg2",
            kwargs={"application_name": "given up"},
            connection_class=Slow,
            min_size=0,
            max_size=1,
            connect_timeout=0.1,
            open=False,
        ) as pool:
            assert not await served(pool)
            assert connecting.is_set()
            assert pool.snapshot().opening == 1
            go_on.set()
            async with asyncio.timeout(10):
                while not await served(pool):
                    await asyncio.sleep(0.01)
            with postgres.admin() as admin:
                count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'given up'"
                await soon(lambda: admin.execute(count).fetchone() == (1,))
                await soon(lambda: len(threads()) == 1)

    asyncio.run(scenario())


def test_what_a_thread_raises_its_caller_sees(file: str) -> None:
    """StopIteration, which no future takes, among it."""

    async def scenario() -> None:
        async with AsyncPool(file, driver="sqlite3", min_size=1, open=False) as pool:
            async with pool.connection() as conn:
                with pytest.raises(sqlite3.OperationalError):
                    await conn.execute("nonsense")
                with pytest.raises(RuntimeError, match="StopIteration"):
                    await conn.run(lambda raw: next(iter([])))

    asyncio.run(scenario())


def test_whatever_has_no_awaitable_method_is_for_run(file: str) -> None:
    """In the connection's thread, which is the only one that uses it."""

    def fill(raw: sqlite3.Connection, rows: int) -> str:
        raw.execute("CREATE TABLE t (x)")
        raw.executemany("INSERT INTO t VALUES (?)", [(row,) for row in range(rows)])
        return threading.current_thread().name

    async def scenario() -> None:
        async with AsyncPool(file, driver="sqlite3", min_size=1, open=False) as pool:
            async with pool.connection() as conn:
                assert await conn.run(fill, 3) == "penstock-connection"
                assert isinstance(conn.raw, sqlite3.Connection)
            async with pool.connection() as conn, conn.cursor() as cursor:
                await cursor.execute("SELECT x FROM t WHERE x > ?", (0,))
                assert [row async for row in cursor] == [(1,), (2,)]
                assert [column[0] for column in cursor.description] == ["x"]
                await cursor.executemany("INSERT INTO t VALUES (?)", [(3,), (4,)])
                assert cursor.rowcount == 2
                await cursor.execute("SELECT x FROM t")
                assert await cursor.fetchmany(2) == [(0,), (1,)]
                assert await cursor.run(lambda raw: raw.fetchone()) == (2,)
                with pytest.raises(AttributeError, match=r"await cursor\.run"):
                    cursor.setinputsizes  # noqa: B018

    asyncio.run(scenario())


def test_a_cancelled_statement_is_not_overtaken(dsn: str) -> None:
    """Who catches the cancellation and goes on has the same connection, its statement stopped."""

    async def scenario() -> None:
        async with AsyncPool(dsn, driver="psycopg2", min_size=1, open=False) as pool:
            async with pool.connection() as conn:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await conn.execute("SELECT pg_sleep(10)")
                async with asyncio.timeout(5):
                    await conn.rollback()
                    cursor = await conn.execute("SELECT 42")
                assert await cursor.fetchone() == (42,)
            assert pool.snapshot().closes == {}

    asyncio.run(scenario())


@asynccontextmanager
async def at_work() -> AsyncIterator[tuple[Worker, asyncio.Future[Any], threading.Event]]:
    """A worker, what it is doing, and what that one waits for."""
    worker, begun, go_on = Worker(), threading.Event(), threading.Event()
    first = worker.give(lambda: (begun.set(), go_on.wait(10)))
    assert begun.wait(10)
    try:
        yield worker, first, go_on
    finally:
        go_on.set()
        worker.end()
        await soon(lambda: not worker.busy)


def test_what_was_cancelled_before_it_began_is_not_done() -> None:
    """A statement that nobody waits for would run to its end; what is due, such as to close, is done all the same."""

    async def scenario() -> None:
        done: list[str] = []
        async with at_work() as (worker, _, go_on):
            worker.give(lambda: done.append("statement")).cancel()
            worker.give(lambda: done.append("close"), due=True).cancel()
            go_on.set()
            await worker.give(lambda: None)
            assert done == ["close"]

    asyncio.run(scenario())


def test_only_what_was_cancelled_is_stopped() -> None:
    """Not another task's statement, which happens to run on the same connection."""

    async def scenario() -> None:
        stopped: list[str] = []
        async with at_work() as (worker, first, go_on):
            second = worker.give(lambda: None)
            worker.stop(lambda: stopped.append("second"), second)
            go_on.set()
            await second
            worker.stop(lambda: stopped.append("first"), first)  # it has ended
            await worker.give(lambda: None)
        assert stopped == []

    asyncio.run(scenario())


def test_who_comes_too_early_to_stop_a_statement_comes_again() -> None:
    """A server asked to cancel before the statement has reached it does nothing."""

    async def scenario() -> None:
        came: list[None] = []

        def cancel() -> None:
            came.append(None)
            if len(came) == 2:
                go_on.set()

        async with at_work() as (worker, first, go_on):
            worker.stop(cancel, first)
            await asyncio.wait_for(first, 5)
        assert len(came) == 2

    asyncio.run(scenario())


def test_where_no_thread_can_be_had_to_stop_it_a_statement_runs_to_its_end(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection works after that, and the task that was cancelled hears of nothing else."""
    start, begun, go_on = threading.Thread.start, threading.Event(), threading.Event()

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "penstock-cancel":
            raise RuntimeError("can't start new thread")
        start(thread)

    def work(raw: Any) -> None:
        begun.set()
        go_on.wait(10)

    async def scenario() -> None:
        async with AsyncPool(file, driver="sqlite3", min_size=1, open=False) as pool:
            async with pool.connection() as conn:
                task = asyncio.create_task(conn.run(work))
                await soon(begun.is_set)
                monkeypatch.setattr(threading.Thread, "start", refuse)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                go_on.set()
                cursor = await conn.execute("SELECT 42")
                assert await cursor.fetchone() == (42,)
            monkeypatch.undo()
            assert pool.snapshot().closes == {}

    asyncio.run(scenario())


def test_a_cancelled_transaction_is_rolled_back_in_its_own_thread(dsn: str) -> None:
    """Not as garbage, in the event loop's thread, where it would wait for the statement."""
    where: list[str] = []

    class Recorded(psycopg2.extensions.connection):  # type: ignore[misc]
        def rollback(self) -> None:
            where.append(threading.current_thread().name)
            super().rollback()

    async def scenario() -> None:
        pool: AsyncPool[Any]
        async with AsyncPool(dsn, driver="psycopg2", connection_class=Recorded, min_size=1, open=False) as pool:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1), pool.transaction() as conn:
                    await conn.execute("SELECT pg_sleep(10)")
            del conn
            gc.collect()
            await soon(lambda: pool.snapshot().closes == {Reason.BUSY: 1})
        assert set(where) == {"penstock-connection"}

    asyncio.run(scenario())


def test_a_connect_that_fails_for_nobody_is_no_news_to_the_event_loop(dsn: str) -> None:
    """It would log it as an error that was never retrieved."""
    connecting, go_on = threading.Event(), threading.Event()

    class Failing(psycopg2.extensions.connection):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            connecting.set()
            go_on.wait(10)
            raise psycopg2.OperationalError("too late")

    told: list[Any] = []

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        driver = ThreadedDriver(load("psycopg2", Failing, False))
        task = asyncio.create_task(driver.connect(dsn, {}, timeout=5, settings={}))
        await soon(connecting.is_set)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()  # who waits for its end is cancelled, too
        await asyncio.wait([task])
        go_on.set()
        await soon(lambda: not threads())

    asyncio.run(scenario())
    gc.collect()
    assert told == []


def test_the_descriptor_of_a_close_that_took_too_long_is_closed(file: str) -> None:
    """Nobody is there to take it any more."""
    closing, go_on = threading.Event(), threading.Event()
    reading, writing = os.pipe()

    class Slow(Sqlite3Driver):
        async def close(self, conn: Any) -> int | None:
            await super().close(conn)
            closing.set()
            go_on.wait(10)
            return reading

    async def scenario() -> None:
        driver = ThreadedDriver(Slow(None, False))
        conn = await driver.connect(file, {}, timeout=5, settings={})
        driver.adopt(conn)
        task = asyncio.create_task(driver.close(conn))
        await soon(closing.is_set)
        task.cancel()
        await asyncio.wait([task])
        go_on.set()
        await soon(is_closed)

    def is_closed() -> bool:
        try:
            os.write(writing, b"!")
        except BrokenPipeError:
            return True
        return False

    try:
        asyncio.run(scenario())
    finally:
        os.close(writing)


def test_with_close_returns_the_connection_s_end_is_the_pool_s(file: str) -> None:
    """And without it, a closed connection says so."""

    async def scenario() -> None:
        async with AsyncPool(file, driver="sqlite3", min_size=1, open=False) as pool:
            async with pool.connection() as conn:
                await conn.close()
                with pytest.raises(sqlite3.OperationalError, match="closed"):
                    await conn.execute("SELECT 1")
        await soon(lambda: not threads())

    asyncio.run(scenario())


def test_a_driver_for_asyncio_alone_is_refused_in_a_pool() -> None:
    """With what to use instead."""
    with pytest.raises(ValueError, match="'asyncpg' is for asyncio alone: use an AsyncPool"):
        Pool("", driver="asyncpg", open=False)
