"""A Flask extension: a pool an application, and a connection a request."""

from __future__ import annotations

from sys import _getframe
from typing import Any

from flask import Flask, current_app, g, request
from werkzeug.wrappers import Response

from ..errors import PoolError
from ..pool.sync import BoundCheckout, Pool
from . import web, wsgi

_NAME = "penstock"
_HELD = "_penstock_checkout"


class Penstock:
    """``penstock = Penstock(app)``, or ``penstock = Penstock()`` and later ``penstock.init_app(app)``.

    Configuration, read by `init_app`:

    - ``PENSTOCK_CONNINFO``: where to connect; needed unless a pool is given.
    - ``PENSTOCK_OPTIONS``: further options of `Pool`, a dict: ``{"max_size": 10}``.
    - ``PENSTOCK_DEADLINE``, ``PENSTOCK_ARRIVAL_HEADER``, ``PENSTOCK_LIVE``, ``PENSTOCK_READY``: as
      `penstock.integrations.wsgi.PenstockMiddleware` has them.

    :param app: the application; without one call `init_app`.
    :param pool: a `Pool` made with ``open=False``, instead of one by configuration.
    """

    def __init__(self, app: Flask | None = None, pool: Pool[Any] | None = None) -> None:
        self._given = pool
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Make the application's pool, which is opened at the first request or use, and see to its requests.

        :raises RuntimeError: when the application has such an extension already, or nothing says where to connect.
        :raises ValueError: (or TypeError) for what is wrong with the configuration.
        """
        if _NAME in app.extensions:
            raise RuntimeError("this application has a Penstock already")
        pool = self._given or _pool_of(app)
        middleware = wsgi.PenstockMiddleware(
            app.wsgi_app,
            [pool],
            deadline=app.config.get("PENSTOCK_DEADLINE"),
            arrival_header=app.config.get("PENSTOCK_ARRIVAL_HEADER"),
            live=app.config.get("PENSTOCK_LIVE"),
            ready=app.config.get("PENSTOCK_READY"),
        )
        app.wsgi_app = middleware  # type: ignore[method-assign]
        app.extensions[_NAME] = middleware
        app.before_request(_tell_route)
        app.teardown_appcontext(_give_back)
        for refusal in web.REFUSALS:
            if refusal not in app.error_handler_spec[None][None]:  # the user's own
                app.register_error_handler(refusal, _busy)

    @property
    def pool(self) -> Pool[Any]:
        """The current application's pool."""
        pool: Pool[Any] = current_app.extensions[_NAME].pools[0]
        if pool.closed:
            pool.open()  # outside of a request: `flask shell`, a command
        return pool

    @property
    def connection(self) -> Any:
        """This request's connection: borrowed when it is first asked for, and given back when the request is over.

        What was not committed by then is rolled back: use ``with conn.transaction():``, or ``conn.commit()``.

        :raises PoolError: as `Pool.connection` does.
        """
        held = g.get(_HELD)
        if held is None:
            frame = _getframe(1)
            checkout = BoundCheckout(self.pool, None, frame.f_code, frame.f_lasti)
            held = checkout, checkout.__enter__()
            setattr(g, _HELD, held)
        return held[1]


def _pool_of(app: Flask) -> Pool[Any]:
    conninfo = app.config.get("PENSTOCK_CONNINFO")
    if conninfo is None:
        raise RuntimeError('nothing says where to connect: set app.config["PENSTOCK_CONNINFO"], or Penstock(pool=...)')
    return Pool(conninfo, open=False, **{"name": app.name, **app.config.get("PENSTOCK_OPTIONS", {})})


def _tell_route() -> None:
    if request.url_rule is not None:
        request.environ[wsgi.ROUTE] = request.url_rule.rule


def _busy(refusal: PoolError) -> Response:
    answer = web.busy(refusal)
    current_app.extensions[_NAME].turned_away.note(wsgi.route(request.environ), refusal)
    return Response(answer.body, answer.status, answer.headers)


def _give_back(error: BaseException | None) -> None:
    held = g.pop(_HELD, None)
    if held is not None:
        held[0].__exit__(_Over, None, None)


class _Over(Exception):
    """Stands for the end of a request, at which what was not committed is rolled back."""
