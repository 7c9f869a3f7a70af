"""What an asyncio program takes for a connection, and the one of the pool's that it has while it needs it.

As `handle` has it for threads. Here everything happens in one event loop, and between two awaits nobody interferes.
"""

from __future__ import annotations

import asyncio
from asyncio import current_task
from collections.abc import Callable
from functools import partial
from time import monotonic
from types import CodeType
from typing import Any, Protocol
from weakref import ref

from ...core import Reason, Slot
from ...drivers.base import Status
from ...drivers.mysql_session import LEFT_BEHIND
from ...drivers.session import ANYTHING
from .. import requests
from . import pools
from .aio import HeldAsyncPool
from .handle import _STICKY_SECONDS, asks_for_last, hides, reads


class Body(Protocol):
    """How a driver's connection object comes by what it sends through, and loses it again.

    :ivar explicit: whether there is a transaction only where one was asked for, so that to lose one is a loss.
    """

    explicit: bool
    mysql: bool

    def put_on(self, facade: Any, conn: Any) -> None: ...

    def take_off(self, facade: Any, conn: Any) -> None:
        """*facade* is None when it was dropped."""

    def is_broken(self, conn: Any) -> bool: ...

    def may_rest(self, conn: Any) -> bool:
        """Whether nothing is under way that the driver itself knows of."""

    def closed_error(self) -> Exception: ...


class AsyncHandle:
    """One connection of the program's: closed, with a connection of the pool's, or able to take one.

    :ivar conn: the pool's connection; None while it has none.
    :ivar used: when it was last used, by the monotonic clock.
    :ivar shared: whether it was used for another request than the one that opened it.
    :ivar over: what its use raises; None while it can be used.
    :ivar pinned: blocks that expect to find the same connection at their end.
    """

    def __init__(self, body: Body, pool: HeldAsyncPool, timeout: float | None) -> None:
        self.body = body
        self.pool = pool
        self.conn: Any = None
        self.used = monotonic()
        self.shared = False
        self.over: Callable[[], Exception] | None = None
        self.closed = False
        self.pinned = 0
        self.wrote = body.explicit  # a statement in the open transaction that may have written
        self.unsure = self._used_it = False  # as `handle` has them
        self._dropped = False
        self._inserted = self._moved = False  # as `handle` has it
        self._slot: Slot | None = None
        self._timeout = timeout
        self._busy = 0
        self._facade: ref[Any] = _nobody
        self._task: ref[asyncio.Task[Any]] | None = None
        self._request: requests.Request | None = None
        self._taking: asyncio.Lock | None = None

    async def open(self) -> None:
        """The first connection. Raises what connecting raises."""
        await self.attach(*pools.site())
        self.pool.handles.add(self)
        self.pool.database.handles.add(self)

    def belongs_to(self, facade: Any) -> None:
        """The program gets *facade* now."""
        self._facade = ref(facade)
        self.body.put_on(facade, self.conn)
        request = self._request = requests.current()
        if request is not None:
            request.at_end(partial(_release, ref(self), "the request that opened it has ended"))

    # ------------------------------------------------------------------------------------------ using it

    async def attach(self, code: CodeType | None = None, lasti: int = -1) -> None:
        """Have a connection. Raises when there is none to be had."""
        if self._taking is None:
            self._taking = asyncio.Lock()
        async with self._taking:  # two tasks may use it at once, and must meet on one connection
            self._check()
            if self.conn is not None:
                return
            if code is None:
                code, lasti = pools.site()
            slot = await self.pool.lend(self, self._timeout, code, lasti)
            conn, slot.conn = slot.conn, None
            conn._pool = self.pool
            try:
                self._check()
            except BaseException:  # closed meanwhile
                self.pool.take_in(slot, conn)
                raise
            self._slot, self.conn, self.wrote = slot, conn, self.body.explicit
            self.unsure = self._used_it = False
            self._moved = self._inserted
            facade = self._facade()
            if facade is not None:
                self.body.put_on(facade, conn)

    def _check(self) -> None:
        if self.over is not None:
            raise self.over()

    def enter(self) -> None:
        """After `attach`: it is used, and keeps its connection until `leave`."""
        self._busy += 1
        self._used_it = True
        task = current_task()
        if task is not None and (self._task is None or self._task() is not task):
            self._task = ref(task)
            if self._slot is not None:
                self._slot.owner = self._task
        if not self.shared and requests.current() is not self._request:
            self.shared = True

    def leave(self) -> None:
        self._busy -= 1
        self.used = monotonic()
        self.rest()

    def rest(self) -> None:
        """It may be that it is not needed for a while."""
        if self.conn is not None and self.body.is_broken(self.conn):
            self.lost()
        elif not self._busy and self.pool.database.waited_for:
            self.give_up()

    @property
    def is_busy(self) -> bool:
        return self._busy > 0

    def rest_soon(self) -> None:
        if self.pool.database.waited_for and self.pool._loop is not None:
            self.pool._loop.call_soon(self.rest)

    def states(self, statement: Any) -> None:
        """The program is about to execute *statement*."""
        if not reads(statement):
            self.wrote = self._inserted = True
            self._moved = False
        if not self.unsure and hides(statement, self.body.mysql):
            self.unsure = True
        if asks_for_last(statement):
            self.pool.database.sticky = True
            if self._moved:
                raise self.pool._driver.operational_error(
                    "the statement asks what its session has written last, and the connection has been given up since:"
                    " do both in one transaction. From now on it is kept for a second (`penstock run --hold`)"
                )

    # ------------------------------------------------------------------------------------------ giving it up

    def is_clean(self) -> bool:
        """Whether the session is as a fresh one: in no transaction, nothing changed."""
        return self._slot is not None and bool(self.pool._state(self.conn) == self._slot.baseline)

    def may_come_back(self) -> bool:
        """Whether its connection may be given back by somebody other than the task that took it."""
        return self._dropped or self.conn is None or self._busy > 0 or self.is_clean()

    def give_up(self, hard: bool = False) -> bool:
        """Give back the connection, if it is not needed now. Whether it was. From any thread: elsewhere a bit later.

        *hard* changes nothing: here an open transaction always keeps its connection.
        """
        loop = self.pool._loop
        if loop is not asyncio._get_running_loop():
            if self.conn is not None and loop is not None and loop.is_running():
                self.pool._tell(self.give_up)
            return False
        if self.conn is None or self._busy or self.pinned or self.unsure or self._may_be_asked():
            return False
        if not self.body.may_rest(self.conn) or not self.is_clean():
            return False
        self._part()
        return True

    def _may_be_asked(self) -> bool:
        """Whether the next statement may ask the session what it has written last."""
        return self.pool.database.sticky and self._inserted and monotonic() - self.used < _STICKY_SECONDS

    def _part(self) -> tuple[Slot, Any]:
        """Without its connection from now on, which is the pool's again."""
        slot, conn = self._apart()
        self.pool.take_in(slot, conn)
        return slot, conn

    def _apart(self) -> tuple[Slot, Any]:
        slot, conn = self._slot, self.conn
        assert slot is not None, "bug: there is nothing to part with"
        self._slot = self.conn = None
        self.body.take_off(self._facade(), conn)
        if self._used_it:  # and what it may have changed about the session nobody has seen
            conn._touched |= LEFT_BEHIND if self.body.mysql else ANYTHING
        slot.by_hand = None
        return slot, conn

    async def close(self) -> None:
        """For good. A statement that is being cancelled is waited for."""
        if self.closed:
            return
        self.closed = True
        self.over = self.body.closed_error
        self._forget()
        if self.conn is not None:
            slot, conn = self._apart()
            await self.pool._give_back(slot, conn, expected=True)

    def close_soon(self) -> None:
        """As `close`, for who cannot wait for it."""
        if not self.closed:
            self.closed = True
            self.over = self.body.closed_error
            self._forget()
            if self.conn is not None:
                self._part()

    async def reopen(self, facade: Any) -> None:
        """After it was closed, or has been lost: as new."""
        self._end(Reason.BROKEN)
        self.over, self.closed, self._inserted = None, False, False
        await self.open()
        self.belongs_to(facade)

    def lost(self) -> None:
        """Its connection has ended, by whomever."""
        self._end(Reason.BROKEN)

    def end(self) -> None:
        """Its event loop ends."""
        self._end(Reason.POOL_CLOSED)

    def _end(self, reason: Reason) -> None:
        if not self.closed:
            self.closed = True
            self.over = self.body.closed_error
            self._forget()
        if self.conn is not None:
            slot, conn = self._apart()
            self.pool._returned(slot, conn, reason)

    def after_fork(self) -> None:
        """In a child: the connection is the parent's, and so is the event loop."""
        self.over, self.closed = self.body.closed_error, True
        facade = self._facade()
        conn, self._slot, self.conn = self.conn, None, None
        if conn is not None:
            self.body.take_off(facade, conn)

    def _forget(self) -> None:
        self.pool.handles.discard(self)
        self.pool.database.handles.discard(self)

    def dropped(self) -> None:
        """The program has no reference any more. From any thread, in the midst of anything: no lock, no I/O."""
        if not self.closed:
            self._dropped = True
            self.pool._tell(self.close_soon)

    def release(self, why: str) -> None:
        """What it was opened for is over, and most likely it is forgotten. What it was in the midst of is undone.

        It can be used again, unless that would be to go on with what is lost.
        """
        if self.shared or self.conn is None or self._busy or self.pinned or self._is_used_elsewhere():
            return
        if not self.is_clean() and not self._undoes():
            error = self.pool._driver.operational_error
            self.over = lambda: error(
                f"{why}, and the connection was taken back; its transaction was rolled back, its session reset."
                " Close it, and connect where the work is done (`penstock run --hold`; PENSTOCK=off leaves"
                " connections alone)"
            )
        self._part()

    def _is_used_elsewhere(self) -> bool:
        """Whether the task that has used it last goes on: it was started by a request, and outlives it."""
        task = self._task() if self._task is not None else None
        return task is not None and not task.done() and task is not current_task()

    def _undoes(self) -> bool:
        """Whether nothing is lost by a rollback: the session is as it was but for a transaction that has only read."""
        driver, conn = self.pool._driver, self.conn
        if self._slot is None or driver.touched(conn, self._slot.baseline):
            return False
        status = driver.status(conn)
        return status is Status.INERROR or (status is Status.INTRANS and not self.wrote)


class _Nobody:
    pass


_nobody: ref[Any] = ref(_Nobody())


def _release(weak: ref[AsyncHandle], why: str) -> None:
    handle = weak()
    if handle is None:
        return
    try:
        here: Any = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    if here is handle.pool._loop:
        handle.release(why)
    else:  # the request was answered in another event loop than it was worked for in
        handle.pool._tell(partial(handle.release, why))
