"""What every arm is."""

import asyncio
import threading
from abc import abstractmethod
from collections.abc import Coroutine
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Protocol

from penstock.drill.work import Request


class Arm(Protocol):
    """One way to come by a connection, in one instance of a service; many threads call `request` at once.

    `pool_size` is this instance's share by the budget formula. Only an arm that knows the formula looks at it.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    judged: ClassVar[bool] = False  # whether the drill fails with it
    package: ClassVar[str] = "psycopg"  # what it cannot do without, as it is imported

    def __init__(self, dsn: str, pool_size: int) -> None: ...

    def scale(self, budget: int, members: int) -> None:
        """Told before `start` where processes come and go: connections for all of them, and how many they are at most.

        Only an arm that knows of the others looks at it.
        """
        return

    def start(self) -> None:
        """Get ready, before the load begins."""

    def middleware(self, deadline: float) -> AbstractContextManager[object]:
        """What an open loop's service puts around each request as it arrives; its context goes with the request.

        `deadline` is the seconds for which an answer is of use.
        """
        return nullcontext()

    def request(self, work: Request) -> None:
        """Come by a connection and do `work` with it; raises what a service would see."""

    def stop(self) -> None:
        """Let go of everything."""


class AsyncArm(Arm):
    """An arm that serves requests as tasks, on an event loop in a thread of its own."""

    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="drill-loop", daemon=True).start()
        self._wait_for(self.open())

    def request(self, work: Request) -> None:
        self._wait_for(self.serve(work))

    def stop(self) -> None:
        self._wait_for(self.close())
        self.loop.call_soon_threadsafe(self.loop.stop)

    @abstractmethod
    async def open(self) -> None:
        """As `start`, in the event loop."""

    @abstractmethod
    async def serve(self, work: Request) -> None:
        """As `request`, in a task of its own."""

    @abstractmethod
    async def close(self) -> None:
        """As `stop`, in the event loop."""

    def _wait_for(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()
