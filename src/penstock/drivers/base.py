"""What a pool asks of a database driver.

One class serves threads and asyncio alike. What does I/O is a coroutine: over asyncio connections it waits in the
event loop; over blocking ones it blocks where it stands and never suspends, so that a thread can run it to its end in
one step (see `penstock.pool.steps.run`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from enum import Enum
from inspect import isawaitable
from time import monotonic
from typing import Any, Protocol, TypeVar

from ..core import Reason

T = TypeVar("T")


class Status(Enum):
    """What a connection is doing, as its protocol tells without asking the server."""

    IDLE = "IDLE"
    ACTIVE = "ACTIVE"
    INTRANS = "INTRANS"
    INERROR = "INERROR"
    BROKEN = "BAD"


class Activity:
    """The last statement that a connection was given."""

    __slots__ = ("ended", "started", "statement", "thread")

    def __init__(self) -> None:
        self.statement: Any = None
        self.started = self.ended = monotonic()
        self.thread: int | None = None


class Driver(Protocol):
    """A driver's connections, as a pool sees them.

    A connection takes an attribute `_pool`, which is psycopg's convention: the pool while it is lent, None otherwise.
    While it is set, psycopg's connection is not closed at the end of a `with` block, and `close` may give it back.
    """

    operational_error: type[Exception]
    programming_error: type[Exception]
    data_error: type[Exception]
    query_canceled: type[Exception]

    def check_conninfo(self, conninfo: str) -> None:
        """:raises ValueError: when *conninfo* does not parse; the message shows no secret of it."""

    async def connect(
        self, conninfo: str, kwargs: Mapping[str, Any], *, timeout: float, settings: Mapping[str, str]
    ) -> Any:
        """A new connection. *timeout* (seconds) bounds each address tried unless the conninfo says otherwise.

        *settings* are what `limits` has returned, and what a fleet tells its members by, to begin the session with.
        """

    def limits(self, statement: float | None, idle_in_transaction: float | None) -> Mapping[str, str]:
        """The server's own settings that end a statement, and a session idle in a transaction, after so many seconds.

        :raises ValueError: when the server has no such setting; the message says what can be done instead.
        """

    def adopt(self, conn: Any) -> Any:
        """From now on note what is done with the connection. Returns its baseline, for `state` and `reset`."""

    def probe(self, conn: Any) -> Callable[[int], object]:
        """A function that asks the kernel, without a round trip: true if the socket has closed or has unread input.

        It is called with 0: the milliseconds to wait for that.
        """

    def look(self, conn: Any) -> bool | None:
        """After `probe` has said true: read what came, without waiting. Whether it is no sign of the end.

        None: only a round trip tells. `check` makes it.
        """

    def status(self, conn: Any) -> Status: ...

    def state(self, conn: Any) -> object:
        """What equals the baseline while the connection is idle, out of any transaction, its session as adopted.

        Part of every return, so it is made of what the client knows already, in as few steps as can be.
        """

    def activity(self, conn: Any) -> Activity: ...

    def touched(self, conn: Any, baseline: Any) -> bool:
        """Whether a statement since `adopt` left something behind in the session on the server, or may have."""

    def bind(self, conn: Any, until: float, reading: bool) -> None:
        """For this lease alone: each transaction begins with its statements bounded by *until*, if the driver can.

        *until*: seconds of the monotonic clock, or infinity. *reading*: each transaction is read only, too. Costs no
        round trip. Until `unbind`, `state` does not equal the baseline.

        Both only note it: an event loop calls them for a connection that blocks, `unbind` while a statement runs, too.
        """

    def unbind(self, conn: Any) -> None: ...

    def unfit(self, conn: Any) -> Reason | None:
        """Why nobody should have this connection again although it works: it cannot write any more, for one."""

    def failed(self, conn: Any, error: Exception) -> None:
        """A statement has failed that was sent past the driver's own cursors: note what that says of the connection."""

    def loss(self, conn: Any) -> Exception | None:
        """What a statement raised when the server, or the network, ended the connection in the midst of it."""

    def transaction(self, conn: Any) -> AbstractContextManager[Any] | AbstractAsyncContextManager[Any]:
        """A transaction for the length of a block, in autocommit too: committed at its end, rolled back if it raises.

        To be entered with `with` over a blocking connection, with `async with` over one for asyncio.
        """

    async def settle(self, conn: Any, commit: bool) -> None:
        """End the open transaction, if there is one."""

    async def reset(self, conn: Any, baseline: Any) -> bool:
        """Bring an idle connection's session back to its baseline, as far as it was touched.

        False when that cannot be done; true otherwise, in which case whatever `configure` did is to be done again if
        the server's side was touched.
        """

    async def ask(self, conn: Any, query: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        """All rows of a short query of our own, outside of any transaction. It leaves nothing to be reset."""

    def told(self, conn: Any, setting: str) -> str | None:
        """What the server has last told of a setting that it tells of unasked; None if it has not."""

    def backend(self, conn: Any) -> int:
        """The number of the server's process, as told at login."""

    async def check(self, conn: Any) -> None:
        """One round trip. Raises the driver's error if the connection does not work."""

    async def cancel(self, conn: Any, timeout: float) -> None:
        """Ask the server to stop the statement that runs on the connection."""

    async def close(self, conn: Any) -> int | None:
        """Say goodbye. Returns a file descriptor that reads as ended once the server has let go, if there is one."""

    def abort(self, conn: Any) -> None:
        """From any thread: end the connection's traffic, so that whoever waits on it gets an error."""

    def abandon(self, conn: Any) -> int | None:
        """From any thread: part with a connection that somebody may still refer to.

        The server is told to end it; the object is left as it is, to fail at its next use. Returns as `close` does.
        """

    def silence(self, conn: Any) -> None:
        """In a forked child: make sure that nothing done to this connection reaches the parent's socket."""

    def is_timeout(self, error: BaseException) -> bool:
        """Whether a failed connect got no answer, rather than a refusal."""


async def settled(value: Awaitable[T] | T) -> T:
    """What an asyncio connection's method returns, awaited; what a blocking connection's returns, as it is."""
    return await value if isawaitable(value) else value
