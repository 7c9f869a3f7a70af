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

import asyncpg
import psycopg
import pytest
import sqlalchemy as sa
from psycopg.rows import dict_row
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, lazyload, mapped_column, relationship
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


class Gate:
    """Connects as the driver does, once it is let; counts those that came to it, and fails the first if told to."""

    def __init__(self, driver: str, fails: bool = False) -> None:
        self.came, self.opened, self._fails = 0, asyncio.Event(), fails
        self.made: list[Any] = []
        self._connect: Any = asyncpg.connect if driver == "asyncpg" else psycopg.AsyncConnection.connect
        self.args = {"async_creator_fn": self, **({"ssl": False} if driver == "asyncpg" else {})}

    async def __call__(self, *args: Any, **options: Any) -> Any:
        self.came += 1
        first = self.came == 1
        await self.opened.wait()
        if first and self._fails:
            raise OSError("no way")
        self.made.append(await self._connect(*args, **options))
        return self.made[-1]


async def cancelled_at(gate: Gate, engine: AsyncEngine) -> None:
    """Somebody has asked for a connection, and was cancelled while it was made."""
    asking = asyncio.create_task(engine.connect().start())
    await soon(lambda: gate.came)
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_connect_keeps_its_place_when_its_caller_is_cancelled_and_serves_the_next(
    dsn: str, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        gate = Gate(driver)
        async with engine_on(dsn, driver, pool_size=1, max_overflow=0, connect_args=gate.args) as engine:
            pool: Any = engine.pool
            await cancelled_at(gate, engine)
            assert pool.checkedout() == 1
            assert pool.holders() == []
            asking = asyncio.create_task(engine.connect().start())
            await soon(lambda: pool.snapshot().waiting)
            gate.opened.set()
            connection = await asking
            assert await connection.scalar(sa.text("SELECT 1")) == 1
            await connection.close()
            assert (gate.came, pool.checkedout(), pool.checkedin()) == (1, 0, 1)
            assert (pool.snapshot().connects, pool.snapshot().connect_errors) == (1, 0)

    under(scenario)
    assert not caplog.records


def test_a_caller_that_gave_up_a_connect_may_ask_again(dsn: str) -> None:
    """Its own connect, which it left, is no reason to tell it that it waits for itself."""

    async def scenario() -> None:
        gate = Gate("psycopg")
        async with engine_on(dsn, pool_size=1, max_overflow=0, connect_args=gate.args) as engine:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(engine.connect().start(), 0.01)
            asyncio.get_running_loop().call_soon(gate.opened.set)
            async with engine.connect() as connection:
                assert await connection.scalar(sa.text("SELECT 1")) == 1
            assert gate.came == 1

    under(scenario)


def test_a_connect_that_fails_after_its_caller_was_cancelled_gives_its_place_free(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        gate = Gate("psycopg", fails=True)
        async with engine_on(dsn, pool_size=1, max_overflow=0, connect_args=gate.args) as engine:
            await cancelled_at(gate, engine)
            gate.opened.set()
            async with engine.connect() as connection:
                assert await connection.scalar(sa.text("SELECT 1")) == 1
            snapshot = engine.pool.snapshot()  # type: ignore[attr-defined]
            assert (gate.came, snapshot.connects, snapshot.connect_errors) == (2, 2, 1)

    under(scenario)
    assert "no way" in caplog.text  # of which its caller heard nothing


@pytest.mark.parametrize("driver", DRIVERS)
def test_dispose_leaves_no_connection_that_was_under_way(postgres: EmbeddedPostgres, driver: str) -> None:
    async def scenario() -> None:
        gate = Gate(driver)
        engine = create_async_engine(
            postgres.dsn.partition("?")[0].replace("postgresql://", f"postgresql+{driver}://"),
            poolclass=PenstockPool,
            connect_args=gate.args,
        )
        pool: Any = engine.pool
        await cancelled_at(gate, engine)
        asyncio.get_running_loop().call_soon(gate.opened.set)
        await engine.dispose()
        assert (pool.checkedout(), pool.checkedin()) == (0, 0)
        [connection] = gate.made
        assert connection.closed if driver == "psycopg" else connection.is_closed()

    under(scenario)


def test_dispose_does_not_wait_for_ever_for_a_connect(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        gate = Gate("psycopg")  # which never opens
        async with engine_on(dsn, connect_args=gate.args) as engine:
            pool: Any = engine.pool
            await cancelled_at(gate, engine)
            await engine.dispose()
            assert pool.checkedout() == 0
            assert pool.snapshot().connect_errors == 0

    under(scenario)
    assert not caplog.records  # who was cancelled has told nothing about the server


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # asyncio's, of a loop that had a transport open
@pytest.mark.parametrize("driver", DRIVERS)
def test_an_engine_is_disposed_of_after_the_end_of_its_loop(
    postgres: EmbeddedPostgres, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"after the loop, {driver}"
    told = {"application_name": name} if driver == "psycopg" else {"server_settings": {"application_name": name}}
    if driver == "asyncpg":
        told["ssl"] = False
    engine = create_async_engine(
        postgres.dsn.partition("?")[0].replace("postgresql://", f"postgresql+{driver}://"),
        poolclass=PenstockPool,
        connect_args=told,
    )

    async def ask() -> None:
        async with engine.connect() as connection:
            await connection.execute(sa.text("SELECT 1"))

    async def gone() -> None:
        with postgres.admin() as admin:
            left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
            await soon(lambda: admin.execute(left, (name,)).fetchone() == (0,))

    asyncio.run(ask())
    asyncio.run(engine.dispose())
    asyncio.run(gone())
    assert not caplog.records
    asyncio.run(ask())
    asyncio.run(engine.dispose())
    gc.collect()  # while the warning is not heard


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


class Base(DeclarativeBase):
    pass


class Keeper(Base):
    __tablename__ = "sa_fetch_keepers"
    id: Mapped[int] = mapped_column(primary_key=True)
    kept: Mapped[list["Kept"]] = relationship(lazy="joined")


class Kept(Base):
    __tablename__ = "sa_fetch_kept"
    id: Mapped[int] = mapped_column(primary_key=True)
    keeper: Mapped[int] = mapped_column(sa.ForeignKey("sa_fetch_keepers.id"))


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
        (sa.Sequence("some"), None, TypeError, "not Sequence"),
        (sa.select(things).compile(), None, TypeError, r"select\(\).* not StrSQLCompiler"),
        (Session().query(things.c.id), None, TypeError, r"select\(\).* not Query"),
        (sa.select(Keeper), None, TypeError, "joined eager loading"),
        (sa.text("SELECT 1").execution_options(no_parameters=True), None, TypeError, "execution option no_parameters"),
        (
            sa.select(things).execution_options(postgresql_readonly=True),
            None,
            TypeError,
            "execution option postgresql_readonly",
        ),
        (sa.select(sa.func.currval("a")), None, penstock.NotStandalone, "currval"),
    ],
)
def test_what_cannot_be_sent_says_why(dsn: str, statement: Any, params: Any, error: type, words: str) -> None:
    async def scenario() -> None:
        async with penstock.AsyncPool(dsn, min_size=1) as pool:
            with pytest.raises(error, match=words):
                await pool.execute(statement, params)

    under(scenario)


def test_a_function_is_a_statement(dsn: str) -> None:
    async def scenario() -> None:
        async with penstock.AsyncPool(dsn, min_size=1) as pool:
            assert await pool.fetchval(sa.func.now()) is not None
            assert await pool.fetch(sa.func.lower("AB")) == [("ab",)]

    under(scenario)


def test_joined_eager_loading_can_be_turned_off(dsn: str) -> None:
    async def scenario() -> None:
        async with penstock.AsyncPool(dsn, min_size=1) as pool:
            await pool.execute("CREATE TABLE IF NOT EXISTS sa_fetch_keepers (id int PRIMARY KEY)")
            assert await pool.fetch(sa.select(Keeper).options(lazyload("*"))) == []

    under(scenario)


def test_a_map_of_schemas_is_followed(postgres: EmbeddedPostgres) -> None:
    """Also where the next map has other keys: a statement compiled for one is not sent for the other."""
    orders = sa.Table("sa_fetch_orders", sa.MetaData(), sa.Column("id", sa.Integer))
    named = sa.Table("sa_fetch_orders", sa.MetaData(), sa.Column("id", sa.Integer), schema="tenant")

    async def scenario() -> None:
        async with penstock.AsyncPool(postgres.dsn, min_size=1) as pool:
            user = await pool.fetchval("SELECT current_user")
            for number, schema in enumerate(("public", "sa_tenant_a", "sa_tenant_b")):
                with postgres.admin() as admin:
                    admin.execute(f"CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION {user}")
                await pool.execute(f"CREATE TABLE {schema}.sa_fetch_orders (id int)")
                await pool.execute(f"INSERT INTO {schema}.sa_fetch_orders VALUES ({number})")
            for table, schemas, number in (
                (orders, None, 0),
                (orders, {"other": "sa_tenant_b"}, 0),
                (orders, {None: "sa_tenant_a"}, 1),
                (orders, {None: "sa_tenant_b"}, 2),
                (orders, {"other": "sa_tenant_b"}, 0),
                (named, {"tenant": "sa_tenant_a"}, 1),
                (named, {None: "public", "tenant": "sa_tenant_b"}, 2),
                (named, {"tenant": "sa_tenant_b"}, 2),
            ):
                for statement in (sa.select(table.c.id), sa.select(table.c.id).where(table.c.id.in_([0, 1, 2]))):
                    meant = statement.execution_options(schema_translate_map=schemas) if schemas else statement
                    assert await pool.fetchval(meant) == number
            for schema in ("public", "sa_tenant_a", "sa_tenant_b"):
                await pool.execute(f"DROP TABLE {schema}.sa_fetch_orders")

    under(scenario)


def test_statements_share_connections(dsn: str) -> None:
    async def scenario() -> None:
        async with filled(dsn) as pool:
            asked = [pool.fetchval(sa.select(sa.literal(number, sa.Integer))) for number in range(200)]
            assert await asyncio.gather(*asked) == list(range(200))
            assert pool.snapshot().open <= 2

    under(scenario)
