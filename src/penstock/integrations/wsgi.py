"""Middleware for WSGI applications: Flask, Django, or none of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from ..errors import PoolError
from ..pool.sync import Pool
from ..pool.terms import Origin, Terms, answered, answering, begin, end, of_request
from . import web

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]
ROUTE = "penstock.route"  # the key in the environment under which an integration tells of the route
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class PenstockMiddleware:
    """Round a WSGI application, outermost.

    - Pools are opened at the first request, in each process of a server that forks, and closed when the process ends.
    - A request has a deadline, until its response begins.
    - A request that no connection could be had for is answered with 503 and ``Retry-After``.
    - A connection that is still held when its response is complete is reported, with the route: in the log, and as
      `penstock.events.OutlivedRequest`.
    - Health endpoints, which nobody's connection makes wait. They need a thread of the server's as any request does.

    :param pools: `Pool`, made with ``open=False``.
    :param deadline: seconds for each request, as `penstock.deadline`; None for none.
    :param arrival_header: header in which a proxy says when it took the request in (``X-Request-Start``): the deadline
        counts from then, and not from when a worker was free. Name it only where the proxy sets it, whatever the client
        has sent.
    :param live: path that is answered with 200 as long as the process answers at all; None for no such path.
    :param ready: path that is answered with 200 when all pools can serve, 503 otherwise; None for no such path.
    :raises ValueError: (or TypeError) naming the argument, what was found and what it may be.
    """

    def __init__(
        self,
        app: App,
        pools: Iterable[Pool[Any]] = (),
        *,
        deadline: float | None = None,
        arrival_header: str | None = None,
        live: str | None = None,
        ready: str | None = None,
    ) -> None:
        self.app = app
        self.pools: list[Pool[Any]] = web.checked(pools, Pool, "Pool (an AsyncPool is for ASGI)")
        self._options = web.Options(deadline, arrival_header, live, ready)
        self._arrival = None if arrival_header is None else "HTTP_" + arrival_header.upper().replace("-", "_")
        self._health = {path for path in (live, ready) if path is not None}
        self.turned_away = web.TurnedAway()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path in self._health and environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return _answer(self._look(path), environ, start_response)
        self._open()
        return self._serve(environ, start_response)

    def _serve(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        origin = Origin()
        terms = of_request(origin, self._options.deadline, self._waited(environ))
        exchange = _Exchange(environ, start_response, origin, terms, self.turned_away)
        try:
            with _under(terms):
                body = self.app(environ, exchange.start)
        except Exception as error:
            try:
                return exchange.instead(error)
            finally:
                exchange.end()
        except BaseException:
            exchange.end()
            raise
        if exchange.replacement is not None:  # the application has answered 500 because there was no connection
            try:
                _close(body)
            finally:
                exchange.end()
            return exchange.replacement
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(body, wrapper) and not origin.kept():
            exchange.end()
            return body  # as it is, or the server would not know that it may send the file by itself
        return _Body(body, exchange)

    def _waited(self, environ: Environ) -> float:
        return 0.0 if self._arrival is None else web.waited(environ.get(self._arrival))

    def _open(self) -> None:
        for pool in self.pools:
            if pool.closed and not pool._core.closed:  # not open yet, in this process
                pool.open()

    def _look(self, path: str) -> web.Answer:
        if path == self._options.live:
            return web.alive()
        self._open()
        return web.ready((pool.name, web.probe(pool)) for pool in self.pools)


class _Exchange:
    """One request, and its response on its way out."""

    def __init__(
        self,
        environ: Environ,
        start_response: StartResponse,
        origin: Origin,
        terms: Terms,
        turned_away: web.TurnedAway,
    ) -> None:
        self.terms = terms
        self.replacement: list[bytes] | None = None
        self._origin = origin
        self._started = False
        self._environ = environ
        self._start_response = start_response
        self._turned_away = turned_away

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None) -> Any:
        refusal = self._origin.refusal
        if status.startswith("500") and isinstance(refusal, web.REFUSALS):
            self.replacement = self.refuse(refusal, exc_info)
            return _write_nothing
        self._started = True
        answering(self.terms)
        return self._start_response(status, headers, *([] if exc_info is None else [exc_info]))

    def instead(self, error: Exception) -> list[bytes]:
        """The response to a request that has raised *error*, which is raised again if it says of no connection."""
        refusal = web.refusal_in(error)
        if refusal is None:
            raise error
        return self.refuse(refusal, (type(error), error, error.__traceback__) if self._started else None)

    def refuse(self, refusal: PoolError, exc_info: ExcInfo | None) -> list[bytes]:
        """:raises Exception: the one of *exc_info*, by the server, when a response has been sent already."""
        answer = web.busy(refusal)
        body = _answer(answer, self._environ, self._start_response, exc_info)
        self._turned_away.note(route(self._environ), refusal)
        return body

    def end(self) -> None:
        answering(self.terms)  # of whatever it has started, and goes on
        answered(self.terms)
        self._origin.end(lambda: route(self._environ))


class _Body:
    """The application's response. Complete when the server closes it."""

    def __init__(self, body: Iterable[bytes], exchange: _Exchange) -> None:
        self._body = body
        self._exchange = exchange
        self._chunks: Iterator[bytes] | None = None
        self._instead: list[bytes] | None = None  # of an application that does its work only now, and fails

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._instead is not None:
            return self._rest()
        try:
            with _under(self._exchange.terms):
                if self._chunks is None:
                    self._chunks = iter(self._body)
                chunk = next(self._chunks)
        except StopIteration:
            raise
        except Exception as error:
            self._instead = self._exchange.instead(error)
            return self._rest()
        if self._exchange.replacement is not None:  # it has answered 500 only now, because there was no connection
            self._instead = self._exchange.replacement
            return self._rest()
        return chunk

    def _rest(self) -> bytes:
        if not self._instead:
            raise StopIteration
        return self._instead.pop()

    def close(self) -> None:
        try:
            with _under(self._exchange.terms):
                _close(self._body)
        finally:
            self._exchange.end()


@contextmanager
def _under(terms: Terms) -> Iterator[None]:
    token = begin(terms)
    try:
        yield
    finally:
        end(token)


def _close(body: Any) -> None:
    if hasattr(body, "close"):
        body.close()


def _write_nothing(_: bytes) -> None:
    """The `write` of a response that was replaced."""


def _answer(
    answer: web.Answer, environ: Environ, start_response: StartResponse, exc_info: ExcInfo | None = None
) -> list[bytes]:
    status = f"{answer.status} {answer.reason}"
    start_response(status, answer.headers, *([] if exc_info is None else [exc_info]))
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.body]


def route(environ: Environ) -> str:
    """Its method and its route, where it was told of; otherwise the path."""
    return f"{environ['REQUEST_METHOD']} {environ.get(ROUTE) or environ.get('PATH_INFO', '')}"
