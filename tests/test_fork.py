"""A fork never shares a socket: the child's pool starts anew, the parent's goes on as if nothing had happened."""

import asyncio
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from penstock import AsyncPool, Pool, PoolClosed
from penstock.drill.postgres import EmbeddedPostgres
from penstock.pool import registry
from support.either import ask, request
from support.waiting import aside

# Python 3.12 and newer warn of every fork in a process that has threads, which is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

CHILD_SECONDS = 20


def in_child(job: Callable[[], Any], meanwhile: Callable[[], object] = lambda: None) -> str:
    """What *job* returns in a forked child, as text; a child that hangs is ended. *meanwhile* is the parent's part."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reads)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(CHILD_SECONDS)
        try:
            text = str(job())
        except BaseException:
            text = traceback.format_exc()
        os.write(writes, text.encode()[:60000])
        os._exit(0)
    os.close(writes)
    try:
        meanwhile()
    finally:
        with os.fdopen(reads) as pipe:
            text = pipe.read()
        _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child ended with {status}: {text}"
    return text


def session(pool: Any) -> int:
    with pool.connection(timeout=10) as conn:
        return int(conn.execute("SELECT pg_backend_pid()").fetchone()[0])


def test_the_child_s_pool_starts_anew(postgres: EmbeddedPostgres) -> None:
    """Of the same options, with no connection, opened at first use; the parent's keep their sessions."""
    with Pool(postgres.dsn, min_size=2, open=False, name="forked") as pool:
        pool.wait()
        mine = {conn.info.backend_pid for conn in pool._pool}
        answer = in_child(lambda: (pool.snapshot().open, session(pool), pool.name, pool.max_size))
        at_first, theirs, name, size = eval(answer)
        assert at_first == 0
        assert theirs not in mine
        assert (name, size) == ("forked", 2)
        assert {conn.info.backend_pid for conn in pool._pool} == mine
        for _ in range(10):
            assert session(pool) in mine
        assert pool.snapshot().closes == {}


def test_the_child_s_use_of_a_connection_in_hand_does_not_reach_the_parent_s(dsn: str) -> None:
    """It is an error there; dropping it or closing it tells the server nothing."""

    def misuse() -> str:
        try:
            conn.execute("SELECT 1")
        except psycopg.Error:
            conn.close()
            return f"refused, {session(pool)}"
        return "reached it"

    with Pool(dsn, min_size=1, open=False) as pool:
        with pool.connection() as conn:
            conn.execute("CREATE TEMP TABLE mine AS SELECT 42 AS x")
            answer = in_child(misuse)
            assert answer.startswith("refused, ")
            assert int(answer.split()[1]) != conn.info.backend_pid
            assert conn.execute("SELECT x FROM mine").fetchone() == (42,)


def test_the_block_that_forked_may_be_left_in_the_child(dsn: str) -> None:
    """Its connection comes back to nobody; the parent's commit is the parent's."""

    def leave() -> str:
        try:
            checkout.__exit__(None, None, None)
        except psycopg.Error as error:
            return f"left, {type(error).__name__}, {session(pool)}"
        return f"left, {session(pool)}"

    with Pool(dsn, min_size=1, open=False) as pool:
        checkout = pool.connection()
        conn = checkout.__enter__()
        conn.execute("CREATE TEMP TABLE mine (x int) ON COMMIT DROP")
        assert in_child(leave).startswith("left, ")
        assert conn.execute("SELECT count(*) FROM mine").fetchone() == (0,)
        checkout.__exit__(None, None, None)
        assert pool.snapshot().idle == 1


def test_leaving_the_block_in_the_child_stops_no_statement_of_the_parent_s(dsn: str) -> None:
    """A cancel request goes by the session's key, not by its socket: the child must not send one."""

    def leave() -> str:
        time.sleep(0.1)  # until the parent's statement runs
        with suppress(psycopg.Error):
            checkout.__exit__(None, None, None)
        time.sleep(0.3)  # whatever it set off has the time to do harm
        return "left"

    with Pool(dsn, min_size=1, open=False) as pool:
        checkout = pool.connection()
        conn = checkout.__enter__()
        conn.execute("SELECT 1")
        assert in_child(leave, meanwhile=lambda: conn.execute("SELECT pg_sleep(0.6)")) == "left"
        checkout.__exit__(None, None, None)
        assert pool.snapshot().closes == {}


@pytest.mark.parametrize("statement", [None, "SELECT 1"])
@pytest.mark.parametrize("used_before", [True, False])
def test_leaving_the_block_in_the_child_changes_no_figure_of_its_pool(
    dsn: str, statement: str | None, used_before: bool
) -> None:
    """The parent's connection is none of the child's pool, which has room for as many as ever, and no more."""

    def leave() -> str:
        if used_before:
            session(pool)
        with suppress(psycopg.Error):
            checkout.__exit__(None, None, None)
        session(pool)
        pool.wait(timeout=5)
        with pool.connection() as one, pool.connection() as other:
            assert one is not conn
            assert other is not conn
            one.execute("SELECT 1")
            other.execute("SELECT 1")
        now = pool.snapshot()
        return f"{now.idle} {now.leased} {now.opening} {now.closing} {now.closes}"

    with Pool(dsn, min_size=2, open=False) as pool:
        checkout = pool.connection()
        conn = checkout.__enter__()
        if statement:
            conn.execute(statement)
        assert in_child(leave) == "2 0 0 0 {}"
        checkout.__exit__(None, None, None)
        assert pool.snapshot().closes == {}


def test_the_child_may_close_its_pool(postgres: EmbeddedPostgres) -> None:
    """Before or after its first use; the parent's stays open."""

    def close() -> str:
        pool.close()
        try:
            pool.getconn()
        except PoolClosed:
            return "closed"
        return "open"

    def use_and_close() -> str:
        session(pool)
        return close()

    with Pool(postgres.dsn, min_size=1, open=False) as pool:
        mine = session(pool)
        assert in_child(use_and_close) == "closed"
        assert session(pool) == mine


def test_the_child_may_close_its_pool_unused(dsn: str) -> None:
    """Closed is closed, also if it was not used there before."""

    def close() -> str:
        pool.close()
        try:
            session(pool)
        except PoolClosed:
            return "closed"
        return "open"

    with Pool(dsn, min_size=1, open=False) as pool:
        session(pool)
        assert in_child(close) == "closed"


def test_a_child_sees_the_pool_as_the_parent_s(dsn: str) -> None:
    """One that is closed stays closed, one that was never opened can be opened."""

    def closed() -> str:
        try:
            pool.getconn()
        except PoolClosed as error:
            return str(error)
        return "open"

    pool = Pool(dsn, min_size=1, open=False)
    assert "is not open yet" in in_child(closed)

    def use() -> int:
        pool.open()
        return session(pool)

    assert in_child(use).isdigit()
    pool.open()
    pool.close()
    assert "is already closed" in in_child(closed)


def test_forks_under_load_harm_nobody(dsn: str) -> None:
    """Whatever lock a thread of the parent holds at that moment, the child's pool works."""
    stop = threading.Event()

    def load() -> int:
        served = 0
        while not stop.is_set():
            with pool.connection(timeout=10) as conn:
                assert conn.execute("SELECT 1").fetchone() == (1,)
            served += 1
        return served

    with Pool(dsn, min_size=2, open=False) as pool:
        pool.wait()
        workers = [aside(load) for _ in range(4)]
        children = [in_child(lambda: session(pool)) for _ in range(10)]
        stop.set()
        assert all(child.isdigit() for child in children)
        assert all(worker.result(10) > 0 for worker in workers)
        assert pool.snapshot().closes == {}
        assert pool.snapshot().idle == 2


def test_a_fork_waits_until_threads_that_have_done_their_work_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they end OpenSSL takes a lock, which a child that is forked at that moment would have locked for ever."""
    looks = iter([True, True, False])
    monkeypatch.setattr(registry, "_leaving", {1})
    monkeypatch.setattr(registry, "_exists", lambda number: next(looks, False))
    assert in_child(lambda: registry._leaving) == "set()"
    assert next(looks, None) is None


def test_a_grandchild_works_too(dsn: str) -> None:
    """Each generation has its own."""
    with Pool(dsn, min_size=1, open=False) as pool:
        mine = session(pool)
        answer = in_child(lambda: (session(pool), int(in_child(lambda: session(pool))), session(pool)))
        child, grandchild, child_again = eval(answer)
        assert len({mine, child, grandchild}) == 3
        assert child_again == child


def _multiprocess(pool: Pool[Any], answers: Any) -> None:
    try:
        answers.put(session(pool))
    except BaseException:
        answers.put(traceback.format_exc())  # or the parent would wait in vain
        raise


def test_multiprocessing_by_fork(dsn: str) -> None:
    """Two children at once, which end as processes do: the parent's connections survive that."""
    context = multiprocessing.get_context("fork")
    with Pool(dsn, min_size=2, open=False) as pool:
        pool.wait()
        mine = {conn.info.backend_pid for conn in pool._pool}
        answers = context.Queue()
        children = [context.Process(target=_multiprocess, args=(pool, answers)) for _ in range(2)]
        for child in children:
            child.start()
        theirs = {answers.get(timeout=CHILD_SECONDS) for _ in children}
        assert all(isinstance(answer, int) for answer in theirs), theirs
        for child in children:
            child.join(CHILD_SECONDS)
            assert child.exitcode == 0
        assert len(theirs) == 2
        assert not theirs & mine
        assert session(pool) in mine
        assert pool.snapshot().closes == {}


async def async_session(pool: AsyncPool[Any]) -> int:
    async with pool.connection(timeout=10) as conn:
        return int(await ask(conn, "SELECT pg_backend_pid()"))


def test_async_the_child_s_pool_starts_anew_in_its_own_loop(dsn: str) -> None:
    """The parent's stays as it was."""

    async def scenario() -> None:
        async with AsyncPool(dsn, min_size=2, open=False) as pool:
            await pool.wait()
            mine = {conn.info.backend_pid for conn in pool._pool}
            theirs = in_child(lambda: asyncio.run(async_session(pool)))
            assert theirs.isdigit(), theirs
            assert int(theirs) not in mine
            for _ in range(5):
                assert await async_session(pool) in mine
            assert pool.snapshot().closes == {}

    asyncio.run(scenario())


def test_async_a_connection_in_hand_is_out_of_the_child_s_reach(dsn: str) -> None:
    """As with threads."""

    async def scenario() -> None:
        async with AsyncPool(dsn, min_size=1, open=False) as pool:
            async with pool.connection() as conn:
                await conn.execute("CREATE TEMP TABLE mine AS SELECT 42 AS x")

                async def misuse() -> str:
                    try:
                        await conn.execute("SELECT 1")
                    except (psycopg.Error, RuntimeError, OSError):
                        return f"refused {await request(pool)}"
                    return "reached it"

                assert in_child(lambda: asyncio.run(misuse())) == "refused 1"
                assert await ask(conn, "SELECT x FROM mine") == 42

    asyncio.run(scenario())
