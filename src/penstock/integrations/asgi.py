"""Middleware for ASGI applications: FastAPI, Starlette, Litestar, Django under ASGI, or none of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..core import Priority
from ..drivers.base import settled
from ..errors import PoolError
from ..pool.aio import AsyncPool
from ..pool.base import BasePool
from ..pool.sync import Pool
from ..pool.terms import Origin, Terms, answered, answering, begin, end, of_request
from . import web

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger("penstock.web")

_TRY_AGAIN_LATER = 1013  # a WebSocket's status (IANA's registry of close codes)


class PenstockMiddleware:
    """Between the server and the application, or in the application's list of middleware, first of all.

    - Pools are opened and closed with the application (lifespan), or opened at the first request where the server has
      no lifespan. An application that starts again in another event loop, as in tests, finds its pools open again.
    - A request has a deadline, until its response begins.
    - A request that no connection could be had for is answered with 503 and ``Retry-After``.
    - A connection that is still held when its request is over is reported, with the route: in the log, and as
      `penstock.events.OutlivedRequest`.
    - Health endpoints, which nobody's request makes wait.

    :param pools: `AsyncPool` or `Pool`, made with ``open=False``.
    :param deadline: seconds for each HTTP request, as `penstock.deadline`; None for none.
    :param arrival_header: header in which a proxy says when it took the request in (``X-Request-Start``): the deadline
        counts from then. Name it only where the proxy sets it, whatever the client has sent.
    :param live: path that is answered with 200 as long as the process answers at all; None for no such path.
    :param ready: path that is answered with 200 when all pools can serve, 503 otherwise; None for no such path.
    :raises ValueError: (or TypeError) naming the argument, what was found and what it may be.
    """

    def __init__(
        self,
        app: App,
        pools: Iterable[AsyncPool[Any] | Pool[Any]] = (),
        *,
        deadline: float | None = None,
        arrival_header: str | None = None,
        live: str | None = None,
        ready: str | None = None,
    ) -> None:
        self.app = app
        self.pools: list[AsyncPool[Any] | Pool[Any]] = web.checked(pools, BasePool, "AsyncPool or Pool")
        self._options = web.Options(deadline, arrival_header, live, ready)
        self._arrival = None if arrival_header is None else arrival_header.lower().encode("latin-1")
        self._health = {path for path in (live, ready) if path is not None}
        self._turned_away = web.TurnedAway()
        self._loop: asyncio.AbstractEventLoop | None = None  # that the pools were opened in
        self._aside: ThreadPoolExecutor | None = None  # for what a Pool may block: no user's thread is waited for

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self._live(scope, receive, send)
            return
        if kind not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        if kind == "http" and scope["path"] in self._health and scope["method"] in ("GET", "HEAD"):
            await _answer(await self._look(scope["path"]), scope, send)
            return
        if self._loop is not asyncio.get_running_loop():
            await self._open()
        await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = Origin()
        seconds = self._options.deadline if scope["type"] == "http" else None
        terms = of_request(origin, seconds, self._waited(scope))
        exchange = _Exchange(scope, send, origin, terms, self._turned_away)
        token = begin(terms)
        try:
            await self.app(scope, receive, exchange.send)
        except Exception as error:
            refusal = web.refusal_in(error)
            if refusal is None or (exchange.started and not exchange.replaced):
                raise
            if not exchange.replaced:
                await exchange.refuse(refusal)
        finally:
            end(token)
            answering(terms)  # of whatever it has started, and goes on
            answered(terms)
            origin.end(lambda: _route(scope))

    def _waited(self, scope: Scope) -> float:
        if self._arrival is None:
            return 0.0
        headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
        return web.waited(next((value.decode("latin-1") for name, value in headers if name == self._arrival), None))

    # ------------------------------------------------------------------------------------------ opening and closing

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The pools are open before the application starts, and until it has shut down."""
        startup = await receive()
        try:
            await self._open()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: {error}"})
            return
        life = _Life(startup, receive, send, self._close)
        try:
            await self.app(scope, life.receive, life.send)
        except Exception as error:
            if life.answered:
                raise
            logger.info("the application has no lifespan of its own (%s): only its pools have one", error)
        finally:
            if life.answered:
                await self._close()  # no effect if it was done in order
        if not life.answered:
            await life.alone()

    async def _open(self) -> None:
        try:
            for pool in self.pools:
                pool._renew_if_over()
                await settled(pool.open())
        except BaseException:
            await self._close()  # of those that are not open, no effect
            raise
        self._loop = asyncio.get_running_loop()

    async def _close(self) -> None:
        """All at once, as each may wait a while for what is out; what one of them raises is no matter of the others."""
        ends = [each.close() if isinstance(each, AsyncPool) else self._in_a_thread(each.close) for each in self.pools]
        errors = await asyncio.gather(*ends, return_exceptions=True)
        for pool, error in zip(self.pools, errors, strict=True):
            if isinstance(error, BaseException):
                logger.error("%s: could not be closed in order: %r", pool.name, error)
        if self._aside is not None:
            self._aside.shutdown(wait=False)
            self._aside = None

    async def _in_a_thread(self, job: Callable[[], Any]) -> Any:
        if self._aside is None:
            self._aside = ThreadPoolExecutor(len(self.pools), thread_name_prefix="penstock-web")
        return await asyncio.get_running_loop().run_in_executor(self._aside, job)

    # ------------------------------------------------------------------------------------------ health

    async def _look(self, path: str) -> web.Answer:
        if path == self._options.live:
            return web.alive()
        if self._loop is not asyncio.get_running_loop():
            await self._open()
        found = await asyncio.gather(*map(self._unready, self.pools))
        return web.ready(zip([pool.name for pool in self.pools], found, strict=True))

    async def _unready(self, pool: AsyncPool[Any] | Pool[Any]) -> str | None:
        """What keeps the pool from serving, if anything does. One that is busy is not asked for a connection."""
        if web.in_use(pool.snapshot()):
            return None
        if not isinstance(pool, AsyncPool):
            return await self._in_a_thread(lambda: web.probe(pool))  # type: ignore[no-any-return]
        try:
            async with pool.connection(web.PROBE_SECONDS, Priority.HIGH):
                return None
        except PoolError as error:
            return web.unready(error)


class _Exchange:
    """One request's responses on their way out."""

    __slots__ = ("_origin", "_scope", "_send", "_terms", "_turned_away", "replaced", "started")

    def __init__(self, scope: Scope, send: Send, origin: Origin, terms: Terms, turned_away: web.TurnedAway) -> None:
        self._scope = scope
        self._send = send
        self._origin = origin
        self._terms = terms
        self._turned_away = turned_away
        self.started = False
        self.replaced = False  # the application's 500, by our 503

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            refusal = self._origin.refusal
            if message["status"] == 500 and isinstance(refusal, web.REFUSALS):
                self.replaced = True
                await self.refuse(refusal)
                return
            self.started = True
            answering(self._terms)
        elif kind == "websocket.accept":
            self.started = True
        elif self.replaced:
            return
        elif kind == "http.response.pathsend" or (kind == "http.response.body" and not message.get("more_body")):
            answered(self._terms)
        await self._send(message)

    async def refuse(self, refusal: PoolError) -> None:
        self.started = True
        self._turned_away.note(_route(self._scope), refusal)
        if self._scope["type"] == "http":
            await _answer(web.busy(refusal), self._scope, self._send)
        else:  # a WebSocket that is not accepted yet: the server answers its handshake with 403
            await self._send({"type": "websocket.close", "code": _TRY_AGAIN_LATER})


class _Life:
    """Between the server's lifespan and the application's."""

    def __init__(self, startup: Message, receive: Receive, send: Send, close: Callable[[], Awaitable[None]]) -> None:
        self._startup: Message | None = startup
        self._receive = receive
        self._send = send
        self._close = close
        self.answered = False

    async def receive(self) -> Message:
        if self._startup is not None:
            startup, self._startup = self._startup, None
            return startup
        return await self._receive()

    async def send(self, message: Message) -> None:
        self.answered = True
        if message["type"] != "lifespan.startup.complete":  # it has shut down, or has failed to start
            await self._close()
        await self._send(message)

    async def alone(self) -> None:
        """For an application that takes no part."""
        await self._send({"type": "lifespan.startup.complete"})
        while (await self._receive())["type"] != "lifespan.shutdown":
            pass
        await self._close()
        await self._send({"type": "lifespan.shutdown.complete"})


async def _answer(answer: web.Answer, scope: Scope, send: Send) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})


def _route(scope: Scope) -> str:
    """Its method and its route, as far as the framework tells of it: ``GET /orders/{id}``; otherwise the path."""
    route = getattr(scope.get("route"), "path", None) or scope.get("path_template") or scope["path"]
    return f"{scope.get('method', 'WEBSOCKET')} {route}"
