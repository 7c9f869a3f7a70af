"""The public face: psycopg_pool's names and defaults, so that changing the import is the whole migration."""

import asyncio
import inspect
import logging
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import psycopg
import pytest

import penstock
from penstock import AsyncPool, Pool
from penstock.pool import events
from support.either import Kind, borrowed, both, opened, request, settled
from support.fake import FakeDriver, make
from support.waiting import soon

# From DESIGN.md, "The public face".
DEFAULTS = {
    "driver": "psycopg",
    "connection_class": None,
    "kwargs": None,
    "min_size": 4,
    "max_size": None,
    "open": None,
    "configure": None,
    "check": None,
    "reset": None,
    "name": None,
    "close_returns": False,
    "timeout": 30,
    "max_waiting": 0,
    "max_lifetime": 3600,
    "max_idle": 600,
    "reconnect_timeout": 300,
    "reconnect_failed": None,
    "num_workers": 3,
}
OURS = {"priority": None, "deadline": None, "key": None}
METHODS = {
    "connection": {"timeout": None, **OURS},
    "getconn": {"timeout": None, **OURS},
    "putconn": {"conn": inspect.Parameter.empty},
    "open": {"wait": False, "timeout": 30},
    "wait": {"timeout": 30},
    "close": {"timeout": 5},
    "drain": {},
    "check": {},
    "resize": {"min_size": inspect.Parameter.empty, "max_size": None},
    "get_stats": {},
    "pop_stats": {},
    "transaction": {"timeout": None, **OURS},
    "holders": {},
    "snapshot": {},
    "listen": {"callback": inspect.Parameter.empty, "kinds": inspect.Parameter.empty},
}
ERRORS = [
    penstock.PoolTimeout,
    penstock.PoolClosed,
    penstock.PoolExhausted,
    penstock.DatabaseUnavailable,
    penstock.TooManyRequests,
    penstock.PoolDeadlock,
    penstock.NestedCheckout,
    penstock.WrongEventLoop,
]
# What psycopg's documentation lists under "Pool stats".
STATS = {
    "pool_min", "pool_max", "pool_size", "pool_available", "requests_waiting", "usage_ms", "requests_num",
    "requests_queued", "requests_wait_ms", "requests_errors", "returns_bad", "connections_num", "connections_ms",
    "connections_errors", "connections_lost",
}  # fmt: skip


# ------------------------------------------------------------------------------------------ names and defaults


@both
def test_the_constructor_has_psycopg_s_names_and_defaults(kind: Kind) -> None:
    """`conninfo` is the only one that may be given by position."""
    parameters = inspect.signature(kind).parameters
    assert {name: parameters[name].default for name in DEFAULTS} == DEFAULTS
    assert parameters["conninfo"].default == ""
    assert parameters["conninfo"].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert {parameters[name].kind for name in DEFAULTS} == {inspect.Parameter.KEYWORD_ONLY}


@both
def test_the_methods_have_psycopg_s_names_and_defaults(kind: Kind) -> None:
    """And ours, the same in both classes."""
    for name, expected in METHODS.items():
        parameters = dict(inspect.signature(getattr(kind, name)).parameters)
        parameters.pop("self")
        assert {each: parameters[each].default for each in parameters} == expected, name


def test_both_classes_have_the_same_face() -> None:
    """Whoever knows one knows the other; but statements share connections in an event loop only."""
    shared = {"fetch", "fetchrow", "fetchval", "execute"}

    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert public(Pool) == public(AsyncPool) - shared
    assert inspect.signature(Pool).parameters == inspect.signature(AsyncPool).parameters


def test_what_is_public_is_documented() -> None:
    """Every method and property says what it does."""
    for kind in (Pool, AsyncPool):
        for name in dir(kind):
            if not name.startswith("_") and name not in ("name", "timeout"):
                assert inspect.getdoc(getattr(kind, name)), f"{kind.__name__}.{name}"
    for name in penstock.__all__:
        assert inspect.getdoc(getattr(penstock, name)), name


@both
def test_figures_of_the_pool_can_be_read_back(kind: Kind) -> None:
    """Under the names of the arguments, `max_size` being `min_size` unless said otherwise."""
    pool = kind("", open=False, min_size=3, name="face", timeout=7, max_waiting=5, max_idle=8, max_lifetime=9)
    assert (pool.name, pool.min_size, pool.max_size, pool.timeout) == ("face", 3, 3, 7)
    assert (pool.max_waiting, pool.max_idle, pool.max_lifetime, pool.reconnect_timeout) == (5, 8, 9, 300)
    assert pool.num_workers == 3
    assert pool.closed


@both
def test_repr_reads_as_a_sentence(dsn: str, kind: Kind) -> None:
    """What is observed is the surface that people debug by."""

    async def scenario() -> None:
        pool = kind(dsn, open=False, name="reader", min_size=2)
        assert f"{kind.__name__} 'reader', not open: 0 idle, 0 leased" in repr(pool)
        await settled(pool.open(wait=True))
        async with borrowed(pool):
            assert "'reader', open: 1 idle, 1 leased, 0 opening, 0 closing, 0 waiting, at most 2" in repr(pool)
        await settled(pool.close())
        assert "'reader', closed: 0 idle" in repr(pool)

    asyncio.run(scenario())


@both
def test_a_context_manager_opens_and_closes(dsn: str, kind: Kind) -> None:
    """Not a word of warning, although `open` was not said."""

    async def scenario() -> None:
        pool: Any
        if kind is Pool:
            with Pool(dsn, min_size=1) as pool:
                assert await request(pool) == 1
        else:
            async with AsyncPool(dsn, min_size=1) as pool:
                assert await request(pool) == 1
        assert pool.closed

    asyncio.run(scenario())


def test_a_pool_opened_by_its_constructor_unasked_warns_at_first_use(dsn: str) -> None:
    """As psycopg's does; with open=True not."""
    pool = Pool(dsn, min_size=1)
    with pytest.warns(DeprecationWarning, match="opened by its constructor without being asked"):
        conn = pool.getconn()
    pool.putconn(conn)
    pool.putconn(pool.getconn())
    pool.close()
    with Pool(dsn, min_size=1, open=True) as pool:
        pool.putconn(pool.getconn())


# ------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_errors_derive_from_pool_error(error: type[Exception]) -> None:
    """One `except` for all."""
    assert issubclass(error, penstock.PoolError)
    timeouts = (penstock.PoolTimeout, penstock.PoolExhausted, penstock.DatabaseUnavailable, penstock.PoolDeadlock)
    assert issubclass(error, penstock.PoolTimeout) == (error in timeouts)


@both
def test_raised_errors_are_the_driver_s_operational_error_too(dsn: str, kind: Kind) -> None:
    """Retry code that knows psycopg alone catches them."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            async with borrowed(pool):
                with pytest.raises(psycopg.OperationalError) as caught:
                    await settled(pool.getconn(timeout=0))
                assert isinstance(caught.value, penstock.PoolTimeout)
                assert type(caught.value).__name__ == "PoolExhausted"
                assert type(caught.value).__module__ == "penstock.errors"

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------ types

TYPED = """
from typing import Any, assert_type

import psycopg
from psycopg.rows import DictRow, TupleRow, dict_row

from penstock import AsyncPool, Pool


class Own(psycopg.Connection[DictRow]):
    pass


class AsyncOwn(psycopg.AsyncConnection[DictRow]):
    pass


def configure(conn: psycopg.Connection[TupleRow]) -> None:
    conn.autocommit = True


pool = Pool("", open=False, configure=configure)
with pool.connection() as conn:
    assert_type(conn, psycopg.Connection[TupleRow])
with pool.transaction(timeout=1) as conn:
    assert_type(conn, psycopg.Connection[TupleRow])
assert_type(pool.getconn(), psycopg.Connection[TupleRow])

own = Pool("", connection_class=Own, kwargs={"row_factory": dict_row}, open=False)
with own.connection() as mine:
    assert_type(mine, Own)
    row = mine.execute("SELECT 1 AS x").fetchone()
    assert_type(row, DictRow | None)
own.putconn(own.getconn())


async def main() -> None:
    pool = AsyncPool("", open=False)
    async with pool.connection() as conn:
        assert_type(conn, psycopg.AsyncConnection[TupleRow])
    async with pool.transaction() as conn:
        assert_type(conn, psycopg.AsyncConnection[TupleRow])
    assert_type(await pool.getconn(), psycopg.AsyncConnection[TupleRow])
    own = AsyncPool("", connection_class=AsyncOwn, open=False)
    async with own as same:
        assert_type(same, AsyncPool[AsyncOwn])
        assert_type(await same.getconn(), AsyncOwn)
"""

WRONG = """
import psycopg

from penstock import Pool

pool = Pool("", open=False)
pool.putconn("conn")
pool.connection(timeout="2")
Pool("", min_sise=3)
"""


def mypy(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("mypy")
    (folder / "snippet.py").write_text(code)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(folder), "--config-file=", "snippet.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_types_are_inferred(tmp_path: Path) -> None:
    """As a user's mypy --strict sees them: the connection's class and its rows; and mistakes are found."""
    right = mypy(tmp_path, TYPED)
    assert right.returncode == 0, right.stdout + right.stderr
    wrong = mypy(tmp_path, WRONG)
    assert wrong.stdout.count("error:") == 3, wrong.stdout
    assert "arg-type" in wrong.stdout
    assert "call-arg" in wrong.stdout


# ------------------------------------------------------------------------------------------ what an import costs


def in_subprocess(code: str) -> str:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()


def test_importing_penstock_loads_no_third_party_module() -> None:
    """Not even the driver, nor our own command line, drills and tests."""
    loaded = in_subprocess(
        """
        import sys
        before = set(sys.modules)
        import penstock
        new = {name for name in set(sys.modules) - before}
        ours = sorted(name for name in new if name.startswith("penstock"))
        others = {name.partition(".")[0] for name in new} - set(sys.stdlib_module_names) - {"penstock"}
        floors = {name.split(".")[1] for name in ours if "." in name}
        print(sorted(others), sorted(floors))
        """
    )
    assert loaded == "[] ['core', 'drivers', 'errors', 'fleet', 'multiplex', 'pool']"


def test_only_the_driver_is_loaded_when_a_pool_is_made() -> None:
    """psycopg and what it needs."""
    loaded = in_subprocess(
        """
        import sys
        import psycopg
        from penstock import Pool
        before = set(sys.modules)
        Pool("", open=False)
        new = {name.partition(".")[0] for name in set(sys.modules) - before}
        print(sorted(new - set(sys.stdlib_module_names) - {"penstock", "psycopg", "psycopg_binary"}))
        """
    )
    assert loaded == "[]"


# ------------------------------------------------------------------------------------------ figures


@both
def test_stats_have_psycopg_s_names(dsn: str, kind: Kind) -> None:
    """All of them, always; whole numbers."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=2) as pool:
            for _ in range(5):
                await request(pool)
            stats = pool.get_stats()
            assert set(stats) == STATS
            assert all(type(value) is int for value in stats.values())
            assert (stats["pool_min"], stats["pool_max"], stats["pool_size"]) == (2, 2, 2)
            assert (stats["pool_available"], stats["requests_waiting"]) == (2, 0)
            assert (stats["requests_num"], stats["requests_errors"], stats["connections_num"]) == (5, 0, 2)

    asyncio.run(scenario())


@both
def test_pop_stats_begins_anew(dsn: str, kind: Kind) -> None:
    """Counters from nothing, measures as they are."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            await request(pool)
            async with borrowed(pool):
                with pytest.raises(penstock.PoolTimeout):
                    await settled(pool.getconn(timeout=0))
            popped = pool.pop_stats()
            assert (popped["requests_num"], popped["requests_errors"]) == (3, 1)
            stats = pool.get_stats()
            assert (stats["requests_num"], stats["requests_errors"], stats["connections_num"]) == (0, 0, 0)
            assert stats["pool_size"] == 1
            await request(pool)
            assert pool.get_stats()["requests_num"] == 1

    asyncio.run(scenario())


@both
def test_a_snapshot_is_immutable_and_complete(dsn: str, kind: Kind) -> None:
    """One object, at one moment."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=2, name="snap") as pool:
            async with borrowed(pool):
                now = pool.snapshot()
            assert (now.name, now.min_size, now.max_size) == ("snap", 2, 2)
            assert (now.idle, now.leased, now.opening, now.closing, now.open) == (1, 1, 0, 0, 2)
            assert not now.paused
            assert not now.closed
            with pytest.raises(AttributeError):
                now.idle = 5

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------ listening


@both
def test_listen_tells_each_transition(dsn: str, kind: Kind) -> None:
    """In order, with the pool's name; and no more once that is ended."""

    async def scenario() -> None:
        told: list[events.Event] = []
        async with opened(kind, dsn, wait=False, min_size=0, max_size=1, name="told") as pool:
            stop = pool.listen(told.append)
            async with borrowed(pool):
                with pytest.raises(penstock.PoolTimeout):
                    await settled(pool.getconn(timeout=0))
            await settled(pool.drain())
            await soon(lambda: any(isinstance(event, events.Closed) for event in told))
            kinds = [type(event).__name__ for event in told]
            assert kinds == ["Opened", "Waited", "Refused", "Returned", "Closed"]
            assert {event.pool for event in told} == {"told"}
            stop()
            await request(pool)
            assert len(told) == 5

    asyncio.run(scenario())


@both
def test_who_listens_for_some_kinds_hears_of_no_other_and_leaves_checkouts_their_short_way(
    dsn: str, kind: Kind
) -> None:
    """`Acquired` and `Returned` are the dear ones: only who asks for them pays for them."""

    async def scenario() -> None:
        some: list[events.Event] = []
        leases: list[events.Event] = []
        async with opened(kind, dsn, min_size=1) as pool:
            short = pool._plain  # False where threads do not run one at a time
            stop_some = pool.listen(some.append, events.Refused, events.Closed)
            assert pool._plain is short
            stop_leases = pool.listen(leases.append, events.Returned)
            assert not pool._plain
            async with borrowed(pool):
                with pytest.raises(penstock.PoolTimeout):
                    await settled(pool.getconn(timeout=0))
            assert [type(event).__name__ for event in some] == ["Refused"]
            assert [type(event).__name__ for event in leases] == ["Returned"]
            stop_leases()
            assert pool._plain is short
            stop_some()
            await settled(pool.drain())
            await request(pool)
            assert len(some) == len(leases) == 1

    asyncio.run(scenario())


@both
def test_a_connection_that_was_waited_for_is_told_of_at_no_cost_to_the_others(dsn: str, kind: Kind) -> None:
    """`Waited` is an `Acquired`, and told only where there was none to be had at once."""

    async def scenario() -> None:
        waits: list[events.Waited] = []
        async with opened(kind, dsn, min_size=0, max_size=1) as pool:
            short = pool._plain
            pool.listen(waits.append, events.Waited)
            assert pool._plain is short
            for _ in range(3):
                await request(pool)
            (first,) = waits  # for the connection to be opened
            assert isinstance(first, events.Acquired)
            assert first.waited > 0
            assert first.site.function == "borrowed"

    asyncio.run(scenario())


@both
def test_a_connection_that_was_held_for_long_is_told_of_at_no_cost_to_the_others(kind: Kind) -> None:
    """`HeldLong` is a `Returned`, and told only of those held for more than a second."""

    async def scenario() -> None:
        held: list[events.HeldLong] = []
        pool: Any = make(kind, FakeDriver(kind is AsyncPool), min_size=1)  # type: ignore[type-var]
        await settled(pool.open(wait=True))
        short = pool._plain
        pool.listen(held.append, events.HeldLong)
        assert pool._plain is short
        async with borrowed(pool):
            pass
        async with borrowed(pool):
            (lease,) = pool._core.leases()
            lease.since -= 1.5
        (one,) = held
        assert isinstance(one, events.Returned)
        assert one.held >= 1.5
        assert one.site.function == "borrowed"
        await settled(pool.close())

    asyncio.run(scenario())


@both
def test_only_classes_of_events_can_be_listened_for(dsn: str, kind: Kind) -> None:
    """And the error names what was passed."""
    pool = kind(dsn, open=False)
    with pytest.raises(TypeError, match=r"kinds must be classes of penstock\.events, not 'Closed'"):
        pool.listen(print, "Closed")  # type: ignore[arg-type]
    assert not pool._listeners


@both
def test_a_listener_that_raises_is_logged_once_and_dropped(
    dsn: str, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    """What is observed is not broken by it, nor are other listeners."""
    caplog.set_level(logging.ERROR, "penstock.pool")

    def bad(event: events.Event) -> None:
        raise LookupError("no such metric")

    async def scenario() -> None:
        told: list[events.Event] = []
        async with opened(kind, dsn, min_size=1) as pool:
            pool.listen(bad)
            pool.listen(told.append)
            for _ in range(3):
                assert await request(pool) == 1
            assert len(told) == 6

    asyncio.run(scenario())
    assert [record.getMessage().partition(": ")[2][:32] for record in caplog.records] == [
        "a listener raised and is dropped"
    ]


# ------------------------------------------------------------------------------------------ credentials, hooks


@both
def test_conninfo_and_kwargs_may_be_functions(postgres: Any, kind: Kind) -> None:
    """Asked at each connect: where rotating credentials come in."""

    async def scenario() -> None:
        asked: list[str] = []

        def conninfo() -> str:
            asked.append("conninfo")
            return str(postgres.dsn)

        def kwargs() -> dict[str, Any]:
            asked.append("kwargs")
            return {"application_name": f"call-{len(asked)}"}

        async with opened(kind, conninfo, min_size=1, kwargs=kwargs) as pool:
            assert await request(pool, "SHOW application_name") == "call-2"
            await settled(pool.drain())
            assert await request(pool, "SHOW application_name") == "call-4"
            assert asked == ["conninfo", "kwargs"] * 2

    asyncio.run(scenario())


def test_async_everything_that_is_called_may_be_a_coroutine_function(dsn: str) -> None:
    """conninfo, kwargs, configure, check and reset of an AsyncPool."""
    called: set[str] = set()

    async def conninfo() -> str:
        called.add("conninfo")
        return dsn

    async def kwargs() -> dict[str, Any]:
        called.add("kwargs")
        return {"autocommit": True}

    def hook(name: str) -> Any:
        async def run(conn: Any) -> None:
            called.add(name)
            await conn.execute("SELECT 1")

        return run

    async def scenario() -> None:
        hooks = {name: hook(name) for name in ("configure", "check", "reset")}
        async with AsyncPool(conninfo, kwargs=kwargs, min_size=1, open=False, **hooks) as pool:
            assert await request(pool) == 1

    asyncio.run(scenario())
    assert called == {"conninfo", "kwargs", "configure", "check", "reset"}


@both
def test_a_check_that_fails_costs_its_connection_not_the_request(dsn: str, kind: Kind) -> None:
    """The next one is taken."""

    async def scenario() -> None:
        bad: list[Any] = []

        def check(conn: Any) -> None:
            if conn in bad:
                raise LookupError("stale")

        async with opened(kind, dsn, min_size=2, check=check) as pool:
            bad.append(pool._pool[-1])
            good = pool._pool[0].info.backend_pid
            assert await request(pool, "SELECT pg_backend_pid()") == good
            await soon(lambda: pool.snapshot().idle == 2)

    asyncio.run(scenario())
