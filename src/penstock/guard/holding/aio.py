"""The pools of asyncio: one for each event loop and way to connect, all below the line of their database.

A loop's connections live in it, and end with it. So a program that runs many loops, one after another or in threads,
gets new connections in each; but never more than the line allows, as `pools.Database` counts them all.
"""

from __future__ import annotations

import asyncio
import math
from asyncio import AbstractEventLoop, current_task, get_running_loop
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from time import monotonic
from types import CodeType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet, ref

from ... import errors
from ...core import Priority, Reason, Slot
from ...pool.aio import AsyncPool
from ...pool.terms import Wish
from . import pools

if TYPE_CHECKING:
    from .aio_handle import AsyncHandle

_END_SECONDS = 1.0  # for the connections of a loop that is being closed
_loops: WeakKeyDictionary[AbstractEventLoop, dict[Hashable, HeldAsyncPool]] = WeakKeyDictionary()


class HeldAsyncPool(AsyncPool[Any]):
    """A pool whose connections are lent to handles, which may give them up while their owners keep them."""

    def __init__(self, database: pools.Database, **options: Any) -> None:
        self.database: Any = database  # which has pools and handles of threads, too
        self.handles: WeakSet[AsyncHandle] = WeakSet()
        self.asked = monotonic()
        super().__init__(
            min_size=0, max_size=database.max_size, name=database.name, leak_after=None, open=False, **options
        )
        self._open()

    async def lend(self, handle: AsyncHandle, timeout: float | None, code: CodeType, lasti: int) -> Slot:
        """A connection, still in its slot.

        :raises Exception: what connecting raised, when the database cannot be reached.
        :raises PoolTimeout: when there was none in time.
        """
        slot = None
        loop = get_running_loop()
        if self._plain and loop is self._loop:
            slot = self._core.take(_owner(loop), code, lasti, monotonic())
        if slot is None or slot.probe(0):
            if slot is None and loop is self._loop:
                self._make_room()
            wish = None if timeout is None else Wish(timeout, -math.inf, math.inf, Priority.NORMAL, None)
            slot = await self._wait(slot, wish, code, lasti)
        slot.by_hand = handle
        return slot

    async def _wait(self, slot: Slot | None, wish: Wish | None, code: CodeType, lasti: int) -> Slot:
        try:
            return await self._acquire(slot, wish, code, lasti)
        except errors.DatabaseUnavailable as error:
            if error.__cause__ is None:
                raise
            raise error.__cause__.with_traceback(None) from None
        except errors.PoolDeadlock as error:
            if self.database.collect():  # a connection that was forgotten waits for nobody
                return await self._wait(None, wish, code, lasti)
            why = "this task would wait for ever, as those who hold all connections do, itself among them"
            raise type(error)(self.database.exhausted(why)) from None
        except errors.PoolTimeout as error:
            seconds = self.timeout if wish is None or wish.timeout is None else wish.timeout
            raise type(error)(self.database.exhausted(f"no connection within {seconds:g} s")) from error.__cause__

    def take_in(self, slot: Slot, conn: Any) -> None:
        """It comes back. That a transaction is open is no surprise here: to close a connection rolls it back."""
        if self.database.is_due_elsewhere(self):
            self._returned(slot, conn, Reason.OVERFLOW)
        elif self._state(conn) == slot.baseline:
            self._returned(slot, conn, None)
        else:
            self._spawn(self._clean(slot, conn, expected=True))

    @property
    def connection_class(self) -> Any:
        driver: Any = self._driver
        return driver.connection_class

    @property
    def waited_for(self) -> bool:
        return bool(self._core.waiters)

    def _tick(self) -> None:
        super()._tick()
        if self.waited_for:
            self.database.look_again_in_loop()
            self._wake_at(monotonic() + pools.LOOK_AGAIN)

    def _make_room(self) -> None:
        """Somebody is about to wait: have a connection come back, if that can be; and look again while he waits."""
        self._wake_at(monotonic() + pools.LOOK_AGAIN)
        if len(self._core.slots) >= self._core.max_size or self.database.is_full:
            self.database.make_room()

    def give_way(self) -> bool:
        """Close an idle connection, so that another pool may open one. From any thread; whether it is done soon."""
        loop = self._loop
        if not self._core.idle or loop is None:
            return False
        if loop.is_running():
            self._tell(self._give_way)
        else:
            self._cut_idle()
        return True

    def _give_way(self) -> None:
        slot = self._core.take(None, None, -1, monotonic())
        if slot is not None:
            self._event(self._core.discard, slot, Reason.OVERFLOW)

    def _cut_idle(self) -> None:
        """Of a loop that stands still: nothing is said to the server, which hears of it by the socket's end."""
        slot = self._core.take(None, None, -1, monotonic())
        if slot is not None:
            self._driver.abort(slot.conn)
            self._core.discard(slot, Reason.OVERFLOW, monotonic())
            self._core.effects()
            self._move_out(slot)
            self._core.closed_slot(slot, monotonic())

    def _is_handed_on(self, slot: Slot) -> bool:
        handle: AsyncHandle | None = slot.by_hand
        return handle is None or handle.may_come_back()

    async def _connect(self, slot: Slot) -> None:
        if self.database.finds_room(self, slot):
            await super()._connect(slot)
        else:
            self._event(self._core.put_off, slot, pools.soon())

    async def end(self) -> None:
        """Its loop ends: nobody can use what it has lent any more."""
        for handle in list(self.handles):
            handle.end()
        await self.close(timeout=0)
        for patience in (_END_SECONDS, 0.1):
            left = [task for task in self._tasks if not task.done()]
            if left:
                await asyncio.wait(left, timeout=patience)
            for task in self._tasks:
                task.cancel()
        for _ in range(2):
            await asyncio.sleep(0)  # transports end a step after they are told to


def pool_for(
    driver: str,
    where: tuple[str, ...],
    key: Hashable,
    max_size: int,
    make: Callable[[], Mapping[str, Any]],
    title: str,
) -> HeldAsyncPool:
    """The running loop's pool for connections to *where*, made with the arguments that *key* stands for.

    *make* says what a new one is made with: `AsyncPool`'s options.
    """
    loop = get_running_loop()
    mine = _loops.get(loop)
    if mine is None:
        mine = _loops[loop] = {}
        _end_with(loop)
    pool = mine.get(key)
    if pool is None or pool.closed:
        database = _database(driver, where, max_size, title)
        pool = mine[key] = HeldAsyncPool(database, **make())
        _put(database, (id(loop), key), pool)
        for other in pools.superfluous(list(mine.values())):
            _forget(mine, other)
    pool.asked = monotonic()
    return pool


def _forget(mine: dict[Hashable, HeldAsyncPool], pool: HeldAsyncPool) -> None:
    """As `pools.forget`, of the running loop's."""
    if pool._core.slots or pool.waited_for or pool.handles:
        return
    key = next(key for key, other in mine.items() if other is pool)
    del mine[key]
    _put(pool.database, (id(pool._loop), key), None)
    pool._spawn(pool.close(timeout=0))


def _database(driver: str, where: tuple[str, ...], max_size: int, title: str) -> pools.Database:
    with pools._opening:
        database = pools._databases.get((driver, where))
        if database is None:
            database = pools._databases[driver, where] = pools.Database(f"{driver} {title}", max_size)
            pools.say(f"{driver} connections to {title} are held to {max_size} a process")
        return database


def _put(database: pools.Database, key: Hashable, pool: Any) -> None:
    """Below its line from now on; None: no more."""
    with pools._opening:
        others = {other: at for other, at in database.pools.items() if other != key}
        database.pools = others if pool is None else {**others, key: pool}


def _end_with(loop: AbstractEventLoop) -> None:
    """Close the pools of *loop* when it is closed: its connections would be left to the garbage collector."""
    weak, close = ref(loop), loop.close

    def closing() -> None:
        ending = weak()
        if ending is not None and not ending.is_closed() and not ending.is_running():
            _end(ending)
        close()

    with suppress(AttributeError):  # a loop that cannot be told: what it has is dropped with it
        loop.close = closing  # type: ignore[method-assign]


def _end(loop: AbstractEventLoop) -> None:
    for key, pool in _loops.pop(loop, {}).items():
        try:
            loop.run_until_complete(pool.end())
        except Exception:
            pools.logger.exception("%s: could not be closed with its event loop", pool.name)
        _put(pool.database, (id(loop), key), None)


def _owner(loop: AbstractEventLoop) -> Any:
    task = current_task(loop)
    return None if task is None else ref(task)
