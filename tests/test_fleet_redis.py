"""A fleet whose members stand behind a transaction pooler, and see one another through a Redis."""

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from psycopg import OperationalError

from penstock import AsyncPool, Fleet, Pool, PoolTimeout
from penstock.drill.postgres import EmbeddedPostgres
from penstock.drill.proxy import ChaosProxy
from penstock.fleet import member, redis
from penstock.fleet.clock import clock
from penstock.fleet.redis import Redis
from penstock.fleet.tag import Said
from penstock.pool.steps import run
from support import redis_fleet
from support.either import Kind, borrowed, both, request, settled
from support.pgbouncer import PgBouncer
from support.redis import RedisServer
from support.redis_fleet import LEASE, NOTICED, Sampled, client, fleet, known, seen, url
from support.waiting import eventually, soon

KEY = "penstock:fleet:main"


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    redis_fleet.hasten(monkeypatch.setattr)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture
def bouncer(postgres: EmbeddedPostgres) -> Iterator[PgBouncer]:
    with PgBouncer(postgres, prepares=True, default_pool_size=5) as running:
        yield running


@contextmanager
def clients(bouncer: PgBouncer) -> Iterator[Sampled]:
    """The most connections that the pooler has, that of its console apart, until the end of the block."""
    with closing(bouncer.console()) as console:
        with Sampled(lambda: len(console.execute("SHOW CLIENTS").fetchall()) - 1) as count:
            yield count


@asynccontextmanager
async def member_of(kind: Kind, dsn: str, fleet: Fleet, **options: Any) -> AsyncIterator[Any]:
    pool = kind(dsn, open=False, **{"fleet": fleet, "min_size": 1} | options)
    await settled(pool.open())
    try:
        yield pool
    finally:
        await settled(pool.close(timeout=5))


async def joined(pool: Any, share: int = 1, seconds: float = 5.0) -> None:
    await soon(lambda: pool.fleet().share >= share, seconds)


async def filled(pool: Any) -> None:
    await soon(lambda: pool._nconns >= pool.min_size and not pool._core.opening)


# ---------------------------------------------------------------------------------------------- what it rests on


def test_a_lease_outlasts_all_that_is_done_under_it() -> None:
    """In the seconds in earnest: opening ends first, then all that is idle goes, and only then the lease ends."""
    told = subprocess.run(
        [
            *(sys.executable, "-c"),
            "from penstock.fleet.redis import *; from penstock.fleet.member import JITTER, LOOK_TIMEOUT;"
            "print(LEASE, ASK_SECONDS, DRIFT, Redis.fresh, Redis.lost, Redis.longest * (1 + JITTER / 2), LOOK_TIMEOUT)",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lease, ask, drift, fresh, lost, longest, again = map(float, told.split())
    assert longest + ask + again < fresh + drift  # one lost answer keeps nobody from opening for long
    assert fresh < lost
    assert lost + ask + drift <= lease
    assert lease + longest <= 10  # a killed member's share is another's by then


# ---------------------------------------------------------------------------------------------- who has what


@both
def test_members_behind_a_pooler_never_pass_the_budget(kind: Kind, server: RedisServer, bouncer: PgBouncer) -> None:
    """Eight come at once, all with more to do than they get; half of them go; two come again."""
    known(server)
    budget = 12

    async def busy(pool: Any) -> None:
        for _ in range(10):
            await request(pool, "SELECT pg_sleep(0.01)", 10)

    async def work(pool: Any) -> None:
        jobs = [busy(pool) for _ in range(4)]
        await asyncio.gather(*(jobs if kind is AsyncPool else (asyncio.to_thread(asyncio.run, job) for job in jobs)))

    async def scenario() -> None:
        async with AsyncExitStack() as stay, AsyncExitStack() as go:
            count = stay.enter_context(clients(bouncer))
            those = [await s.enter_async_context(member_of(kind, bouncer.dsn, fleet(server, budget), min_size=3))
                     for s in (stay, go) * 4]  # fmt: skip
            for pool in those:
                await joined(pool)
            await asyncio.gather(*map(work, those))
            await soon(lambda: seen(server).claimed == budget)
            await go.aclose()
            # At once, but for who was just opening a connection: its lease has to end.
            await soon(lambda: len(seen(server).members) == 4, 2 * NOTICED)
            await soon(lambda: seen(server).claimed == budget)
            for _ in range(2):
                pool = await stay.enter_async_context(member_of(kind, bouncer.dsn, fleet(server, budget)))
                await joined(pool)
                assert await request(pool) == 1
            assert count.samples > 20
            assert 6 < count.most <= budget
        await soon(lambda: not seen(server).members, 2 * NOTICED)

    asyncio.run(scenario())


@both
def test_who_finds_no_room_opens_nothing_and_has_it_once_another_leaves(
    kind: Kind, server: RedisServer, bouncer: PgBouncer
) -> None:
    known(server)

    async def scenario() -> None:
        async with AsyncExitStack() as first:
            pool = await first.enter_async_context(member_of(kind, bouncer.dsn, fleet(server, 1)))
            await joined(pool)
            await filled(pool)
            async with member_of(kind, bouncer.dsn, fleet(server, 1)) as second:
                with clients(bouncer) as count:
                    with pytest.raises(PoolTimeout, match=r"no room yet in fleet 'main': 1 of 1 are claimed by 2 p"):
                        await request(second, timeout=0.3)
                assert count.most == 1
                started = time.monotonic()
                await first.aclose()
                assert await request(second, timeout=5) == 1
                assert time.monotonic() - started < LEASE  # it said goodbye

    asyncio.run(scenario())


@both
def test_a_newcomer_gets_its_connection_from_those_who_have_more(
    kind: Kind, server: RedisServer, postgres: EmbeddedPostgres
) -> None:
    known(server)

    async def scenario() -> None:
        async with member_of(kind, postgres.dsn, fleet(server, 6)) as first:
            await joined(first, 6)
            async with member_of(kind, postgres.dsn, fleet(server, 6, least=3)) as second:
                await joined(second, 3)
                assert first.fleet().share <= 3

    asyncio.run(scenario())


def test_who_has_less_than_is_guaranteed_gets_it_at_anothers_next_look(
    server: RedisServer, tellers: "list[Teller]", dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it is one connection only, which demand alone moves when two looks agree."""
    for name in ("fresh", "longest"):
        monkeypatch.setattr(Redis, name, 60.0)
    with Pool(dsn, fleet=Fleet(2, redis=url(server), period=60), min_size=1) as pool:
        eventually(lambda: pool.fleet().share == 2)
        tellers[0].say(0)
        pool._membership._looks_at = 0.0  # it is time
        run(pool._membership.look())
        assert pool.fleet().share == 1


@both
def test_who_has_no_use_for_a_connection_claims_none(kind: Kind, server: RedisServer, dsn: str) -> None:
    known(server)

    async def scenario() -> None:
        async with member_of(kind, dsn, fleet(server, 4), min_size=0, max_idle=0.2) as pool:
            assert await request(pool) == 1
            assert seen(server).claimed == 4
            await soon(lambda: not seen(server).members)
            assert pool._nconns == 0
            assert await request(pool) == 1  # and has one again when it wants one

    asyncio.run(scenario())


def test_fleets_with_different_names_share_a_redis_and_nothing_else(server: RedisServer, dsn: str) -> None:
    known(server, "a")
    known(server, "b")

    async def scenario() -> None:
        async with (
            member_of(Pool, dsn, fleet(server, 2, name="a")) as a,
            member_of(Pool, dsn, fleet(server, 3, name="b")) as b,
        ):
            await joined(a, 2)
            await joined(b, 3)
            assert a.fleet().members == b.fleet().members == 1

    asyncio.run(scenario())


# ---------------------------------------------------------------------------------------------- who is gone


_MEMBER = """
import sys, time
from psycopg import OperationalError
from penstock import Fleet, Pool, PoolTimeout
from support import redis_fleet
redis_fleet.hasten()
pool = Pool(sys.argv[1], fleet=Fleet(6, redis=sys.argv[2], period=0.2, least=3), min_size=3, open=True)
pool.wait(10)
print("open", flush=True)
while True:
    try:
        with pool.connection(0.1) as conn:
            conn.execute("SELECT 1")
    except (OperationalError, PoolTimeout):
        pass
    time.sleep(0.01)
"""


@pytest.fixture
def processes() -> Iterator[Any]:
    """Start another process with three connections in a fleet of six."""
    with ExitStack() as ended:

        def start(*arguments: str) -> "subprocess.Popen[str]":
            path = os.pathsep.join(p for p in (str(Path(__file__).parent), os.environ.get("PYTHONPATH")) if p)
            process = ended.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", _MEMBER, *arguments],
                    stdout=subprocess.PIPE,
                    text=True,
                    env=os.environ | {"PYTHONPATH": path},
                )
            )
            ended.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            return process

        yield start


def test_a_killed_members_share_is_anothers_when_its_lease_has_ended(
    server: RedisServer, bouncer: PgBouncer, processes: Any
) -> None:
    known(server)
    other = processes(bouncer.dsn, url(server))

    async def scenario() -> None:
        async with member_of(Pool, bouncer.dsn, fleet(server, 6, least=3)) as pool:
            await joined(pool, 3)
            with Sampled(lambda: seen(server).claimed) as claims:
                os.kill(other.pid, signal.SIGKILL)
                took = await soon(lambda: pool.fleet().share == 6, NOTICED + 1)
            assert LEASE - 0.5 < took < NOTICED + 0.2
            assert claims.most == 6

    asyncio.run(scenario())


def test_a_process_that_was_frozen_opens_nothing_before_it_has_looked(
    server: RedisServer, bouncer: PgBouncer, processes: Any
) -> None:
    """Frozen for longer than its lease, its connections cut meanwhile: its old share is another's by then."""
    known(server)
    other = processes(bouncer.dsn, url(server))

    async def scenario() -> None:
        async with member_of(Pool, bouncer.dsn, fleet(server, 6, least=3), min_size=6) as pool:
            await joined(pool, 3)
            os.kill(other.pid, signal.SIGSTOP)
            await joined(pool, 6, NOTICED + 1)
            bouncer.kill()
            bouncer.start()
            await filled(pool)
            with clients(bouncer) as count:
                os.kill(other.pid, signal.SIGCONT)
                await soon(lambda: [each.claim for each in seen(server).members.values()] == [3, 3])
                await soon(lambda: count.last == 6)
                assert pool._nconns == 3  # the other three are the other's
            assert count.most == 6

    asyncio.run(scenario())


@both
def test_with_an_old_claim_nothing_is_opened_before_redis_has_answered(
    kind: Kind, server: RedisServer, bouncer: PgBouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a sleep that only a clock which counts it can tell."""
    known(server)

    async def scenario() -> None:
        async with member_of(kind, bouncer.dsn, fleet(server, 2), min_size=0) as pool:
            assert await request(pool) == 1
            server.freeze()
            for module, name in ((member, "_clock"), (redis, "clock")):
                monkeypatch.setattr(module, name, lambda: clock() + 100)
            bouncer.kill()
            bouncer.start()
            with clients(bouncer) as count:
                with pytest.raises((PoolTimeout, OperationalError)):
                    await request(pool, timeout=0.1)
                with pytest.raises(PoolTimeout):
                    await request(pool, timeout=0.5)
            assert count.samples
            assert count.most == 0
            server.thaw()
            assert await request(pool, timeout=5) == 1

    asyncio.run(scenario())


# ---------------------------------------------------------------------------------------------- Redis in trouble


def test_without_redis_what_is_idle_goes_before_the_lease_ends_and_what_is_in_use_stays(
    server: RedisServer, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    known(server)

    async def scenario() -> None:
        async with member_of(Pool, dsn, fleet(server, 6), min_size=4) as pool:
            await filled(pool)
            async with borrowed(pool):
                server.kill()
                killed = time.monotonic()
                await soon(lambda: pool._nconns == pool.fleet().share == 1, LEASE)
                state = pool.fleet()
                assert state.age < LEASE
                assert "1 connections are kept, no more are opened: ConnectionError: Redis: Error" in state.hint
                await soon(lambda: time.monotonic() - killed > LEASE)
            for _ in range(20):  # and serves on
                assert await request(pool) == 1
            assert pool._nconns == 1
            assert re.search(r"out of touch for \d s: idle connections are closed; 1 in use are kept", caplog.text)

            server.start()  # with nothing in it
            await soon(lambda: len(seen(server).members) == 1)
            assert pool.fleet().share == 1
            began = time.monotonic()
            await joined(pool, 6)
            assert time.monotonic() - began > LEASE - 0.5  # others may have something, and have not said so yet
            await filled(pool)
            assert pool.fleet().hint is None

    with caplog.at_level(logging.INFO, "penstock.pool"):
        asyncio.run(scenario())
    assert "in touch again with fleet main" in caplog.text


@both
def test_a_redis_that_is_back_within_seconds_is_not_missed(kind: Kind, server: RedisServer, dsn: str) -> None:
    known(server)

    async def scenario() -> None:
        async with member_of(kind, dsn, fleet(server, 6), min_size=4) as pool:
            await filled(pool)
            connects = pool._core.connects
            server.kill()
            server.start()
            known(server)
            for _ in range(20):
                assert await request(pool) == 1
            await soon(lambda: seen(server).claimed == 6)
            assert pool.fleet().share == 6
            assert pool._core.connects == connects

    asyncio.run(scenario())


@both
def test_a_member_cut_off_from_redis_has_given_up_what_was_idle_when_others_take_it(
    kind: Kind, server: RedisServer, bouncer: PgBouncer
) -> None:
    known(server)

    async def scenario() -> None:
        with ChaosProxy("127.0.0.1", server.port) as proxy:
            async with (
                member_of(kind, bouncer.dsn, fleet(proxy, 6, least=3), min_size=3) as lost,
                member_of(kind, bouncer.dsn, fleet(server, 6, least=3), min_size=6) as other,
            ):
                await filled(lost)
                await joined(other, 3)
                await filled(other)
                with clients(bouncer) as count:
                    proxy.silence()
                    started = time.monotonic()
                    await soon(lambda: other._nconns == 6, NOTICED + 1)
                    assert time.monotonic() - started > LEASE - 0.5
                    assert lost._nconns == 0
                    proxy.heal()
                    await joined(lost, 3)
                    await filled(lost)
                assert count.most <= 6

    asyncio.run(scenario())


@both
def test_checkouts_go_on_while_redis_does_not_answer(kind: Kind, server: RedisServer, dsn: str) -> None:
    known(server)

    async def scenario() -> None:
        async with member_of(kind, dsn, fleet(server, 6), min_size=2) as pool:
            await filled(pool)
            server.freeze()
            longest = 0.0
            for _ in range(100):
                started = time.perf_counter()
                assert await request(pool) == 1
                longest = max(longest, time.perf_counter() - started)
            assert longest < redis.ASK_SECONDS
            server.thaw()

    asyncio.run(scenario())


def test_of_a_redis_that_was_emptied_nobody_takes_what_it_has_forgotten(
    server: RedisServer, bouncer: PgBouncer
) -> None:
    known(server)

    async def scenario() -> None:
        async with (
            member_of(AsyncPool, bouncer.dsn, fleet(server, 4), min_size=4) as first,
            member_of(AsyncPool, bouncer.dsn, fleet(server, 4), min_size=0) as second,
        ):
            await joined(first, 4)
            await filled(first)
            with clients(bouncer) as count:
                client(server).flushall()
                with pytest.raises(PoolTimeout, match=r"no record of who has what; in 1\.\d s all will have said so"):
                    await request(second, timeout=0.3)
                assert await request(second, timeout=10) == 1
            assert count.most <= 4
            assert first.fleet().share <= 3

    asyncio.run(scenario())


@both
def test_what_is_no_fleets_is_left_alone_and_said_to_be_in_the_way(kind: Kind, server: RedisServer, dsn: str) -> None:
    client(server).set(KEY, "theirs")

    async def scenario() -> None:
        async with member_of(kind, dsn, fleet(server, 4)) as pool:
            with pytest.raises(
                PoolTimeout, match=f"what is under {KEY} is not a fleet's: delete it, or give the fleet"
            ):
                await request(pool, timeout=0.3)
            assert client(server).get(KEY) == b"theirs"
            client(server).delete(KEY)
            known(server)
            assert await request(pool, timeout=5) == 1

    asyncio.run(scenario())


# ---------------------------------------------------------------------------------------------- what is kept there


class Teller:
    """A member without a pool."""

    def __init__(self, server: RedisServer, name: str, client: Any = None) -> None:
        self.ledger = Redis(Fleet(10, redis=client or url(server)), name, is_async=False)
        self.number = 0

    def say(self, share: int, number: int | None = None) -> Any:
        self.number = self.number + 1 if number is None else number
        view, _ = asyncio.run(self.ledger.say(None, Said(self.number, share, 1, 10, 1.0), 0))
        return view

    def close(self) -> None:
        asyncio.run(self.ledger.close())


@pytest.fixture
def tellers(server: RedisServer) -> Iterator[list[Teller]]:
    known(server)
    two = [Teller(server, "00000001"), Teller(server, "00000002")]
    yield two
    for each in two:
        each.close()


def test_what_arrives_late_does_not_undo_what_was_said_since(server: RedisServer, tellers: list[Teller]) -> None:
    one, two = tellers
    one.say(7, number=5)
    one.say(2, number=4)
    assert two.say(1).claimed == 8
    asyncio.run(one.ledger.leave(4))
    assert two.say(1).claimed == 8
    asyncio.run(one.ledger.leave(6))
    assert two.say(1).claimed == 1


def test_a_redis_that_has_lost_what_it_had_confirmed_settles_first(server: RedisServer, tellers: list[Teller]) -> None:
    """As after a failover to a replica that was behind, or with a clock that jumped."""
    one, two = tellers
    assert one.say(7).settling == 0
    assert one.say(7).settling == 0
    client(server).hdel(KEY, "00000001")
    assert two.say(1).settling == 0
    assert one.say(7).settling == pytest.approx(LEASE, abs=0.1)
    assert two.say(1).settling > LEASE - 0.5


def test_after_another_start_of_the_server_it_settles_though_its_rows_are_there(
    server: RedisServer, tellers: list[Teller]
) -> None:
    tellers[0].say(7)
    client(server).hset(KEY, "run", "another")
    assert tellers[1].say(1).settling == pytest.approx(LEASE, abs=0.1)


def test_a_user_who_may_not_ask_for_the_servers_run_is_served(server: RedisServer) -> None:
    known(server)
    client(server).acl_setuser(
        "app", enabled=True, passwords=["+geheim"], categories=["+@all"], commands=["-info"], keys=["*"]
    )
    teller = Teller(server, "00000003", f"redis://app:geheim@127.0.0.1:{server.port}")
    assert teller.say(3).claimed == 3
    assert teller.say(3).settling == 0
    teller.close()


def test_a_clock_that_was_set_back_makes_no_lease_longer(server: RedisServer, tellers: list[Teller]) -> None:
    client(server).hset(
        KEY, "00000003", f"{int((time.time() + 3600) * 1000)} 1 5 penstock:main:00000003:1:5:1:9:0.00:app"
    )
    assert tellers[0].say(1).claimed == 6
    till = int(client(server).hget(KEY, "00000003").split()[0])
    assert till <= (time.time() + LEASE) * 1000 + 1


def test_a_row_that_cannot_be_read_is_no_guess(server: RedisServer, tellers: list[Teller]) -> None:
    client(server).hset(KEY, "something", "else")
    with pytest.raises(ConnectionError, match=f"what is under {KEY} is not a fleet's.*field something is no claim"):
        tellers[0].say(1)


@pytest.mark.parametrize("decoded", [False, True])
def test_a_client_of_the_programs_own_will_do(server: RedisServer, dsn: str, decoded: bool) -> None:
    known(server)
    mine = server.client(decode_responses=decoded)
    with Pool(dsn, fleet=Fleet(3, redis=mine), min_size=1) as pool:
        pool.wait()
        eventually(lambda: pool.fleet().share == 3)
    assert mine.ping()  # and is not closed with the pool


def test_a_client_of_the_other_kind_is_refused(server: RedisServer) -> None:
    with pytest.raises(TypeError, match=r"the redis of a Pool's fleet must be a URL or a redis\.Redis"):
        Pool(fleet=Fleet(3, redis=server.async_client()), open=False)
    with pytest.raises(TypeError, match=r"the redis of an AsyncPool's fleet must be a URL or a redis\.asyncio\.Redis"):
        AsyncPool(fleet=Fleet(3, redis=server.client()), open=False)


# ---------------------------------------------------------------------------------------------- secrets


@pytest.mark.parametrize(
    "wrong", ["http://:geheim@host", "redis://:geheim@host:port", "localhost:geheim", "redis://:a/geheim@host:1", ""]
)
def test_a_wrong_url_is_an_error_that_does_not_show_it(wrong: str) -> None:
    with pytest.raises(ValueError, match="redis is no URL of a Redis: it must look like redis://") as caught:
        Fleet(3, redis=wrong)
    assert "geheim" not in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(TypeError, match=r"redis must be a URL, .* not a int"):
        Fleet(3, redis=6379)


def test_a_password_is_shown_nowhere(server: RedisServer, dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    declared = Fleet(3, redis=f"redis://me:geheim@127.0.0.1:{server.port}")
    with caplog.at_level(logging.DEBUG), Pool(dsn, fleet=declared, min_size=1) as pool:
        with (
            pytest.raises(PoolTimeout, match=r"out of touch with fleet 'main': .*Redis: ") as caught,
            pool.connection(0.3),
        ):
            pass
        said = " ".join([repr(declared), repr(pool), repr(pool.fleet()), str(caught.value), caplog.text])
    assert "geheim" not in said
    assert "invalid username-password pair" in said
