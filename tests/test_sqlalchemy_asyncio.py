"""SQLAlchemy's asyncio engine on our pool, and Core statements through `AsyncPool.fetch`."""

import asyncio
import enum
import gc
import uuid
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from psycopg.rows import dict_row
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

import penstock
from penstock.drill.postgres import EmbeddedPostgres
from penstock.integrations.asgi import PenstockMiddleware
from penstock.integrations.sqlalchemy import AsyncPenstockPool, PenstockPool, statements
from support.waiting import soon

DRIVERS = ("psycopg", "asyncpg")


@asynccontextmanager
async def engine_on(dsn: str, driver: str = "psycopg", **options: Any) -> AsyncIterator[AsyncEngine]:
    url = dsn.replace("postgresql://", f"postgresql+{driver}://")
    if driver == "asyncpg":
        url, options = url.partition("?")[0], {"connect_args": {"ssl": False}, **options}
    engine = create_async_engine(url, **{"poolclass": PenstockPool, **options})
    try:
        yield engine
    finally:
        await engine.dispose()


def here(mark: str) -> int:
    """The line of this file on which *mark* stands in a comment."""
    with open(__file__) as source:
        return next(number for number, line in enumerate(source, 1) if line.rstrip().endswith(f"# {mark}"))


def under(scenario: Callable[..., Any], *args: Any) -> None:
    asyncio.run(scenario(*args))


@pytest.mark.parametrize("named", [PenstockPool, AsyncPenstockPool])
def test_either_class_is_the_one_for_asyncio(dsn: str, named: type) -> None:
    async def scenario() -> None:
        async with engine_on(dsn, poolclass=named) as engine:
            assert isinstance(engine.pool, AsyncPenstockPool)
            assert isinstance(engine.pool, AsyncAdaptedQueuePool)
            async with engine.connect() as connection:
                assert await connection.scalar(sa.text("SELECT 1")) == 1

    under(scenario)


@pytest.mark.parametrize("driver", DRIVERS)
def test_holders_name_the_line_of_the_coroutine(dsn: str, driver: str) -> None:
    async def scenario() -> None:
        async with engine_on(dsn, driver) as engine:
            async with engine.begin() as connection:  # begun here
                await connection.execute(sa.text("SELECT 1 AS begun"))
                async with AsyncSession(engine) as session:
                    await session.scalar(sa.text("SELECT 2 AS orm"))  # executed here
                    begun, executed = engine.pool.holders()  # type: ignore[attr-defined]
        assert (begun.site.file, begun.site.line) == (__file__, here("begun here"))
        assert (executed.site.file, executed.site.line) == (__file__, here("executed here"))
        assert (begun.statement, begun.status) == ("SELECT 1 AS begun", "INTRANS")

    under(scenario)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_connection_that_the_server_has_ended_is_not_handed_out(postgres: EmbeddedPostgres, driver: str) -> None:
    async def scenario() -> None:
        async with engine_on(postgres.dsn, driver, pool_size=3) as engine:
            connections = [await engine.connect() for _ in range(3)]
            doomed = [await connection.scalar(sa.text("SELECT pg_backend_pid()")) for connection in connections]
            for connection in connections:
                await connection.close()
            records = engine.pool._pool.queue  # type: ignore[attr-defined]
            with postgres.admin() as admin:
                admin.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s) AS pid", (doomed,))
            await soon(lambda: all(record._probe(0) for record in records))
            for _ in range(3):
                async with engine.connect() as connection:
                    assert await connection.scalar(sa.text("SELECT 1")) == 1

    under(scenario)


@pytest.mark.parametrize("driver", DRIVERS)
def test_cancellation_loses_no_connection(dsn: str, driver: str) -> None:
    """Tasks are cancelled while they connect, wait, are served, and ask: all places are there afterwards."""

    async def use(engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            await connection.execute(sa.text("SELECT pg_sleep(0.001)"))

    async def scenario() -> None:
        async with engine_on(dsn, driver, pool_size=2, max_overflow=1) as engine:
            for turns in range(0, 24, 2):
                tasks = [asyncio.create_task(use(engine)) for _ in range(8)]
                for _ in range(turns):
                    await asyncio.sleep(0)
                for task in tasks[::2]:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                assert not [task for task in tasks[1::2] if task.exception()]
            assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
            connections = [await asyncio.wait_for(engine.connect(), 5) for _ in range(3)]
            for connection in connections:
                await connection.close()

    under(scenario)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_cancelled_dispose_loses_no_place(dsn: str, driver: str) -> None:
    async def scenario() -> None:
        async with engine_on(dsn, driver, pool_size=3, max_overflow=0, pool_timeout=1) as engine:
            for turns in range(6):
                for connection in [await engine.connect() for _ in range(3)]:
                    await connection.close()
                disposal = asyncio.create_task(engine.dispose())
                for _ in range(turns):
                    await asyncio.sleep(0)
                disposal.cancel()
                await asyncio.wait([disposal])
                for connection in [await engine.connect() for _ in range(3)]:
                    await connection.close()

    under(scenario)


def test_a_connection_that_is_dropped_comes_back_once_nothing_else_is_under_way(dsn: str) -> None:
    """The garbage collector may come amidst the pool's own work."""

    async def scenario() -> None:
        async with engine_on(dsn, "asyncpg", pool_size=1, max_overflow=0) as engine:
            lent = [await engine.connect()]
            core = engine.pool._lender._core  # type: ignore[attr-defined]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", sa.exc.SAWarning)  # SQLAlchemy's, of what it does not expect
                lent.clear()
                gc.collect()
                assert core.leased == 1
                await soon(lambda: core.leased == 0)
            async with engine.connect() as connection:
                assert await connection.scalar(sa.text("SELECT 1")) == 1

    under(scenario)


def test_a_connection_handed_on_to_another_task_is_waited_for(dsn: str) -> None:
    async def scenario() -> None:
        async with engine_on(dsn, pool_size=1, max_overflow=0, pool_timeout=5) as engine:
            connection = await engine.connect()

            async def use() -> None:
                await connection.execute(sa.text("SELECT pg_sleep(0.1)"))
                await connection.close()

            user = asyncio.create_task(use())
            await soon(lambda: engine.pool.holders()[0].status == "ACTIVE")  # type: ignore[attr-defined]
            await (await engine.connect()).close()  # which is no wait for oneself
            await user

    under(scenario)


def test_listeners_and_name_outlive_a_loop(dsn: str) -> None:
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+psycopg://"), poolclass=PenstockPool)
    heard: list[Any] = []
    engine.pool.listen(heard.append)  # type: ignore[attr-defined]

    async def ask() -> None:
        async with engine.connect() as connection:
            assert await connection.scalar(sa.text("SELECT 1")) == 1

    asyncio.run(ask())
    before = len(heard)
    asyncio.run(ask())
    assert len(heard) > before
    assert len({each.pool for each in heard}) == 1
    asyncio.run(engine.dispose())


def test_a_connection_that_outlives_its_request_is_reported(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with engine_on(dsn) as engine:
            kept = []

            async def app(scope: Any, receive: Any, send: Any) -> None:
                kept.append(await engine.connect())  # outlives
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b""})

            async def send(message: Any) -> None:
                pass

            scope = {"type": "http", "path": "/here", "method": "GET", "headers": []}
            await PenstockMiddleware(app)(scope, None, send)  # type: ignore[arg-type]
            (record,) = caplog.records
            assert "a connection outlives its request, GET /here" in record.message
            assert f"{__file__}:{here('outlives')}" in record.message
            await kept[0].close()

    under(scenario)


def test_a_timeout_is_sqlalchemys_and_names_the_holder(dsn: str) -> None:
    async def scenario() -> None:
        async with engine_on(dsn, pool_size=1, max_overflow=0, pool_timeout=0.05) as engine:
            async with engine.connect():  # held here
                with pytest.raises(sa.exc.TimeoutError) as caught:
                    await asyncio.create_task(engine.connect().start())
            assert isinstance(caught.value, penstock.PoolExhausted)
            assert f"{__file__}:{here('held here')}" in str(caught.value)

    under(scenario)


def test_a_wait_for_oneself_is_told_at_once(dsn: str) -> None:
    async def scenario() -> None:
        async with engine_on(dsn, pool_size=1, max_overflow=0) as engine, engine.connect():
            with pytest.raises(penstock.PoolDeadlock):
                await engine.connect()

    under(scenario)


def test_another_event_loop_is_told_so_while_the_first_lives(dsn: str) -> None:
    async def ask(engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            assert await connection.scalar(sa.text("SELECT 1")) == 1

    async def scenario() -> None:
        async with engine_on(dsn) as engine:
            await ask(engine)
            with pytest.raises(penstock.WrongEventLoop, match="make an engine for each loop"):
                await asyncio.to_thread(lambda: asyncio.run(ask(engine)))
            await ask(engine)

    under(scenario)


def test_after_the_end_of_its_loop_an_engine_starts_anew(dsn: str) -> None:
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+psycopg://"), poolclass=PenstockPool)

    async def ask() -> None:
        async with engine.connect() as connection:
            assert await connection.scalar(sa.text("SELECT 1")) == 1

    asyncio.run(ask())
    asyncio.run(ask())
    asyncio.run(engine.dispose())


# ------------------------------------------------------------------------------------------ fetch(select(...))


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


metadata = sa.MetaData()
things = sa.Table(
    "sa_fetch_things",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String, default="nameless"),
    sa.Column("colour", sa.Enum(Colour, native_enum=False)),
    sa.Column("price", sa.Numeric(10, 2)),
    sa.Column("ratio", sa.Numeric(asdecimal=False)),
    sa.Column("doc", sa.JSON),
    sa.Column("key", sa.Uuid, default=uuid.uuid4),
    sa.Column("tags", postgresql.ARRAY(sa.String)),
)


@asynccontextmanager
async def filled(dsn: str, **options: Any) -> AsyncIterator[penstock.AsyncPool[Any]]:
    async with penstock.AsyncPool(dsn, min_size=1, max_size=2, **options) as pool:
        await pool.execute(f"DROP TABLE IF EXISTS {things.name}")
        await pool.execute(str(sa.schema.CreateTable(things).compile(dialect=postgresql.dialect())))
        for row in (
            {"id": 1, "colour": Colour.RED, "price": Decimal("1.50"), "ratio": 0.5, "doc": {"a": 1}, "tags": ["x"]},
            {"id": 2, "colour": Colour.BLUE, "name": "100% blue"},
        ):
            assert await pool.execute(sa.insert(things).values(row)) == "INSERT 0 1"
        yield pool


def test_a_select_gives_the_rows_that_its_types_promise(dsn: str) -> None:
    async def scenario() -> None:
        async with filled(dsn) as pool:
            (row,) = await pool.fetch(sa.select(things).where(things.c.id == 1))
            assert type(row) is tuple
            number, name, colour, price, ratio, doc, key, tags = row
            assert (number, name, colour, doc, tags) == (1, "nameless", Colour.RED, {"a": 1}, ["x"])
            assert (price, ratio) == (Decimal("1.50"), 0.5)
            assert isinstance(ratio, float)
            assert isinstance(key, uuid.UUID)

    under(scenario)


def test_all_four_methods_take_statements(dsn: str) -> None:
    async def scenario() -> None:
        async with filled(dsn) as pool:
            names = sa.select(things.c.id, things.c.name).order_by(things.c.id)
            assert await pool.fetch(names) == [(1, "nameless"), (2, "100% blue")]
            assert await pool.fetchrow(names, row_factory=dict_row) == {"id": 1, "name": "nameless"}
            assert await pool.fetchval(sa.select(things.c.colour).where(things.c.name.like("100%"))) is Colour.BLUE
            assert await pool.execute(sa.update(things).values(name=things.c.name + "!")) == "UPDATE 2"
            delete = sa.delete(things).where(things.c.id == sa.bindparam("which"))
            assert await pool.execute(delete, {"which": 2}) == "DELETE 1"
            assert await pool.fetch(sa.text("SELECT :n, 'a%b'"), {"n": "x"}) == [("x", "a%b")]

    under(scenario)


def test_converted_rows_go_through_the_row_factory(dsn: str) -> None:
    async def scenario() -> None:
        colours = sa.select(things.c.colour).where(things.c.id == 1)
        async with filled(dsn, kwargs={"row_factory": dict_row}) as pool:
            assert await pool.fetch(colours) == [{"colour": Colour.RED}]
            assert await pool.fetchval(colours) is Colour.RED

    under(scenario)


def test_an_in_has_as_many_values_as_it_is_given(dsn: str) -> None:
    async def scenario() -> None:
        async with filled(dsn) as pool:
            for wanted, found in (([1, 2, 3], [1, 2]), ([2], [2]), ([], [])):
                rows = await pool.fetch(sa.select(things.c.id).where(things.c.id.in_(wanted)).order_by(things.c.id))
                assert [number for (number,) in rows] == found

    under(scenario)


def test_values_are_no_part_of_what_is_compiled_and_prepared(dsn: str) -> None:
    async def scenario() -> None:
        async with filled(dsn) as pool:
            select = [sa.select(things.c.name, things.c.id).where(things.c.id == number) for number in range(20)]
            await pool.fetch(select[0])
            compiled = len(statements._compiled)
            texts = {statements.spelled(each, None, None).text for each in select}
            for each in select:
                await pool.fetch(each)
            assert len(statements._compiled) == compiled
            assert len(texts) == 1

    under(scenario)


def test_defaults_and_returning_of_an_insert(dsn: str) -> None:
    async def scenario() -> None:
        async with filled(dsn) as pool:
            insert = sa.insert(things).returning(things.c.name, things.c.key)
            (first,) = await pool.fetch(insert, {"id": 3, "colour": Colour.RED})
            (second,) = await pool.fetch(insert, {"id": 4})
            assert first[0] == second[0] == "nameless"
            assert first[1] != second[1]
            assert await pool.fetch(sa.insert(things).values(id=5)) == []  # and not the key, for SQLAlchemy's own use

    under(scenario)


@pytest.mark.parametrize(
    ("statement", "params", "error", "words"),
    [
        (sa.delete(things).where(things.c.id == sa.bindparam("which")), None, sa.exc.InvalidRequestError, "'which'"),
        (sa.insert(things), [{"id": 1}], TypeError, "one mapping of names"),
        (sa.schema.CreateTable(things), None, TypeError, "not CreateTable"),
        (things.c.id, None, TypeError, "not Column"),
        (sa.select(sa.func.currval("a")), None, penstock.NotStandalone, "currval"),
    ],
)
def test_what_cannot_be_sent_says_why(dsn: str, statement: Any, params: Any, error: type, words: str) -> None:
    async def scenario() -> None:
        async with penstock.AsyncPool(dsn, min_size=1) as pool:
            with pytest.raises(error, match=words):
                await pool.execute(statement, params)

    under(scenario)


def test_statements_share_connections(dsn: str) -> None:
    async def scenario() -> None:
        async with filled(dsn) as pool:
            asked = [pool.fetchval(sa.select(sa.literal(number, sa.Integer))) for number in range(200)]
            assert await asyncio.gather(*asked) == list(range(200))
            assert pool.snapshot().open <= 2

    under(scenario)
