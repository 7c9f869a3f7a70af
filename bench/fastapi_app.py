"""One FastAPI application over any contestant's pool: `uvicorn --factory bench.fastapi_app:application`.

PENSTOCK_BENCH_POOL names the contestant, PENSTOCK_BENCH_DSN the database.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

import penstock
from bench.multiplexed import POINT, balance
from bench.pools import AUTOCOMMIT, asyncpg_pool, psycopg_pool_async
from penstock.integrations.asgi import PenstockMiddleware

CONNECTIONS = 10
MANY = 20  # statements of the page that needs more than one, as in TechEmpower's benchmark

SQL = text("SELECT abalance FROM pgbench_accounts WHERE aid = :number")

Ask = Callable[[list[int]], Awaitable[list[int]]]
"""The balances of these accounts, one statement each, one after the other."""
Opened = Callable[[str], AbstractAsyncContextManager[Ask]]


def application() -> FastAPI:
    """The contestant's, as its manual says first: with the driver's own transactions, its pool opened by lifespan."""
    name, dsn = os.environ["PENSTOCK_BENCH_POOL"], os.environ["PENSTOCK_BENCH_DSN"]
    if name == MIDDLEWARE:
        pool = penstock.AsyncPool(dsn, min_size=CONNECTIONS, open=False)
        app = _serving(lambda: _by_psycopg(pool))
        app.add_middleware(PenstockMiddleware, pools=[pool])
        return app
    asks: list[Ask] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with {**OURS, **PEERS, **BESIDE}[name](dsn) as ask:
            asks.append(ask)
            yield

    return _serving(lambda: asks[0], lifespan=lifespan)


def _serving(find: Callable[[], Ask], **options: Any) -> FastAPI:
    app = FastAPI(**options)

    @app.get("/one/{number}")
    async def one(number: int) -> int:
        [found] = await find()([number])
        assert found == balance(number), f"account {number} has {found}"
        return found

    @app.get("/many/{first}")
    async def many(first: int) -> list[int]:
        numbers = list(range(first, first + MANY))
        found = await find()(numbers)
        assert found == [balance(number) for number in numbers], f"accounts {first} and on have {found}"
        return found

    return app


def _by_fetch(pool: Any) -> Ask:
    """Multiplexed: no connection is held."""

    async def ask(numbers: list[int]) -> list[int]:
        return [(await pool.fetchrow(POINT.psycopg, (number,)))[0] for number in numbers]

    return ask


def _by_psycopg(pool: Any) -> Ask:
    """A connection of psycopg's, borrowed once: ours, or psycopg_pool's."""

    async def ask(numbers: list[int]) -> list[int]:
        async with pool.connection() as conn:
            return [(await (await conn.execute(POINT.psycopg, (number,))).fetchone())[0] for number in numbers]

    return ask


def _by_asyncpg(borrow: Callable[[], Any]) -> Ask:
    """A connection of asyncpg's, borrowed once: ours, or its own pool's."""

    async def ask(numbers: list[int]) -> list[int]:
        async with borrow() as conn:
            return [await conn.fetchval(POINT.asyncpg, number) for number in numbers]

    return ask


def _ours(by: Callable[[Any], Ask], **options: Any) -> Opened:
    @asynccontextmanager
    async def opened(dsn: str) -> AsyncIterator[Ask]:
        async with penstock.AsyncPool(dsn, min_size=CONNECTIONS, open=False, **options) as pool:
            await pool.wait()
            yield by(pool)

    return opened


def _psycopg_pool(**options: Any) -> Opened:
    @asynccontextmanager
    async def opened(dsn: str) -> AsyncIterator[Ask]:
        async with psycopg_pool_async(dsn, CONNECTIONS, **options) as pool:
            yield _by_psycopg(pool)

    return opened


@asynccontextmanager
async def _asyncpg(dsn: str) -> AsyncIterator[Ask]:
    async with asyncpg_pool(dsn, CONNECTIONS) as pool:
        yield _by_asyncpg(pool.acquire)


def _sqlalchemy(driver: str) -> Opened:
    @asynccontextmanager
    async def opened(dsn: str) -> AsyncIterator[Ask]:
        url = dsn.split("?")[0].replace("postgresql:", f"postgresql+{driver}:", 1)
        engine = create_async_engine(url, pool_size=CONNECTIONS, max_overflow=0)

        async def ask(numbers: list[int]) -> list[int]:
            async with engine.connect() as conn:
                return [(await conn.execute(SQL, {"number": number})).scalar_one() for number in numbers]

        try:
            yield ask
        finally:
            await engine.dispose()

    return opened


OURS = {
    "ours": _ours(_by_psycopg),
    "ours, asyncpg": _ours(lambda pool: _by_asyncpg(pool.connection), driver="asyncpg"),
    "ours, fetchrow": _ours(_by_fetch),
}
PEERS = {
    "psycopg_pool": _psycopg_pool(),
    "SQLAlchemy, psycopg": _sqlalchemy("psycopg"),
    "SQLAlchemy, asyncpg": _sqlalchemy("asyncpg"),
    "asyncpg": _asyncpg,
}
MIDDLEWARE = "ours behind our middleware"
# For information: without transactions of the driver's, and with what our middleware does for a request.
BESIDE = {
    "ours, autocommit": _ours(_by_psycopg, kwargs=AUTOCOMMIT),
    "psycopg_pool, autocommit": _psycopg_pool(kwargs=AUTOCOMMIT),
}
