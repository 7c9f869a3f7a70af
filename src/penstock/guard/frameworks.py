"""Where requests begin and end: the frameworks' entrances, whatever server stands before them.

A framework is wrapped rather than a server: there are more of the latter, some are not Python, and a test client has
none. Within a request another one does not count: an application mounted in another, Celery's tasks run eagerly.
WebSockets and lifespans are no requests: they last.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from types import ModuleType
from typing import Any

from .requests import Request, begin, current, leave

logger = logging.getLogger("penstock.guard")

_KEY = "penstock.guard.request"  # in an ASGI scope, and its copies
Wrap = Callable[..., Any]
Route = Callable[[Any, Any], object]  # of an application and an environment or a scope; asked for when there is a need


def imported(module: ModuleType) -> None:
    """Have the requests of this framework known. Whatever goes wrong here, the program runs as it would have."""
    try:
        _INSTALL[module.__name__](module)
    except Exception:
        logger.exception("where requests of %s begin and end is not known", module.__name__)


# ---------------------------------------------------------------------------------------------- WSGI


def wsgi(call: Any, route: Route | None = None) -> Any:
    """A WSGI application's ``__call__``."""

    @wraps(call)
    def __call__(self: Any, environ: Any, start_response: Any) -> Any:
        if current() is not None:
            return call(self, environ, start_response)
        request = Request(lambda: _wsgi_name(self, environ, route))
        token = begin(request)
        try:
            body = call(self, environ, start_response)
        except BaseException:
            leave(token)
            request.end()
            raise
        leave(token)
        if _is_complete(body, environ):
            request.end()
            return body
        return Body(body, request)

    return __call__


class Body:
    """A WSGI response on its way out. Its request is over when the server closes it."""

    __slots__ = ("_body", "_chunks", "_request")

    def __init__(self, body: Iterable[bytes], request: Request) -> None:
        self._body = body
        self._request = request
        self._chunks: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        token = begin(self._request)
        try:
            if self._chunks is None:
                self._chunks = iter(self._body)
            return next(self._chunks)
        finally:
            leave(token)

    def close(self) -> None:
        token = begin(self._request)
        try:
            if hasattr(self._body, "close"):
                self._body.close()
        finally:
            leave(token)
            self._request.end()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)


def _is_complete(body: Any, environ: Any) -> bool:
    """Whether nothing more is to be done for it. Then the server gets it as it is, as it may look at what it is:

    of a list it knows the length, and a file it may send by itself.
    """
    if isinstance(body, (list, tuple)):
        return True
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)


def _wsgi_name(app: Any, environ: Any, route: Route | None) -> str:
    return f"{environ['REQUEST_METHOD']} {_found(route, app, environ) or environ.get('PATH_INFO', '')}"


def _found(route: Route | None, app: Any, environ: Any) -> object:
    """None where the route is not known; a framework's router raises for a path that it does not have."""
    try:
        return route and route(app, environ)
    except Exception:
        return None


def _flask_route(app: Any, environ: Any) -> object:
    return app.url_map.bind_to_environ(environ).match(return_rule=True)[0]


def _django_route(app: Any, environ: Any) -> object:
    from django.urls import resolve  # type: ignore[import-untyped]

    return f"/{resolve(environ.get('PATH_INFO') or environ['path']).route}"


# ---------------------------------------------------------------------------------------------- ASGI


def asgi(call: Any, route: Route | None = None) -> Any:
    """An ASGI application's ``__call__``."""

    @wraps(call)
    async def __call__(self: Any, scope: Any, receive: Any, send: Any) -> Any:
        # By the scope, not by the context alone: a server may start a connection's next request in that of the last.
        if scope["type"] != "http" or _KEY in scope:
            return await call(self, scope, receive, send)
        request = scope[_KEY] = Request(lambda: _asgi_name(self, scope, route))
        token = begin(request)
        try:
            return await call(self, scope, receive, send)
        finally:
            leave(token)
            request.end()

    return __call__


def _asgi_name(app: Any, scope: Any, route: Route | None) -> str:
    told = getattr(scope.get("route"), "path", None) or scope.get("path_template")  # FastAPI's, and Litestar's
    return f"{scope['method']} {told or _found(route, app, scope) or scope['path']}"


# ---------------------------------------------------------------------------------------------- aiohttp, Celery


def aiohttp(handle: Any) -> Any:
    """aiohttp's ``Application._handle``."""

    @wraps(handle)
    async def _handle(self: Any, request: Any) -> Any:
        if "Upgrade" in request.headers:
            return await handle(self, request)
        ours = Request(lambda: _aiohttp_name(request))
        token = begin(ours)
        try:
            return await handle(self, request)
        finally:
            leave(token)
            ours.end()

    return _handle


def _aiohttp_name(request: Any) -> str:
    resource = request.match_info.route.resource
    return f"{request.method} {resource.canonical if resource else request.path}"


def celery(signals: Any) -> None:
    """A task is a request too; its signals are sent in the thread that it runs in, whatever it raises."""
    under_way: dict[str, tuple[Request, Any]] = {}

    def began(task_id: str, task: Any, **_: Any) -> None:
        if current() is None:
            request = Request(lambda: f"task {task.name}")
            under_way[task_id] = request, begin(request)

    def ended(task_id: str, **_: Any) -> None:
        found = under_way.pop(task_id, None)
        if found is not None:
            request, token = found
            leave(token)
            request.end()

    signals.task_prerun.connect(began, weak=False)
    signals.task_postrun.connect(ended, weak=False)


# ---------------------------------------------------------------------------------------------- where they are


def _entrance(name: str, wrap: Wrap, *route: Route) -> Callable[[Any], None]:
    """*name*: a class of the module's and its method."""
    owner, method = name.split(".")

    def install(module: Any) -> None:
        kind = getattr(module, owner)
        setattr(kind, method, wrap(vars(kind)[method], *route))

    return install


_INSTALL: dict[str, Callable[[Any], None]] = {
    "flask.app": _entrance("Flask.__call__", wsgi, _flask_route),
    "django.core.handlers.wsgi": _entrance("WSGIHandler.__call__", wsgi, _django_route),
    "django.core.handlers.asgi": _entrance("ASGIHandler.__call__", asgi, _django_route),
    "starlette.applications": _entrance("Starlette.__call__", asgi),  # and FastAPI, which derives from it
    "litestar.app": _entrance("Litestar.__call__", asgi),
    "falcon.app": _entrance("App.__call__", wsgi),
    "falcon.asgi.app": _entrance("App.__call__", asgi),
    "bottle": _entrance("Bottle.__call__", wsgi),
    "aiohttp.web_app": _entrance("Application._handle", aiohttp),
    "celery.signals": celery,
}
