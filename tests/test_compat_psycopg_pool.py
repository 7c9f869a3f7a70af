"""What imports psycopg_pool runs on our pools: its names, its exceptions, its null pools."""

import asyncio
import inspect
import math
import subprocess
import sys
import threading
from typing import Any

import psycopg
import psycopg_pool as theirs
import pytest

from penstock import DatabaseUnavailable, Pool, PoolDeadlock, PoolExhausted
from penstock.compat import psycopg_pool as ours
from penstock.core import Core, Open, Reason, Settings, Waiter
from penstock.drill.postgres import EmbeddedPostgres
from support.either import ask, borrowed, entered, request, settled
from support.waiting import aside, eventually, soon

pools = pytest.mark.parametrize("kind", [ours.ConnectionPool, ours.AsyncConnectionPool])
null_pools = pytest.mark.parametrize("kind", [ours.NullConnectionPool, ours.AsyncNullConnectionPool])
PID = "SELECT pg_backend_pid()"


def run(scenario: Any) -> None:
    asyncio.run(scenario())


def start(pool: Any, statement: str) -> Any:
    """A request of another task's, or thread's."""
    if pool._is_async:
        return asyncio.create_task(request(pool, statement))
    return aside(lambda: asyncio.run(request(pool, statement)))


async def end(other: Any) -> Any:
    """Its answer."""
    return await other if isinstance(other, asyncio.Task) else other.result(5)


def test_it_has_every_name_of_the_package() -> None:
    """And each class every public method and property, so that no program meets an AttributeError."""
    assert set(theirs.__all__) <= set(ours.__all__)
    for name in theirs.__all__:
        kind = getattr(theirs, name)
        if name.endswith("Pool"):
            # The workers' own, which only the workers call, and what a subclass may override to be told of the end.
            wanted = {name for name in dir(kind) if not name.startswith("_")} - {"run_task", "schedule_task", "worker"}
            assert wanted <= set(dir(getattr(ours, name)(open=False))), name


def test_its_constructors_take_what_theirs_take() -> None:
    """Every option of all four classes, and as many at once as there are."""
    for name in theirs.__all__:
        if not name.endswith("Pool"):
            continue
        parameters = inspect.signature(getattr(theirs, name)).parameters
        options = {name: option.default for name, option in parameters.items() if name not in ("open", "conninfo")}
        del options["connection_class"]
        pool = getattr(ours, name)("", open=False, **options)
        for option in ("min_size", "timeout", "max_waiting", "max_lifetime", "max_idle", "num_workers"):
            assert getattr(pool, option) == options[option], (name, option)


def test_its_exceptions_catch_ours() -> None:
    """What our pools raise more exactly is caught by the names that the program knows, and by psycopg's own."""
    for error in (PoolExhausted, DatabaseUnavailable, PoolDeadlock):
        raised = ours.errors.errors.under(error, psycopg.OperationalError)
        assert issubclass(raised, ours.PoolTimeout), error
        assert issubclass(raised, psycopg.OperationalError), error
    for name in ("PoolTimeout", "PoolClosed", "TooManyRequests"):
        assert issubclass(getattr(ours, name), psycopg.OperationalError)


@pools
def test_what_it_raises_is_what_it_exports(dsn: str, kind: Any) -> None:
    """`except psycopg_pool.PoolTimeout` catches a pool that is exhausted, PoolClosed one that is closed."""

    async def scenario() -> None:
        pool = kind(dsn, min_size=1, open=False)
        with pytest.raises(ours.PoolClosed):
            await settled(pool.getconn())
        await settled(pool.open())
        async with borrowed(pool) as conn:
            assert conn._pool is pool
            owner = None if pool._is_async else aside(lambda: pool.getconn(timeout=0.05))
            with pytest.raises(ours.PoolTimeout):
                owner.result(5) if owner else await asyncio.create_task(settled(pool.getconn(timeout=0.05)))
        assert conn._pool is None
        await settled(pool.close())

    run(scenario)


def test_installed_it_is_what_an_import_finds() -> None:
    """Under every name that programs import from, and not once somebody has the package's own classes."""
    code = """
import penstock.compat.psycopg_pool as ours
ours.install()
ours.install()
from psycopg_pool import ConnectionPool
from psycopg_pool.abc import ACT, CT
from psycopg_pool.errors import PoolTimeout
from psycopg_pool.null_pool import NullConnectionPool
from psycopg_pool.pool_async import AsyncConnectionPool
assert ConnectionPool is ours.ConnectionPool and AsyncConnectionPool is ours.AsyncConnectionPool
assert PoolTimeout is ours.PoolTimeout and NullConnectionPool is ours.NullConnectionPool
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
    with pytest.raises(RuntimeError, match="psycopg_pool is imported already"):
        ours.install()


def test_djangos_own_pool_is_ours_then(dsn: str) -> None:
    """Django imports psycopg_pool by name, when it first needs a pool."""
    code = """
import sys
import penstock.compat.psycopg_pool as ours
ours.install()
import django
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict
where = conninfo_to_dict(sys.argv[1])
settings.configure(DATABASES={"default": {
    "ENGINE": "django.db.backends.postgresql", "NAME": where["dbname"], "USER": where["user"],
    "PASSWORD": where["password"], "HOST": where["host"], "PORT": where["port"],
    "CONN_HEALTH_CHECKS": True, "OPTIONS": {"pool": {"min_size": 1, "max_size": 2, "timeout": 5}},
}})
django.setup()
from django.db import connection
pids = set()
for _ in range(3):
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pids.add(cursor.fetchone())
    connection.close()
assert len(pids) == 1, pids
assert type(connection.pool) is ours.ConnectionPool
assert connection.pool.get_stats()["requests_num"] == 3
connection.close_pool()
"""
    subprocess.run([sys.executable, "-c", code, dsn], check=True, timeout=30)


@pools
@pytest.mark.parametrize("workers", [None, 1, 2])
def test_num_workers_bounds_how_many_are_opened_at_once(dsn: str, kind: Any, workers: int | None) -> None:
    """Up to min_size, if it is given: who sets it is careful with a server. Else as many as are needed."""
    under_way = most = 0
    lock = threading.Lock()

    async def scenario() -> None:
        everybody = threading.Barrier(4) if workers is None else None

        def count(change: int) -> None:
            nonlocal under_way, most
            with lock:
                under_way += change
                most = max(most, under_way)

        def conninfo() -> str:
            count(+1)
            if everybody is not None:
                everybody.wait(5)
            return dsn

        async def conninfo_async() -> str:
            count(+1)
            while workers is None and under_way < 4:
                await asyncio.sleep(0)
            return dsn

        is_async = kind is ours.AsyncConnectionPool
        pool = kind(
            conninfo_async if is_async else conninfo,
            min_size=4,
            open=False,
            configure=lambda conn: count(-1),
            **({} if workers is None else {"num_workers": workers}),
        )
        await settled(pool.open(wait=True, timeout=10))
        assert most == (workers or 4)
        await settled(pool.close())

    run(scenario)


@pytest.mark.parametrize(("workers", "together"), [(None, 3), (3, 1)])
def test_with_num_workers_a_pool_grows_by_one(workers: int | None, together: int) -> None:
    """As psycopg's does, whatever their number; without it those who wait have theirs opened together."""
    core = Core(Settings(min_size=0, max_size=4, max_opening=workers), lambda: 0.5)
    core.open(0.0)
    for number in range(3):
        core.acquire(Waiter(number, None, -1, 0.0, math.inf), 0.0)
    opening = [effect.slot for effect in core.effects() if isinstance(effect, Open)]
    assert len(opening) == together
    core.opened_slot(opening[0], 0.1)
    assert len(core.opening) == (2 if workers is None else 1)


# ---------------------------------------------------------------------------------------------- pools that keep none


@null_pools
def test_a_null_pool_keeps_no_connection(dsn: str, kind: Any) -> None:
    """Each request has a new one, and finds it closed when it has given it back."""

    async def scenario() -> None:
        async with entered(kind(dsn)) as pool:
            async with borrowed(pool) as first:
                pid = await ask(first, PID)
            assert first.closed
            async with borrowed(pool) as second:
                assert await ask(second, PID) != pid
            conn = await settled(pool.getconn())
            await settled(pool.putconn(conn))
            assert conn.closed
            assert pool.snapshot().closes == {Reason.UNUSED: 3}
            assert (pool.min_size, pool.max_size, pool.get_stats()["pool_max"]) == (0, 0, 0)

    run(scenario)


@null_pools
def test_a_null_pool_bounds_connections(dsn: str, kind: Any) -> None:
    """With a max_size: who waits is handed the connection that comes back, which is not closed then."""

    async def scenario() -> None:
        async with entered(kind(dsn, max_size=1)) as pool:
            async with borrowed(pool) as conn:
                pid = conn.info.backend_pid
                next_one = start(pool, PID)
                await soon(lambda: pool.snapshot().waiting == 1)
            assert await end(next_one) == pid
            assert pool.snapshot().open == 0

    run(scenario)


@null_pools
def test_what_nobody_will_see_is_not_reset(dsn: str, kind: Any) -> None:
    """Neither by us nor by the `reset` hook: the round trips would be for nothing. Who waits has it clean."""
    resets = 0

    def reset(conn: Any) -> Any:
        nonlocal resets
        resets += 1
        return asyncio.sleep(0) if kind is ours.AsyncNullConnectionPool else None

    async def scenario() -> None:
        async with entered(kind(dsn, max_size=1, reset=reset)) as pool:
            async with borrowed(pool) as conn:
                await settled(conn.execute("SET work_mem = '7MB'"))
            assert resets == 0
            async with borrowed(pool) as conn:
                await settled(conn.execute("SET work_mem = '7MB'"))
                next_one = start(pool, "SHOW work_mem")
                await soon(lambda: pool.snapshot().waiting == 1)
            assert await end(next_one) == "4MB"
            assert resets == 1

    run(scenario)


@null_pools
def test_a_null_pool_opens_as_many_as_are_asked_for(dsn: str, kind: Any) -> None:
    """No storm's rate holds it back: 40 in a row, where a pool that keeps its connections has 32 and some a second."""

    async def scenario() -> None:
        async with entered(kind(dsn, name="no rate")) as pool:
            assert pool._core.pace.next_at(0.0, 0) == 0.0
            for _ in range(40):
                pool._core.pace.started(0.0)
            assert pool._core.pace.next_at(0.0, 0) == 0.0
            async with borrowed(pool) as conn:
                assert await ask(conn, "SELECT 1") == 1

    run(scenario)


@null_pools
def test_waiting_for_a_null_pool_is_to_try_one_connection(kind: Any, own_postgres: Any) -> None:
    """It is closed again. Without a database the pool is closed, and the error says why."""

    async def scenario() -> None:
        server: EmbeddedPostgres = own_postgres()
        async with entered(kind(server.dsn)) as pool:
            await settled(pool.wait(10))
            assert pool.get_stats()["connections_num"] == 1
            assert pool.snapshot().open == 0
        server.stop()
        async with entered(kind(server.dsn)) as pool:
            with pytest.raises(ours.PoolTimeout, match="refuse"):
                await settled(pool.wait(0.2))
            assert pool.closed

    run(scenario)


@null_pools
@pytest.mark.parametrize("sizes", [{"min_size": 1}, {"min_size": -1}, {"max_size": -2}])
def test_sizes_that_no_null_pool_can_have_are_refused(kind: Any, sizes: dict[str, int]) -> None:
    """By the constructor, and by resize, after which all is as it was."""
    with pytest.raises(ValueError, match=r"_size .*must be"):
        kind(open=False, **sizes)
    pool = kind(open=False, max_size=3)
    with pytest.raises(ValueError, match=r"_size .*must be"):
        asyncio.run(settled(pool.resize(**{"min_size": 0, **sizes})))
    assert pool.max_size == 3


def test_max_idle_0_spares_min_size(dsn: str) -> None:
    """In any pool: what is above min_size is closed by who gives it back, and min_size stays; set later, it counts."""
    with Pool(dsn, min_size=1, max_size=2, max_idle=0, open=False) as pool:
        pool.wait(10)
        kept, extra = pool.getconn(), pool.getconn()
        pool.putconn(extra)
        assert extra.closed
        pool.putconn(kept)
        assert not kept.closed
        pool.max_idle = 600
        kept, extra = pool.getconn(), pool.getconn()
        pool.putconn(extra)
        assert not extra.closed
        pool.putconn(kept)


def test_holders_name_the_users_line(dsn: str) -> None:
    """Whatever stands between."""
    with ours.NullConnectionPool(dsn) as pool, pool.connection():
        assert [holder.site.file for holder in pool.holders()] == [__file__]
        eventually(lambda: pool.holders()[0].held > 0)
