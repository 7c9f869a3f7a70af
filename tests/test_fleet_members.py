"""Members of a fleet on a real server, threads and asyncio: what each may have, what it says, what it survives."""

import asyncio
import gc
import itertools
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import wraps
from typing import Any

import psycopg
import pytest

from penstock import AsyncPool, Fleet, Pool, PoolExhausted, PoolTimeout
from penstock.drill.postgres import EmbeddedPostgres
from penstock.drill.proxy import ChaosProxy
from support.either import Kind, ask, borrowed, both, opened, request, settled
from support.pgbouncer import PgBouncer
from support.waiting import aside, eventually, soon

QUICKLY = 10.0
_numbers = itertools.count()


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run the test in an event loop of its own."""

    @wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(test(**fixtures))

    return run


def a_fleet(budget: int = 10, **options: Any) -> Fleet:
    """One of its own for each test, which looks often."""
    return Fleet(budget, **{"name": f"m{next(_numbers)}", "period": 0.1, **options})


def share(pool: Any) -> int:
    state = pool.fleet()
    assert state is not None
    return int(state.share)


def names(postgres: EmbeddedPostgres, fleet: Fleet) -> list[str]:
    with postgres.admin() as admin:
        rows = admin.execute(
            "SELECT application_name FROM pg_stat_activity WHERE starts_with(application_name, %s)",
            [f"penstock:{fleet.name}:"],
        )
        return [name for (name,) in rows]


def terminate(postgres: EmbeddedPostgres, name: str) -> int:
    """End the connections with names like this; how many there were."""
    with postgres.admin() as admin:
        ended = admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE %s", [name]
        )
        return len(ended.fetchall())


@asynccontextmanager
async def joined(kind: Kind, dsn: str, fleet: Fleet, **options: Any) -> AsyncIterator[Any]:
    """A member with a share."""
    async with opened(kind, dsn, wait=False, **{"fleet": fleet, "min_size": 1, **options}) as pool:
        await soon(lambda: share(pool) >= 1, QUICKLY)
        yield pool


@asynccontextmanager
async def busy(pool: Any, tasks: int, statement: str = "SELECT pg_sleep(0.005)") -> AsyncIterator[None]:
    """So many borrow again and again for the length of the block."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            try:
                with pool.connection(timeout=1) as conn:
                    conn.execute(statement)
            except (PoolTimeout, psycopg.Error):
                pass

    async def work_task() -> None:
        while not over.is_set():
            try:
                async with pool.connection(timeout=1) as conn:
                    await conn.execute(statement)
            except (PoolTimeout, psycopg.Error):
                await asyncio.sleep(0.001)

    at_work: list[Awaitable[None]]
    if isinstance(pool, Pool):
        at_work = [asyncio.wrap_future(aside(work)) for _ in range(tasks)]
    else:
        at_work = [work_task() for _ in range(tasks)]
    working = asyncio.gather(*at_work)
    try:
        yield
    finally:
        over.set()
        await working


# ---------------------------------------------------------------------------------------------- shares


@both
@in_loop
async def test_before_it_has_joined_it_has_nothing(kind: Kind, dsn: str) -> None:
    """And after it was closed it can still be asked."""
    pool = kind(dsn, fleet=a_fleet(), open=False)
    state = pool.fleet()
    assert state is not None
    assert (state.share, state.members, state.claimed, state.hint) == (0, 0, 0, None)
    assert state.age == float("inf")
    await settled(pool.open())
    await soon(lambda: share(pool) >= 1, QUICKLY)
    await settled(pool.close())
    assert pool.fleet() is not None
    assert kind(dsn, open=False).fleet() is None


@both
@in_loop
async def test_who_is_alone_has_all_but_the_room(kind: Kind, dsn: str) -> None:
    """As far as it needs it, and no more than max_size."""
    async with joined(kind, dsn, a_fleet(10)) as pool:
        await soon(lambda: share(pool) == 8, QUICKLY)
        assert pool.max_size == 8
    async with joined(kind, dsn, a_fleet(10), max_size=3) as pool:
        await soon(lambda: share(pool) == 3, QUICKLY)
        async with busy(pool, 8):
            await soon(lambda: pool.snapshot().open == 3, QUICKLY)
        assert share(pool) == 3


@both
@in_loop
async def test_shares_follow_need(kind: Kind, postgres: EmbeddedPostgres) -> None:
    """Whoever works gets what the other, idle, can spare; when they change places, so do the shares."""
    fleet = a_fleet(12, members=2)
    async with joined(kind, postgres.dsn, fleet) as one, joined(kind, postgres.dsn, fleet) as two:
        async with busy(one, 10):
            await soon(lambda: share(one) >= 8 and one.snapshot().open >= 8, QUICKLY)
        async with busy(two, 10):
            await soon(lambda: share(two) >= 8 and two.snapshot().open >= 8, QUICKLY)
            assert len(names(postgres, fleet)) <= 12


@both
@in_loop
async def test_what_is_closed_is_another_s(kind: Kind, postgres: EmbeddedPostgres) -> None:
    """Its claim goes with its connections."""
    fleet = a_fleet(8, members=2)
    async with joined(kind, postgres.dsn, fleet) as one:
        async with joined(kind, postgres.dsn, fleet) as two, busy(two, 6):
            await soon(lambda: share(two) >= 4, QUICKLY)
        await soon(lambda: share(one) == 6, QUICKLY)
        state = one.fleet()
        assert (state.members, state.claimed) == (1, 6)
    await soon(lambda: not names(postgres, fleet), QUICKLY)


@both
@in_loop
async def test_min_size_is_kept_as_far_as_the_share_goes(kind: Kind, dsn: str) -> None:
    """And `wait` waits for as much."""
    fleet = a_fleet(6, members=2)
    async with joined(kind, dsn, fleet, min_size=6) as one:
        await settled(one.wait(QUICKLY))
        await soon(lambda: one.snapshot().idle == 4, QUICKLY)
        async with opened(kind, dsn, wait=True, fleet=fleet, min_size=6) as two:
            await soon(lambda: share(one) + share(two) == 5 and share(two) >= 1, QUICKLY)
            await soon(lambda: one.snapshot().open == share(one) and two.snapshot().open == share(two), QUICKLY)


@both
@in_loop
async def test_who_finds_no_room_waits_and_is_told_why(kind: Kind, dsn: str) -> None:
    """Nothing is wrong with the database, so nobody is refused at once; and there is room again in time."""
    fleet = a_fleet(2)
    async with joined(kind, dsn, fleet) as one:
        async with opened(kind, dsn, wait=False, fleet=fleet, min_size=1) as two:
            with pytest.raises(
                PoolTimeout, match=r"no room yet in fleet 'm\d+': 2 of 2 are claimed by 2 processes; asked \d+"
            ) as raised:
                await request(two, timeout=0.8)
            assert not isinstance(raised.value, PoolExhausted)
            assert share(two) == 0
            await settled(one.close())
            assert await request(two, "SELECT 1", timeout=QUICKLY) == 1


@both
@in_loop
async def test_a_pool_that_never_found_room_says_so_when_it_was_to_be_filled(kind: Kind, dsn: str) -> None:
    """`open(wait=True)` names the fleet, not only a number."""
    fleet = a_fleet(2)
    async with joined(kind, dsn, fleet):
        pool = kind(dsn, fleet=fleet, min_size=1, open=False)
        with pytest.raises(PoolTimeout, match="no room yet in fleet"):
            await settled(pool.open(wait=True, timeout=0.6))


@both
@in_loop
async def test_strangers_are_taken_off_the_budget(kind: Kind, dsn: str) -> None:
    """Connections of the same role that are no member's."""
    async with joined(kind, dsn, a_fleet(10)) as pool:
        await soon(lambda: share(pool) == 8, QUICKLY)
        with psycopg.connect(dsn), psycopg.connect(dsn, application_name="psql"):
            await soon(lambda: share(pool) == 6, QUICKLY)
            said = pool._membership._number
            await soon(lambda: pool._membership._number > said + 5, QUICKLY)
            assert share(pool) == 6  # they are taken off once
        await soon(lambda: share(pool) == 8, QUICKLY)


@both
@in_loop
async def test_resize_says_what_the_pool_would_have(kind: Kind, dsn: str) -> None:
    """The share stays the fleet's to give: a larger pool gets more when there is more, a smaller one gives up now."""
    async with joined(kind, dsn, a_fleet(10), min_size=1, max_size=3) as pool:
        await soon(lambda: share(pool) == 3, QUICKLY)
        await settled(pool.resize(1, 2))
        assert (share(pool), pool.max_size) == (2, 2)
        await settled(pool.resize(2, 50))
        await soon(lambda: share(pool) == 8, QUICKLY)
        assert (pool.min_size, pool.max_size) == (2, 8)
        with pytest.raises(ValueError, match="max_size"):
            await settled(pool.resize(3, 2))
        assert pool.max_size == 8


# ---------------------------------------------------------------------------------------------- what may befall it


@both
@pytest.mark.parametrize("statement", ["RESET ALL", "SET application_name = 'mine'", "DISCARD ALL"])
@in_loop
async def test_a_user_who_takes_the_name_away(kind: Kind, dsn: str, statement: str) -> None:
    """The claim is made again, and more connections are opened as before."""
    async with joined(kind, dsn, a_fleet(10)) as pool:
        await soon(lambda: share(pool) == 8, QUICKLY)
        for _ in range(pool.snapshot().open):
            async with borrowed(pool) as conn:
                await settled(conn.set_autocommit(True))
                await settled(conn.execute(statement))
        async with busy(pool, 20):
            await soon(lambda: pool.snapshot().open == 8, QUICKLY)


@both
@pytest.mark.parametrize("statement", ["RESET ALL", "DISCARD ALL"])
@in_loop
async def test_a_reset_hook_that_takes_the_name_away(kind: Kind, dsn: str, statement: str) -> None:
    """At each return: the pool grows all the same."""

    def reset(conn: Any) -> None:
        conn.autocommit = True
        conn.execute(statement)
        conn.autocommit = False

    async def reset_async(conn: Any) -> None:
        await conn.set_autocommit(True)
        await conn.execute(statement)
        await conn.set_autocommit(False)

    hook: Any = reset if kind is Pool else reset_async
    options: dict[str, Any] = {"kwargs": {"prepare_threshold": None}}  # DISCARD ALL forgets what was prepared
    async with joined(kind, dsn, a_fleet(10), reset=hook, **options) as pool:
        async with busy(pool, 20):
            await soon(lambda: share(pool) == 8 and pool.snapshot().open == 8, QUICKLY)


@both
@in_loop
async def test_the_connection_that_says_the_claim_is_ended(kind: Kind, postgres: EmbeddedPostgres) -> None:
    """pg_terminate_backend: the claim is made again on another connection."""
    async with joined(kind, postgres.dsn, (fleet := a_fleet(10))) as pool, busy(pool, 20):
        await soon(lambda: pool.snapshot().open == 8, QUICKLY)
        for _ in range(3):
            await soon(lambda: terminate(postgres, f"penstock:{fleet.name}:%:%:%"), QUICKLY)
            await soon(lambda: pool.snapshot().open == 8, QUICKLY)


@both
@in_loop
async def test_connections_that_come_of_age_are_replaced(kind: Kind, dsn: str) -> None:
    """The one that says the claim too."""
    async with joined(kind, dsn, a_fleet(10), max_lifetime=1.0) as pool, busy(pool, 20):
        await soon(lambda: pool.snapshot().open == 8, QUICKLY)
        before = pool.snapshot().connects
        await soon(lambda: pool.snapshot().connects >= before + 20, QUICKLY)
        await soon(lambda: pool.snapshot().open == 8, QUICKLY)


@both
@in_loop
async def test_the_server_restarts(kind: Kind, own_postgres: Callable[..., EmbeddedPostgres]) -> None:
    """All join again, and have their shares again."""
    postgres = own_postgres(max_connections=30)
    fleet = a_fleet(12, members=2)
    async with joined(kind, postgres.dsn, fleet) as one, joined(kind, postgres.dsn, fleet) as two:
        async with busy(one, 12), busy(two, 12):
            await soon(lambda: share(one) + share(two) >= 11, QUICKLY)
            await asyncio.to_thread(postgres.restart, "immediate")
            await soon(lambda: share(one) + share(two) >= 11 and one.fleet().members == 2, QUICKLY)
            await soon(lambda: len(names(postgres, fleet)) >= 11, QUICKLY)


@both
@in_loop
async def test_out_of_touch_it_keeps_what_it_has_and_says_so(
    kind: Kind, dsn: str, proxy: ChaosProxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In the error that a caller meets, and once in the log. When it is in touch again it goes on."""
    monkeypatch.setattr("penstock.fleet.postgres.Postgres.fresh", 0.3)
    monkeypatch.setattr("penstock.fleet.member.SAY_SECONDS", 0.3)
    monkeypatch.setattr("penstock.fleet.member.LOOK_TIMEOUT", 0.1)
    caplog.set_level(logging.WARNING, "penstock")
    async with joined(kind, proxy.through(dsn), a_fleet(10), connect_timeout=1.0) as pool:
        await soon(lambda: share(pool) == 8, QUICKLY)
        async with borrowed(pool), borrowed(pool), borrowed(pool):
            await soon(lambda: pool.snapshot().idle >= 1)
            proxy.silence()
            await soon(lambda: pool.fleet().hint is not None, QUICKLY)
            assert pool.fleet().hint.startswith("out of touch with fleet")
            kept = share(pool)
            async with borrowed(pool) if pool.snapshot().idle else asyncio.timeout(9):
                with pytest.raises(PoolTimeout, match="out of touch with fleet 'm"):
                    await request(pool, timeout=0.3)
            assert share(pool) <= kept
            proxy.heal()
        await soon(lambda: pool.fleet().hint is None and share(pool) == 8, QUICKLY)
    said = [record.getMessage() for record in caplog.records if ": fleet m" in record.getMessage()]
    assert len(said) == 1


@both
@in_loop
async def test_a_role_s_own_limit_below_the_budget(kind: Kind, postgres: EmbeddedPostgres) -> None:
    """FATAL 53300: whoever waits is served by the connections that there are."""
    role = f"narrow_{kind.__name__.lower()}"
    with postgres.admin() as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x' CONNECTION LIMIT 3".encode())
    try:
        dsn = psycopg.conninfo.make_conninfo(postgres.dsn, user=role, password="x")
        async with joined(kind, dsn, a_fleet(10)) as pool:
            await soon(lambda: share(pool) == 8, QUICKLY)
            answers = [asyncio.create_task(_ask_for(pool, 0.05)) for _ in range(30)]
            assert await asyncio.gather(*answers) == [1] * 30
            assert pool.snapshot().open <= 3
    finally:
        with postgres.admin() as admin:
            admin.execute(f"DROP ROLE {role}".encode())


async def _ask_for(pool: Any, seconds: float) -> int:
    statement = f"SELECT 1 FROM pg_sleep({seconds})"
    if isinstance(pool, AsyncPool):
        return int(await request(pool, statement, timeout=QUICKLY))

    def in_thread() -> int:
        with pool.connection(timeout=QUICKLY) as conn:
            return int(conn.execute(statement).fetchone()[0])

    return await asyncio.wrap_future(aside(in_thread))


@both
@in_loop
async def test_a_role_whose_name_needs_quotes(kind: Kind, postgres: EmbeddedPostgres) -> None:
    """It is a role as any other; so is a client that asks for another encoding."""
    role = f'Mr. {kind.__name__} "O\'Neill"'
    with postgres.admin() as admin:
        admin.execute(psycopg.sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(psycopg.sql.Identifier(role)))
    try:
        dsn = psycopg.conninfo.make_conninfo(postgres.dsn, user=role, password="x", client_encoding="sql_ascii")
        async with joined(kind, dsn, a_fleet(10)) as pool:
            await soon(lambda: share(pool) == 8, QUICKLY)
            with psycopg.connect(dsn):
                await soon(lambda: share(pool) == 7, QUICKLY)
    finally:
        with postgres.admin() as admin:
            admin.execute(psycopg.sql.SQL("DROP ROLE {}").format(psycopg.sql.Identifier(role)))


@both
@pytest.mark.parametrize("prepares", [False, True])
@pytest.mark.parametrize("ignored", ["", "options"])
@in_loop
async def test_behind_a_pooler_it_says_what_is_wrong(
    kind: Kind, postgres: EmbeddedPostgres, prepares: bool, ignored: str
) -> None:
    """Whatever the pooler lets through."""
    settings = {"ignore_startup_parameters": ignored} if ignored else {}
    with PgBouncer(postgres, prepares=prepares, **settings) as bouncer:
        async with opened(kind, bouncer.dsn, wait=False, fleet=a_fleet(), min_size=0) as pool:
            with pytest.raises(PoolTimeout, match="a pooler stands between this process and the server"):
                await request(pool, timeout=3)


@both
@in_loop
async def test_a_hung_look_ends(kind: Kind, dsn: str, proxy: ChaosProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is cut off; one that joins holds the gate no longer than that."""
    monkeypatch.setattr("penstock.fleet.member.SAY_SECONDS", 0.3)
    fleet = a_fleet(10)
    async with joined(kind, proxy.through(dsn), fleet, connect_timeout=1.0) as pool:
        await soon(lambda: pool.snapshot().idle)
        proxy.silence()
        await soon(lambda: pool.snapshot().closes, QUICKLY)
        async with joined(kind, dsn, fleet):
            pass  # the gate is free
        proxy.heal()
        number = pool._membership._number
        await soon(lambda: pool._membership._number > number + 2 and pool.fleet().hint is None, QUICKLY)


# ---------------------------------------------------------------------------------------------- requests


@both
@in_loop
async def test_a_full_queue_does_not_keep_the_fleet_out(kind: Kind, dsn: str) -> None:
    """max_waiting is for callers: a member that has too little must be able to ask for more."""
    fleet = a_fleet(12, members=2)
    async with joined(kind, dsn, fleet) as idle, joined(kind, dsn, fleet, max_waiting=1) as pool:
        await soon(lambda: share(idle) + share(pool) >= 10, QUICKLY)
        async with busy(pool, 12):
            await soon(lambda: share(pool) >= 8, QUICKLY)


@both
@in_loop
async def test_looks_are_no_requests(kind: Kind, dsn: str) -> None:
    """The figures are the callers'; so is who holds what."""
    async with joined(kind, dsn, a_fleet(10)) as pool:
        asked = pool.get_stats().get("requests_num", 0)
        number = pool._membership._number
        await soon(lambda: pool._membership._number > number + 4, QUICKLY)
        assert pool.get_stats().get("requests_num", 0) == asked
        assert await request(pool) == 1
        assert pool.get_stats()["requests_num"] == asked + 1
        assert pool.snapshot().max_size == share(pool)


@in_loop
async def test_statements_share_a_share_of_one(dsn: str) -> None:
    """While its only connection has to say the claim, too."""
    fleet = a_fleet(4, members=3)
    async with joined(AsyncPool, dsn, fleet, max_size=1) as pool:
        number = pool._membership._number
        while pool._membership._number < number + 5:
            answers = await asyncio.gather(*(pool.fetchval("SELECT %s::int", (n,)) for n in range(50)))
            assert answers == list(range(50))


@in_loop
async def test_a_share_that_shrinks_under_statements_in_flight(dsn: str) -> None:
    """Each is answered; surplus connections go when they are done."""
    fleet = a_fleet(8, members=2)
    async with joined(AsyncPool, dsn, fleet) as one:
        await soon(lambda: share(one) == 6, QUICKLY)
        slow = [asyncio.create_task(one.fetchval("SELECT %s::int FROM pg_sleep(0.2)", (n,))) for n in range(40)]
        async with joined(AsyncPool, dsn, fleet) as two, busy(two, 12):
            await soon(lambda: share(two) >= 3, QUICKLY)
            assert await asyncio.gather(*slow) == list(range(40))
            await soon(lambda: one.snapshot().open <= share(one), QUICKLY)


# ---------------------------------------------------------------------------------------------- its end


@both
@in_loop
async def test_nothing_is_left_behind_after_close(kind: Kind, dsn: str) -> None:
    """No thread, no task, and no thread that turns in vain."""
    before = set(threading.enumerate())
    async with joined(kind, dsn, a_fleet(10)) as pool:
        await request(pool)
    await soon(lambda: {t for t in threading.enumerate() if t.name.startswith("pool-")} <= before, 3)
    await soon(lambda: len(asyncio.all_tasks()) == 1, 3)


def test_a_dropped_pool_ends_its_watch(dsn: str) -> None:
    """At once, not at the next look."""
    pools = [Pool(dsn, fleet=a_fleet(10, period=60.0), min_size=1, open=True, name="dropped")]
    eventually(lambda: share(pools[0]) == 8, QUICKLY)  # by its first look; the next is in a minute
    pools.clear()
    gc.collect()
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("dropped")], 3)


@both
@in_loop
async def test_closed_with_a_connection_out_it_does_not_turn_in_vain(kind: Kind, dsn: str) -> None:
    """There is nothing to look at any more."""
    async with joined(kind, dsn, a_fleet(10)) as pool:
        async with borrowed(pool) as conn:
            await settled(pool.close(timeout=0.1))
            number = pool._membership._number
            assert await ask(conn, "SELECT 1") == 1
            assert pool._membership._number == number


@both
@in_loop
async def test_long_leases_do_not_keep_a_member_from_asking_for_more(kind: Kind, dsn: str) -> None:
    """All that it has are in use, so that there is none to look on: it asks on one beside them."""
    fleet = a_fleet(10, members=2)
    async with joined(kind, dsn, fleet), joined(kind, dsn, fleet) as pool, AsyncExitStack() as held:
        for _ in range(7):
            await held.enter_async_context(borrowed(pool))
        assert share(pool) >= 7


@both
@in_loop
async def test_what_is_amiss_is_told_once_however_long_it_lasts(kind: Kind, dsn: str) -> None:
    """The pool's refusal holds the fleet's hint, which must not hold the refusal again."""
    fleet = a_fleet(3, members=1, least=1)
    async with joined(kind, dsn, fleet, max_size=2, timeout=0.3) as pool, AsyncExitStack() as held:
        await soon(lambda: share(pool) == 2, QUICKLY)
        for _ in range(2):
            await held.enter_async_context(borrowed(pool))
        pool._membership._failed(pool, PoolExhausted("the pool's own words"))
        pool._membership._claim = None
        for _ in range(3):
            pool._membership._failed(pool, PoolExhausted(str(pool.fleet().hint)))
        assert "all 2 are in use" in pool.fleet().hint
        assert len(pool.fleet().hint) < 200
