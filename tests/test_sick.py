"""A database that lets one in and then fails: not everybody needs to find out for themselves."""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from penstock import AsyncPool, DatabaseUnavailable, PoolError, PoolTimeout
from penstock.core import Reason, Refusal, Settings
from penstock.core.breaker import HEALED_AT, LOSSES, Breaker
from penstock.core.pace import LONGEST_PAUSE, PATIENCE, PAUSE
from penstock.drill.postgres import EmbeddedPostgres
from penstock.pool import events
from penstock.pool.terms import reading
from support import virtual
from support.declared import lent, refusal
from support.either import Kind, ask, borrowed, both, opened, request, settled
from support.fake import FakeConnection, FakeDriver, FakeError, Outcome, virtual_pool
from support.invariants import check_at_rest
from support.shell import Shell
from support.virtual import VirtualLoop
from support.waiting import soon

Server = Callable[..., EmbeddedPostgres]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "penstock")


# ------------------------------------------------------------------------------------------ in virtual time


class SickDriver(FakeDriver):
    """A server that accepts every connection and, while it is sick, ends it at its first statement."""

    def __init__(self) -> None:
        super().__init__(True, connect_seconds=0.005)
        self.sick = False
        self.used_at_once = self.most_at_once = 0

    async def statement(self, conn: FakeConnection, seconds: float = 0.01) -> None:
        """One that takes some time, and the server may end."""
        self.used_at_once += 1
        self.most_at_once = max(self.most_at_once, self.used_at_once)
        try:
            await asyncio.sleep(seconds)
            if self.sick:
                conn.end()
            conn.use()
        finally:
            self.used_at_once -= 1


class Sick:
    """A pool of a sick server's connections, and what its callers meet."""

    def __init__(self, loop: VirtualLoop, **options: Any) -> None:
        self.loop = loop
        self.driver = SickDriver()
        self.pool: AsyncPool[Any] = virtual_pool(loop, self.driver, **{"min_size": 4, "name": "web"} | options)
        self.met: list[tuple[float, str]] = []

    async def ask(self, seconds: float = 0.01) -> str:
        """One request: "served", or the name of its error."""
        try:
            async with self.pool.connection(1.0) as conn:
                await self.driver.statement(conn, seconds)
            met = "served"
        except (PoolError, FakeError) as error:
            met = "lost" if type(error) is FakeError else type(error).__name__
        self.met.append((self.loop.time(), met))
        return met

    async def storm(self, seconds: float, pace: float = 0.002) -> list[str]:
        """Requests at that pace, each by a task of its own; what they met, in the order of their coming."""
        tasks = []
        for _ in range(round(seconds / pace)):
            tasks.append(self.loop.create_task(self.ask()))
            await asyncio.sleep(pace)
        return await asyncio.gather(*tasks)


def with_sick(scenario: Callable[[Sick], Coroutine[Any, Any, None]], **options: Any) -> None:
    """Run *scenario*; nothing is lost at its end, and the pool is well again."""

    async def main(loop: VirtualLoop) -> None:
        random.seed(7)  # the breaker's pauses are cut by chance
        sick = Sick(loop, **options)
        await sick.pool.open(wait=True)
        await scenario(sick)
        sick.driver.sick = False
        for _ in range(30):
            await sick.ask()
            await asyncio.sleep(1.0)
        assert not sick.pool.snapshot().sick
        check_at_rest(sick.pool._core)
        await sick.pool.close()

    virtual.run(main)


async def break_it(sick: Sick) -> None:
    """Three lost in a row: the breaker opens."""
    sick.driver.sick = True
    for _ in range(LOSSES):
        await asyncio.sleep(0.05)
        assert await sick.ask() == "lost"


def test_after_three_losses_in_a_row_requests_are_refused_at_once() -> None:
    """Two may be chance. Then nobody waits, and nobody loses a statement."""

    async def scenario(sick: Sick) -> None:
        sick.driver.sick = True
        for number in range(LOSSES):
            assert not sick.pool.snapshot().sick, number
            assert await sick.ask() == "lost"
            await asyncio.sleep(0.02)
        assert sick.pool.snapshot().sick
        asked = sick.loop.time()
        assert [await sick.ask() for _ in range(20)] == ["DatabaseUnavailable"] * 20
        assert sick.loop.time() == asked
        assert sick.pool.snapshot().refusals == {Refusal.UNAVAILABLE: 20}

    with_sick(scenario)


def test_the_error_says_what_the_database_does_and_names_its_last_word() -> None:
    """With the driver's error as its cause; a PoolTimeout, as all such refusals are."""

    async def scenario(sick: Sick) -> None:
        await break_it(sick)
        error = await refusal(sick.pool.getconn())
        assert isinstance(error, DatabaseUnavailable)
        assert isinstance(error, PoolTimeout)
        assert isinstance(error, FakeError)
        assert "web: the database ends the connections that it gives, for 0." in str(error)
        assert "server closed the connection" in str(error)
        assert type(error.__cause__) is FakeError
        assert sick.pool.snapshot().database_down is False

    with_sick(scenario)


def test_a_good_use_in_between_starts_the_count_anew() -> None:
    """Two of a hundred that break are no sick database."""

    async def scenario(sick: Sick) -> None:
        for _ in range(10):
            for _ in range(LOSSES - 1):
                sick.driver.sick = True
                assert await sick.ask() == "lost"
                await asyncio.sleep(0.05)
            sick.driver.sick = False
            assert await sick.ask() == "served"
            assert not sick.pool.snapshot().sick

    with_sick(scenario)


def test_many_that_are_lost_at_once_are_one_event() -> None:
    """A failover, a restart: whoever had a connection loses it; the next requests are served, with no pause."""

    async def scenario(sick: Sick) -> None:
        tasks = [sick.loop.create_task(sick.ask(0.1)) for _ in range(4)]
        await asyncio.sleep(0.05)
        sick.driver.sick = True
        assert await asyncio.gather(*tasks) == ["lost"] * 4
        sick.driver.sick = False
        assert not sick.pool.snapshot().sick
        assert await asyncio.gather(*[sick.ask() for _ in range(8)]) == ["served"] * 8

    with_sick(scenario)


def test_those_who_wait_are_told_when_the_breaker_opens() -> None:
    """At once, all of them."""

    async def scenario(sick: Sick) -> None:
        kept = [await sick.pool.getconn() for _ in range(3)]
        for _ in range(LOSSES - 1):
            sick.driver.sick = True
            assert await sick.ask() == "lost"
            await asyncio.sleep(0.05)
        last = sick.loop.create_task(sick.ask(0.1))
        await asyncio.sleep(0.01)
        waiting = [sick.loop.create_task(sick.ask()) for _ in range(10)]
        assert await last == "lost"
        lost_at = sick.loop.time()
        assert await asyncio.gather(*waiting) == ["DatabaseUnavailable"] * 10
        assert sick.loop.time() == lost_at
        for conn in kept:
            await sick.pool.putconn(conn)

    with_sick(scenario)


def test_while_it_is_sick_one_tries_at_a_time_with_pauses_that_grow() -> None:
    """From a tenth of a second to two, each cut by chance: 500 requests a second lose a dozen statements in 20 s."""

    async def scenario(sick: Sick) -> None:
        sick.driver.sick = True
        await sick.storm(1.0)
        sick.driver.most_at_once = 0
        already = len(sick.met)
        answers = await sick.storm(20.0)
        assert set(answers) == {"lost", "DatabaseUnavailable"}
        assert sick.driver.most_at_once == 1
        lost = [time for time, met in sick.met[already:] if met == "lost"]
        pauses = [later - earlier for earlier, later in pairwise(lost)]
        assert len(lost) <= 20
        assert max(pauses) <= LONGEST_PAUSE + 0.05
        assert min(pauses[4:]) >= 0.75 * LONGEST_PAUSE
        assert len({round(pause, 4) for pause in pauses}) == len(pauses)

    with_sick(scenario)


def test_when_it_is_well_again_one_tries_then_two_then_four() -> None:
    """A ramp, not a flood; and then it is over."""

    async def scenario(sick: Sick) -> None:
        await break_it(sick)
        sick.driver.sick = False
        caps = []
        sick.driver.most_at_once = 0
        tasks = []
        for _ in range(2000):
            tasks.append(sick.loop.create_task(sick.ask(0.05)))
            await asyncio.sleep(0.001)
            breaker = sick.pool._core.breaker
            assert sick.driver.used_at_once <= breaker.cap
            caps.append(breaker.cap)
        seen = list(dict.fromkeys(caps))
        assert seen[:3] == [1, 2, 4]
        assert seen[-1] > HEALED_AT
        assert sick.driver.most_at_once == 16
        await asyncio.gather(*tasks)
        assert not sick.pool.snapshot().sick

    with_sick(scenario, min_size=16)


def test_a_relapse_on_the_way_up_closes_it_again() -> None:
    """The next pause is longer."""

    async def scenario(sick: Sick) -> None:
        await break_it(sick)
        sick.driver.sick = False
        await asyncio.sleep(PAUSE)
        assert await sick.ask() == "served"
        assert sick.pool.snapshot().sick
        for _ in range(LOSSES):
            sick.driver.sick = True
            while await sick.ask() != "lost":
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.01)
        assert await sick.ask() == "DatabaseUnavailable"
        assert sick.pool._core.breaker.cap == 1

    with_sick(scenario)


def test_a_healthy_database_is_found_so_within_the_longest_pause() -> None:
    """However long it was ill."""

    async def scenario(sick: Sick) -> None:
        sick.driver.sick = True
        await sick.storm(30.0, pace=0.02)
        sick.driver.sick = False
        healed = sick.loop.time()
        while await sick.ask() != "served":
            await asyncio.sleep(0.01)
        assert sick.loop.time() - healed <= LONGEST_PAUSE + 0.1
        await asyncio.sleep(1.0)
        assert await sick.storm(1.0) == ["served"] * 500
        assert not sick.pool.snapshot().sick

    with_sick(scenario)


def test_a_connection_held_from_before_keeps_nobody_from_trying() -> None:
    """A long job, or a leak: it says nothing of the database as it is now."""

    async def scenario(sick: Sick) -> None:
        kept = await sick.pool.getconn()
        await break_it(sick)
        sick.driver.sick = False
        await asyncio.sleep(PAUSE)
        assert [await sick.ask() for _ in range(10)] == ["served"] * 10
        assert not sick.pool.snapshot().sick
        await sick.pool.putconn(kept)

    with_sick(scenario, leak_after=None)


def test_what_was_taken_before_and_comes_back_well_is_no_proof() -> None:
    """It was idle in hand while the others were lost."""

    async def scenario(sick: Sick) -> None:
        kept = [await sick.pool.getconn() for _ in range(2)]
        await break_it(sick)
        for conn in kept:
            await sick.pool.putconn(conn)
        assert sick.pool._core.breaker.cap == 1
        assert sick.pool.snapshot().sick

    with_sick(scenario)


def test_who_gives_up_as_it_is_served_has_proven_nothing() -> None:
    """A probe that was cancelled before its first statement is none."""
    shell = Shell(Settings(min_size=2, max_size=2))
    _lose(shell, LOSSES)
    shell.pass_time(10.0)
    assert shell.core.breaker.cap == 1
    shell.cancel(shell.acquire("a probe"))
    assert shell.core.breaker.cap == 1
    shell.come_to_rest()


def test_all_who_wait_are_served_when_the_last_of_the_ramp_succeeds() -> None:
    """The idle connections that the ramp had held back go to them at once, in a pool larger than the ramp, too."""
    shell = Shell(Settings(min_size=40, max_size=40))
    _lose(shell, LOSSES)
    shell.pass_time(10.0)
    for _ in range(100):
        if shell.core.breaker.cap >= HEALED_AT:
            break
        shell.give(shell.collect(shell.acquire("a probe")))
    assert shell.core.breaker.cap == HEALED_AT
    for number in range(45):
        shell.acquire(number)
    for waiter in list(shell.served):
        shell.collect(waiter)
    assert len(shell.held) == HEALED_AT
    shell.core.breaker.cap = HEALED_AT
    slot = next(iter(shell.held))
    del shell.held[slot]
    shell.core.requite(slot, now=shell.now)
    shell.note_effects()
    assert not shell.core.breaker.sick
    assert len(shell.core.idle) == 0
    assert len(shell.queue) == 45 - HEALED_AT - 9


def _lose(shell: Shell, times: int) -> None:
    """Connections are lost in use, one after the other."""
    if not shell.core.opened:
        shell.event(shell.core.open)
    _open_all(shell)
    for _ in range(times):
        slot = shell.take("loser") or shell.collect(shell.acquire("loser"))
        del shell.held[slot]
        shell.now += 0.001
        shell.event(shell.core.discard, slot, Reason.BROKEN, error=FakeError("gone"))
        _open_all(shell)


def _open_all(shell: Shell) -> None:
    for _ in range(1000):
        for slot in [*shell.to_open]:
            shell.opened(slot)
        for slot in [*shell.to_close]:
            shell.closed(slot)
        for slot in [*shell.suspects]:
            shell.absolve(slot)
        if len(shell.core.idle) == shell.core.max_size:
            return
        shell.pass_time(0.05)
    raise AssertionError("not full")


def test_losses_while_idle_are_no_sickness() -> None:
    """A firewall that ends idle connections: each is found dead before its use, and replaced."""

    async def scenario(sick: Sick) -> None:
        for _ in range(10):
            for slot in list(sick.pool._core.idle):
                slot.conn.end()
            assert await sick.ask() == "served"
            await asyncio.sleep(0.1)
        assert not sick.pool.snapshot().sick

    with_sick(scenario)


@pytest.mark.parametrize("deed", ["pause", "drain", "resize", "close"])
def test_a_sick_pool_can_be_managed(deed: str) -> None:
    """Paused and resumed, drained, resized, closed: nothing is lost, whoever asks is told."""

    async def main(loop: VirtualLoop) -> None:
        sick = Sick(loop)
        await sick.pool.open(wait=True)
        await break_it(sick)
        if deed == "pause":
            sick.pool.pause()
            await asyncio.sleep(1.0)
            assert await sick.ask() in ("PoolTimeout", "DatabaseUnavailable")
            sick.pool.resume()
        elif deed == "drain":
            await sick.pool.drain()
        elif deed == "resize":
            await sick.pool.resize(2)
            await sick.pool.resize(6)
        sick.driver.sick = False
        if deed == "close":
            await sick.pool.close()
            assert await sick.ask() == "PoolClosed"
        else:
            await asyncio.sleep(LONGEST_PAUSE)
            await sick.ask()
            await asyncio.sleep(1.0)
            assert await sick.storm(0.5) == ["served"] * 250
            await sick.pool.close()
        check_at_rest(sick.pool._core)

    virtual.run(main)


def test_a_sick_server_that_is_down_too_is_called_down() -> None:
    """What nobody can connect to refuses connections: that is the better word, and the newer error."""

    async def scenario(sick: Sick) -> None:
        await break_it(sick)
        sick.driver.outcomes["connect"] = Outcome.ERROR
        for slot in list(sick.pool._core.idle):
            slot.conn.end()
        await asyncio.sleep(1.0)
        for _ in range(5):
            error = await refusal(sick.pool.getconn(0.5))
            await asyncio.sleep(0.5)
        assert isinstance(error, DatabaseUnavailable)
        assert "connect failed" in str(error)
        sick.driver.heal()
        await asyncio.sleep(3.0)

    with_sick(scenario)


@pytest.mark.parametrize("seed", range(50))
def test_the_breaker_never_lets_more_try_than_its_cap(seed: int) -> None:
    """By itself, in any order of losses and good uses, of those lent within its patience; and it always ends."""
    dice, breaker, now, out = random.Random(seed), Breaker(lambda: 0.5), 0.0, list[float]()
    for _ in range(300):
        now += dice.choice((0.0, 0.01, 0.1, 1.0))
        trying = [at for at in out if at >= breaker.lost_at]
        match dice.randrange(3):
            case 0 if breaker.allows(now, len(trying)):
                assert not breaker.is_open(now, len(trying))
                breaker.tried(now)
                out.append(now)
                lately = [at for at in out if at > now - PATIENCE + 1e-6 and at >= breaker.lost_at]
                assert len(lately) <= breaker.cap
            case 1 if out:
                breaker.used(out.pop(dice.randrange(len(out))))
            case 2 if out:
                breaker.lost(out.pop(dice.randrange(len(out))), FakeError("gone"), now)
        assert breaker.sick == (breaker.cap <= HEALED_AT)
    for _ in range(20):
        now += 10.0
        assert breaker.allows(now, 0)
        breaker.used(now)
    assert not breaker.sick


# ------------------------------------------------------------------------------------------ a real server


async def lose_one(pool: Any) -> str:
    """A request whose statement is the end of its session."""
    try:
        async with borrowed(pool, 2) as conn:
            await settled(conn.execute("SELECT pg_terminate_backend(pg_backend_pid())"))
    except psycopg.OperationalError as error:
        return type(error).__name__
    return "served"


@both
def test_a_real_server_that_ends_every_session(kind: Kind, dsn: str) -> None:
    """Three in a row, then refused with the server's own words; served again soon after it has stopped doing so."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=2) as pool:
            assert [await lose_one(pool) for _ in range(LOSSES)] == ["AdminShutdown"] * LOSSES
            assert pool.snapshot().sick
            with pytest.raises(DatabaseUnavailable) as caught:
                await request(pool, timeout=2)
            assert "the database ends the connections that it gives" in str(caught.value)
            assert "terminating connection due to administrator command" in str(caught.value)
            assert isinstance(caught.value.__cause__, psycopg.errors.AdminShutdown)
            await asyncio.sleep(PAUSE + 0.05)
            for _ in range(10):
                assert await request(pool, timeout=2) == 1
            assert not pool.snapshot().sick
            await soon(lambda: pool.snapshot().idle == 2)

    asyncio.run(scenario())


@both
def test_a_connection_that_its_user_closes_is_no_loss(kind: Kind, dsn: str) -> None:
    """Nor is using it afterwards, a statement that fails, or a limit of the server's on slow clients."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            for _ in range(5):
                with suppress(psycopg.OperationalError):
                    async with borrowed(pool, 5) as conn:
                        await settled(conn.close())
                        await settled(conn.execute("SELECT 1"))
                with suppress(psycopg.Error):
                    async with borrowed(pool, 5) as conn:
                        await settled(conn.execute("SELECT 1/0"))
                with suppress(psycopg.Error):
                    async with borrowed(pool, 5) as conn:
                        await settled(conn.execute("SET LOCAL idle_in_transaction_session_timeout = 20"))
                        await asyncio.sleep(0.1)
                        await settled(conn.execute("SELECT 1"))
            assert not pool.snapshot().sick
            assert await request(pool) == 1

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------ read-only


async def write(
    pool: Any, way: str = "connection", statement: str = "CREATE TEMP TABLE IF NOT EXISTS mine (x int)"
) -> str:
    """ "written", or the name of the error."""
    try:
        async with lent(pool, way) as conn:
            await settled(conn.execute(statement))
    except psycopg.Error as error:
        return type(error).__name__
    return "written"


CREATE = "CREATE TABLE IF NOT EXISTS written (x int)"


@both
def test_a_server_that_turned_read_only_has_the_whole_pool_replaced(own_postgres: Server, kind: Kind) -> None:
    """Who writes then hears of it, once: then every connection is a new one, to whoever is the primary now."""

    async def scenario() -> None:
        server = own_postgres()
        closed: list[Reason] = []
        async with opened(kind, server.dsn, min_size=3) as pool:
            pool.listen(lambda event: closed.append(event.reason) if isinstance(event, events.Closed) else None)
            assert await write(pool, statement=CREATE) == "written"
            turn_read_only(server, True)
            assert await write(pool, statement=CREATE + "; INSERT INTO written VALUES (1)") == "ReadOnlySqlTransaction"
            turn_read_only(server, False)
            await soon(lambda: pool.snapshot().idle == 3)
            for _ in range(6):
                assert await write(pool, statement="INSERT INTO written VALUES (1)") == "written"
            assert pool.snapshot().closes == {Reason.READ_ONLY: 3}
            assert closed == [Reason.READ_ONLY] * 3
            assert Reason.READ_ONLY.value == "turned read-only"
            assert not pool.snapshot().sick

    asyncio.run(scenario())


def turn_read_only(server: EmbeddedPostgres, read_only: bool) -> None:
    """As a failover does that leaves the old primary up."""
    with server.admin() as admin:
        admin.execute("SET default_transaction_read_only = off")
        admin.execute(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if read_only else 'off'}".encode())
        admin.execute("SELECT pg_reload_conf()")
    with psycopg.connect(server.dsn, autocommit=True) as observer:
        for _ in range(500):
            row = observer.execute("SHOW default_transaction_read_only").fetchone()
            if row == ("on" if read_only else "off",):
                return
            observer.execute("SELECT pg_sleep(0.01)")
    raise AssertionError("not reloaded")


@both
def test_a_connection_held_meanwhile_is_replaced_when_it_comes_back(own_postgres: Server, kind: Kind) -> None:
    """Its holder may finish reading."""

    async def scenario() -> None:
        server = own_postgres()
        async with opened(kind, server.dsn, min_size=2) as pool:
            assert await write(pool, statement=CREATE) == "written"
            async with borrowed(pool) as conn:
                turn_read_only(server, True)
                assert await write(pool, statement="INSERT INTO written VALUES (1)") == "ReadOnlySqlTransaction"
                turn_read_only(server, False)
                assert await ask(conn, "SELECT 1") == 1
            await soon(lambda: pool.snapshot().idle == 2)
            assert pool.snapshot().closes == {Reason.READ_ONLY: 2}

    asyncio.run(scenario())


@both
def test_a_standby_s_connection_is_closed_and_the_others_stay(own_postgres: Server, kind: Kind) -> None:
    """With several hosts to connect to, one may have been a standby: only who was to write finds out."""

    async def scenario() -> None:
        server = own_postgres()
        make_standby(server)
        async with opened(kind, server.dsn, min_size=3) as pool:
            assert await request(pool, "SELECT pg_is_in_recovery()") is True
            assert await write(pool, statement=CREATE) == "ReadOnlySqlTransaction"
            await soon(lambda: pool.snapshot().idle == 3)
            assert pool.snapshot().closes == {Reason.STANDBY: 1}
            assert await request(pool) == 1

    asyncio.run(scenario())


def make_standby(server: EmbeddedPostgres) -> None:
    """Restart it as a standby of nobody; the restart before writes the log that one can begin from."""
    with server.admin() as admin:
        admin.execute("ALTER SYSTEM SET wal_level = replica")
    server.restart()
    server.stop()
    (server._data / "standby.signal").touch()
    server.start()


async def set_read_only(conn: Any) -> None:
    await settled(conn.set_read_only(True))


async def begin_read_only(conn: Any) -> None:
    await settled(conn.execute("SET TRANSACTION READ ONLY"))


async def set_default(conn: Any) -> None:
    await settled(conn.execute("SET default_transaction_read_only = on"))
    await settled(conn.commit())


async def set_characteristics(conn: Any) -> None:
    await settled(conn.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
    await settled(conn.commit())


async def set_config(conn: Any) -> None:
    await settled(conn.execute("SELECT set_config('default_transaction_read_only', 'on', false)"))
    await settled(conn.commit())


@both
@pytest.mark.parametrize("wish", [set_read_only, begin_read_only, set_default, set_characteristics, set_config])
def test_a_user_s_own_wish_to_read_only_evicts_nothing(
    kind: Kind, wish: Callable[[Any], Coroutine[Any, Any, None]], dsn: str
) -> None:
    """However it is said; the next user may write."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=2) as pool:
            for _ in range(3):
                with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                    async with borrowed(pool) as conn:
                        await wish(conn)
                        await settled(conn.execute("CREATE TABLE never (x int)"))
                assert await write(pool) == "written"
            await soon(lambda: pool.snapshot().idle == 2)
            assert pool.snapshot().closes == {}

    asyncio.run(scenario())


@both
@pytest.mark.parametrize("way", ["connection", "getconn", "transaction"])
def test_reading_evicts_nothing(kind: Kind, way: str, dsn: str) -> None:
    """A loader that writes by mistake is refused, and that is all."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=2) as pool:
            for _ in range(3):
                with reading():
                    assert await write(pool, way, "CREATE TABLE never (x int)") == "ReadOnlySqlTransaction"
                assert await write(pool, way) == "written"
            assert pool.snapshot().closes == {}

    asyncio.run(scenario())


@both
@pytest.mark.parametrize("where", ["options", "role"])
def test_a_pool_that_is_meant_to_read_only_evicts_nothing(postgres: EmbeddedPostgres, kind: Kind, where: str) -> None:
    """Its connections were never writable: a write by mistake is an error, and no reason to connect anew."""

    async def scenario() -> None:
        options: dict[str, Any] = (
            {"kwargs": {"options": "-c default_transaction_read_only=on"}} if where == "options" else {}
        )
        async with opened(kind, postgres.dsn, min_size=2, **options) as pool:
            for _ in range(3):
                assert await write(pool, statement="CREATE TABLE never (x int)") == "ReadOnlySqlTransaction"
            assert pool.snapshot().closes == {}

    with postgres.admin() as admin:
        if where == "role":
            admin.execute("ALTER ROLE app SET default_transaction_read_only = on")
        try:
            asyncio.run(scenario())
        finally:
            admin.execute("ALTER ROLE app RESET default_transaction_read_only")
