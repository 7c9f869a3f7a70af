"""An ASGI application behind our middleware: its pools, its deadline, its refusals, what outlives a request, health."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Any

import django
import httpx
import litestar
import pytest
from django.conf import settings
from fastapi import BackgroundTasks, FastAPI
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

import penstock
from penstock import AsyncPool, Overloaded, Pool
from penstock.integrations.asgi import PenstockMiddleware
from penstock.integrations.sqlalchemy import PenstockPool
from penstock.integrations.web import refusal_in, waited
from support.either import ask
from support.waiting import aside, soon
from support.web import client, free_port, left, lifespan, outlived

# ------------------------------------------------------------------------------------------ opening and closing


def test_pools_live_as_long_as_the_application(dsn: str) -> None:
    """Open before its own lifespan starts, and until that has ended; closed after."""
    pool = AsyncPool(dsn, min_size=1, open=False)
    threads = Pool(dsn, min_size=1, open=False)
    seen = []

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[dict[str, str]]:
        async with pool.connection() as conn:
            seen.append(await ask(conn, "SELECT 1"))
        yield {"mine": "state"}
        async with pool.connection() as conn:
            seen.append(await ask(conn, "SELECT 2"))
        with threads.connection() as conn:
            seen.append(conn.execute("SELECT 3").fetchone()[0])

    async def scenario() -> None:
        app = Starlette(lifespan=life)
        app.add_middleware(PenstockMiddleware, pools=[pool, threads])
        async with lifespan(app) as sent:
            assert not pool.closed
            assert not threads.closed
            assert sent == ["lifespan.startup.complete"]
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert seen == [1, 2, 3]
        assert pool.closed
        assert threads.closed
        assert pool.snapshot().open == threads.snapshot().open == 0

    asyncio.run(scenario())


def test_an_application_that_fails_to_start_leaves_no_pool_open(dsn: str) -> None:
    """And its failure is the server's to hear of."""
    pool = AsyncPool(dsn, min_size=1, open=False)

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        raise LookupError("no such bucket")
        yield

    async def scenario() -> None:
        with pytest.raises(LookupError):
            async with lifespan(PenstockMiddleware(Starlette(lifespan=life), [pool])) as sent:
                pass
        assert sent == ["lifespan.startup.failed"]
        assert pool.closed

    asyncio.run(scenario())


def test_a_pool_that_cannot_be_opened_leaves_no_other_open(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = AsyncPool(dsn, min_size=1, open=False), Pool(dsn, min_size=1, open=False)

    def fails(*args: Any) -> None:
        raise RuntimeError("can't start new thread")

    async def scenario() -> None:
        monkeypatch.setattr(second, "open", fails)
        async with lifespan(PenstockMiddleware(Starlette(), [first, second])) as sent:
            assert sent == ["lifespan.startup.failed"]
        assert first.closed

    asyncio.run(scenario())


def test_a_pool_that_cannot_be_closed_is_no_matter_of_the_others(
    dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = AsyncPool(dsn, min_size=1, open=False, name="first"), Pool(dsn, min_size=1, open=False)

    async def fails() -> None:
        raise RuntimeError("mine")

    async def scenario() -> None:
        async with lifespan(PenstockMiddleware(Starlette(), [first, second])) as sent:
            with monkeypatch.context() as patched:
                patched.setattr(first, "close", fails)
                await PenstockMiddleware(Starlette(), [first, second])._close()
            assert second.closed
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]

    asyncio.run(scenario())
    assert "first: could not be closed in order: RuntimeError('mine')" in caplog.text


def test_an_application_without_lifespan_has_its_pools_opened_all_the_same(dsn: str) -> None:
    """Django's, and any that raises at the word."""
    pool = AsyncPool(dsn, min_size=1, open=False)

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError(f"can only handle http, not {scope['type']}")

    async def scenario() -> None:
        async with lifespan(PenstockMiddleware(bare, [pool])) as sent:
            assert not pool.closed
            assert sent == ["lifespan.startup.complete"]
        assert sent[-1] == "lifespan.shutdown.complete"
        assert pool.closed

    asyncio.run(scenario())


def test_a_server_without_lifespan_opens_at_the_first_request(dsn: str) -> None:
    pool = AsyncPool(dsn, min_size=1, open=False)

    async def one(request: Request) -> JSONResponse:
        async with pool.connection() as conn:
            return JSONResponse(await ask(conn, "SELECT 1"))

    async def scenario() -> None:
        async with client(PenstockMiddleware(Starlette(routes=[Route("/", one)]), [pool])) as http:
            assert (await http.get("/")).json() == 1
        await pool.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("lives", [True, False], ids=["lifespan", "a loop for each request"])
def test_an_application_that_starts_again_finds_its_pools_open(dsn: str, lives: bool) -> None:
    """As in every test suite, each time in a loop of its own; Starlette's TestClient has one even for each request."""
    pool = AsyncPool(dsn, min_size=1, open=False, name="again")
    threads = Pool(dsn, min_size=1, open=False)

    async def one(request: Request) -> JSONResponse:
        with threads.connection() as conn:
            assert conn.execute("SELECT 1").fetchone()[0] == 1
        async with pool.connection() as conn:
            return JSONResponse(await ask(conn, "SELECT 1"))

    app = PenstockMiddleware(Starlette(routes=[Route("/", one)]), [pool, threads])

    async def scenario() -> None:
        async with lifespan(app) if lives else nullcontext(), client(app) as http:
            assert (await http.get("/")).json() == 1
        assert (pool.closed, threads.closed) == (lives, lives)

    for _ in range(3):
        asyncio.run(scenario())
    threads.close()


# ------------------------------------------------------------------------------------------ no connection


async def refused_by(pool: AsyncPool[Any], app: Any, path: str = "/", method: str = "GET") -> Any:
    """The response while all connections are held."""
    async with pool, client(app) as http, pool.connection():
        return await http.request(method, path)


def starlette_listed(endpoint: Any) -> Any:
    return Starlette(routes=[Route("/", endpoint)], middleware=[Middleware(PenstockMiddleware)])


def starlette_wrapped(endpoint: Any) -> Any:
    return PenstockMiddleware(Starlette(routes=[Route("/", endpoint)]))


def starlette_in_debug(endpoint: Any) -> Any:
    return PenstockMiddleware(Starlette(debug=True, routes=[Route("/", endpoint)]))


def starlette_with_its_own_handler(endpoint: Any) -> Any:
    async def handler(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"mine": str(error)}, 500)

    app = Starlette(routes=[Route("/", endpoint)], exception_handlers={Exception: handler})
    return PenstockMiddleware(app)


def starlette_behind_another(endpoint: Any) -> Any:
    async def through(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    both = [Middleware(PenstockMiddleware), Middleware(BaseHTTPMiddleware, dispatch=through)]
    return Starlette(routes=[Route("/", endpoint)], middleware=both)


def fastapi_listed(endpoint: Any) -> Any:
    app = FastAPI()
    app.add_middleware(PenstockMiddleware)

    @app.get("/")
    async def root() -> Any:
        return await endpoint(None)

    return app


def litestar_wrapped(endpoint: Any) -> Any:
    @litestar.get("/")
    async def root() -> Any:
        return await endpoint(None)

    return PenstockMiddleware(litestar.Litestar([root], logging_config=None))


def django_wrapped(endpoint: Any) -> Any:
    from django.core.asgi import get_asgi_application
    from django.urls import path

    if not settings.configured:
        settings.configure()
        django.setup()
    # Whoever has configured them, in this process: other tests want Django too.
    for name, value in {"ALLOWED_HOSTS": ["*"], "ROOT_URLCONF": __name__, "SECRET_KEY": "x"}.items():
        setattr(settings, name, value)

    async def view(request: Any) -> Any:
        return await endpoint(request)

    urlpatterns[:] = [path("", view)]
    from django.urls import clear_url_caches

    clear_url_caches()
    logging.getLogger("django.request").setLevel(logging.CRITICAL)
    return PenstockMiddleware(get_asgi_application())


urlpatterns: list[Any] = []


@pytest.mark.filterwarnings("ignore::DeprecationWarning:litestar")
@pytest.mark.parametrize(
    "framework",
    [
        starlette_listed,
        starlette_wrapped,
        starlette_in_debug,
        starlette_with_its_own_handler,
        starlette_behind_another,
        fastapi_listed,
        litestar_wrapped,
        django_wrapped,
    ],
)
def test_no_connection_is_503_whatever_the_framework_makes_of_it(dsn: str, framework: Callable[[Any], Any]) -> None:
    """With Retry-After, and without a word of whom holds what; where our middleware stands does not matter."""
    pool = AsyncPool(dsn, min_size=1, open=False, name="secret-name")

    async def endpoint(request: Any) -> Any:
        async with pool.connection(timeout=0.01) as conn:
            await ask(conn, "SELECT 1")

    response = asyncio.run(refused_by(pool, framework(endpoint)))
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == 503
    assert "secret-name" not in response.text
    assert "test_web" not in response.text


def test_an_error_of_another_kind_is_nobody_s_503(dsn: str) -> None:
    """Nor is one that follows a refusal which the application had got over."""
    pool = AsyncPool(dsn, min_size=1, max_size=1, open=False)
    free = AsyncPool(dsn, min_size=1, open=False)

    async def endpoint(request: Request) -> JSONResponse:
        try:
            async with pool.connection(timeout=0):
                pass
        except penstock.PoolTimeout:
            async with free.connection():
                pass
        raise LookupError("no such key")

    async def scenario() -> None:
        async with free:
            app = PenstockMiddleware(Starlette(routes=[Route("/", endpoint)]))
            with pytest.raises(LookupError):
                await refused_by(pool, app)

    asyncio.run(scenario())


def test_a_database_that_is_down_is_503_through_sqlalchemy_too(dsn: str) -> None:
    """The application gets the driver's error, as without us; who is answered can do no more than come back later."""
    port = free_port()
    engine = create_engine(f"postgresql+psycopg://nobody@127.0.0.1:{port}/none", poolclass=PenstockPool)
    up = create_engine(dsn.replace("postgresql:", "postgresql+psycopg:"), poolclass=PenstockPool)

    async def down(request: Request) -> JSONResponse:
        with engine.connect():
            raise AssertionError("never reached")

    async def other(request: Request) -> JSONResponse:
        with suppress(OperationalError):
            await down(request)
        with up.connect():
            raise LookupError

    async def scenario() -> None:
        routes = [Route("/down", down), Route("/other", other)]
        app = Starlette(routes=routes)
        transport = httpx.ASGITransport(app=PenstockMiddleware(app), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            response = await http.get("/down")
            assert (response.status_code, response.headers["retry-after"]) == (503, "5")
            assert response.json()["detail"] == "The database is unavailable. Try again in 5 s."
            assert (await http.get("/other")).status_code == 500

    asyncio.run(scenario())
    engine.dispose()
    up.dispose()


def test_a_response_that_has_begun_is_not_begun_anew(dsn: str) -> None:
    """Its error goes to the server, which breaks the response off."""
    pool = AsyncPool(dsn, min_size=1, open=False)
    sent = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        async with pool.connection(timeout=0):
            pass

    async def scenario() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        async with pool, pool.connection():
            with pytest.raises(penstock.PoolExhausted):
                await PenstockMiddleware(app)({"type": "http", "method": "GET", "path": "/"}, None, send)

    asyncio.run(scenario())
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]


def test_retry_after_is_what_the_pool_says_rounded_up() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise Overloaded("web", retry_after=2.1)

    async def scenario() -> Any:
        async with client(PenstockMiddleware(app)) as http:
            return await http.get("/"), await http.head("/")

    got, headed = asyncio.run(scenario())
    assert got.headers["retry-after"] == headed.headers["retry-after"] == "3"
    assert (headed.status_code, headed.content) == (503, b"")


def test_a_refusal_that_was_wrapped_is_one_still() -> None:
    """As SQLAlchemy and Django wrap their driver's errors."""
    refusal = penstock.PoolExhausted("all held")
    wrapper, outer = OSError("wrapped"), RuntimeError("wrapped again")
    wrapper.__cause__, outer.__cause__ = refusal, wrapper
    assert refusal_in(outer) is refusal
    unrelated = OSError("alone")
    unrelated.__context__ = refusal  # something else went wrong while it was dealt with
    assert refusal_in(unrelated) is None


def test_refusals_are_logged_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    """With the route and the pool's own words: a flood of refusals is not to be one of lines."""

    async def refuse(request: Request) -> None:
        raise penstock.TooManyRequests("web: 5 requests are waiting already")

    async def scenario() -> None:
        app = Starlette(routes=[Route("/orders/{number}", refuse)], middleware=[Middleware(PenstockMiddleware)])
        async with client(app) as http:
            for number in range(20):
                assert (await http.get(f"/orders/{number}")).status_code == 503

    asyncio.run(scenario())
    lines = [record.getMessage() for record in caplog.records if record.name == "penstock.web"]
    assert lines == ["503 for GET /orders/{number}: TooManyRequests: web: 5 requests are waiting already"]


# ------------------------------------------------------------------------------------------ the deadline


def test_a_request_has_its_deadline_until_the_response_begins() -> None:
    """Streams and background tasks have none; nor has what comes after the request."""
    found: dict[str, float | None] = {}

    async def stream() -> AsyncIterator[bytes]:
        found["stream"] = left()
        yield b"x"

    app = FastAPI()
    app.add_middleware(PenstockMiddleware, deadline=5.0)

    def note() -> None:
        found["background"] = left()

    @app.get("/")
    async def root(background: BackgroundTasks) -> StreamingResponse:
        found["handler"] = left()
        found["thread"] = await asyncio.to_thread(left)
        background.add_task(note)
        return StreamingResponse(stream(), background=background)

    async def scenario() -> None:
        async with client(app) as http:
            assert (await http.get("/")).content == b"x"
        found["after"] = left()

    asyncio.run(scenario())
    assert 4 < (found.pop("handler") or 0) <= 5
    assert 4 < (found.pop("thread") or 0) <= 5
    assert found == {"stream": None, "background": None, "after": None}


@pytest.mark.parametrize("per_second", [1, 1000, 1_000_000, 1_000_000_000])
def test_the_deadline_counts_from_when_the_proxy_took_the_request_in(per_second: int) -> None:
    """In the unit that the proxy writes; only if the header is named."""
    found = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append(left())
        raise Overloaded

    async def scenario() -> None:
        value = f"t={(time.time() - 2) * per_second:.3f}"
        for options in ({"arrival_header": "X-Request-Start"}, {}):
            async with client(PenstockMiddleware(app, deadline=5.0, **options)) as http:
                await http.get("/", headers={"X-Request-Start": value})

    asyncio.run(scenario())
    trusting, not_asked = found
    assert 2.5 < trusting < 3.05
    assert 4.5 < not_asked <= 5


@pytest.mark.parametrize(
    "header", [None, "", "soon", "t=", "nan", "inf", "-5", "0", "1e400", "12345678901234567890123"]
)
def test_a_time_that_means_nothing_is_now(header: str | None) -> None:
    assert waited(header) == 0.0


def test_a_clock_ahead_of_ours_is_now() -> None:
    assert waited(f"t={time.time() + 3}") == 0.0


def test_a_request_that_came_too_late_is_refused_at_once(dsn: str) -> None:
    """It had spent its time in the proxy's queue: 503, with every connection free."""

    async def one(request: Request) -> JSONResponse:
        async with pool.connection() as conn:
            return JSONResponse(await ask(conn, "SELECT 1"))

    pool = AsyncPool(dsn, min_size=1, open=False)
    app = PenstockMiddleware(
        Starlette(routes=[Route("/", one)]), [pool], deadline=0.5, arrival_header="X-Request-Start"
    )

    async def scenario() -> None:
        async with lifespan(app), client(app) as http:
            fresh, late = f"t={time.time():.3f}", f"t={time.time() - 1:.3f}"
            assert (await http.get("/", headers={"X-Request-Start": fresh})).status_code == 200
            assert (await http.get("/", headers={"X-Request-Start": late})).status_code == 503

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------ what outlives a request


def test_a_connection_that_outlives_its_request_is_reported_with_the_route(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Taken by the request, or by a task or a thread that it started."""
    pool = AsyncPool(dsn, min_size=3, open=False)
    threads = Pool(dsn, min_size=1, open=False)
    kept: list[Any] = []

    async def leak(request: Request) -> JSONResponse:
        kept.append(await pool.getconn())
        await asyncio.create_task(keep())
        await asyncio.to_thread(lambda: kept.append(threads.connection().__enter__()))
        return JSONResponse("leaked")

    async def keep() -> None:
        kept.append(await pool.connection().__aenter__())

    async def scenario() -> None:
        app = Starlette(routes=[Route("/orders/{number}", leak)], middleware=[Middleware(PenstockMiddleware)])
        async with pool, client(app) as http:
            threads.open()
            events, of_threads = outlived(pool), outlived(threads)
            assert (await http.get("/orders/7")).json() == "leaked"
            assert [event.request for event in events + of_threads] == ["GET /orders/{number}"] * 3
            assert {event.holder.site.function.split(".")[-1] for event in events} == {"leak", "keep"}
            for conn in kept[:2]:
                await pool.putconn(conn)
            threads.putconn(kept[2])
            threads.close()

    asyncio.run(scenario())
    lines = [record.getMessage() for record in caplog.records if "outlives" in record.getMessage()]
    assert len(lines) == 3
    assert all("a connection outlives its request, GET /orders/{number}: taken at " in line for line in lines)


def test_what_sqlalchemy_lent_outlives_its_request_as_well(dsn: str) -> None:
    engine = create_engine(dsn.replace("postgresql:", "postgresql+psycopg:"), poolclass=PenstockPool)
    kept: list[Any] = []

    async def leak(request: Request) -> JSONResponse:
        with engine.connect():
            kept.append(engine.connect())
        return JSONResponse("leaked")

    async def scenario() -> None:
        app = Starlette(routes=[Route("/orders", leak)], middleware=[Middleware(PenstockMiddleware)])
        async with client(app) as http:
            events = outlived(engine.pool)
            assert (await http.get("/orders")).json() == "leaked"
        [event] = events
        assert event.request == "GET /orders"
        assert event.holder.site.function.split(".")[-1] == "leak"

    asyncio.run(scenario())
    kept[0].close()
    engine.dispose()


def test_streams_and_background_tasks_outlive_nothing(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """A connection that a stream holds until its end, a background task's, and one of a task that was told to go on."""
    pool = AsyncPool(dsn, min_size=3, open=False)
    go_on = asyncio.Event()
    tasks = []

    async def rows() -> AsyncIterator[bytes]:
        async with pool.connection() as conn:
            for number in range(3):
                yield str(await ask(conn, "SELECT %s::int", number)).encode()

    async def later() -> None:
        with penstock.deadline(None):
            async with pool.connection():
                await go_on.wait()

    app = FastAPI()
    app.add_middleware(PenstockMiddleware, deadline=5.0)

    async def write() -> None:
        async with pool.connection() as conn:
            await ask(conn, "SELECT 1")
        tasks.append(asyncio.create_task(later()))
        await soon(lambda: pool.snapshot().leased == 2)

    @app.get("/")
    async def root(background: BackgroundTasks) -> StreamingResponse:
        tasks.append(asyncio.create_task(later()))
        await soon(lambda: pool.snapshot().leased == 1)
        background.add_task(write)
        return StreamingResponse(rows(), background=background)

    async def scenario() -> None:
        async with pool, client(app) as http:
            events = outlived(pool)
            assert (await http.get("/")).content == b"012"
            assert pool.snapshot().leased == 2
            assert events == []
            go_on.set()
            await asyncio.gather(*tasks)

    asyncio.run(scenario())
    assert "outlives" not in caplog.text


def test_what_a_request_that_failed_has_left_running_is_not_its_own(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither its deadline nor its end counts for a task that goes on after the exception."""
    pool = AsyncPool(dsn, min_size=1, open=False)
    tasks: list[asyncio.Task[Any]] = []
    over, terms = asyncio.Event(), []

    async def later() -> None:
        await over.wait()
        terms.append(left())
        async with pool.connection() as conn:
            await ask(conn, "SELECT 1")

    async def fails(scope: Any, receive: Any, send: Any) -> None:
        tasks.append(asyncio.create_task(later()))
        raise LookupError("mine")

    async def scenario() -> None:
        async with pool, client(PenstockMiddleware(fails, deadline=5.0)) as http:
            with pytest.raises(LookupError):
                await http.get("/")
            over.set()
            await asyncio.gather(*tasks)

    asyncio.run(scenario())
    assert terms == [None]


# ------------------------------------------------------------------------------------------ WebSockets


def test_a_websocket_that_no_connection_could_be_had_for_is_declined(dsn: str) -> None:
    """Before it is accepted, without an error for the server to show; afterwards it is the application's matter."""
    pool = AsyncPool(dsn, min_size=1, open=False)
    scope = {"type": "websocket", "path": "/feed", "headers": []}
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    def feed(accepts: bool) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if accepts:
                await send({"type": "websocket.accept"})
            async with pool.connection(0.01):
                pass

        return PenstockMiddleware(app)

    async def scenario() -> None:
        async with pool:
            held = await pool.getconn()
            task = asyncio.create_task(feed(False)(scope, receive, send))
            await task
            assert sent == [{"type": "websocket.close", "code": 1013}]
            with pytest.raises(penstock.PoolTimeout):
                await asyncio.create_task(feed(True)(scope, receive, send))
            await pool.putconn(held)

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------ health


def test_readiness_sees_the_database_gone_while_a_connection_is_held(own_postgres: Any) -> None:
    """A WebSocket or a LISTEN that sits on one is no reason to call the pool busy, and so ready."""
    server = own_postgres()
    pool = AsyncPool(server.dsn, min_size=1, max_size=4, open=False, connect_timeout=0.5)
    app = PenstockMiddleware(Starlette(), [pool], ready="/readyz")

    async def scenario() -> None:
        async with lifespan(app), client(app) as http:
            async with pool.connection():
                assert (await http.get("/readyz")).status_code == 200
                server.stop("immediate")
                assert (await http.get("/readyz")).status_code == 503

    asyncio.run(scenario())


def test_of_two_pools_of_one_name_the_dead_one_is_seen(dsn: str) -> None:
    alive, dead = AsyncPool(dsn, min_size=1, open=False, name="db"), Pool(dsn, min_size=1, open=False, name="db")
    app = PenstockMiddleware(Starlette(), [dead, alive], ready="/readyz")

    async def scenario() -> None:
        async with lifespan(app), client(app) as http:
            assert (await http.get("/readyz")).status_code == 200
            dead.close()
            assert (await http.get("/readyz")).status_code == 503

    asyncio.run(scenario())


def test_readiness_waits_for_nobody(dsn: str) -> None:
    """All connections held and a queue before the pool: ready, at once, and no connection was asked for."""
    pool = AsyncPool(dsn, min_size=2, open=False, name="main")
    threads = Pool(dsn, min_size=1, open=False, name="threads")
    app = PenstockMiddleware(Starlette(), [pool, threads], live="/livez", ready="/readyz")

    async def queue() -> None:
        async with pool.connection():
            pass

    async def scenario() -> None:
        async with lifespan(app), client(app) as http:
            await pool.wait()
            async with pool.connection(), pool.connection():
                with threads.connection():
                    waiting = [asyncio.create_task(queue()) for _ in range(5)]
                    await soon(lambda: pool.snapshot().waiting == 5)
                    asked = pool.snapshot().requests
                    response = await http.get("/readyz")
                    assert response.status_code == 200
                    assert response.json() == {"status": "ready", "pools": {"main": "ready", "threads": "ready"}}
                    assert pool.snapshot().requests == asked
            await asyncio.gather(*waiting)
            assert (await http.get("/readyz")).status_code == 200
            assert (await http.post("/readyz")).status_code == 404  # the application's

    asyncio.run(scenario())


def test_readiness_sees_the_database_go_and_come_back(own_postgres: Any) -> None:
    """With nobody else asking: 503 while it is down, 200 afterwards; liveness does not care."""
    server = own_postgres()
    pool = AsyncPool(server.dsn, min_size=1, open=False, name="main")
    threads = Pool(server.dsn, min_size=1, open=False, name="threads")
    app = PenstockMiddleware(Starlette(), [pool, threads], live="/livez", ready="/readyz")

    async def scenario() -> None:
        async with lifespan(app), client(app) as http:
            assert (await http.get("/readyz")).status_code == 200
            await asyncio.to_thread(server.stop)
            response = await http.get("/readyz")
            assert response.status_code == 503
            assert set(response.json()["pools"].values()) == {"the database is unavailable"}
            assert (await http.get("/livez")).json() == {"status": "alive"}
            await asyncio.to_thread(server.start)
            stages = []
            while not stages or stages[-1] != 200:
                stages.append((await http.get("/readyz")).status_code)
                assert len(stages) < 200

    asyncio.run(scenario())


def test_a_pool_that_is_closed_is_not_ready(dsn: str) -> None:
    pool = AsyncPool(dsn, min_size=1, open=False, name="main")
    app = PenstockMiddleware(Starlette(), [pool], ready="/readyz")

    async def scenario() -> None:
        async with lifespan(app), client(app) as http:
            await pool.close()
            response = await http.get("/readyz")
            assert response.status_code == 503
            assert response.json()["pools"] == {"main": "not open"}

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------ what is wrong


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"pools": 5}, TypeError, "pools must be a list"),
        ({"pools": ["postgresql://"]}, TypeError, "there is a str in it"),
        ({"deadline": -1}, ValueError, "deadline must be 0 seconds or more"),
        ({"deadline": "1"}, TypeError, "deadline must be a number of seconds"),
        ({"arrival_header": "X-Request-Start"}, ValueError, "give a deadline= too"),
        ({"live": "livez"}, ValueError, "live must be a path that begins with a slash, not 'livez'"),
        ({"live": 5}, TypeError, "live must be a path, .* not 5"),
        ({"live": "/a", "ready": "/a"}, ValueError, "live and ready must be two paths: both are '/a'"),
    ],
)
def test_a_bad_option_is_named(options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        PenstockMiddleware(Starlette(), **options)


def test_a_pool_that_is_not_in_a_list_is_told_so(dsn: str) -> None:
    pool = AsyncPool(dsn, open=False)
    with pytest.raises(TypeError, match=r"pools must be a list of .* pools=\[pool\], and not a AsyncPool"):
        PenstockMiddleware(Starlette(), pool)  # type: ignore[arg-type]


def test_other_scopes_pass_through() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    asyncio.run(PenstockMiddleware(app)({"type": "unheard-of"}, None, None))  # type: ignore[arg-type]
    assert seen == ["unheard-of"]
    assert aside(lambda: seen).result(1) == ["unheard-of"]
