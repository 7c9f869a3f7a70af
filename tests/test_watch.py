"""Pools that are not ours, watched: who holds what is told as of our own pools, and the pool does what it did."""

import asyncio
import gc
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg
import pytest

import penstock
from penstock import CallSite, Holder, Pool
from penstock.events import CameBack, Closed, ConnectFailed, HeldLong, LeakSuspected, Refused, Returned
from penstock.guard.foreign import Watched, looking
from penstock.integrations import caller
from penstock.observe import metrics, sources
from support.waiting import aside, eventually
from support.web import ROOT

asyncpg = pytest.importorskip("asyncpg")
psycopg2 = pytest.importorskip("psycopg2")
psycopg2_pool = pytest.importorskip("psycopg2.pool")
psycopg_pool = pytest.importorskip("psycopg_pool")
sqlalchemy = pytest.importorskip("sqlalchemy")
pooled_db = pytest.importorskip("dbutils.pooled_db")
from sqlalchemy.ext.asyncio import create_async_engine  # noqa: E402

SIZE = 2


@contextmanager
def closing_engine(one: Any) -> Iterator[None]:
    try:
        yield
    finally:
        one.dispose()


class Theirs:
    """One kind of pool, behind one face."""

    error: type[BaseException]

    def __init__(self, pool: Any, lend: Callable[[], AbstractContextManager[Callable[[str], object]]]) -> None:
        self.pool = pool
        self.lend = lend


def engine(dsn: str, **options: Any) -> Any:
    url = dsn.replace("postgresql://", "postgresql+psycopg://")
    return sqlalchemy.create_engine(url, pool_size=SIZE, max_overflow=0, pool_timeout=0.1, **options)


@contextmanager
def of_sqlalchemy(dsn: str) -> Iterator[Theirs]:
    one = engine(dsn)

    @contextmanager
    def lend() -> Iterator[Callable[[str], object]]:
        with one.connect() as conn:
            yield lambda statement: conn.execute(sqlalchemy.text(statement))

    yield Theirs(one, lend)
    one.dispose()


@contextmanager
def of_psycopg_pool(dsn: str) -> Iterator[Theirs]:
    with psycopg_pool.ConnectionPool(dsn, min_size=1, max_size=SIZE, timeout=0.1) as pool:
        pool.wait()

        @contextmanager
        def lend() -> Iterator[Callable[[str], object]]:
            with pool.connection() as conn:
                yield conn.execute

        yield Theirs(pool, lend)


@contextmanager
def of_psycopg2(dsn: str) -> Iterator[Theirs]:
    pool = psycopg2_pool.ThreadedConnectionPool(1, SIZE, dsn)

    @contextmanager
    def lend() -> Iterator[Callable[[str], object]]:
        conn = pool.getconn()
        try:
            yield conn.cursor().execute
        finally:
            pool.putconn(conn)

    yield Theirs(pool, lend)
    pool.closeall()


@contextmanager
def of_dbutils(dsn: str) -> Iterator[Theirs]:
    pool = pooled_db.PooledDB(psycopg2, maxconnections=SIZE, dsn=dsn)

    @contextmanager
    def lend() -> Iterator[Callable[[str], object]]:
        conn = pool.connection()
        try:
            yield conn.cursor().execute
        finally:
            conn.close()

    yield Theirs(pool, lend)
    pool.close()


KINDS = [of_sqlalchemy, of_psycopg_pool, of_psycopg2, of_dbutils]
REFUSALS = {
    of_sqlalchemy: sqlalchemy.exc.TimeoutError,
    of_psycopg_pool: psycopg_pool.PoolTimeout,
    of_psycopg2: psycopg2_pool.PoolError,
    of_dbutils: pooled_db.TooManyConnectionsError,
}
TELLING = [of_sqlalchemy, of_psycopg_pool, of_psycopg2]  # of each statement
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__[3:])
telling = pytest.mark.parametrize("kind", TELLING, ids=lambda kind: kind.__name__[3:])


@contextmanager
def watching(pool: Any, **options: Any) -> Iterator[Watched]:
    watched = penstock.watch(pool, **options)
    try:
        yield watched
    finally:
        watched.stop()


def line() -> int:
    return sys._getframe(1).f_lineno


def here(site: CallSite, number: int) -> bool:
    return (site.file, site.line) == (__file__, number)


# ------------------------------------------------------------------------------------------ holders


@kinds
def test_a_holder_is_named_with_the_line_that_took_it(kind: Any, dsn: str) -> None:
    with kind(dsn) as theirs, watching(theirs.pool) as watched:
        assert watched.holders() == []
        with theirs.lend():
            taken = watched.holders()
        [holder] = taken
        assert holder.site.file == __file__
        assert holder.site.function.endswith("lend")  # the line in `lend` above: whoever asked the pool
        assert holder.owner == f"thread {threading.current_thread().name}"
        assert holder.idle is not None
        assert watched.holders() == []
        assert watched.snapshot().uses == 1


@telling
def test_what_a_holder_does_is_told(kind: Any, dsn: str) -> None:
    """While a statement runs, and after it: what it was, whether its transaction is open, where the thread stands."""
    with kind(dsn) as theirs, watching(theirs.pool) as watched:
        done = threading.Event()

        def work() -> None:
            with theirs.lend() as execute:
                execute("SELECT pg_sleep(0.3)")
                done.wait(10)

        worker = aside(work)

        def holder() -> Holder | None:
            return next(iter(watched.holders()), None)

        eventually(lambda: (one := holder()) and one.idle is None and one.status == "ACTIVE", 10)
        running = holder()
        assert running is not None
        assert running.statement == "SELECT pg_sleep(0.3)"
        eventually(lambda: (one := holder()) and one.idle is not None and one.status == "INTRANS", 10)
        idle = holder()
        assert idle is not None
        assert idle.statement == "SELECT pg_sleep(0.3)"
        assert idle.held > idle.idle  # type: ignore[operator]
        assert any(site.function.endswith("work") for site in idle.stack)
        done.set()
        worker.result(10)


@kinds
def test_who_gets_none_is_counted_and_gets_the_pool_s_own_error(kind: Any, dsn: str) -> None:
    with kind(dsn) as theirs, watching(theirs.pool) as watched:
        heard: list[Refused] = []
        watched.listen(heard.append, Refused)
        with theirs.lend(), theirs.lend():
            assert watched.snapshot().leased == SIZE
            assert watched.snapshot().max_size == SIZE
            with pytest.raises(REFUSALS[kind]), theirs.lend():
                pass
        assert sum(watched.snapshot().refusals.values()) == 1
        [refused] = heard
        assert refused.site.file == __file__


@pytest.mark.parametrize("kind", [of_sqlalchemy, of_psycopg_pool], ids=["sqlalchemy", "psycopg_pool"])
def test_who_waits_is_counted(kind: Any, dsn: str) -> None:
    with kind(dsn) as theirs, watching(theirs.pool) as watched:
        theirs.pool.timeout = 10
        if kind is of_sqlalchemy:
            theirs.pool.pool._timeout = 10
        with theirs.lend():
            with theirs.lend():
                waiter = aside(lambda: theirs.lend().__enter__())
                eventually(lambda: watched.snapshot().waiting == 1, 10)
            waiter.result(10)
        snapshot = watched.snapshot()
        assert snapshot.waiting == 0
        assert snapshot.queued >= 1
        assert snapshot.waited > 0


# ------------------------------------------------------------------------------------------ leaks


@kinds
def test_a_leak_is_reported_once_with_its_line_and_when_it_comes_back(
    kind: Any, dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(looking, "PERIOD", 0.02)
    with kind(dsn) as theirs, watching(theirs.pool, name="theirs", leak_after=0.05) as watched:
        looking._stir.set()
        heard: list[Any] = []
        watched.listen(heard.append, LeakSuspected, CameBack)
        with theirs.lend():
            eventually(lambda: heard, 10)
            assert watched.snapshot().suspects == 1
            assert [holder.suspected for holder in watched.holders()] == [True]
            for _ in range(5):
                watched.look(time.monotonic())
        assert [type(event) for event in heard] == [LeakSuspected, CameBack]
        assert heard[0].holder.site == heard[1].site
        assert watched.snapshot().leaks == {heard[0].holder.site: 1}
        said = [record.getMessage() for record in caplog.records if record.name == "penstock.guard"]
        assert [message.partition("?")[0][:30] for message in said] == [
            "theirs: is this a leak",
            "theirs: came back after all, a",
        ]


@telling
def test_who_is_at_work_does_not_leak(kind: Any, dsn: str) -> None:
    with kind(dsn) as theirs, watching(theirs.pool, leak_after=0.1) as watched, theirs.lend() as execute:
        worker = aside(lambda: execute("SELECT pg_sleep(0.4)"))
        eventually(lambda: watched.holders()[0].idle is None, 10)
        watched.look(time.monotonic() + 60)  # it has held it for a minute by then
        assert watched.snapshot().suspects == 0
        worker.result(10)
        watched.look(time.monotonic() + 60)
        assert watched.snapshot().suspects == 1


def test_a_connection_that_is_dropped_is_a_leak_and_gone(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """psycopg_pool would wait for it for ever."""
    with of_psycopg_pool(dsn) as theirs, watching(theirs.pool, name="theirs") as watched:
        conn = theirs.pool.getconn()
        number = line() - 1
        del conn
        gc.collect()
        watched.look(time.monotonic())
        [site] = watched.snapshot().leaks
        assert here(site, number)
        assert watched.holders() == []
        assert [record.getMessage() for record in caplog.records if record.name == "penstock.guard"] == [
            f"theirs: dropped and never given back: taken at {site}"
        ]


# ------------------------------------------------------------------------------------------ asyncio


async def asked(conn: Any, statement: str) -> None:
    await conn.execute(sqlalchemy.text(statement) if hasattr(conn, "sync_connection") else statement)


def in_asyncio(dsn: str) -> dict[str, Callable[[], Any]]:
    bare = dsn.partition("?")[0]
    return {
        "asyncpg": lambda: asyncpg.create_pool(dsn, min_size=1, max_size=1),
        "psycopg_pool": lambda: psycopg_pool.AsyncConnectionPool(dsn, min_size=1, max_size=1, open=False),
        "sqlalchemy+psycopg": lambda: create_async_engine(
            bare.replace("postgresql:", "postgresql+psycopg:"), pool_size=1, max_overflow=0
        ),
        "sqlalchemy+asyncpg": lambda: create_async_engine(
            bare.replace("postgresql:", "postgresql+asyncpg:"), pool_size=1, max_overflow=0
        ),
    }


@pytest.mark.parametrize("which", ["asyncpg", "psycopg_pool", "sqlalchemy+psycopg", "sqlalchemy+asyncpg"])
def test_a_task_s_connection_is_told_of(which: str, dsn: str) -> None:
    async def main() -> None:
        pool = in_asyncio(dsn)[which]()
        if which in ("asyncpg", "psycopg_pool"):
            await (pool if which == "asyncpg" else pool.open(wait=True))
        borrow = pool.acquire if which == "asyncpg" else pool.connect if "+" in which else pool.connection
        watched = penstock.watch(pool)
        free = asyncio.Event()

        async def work() -> None:
            async with borrow() as conn:
                await asked(conn, "SELECT pg_sleep(0.2)")
                await free.wait()

        task = asyncio.create_task(work(), name="worker")
        while not (found := watched.holders()) or found[0].idle is not None:
            await asyncio.sleep(0.01)
        [holder] = found
        assert (holder.site.function.rpartition(".")[2], holder.owner) == ("work", "task worker")
        assert holder.statement == "SELECT pg_sleep(0.2)"
        while watched.holders()[0].idle is None:
            await asyncio.sleep(0.01)
        [holder] = watched.holders()
        assert "work" in [site.function.rpartition(".")[2] for site in holder.stack]
        waiter = asyncio.create_task(work())
        while watched.snapshot().waiting != 1:
            await asyncio.sleep(0.01)
        free.set()
        await asyncio.gather(task, waiter)
        assert watched.holders() == []
        assert watched.snapshot().uses == 2
        watched.stop()
        async with borrow():
            assert watched.holders() == []
        await (pool.dispose() if "+" in which else pool.close())

    asyncio.run(asyncio.wait_for(main(), 20))


# ------------------------------------------------------------------------------------------ SQLAlchemy's own


def test_an_engine_that_was_disposed_of_is_still_watched(dsn: str) -> None:
    with of_sqlalchemy(dsn) as theirs, watching(theirs.pool) as watched:
        with theirs.lend():
            pass
        theirs.pool.dispose()
        for uses in (2, 3):
            with theirs.lend():
                assert len(watched.holders()) == 1
            assert watched.holders() == []
            assert watched.snapshot().uses == uses


def test_a_connection_that_was_out_when_its_engine_was_disposed_of_comes_back(dsn: str) -> None:
    with of_sqlalchemy(dsn) as theirs, watching(theirs.pool, leak_after=60) as watched:
        before = theirs.pool.pool
        with theirs.lend() as execute:
            execute("SELECT 1")
            theirs.pool.dispose()
            with theirs.lend() as execute_anew:
                execute_anew("SELECT 1")
                assert len(watched.holders()) == 2
        before.dispose()
        assert watched.holders() == []
        watched.look(time.monotonic() + 61)
        assert watched.snapshot().leaks == {}


@pytest.mark.parametrize("found_dead", ["by a ping", "before"])
def test_who_waits_for_a_connection_to_be_made_anew_has_nothing_idle_in_hand(found_dead: str, dsn: str) -> None:
    connecting, go_on = threading.Event(), threading.Event()
    go_on.set()

    def connect() -> Any:
        connecting.set()
        assert go_on.wait(10)
        return psycopg.connect(dsn)

    one = engine(dsn, creator=connect, pool_pre_ping=found_dead == "by a ping")
    with watching(one, leak_after=60) as watched, closing_engine(one):
        with one.connect() as conn:
            pid = conn.execute(sqlalchemy.text("SELECT pg_backend_pid()")).scalar()
            if found_dead == "before":
                conn.invalidate()
        with psycopg.connect(dsn) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (pid,))
        connecting.clear()
        go_on.clear()
        asking = aside(lambda: one.connect().close())
        assert connecting.wait(10)
        watched.look(time.monotonic() + 61)
        (holder,) = watched.holders()
        assert holder.idle is None
        go_on.set()
        asking.result(10)
        assert watched.snapshot().leaks == {}
        assert watched.snapshot().connects == 2
        with one.connect():
            (holder,) = watched.holders()
            assert holder.idle is not None, "in hand from here on"


def test_a_connection_that_is_lost_is_closed_as_broken(dsn: str) -> None:
    with of_sqlalchemy(dsn) as theirs, watching(theirs.pool) as watched:
        heard: list[Closed] = []
        watched.listen(heard.append, Closed)
        with pytest.raises(sqlalchemy.exc.DBAPIError), theirs.lend() as execute:
            execute("SELECT pg_terminate_backend(pg_backend_pid())")
        assert [event.reason.name for event in heard] == ["BROKEN"]
        assert watched.holders() == []


def test_a_database_that_is_down_is_told_of() -> None:
    one = sqlalchemy.create_engine("postgresql+psycopg://app@127.0.0.1:1/postgres")
    with watching(one) as watched:
        heard: list[ConnectFailed] = []
        watched.listen(heard.append, ConnectFailed)
        with pytest.raises(sqlalchemy.exc.OperationalError):
            one.connect()
        assert len(heard) == 1
        assert watched.holders() == []
        snapshot = watched.snapshot()
        assert snapshot.connect_errors == 1
        assert "refused" in (snapshot.last_error or "")


def test_a_database_is_down_when_connecting_has_failed_for_two_seconds(dsn: str) -> None:
    refused = threading.Event()

    def connect() -> Any:
        return psycopg.connect("postgresql://app@127.0.0.1:1/postgres" if refused.is_set() else dsn)

    one = engine(dsn, creator=connect)
    now = time.monotonic()
    with watching(one) as watched, closing_engine(one):

        def ask(at: float) -> bool:
            try:
                one.connect().invalidate()
            except sqlalchemy.exc.OperationalError:
                pass
            watched.look(now + at)
            return watched.snapshot().database_down

        assert not ask(0)
        refused.set()
        assert [ask(1), ask(2), ask(3.1)] == [False, False, True]
        refused.clear()
        assert not ask(4)


def test_a_connection_that_was_terminated_hides_no_other_s_leak(dsn: str) -> None:
    async def main() -> None:
        async with asyncpg.create_pool(dsn, min_size=0, max_size=2) as pool:
            with watching(pool, leak_after=60) as watched:
                ended, other = await pool.acquire(), await pool.acquire()
                number = line() - 1
                await other.execute("SELECT 1")
                ended.terminate()
                watched.look(time.monotonic() + 61)
                leaks = watched.snapshot().leaks
                assert [(here(site, number), count) for site, count in leaks.items()] == [(True, 2)]
                await pool.release(ended)
                await pool.release(other)

    asyncio.run(main())


def test_a_connection_of_the_orm_s_is_the_line_s_that_asked_for_rows(dsn: str) -> None:
    from sqlalchemy.orm import Session

    with of_sqlalchemy(dsn) as theirs, watching(theirs.pool) as watched, Session(theirs.pool) as session:
        session.execute(sqlalchemy.text("SELECT 1"))
        number = line() - 1
        [holder] = watched.holders()
        assert here(holder.site, number)


def test_lines_that_ask_in_different_ways_are_told_apart(dsn: str) -> None:
    """Also the second time, when the way to them is known already."""
    one = engine(dsn)

    def through_a_function() -> Any:
        return one.connect()

    def directly() -> Any:
        return one.raw_connection()

    with watching(one) as watched:
        for _ in range(3):
            for ask in (through_a_function, directly):
                conn = ask()
                [holder] = watched.holders()
                assert holder.site.function.endswith(ask.__name__)
                conn.close()
    assert 1 <= len(caller._ways) <= 4
    one.dispose()


# ------------------------------------------------------------------------------------------ Django


DJANGO = """
import os, sys
import django, psycopg
from django.conf import settings

where = psycopg.conninfo.conninfo_to_dict(os.environ["DSN"])
names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
given = {key: str(where[name]) for key, name in names.items()}
given |= {"ENGINE": "django.db.backends.postgresql", "CONN_MAX_AGE": None, "OPTIONS": {"sslmode": "disable"}}
settings.configure(DATABASES={"default": given})
django.setup()
from django.core.signals import request_finished
from django.db import connection, connections
import penstock

watched = penstock.watch(connections)

def view(number):
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s", [number])

view(41)
[holder] = watched.holders()
assert holder.site.function == "view", holder
assert holder.statement == "SELECT %s", holder
assert (watched.snapshot().leased, watched.snapshot().idle) == (1, 0)
request_finished.send(None)
assert watched.holders() == []
assert (watched.snapshot().leased, watched.snapshot().idle, watched.snapshot().connects) == (0, 1, 1)
view(42)
assert watched.snapshot().leased == 1
connection.close()
assert (watched.snapshot().leased, watched.snapshot().idle, watched.snapshot().uses) == (0, 0, 2)
view(43)
watched.stop()
assert not connection.execute_wrappers and "_close" not in vars(connection)
view(44)
assert watched.holders() == []
"""


def test_django_s_connections_are_watched_from_a_request_s_first_statement_to_its_end(dsn: str) -> None:
    """In a process of its own: Django's settings are a process's."""
    pytest.importorskip("django")
    env = {**os.environ, "DSN": dsn}
    done = subprocess.run([sys.executable, "-c", DJANGO], env=env, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------------------ one of our sources


def test_what_is_watched_is_observed_as_our_own_pools_are(dsn: str) -> None:
    with of_sqlalchemy(dsn) as theirs:
        watched = penstock.watch(theirs.pool, name="orders")
        assert watched in sources.sources()
        assert watched.name == "orders"
        watched.stop()
        assert watched not in sources.sources()


@kinds
def test_a_watched_pool_s_limit_is_exported_as_of_our_own(kind: Any, dsn: str) -> None:
    """Or no alert could tell that it is full."""
    with kind(dsn) as theirs, watching(theirs.pool) as watched:
        exported = {metric: value for metric, _, value in metrics.of_source(watched, watched.snapshot())}
        assert exported[metrics.MAX] == exported[metrics.IDLE_MAX] == SIZE
        assert metrics.IDLE_MIN in exported


def test_watching_twice_is_watching_once(dsn: str) -> None:
    with of_psycopg_pool(dsn) as theirs, watching(theirs.pool) as watched:
        assert penstock.watch(theirs.pool) is watched
        with theirs.lend():
            assert len(watched.holders()) == 1


def test_an_async_engine_is_the_engine_beneath_it_and_other_options_are_said_to_have_no_effect(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = create_async_engine("postgresql+asyncpg://app@127.0.0.1:1/postgres")
    with watching(one) as watched:
        assert penstock.watch(one.sync_engine) is watched
        assert caplog.messages == []
        assert penstock.watch(one, name="other", leak_after=1.0) is watched
        assert "name='other', leak_after=1.0 have no effect" in caplog.text


def test_a_pool_that_nobody_has_any_more_is_not_kept_by_being_watched(dsn: str) -> None:
    with of_psycopg_pool(dsn) as theirs:
        penstock.watch(theirs.pool, name="forgotten")
    del theirs
    gc.collect()
    assert [source.name for source in sources.sources() if source.name == "forgotten"] == []


@kinds
def test_once_it_is_stopped_nothing_of_ours_is_left(kind: Any, dsn: str) -> None:
    with kind(dsn) as theirs:
        before = dict(getattr(theirs.pool, "__dict__", {}))
        watched = penstock.watch(theirs.pool)
        with theirs.lend() as execute:
            execute("SELECT 1")
        watched.stop()
        with theirs.lend() as execute:
            execute("SELECT 1")
        assert watched.holders() == []
        assert set(getattr(theirs.pool, "__dict__", {})) - set(before) <= {"dispatch"}  # which is SQLAlchemy's
        assert watched.snapshot().uses == 1


@pytest.mark.parametrize("kind", [of_psycopg_pool, of_psycopg2])
def test_once_it_is_stopped_what_is_out_is_as_it_was_too(kind: Any, dsn: str) -> None:
    from penstock.guard.foreign import psycopg2_pool as module

    with kind(dsn) as theirs:
        conn = theirs.pool.getconn()
        before = getattr(conn, "cursor_factory", None)
        theirs.pool.putconn(conn)
        watched = penstock.watch(theirs.pool)
        conn = theirs.pool.getconn()
        watched.stop()
        assert "wait" not in getattr(conn, "__dict__", {})
        assert getattr(conn, "cursor_factory", None) is before
        assert id(conn) not in module._leases
        theirs.pool.putconn(conn)


@kinds
def test_nothing_that_goes_wrong_in_watching_reaches_the_program(
    kind: Any, dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from penstock.guard.foreign import watched as module

    monkeypatch.setattr(module, "_told", set())
    monkeypatch.setattr(module, "caller_of_me", lambda: 1 / 0)
    with kind(dsn) as theirs, watching(theirs.pool):
        for _ in range(3):
            with theirs.lend() as execute:
                execute("SELECT 1")
    assert [record.levelno for record in caplog.records if "watching failed" in record.getMessage()] == [logging.ERROR]


def test_a_listener_that_raises_is_dropped(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    with of_sqlalchemy(dsn) as theirs, watching(theirs.pool) as watched:
        calls = []

        def bad(event: Any) -> None:
            calls.append(event)
            raise LookupError

        good: list[Any] = []
        watched.listen(bad, Returned)
        end = watched.listen(good.append, Returned)
        for _ in range(2):
            with theirs.lend():
                pass
        assert len(calls) == 1
        assert len(good) == 2
        assert not any(isinstance(event, HeldLong) for event in good)
        end()
        with theirs.lend():
            pass
        assert len(good) == 2
        assert any("a listener raised and is dropped" in record.getMessage() for record in caplog.records)


def test_a_forked_child_holds_nothing_of_its_parent_s(dsn: str) -> None:
    with of_psycopg_pool(dsn) as theirs, watching(theirs.pool) as watched, theirs.lend():
        child = os.fork()
        if child == 0:
            os._exit(len(watched.holders()) + 10 * watched.snapshot().uses)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert len(watched.holders()) == 1


@pytest.mark.parametrize(
    ("pool", "options", "message"),
    [
        (object(), {}, "watch\\(\\) takes an Engine, an AsyncEngine or .*, and not a builtins.object"),
        (3, {"leak_after": -1}, "leak_after must be 0 seconds or more"),
        (3, {"name": 5}, "name must be a text, not 5"),
        (sqlalchemy.text("SELECT 1"), {}, "and not a sqlalchemy.sql.elements.TextClause"),
        (Pool[Any]("", open=False, name="ours"), {}, "ours is Penstock's own pool"),
    ],
)
def test_what_cannot_be_watched_is_said(pool: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        penstock.watch(pool, **options)


def test_an_engine_on_our_pool_tells_of_itself(dsn: str) -> None:
    from penstock.integrations.sqlalchemy import PenstockPool

    one = engine(dsn, poolclass=PenstockPool)
    with pytest.raises(TypeError, match="this engine's pool is Penstock's"):
        penstock.watch(one)
    one.dispose()
