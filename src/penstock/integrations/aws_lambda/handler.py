"""The decorator."""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from threading import Lock
from typing import Any, TypeVar

from ...core.settings import check_seconds
from ...pool.base import BasePool
from .environment import Environment

F = TypeVar("F", bound=Callable[..., Any])


def handler(
    *pools: BasePool[Any],
    keep: float = 0.5,
    keep_for: float = 60.0,
    check_after: float = 1.0,
    timeout: float = 30.0,
) -> Callable[[F], F]:
    """Make a function the handler of a process that is frozen between two events: AWS Lambda and its kind.

    All that it borrows from these pools is given back when it returns. Its deadline is declared (`penstock.deadline`),
    a little before the platform's. Where the server has no connection left, it waits for its turn.

    A coroutine function becomes a plain one, which runs it in an event loop that is kept from one event to the next.
    Called in a running event loop it returns something to be awaited.

    :param pools: each a `Pool` or `AsyncPool` with ``min_size=0``; ``max_size=1`` unless the function has threads or
        tasks that need connections at the same time.
    :param keep: connections stay open over the freeze while at most this share of all that the server allows are taken;
        0 for never. 1 for always, without asking: for a pooler such as PgBouncer or RDS Proxy, whose clients are cheap.
    :param keep_for: seconds after which the server ends one that was kept and not used (PostgreSQL 14 or newer, MySQL,
        MariaDB). Asked together with how many are taken.
    :param check_after: seconds since the last event ended, after which a connection that was kept has to answer
        within half a second before it is used; after less the kernel's word is enough.
    :param timeout: seconds that an event may take, where none of the function's arguments has
        ``get_remaining_time_in_millis``.
    :raises ValueError: (or TypeError) naming the argument, what was found and what it may be.
    """
    check_seconds("timeout", timeout)
    environment = Environment(*pools, keep=keep, keep_for=keep_for, check_after=check_after)

    def decorate(function: F) -> F:
        if iscoroutinefunction(function):
            return _of_coroutine(environment, function, timeout)  # type: ignore[return-value]

        @wraps(function)
        def handle(*args: Any, **kwargs: Any) -> Any:
            with environment.invocation(_left(args, kwargs, timeout)):
                return function(*args, **kwargs)

        return handle  # type: ignore[return-value]

    return decorate


def _of_coroutine(environment: Environment, function: Callable[..., Any], timeout: float) -> Callable[..., Any]:
    loop: asyncio.AbstractEventLoop | None = None  # made with the first event, and kept
    one_at_a_time = Lock()

    async def handle(*args: Any, **kwargs: Any) -> Any:
        async with environment.invocation(_left(args, kwargs, timeout)):
            return await function(*args, **kwargs)

    @wraps(function)
    def handle_here(*args: Any, **kwargs: Any) -> Any:
        nonlocal loop
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            with one_at_a_time:
                if loop is None:
                    loop = asyncio.new_event_loop()
                    atexit.register(loop.close)
                return loop.run_until_complete(handle(*args, **kwargs))
        return handle(*args, **kwargs)

    return handle_here


def _left(args: tuple[Any, ...], kwargs: dict[str, Any], timeout: float) -> float:
    """Seconds until the platform ends this invocation."""
    for argument in (*args, *kwargs.values()):
        remaining = getattr(argument, "get_remaining_time_in_millis", None)
        if callable(remaining):
            return max(0.0, float(remaining()) / 1000)
    return timeout
