"""A connection as a FastAPI dependency: the endpoint's, given back before the response is sent."""

import asyncio
from time import monotonic
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import StreamingResponse
from psycopg import AsyncConnection

from penstock import AsyncPool, Pool
from penstock.integrations.asgi import PenstockMiddleware
from penstock.integrations.fastapi import connection
from penstock.pool.terms import declared
from support.either import ask
from support.web import client


def test_two_lines_make_a_dependency(dsn: str) -> None:
    """Committed when the endpoint has returned, rolled back when it has raised; holders() names the endpoint."""
    pool = AsyncPool(dsn, min_size=1, open=False)
    Conn = Annotated[AsyncConnection[Any], connection(pool)]
    app = FastAPI()
    app.add_middleware(PenstockMiddleware, pools=[pool])
    sites = []

    @app.post("/{how}")
    async def create_order(how: str, conn: Conn) -> int:
        sites.extend(pool.holders())
        await conn.execute("INSERT INTO web_fastapi_orders VALUES (%s)", (how,))
        if how == "raises":
            raise LookupError
        return int(await ask(conn, "SELECT count(*) FROM web_fastapi_orders"))

    async def scenario() -> None:
        async with pool, client(app) as http:
            async with pool.connection() as conn:
                await conn.execute("CREATE TABLE IF NOT EXISTS web_fastapi_orders (x text)")
                await conn.execute("TRUNCATE web_fastapi_orders")
            assert (await http.post("/returns")).json() == 1
            with pytest.raises(LookupError):
                await http.post("/raises")
            async with pool.connection() as conn:
                assert await ask(conn, "SELECT array_agg(x) FROM web_fastapi_orders") == ["returns"]

    asyncio.run(scenario())
    assert {holder.site.function.split(".")[-1] for holder in sites} == {"create_order"}
    assert {holder.site.file for holder in sites} == {__file__}


def test_it_is_given_back_before_the_response_is_sent(dsn: str) -> None:
    """A stream, a slow client or a background task holds none."""
    pool = AsyncPool(dsn, min_size=1, open=False)
    Conn = Annotated[AsyncConnection[Any], connection(pool)]
    app = FastAPI()
    leased = []

    async def stream() -> Any:
        leased.append(pool.snapshot().leased)
        yield b"x"

    @app.get("/")
    async def root(conn: Conn, background: BackgroundTasks) -> StreamingResponse:
        leased.append(pool.snapshot().leased)
        background.add_task(lambda: leased.append(pool.snapshot().leased))
        return StreamingResponse(stream(), background=background)

    async def scenario() -> None:
        async with pool, client(app) as http:
            assert (await http.get("/")).content == b"x"

    asyncio.run(scenario())
    assert leased == [1, 0, 0]


def test_no_connection_is_503(dsn: str) -> None:
    """Raised before the endpoint runs."""
    pool = AsyncPool(dsn, min_size=1, timeout=0.01, open=False)
    Conn = Annotated[AsyncConnection[Any], connection(pool)]
    app = FastAPI()
    app.add_middleware(PenstockMiddleware, pools=[pool])

    @app.get("/")
    async def root(conn: Conn) -> None:
        raise AssertionError("never reached")

    async def scenario() -> None:
        async with pool, client(app) as http, pool.connection(timeout=5):
            response = await http.get("/")
            assert (response.status_code, response.headers["retry-after"]) == (503, "1")

    asyncio.run(scenario())


def test_an_endpoint_may_take_longer_than_the_middleware_says(dsn: str) -> None:
    """It is bound before its body runs, so its dependency says it. A refusal is the request's all the same."""
    pool = AsyncPool(dsn, min_size=1, max_size=1, timeout=0.5, open=False)
    app = FastAPI()
    app.add_middleware(PenstockMiddleware, pools=[pool], deadline=5)
    Conn, Longer = (Annotated[AsyncConnection[Any], connection(pool, deadline=seconds)] for seconds in (None, 60))
    left = []

    async def limit(conn: Any) -> int:
        left.append(declared().until - monotonic())  # type: ignore[union-attr]
        return int(await ask(conn, "SELECT extract(epoch FROM current_setting('statement_timeout')::interval)"))

    @app.get("/plain")
    async def plain(conn: Conn) -> int:
        return await limit(conn)

    @app.get("/longer")
    async def longer(conn: Longer) -> int:
        try:
            return await limit(conn)
        finally:
            await conn.execute("SELECT 1")

    async def scenario() -> None:
        async with pool, client(app) as http:
            await pool.wait()
            for path, least, most in (("/plain", 0, 5), ("/longer", 50, 60)):
                assert least <= (await http.get(path)).json() <= most
                assert least <= left.pop() <= most
            async with pool.connection(timeout=5):
                assert (await http.get("/longer")).status_code == 503

    asyncio.run(scenario())


def test_a_deadline_that_is_no_length_of_time_is_refused(dsn: str) -> None:
    with pytest.raises(ValueError, match="deadline must be 0 seconds or more"):
        connection(AsyncPool(dsn, open=False), deadline=-1)


def test_a_pool_for_threads_is_refused_with_what_to_write_instead(dsn: str) -> None:
    with pytest.raises(
        TypeError, match=r"takes an AsyncPool, not a Pool: .* write `with pool.connection\(\) as conn:`"
    ):
        connection(Pool(dsn, open=False))  # type: ignore[arg-type]
