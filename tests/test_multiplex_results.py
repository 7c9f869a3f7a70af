"""What statements that share connections give is what a cursor of psycopg's gives, errors included."""

import asyncio
import datetime as dt
import decimal
import ipaddress
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg import sql
from psycopg.adapt import Dumper
from psycopg.rows import args_row, class_row, dict_row, kwargs_row, namedtuple_row, scalar_row, tuple_row
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.json import Json, Jsonb
from psycopg.types.range import Range

from penstock import AsyncPool, NotStandalone
from support.statements import shared

Pool = AsyncPool[Any]


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


async def by_cursor(pool: Pool, query: Any, params: Any = None, row_factory: Any = None) -> list[Any]:
    """The rows as a cursor of a borrowed connection gives them."""
    async with pool.connection() as conn:
        cursor = conn.cursor(row_factory=row_factory) if row_factory else conn.cursor()
        rows: list[Any] = await (await cursor.execute(query, params)).fetchall()
    return rows


async def error_of(work: Awaitable[Any]) -> Exception:
    with pytest.raises(Exception) as caught:
        await work
    return caught.value


async def same(pool: Pool, query: Any, params: Any = None) -> list[Any]:
    """Rows that are equal to a cursor's, in value and in type: at first, again, and prepared."""
    expected = await by_cursor(pool, query, params)
    for _ in range(7):
        rows = await pool.fetch(query, params)
        assert rows == expected
        assert [list(map(type, row)) for row in rows] == [list(map(type, row)) for row in expected]
    return expected


# ------------------------------------------------------------------------------------------ values

VALUES: dict[str, Any] = {
    "small": 1,
    "int4": 2**20,
    "int8": 2**40,
    "beyond": 2**70,
    "negative": -5,
    "float": 1.5,
    "nan": float("inf"),
    "numeric": decimal.Decimal("12345678901234567890.000001"),
    "text": "Grüße, 世界 \U0001f40d 'quoted' \\ %s %%",
    "empty": "",
    "bytea": b"\x00\xff\\'",
    "memoryview": bytearray(b"abc"),
    "true": True,
    "null": None,
    "date": dt.date(2024, 2, 29),
    "time": dt.time(12, 30, 15, 123456),
    "timestamp": dt.datetime(2024, 2, 29, 12, 30, 15, 123456),
    "timestamptz": dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30))),
    "interval": dt.timedelta(days=3, seconds=7, microseconds=11),
    "uuid": uuid.UUID(int=7),
    "inet": ipaddress.ip_address("192.0.2.7"),
    "list": [1, 2, 3],
    "texts": ["a", None, 'b"c'],
    "nested": [[1, 2], [3, 4]],
    "no elements": [],
    "json": Json({"a": [1, None, "ü"]}),
    "jsonb": Jsonb({"a": [1, None, "ü"]}),
    "range": Range(1, 5),
}


@pytest.mark.parametrize("which", VALUES)
def test_values_there_and_back(dsn: str, which: str) -> None:
    async def scenario() -> None:
        async with shared(dsn) as pool:
            await same(pool, "SELECT %s, %s", (VALUES[which],) * 2)

    run(scenario)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1, NULL, 'x', 1.50, 1e10::float8, true",
        "SELECT ARRAY[1, NULL, 3], ARRAY['a', 'b'], ARRAY[[1], [2]], '{}'::int[]",
        """SELECT '{"a": [1, null]}'::json, '{"a": [1, null]}'::jsonb, 'null'::jsonb""",
        "SELECT 'abc'::bytea, ''::bytea, 'x'::\"char\", 'name'::name",
        "SELECT 'Infinity'::numeric, 0.00::numeric(10, 2), 123456789012345678901234567890",
        "SELECT '2024-02-29'::date, '12:30'::time, '12:30+02'::timetz, '3 days 04:05:06'::interval",
        "SELECT '2024-02-29 12:30'::timestamp, '2024-02-29 12:30+05:30'::timestamptz, ARRAY[timestamptz 'epoch']",
        "SELECT '[1,5)'::int4range, '{[1,2),[3,4)}'::int4multirange, '192.0.2.0/24'::cidr",
        "SELECT (1, 'a', NULL), ROW(1.5), ''::void",
        "VALUES (1, 'a'), (2, NULL), (NULL, 'c')",
        "SELECT i, repeat('x', i % 7) FROM generate_series(1, 500) i",
        "SELECT 1 AS a, 2 AS a, 3",
        "SELECT 1 WHERE false",
        "SELECT",
        "SELECT FROM generate_series(1, 3)",
        "TABLE pg_database",
        "SHOW server_version",
        "EXPLAIN SELECT 1",
        "WITH a AS (SELECT 1) SELECT * FROM a",
    ],
)
def test_rows_of_every_kind(dsn: str, query: str) -> None:
    async def scenario() -> None:
        async with shared(dsn) as pool:
            await same(pool, query)

    run(scenario)


@pytest.mark.parametrize("rows", [0, 1, 2, 63, 64, 65, 127, 128, 129, 1000])
def test_any_number_of_rows_in_their_order(dsn: str, rows: int) -> None:
    """In however many parts they come."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            for row_factory, expected in {
                scalar_row: list(range(rows)),
                tuple_row: [(number,) for number in range(rows)],
                dict_row: [{"i": number} for number in range(rows)],
            }.items():
                query = "SELECT i FROM generate_series(0, %s - 1) i"
                assert await pool.fetch(query, (rows,), row_factory=row_factory) == expected
                assert await pool.fetchrow(query, (rows,), row_factory=row_factory) == (expected or [None])[0]
            assert await pool.fetchval(query, (rows,)) == (0 if rows else None)
            assert await pool.execute(query, (rows,)) == f"SELECT {rows}"

    run(scenario)


def test_the_session_s_time_zone_is_that_of_its_values(dsn: str) -> None:
    async def scenario() -> None:
        async with shared(dsn, kwargs={"options": "-c TimeZone=Asia/Kolkata"}) as pool:
            (noon,) = (await same(pool, "SELECT '2024-02-29 12:30+00'::timestamptz"))[0]
            assert noon.utcoffset() == dt.timedelta(hours=5, minutes=30)

    run(scenario)


def test_another_client_encoding(dsn: str) -> None:
    """Texts, and the words of errors."""

    async def scenario() -> None:
        async with shared(dsn, kwargs={"client_encoding": "latin1"}) as pool:
            assert (await same(pool, "SELECT %s::text, 'ü'", ("Grüße",)))[0] == ("Grüße", "ü")
            with pytest.raises(psycopg.errors.UndefinedTable, match="größe"):
                await pool.fetch('SELECT * FROM "größe"')
            with pytest.raises(UnicodeEncodeError):
                await pool.fetch("SELECT %s::text", ("世界",))
            assert await pool.fetchval("SELECT 2") == 2

    run(scenario)


# ------------------------------------------------------------------------------------------ row factories


@dataclass
class Pair:
    number: int
    word: str


PAIRS = "SELECT i AS number, 'w' || i AS word FROM generate_series(1, 3) i"


def joined(number: int, word: str) -> str:
    return f"{number}-{word}"


@pytest.mark.parametrize(
    "row_factory",
    [None, tuple_row, dict_row, namedtuple_row, class_row(Pair), args_row(joined), kwargs_row(joined), scalar_row],
    ids=["default", "tuple", "dict", "namedtuple", "class", "args", "kwargs", "scalar"],
)
def test_row_factories_are_psycopg_s(dsn: str, row_factory: Any) -> None:
    """For one statement, for the pool's connections, and of several at once each its own."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            expected = await by_cursor(pool, PAIRS, row_factory=row_factory)
            rows = await pool.fetch(PAIRS, row_factory=row_factory)
            assert rows == expected
            assert [type(row).__name__ for row in rows] == [type(row).__name__ for row in expected]
            assert await pool.fetchrow(PAIRS, row_factory=row_factory) == expected[0]
            assert await pool.fetchrow(f"SELECT * FROM ({PAIRS}) p WHERE false", row_factory=row_factory) is None
            assert await pool.fetch(f"SELECT * FROM ({PAIRS}) p WHERE false", row_factory=row_factory) == []
        if row_factory is not None:
            async with shared(dsn, kwargs={"row_factory": row_factory}) as pool:
                assert await pool.fetch(PAIRS) == expected
                assert await pool.fetchrow(PAIRS) == expected[0]
                assert await pool.fetch(PAIRS, row_factory=tuple_row) == [(i, f"w{i}") for i in (1, 2, 3)]
                assert await pool.fetchval(PAIRS) == 1

    run(scenario)


def test_each_statement_has_its_own_row_factory(dsn: str) -> None:
    """200 at once, of different columns and factories, on one connection."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            asked = []
            for number in range(50):
                asked += [
                    pool.fetch("SELECT %s::int AS a", (number,), row_factory=dict_row),
                    pool.fetch("SELECT %s::int AS b, 2 AS c", (number,), row_factory=dict_row),
                    pool.fetch("SELECT %s::int AS a", (number,)),
                    pool.fetch("SELECT %s::int AS number, 'w' AS word", (number,), row_factory=class_row(Pair)),
                ]
            answers = await asyncio.gather(*asked)
            for number in range(50):
                assert answers[4 * number : 4 * number + 4] == [
                    [{"a": number}],
                    [{"b": number, "c": 2}],
                    [(number,)],
                    [Pair(number, "w")],
                ]

    run(scenario)


def test_a_row_factory_that_fails_is_its_caller_s_error(dsn: str) -> None:
    """As the factory raises it; nobody else hears of it."""

    def picky(cursor: Any) -> Any:
        def make(values: Any) -> Any:
            raise LookupError(f"not this one: {cursor.description[0].name}")

        return make

    async def scenario() -> None:
        async with shared(dsn) as pool:
            answers = await asyncio.gather(
                pool.fetch("SELECT 1 AS a", row_factory=picky),
                pool.fetch("SELECT 2"),
                pool.fetch("SELECT 1", row_factory=class_row(Pair)),
                pool.fetch("SELECT", row_factory=scalar_row),
                pool.fetch("SELECT 3"),
                return_exceptions=True,
            )
            assert [type(answer) for answer in answers] == [
                LookupError,
                list,
                TypeError,
                psycopg.ProgrammingError,
                list,
            ]
            assert str(answers[0]) == "not this one: a"
            assert (answers[1], answers[4]) == ([(2,)], [(3,)])

    run(scenario)


# ------------------------------------------------------------------------------------------ what `configure` registers


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


class Couple(NamedTuple):
    number: int
    word: str


@dataclass
class Money:
    cents: int


class MoneyDumper(Dumper):
    def dump(self, obj: Money) -> bytes:
        return b"%d" % obj.cents


class Unsayable:
    pass


class UnsayableDumper(Dumper):
    def dump(self, obj: Unsayable) -> bytes:
        raise LookupError("there are no words for it")


async def register(conn: psycopg.AsyncConnection[Any]) -> None:
    """As a program does: an enum, a composite and dumpers, on this connection only."""
    mood, couple = await EnumInfo.fetch(conn, "mood"), await CompositeInfo.fetch(conn, "couple")
    assert mood is not None
    assert couple is not None
    register_enum(mood, conn, Mood)
    register_composite(couple, conn, factory=Couple)
    conn.adapters.register_dumper(Money, MoneyDumper)
    conn.adapters.register_dumper(Unsayable, UnsayableDumper)
    await conn.commit()


@pytest.fixture
def registered(postgres: Any, dsn: str) -> dict[str, Any]:
    """Options of a pool whose connections know some types of our own."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("DROP TYPE IF EXISTS mood")
        conn.execute("DROP TYPE IF EXISTS couple")
        conn.execute("CREATE TYPE mood AS ENUM ('GOOD', 'BAD')")
        conn.execute("CREATE TYPE couple AS (number int, word text)")
    return {"configure": register}


def test_types_that_configure_has_registered(dsn: str, registered: dict[str, Any]) -> None:
    """Out and in, in arrays too, and for a query that is put together."""

    async def scenario() -> None:
        async with shared(dsn, **registered) as pool:
            one, other = Couple(1, "a"), Couple(2, "b")
            query = "SELECT %s::mood, %s::mood[], %s::couple, ARRAY[(2, 'b')::couple]"
            expected = (Mood.GOOD, [Mood.BAD], one, [other])
            assert await same(pool, query, (Mood.GOOD, [Mood.BAD], one)) == [expected]
            assert await pool.fetchval("SELECT %s::int", (Money(5),)) == 5
            assert await pool.fetchval(sql.SQL("SELECT {}::int").format(sql.Literal(Money(7)))) == 7
            assert await pool.fetchval(sql.SQL("SELECT {}").format(sql.Literal(Mood.BAD))) == Mood.BAD

    run(scenario)


def test_a_dumper_that_fails_is_its_caller_s_error(dsn: str, registered: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with shared(dsn, **registered) as pool:
            for _ in range(3):
                answers = await asyncio.gather(
                    pool.fetchval("SELECT %s::int", (1,)),
                    pool.fetchval("SELECT %s::int", (Unsayable(),)),
                    pool.fetchval("SELECT %s::int", (3,)),
                    pool.fetchval("SELECT %s::int", (object(),)),
                    pool.fetchval("SELECT %s::int", (5,)),
                    return_exceptions=True,
                )
                assert [*answers[::2]] == [1, 3, 5]
                assert isinstance(answers[1], LookupError)
                assert isinstance(answers[3], psycopg.ProgrammingError)

    run(scenario)


def test_a_dumper_that_fails_when_its_turn_comes(dsn: str, registered: dict[str, Any]) -> None:
    """The statement had to wait, so that it is not its own caller who finds out first."""

    async def scenario() -> None:
        async with shared(dsn, **registered) as pool:
            async with pool.connection():
                asked = [pool.fetchval("SELECT %s::int", (n if n % 2 else Unsayable(),)) for n in range(20)]
                waiting = asyncio.gather(*asked, return_exceptions=True)
                while pool.snapshot().waiting < 20:
                    await asyncio.sleep(0)
            answers = await waiting
            assert answers[1::2] == list(range(1, 20, 2))
            assert {type(answer) for answer in answers[::2]} == {LookupError}

    run(scenario)


# ------------------------------------------------------------------------------------------ queries and parameters


@pytest.mark.parametrize(
    ("query", "params"),
    [
        ("SELECT %s::int, %s::text", (1, "a")),
        ("SELECT %s::int, %s::text", [1, "a"]),
        ("SELECT %(a)s::int, %(b)s::text, %(a)s::int", {"a": 1, "b": "x"}),
        ("SELECT %(a)s::int", {"a": 1, "unused": object()}),
        ("SELECT '100%%', %s::int", (1,)),
        ("SELECT '100%', 5 % 3", None),
        ("SELECT '100%%'", ()),
        ("SELECT '100%%', 5 %% 3", []),
        ("SELECT '%%s', %s::int", (1,)),
        ("SELECT %b::int4, %t::text, %s::int", (1, "x", 2)),
        (b"SELECT %s::int", (1,)),
        ("SELECT 'ü', %s::text".encode(), ("ß",)),
        (sql.SQL("SELECT {}, {}, %s::int").format(sql.Literal("it's"), sql.Literal(None)), (1,)),
        (
            sql.SQL("SELECT {} FROM {}").format(sql.Identifier("datname"), sql.Identifier("pg_catalog", "pg_database")),
            None,
        ),
        (sql.SQL("SELECT {}").format(sql.SQL(", ").join([sql.Placeholder()] * 3)), (1, 2, 3)),
        (sql.SQL("SELECT {}").format(sql.Placeholder("name")), {"name": "x"}),
        (sql.SQL("SELECT 1") + sql.SQL(" WHERE false"), None),
        ("SELECT 1;", None),
        ("  SELECT 1 ; ", None),
        ("-- which one\nSELECT %s::int /* and why */", (1,)),
        ("SELECT %s = ANY(%s)", (2, [1, 2])),
        ("SELECT 1 WHERE %s::int IS NULL", (None,)),
    ],
)
def test_queries_as_psycopg_takes_them(dsn: str, query: Any, params: Any) -> None:
    async def scenario() -> None:
        async with shared(dsn) as pool:
            await same(pool, query, params)

    run(scenario)


def test_a_text_of_a_class_of_its_own_is_a_text(dsn: str) -> None:
    """As frameworks mark what is safe."""

    class Marked(str):
        __slots__ = ()

    async def scenario() -> None:
        async with shared(dsn) as pool:
            assert await pool.fetchval(Marked("SELECT %s::int"), (5,)) == 5

    run(scenario)


@pytest.mark.parametrize(
    ("query", "params"),
    [
        ("SELECT %s, %s", (1,)),
        ("SELECT %s", (1, 2)),
        ("SELECT %s", ()),
        ("SELECT 1", (1,)),
        ("SELECT %(a)s", {"b": 1}),
        ("SELECT %(a)s", (1,)),
        ("SELECT %s", {"a": 1}),
        ("SELECT %s, %(a)s", (1,)),
        ("SELECT %x", (1,)),
        ("SELECT %", (1,)),
        ("SELECT %s", "a text is no sequence of parameters here"),
        ("SELECT %s", 5),
        ("SELECT $1::int", (1,)),
        ("SELECT %s::int", ("x",)),
        ("SELECT %s + 'x'::date", (1,)),
        ("SELECT * FROM nowhere WHERE a = %s", (1,)),
        ("SELECT nothing(%s)", (1,)),
        ("SELECT 1 +", None),
        ("SELECT 1 / 0", None),
        ("SELECT 'x'::int", None),
        ("SELECT %s::int2", (10**6,)),
    ],
)
def test_mistakes_are_told_as_psycopg_tells_them(dsn: str, query: Any, params: Any) -> None:
    """The same class, in the same words, each time; and nobody else hears of it."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            expected = await error_of(by_cursor(pool, query, params))
            for _ in range(7):
                bad, good = await asyncio.gather(
                    error_of(pool.fetch(query, params)), pool.fetch("SELECT %s::int", (7,))
                )
                assert good == [(7,)]
                assert type(bad) is type(expected)
                assert str(bad) == str(expected)
            assert pool.snapshot().connects == 1

    run(scenario)


@pytest.mark.parametrize("query", [5, None, ["SELECT 1"], {"query": "SELECT 1"}])
def test_what_is_no_query_is_a_type_error(dsn: str, query: Any) -> None:
    """As to psycopg; nothing was refused for what it says."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            with pytest.raises(TypeError):
                await pool.fetch(query)
            assert await pool.fetch("SELECT 2") == [(2,)]

    run(scenario)


def test_an_error_has_all_that_the_server_says(dsn: str) -> None:
    """As a cursor's: its class, code, detail, constraint, position."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            await pool.execute("DROP TABLE IF EXISTS strict")
            await pool.execute("CREATE TABLE strict (a int CONSTRAINT once PRIMARY KEY)")
            await pool.execute("INSERT INTO strict VALUES (1)")
            error = await error_of(pool.execute("INSERT INTO strict VALUES (1)"))
            assert isinstance(error, psycopg.errors.UniqueViolation)
            assert (error.sqlstate, error.diag.constraint_name, error.diag.table_name) == ("23505", "once", "strict")
            assert error.diag.message_detail == "Key (a)=(1) already exists."
            error = await error_of(pool.fetch("SELECT a, nothing FROM strict"))
            assert isinstance(error, psycopg.errors.UndefinedColumn)
            assert error.diag.statement_position == "11"

    run(scenario)


def test_an_error_s_traceback_leads_to_who_asked(dsn: str) -> None:
    """Not only to the pool's own insides."""

    async def asks_wrongly(pool: Pool) -> None:
        await pool.fetch("SELECT 1 / 0")

    async def scenario() -> None:
        async with shared(dsn) as pool:
            error = await error_of(asks_wrongly(pool))
            names, traceback = [], error.__traceback__
            while traceback is not None:
                names.append(traceback.tb_frame.f_code.co_name)
                traceback = traceback.tb_next
            assert "asks_wrongly" in names

    run(scenario)


@pytest.mark.parametrize("query", ["", "  ", ";", "-- nothing", "/* nothing */", b"", sql.SQL("")])
def test_an_empty_statement_is_refused(dsn: str, query: Any) -> None:
    """There is nothing to send, and words for it."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            with pytest.raises(NotStandalone, match="is empty"):
                await pool.execute(query)
            assert pool.snapshot().statements == 0

    run(scenario)


# ------------------------------------------------------------------------------------------ without rows


def test_statements_without_rows(dsn: str) -> None:
    """No rows are an empty list, None, None; the tag says what was done."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            assert await pool.execute("DROP TABLE IF EXISTS things") == "DROP TABLE"
            assert await pool.execute("CREATE TABLE things (a int, b text)") == "CREATE TABLE"
            assert await pool.fetch("INSERT INTO things VALUES (1, 'x')") == []
            assert await pool.fetchrow("INSERT INTO things VALUES (2, 'y')") is None
            assert await pool.fetchval("INSERT INTO things VALUES (3, 'z')") is None
            assert await pool.execute("INSERT INTO things VALUES (%s, %s), (5, NULL)", (4, None)) == "INSERT 0 2"
            assert await pool.execute("UPDATE things SET b = 'w' WHERE a < %s", (4,)) == "UPDATE 3"
            assert await pool.execute("DELETE FROM things WHERE a > 100") == "DELETE 0"
            assert await pool.fetch("DELETE FROM things WHERE a = 5 RETURNING a, b") == [(5, None)]
            assert await pool.execute("TRUNCATE things") == "TRUNCATE TABLE"

    run(scenario)


@pytest.mark.parametrize("rows", [0, 1, 3, 64, 65, 200])
def test_the_tag_of_statements_that_return_rows_too(dsn: str, rows: int) -> None:
    """Whatever their number, before and after it is prepared."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            await pool.execute("DROP TABLE IF EXISTS tagged")
            await pool.execute("CREATE TABLE tagged (a int)")
            for _ in range(7):
                query = "INSERT INTO tagged SELECT generate_series(1, %s) RETURNING a"
                assert await pool.execute(query, (rows,)) == f"INSERT 0 {rows}"
                assert await pool.execute("DELETE FROM tagged RETURNING a") == f"DELETE {rows}"
                assert await pool.execute("SELECT generate_series(1, %s)", (rows,)) == f"SELECT {rows}"
                assert await pool.execute("SELECT generate_series(1, %s)", (rows,), deadline=5) == f"SELECT {rows}"

    run(scenario)


def test_the_first_row_and_the_first_value(dsn: str) -> None:
    """A NULL and no row are both None to fetchval; fetchrow tells them apart."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            assert await pool.fetchrow("SELECT i, -i FROM generate_series(1, 200) i") == (1, -1)
            assert await pool.fetchval("SELECT i, -i FROM generate_series(1, 200) i") == 1
            assert await pool.fetchval("SELECT NULL, 2") is None
            assert await pool.fetchrow("SELECT NULL") == (None,)
            assert await pool.fetchval("SELECT 1 WHERE false") is None
            assert await pool.fetchrow("SELECT 1 WHERE false") is None
            assert await pool.fetchval("SELECT 0") == 0
            assert await pool.fetchval("SELECT false") is False
            assert await pool.fetchval("SELECT ''") == ""
            assert await pool.fetchrow("SELECT") == ()
            assert await pool.fetchval("SELECT") is None

    run(scenario)


def test_what_standing_alone_allows(dsn: str) -> None:
    """Statements that want no transaction around them, and procedures that end their own."""

    async def scenario() -> None:
        async with shared(dsn) as pool:
            assert await pool.execute("VACUUM pg_catalog.pg_description") == "VACUUM"
            await pool.execute("DROP TABLE IF EXISTS counted")
            await pool.execute("CREATE TABLE counted (a int)")
            await pool.execute(
                "CREATE OR REPLACE PROCEDURE count_up() LANGUAGE plpgsql AS $$ BEGIN"
                " FOR i IN 1..3 LOOP INSERT INTO counted VALUES (i); COMMIT; END LOOP; END $$"
            )
            assert await pool.execute("CALL count_up()") == "CALL"
            assert await pool.fetchval("SELECT count(*) FROM counted") == 3
            await pool.execute("DROP INDEX IF EXISTS counted_a")
            assert await pool.execute("CREATE INDEX CONCURRENTLY counted_a ON counted (a)") == "CREATE INDEX"

    run(scenario)


def test_autocommit_makes_no_difference(dsn: str) -> None:
    """They are committed one by one, however the pool's connections are set."""

    async def scenario() -> None:
        for autocommit in (False, True):
            async with shared(dsn, kwargs={"autocommit": autocommit}) as pool:
                await pool.execute("DROP TABLE IF EXISTS kept")
                await pool.execute("CREATE TABLE kept AS SELECT 1 AS a")
                async with pool.connection() as conn:
                    assert conn.autocommit is autocommit
                    assert await (await conn.execute("SELECT a FROM kept")).fetchall() == [(1,)]

    run(scenario)


# ------------------------------------------------------------------------------------------ arguments


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"timeout": -1}, ValueError, "timeout must be 0 seconds or more, not -1"),
        ({"timeout": "1"}, TypeError, "timeout must be a number of seconds, not '1'"),
        ({"deadline": float("nan")}, ValueError, "deadline must be 0 seconds or more, not nan"),
        ({"priority": 1}, TypeError, "priority must be a penstock.Priority, not 1"),
        ({"key": []}, TypeError, r"key must be hashable, not []"),
    ],
)
@pytest.mark.parametrize("ask", ["fetch", "fetchrow", "fetchval", "execute"])
def test_arguments_that_make_no_sense(
    dsn: str, ask: str, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    async def scenario() -> None:
        async with shared(dsn) as pool:
            with pytest.raises(error) as caught:
                await getattr(pool, ask)("SELECT 1", **options)
            assert says in str(caught.value)
            assert pool.snapshot().requests == 0

    run(scenario)
