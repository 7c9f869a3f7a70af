"""The ASGI application: the page and its three files, its events, the figures, the actions."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from importlib.resources import files
from typing import Any

from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from .actions import Impossible
from .counts import counts
from .door import Door, Refused
from .feed import Feed, Reading, TooMany

MOST_ORDERED = 10_000  # bytes of an order
SEND_SECONDS = 10.0  # for which a browser may take nothing before it is given up
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}

Act = Callable[[Mapping[str, Any]], Awaitable[str]]
Metrics = Callable[[Request], Response]
Endpoint = Callable[[Request], Awaitable[Response]]


def site(
    read: Callable[[], Reading],
    door: Door,
    act: Act | None = None,
    metrics: Metrics | None = None,
    extras: Callable[[], dict[str, Any]] = dict,
) -> ASGIApp:
    """:param read: what is shown, asked for in a thread. :param act: carries out an order; None: nothing can be done.

    :param metrics: answers `/metrics`. :param extras: more that each frame has.
    """
    can_act = act is not None and door.token is not None
    feed = Feed(read, {"actions": can_act, "in_process": act is not None}, extras)

    async def events(request: Request) -> Response:
        try:
            return EventSourceResponse(feed.watch(), headers=HEADERS, send_timeout=SEND_SECONDS, sep="\n")
        except TooMany:
            return _says(503, "So many watch already that there is no room for one more.")

    async def pool(request: Request) -> Response:
        reading = await run_in_threadpool(read)
        return JSONResponse(counts(reading.documents), headers=HEADERS)

    async def prometheus(request: Request) -> Response:
        if metrics is None:
            return _says(404, "Metrics are told by each process itself: mount this application there.")
        return await run_in_threadpool(metrics, request)

    async def order(request: Request) -> Response:
        if act is None:
            return _says(403, "Pools of other processes are shown here; what they do can be changed in their own.")
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_ORDERED:
                return _says(413, "That is too much.")
        try:
            told = json.loads(body)
            if not isinstance(told, dict):
                raise Impossible("An order is a JSON object.")
            return JSONResponse({"done": await act(told)}, headers=HEADERS)
        except (ValueError, RecursionError):
            return _says(400, "An order is a JSON object.")
        except Impossible as error:
            return _says(409, str(error))

    def reader(endpoint: Endpoint) -> Endpoint:
        return _behind(door.let_read, endpoint)

    return Starlette(
        routes=[
            Route("/", _file("page.html")),
            Route("/page.css", _file("page.css")),
            Route("/page.js", _file("page.js")),
            Route("/page.svg", _file("page.svg")),
            Route("/events", reader(events)),
            Route("/metrics/pool", reader(pool)),
            Route("/metrics", reader(prometheus)),
            Route("/act", _behind(door.let_act, order), methods=["POST"]),
        ]
    )


def _behind(let: Callable[[Mapping[str, Any]], None], endpoint: Endpoint) -> Endpoint:
    @wraps(endpoint)
    async def checked(request: Request) -> Response:
        try:
            let(request.scope)
        except Refused as refused:
            response = _says(refused.status, refused.why)
            if refused.status == 401:
                response.headers["WWW-Authenticate"] = "Bearer"
            return response
        return await endpoint(request)

    return checked


def _file(name: str) -> Endpoint:
    body = files("penstock.observe.web").joinpath("static", name).read_bytes()

    kind = _TYPES[name.rpartition(".")[2]]

    async def answer(request: Request) -> Response:
        return Response(body, media_type=kind, headers={**HEADERS, "Cache-Control": "no-cache"})

    return answer


def _says(status: int, why: str) -> Response:
    return PlainTextResponse(why + "\n", status, headers=HEADERS)
