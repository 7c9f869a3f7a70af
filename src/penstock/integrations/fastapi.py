"""A connection as a FastAPI dependency."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import Depends
from starlette.requests import HTTPConnection

from ..core.settings import check_seconds
from ..pool.aio import AsyncPool, BoundAsyncCheckout
from ..pool.terms import instead

if TYPE_CHECKING:
    from types import CodeType


def connection(pool: AsyncPool[Any], *, deadline: float | None = None) -> Any:
    """A connection of *pool* for the length of an endpoint: ``Conn = Annotated[AsyncConnection, connection(pool)]``.

    As `AsyncPool.connection`: committed when the endpoint has returned, rolled back when it has raised, and given back
    then, before the response is sent: neither a slow client nor a background task keeps it. `holders()` and errors name
    the endpoint.

    :param deadline: seconds for this dependency and the endpoint, in place of what the middleware has declared for the
        request: it may be longer. The connection is borrowed, and its statements are bounded, before the endpoint's
        body could declare another one.
    :raises ValueError: (or TypeError) when *deadline* is no length of time.
    :raises TypeError: when *pool* is not an `AsyncPool`. A `def` endpoint borrows from a `Pool` in its own body:
        FastAPI enters a dependency in one thread, and runs the endpoint in another.
    """
    if not isinstance(pool, AsyncPool):
        raise TypeError(
            f"connection() takes an AsyncPool, not a {type(pool).__name__}: FastAPI would enter, use and leave it in"
            " three threads. In a `def` endpoint write `with pool.connection() as conn:`"
        )

    if deadline is not None:
        check_seconds("deadline", deadline)

    async def borrowed(request: HTTPConnection) -> AsyncIterator[Any]:
        with nullcontext() if deadline is None else instead(deadline):
            async with BoundAsyncCheckout(pool, None, _code(request.scope.get("endpoint"), borrowed), 0) as conn:
                yield conn

    return Depends(borrowed, scope="function")


def _code(endpoint: Any, otherwise: Callable[..., Any]) -> CodeType:
    while isinstance(endpoint, partial):
        endpoint = endpoint.func
    code: CodeType = getattr(endpoint, "__code__", otherwise.__code__)
    return code
