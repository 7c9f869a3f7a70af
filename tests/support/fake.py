"""A database without a server: a driver whose every stage does as the test says, and which counts its connections."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from enum import Enum
from time import monotonic
from typing import Any, Literal, TypeVar
from unittest.mock import patch

import penstock.pool.base
from penstock import AsyncPool, Pool
from penstock.core import Reason
from penstock.drivers.base import Activity, Driver, Status

from .virtual import VirtualLoop

Stage = Literal["connect", "alive", "configure", "reset", "close"]
STAGES: tuple[Stage, ...] = ("connect", "alive", "configure", "reset", "close")
P = TypeVar("P", Pool[Any], AsyncPool[Any])

SLOW = 0.3  # seconds that a slow stage takes


class Outcome(Enum):
    OK = "ok"
    ERROR = "error"
    SLOW = "slow"
    NEVER = "never"


class FakeError(Exception):
    """The driver's own error."""


class Wire:
    """What the kernel knows of a connection; it outlives the object that its holder dropped."""

    def __init__(self) -> None:
        self.ended = False


class FakeConnection:
    """What a pool lends here. `dirt` stands for whatever its user may change in the session."""

    def __init__(self, driver: "FakeDriver", number: int) -> None:
        self.driver = driver
        self.number = number
        self.status = Status.IDLE
        self.dirt = 0
        self.wire = Wire()
        self.activity = Activity()
        self.activity.started = self.activity.ended = driver.clock()
        self.bounds: tuple[float, bool] | None = None
        self.loss: Exception | None = None
        self.in_hand = threading.Lock()
        self._pool: Any = None

    def __repr__(self) -> str:
        return f"<FakeConnection {self.number} {self.status.value}>"

    def __del__(self) -> None:
        self.driver.live.discard(self.number)

    def end(self) -> None:
        """The server ends it, or the network does."""
        self.wire.ended = True

    def use(self, statement: str = "SELECT 1") -> None:
        """A statement that takes no time. Raises the driver's error when there is no server at the other end."""
        self.activity.statement = statement
        self.activity.started = self.activity.ended = self.driver.clock()
        self.activity.thread = threading.get_ident()
        if self.wire.ended:
            self.status = Status.BROKEN
            self.loss = FakeError("server closed the connection")
            raise self.loss

    def spoil(self) -> None:
        """Leave something in the session that the next user must not find."""
        self.use("SET ...")
        self.dirt += 1

    def begin(self) -> None:
        self.use("BEGIN")
        self.status = Status.INTRANS


class FakeDriver:
    """Satisfies `penstock.drivers.base.Driver`.

    :ivar outcomes: how each stage goes, now; a stage that is not in it goes well.
    :ivar live: the connections that a server would count, those being opened included.
    """

    operational_error: type[Exception] = FakeError

    def __init__(self, is_async: bool, clock: Callable[[], float] = monotonic, connect_seconds: float = 0.0) -> None:
        self.is_async = is_async
        self.clock = clock
        self.connect_seconds = connect_seconds
        self.outcomes: dict[Stage, Outcome | Callable[[], Outcome]] = {}
        self.live: set[int] = set()
        self.peak = 0
        self.attempts = 0

    def heal(self) -> None:
        self.outcomes.clear()

    def limits(self, statement: float | None, idle_in_transaction: float | None) -> Mapping[str, str]:
        return {}

    async def _stage(self, stage: Stage) -> None:
        told = self.outcomes.get(stage, Outcome.OK)
        outcome = told() if callable(told) else told
        if outcome is Outcome.ERROR:
            raise FakeError(f"{stage} failed")
        if outcome is Outcome.SLOW:
            await self._sleep(SLOW)
        if outcome is Outcome.NEVER:
            await asyncio.get_running_loop().create_future()

    async def _sleep(self, seconds: float) -> None:
        if self.is_async:
            await asyncio.sleep(seconds)
        else:
            threading.Event().wait(seconds)

    # ------------------------------------------------------------------------------------------ the hooks

    async def configure(self, conn: FakeConnection) -> None:
        await self._stage("configure")

    async def check_hook(self, conn: FakeConnection) -> None:
        await self._stage("alive")
        conn.use()

    async def reset_hook(self, conn: FakeConnection) -> None:
        await self._stage("reset")
        conn.use()

    # ------------------------------------------------------------------------------------------ the driver

    def check_conninfo(self, conninfo: str) -> None:
        pass

    async def connect(
        self, conninfo: str, kwargs: Mapping[str, Any], *, timeout: float, settings: Mapping[str, str]
    ) -> FakeConnection:
        self.attempts += 1
        number = self.attempts
        self.live.add(number)
        self.peak = max(self.peak, len(self.live))
        try:
            if self.connect_seconds:
                await self._sleep(self.connect_seconds)
            await self._stage("connect")
        except BaseException:
            self.live.discard(number)
            raise
        return FakeConnection(self, number)

    def adopt(self, conn: FakeConnection) -> Any:
        return self.state(conn)

    def probe(self, conn: FakeConnection) -> Callable[[int], object]:
        wire = conn.wire
        return lambda _: wire.ended

    def look(self, conn: FakeConnection) -> bool:
        return not conn.wire.ended

    def status(self, conn: FakeConnection) -> Status:
        return conn.status

    def state(self, conn: FakeConnection) -> object:
        return conn.status, conn.dirt, conn.bounds

    def activity(self, conn: FakeConnection) -> Activity:
        return conn.activity

    def touched(self, conn: FakeConnection, baseline: Any) -> bool:
        return bool(conn.dirt != baseline[1])

    def bind(self, conn: FakeConnection, until: float, reading: bool) -> None:
        conn.bounds = (until, reading)

    def unbind(self, conn: FakeConnection) -> None:
        conn.bounds = None

    def unfit(self, conn: FakeConnection) -> Reason | None:
        return None

    def loss(self, conn: FakeConnection) -> Exception | None:
        return conn.loss

    async def settle(self, conn: FakeConnection, commit: bool) -> None:
        await self._round_trip(conn)
        conn.status = Status.IDLE

    async def reset(self, conn: FakeConnection, baseline: Any) -> bool:
        if conn.dirt:
            await self._round_trip(conn)
        conn.dirt = baseline[1]
        return True

    async def check(self, conn: FakeConnection) -> None:
        await self._stage("alive")
        await self._round_trip(conn)

    async def _round_trip(self, conn: FakeConnection) -> None:
        if self.is_async:
            await asyncio.sleep(0)
        conn.use()

    async def cancel(self, conn: FakeConnection, timeout: float) -> None:
        pass

    async def close(self, conn: FakeConnection) -> int | None:
        try:
            await self._stage("close")
        except FakeError:
            self._ended(conn)
            raise
        self._ended(conn)
        return None

    def _ended(self, conn: FakeConnection) -> None:
        conn.end()
        conn.status = Status.BROKEN
        self.live.discard(conn.number)

    def abort(self, conn: FakeConnection) -> None:
        conn.end()
        self.live.discard(conn.number)

    def abandon(self, conn: FakeConnection) -> int | None:
        conn.end()
        self.live.discard(conn.number)
        return None

    def silence(self, conn: FakeConnection) -> None:
        conn.end()

    def is_timeout(self, error: BaseException) -> bool:
        return isinstance(error, TimeoutError)


def make(cls: type[P], driver: FakeDriver, **options: Any) -> P:
    """A pool of *driver*'s connections, not open yet."""
    satisfying: Driver = driver
    with patch.object(penstock.pool.base, "load", lambda *_: satisfying):
        return cls("", open=False, **options)


def virtual_pool(loop: VirtualLoop, driver: FakeDriver, **options: Any) -> AsyncPool[Any]:
    """An AsyncPool that lives in *loop*'s time."""
    driver.clock = loop.time
    pool: AsyncPool[Any] = make(AsyncPool, driver, **options)
    pool._clock = loop.time
    return pool
