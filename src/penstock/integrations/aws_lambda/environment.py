"""An execution environment: what becomes of its pools as an invocation begins, and as it ends."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Token
from threading import Lock
from types import TracebackType
from typing import Any
from weakref import WeakSet

from ...core import Reason
from ...core.settings import check_seconds
from ...drivers.base import Status, settled
from ...errors import PoolError
from ...fleet.clock import clock
from ...pool.base import BasePool, one_line
from ...pool.steps import run
from ...pool.sync import Pool
from ...pool.terms import Origin, Terms, begin, end, of_request
from . import line, shutdown
from .turn import Turn

logger = logging.getLogger("penstock.lambda")

CHECK_SECONDS = 0.5  # within which a connection that was frozen has to answer; then another is opened
LOOK_SECONDS = 0.5  # to be told how full the line is; then the connection is closed
SETTLE_SECONDS = 1.5  # to wait for connections that are being opened or closed as the invocation ends
MARGIN = 0.25  # seconds of an invocation's time that are left for giving back and answering

_POLL_SECONDS = 0.001
_taken: WeakSet[BasePool[Any]] = WeakSet()


class Environment:
    """The pools of a process that is frozen between invocations. For what is no function of an event and a context:

        environment = aws_lambda.Environment(pool)

        def work(request):
            with environment.invocation(seconds=60):      # or `async with`
                ...

    Otherwise see `handler`, which takes the same arguments.
    """

    def __init__(
        self, *pools: BasePool[Any], keep: float = 0.5, keep_for: float = 60.0, check_after: float = 1.0
    ) -> None:
        _check(pools, keep)
        check_seconds("keep_for", keep_for)
        check_seconds("check_after", check_after)
        self._pools = pools
        self._keep = keep
        self._keep_for = keep_for
        self._check_after = check_after
        self._max_idle = {pool: pool.max_idle for pool in pools}
        self._lock = Lock()  # guards what follows; nothing is waited for under it
        self._running = 0
        self._ended = (-math.inf, -math.inf)  # when the last invocation did, by two clocks
        self._cannot_ask: set[BasePool[Any]] = set()
        for pool in pools:
            _taken.add(pool)
            if pool._kit.door is None:  # a fleet has a door of its own
                pool._kit.door = Turn(pool)
        shutdown.close_on_sigterm(pools)

    def invocation(self, seconds: float | None = None) -> Invocation:
        """One invocation, for the length of a `with` or an `async with` block.

        :param seconds: within which it has to have ended; None for any time.
        """
        return Invocation(self, seconds)

    # ------------------------------------------------------------------------------------------ its beginning

    def begin(self) -> None:
        with self._undone_on_error():
            asleep = self._begun()
            for pool in self._pools:
                if isinstance(pool, Pool):
                    run(self._thaw(pool, asleep))
                elif (loop := _resting(pool)) is not None:
                    loop.run_until_complete(self._thaw(pool, asleep))

    async def begin_async(self) -> None:
        with self._undone_on_error():
            asleep = self._begun()
            for pool in self._pools:
                await self._thaw(pool, asleep)

    @contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        """An invocation that cannot begin has no end: it does not count."""
        try:
            yield
        except BaseException:
            self._is_last()
            raise

    def _begun(self) -> float:
        """Seconds since the last invocation ended; 0 when one is under way."""
        with self._lock:
            self._running += 1
            if self._running > 1:
                return 0.0
            # Which of the clocks goes on while the machine stands still depends on what makes it stand still.
            return max(clock() - self._ended[0], time.time() - self._ended[1])

    async def _thaw(self, pool: BasePool[Any], asleep: float) -> None:
        """Trust no connection that was frozen for a while. Only who needs one waits until it has answered."""
        if not isinstance(pool, Pool):
            pool._renew_if_over()  # its event loop was that of an invocation before
        if pool.closed:
            await settled(pool.open())  # type: ignore[attr-defined]
        _keep_idle(pool, self._max_idle[pool])
        if asleep > self._check_after:
            pool._doubt(CHECK_SECONDS)  # type: ignore[attr-defined]

    # ------------------------------------------------------------------------------------------ its end

    def end(self, origin: Origin) -> None:
        last = self._is_last()
        for pool in self._pools:
            if isinstance(pool, Pool):
                run(self._rest(pool, origin, last))
            elif (loop := _resting(pool)) is not None:
                loop.run_until_complete(self._rest(pool, origin, last))

    async def end_async(self, origin: Origin) -> None:
        last = self._is_last()
        for pool in self._pools:
            await self._rest(pool, origin, last)

    def _is_last(self) -> bool:
        """Of those that are under way. It is not from here on, however its end goes: of two at once one is the last."""
        with self._lock:
            self._running -= 1
            self._ended = (clock(), time.time())
            return self._running == 0

    async def _rest(self, pool: BasePool[Any], origin: Origin, last: bool) -> None:
        """Leave nothing behind that would be frozen with the process, and never an error."""
        try:
            if pool.closed or (pool._is_async and _loop_of(pool) is not asyncio.get_running_loop()):
                return
            if last:
                _keep_idle(pool, 0.0)  # what comes back from now on is closed by who gives it back, at once
            for slot in pool._core.leases() if last else [slot for its, slot in origin.kept() if its is pool]:
                if slot.owner is not None:
                    pool._take_back(slot, Reason.ABANDONED)
            if last:
                await _settled(pool)
                if not await self._keeps(pool):
                    pool._event(pool._core.close_idle, Reason.UNUSED)
                    await _settled(pool)
        except Exception:
            logger.exception("%s: an invocation ended, and not all was given back", pool.name)

    async def _keeps(self, pool: BasePool[Any]) -> bool:
        """Whether what is idle stays open while the process is frozen. If so, it does."""
        if not pool._core.idle or not self._keep or pool in self._cannot_ask:
            return False
        _keep_idle(pool, self._max_idle[pool])
        share = 0.0 if self._keep >= 1 else await self._taken(pool)
        if share is None or share <= self._keep:
            return True
        _keep_idle(pool, 0.0)
        return False

    async def _taken(self, pool: BasePool[Any]) -> float | None:
        """The share of the line that is taken; infinity when that cannot be known."""
        try:
            conn = await settled(pool._borrow(LOOK_SECONDS))  # type: ignore[attr-defined]
        except PoolError:  # it was found dead
            return math.inf
        try:
            with pool._cut_off(conn, pool._clock() + LOOK_SECONDS):
                return await line.taken(pool._driver, conn, self._keep_for)
        except Exception as error:
            if pool._driver.status(conn) is not Status.BROKEN:
                self._cannot_ask.add(pool)
                logger.warning(
                    "%s: how full the server's line is cannot be asked, so each invocation closes its connections"
                    " (keep=0 does so unasked, keep=1 keeps them): %s",
                    *(pool.name, one_line(error)),
                )
            return math.inf
        finally:
            await settled(pool._hand_back(conn))  # type: ignore[attr-defined]


class Invocation:
    """Made by `Environment.invocation`."""

    def __init__(self, environment: Environment, seconds: float | None) -> None:
        if seconds is not None:
            check_seconds("seconds", seconds)
        self._environment = environment
        self._seconds = seconds
        self._origin = Origin()
        self._token: Token[Terms | None] | None = None

    def __enter__(self) -> None:
        self._environment.begin()
        with self._environment._undone_on_error():
            self._declare()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._undeclare()
        self._environment.end(self._origin)

    async def __aenter__(self) -> None:
        await self._environment.begin_async()
        with self._environment._undone_on_error():
            self._declare()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._undeclare()
        await self._environment.end_async(self._origin)

    def _declare(self) -> None:
        seconds = self._seconds
        if seconds is not None:
            seconds = max(seconds - MARGIN, seconds / 2)
        self._token = begin(of_request(self._origin, seconds, 0.0))

    def _undeclare(self) -> None:
        if self._token is not None:
            end(self._token)


def _check(pools: tuple[Any, ...], keep: float) -> None:
    """:raises ValueError: (or TypeError) naming the argument, what was found and what it may be."""
    if not pools:
        raise TypeError("a pool is needed: handler(pool)")
    for pool in pools:
        if not isinstance(pool, BasePool):
            raise TypeError(f"pools must be penstock's, as in handler(pool), and not a {type(pool).__name__}")
        if pool.min_size:
            raise ValueError(
                f"{pool.name}: min_size is {pool.min_size}, and must be 0 here: connections that are kept open are kept"
                " by every frozen process"
            )
        if pool in _taken:
            raise ValueError(f"{pool.name}: this pool has a handler already: make one Environment for both of them")
    if isinstance(keep, bool) or not isinstance(keep, (int, float)):
        raise TypeError(f"keep must be a number from 0 to 1, not {keep!r}")
    if not 0 <= keep <= 1:
        raise ValueError(f"keep must be a share of the line, from 0 (none) to 1 (all), not {keep!r}")


def _keep_idle(pool: BasePool[Any], seconds: float) -> None:
    pool._core.keep_idle(seconds)
    pool._core.pace.rate = math.inf  # an invocation may need a connection of its own, however many there are a second


def _loop_of(pool: BasePool[Any]) -> asyncio.AbstractEventLoop | None:
    return getattr(pool, "_loop", None)


def _resting(pool: BasePool[Any]) -> asyncio.AbstractEventLoop | None:
    """The event loop of an AsyncPool's, while the function that uses it does not run: Mangum runs it for each event."""
    loop = _loop_of(pool)
    return None if loop is None or loop.is_closed() or loop.is_running() else loop


async def _settled(pool: BasePool[Any]) -> None:
    """Wait for what is being opened or closed.

    Frozen in the midst of its login, or before its goodbye is out, a connection would keep its place for a minute.
    """
    core, until = pool._core, time.monotonic() + SETTLE_SECONDS
    while (core.opening or core.closing) and time.monotonic() < until:
        if pool._is_async:
            await asyncio.sleep(_POLL_SECONDS)
        else:
            time.sleep(_POLL_SECONDS)  # noqa: ASYNC251 - over a Pool's connections no step suspends
