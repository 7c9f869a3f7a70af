"""A shared connection is lost: what was never sent goes elsewhere, what may have run says so, nothing runs twice."""

import asyncio
import pickle
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from penstock import AsyncPool, ConnectionLost, DatabaseUnavailable, Multiplex, PoolError, PoolTimeout, StatementTimeout
from penstock.core import Reason
from penstock.drill.postgres import EmbeddedPostgres
from penstock.drill.proxy import ChaosProxy
from support.invariants import Invariants
from support.statements import Gate, at_rest, shared
from support.waiting import soon

Server = Callable[..., EmbeddedPostgres]

KILL = "SELECT pg_terminate_backend(pg_backend_pid())"


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


def end_those_at(server: EmbeddedPostgres, gate: Gate) -> None:
    """End the sessions whose statements stand before the gate."""
    with server.admin() as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE usename = 'app' AND state = 'active' AND query LIKE '%%pg_advisory_xact_lock_shared%%'"
        )
    assert gate.held == 0


async def errors_of(*statements: Coroutine[Any, Any, Any]) -> list[Any]:
    return await asyncio.gather(*statements, return_exceptions=True)


def kinds(answers: list[Any]) -> list[str]:
    return [type(answer).__name__ for answer in answers]


# ------------------------------------------------------------------------------------------ who is told what


def test_what_may_have_run_says_so(postgres: EmbeddedPostgres, dsn: str) -> None:
    """The one that ran and those behind it, in words for people; the next one is served as ever."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with shared(dsn) as pool:
                asked = asyncio.create_task(
                    errors_of(pool.fetchval(gate.query, (1,)), pool.fetch("SELECT 2"), pool.execute("SELECT 3"))
                )
                await soon(lambda: gate.held == 1 and pool.snapshot().in_flight == 3)
                end_those_at(postgres, gate)
                errors = await asked
                assert kinds(errors) == ["ConnectionLost"] * 3
                for error in errors:
                    assert isinstance(error, ConnectionLost)
                    assert isinstance(error, PoolError)
                    assert isinstance(error, psycopg.OperationalError)
                    assert "may have run" in str(error)
                    assert "idempotent=True" in str(error)
                    again = pickle.loads(pickle.dumps(error))
                    assert (type(again), str(again)) == (type(error), str(error))
                assert isinstance(errors[0].__cause__, psycopg.errors.AdminShutdown)
                assert await pool.fetchval("SELECT 4") == 4
                assert pool.snapshot().closes == {Reason.BROKEN: 1}

    run(scenario)


def test_what_was_marked_idempotent_is_answered_all_the_same(postgres: EmbeddedPostgres, dsn: str) -> None:
    """Sent again on another connection; the caller notices nothing."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with shared(dsn) as pool:
                once = asyncio.create_task(pool.fetchval("SELECT %s::int FROM pg_sleep(0)", (0,)))
                again = [
                    asyncio.create_task(pool.fetchval(gate.query, (1,), idempotent=True)),
                    asyncio.create_task(pool.fetch("SELECT %s::int", (2,), idempotent=True)),
                    asyncio.create_task(pool.fetchrow("SELECT %s::int", (3,), idempotent=True)),
                    asyncio.create_task(pool.execute("SELECT %s::int", (4,), idempotent=True)),
                ]
                await soon(lambda: gate.held == 1)
                assert await once == 0
                end_those_at(postgres, gate)
                gate.open()
                assert await asyncio.gather(*again) == [1, [(2,)], (3,), "SELECT 1"]

    run(scenario)


def test_what_was_never_sent_goes_elsewhere(postgres: EmbeddedPostgres, dsn: str) -> None:
    """Without a word, though it is not idempotent: it runs once."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with shared(dsn, multiplex=Multiplex(max_in_flight=1)) as pool:
                await make_tokens(pool)
                first = asyncio.create_task(pool.fetchval(gate.query, (1,)))
                await soon(lambda: gate.held == 1)
                others = [asyncio.create_task(insert(pool, token)) for token in range(5)]
                await soon(lambda: pool.snapshot().waiting == 5)
                end_those_at(postgres, gate)
                with pytest.raises(ConnectionLost):
                    await first
                assert await asyncio.gather(*others) == list(range(5))
                assert await runs(pool) == dict.fromkeys(range(5), 1)

    run(scenario)


def test_an_answer_that_came_with_the_loss_is_an_answer(dsn: str) -> None:
    """Read in the same moment in which the connection is found lost: complete, and as that connection made it."""

    async def scenario() -> None:
        async with shared(dsn, kwargs={"options": "-c TimeZone=Asia/Kolkata"}) as pool:
            assert await pool.fetchval("SELECT 1") == 1
            noon, killed, behind = await errors_of(
                pool.fetchval("SELECT '2024-01-01 12:00:00+05:30'::timestamptz"), pool.fetch(KILL), pool.fetch("SELECT")
            )
            assert noon.isoformat() == "2024-01-01T12:00:00+05:30"
            assert str(noon.tzinfo) == "Asia/Kolkata"
            assert kinds([killed, behind]) == ["ConnectionLost"] * 2
            assert pool.snapshot().statements == 2

    run(scenario)


def test_no_error_shows_the_password(postgres: EmbeddedPostgres, proxy: ChaosProxy, dsn: str) -> None:
    """Neither its words nor those of what caused it, however the connection was lost."""
    password = str(urlsplit(dsn).password)

    async def scenario() -> None:
        async with shared(proxy.through(dsn), size=2) as pool:
            ends: list[Callable[[], object]] = [proxy.reset, proxy.half_close, postgres.terminate_all]
            for end in ends:
                asked = asyncio.ensure_future(errors_of(pool.fetch("SELECT pg_sleep(2)"), pool.fetch("SELECT 2")))
                await soon(lambda: pool.snapshot().in_flight)
                end()
                lost = [answer for answer in await asked if isinstance(answer, Exception)]
                assert "ConnectionLost" in kinds(lost)
                for error in lost:
                    chain: BaseException | None = error
                    while chain is not None:
                        assert password not in f"{chain} {chain!r}"
                        chain = chain.__cause__ or chain.__context__
                proxy.heal()
                await served(pool)

    run(scenario)


async def served(pool: AsyncPool[Any], seconds: float = 8.0) -> None:
    """Ask until there is an answer: some may be refused at first."""
    started = time.monotonic()
    while True:
        try:
            assert await pool.fetchval("SELECT 1", timeout=1) == 1
            return
        except (PoolTimeout, ConnectionLost):
            assert time.monotonic() - started < seconds, f"not served within {seconds:g} s"
            await asyncio.sleep(0.01)


# ------------------------------------------------------------------------------------------ nothing runs twice


async def make_tokens(pool: AsyncPool[Any]) -> None:
    await pool.execute("DROP TABLE IF EXISTS tokens")
    await pool.execute("CREATE TABLE tokens (token int NOT NULL)")


async def insert(pool: AsyncPool[Any], token: int) -> int:
    """A token that tells how often its statement has run."""
    return int(await pool.fetchval("INSERT INTO tokens VALUES (%s) RETURNING token", (token,)))


async def runs(pool: AsyncPool[Any]) -> dict[int, int]:
    """How often each token's statement has run, if at all."""
    return Counter(await pool.fetch("SELECT token FROM tokens", row_factory=psycopg.rows.scalar_row))


def break_by_terminating(server: EmbeddedPostgres, proxy: ChaosProxy, random: Random) -> None:
    with server.admin() as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' ORDER BY random() LIMIT 1"
        )


def break_by_reset(server: EmbeddedPostgres, proxy: ChaosProxy, random: Random) -> None:
    proxy.reset()


def break_by_half_close(server: EmbeddedPostgres, proxy: ChaosProxy, random: Random) -> None:
    proxy.half_close()
    proxy.heal()


@pytest.mark.parametrize("fault", [break_by_terminating, break_by_reset, break_by_half_close])
@pytest.mark.parametrize("prepare_threshold", [0, None])
def test_nothing_is_run_twice(
    postgres: EmbeddedPostgres,
    proxy: ChaosProxy,
    dsn: str,
    fault: Callable[[EmbeddedPostgres, ChaosProxy, Random], None],
    prepare_threshold: int | None,
) -> None:
    """600 statements of 60 tasks, connections lost every few: answered is run once, ConnectionLost once or never,
    refused never; and each answer belongs to its question.
    """

    async def scenario() -> None:
        random = Random(6)
        options: dict[str, Any] = {"size": 3, "kwargs": {"prepare_threshold": prepare_threshold}}
        async with shared(proxy.through(dsn), **options) as pool:
            await make_tokens(pool)
            invariants = Invariants(pool._core)
            outcomes: dict[int, str] = {}

            async def some(base: int) -> None:
                for token in range(base, base + 10):
                    try:
                        assert await insert(pool, token) == token
                        outcomes[token] = "answered"
                    except ConnectionLost:
                        outcomes[token] = "lost"
                    except PoolTimeout:
                        outcomes[token] = "refused"
                        await asyncio.sleep(0.02)
                    invariants.check()

            async def trouble() -> None:
                for number in range(1, 9):
                    await soon(lambda number=number: len(outcomes) >= 60 * number)  # type: ignore[misc]
                    fault(postgres, proxy, random)

            await asyncio.gather(trouble(), *(some(10 * task) for task in range(60)))
            await served(pool)
            found = await runs(pool)
            assert len(outcomes) == 600
            assert not {token: count for token, count in found.items() if count != 1}
            assert all(found[token] == 1 for token, outcome in outcomes.items() if outcome == "answered")
            assert all(found[token] == 0 for token, outcome in outcomes.items() if outcome == "refused")
            assert "lost" in outcomes.values()
            assert "answered" in outcomes.values()
            assert pool.snapshot().in_flight == 0

    run(scenario)


def test_what_is_idempotent_is_answered_whatever_breaks(postgres: EmbeddedPostgres, dsn: str) -> None:
    """Connections end singly, each time with statements of others on them: every read is answered, and rightly."""

    async def scenario() -> None:
        async with shared(dsn, size=3) as pool:
            answered = 0

            async def some(base: int) -> None:
                nonlocal answered
                for number in range(base, base + 20):
                    assert await pool.fetchval("SELECT %s::int", (number,), idempotent=True) == number
                    answered += 1

            async def trouble() -> None:
                with postgres.admin() as admin:
                    for number in range(1, 6):
                        await soon(lambda number=number: answered >= 100 * number)  # type: ignore[misc]
                        admin.execute(
                            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' LIMIT 1"
                        )

            await asyncio.gather(trouble(), *(some(20 * task) for task in range(40)))
            assert answered == 800

    run(scenario)


@pytest.mark.parametrize("idempotent", [False, True])
def test_one_that_ends_its_connection_is_not_sent_for_ever(own_postgres: Server, idempotent: bool) -> None:
    """Three times at most, if it may be sent again at all; the pool is itself again afterwards."""

    async def scenario() -> None:
        async with shared(own_postgres().dsn) as pool:
            await pool.execute("CREATE SEQUENCE deaths")
            with pytest.raises((ConnectionLost, DatabaseUnavailable)):
                await pool.fetch(
                    "SELECT nextval('deaths'), pg_terminate_backend(pg_backend_pid())", idempotent=idempotent
                )
            await served(pool)
            deaths = await pool.fetchval("SELECT last_value FROM deaths")
            assert deaths == 1 if not idempotent else 1 < deaths <= 3

    run(scenario)


def test_an_error_of_its_own_is_not_sent_again(dsn: str) -> None:
    """Idempotent or not: the server has answered. A function that complains in the words of a lost statement, too."""

    async def scenario() -> None:
        async with shared(dsn, kwargs={"prepare_threshold": 0}) as pool:
            await pool.execute("DROP SEQUENCE IF EXISTS tries")
            await pool.execute("CREATE SEQUENCE tries")
            await pool.execute(
                "CREATE OR REPLACE FUNCTION complain(state text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN"
                " PERFORM nextval('tries'); RAISE 'no' USING ERRCODE = state; END $$"
            )
            tries = 0
            for state in ("22012", "57P01", "08006", "26000", "0A000", "40001"):
                for _ in range(3):
                    with pytest.raises(psycopg.Error) as caught:
                        await pool.fetch("SELECT complain(%s)", (state,), idempotent=True)
                    assert caught.value.sqlstate == state
                    tries += 1
            assert await pool.fetchval("SELECT last_value FROM tries") == tries
            assert pool.snapshot().connects == 1

    run(scenario)


# ------------------------------------------------------------------------------------------ the database goes away


def test_no_statement_sees_that_idle_connections_have_died(own_postgres: Server) -> None:
    """A connection that the kernel knows as dead is not shared."""

    async def scenario() -> None:
        server = own_postgres()
        async with shared(server.dsn, size=4) as pool:
            for _ in range(2):
                server.terminate_all()
                await soon(lambda: all(slot.probe(0) for slot in pool._core.idle))
                assert await asyncio.gather(*(pool.fetchval("SELECT %s::int", (n,)) for n in range(50))) == [*range(50)]
                await at_rest(pool)

    run(scenario)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_the_server_is_restarted_under_load(own_postgres: Server, mode: Any) -> None:
    """Each is answered, lost or refused while it lasts; then all is as before, and no slot is missing."""

    async def scenario() -> None:
        server = own_postgres()
        with server.admin() as admin:
            admin.execute("CHECKPOINT")  # it syncs nothing else, so that a crash would forget its role
        async with shared(server.dsn, size=2) as pool:
            stop = False
            outcomes: Counter[str] = Counter()

            async def ask() -> None:
                while not stop:
                    try:
                        assert await pool.fetchval("SELECT %s::int", (7,)) == 7
                        outcomes["answered"] += 1
                        await asyncio.sleep(0)
                    except (ConnectionLost, PoolTimeout) as error:
                        outcomes[type(error).__name__] += 1
                        await asyncio.sleep(0.02)

            tasks = [asyncio.create_task(ask()) for _ in range(30)]
            await soon(lambda: outcomes["answered"] > 100)
            await asyncio.to_thread(server.stop, mode)
            await soon(lambda: outcomes["DatabaseUnavailable"] > 30)
            await asyncio.to_thread(server.start)
            before = outcomes["answered"]
            await soon(lambda: outcomes["answered"] > before + 100)
            stop = True
            await asyncio.gather(*tasks)
            assert not pool.snapshot().database_down

    run(scenario)


def test_while_it_is_down_statements_fail_fast_with_its_error(own_postgres: Server) -> None:
    """Those that waited to be sent, too; what is idempotent is no exception."""

    async def scenario() -> None:
        server = own_postgres()
        async with shared(server.dsn) as pool:
            server.stop()
            with pytest.raises((DatabaseUnavailable, ConnectionLost)):
                await pool.fetch("SELECT 1")
            started = time.monotonic()
            errors = await errors_of(*(pool.fetch("SELECT 1", idempotent=True) for _ in range(20)))
            assert time.monotonic() - started < 1
            assert set(kinds(errors)) == {"DatabaseUnavailable"}
            assert isinstance(errors[0].__cause__, psycopg.OperationalError)
            server.start()
            await served(pool)

    run(scenario)


def test_a_server_that_ends_every_connection_is_not_met_by_everybody(own_postgres: Server) -> None:
    """After three in a row, one at a time; the rest are refused at once, and the words say why."""

    async def scenario() -> None:
        async with shared(own_postgres().dsn, size=4) as pool:
            errors = []
            for _ in range(6):
                errors += await errors_of(pool.fetch(KILL))
            assert kinds(errors[:3]) == ["ConnectionLost"] * 3
            assert "DatabaseUnavailable" in kinds(errors[3:])
            refused = next(error for error in errors if isinstance(error, DatabaseUnavailable))
            assert "ends the connections that it gives" in str(refused)
            assert pool.snapshot().sick
            await served(pool)

    run(scenario)


def test_lost_together_is_one_event(own_postgres: Server) -> None:
    """Four connections full of statements end at once, as in a failover: it is served again at once."""

    async def scenario() -> None:
        server = own_postgres()
        async with shared(server.dsn, size=4, multiplex=Multiplex(max_in_flight=2)) as pool:
            with Gate(server) as gate:
                asked = asyncio.create_task(errors_of(*(pool.fetch(gate.query, (n,)) for n in range(8))))
                await soon(lambda: gate.held == 4)
                end_those_at(server, gate)
                gate.open()  # for those that were never sent
                assert "ConnectionLost" in kinds(await asked)
            assert not pool.snapshot().sick
            assert await pool.fetchval("SELECT 1") == 1

    run(scenario)


def test_the_server_falls_silent(proxy: ChaosProxy, dsn: str) -> None:
    """A deadline ends the wait, and the connection that nobody waits for any more is given up."""

    async def scenario() -> None:
        async with shared(proxy.through(dsn), timeout=1) as pool:
            assert await pool.fetchval("SELECT 1") == 1
            proxy.silence()
            started = time.monotonic()
            errors = await errors_of(*(pool.fetch("SELECT 2", deadline=0.2) for _ in range(3)))
            assert 0.19 <= time.monotonic() - started < 1
            assert all(isinstance(error, (StatementTimeout, PoolError)) for error in errors)
            assert isinstance(errors[0], StatementTimeout)
            await soon(lambda: pool.snapshot().closes, seconds=8)  # and not when the network comes back
            proxy.heal()
            await served(pool)

    run(scenario)


def test_a_new_connection_falls_silent(proxy: ChaosProxy, dsn: str) -> None:
    """The first statement on it is no exception: by its timeout or its deadline it is told."""

    async def scenario() -> None:
        async with shared(proxy.through(dsn), size=2) as pool:
            proxy.silence()
            started = time.monotonic()
            hasty = [pool.fetch("SELECT 2", deadline=0.2) for _ in range(3)]
            for error in await errors_of(*hasty, *(pool.fetch("SELECT 2", timeout=0.2) for _ in range(3))):
                assert isinstance(error, PoolError)
            assert 0.19 <= time.monotonic() - started < 2
            await soon(lambda: pool.snapshot().closes, seconds=8)
            proxy.heal()
            await served(pool)

    run(scenario)


def test_a_new_connection_is_lost_before_it_has_answered_anything(proxy: ChaosProxy, dsn: str) -> None:
    """Whether that happens before the first statement was sent or after: each is answered, or told."""

    async def scenario() -> None:
        for steps in range(12):
            async with shared(proxy.through(dsn)) as pool:
                asked = asyncio.ensure_future(errors_of(*(pool.fetchval("SELECT %s::int", (n,)) for n in range(4))))
                for _ in range(steps):
                    await asyncio.sleep(0)
                proxy.reset()
                for number, answer in enumerate(await asyncio.wait_for(asked, 5)):
                    assert answer == number or isinstance(answer, ConnectionLost)
                await served(pool)

    run(scenario)


def test_one_that_is_to_be_sent_again_waits_no_longer_than_it_may(postgres: EmbeddedPostgres, dsn: str) -> None:
    """There is no connection for it: it times out as any request does, although nothing else happens in the pool."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with shared(dsn, size=0, max_size=1) as pool:
                asked = asyncio.create_task(pool.fetch(gate.query, (1,), idempotent=True, timeout=0.3))
                await soon(lambda: gate.held == 1)
                pool.pause()
                end_those_at(postgres, gate)
                started = time.monotonic()
                with pytest.raises(PoolTimeout):
                    await asyncio.wait_for(asked, 5)
                assert time.monotonic() - started < 1
                pool.resume()
                assert await pool.fetchval("SELECT 2") == 2

    run(scenario)


def test_lost_while_it_is_cancelled(postgres: EmbeddedPostgres, proxy: ChaosProxy, dsn: str) -> None:
    """The request to stop is under way, and the connection ends: nothing is left of either."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with shared(proxy.through(dsn)) as pool:
                for _ in range(5):
                    asked = asyncio.create_task(pool.fetch(gate.query, (1,)))
                    await soon(lambda: gate.held == 1)
                    asked.cancel()
                    await asyncio.wait([asked])
                    proxy.reset()
                    await served(pool)
                await at_rest(pool)

    run(scenario)


def test_the_figures_right_afterwards(postgres: EmbeddedPostgres, dsn: str) -> None:
    """In the moment in which the loss is told nothing is counted twice and nothing is forgotten."""

    async def scenario() -> None:
        with Gate(postgres) as gate:
            async with shared(dsn, size=2) as pool:
                invariants = Invariants(pool._core)
                asked = asyncio.create_task(errors_of(pool.fetchval(gate.query, (1,)), pool.fetchval("SELECT 2")))
                await soon(lambda: gate.held == 1)
                end_those_at(postgres, gate)
                await asked
                invariants.check()
                snapshot = pool.snapshot()
                assert (snapshot.in_flight, snapshot.waiting) == (0, 0)
                assert snapshot.open <= 2
                assert snapshot.closes == {Reason.BROKEN: 1}
                assert pool.holders() == []
                assert pool.get_stats()["returns_bad"] == 1
                await at_rest(pool)
                await soon(lambda: pool.snapshot().idle == 2)

    run(scenario)
