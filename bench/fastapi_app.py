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
from bench.multiplexed import POINT, balance, by_fetch, by_lease
from bench.pools import AUTOCOMMIT, asyncpg_pool, psycopg_pool_async
from penstock.integrations.asgi import PenstockMiddleware

CONNECTIONS = 10

Ask = Callable[[int], Awaitable[int]]


def application() -> FastAPI:
    """The contestant's, as its manual says: ours behind our middleware, the others' pools opened by lifespan."""
    name, dsn = os.environ["PENSTOCK_BENCH_POOL"], os.environ["PENSTOCK_BENCH_DSN"]
    if name in OURS:
        pool = penstock.AsyncPool(dsn, min_size=CONNECTIONS, open=False, **OURS[name])
        ask = _by_acquire(pool) if name == "ours, asyncpg" else BY[name](pool, POINT)
        app = _serving(lambda: ask)
        app.add_middleware(PenstockMiddleware, pools=[pool])
        return app
    asks: list[Ask] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with PEERS[name](dsn) as ask:
            asks.append(ask)
            yield

    return _serving(lambda: asks[0], lifespan=lifespan)


def _serving(find: Callable[[], Ask], **options: Any) -> FastAPI:
    app = FastAPI(**options)

    @app.get("/accounts/{number}")
    async def account(number: int) -> int:
        found = await find()(number)
        assert found == balance(number), f"account {number} has {found}"
        return found

    return app


def _by_acquire(pool: Any) -> Ask:
    async def ask(number: int) -> int:
        async with pool.connection() as connection:
            return await connection.fetchval(POINT.asyncpg, number)  # type: ignore[no-any-return]

    return ask


BY = {"ours": by_lease, "ours, fetchrow": by_fetch}
OURS: dict[str, dict[str, Any]] = {
    "ours": {"kwargs": AUTOCOMMIT},
    "ours, fetchrow": {"kwargs": AUTOCOMMIT},
    #"ours, asyncpg": {"driver": "asyncpg"},
}


@asynccontextmanager
async def _psycopg_pool(dsn: str) -> AsyncIterator[Ask]:
    async with psycopg_pool_async(dsn, CONNECTIONS, kwargs=AUTOCOMMIT) as pool:
        yield by_lease(pool, POINT)


@asynccontextmanager
async def _asyncpg(dsn: str) -> AsyncIterator[Ask]:
    async with asyncpg_pool(dsn, CONNECTIONS) as pool:

        async def ask(number: int) -> int:
            return await pool.fetchval(POINT.asyncpg, number)  # type: ignore[no-any-return]

        yield ask


def _sqlalchemy(driver: str) -> Callable[[str], AbstractAsyncContextManager[Ask]]:
    @asynccontextmanager
    async def opened(dsn: str) -> AsyncIterator[Ask]:
        url = dsn.split("?")[0].replace("postgresql:", f"postgresql+{driver}:", 1)
        engine = create_async_engine(
            url, pool_size=CONNECTIONS, max_overflow=0, isolation_level="AUTOCOMMIT", pool_pre_ping=False
        )
        statement = text("SELECT abalance FROM pgbench_accounts WHERE aid = :number")

        async def ask(number: int) -> int:
            async with engine.connect() as connection:
                return (await connection.execute(statement, {"number": number})).scalar_one()  # type: ignore[no-any-return]

        try:
            yield ask
        finally:
            await engine.dispose()

    return opened


PEERS: dict[str, Callable[[str], AbstractAsyncContextManager[Ask]]] = {
    "psycopg_pool": _psycopg_pool,
    "asyncpg": _asyncpg,
    "SQLAlchemy, psycopg": _sqlalchemy("psycopg"),
    "SQLAlchemy, asyncpg": _sqlalchemy("asyncpg"),
}
