"""Where a request begins and ends is known in every framework, and the program does not notice."""

import asyncio
import contextvars
import inspect
import os
import runpy
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from flask import Flask, Response, redirect, stream_with_context
from flask import request as flask_request
from litestar import Litestar, get
from litestar.params import FromPath
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from werkzeug.middleware.proxy_fix import ProxyFix

from penstock.guard import frameworks
from penstock.guard.launch import BOOTSTRAP
from penstock.guard.requests import Request, begin, begun, current, leave
from support.web import client

PENSTOCK = Path(sys.executable).with_name("penstock")
SRC = Path(__file__).parents[1] / "src"


class KnownFlask(Flask):
    __call__ = frameworks.wsgi(Flask.__call__, frameworks._flask_route)


class KnownStarlette(Starlette):
    __call__ = frameworks.asgi(Starlette.__call__)


class KnownLitestar(Litestar):
    __call__ = frameworks.asgi(Litestar.__call__)


def here() -> Request:
    """The request, which there must be."""
    found = current()
    assert found is not None
    return found


def ends(request: Request) -> list[Request]:
    """Gets the request when it ends."""
    found: list[Request] = []
    request.at_end(lambda: found.append(request))
    return found


# ---------------------------------------------------------------------------------------------- a request


def test_what_is_to_be_done_at_the_end_is_done_once_the_last_first() -> None:
    request, done = Request(lambda: "it"), list[int]()
    request.at_end(lambda: done.append(1))
    request.at_end(lambda: done.append(2))
    request.end()
    request.end()
    assert done == [2, 1]
    assert request.over


def test_what_comes_after_the_end_is_done_at_once() -> None:
    request, done = Request(lambda: "it"), list[int]()
    request.end()
    request.at_end(lambda: done.append(1))
    assert done == [1]


def test_a_callback_that_raises_is_logged_and_the_others_are_called(caplog: pytest.LogCaptureFixture) -> None:
    request, done = Request(lambda: "GET /it"), list[int]()
    request.at_end(lambda: done.append(1))
    request.at_end(lambda: 1 // 0)
    request.end()
    assert done == [1]
    assert "at the end of GET /it" in caplog.text


def test_a_name_that_cannot_be_had_harms_nobody() -> None:
    assert Request(lambda: {}["REQUEST_METHOD"]).name == "a request"


def test_work_that_goes_on_after_the_end_is_not_done_for_the_request() -> None:
    request = Request(lambda: "it")
    token = begin(request)
    background = contextvars.copy_context()
    assert background.run(current) is request
    leave(token)
    request.end()
    assert background.run(current) is None


# ---------------------------------------------------------------------------------------------- WSGI


def test_a_flask_request_ends_when_its_response_is_closed() -> None:
    app = KnownFlask(__name__)
    seen: list[Any] = []

    @app.get("/orders/<int:number>")
    def order(number: int) -> str:
        seen.append((here(), ends(here())))
        return "it"

    before = begun()
    response = app.test_client().get("/orders/7", buffered=False)
    [(request, ended)] = seen
    assert not ended
    assert current() is None
    response.close()
    assert ended == [request]
    assert begun() == before + 1
    assert request.name == "GET /orders/<int:number>"


def test_a_response_that_streams_is_made_for_the_request() -> None:
    app = KnownFlask(__name__)
    seen: list[Any] = []

    @app.get("/")
    def rows() -> Response:
        seen.append((here(), ends(here())))

        def chunks() -> Iterator[str]:
            for each in "ab":
                seen.append(current())
                yield each
            seen.append(flask_request.path)

        return Response(stream_with_context(chunks()))

    response = app.test_client().get("/", buffered=False)
    assert b"".join(response.response) == b"ab"  # type: ignore[arg-type]
    (request, ended), *rest = seen
    assert rest == [request, request, "/"]
    assert current() is None
    assert not ended
    response.close()
    assert ended == [request]


def test_middleware_put_round_later_is_within_the_request() -> None:
    app = KnownFlask(__name__)
    app.add_url_rule("/", view_func=lambda: "it")
    seen: list[Any] = []
    inner = app.wsgi_app

    def middleware(environ: Any, start_response: Any) -> Any:
        seen.append(current())
        return inner(environ, start_response)

    app.wsgi_app = ProxyFix(middleware)  # type: ignore[method-assign]
    assert app.test_client().get("/").data == b"it"
    assert isinstance(seen[0], Request)


def test_an_exception_passes_and_ends_the_request() -> None:
    app = KnownFlask(__name__)
    app.testing = True
    seen: list[Any] = []

    @app.get("/")
    def fails() -> str:
        seen.append(ends(here()))
        raise LookupError("its own")

    with pytest.raises(LookupError, match="its own"):
        app.test_client().get("/")
    assert len(seen[0]) == 1
    assert current() is None


def test_an_application_mounted_in_another_has_no_request_of_its_own() -> None:
    outer, inner = KnownFlask("outer"), KnownFlask("inner")
    seen: list[Any] = []
    inner.add_url_rule("/", view_func=lambda: seen.append(here()) or "it")
    outer.add_url_rule("/", view_func=lambda: seen.append(here()) or inner.test_client().get("/").data)
    before = begun()
    assert outer.test_client().get("/").data == b"it"
    assert seen[0] is seen[1]
    assert begun() == before + 1


def test_what_flask_answers_to_head_and_redirects_is_as_it_was() -> None:
    for app in (plain := Flask("same"), known := KnownFlask("same")):
        app.add_url_rule("/", view_func=lambda: "it")
        app.add_url_rule("/away", "away", lambda: redirect("/"))
    for ask in ("head", "get", "options", "post"):
        for path in ("/", "/away", "/nowhere"):
            one, other = (getattr(app.test_client(), ask)(path) for app in (plain, known))
            assert (one.status, one.data, one.headers) == (other.status, other.data, other.headers)


def test_a_list_and_a_file_reach_the_server_as_they_are() -> None:
    class File:
        pass

    class App:
        def __init__(self) -> None:
            self.body: Any = [b"it"]

        @frameworks.wsgi
        def __call__(self, environ: Any, start_response: Any) -> Any:
            seen.append(ends(here()))
            return self.body

    app, seen = App(), list[Any]()
    environ = {"wsgi.file_wrapper": File}
    assert app(environ, None) is app.body
    assert seen[0]
    app.body = File()
    assert app(environ, None) is app.body
    assert seen[1]


def test_what_a_response_is_can_be_asked_of_it() -> None:
    class Streaming:
        status_code = 200

        def __iter__(self) -> Iterator[bytes]:
            return iter([b"it"])

    class App:
        @frameworks.wsgi
        def __call__(self, environ: Any, start_response: Any) -> Any:
            return Streaming()

    body = App()({}, None)
    assert body.status_code == 200
    assert list(body) == [b"it"]
    assert not hasattr(body, "other")
    body.close()


# ---------------------------------------------------------------------------------------------- ASGI


def test_an_asgi_request_ends_when_the_application_returns() -> None:
    async def scenario() -> None:
        seen: list[Any] = []

        async def order(request: StarletteRequest) -> StreamingResponse:
            seen.append((here(), ends(here())))

            async def chunks() -> Any:
                seen.append(current())
                yield "it"

            return StreamingResponse(chunks())

        app = KnownStarlette(routes=[Route("/orders/{number}", order)])
        before = begun()
        async with client(app) as http:
            assert (await http.get("/orders/7")).text == "it"
        [(request, ended), streaming] = seen
        assert streaming is request
        assert ended == [request]
        assert begun() == before + 1
        assert current() is None
        assert request.name == "GET /orders/{number}"

    asyncio.run(scenario())


def test_threads_and_tasks_of_an_asgi_request_work_for_it() -> None:
    async def scenario() -> None:
        seen: list[Any] = []

        def blocking(request: StarletteRequest) -> PlainTextResponse:  # run in a thread
            seen.append(here())
            return PlainTextResponse("it")

        async def passes(request: Any, go_on: Any) -> Any:  # runs the rest in a task of its own
            seen.append(here())
            return await go_on(request)

        inner = KnownStarlette(routes=[Route("/", blocking)])
        app = KnownStarlette(routes=[Mount("/in", inner)], middleware=[Middleware(BaseHTTPMiddleware, dispatch=passes)])
        before = begun()
        async with client(app) as http:
            assert (await http.get("/in/")).text == "it"
        assert seen[0] is seen[1]
        assert begun() == before + 1

    asyncio.run(scenario())


def test_a_request_that_is_started_in_the_context_of_the_last_one_is_its_own() -> None:
    async def scenario() -> None:
        seen: list[Request] = []
        tasks: list[asyncio.Task[None]] = []

        async def app(self: Any, scope: Any, receive: Any, send: Any) -> None:
            seen.append(here())
            if len(seen) == 1:  # as a server does with pipelined requests, while the first still runs
                tasks.append(asyncio.create_task(known(None, {"type": "http"}, None, None)))
                await asyncio.sleep(0)

        known = frameworks.asgi(app)
        await known(None, {"type": "http"}, None, None)
        await tasks[0]
        assert len({id(each) for each in seen}) == 2
        assert all(each.over for each in seen)

    asyncio.run(scenario())


def test_a_request_that_is_cancelled_is_over() -> None:
    async def scenario() -> None:
        entered, ended = asyncio.Event(), list[Any]()

        async def app(self: Any, scope: Any, receive: Any, send: Any) -> None:
            ended.append(ends(here()))
            entered.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(frameworks.asgi(app)(None, {"type": "http"}, None, None))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(ended[0]) == 1

    asyncio.run(scenario())


def test_websockets_and_lifespans_are_no_requests() -> None:
    async def scenario() -> None:
        seen: list[Any] = []

        async def talk(socket: Any) -> None:
            seen.append(current())

        app = KnownStarlette(routes=[WebSocketRoute("/", talk)])
        scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b""}
        before = begun()
        await app(scope, None, None)  # type: ignore[arg-type]
        assert seen == [None]
        assert begun() == before

    asyncio.run(scenario())


def test_litestar_is_known() -> None:
    async def scenario() -> None:
        seen: list[Any] = []

        @get("/orders/{number:int}")
        async def order(number: FromPath[int]) -> str:
            seen.append((here(), ends(here())))
            return "it"

        app = KnownLitestar(route_handlers=[order], logging_config=None)
        async with client(app) as http:
            assert (await http.get("/orders/7")).text == "it"
        [(request, ended)] = seen
        assert ended == [request]
        assert request.name == "GET /orders/{number}"

    asyncio.run(scenario())


def test_an_entrance_stays_a_coroutine_function_for_servers_that_look() -> None:
    for kind in (KnownStarlette, KnownLitestar):
        assert inspect.iscoroutinefunction(kind.__call__)
    assert inspect.iscoroutinefunction(frameworks.asgi(ASGIHandler.__call__))
    assert not inspect.iscoroutinefunction(frameworks.wsgi(WSGIHandler.__call__))


# ---------------------------------------------------------------------------------------------- as it is imported


def test_what_is_hooked_is_what_can_be_wrapped() -> None:
    hooked = runpy.run_path(str(BOOTSTRAP / "sitecustomize.py"))["FRAMEWORKS"]
    assert set(hooked) == set(frameworks._INSTALL)


PROGRAM = """
    import asyncio, threading
    from penstock.guard.requests import begun, current

    seen = []
    def note():
        seen.append(current())
        return "it"

    from flask import Flask
    app = Flask("app")
    app.add_url_rule("/", view_func=note)
    assert app.test_client().get("/", buffered=True).data == b"it"

    import django
    from django.conf import settings
    from django.http import HttpResponse
    settings.configure(ROOT_URLCONF="__main__", ALLOWED_HOSTS=["*"], SECRET_KEY="none")
    django.setup()
    from django.urls import path
    async def view(request, number):
        return HttpResponse(note())
    urlpatterns = [path("", lambda request: HttpResponse(note())), path("a/<int:number>", view)]
    from django.core.wsgi import get_wsgi_application
    from wsgiref.util import setup_testing_defaults
    environ = {}
    setup_testing_defaults(environ)
    body = get_wsgi_application()(environ, lambda *given: None)
    assert b"".join(body) == b"it" and not seen[-1].over
    body.close()

    import httpx
    from django.core.asgi import get_asgi_application
    from fastapi import FastAPI
    fastapi = FastAPI()
    fastapi.get("/orders/{number}")(lambda number: note())
    def ask(app, path):
        async def run():
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as http:
                return (await http.get(path)).text
        return asyncio.run(run())
    assert ask(get_asgi_application(), "/a/7") == "it"
    assert ask(fastapi, "/orders/7") == '"it"'

    from celery import Celery
    tasks = Celery()
    @tasks.task(name="work")
    def work():
        return note()
    assert work.apply().get() == "it"

    assert begun() == len(seen) == 5 and all(each.over for each in seen), seen
    print(*[each.name for each in seen], sep=", ")
"""


def run(program: str, **environ: str) -> str:
    path = os.pathsep.join([str(SRC), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [PENSTOCK, "run", "--watch", "--", sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": path, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_frameworks_are_known_as_an_unmodified_program_imports_them() -> None:
    assert run(PROGRAM).splitlines() == ["GET /, GET /, GET /a/<int:number>, GET /orders/{number}, task work"]


def test_nothing_is_wrapped_when_it_is_off() -> None:
    program = "from flask import Flask; print(hasattr(Flask.__call__, '__wrapped__'))"
    assert [run(program), run(program, PENSTOCK="off")] == ["True\n", "False\n"]
