"""What is done with one connection, written once for threads and asyncio.

Each step is a coroutine. Over blocking connections nothing in it ever suspends, so `run` takes it to its end in the
calling thread; over asyncio connections it is awaited. The steps decide nothing about the pool: they do one piece of
work and say how it went.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..core import Reason
from ..drivers.base import Driver, Status, settled
from .membership import Door

T = TypeVar("T")
Hook = Callable[[Any], Awaitable[None] | None]

logger = logging.getLogger("penstock.pool")

_CANCEL_SECONDS = 1.0  # to ask the server to stop a statement whose connection is being closed


@dataclass(slots=True)
class Kit:
    """What the steps work with."""

    name: str
    driver: Driver
    conninfo: str | Callable[[], Awaitable[str] | str]
    kwargs: Mapping[str, Any] | Callable[[], Awaitable[Mapping[str, Any]] | Mapping[str, Any]] | None
    configure: Hook | None
    check: Hook | None
    reset: Hook | None
    connect_timeout: float
    settings: Mapping[str, str] = field(default_factory=dict)
    door: Door | None = None
    guard: Callable[[Any], AbstractContextManager[None]] = nullcontext  # bounds `configure` where nothing else does


def run(step: Coroutine[Any, Any, T]) -> T:
    """Take a step over a blocking connection to its end, here and now."""
    try:
        step.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    step.close()
    raise TypeError(
        "a hook of a Pool returned something to be awaited: it takes plain functions (AsyncPool takes both)"
    )


async def open_connection(kit: Kit, pool: Any) -> tuple[Any, Any]:
    """A new connection, logged in and configured, and its baseline."""
    conninfo = await _ask("conninfo", kit.conninfo)
    kwargs = await _ask("kwargs", kit.kwargs)

    async def dial(more: Mapping[str, Any]) -> Any:
        arguments = {**(kwargs or {}), **more}
        return await kit.driver.connect(conninfo, arguments, timeout=kit.connect_timeout, settings=kit.settings)

    conn = await (dial({}) if kit.door is None else kit.door.admit(dial))
    try:
        conn._pool = pool
        kit.driver.adopt(conn)
        with kit.guard(conn):
            await configure(kit, conn)
        conn._pool = None
        return conn, kit.driver.adopt(conn)
    except BaseException:
        kit.driver.abort(conn)  # which waits for nothing: this attempt has a deadline
        raise


async def _ask(name: str, source: Any) -> Any:
    """An option that may be a function."""
    try:
        return await settled(source()) if callable(source) else source
    except Exception as error:
        error.add_note(f"raised by {name}()")
        raise


async def configure(kit: Kit, conn: Any) -> None:
    if kit.configure is not None:
        try:
            await settled(kit.configure(conn))
        except Exception as error:
            error.add_note("raised by configure")
            raise
        _expect_idle(kit, conn, "configure", kit.configure)


async def clean(kit: Kit, conn: Any, baseline: Any, expected: bool = False) -> Reason | None:
    """Make a returned connection as its next user expects it; the reason to close it if that cannot be done.

    *expected*: an open transaction is, as the block that it belongs to has raised.
    """
    driver = kit.driver
    status = driver.status(conn)
    if status is Status.BROKEN:
        return Reason.BROKEN
    if status is Status.ACTIVE:
        logger.warning("%s: a connection came back while a statement was running: %s", kit.name, conn)
        return Reason.BUSY
    if (unfit := driver.unfit(conn)) is not None:
        logger.warning("%s: a write failed on a read-only connection, which is closed: %s", kit.name, conn)
        return unfit
    try:
        if status is not Status.IDLE:
            if not expected:
                logger.warning("%s: rolling back a transaction left open on a returned connection: %s", kit.name, conn)
            await driver.settle(conn, commit=False)
        return await _restore(kit, conn, baseline)
    except Exception as error:
        logger.warning("%s: a returned connection could not be reset: %s: %s", kit.name, type(error).__name__, error)
        return Reason.BROKEN if driver.status(conn) is Status.BROKEN else Reason.UNCLEAN


async def _restore(kit: Kit, conn: Any, baseline: Any) -> Reason | None:
    touched = kit.driver.touched(conn, baseline)
    if not await kit.driver.reset(conn, baseline):
        return Reason.UNCLEAN
    if touched:
        await configure(kit, conn)  # whatever it had set is reset too
        kit.driver.adopt(conn)
    if kit.reset is not None:
        await settled(kit.reset(conn))
        _expect_idle(kit, conn, "reset", kit.reset)
    return None


async def check(kit: Kit, conn: Any) -> None:
    """Run the user's check, or the driver's. Raises what it raises, and leaves no transaction open behind it."""
    try:
        await settled((kit.check or kit.driver.check)(conn))
    finally:
        if kit.driver.status(conn) in (Status.INTRANS, Status.INERROR):
            with suppress(Exception):
                await kit.driver.settle(conn, commit=False)


async def close(kit: Kit, conn: Any, reason: Reason | None = None) -> int | None:
    """Close a connection. Returns a descriptor that reads as ended once the server has let go, if there is one."""
    try:
        conn._pool = None  # or one that is told to come back on `close` would do so
        if reason in (Reason.ABANDONED, Reason.RECLAIMED):
            return kit.driver.abandon(conn)
        if reason is Reason.BUSY:
            await kit.driver.cancel(conn, _CANCEL_SECONDS)
        return await kit.driver.close(conn)
    except Exception as error:
        logger.warning("%s: error closing a connection: %s: %s", kit.name, type(error).__name__, error)
        return None


def _expect_idle(kit: Kit, conn: Any, what: str, hook: Hook) -> None:
    status = kit.driver.status(conn)
    if status is Status.BROKEN:
        raise kit.driver.operational_error(
            f"{what}={hook!r} left the connection in status {status.value}: it is closed"
        )
    if status is not Status.IDLE:
        raise kit.driver.operational_error(
            f"{what}={hook!r} left the connection in status {status.value}: commit in it, or use autocommit"
        )
