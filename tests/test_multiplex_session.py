"""A shared session stays as it is: what would change it is refused, what was prepared in it is kept in bounds, and
whoever borrows it finds nothing of it.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import scalar_row

from penstock import AsyncPool, NotStandalone, PoolError
from penstock.core import Reason
from penstock.drill.postgres import EmbeddedPostgres
from support.either import opened
from support.statements import at_rest, shared
from support.waiting import soon

AT_ONCE: dict[str, Any] = {"kwargs": {"prepare_threshold": 0}}
PREPARED = "SELECT statement FROM pg_prepared_statements"


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


async def prepared(pool: AsyncPool[Any]) -> list[str]:
    """What is prepared in the session of a pool's one connection, apart from this question."""
    async with pool.connection() as conn:
        cursor = conn.cursor(row_factory=scalar_row)
        found = await (await cursor.execute(PREPARED, prepare=False)).fetchall()
    return [text for text in found if "penstock" not in text and "set_config" not in text]


# ------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("ask", ["fetch", "fetchrow", "fetchval", "execute"])
@pytest.mark.parametrize(
    "query",
    ["SET work_mem = '7MB'", "BEGIN", "LISTEN news", "CREATE TEMP TABLE t (a int)", "SELECT pg_advisory_lock(1)"],
)
def test_what_would_change_the_session_is_not_sent(dsn: str, ask: str, query: str) -> None:
    """Refused before anything is asked of a connection, in words that name the place for it."""

    async def scenario() -> None:
        async with shared(dsn, name="mine") as pool:
            for form in (query, query.encode(), sql.SQL(query)):
                with pytest.raises(NotStandalone) as caught:
                    await getattr(pool, ask)(form)
                message = str(caught.value)
                assert message.startswith("mine: this statement ")
                assert "pool.connection()" in message
                assert query in message
                assert isinstance(caught.value, psycopg.ProgrammingError)
                assert isinstance(caught.value, PoolError)
            assert (pool.snapshot().uses, pool.snapshot().requests) == (0, 0)

    run(scenario)


def test_what_is_refused_works_in_the_place_that_is_named(dsn: str) -> None:
    async def scenario() -> None:
        async with shared(dsn) as pool:
            async with pool.connection() as conn:
                await conn.execute("CREATE TEMP TABLE mine (a int) ON COMMIT DROP")
                await conn.execute("INSERT INTO mine VALUES (1)")
            with pytest.raises(psycopg.errors.UndefinedTable):
                await pool.fetch("SELECT * FROM mine")

    run(scenario)


def test_a_refusal_shows_no_password(dsn: str) -> None:
    async def scenario() -> None:
        async with shared(dsn) as pool:
            with pytest.raises(NotStandalone) as caught:
                await pool.execute("BEGIN; ALTER ROLE app PASSWORD 'geheim'")
            assert "geheim" not in f"{caught.value} {caught.value!r}"

    run(scenario)


def test_refused_ones_disturb_nobody(dsn: str) -> None:
    """Among 200 others on the same connection."""

    async def scenario() -> None:
        async with shared(dsn) as pool:

            async def ask(number: int) -> int:
                if number % 3 == 0:
                    with pytest.raises(NotStandalone):
                        await pool.fetch("BEGIN")
                    return number
                return int(await pool.fetchval("SELECT %s::int", (number,)))

            assert await asyncio.gather(*(ask(number) for number in range(200))) == list(range(200))

    run(scenario)


# ------------------------------------------------------------------------------------------ each its own transaction


def test_each_is_a_transaction_of_its_own(dsn: str) -> None:
    """Though they are sent together: an error takes nobody else's write with it, and no two share a transaction."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            await pool.execute("DROP TABLE IF EXISTS alone")
            await pool.execute("CREATE TABLE alone (number int PRIMARY KEY)")
            inserts = [pool.execute("INSERT INTO alone VALUES (%s)", (number // 2,)) for number in range(40)]
            outcomes = await asyncio.gather(*inserts, return_exceptions=True)
            assert outcomes[::2] == ["INSERT 0 1"] * 20
            assert {type(error) for error in outcomes[1::2]} == {psycopg.errors.UniqueViolation}
            assert await pool.fetchval("SELECT count(*) FROM alone") == 20
            transactions = await asyncio.gather(
                *(pool.fetchval("SELECT pg_current_xact_id()::text") for _ in range(30))
            )
            assert len(set(transactions)) == 30

    run(scenario)


def test_whoever_borrows_the_connection_finds_it_as_ever(dsn: str) -> None:
    """No pipeline mode, no transaction, and nobody else's statement in between."""

    async def scenario() -> None:
        where = "SELECT pg_current_xact_id()::text, pg_backend_pid(), %s"
        async with shared(dsn, size=2, **AT_ONCE) as pool:
            stop = False

            async def statements(number: int) -> None:
                while not stop:
                    assert await pool.fetchval("SELECT %s::int", (number,)) == number

            async def borrow(number: int) -> None:
                for _ in range(10):
                    async with pool.connection() as conn:
                        assert conn.pgconn.pipeline_status == PipelineStatus.OFF
                        assert conn.pgconn.transaction_status == TransactionStatus.IDLE
                        assert (conn.autocommit, conn.row_factory) == (False, psycopg.rows.tuple_row)
                        cursor = await conn.execute(where, (number,))
                        first = await cursor.fetchone()
                        await asyncio.sleep(0)
                        cursor = await conn.execute(where, (number,))
                        assert await cursor.fetchone() == first
                        async with conn.pipeline():
                            cursor = await conn.execute("SELECT 5")
                            assert await cursor.fetchone() == (5,)

            tasks = [asyncio.create_task(statements(number)) for number in range(20)]
            await asyncio.gather(*(borrow(number) for number in range(6)))
            stop = True
            await asyncio.gather(*tasks)
            assert pool.snapshot().closes == {}

    run(scenario)


def test_what_a_borrower_sets_no_statement_sees(dsn: str) -> None:
    """Settings, factories, handlers, autocommit: they are gone with the block."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            async with pool.connection() as conn:
                await conn.set_autocommit(True)
                conn.row_factory = scalar_row
                conn.prepare_threshold = 0
                await conn.execute("SET work_mem = '7MB'")
                await conn.execute("SET TIME ZONE 'Asia/Kolkata'")
                await conn.execute("SET default_transaction_read_only = on")
            assert await pool.fetch("SHOW work_mem") != [("7MB",)]
            assert (await pool.fetchval("SELECT now()")).utcoffset().total_seconds() == 0
            await pool.execute("CREATE TABLE IF NOT EXISTS writable (a int)")
            await pool.execute("INSERT INTO writable VALUES (1)")
            await pool.fetch("SELECT 3")
            await pool.fetch("SELECT 3")
            assert "SELECT 3" not in await prepared(pool)

    run(scenario)


# ------------------------------------------------------------------------------------------ changed all the same

TO_INDIA = "SELECT move_to_india()"


async def let_it_be_moved(pool: AsyncPool[Any]) -> None:
    """A function that changes the session, which its call does not show."""
    await pool.execute(
        "CREATE OR REPLACE FUNCTION move_to_india() RETURNS text LANGUAGE sql"
        " AS $$ SELECT set_config('TimeZone', 'Asia/Kolkata', false) $$"
    )


def test_a_session_that_a_function_has_changed_is_not_used_again(dsn: str) -> None:
    """It is closed, with its reason; whoever comes next gets another."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            await let_it_be_moved(pool)
            before = await pool.fetchval("SHOW TimeZone")
            for number in range(1, 4):
                await pool.fetch(TO_INDIA)
                await at_rest(pool)
                assert await pool.fetchval("SHOW TimeZone") == before
                assert pool.snapshot().closes == {Reason.UNCLEAN: number}

    run(scenario)


def test_it_is_not_used_much_longer_under_load_either(dsn: str) -> None:
    """Although its connection never runs empty by itself."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            await let_it_be_moved(pool)
            before = await pool.fetchval("SHOW TimeZone")
            zones: list[str] = []
            stop = False

            async def ask() -> None:
                while not stop:
                    zones.append(await pool.fetchval("SHOW TimeZone"))

            tasks = [asyncio.create_task(ask()) for _ in range(20)]
            await soon(lambda: len(zones) > 50)
            await pool.fetch(TO_INDIA)
            so_far = len(zones)
            await soon(lambda: len(zones) > so_far + 2000)
            stop = True
            await asyncio.gather(*tasks)
            assert zones[-200:] == [before] * 200
            assert pool.snapshot().closes[Reason.UNCLEAN] == 1

    run(scenario)


def test_what_is_set_for_the_statement_alone_does_no_harm(dsn: str) -> None:
    """set_config with is_local: gone with its transaction, and its connection stays."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            for _ in range(5):
                assert await pool.fetchval("SELECT set_config('TimeZone', 'Asia/Kolkata', true)") == "Asia/Kolkata"
                assert await pool.fetchval("SHOW TimeZone") != "Asia/Kolkata"
            await at_rest(pool)
            assert pool.snapshot().closes == {}

    run(scenario)


def test_a_server_that_turns_read_only(own_postgres: Callable[..., EmbeddedPostgres]) -> None:
    """Whose write is refused is told so; connections are replaced, and serve when it writes again."""

    async def scenario() -> None:
        server = own_postgres()
        async with shared(server.dsn, size=2) as pool:
            await pool.execute("CREATE TABLE notes (a int)")
            with server.admin() as admin:
                admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
                admin.execute("SELECT pg_reload_conf()")
            refused = 0
            while Reason.READ_ONLY not in pool.snapshot().closes and refused < 200:
                with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                    while True:
                        await pool.execute("INSERT INTO notes VALUES (1)")
                refused += 1
            with server.admin() as admin:
                admin.execute("ALTER SYSTEM RESET default_transaction_read_only")
                admin.execute("SELECT pg_reload_conf()")
            for _ in range(200):
                try:
                    assert await pool.execute("INSERT INTO notes VALUES (1)") == "INSERT 0 1"
                    break
                except psycopg.errors.ReadOnlySqlTransaction:
                    await asyncio.sleep(0.01)
            else:
                raise AssertionError("still read-only")

    run(scenario)


def test_notices_reach_the_connection_s_handler(dsn: str) -> None:
    """As `configure` has set it."""
    heard: list[str | None] = []

    async def configure(conn: Any) -> None:
        conn.add_notice_handler(lambda diagnostic: heard.append(diagnostic.message_primary))

    async def scenario() -> None:
        async with shared(dsn, configure=configure) as pool:
            await pool.execute(
                "CREATE OR REPLACE FUNCTION mutter(word text) RETURNS int LANGUAGE plpgsql"
                " AS $$ BEGIN RAISE NOTICE '%', word; RETURN 1; END $$"
            )
            heard.clear()
            await asyncio.gather(*(pool.fetch("SELECT mutter(%s)", (str(number),)) for number in range(5)))
            assert heard == [str(number) for number in range(5)]

    run(scenario)


# ------------------------------------------------------------------------------------------ prepared statements


@pytest.mark.parametrize("threshold", [0, 1, 5])
def test_a_statement_is_prepared_after_so_many_uses(dsn: str, threshold: int) -> None:
    """psycopg's own setting, and with its meaning; once in all, however often it is used."""

    async def scenario() -> None:
        async with shared(dsn, kwargs={"prepare_threshold": threshold}) as pool:
            await pool.fetch("SELECT")  # with the first one it finds out whether it can prepare at all
            for used in range(1, threshold + 4):
                assert await pool.fetchval("SELECT %s::int + 1", (used,)) == used + 1
                names = await prepared(pool)
                assert names.count("SELECT $1::int + 1") == (used > threshold)

    run(scenario)


def test_five_is_what_psycopg_has(dsn: str) -> None:
    async def scenario() -> None:
        async with shared(dsn) as pool:
            await pool.fetch("SELECT")
            for used in range(1, 8):
                await pool.fetchval("SELECT %s::int + 2", (used,))
                assert ("SELECT $1::int + 2" in await prepared(pool)) == (used > 5)

    run(scenario)


def test_none_prepares_nothing(dsn: str) -> None:
    async def scenario() -> None:
        async with shared(dsn, kwargs={"prepare_threshold": None}) as pool:
            for number in range(30):
                assert await pool.fetchval("SELECT %s::int", (number,), deadline=5) == number
            async with pool.connection() as conn:
                cursor = await conn.execute("SELECT count(*) FROM pg_prepared_statements")
                assert await cursor.fetchone() == (0,)

    run(scenario)


def test_each_type_of_parameter_is_prepared_apart(dsn: str) -> None:
    """A text for a number, None, a large number: each as psycopg sends it, and the answers of each its own."""

    async def scenario() -> None:
        async with shared(dsn, **AT_ONCE) as pool:
            values: list[Any] = [1, 10**6, 10**12, 10**30, 1.5, None, b"1", True]
            for _ in range(3):
                answers = await asyncio.gather(*(pool.fetchval("SELECT %s", (value,)) for value in values))
                assert answers == values
                assert list(map(type, answers))[4:] == list(map(type, values))[4:]

    run(scenario)


@pytest.mark.parametrize("most", [0, 1, 3])
def test_no_more_are_kept_prepared_than_prepared_max(dsn: str, most: int) -> None:
    """The last used stay; the others are deallocated, however many texts come."""

    async def configure(conn: Any) -> None:
        conn.prepared_max = most

    async def scenario() -> None:
        async with shared(dsn, configure=configure, **AT_ONCE) as pool:
            for number in range(40):
                assert await pool.fetchval(f"SELECT {number % 13}") == number % 13
            assert len(await prepared(pool)) <= most
            answers = await asyncio.gather(*(pool.fetchval(f"SELECT {number}") for number in range(100)))
            assert answers == list(range(100))
            assert len(await prepared(pool)) <= most

    run(scenario)


def test_a_thousand_texts_leave_no_more_than_a_hundred(dsn: str) -> None:
    """psycopg's default."""

    async def scenario() -> None:
        async with shared(dsn, **AT_ONCE) as pool:
            await asyncio.gather(*(pool.fetchval(f"SELECT {number}") for number in range(1000)))
            assert 0 < len(await prepared(pool)) <= 100

    run(scenario)


@pytest.mark.parametrize("forget", ["DEALLOCATE ALL", "DISCARD ALL", "DISCARD PLANS"])
def test_a_borrower_who_has_the_session_forget_does_no_harm(dsn: str, forget: str) -> None:
    """Whether one statement comes afterwards or many at once: nobody hears of it."""

    async def scenario() -> None:
        async with shared(dsn, **AT_ONCE) as pool:
            for at_once in (1, 30, 30):
                for number in range(3):
                    assert await pool.fetchval("SELECT %s::int", (number,)) == number
                async with pool.connection() as conn:
                    await conn.set_autocommit(True)
                    await conn.execute(forget)
                asked = [pool.fetchval("SELECT %s::int", (number,)) for number in range(at_once)]
                limited = [pool.fetchval("SELECT %s::int", (number,), deadline=5) for number in range(at_once)]
                assert await asyncio.gather(*asked, *limited) == [*range(at_once)] * 2
            for number in range(3):
                await pool.fetchval("SELECT %s::int", (number,))
            assert (await prepared(pool)).count("SELECT $1::int") == 1

    run(scenario)


def test_a_statement_that_writes_is_not_run_twice_for_it(dsn: str) -> None:
    """Its name is gone, so it has not run: it runs now, once."""

    async def scenario() -> None:
        async with shared(dsn, **AT_ONCE) as pool:
            await pool.execute("DROP TABLE IF EXISTS inserted")
            await pool.execute("CREATE TABLE inserted (number int)")
            for base in range(0, 100, 20):
                numbers = range(base, base + 20)
                await asyncio.gather(*(pool.execute("INSERT INTO inserted VALUES (%s)", (n,)) for n in numbers))
                async with pool.connection() as conn:
                    await conn.execute("DEALLOCATE ALL")
            assert await pool.fetchrow("SELECT count(*), count(DISTINCT number) FROM inserted") == (100, 100)

    run(scenario)


def test_a_table_that_is_altered_in_between(dsn: str) -> None:
    """What was prepared does not fit any more: each gets the new columns, and the old plans do not pile up."""

    async def scenario() -> None:
        async with shared(dsn, **AT_ONCE) as pool:
            await pool.execute("DROP TABLE IF EXISTS growing")
            await pool.execute("CREATE TABLE growing (a int)")
            await pool.execute("INSERT INTO growing VALUES (1)")
            for columns in range(1, 6):
                rows = await asyncio.gather(*(pool.fetchrow("SELECT * FROM growing") for _ in range(20)))
                assert {len(row) for row in rows} == {columns}
                await pool.execute(f"ALTER TABLE growing ADD COLUMN b{columns} int DEFAULT 5")
                rows = await asyncio.gather(*(pool.fetchrow("SELECT * FROM growing") for _ in range(20)))
                assert {len(row) for row in rows} == {columns + 1}
                assert (await prepared(pool)).count("SELECT * FROM growing") <= 1

    run(scenario)


def test_what_cannot_be_prepared_is_its_caller_s_error(dsn: str) -> None:
    """20 at once, between good ones: each has its own; and when there is such a table, the same text works."""

    async def scenario() -> None:
        async with shared(dsn, **AT_ONCE) as pool:
            await pool.execute("DROP TABLE IF EXISTS not_yet")
            for query, error in {
                "SELECT a FROM not_yet": psycopg.errors.UndefinedTable,
                "SELECT 1 +": psycopg.errors.SyntaxError,
                "SELECT 'x'::int": psycopg.errors.InvalidTextRepresentation,
            }.items():
                for _ in range(2):
                    bad = [pool.fetch(query) for _ in range(20)]
                    good = [pool.fetchval("SELECT %s::int", (number,)) for number in range(20)]
                    mixed = [one for pair in zip(bad, good, strict=True) for one in pair]
                    answers = await asyncio.gather(*mixed, return_exceptions=True)
                    assert {type(answer) for answer in answers[::2]} == {error}
                    assert answers[1::2] == list(range(20))
            await pool.execute("CREATE TABLE not_yet AS SELECT 5 AS a")
            for _ in range(3):
                assert await pool.fetch("SELECT a FROM not_yet") == [(5,)]

    run(scenario)


def test_what_fails_while_it_runs_stays_prepared(dsn: str) -> None:
    async def scenario() -> None:
        async with shared(dsn, **AT_ONCE) as pool:
            for number in range(10):
                if number % 2:
                    assert await pool.fetchval("SELECT 10 / %s::int", (number,)) == 10 // number
                else:
                    with pytest.raises(psycopg.errors.DivisionByZero):
                        await pool.fetchval("SELECT 10 / %s::int", (0,))
            assert (await prepared(pool)).count("SELECT 10 / $1::int") == 1

    run(scenario)


def test_what_a_borrower_has_prepared_is_kept_apart(dsn: str) -> None:
    """The same text, prepared by psycopg for a borrower and by the pool for those who share, in one session."""

    async def scenario() -> None:
        async with shared(dsn, **AT_ONCE) as pool:
            for number in range(4):
                async with pool.connection() as conn:
                    cursor = await conn.execute("SELECT %s::int * 3", (number,), prepare=True)
                    assert await cursor.fetchone() == (3 * number,)
                assert await pool.fetchval("SELECT %s::int * 3", (number,)) == 3 * number
            assert (await prepared(pool)).count("SELECT $1::int * 3") == 2

    run(scenario)


def test_a_mapping_s_order_is_no_matter_to_what_is_prepared(dsn: str) -> None:
    """Named parameters, in another order and repeated, each time."""

    async def scenario() -> None:
        async with shared(dsn, **AT_ONCE) as pool:
            for number in range(12):
                names = {"a": number, "b": str(number), "unused": object()}
                if number % 2:
                    names = dict(reversed(names.items()))
                row = await pool.fetchrow("SELECT %(a)s::int, %(b)s::text, %(a)s::int", names)
                assert row == (number, str(number), number)
            assert len(await prepared(pool)) == 1

    run(scenario)


def test_a_pool_that_shares_and_closes_leaves_no_session_behind(postgres: EmbeddedPostgres, dsn: str) -> None:
    """Also in the midst of statements."""

    async def scenario() -> None:
        async with opened(AsyncPool, f"{dsn}&application_name=leaver", min_size=3, **AT_ONCE) as pool:
            asked = asyncio.gather(*(pool.fetchval("SELECT %s::int", (n,)) for n in range(300)), return_exceptions=True)
            await soon(lambda: pool.snapshot().in_flight)
            await pool.close()
            for number, answer in enumerate(await asked):
                assert answer == number or isinstance(answer, PoolError)
        with postgres.admin() as admin:
            row = admin.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'leaver'").fetchone()
        assert row == (0,)

    run(scenario)
