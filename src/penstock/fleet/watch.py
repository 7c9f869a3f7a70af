"""Who looks at the fleet from time to time: a thread for a pool of threads, a task for one of asyncio.

It refers to the member weakly, so that a pool that was dropped is collected, and ends with it.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from contextvars import Context
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol
from weakref import ref

from ..drivers import sockets
from ..pool.base import LINGER
from ..pool.steps import run

if TYPE_CHECKING:
    from .member import Member


class Watch(Protocol):
    def begin(self) -> None: ...

    def hurry(self) -> None:
        """Look now. Where the pool lives."""

    def end(self) -> None:
        """From any thread."""

    async def wait_for_end(self, pool: Any, fd: int) -> None:
        """Until the server has closed *fd*, which is closed here then."""


class ThreadWatch:
    """For a `Pool`."""

    def __init__(self, member: Member) -> None:
        self._stir = stir = SimpleQueue[None]()  # not an Event: a finalizer may put something in it at any moment
        self._member = ref(member, lambda _: stir.put(None))
        self._name = f"{member.pool_name}-fleet"
        self._over = False

    def begin(self) -> None:
        watch = (self, self._member, self._stir)
        threading.Thread(target=_look_after, args=watch, name=self._name, daemon=True).start()

    def hurry(self) -> None:
        self._stir.put(None)

    def end(self) -> None:
        self._over = True
        self._stir.put(None)

    @property
    def over(self) -> bool:
        return self._over

    async def wait_for_end(self, pool: Any, fd: int) -> None:
        sockets.wait_for_end(fd, LINGER)


def _look_after(watch: ThreadWatch, weak: ref[Member], stir: SimpleQueue[None]) -> None:
    seconds = 0.0
    while not watch.over:
        with suppress(Empty):
            stir.get(timeout=seconds)
        member = weak()
        if member is None or watch.over:
            return
        run(member.look())
        seconds = member.seconds_left()
        del member


class TaskWatch:
    """For an `AsyncPool`."""

    def __init__(self, member: Member) -> None:
        self._member = ref(member)
        self._stir = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(
            _look_after_task(self._member, self._stir),
            context=Context(),  # not the opener's: it may be under a deadline
        )

    def hurry(self) -> None:
        self._stir.set()

    def end(self) -> None:
        if self._task is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._task.cancel)

    async def wait_for_end(self, pool: Any, fd: int) -> None:
        await sockets.await_end(fd, LINGER)


async def _look_after_task(weak: ref[Member], stir: asyncio.Event) -> None:
    seconds = 0.0
    while True:
        try:
            async with asyncio.timeout(seconds):
                await stir.wait()
        except TimeoutError:
            pass
        stir.clear()
        member = weak()
        if member is None:
            return
        await member.look()
        seconds = member.seconds_left()
        del member
