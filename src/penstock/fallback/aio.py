"""The fallback for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

from ..pool.terms import forget
from . import keys
from .base import BaseFallback, Fly, Load
from .flight import Flight, Outcome
from .policy import Answer, Limits

P = ParamSpec("P")
T = TypeVar("T")


class AsyncFallback(BaseFallback):
    """A read-through cache for asyncio, which answers when the database does not.

    Options and methods are those of `penstock.fallback.Fallback`. Loads are tasks of their own: a reader that is
    cancelled ends none that others wait for.
    """

    _is_async = True

    async def get(
        self, key: str, load: Load[T], *, fresh: float | None = None, stale: float | None = None
    ) -> Answer[T]:
        """As `Fallback.get`; *load* may be a coroutine function."""
        return await self._get(key, load, self._limits.but(fresh, stale))

    def read(
        self, key: str | Callable[P, str], *, fresh: float | None = None, stale: float | None = None
    ) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Coroutine[Any, Any, T]]]:
        """As `Fallback.read`, for coroutine functions."""
        limits = self._limits.but(fresh, stale)

        def decorate(function: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
            key_of = keys.maker(function, key)

            @wraps(function)
            async def reader(*args: P.args, **kwargs: P.kwargs) -> T:
                load: Load[T] = partial(function, *args, **kwargs)
                return (await self._get(key_of(*args, **kwargs), load, limits)).value

            return reader

        return decorate

    async def forget(self, key: str) -> None:
        """As `Fallback.forget`."""
        await self._forget(key)

    async def _get(self, key: str, load: Load[T], limits: Limits) -> Answer[T]:
        return self._hit(key, limits) or await self._read(key, load, limits)

    async def _launch(self, flight: Flight, fly: Fly) -> None:
        context = copy_context()
        if flight.beside:
            context.run(forget)  # it goes on after the reader's deadline
        flight.runner = asyncio.get_running_loop().create_task(fly(), context=context)

    def _runner(self) -> object:
        return asyncio.current_task()

    async def _wait(self, flight: Flight, seconds: float | None) -> Outcome | None:
        landed = asyncio.wrap_future(flight.future)
        try:
            await asyncio.wait([landed], timeout=seconds)
            return landed.result() if landed.done() else None
        finally:
            landed.cancel()
