"""Statements that share connections, through a real PgBouncer: one too old to prepare statements, and one that can."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any, NamedTuple

import psycopg
import pytest

from penstock import AsyncPool, ConnectionLost, PoolTimeout
from penstock.drill.postgres import EmbeddedPostgres
from support.either import opened
from support.pgbouncer import PgBouncer
from support.waiting import soon

SERVERS = 2  # connections that PgBouncer has to PostgreSQL, fewer than the pool has to PgBouncer
QUESTION = "SELECT %s::int * 2"


class Kind(NamedTuple):
    """Which PgBouncer, in which mode."""

    prepares: bool
    pool_mode: Any
    max_prepared_statements: int | None = None

    def __str__(self) -> str:
        age = "since-1.21" if self.prepares else "before-1.21"
        return f"{age}-{self.pool_mode}" + ("-off" if self.max_prepared_statements == 0 else "")


OLD = [Kind(False, "transaction"), Kind(False, "statement")]
CAPABLE = [Kind(True, "transaction"), Kind(True, "statement")]
INCAPABLE = [*OLD, Kind(True, "transaction", 0)]

Start = Callable[..., PgBouncer]


@pytest.fixture
def start(postgres: EmbeddedPostgres) -> Iterator[Start]:
    """Start a PgBouncer of some kind before the session's server, for one test."""
    with ExitStack() as started:

        def enter(kind: Kind, **settings: Any) -> PgBouncer:
            if kind.max_prepared_statements is not None:
                settings["max_prepared_statements"] = kind.max_prepared_statements
            bouncer = PgBouncer(postgres, prepares=kind.prepares, pool_mode=kind.pool_mode, **settings)
            return started.enter_context(bouncer)

        yield enter


def kinds(*those: Kind) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("kind", those, ids=str)


@asynccontextmanager
async def pool_of(bouncer: PgBouncer, size: int = 3, **options: Any) -> AsyncIterator[AsyncPool[Any]]:
    async with opened(AsyncPool, bouncer.dsn, min_size=size, max_size=size, **options) as pool:
        yield pool


def server_connections(bouncer: PgBouncer) -> int:
    return len(bouncer.show("servers"))


@kinds(*OLD, *CAPABLE)
def test_each_answer_belongs_to_its_question(start: Start, kind: Kind) -> None:
    """600 statements of 200 tasks over 3 connections to PgBouncer, and its 2 to the server; some of them fail."""

    async def task(pool: AsyncPool[Any], number: int) -> int:
        failed = 0
        for question in range(3 * number, 3 * number + 3):
            if question % 50 == 7:
                with pytest.raises(psycopg.errors.DivisionByZero):
                    await pool.fetchval("SELECT 1 / (%s::int - %s)", (question, question))
                failed += 1
            else:
                assert await pool.fetchval(QUESTION, (question,)) == 2 * question
        return failed

    async def scenario() -> None:
        bouncer = start(kind, default_pool_size=SERVERS)
        async with pool_of(bouncer) as pool:
            assert sum(await asyncio.gather(*(task(pool, number) for number in range(200)))) == 12
            assert server_connections(bouncer) <= SERVERS

    asyncio.run(scenario())


@kinds(*CAPABLE)
def test_statements_are_prepared_behind_one_that_carries_them(start: Start, kind: Kind) -> None:
    async def scenario() -> None:
        async with pool_of(start(kind, default_pool_size=1), size=2) as pool:
            for number in range(20):
                assert await pool.fetchval("SELECT %s::int + 20000", (number,)) == number + 20000
            names = "SELECT name FROM pg_prepared_statements WHERE statement = 'SELECT $1::int + 20000'"
            assert str(await pool.fetchval(names)).startswith("PGBOUNCER_")

    asyncio.run(scenario())


@kinds(*INCAPABLE)
def test_nothing_is_prepared_behind_one_that_cannot(start: Start, kind: Kind) -> None:
    """Not even what finding that out has prepared is left in the sessions that all its clients share."""

    async def scenario() -> None:
        async with pool_of(start(kind, default_pool_size=1), size=2) as pool:
            for number in range(20):
                assert await pool.fetchval("SELECT %s::int + 30000", (number,)) == number + 30000
            assert await pool.fetchval("SELECT count(*) FROM pg_prepared_statements") == 0

    asyncio.run(scenario())


@kinds(*OLD, *CAPABLE)
def test_two_pools_behind_one_server_connection_are_told_apart(start: Start, kind: Kind) -> None:
    """Each has statements of its own, which it would prepare under the same names."""

    async def asked(pool: AsyncPool[Any], text: str, offset: int) -> None:
        for round_ in range(10):
            numbers = range(20 * round_, 20 * round_ + 20)
            answers = await asyncio.gather(*(pool.fetchval(text, (number,)) for number in numbers))
            assert answers == [number + offset for number in numbers]

    async def scenario() -> None:
        bouncer = start(kind, default_pool_size=1)
        async with pool_of(bouncer, 1) as one, pool_of(bouncer, 1) as other:
            await asyncio.gather(asked(one, "SELECT %s::int + 1", 1), asked(other, "SELECT %s::int + 2", 2))
            assert server_connections(bouncer) == 1

    asyncio.run(scenario())


@kinds(CAPABLE[0])
def test_more_statements_are_prepared_than_it_keeps(start: Start, kind: Kind) -> None:
    """It forgets and prepares anew behind the scenes; and so do we, once psycopg's `prepared_max` is passed."""

    async def scenario() -> None:
        async def few(conn: psycopg.AsyncConnection[Any]) -> None:
            conn.prepared_max = 20

        async with pool_of(start(kind, default_pool_size=1, max_prepared_statements=5), 1, configure=few) as pool:
            for _ in range(10):
                texts = range(30)
                answers = await asyncio.gather(*(pool.fetchval(f"SELECT %s::int + {n}", (n,)) for n in texts))
                assert answers == [2 * n for n in texts]

    asyncio.run(scenario())


@kinds(OLD[0], CAPABLE[0])
def test_a_statement_that_is_wrong_while_it_is_prepared_takes_nobody_along(start: Start, kind: Kind) -> None:
    """To give one name twice, or to use one that it does not know, would cost the connection and all that is on it."""

    async def scenario() -> None:
        bouncer = start(kind, default_pool_size=1)
        async with pool_of(bouncer, 1, kwargs={"prepare_threshold": 0}) as pool:
            await pool.fetchval("SELECT 1")

            async def wrong(text: str) -> None:
                with pytest.raises(psycopg.errors.UndefinedTable):
                    await pool.fetchval(text)

            async def right(number: int) -> None:
                assert await pool.fetchval(QUESTION, (number,)) == 2 * number

            for _ in range(3):
                await asyncio.gather(*(job for n in range(20) for job in (wrong("SELECT a FROM nowhere"), right(n))))
            assert pool.snapshot().connects == 1

    asyncio.run(scenario())


@kinds(OLD[0], CAPABLE[0])
def test_killed_and_started_again_no_statement_runs_twice(start: Start, postgres: EmbeddedPostgres, kind: Kind) -> None:
    """Those whose answer has come have run once, those that are lost once or not at all, and no error is any other."""
    acknowledged: set[int] = set()
    lost: set[int] = set()

    async def writes(pool: AsyncPool[Any], numbers: Iterator[int], over: asyncio.Event) -> None:
        while not over.is_set():
            number = next(numbers)
            try:
                assert await pool.execute("INSERT INTO ledger_of_bouncer VALUES (%s)", (number,)) == "INSERT 0 1"
            except ConnectionLost:
                lost.add(number)
            except PoolTimeout:  # it never left
                await asyncio.sleep(0.01)
            else:
                acknowledged.add(number)

    async def scenario() -> None:
        bouncer, over, numbers = start(kind), asyncio.Event(), iter(range(10**9))
        async with pool_of(bouncer) as pool:
            tasks = [asyncio.create_task(writes(pool, numbers, over)) for _ in range(50)]
            await soon(lambda: len(acknowledged) > 500)
            bouncer.kill()
            await soon(lambda: lost)
            before = len(acknowledged)
            bouncer.start()
            await soon(lambda: len(acknowledged) > before + 500)
            over.set()
            await asyncio.gather(*tasks)

    with postgres.admin() as admin:
        admin.execute("CREATE TABLE ledger_of_bouncer (number int)")
        admin.execute("GRANT ALL ON ledger_of_bouncer TO app")
        try:
            asyncio.run(scenario())
            ran = Counter(number for (number,) in admin.execute("SELECT number FROM ledger_of_bouncer").fetchall())
        finally:
            admin.execute("DROP TABLE ledger_of_bouncer")
    assert max(ran.values()) == 1
    assert acknowledged <= ran.keys() <= acknowledged | lost


@kinds(OLD[1], CAPABLE[1])
def test_killed_meanwhile_a_statement_that_may_run_twice_is_answered_all_the_same(start: Start, kind: Kind) -> None:
    async def scenario() -> None:
        bouncer = start(kind)
        async with pool_of(bouncer) as pool:
            asked = [asyncio.create_task(pool.fetchval("SELECT pg_sleep(0.2)", idempotent=True)) for _ in range(3)]
            await soon(lambda: pool.snapshot().in_flight >= 1)
            bouncer.kill()
            bouncer.start()
            assert await asyncio.gather(*asked) == ["", "", ""]

    asyncio.run(scenario())


@kinds(OLD[0], CAPABLE[0])
def test_when_the_server_ends_its_sessions_those_on_them_are_told_that_they_may_have_run(
    start: Start, own_postgres: Callable[..., EmbeddedPostgres], kind: Kind
) -> None:
    """PgBouncer says so in an answer to the statement, like the server's own errors, and then hangs up."""

    async def scenario(server: EmbeddedPostgres, bouncer: PgBouncer) -> None:
        async with pool_of(bouncer) as pool:
            asked = asyncio.create_task(pool.fetchval("SELECT pg_sleep(10)"))
            await soon(lambda: any(row["state"] == "active" for row in bouncer.show("servers")))
            server.terminate_all()
            with pytest.raises(ConnectionLost):
                await asked
            assert await pool.fetchval(QUESTION, (21,)) == 42

    server = own_postgres()
    with PgBouncer(server, prepares=kind.prepares, pool_mode=kind.pool_mode) as bouncer:
        asyncio.run(scenario(server, bouncer))


@kinds(*OLD, *CAPABLE)
def test_one_who_no_longer_waits_takes_nobody_along(start: Start, kind: Kind) -> None:
    async def scenario() -> None:
        bouncer = start(kind, default_pool_size=1)
        async with pool_of(bouncer, 1) as pool:
            slow = asyncio.create_task(pool.fetchval("SELECT pg_sleep(0.1)"))
            others = [asyncio.create_task(pool.fetchval(QUESTION, (number,))) for number in range(50)]
            await soon(lambda: any(row["state"] == "active" for row in bouncer.show("servers")))
            slow.cancel()
            assert await asyncio.gather(*others) == [2 * number for number in range(50)]
            with pytest.raises(asyncio.CancelledError):
                await slow

    asyncio.run(scenario())


@kinds(*OLD, *CAPABLE)
def test_others_behind_it_get_their_turn(start: Start, kind: Kind) -> None:
    """It hands a server connection on once all that was sent is answered, so a busy pool must pause now and then."""

    async def scenario() -> None:
        bouncer, over = start(kind, default_pool_size=1), asyncio.Event()

        async def keep_busy() -> None:
            while not over.is_set():
                await pool.fetchval("SELECT pg_sleep(0.001)")

        async with pool_of(bouncer, 1) as pool, pool_of(bouncer, 1) as other:
            busy = [asyncio.create_task(keep_busy()) for _ in range(8)]
            await soon(lambda: pool.snapshot().statements > 50)
            try:
                for number in range(5):
                    assert await asyncio.wait_for(other.fetchval(QUESTION, (number,)), 1) == 2 * number
            finally:
                over.set()
                await asyncio.gather(*busy)

    asyncio.run(scenario())


@kinds(*OLD, *CAPABLE)
def test_connections_are_leased_beside(start: Start, kind: Kind) -> None:
    """With what PgBouncer's mode allows: transactions, or statements one by one."""

    async def leased(pool: AsyncPool[Any], number: int) -> None:
        async with pool.connection() as conn:
            if kind.pool_mode == "transaction":
                async with conn.transaction():
                    first, again = [await conn.execute("SELECT txid_current()") for _ in range(2)]
                    assert await first.fetchone() == await again.fetchone()
            cursor = await conn.execute(QUESTION, (number,))
            assert await cursor.fetchone() == (2 * number,)

    async def shared(pool: AsyncPool[Any], number: int) -> None:
        assert await pool.fetchval(QUESTION, (number,)) == 2 * number

    async def scenario() -> None:
        bouncer = start(kind, default_pool_size=SERVERS)
        # Its own cursors prepare statements under names that all clients of an old one would share.
        kwargs = {"autocommit": True, "prepare_threshold": 0 if kind.prepares else None}
        async with pool_of(bouncer, kwargs=kwargs) as pool:
            await asyncio.gather(*(job(pool, number) for number in range(60) for job in (leased, shared)))

    asyncio.run(scenario())
