"""What every driver's file has in common: a connection is asked for, and is had or not. None of it ever raises."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
from collections.abc import Awaitable, Callable
from functools import wraps
from time import monotonic
from types import FrameType
from typing import Any, ParamSpec, TypeVar

from .. import account, ledger
from ..where import Asked, asked

logger = logging.getLogger("penstock.guard")

P = ParamSpec("P")
T = TypeVar("T")
Status = Callable[[Any], str]  # of a connection: as `Holder.status` has it

_told: set[str] = set()


def harmless(function: Callable[P, T]) -> Callable[P, T | None]:
    """Whatever goes wrong in *function*, the program does not learn of it: it is logged, once."""

    @wraps(function)
    def safe(*args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return function(*args, **kwargs)
        except Exception:
            if function.__qualname__ not in _told:
                _told.add(function.__qualname__)
                logger.exception("watching failed in %s; the program goes on", function.__qualname__)
            return None

    return safe


class Opening:
    """A connect that is under way."""

    __slots__ = ("_asked", "_driver", "_ledger", "_since")

    def __init__(self, driver: str, database: str, asked: Asked) -> None:
        self._driver = driver
        self._asked = asked
        self._ledger = ledger.of(database)
        self._since = monotonic()

    @harmless
    def begins(self) -> None:
        self._ledger.connecting()
        self._since = monotonic()

    @harmless
    def opened(self, conn: Any, status: Status) -> ledger.Held:
        seconds = monotonic() - self._since
        held = self._ledger.connected(self._asked, self._driver, conn, status, seconds)
        account.changed()
        return held

    @harmless
    def failed(self, error: BaseException) -> None:
        if isinstance(error, Exception):
            self._ledger.connect_failed(self._asked, self._driver, error, monotonic() - self._since)
            account.changed()
        else:
            self._ledger.gave_up()

    @harmless
    def unseen(self, what: str) -> None:
        """There is a connection, and no more of it is known than that."""
        self._ledger.gave_up()
        if what not in _told:
            _told.add(what)
            logger.warning("not watched: %s", what)


@harmless
def planned(driver: str, database: Callable[[], str], frame: FrameType) -> Opening | None:
    """None: it is not watched. *frame* is where it is asked for, or further in. It has yet to begin."""
    who = asked(frame)
    return None if who is None else Opening(driver, database(), who)


def opening(driver: str, database: Callable[[], str], frame: FrameType) -> Opening | None:
    """The same, which begins now."""
    note = planned(driver, database, frame)
    if note is not None:
        note.begins()
    return note


async def had(note: Opening, coroutine: Awaitable[T], status: Status) -> T:
    """What *coroutine* connects."""
    note.begins()  # a coroutine that nobody awaits connects nothing
    try:
        conn = await coroutine
    except BaseException as error:
        note.failed(error)
        raise
    note.opened(conn, status)
    return conn


def coroutine_function(function: Any) -> Any:
    """A function that returns a coroutine, known as what it stands for."""
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(function)
    function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]
    return function


@harmless
def noted(conn: Any, statement: Any) -> None:
    """It is about to be sent."""
    held = ledger.find(id(conn))
    if held is not None:
        held.noted(statement)


@harmless
def dropped(conn: Any) -> None:
    """It is being finalized: what its finalizer does to it, the program has not done."""
    held = ledger.find(id(conn))
    if held is not None:
        held.dropped()


@harmless
def began(conn: Any, statement: Any = None) -> None:
    held = ledger.find(id(conn))
    if held is not None:
        held.began(statement)


@harmless
def done(conn: Any) -> None:
    held = ledger.find(id(conn))
    if held is not None:
        held.done(conn)


@harmless
def closed(conn: Any) -> None:
    held = ledger.find(id(conn))
    if held is not None:
        held.closed()
        account.changed()


def waiting(method: Any, statement: bool = False) -> Any:
    """A connection's method that waits for the server. *statement*: it is its first argument."""

    @wraps(method)
    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        began(self, args[0] if statement and args else None)
        try:
            return method(self, *args, **kwargs)
        finally:
            done(self)

    return watched


def waiting_async(method: Any, statement: bool = False) -> Any:
    """The same of a coroutine function."""

    @wraps(method)
    async def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        began(self, args[0] if statement and args else None)
        try:
            return await method(self, *args, **kwargs)
        finally:
            done(self)

    return watched


def closing(method: Any) -> Any:
    """A connection's method that closes it. The program has let go of it then, even if that fails."""

    @wraps(method)
    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        finally:
            closed(self)

    return watched


def closing_async(method: Any) -> Any:
    @wraps(method)
    async def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return await method(self, *args, **kwargs)
        finally:
            closed(self)

    return watched


def dropping(finalize: Any) -> Any:
    """A connection's finalizer, which may close it: the program has not."""

    @wraps(finalize)
    def watched(self: Any) -> None:
        dropped(self)
        finalize(self)

    return watched


def wrap(owner: Any, wrapper: Callable[..., Any], *names: str, **options: Any) -> None:
    """Put *wrapper* round those of *owner*'s own methods; a release that has not got one is as good."""
    for name in names:
        method = vars(owner).get(name)
        if callable(method):
            setattr(owner, name, wrapper(method, **options))
