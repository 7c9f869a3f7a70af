"""What a pool asks of whoever shares one budget out among many processes (`penstock.fleet`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .base import BasePool


class NotNow(Exception):
    """No connection may be opened at the moment, which says nothing of the database. Try again in *seconds*."""

    def __init__(self, why: str, seconds: float) -> None:
        super().__init__(why)
        self.seconds = seconds


@dataclass(slots=True, frozen=True)
class FleetState:
    """What a process knows of its fleet, as of when it last asked.

    :ivar name: the fleet's.
    :ivar member: this process's name in it, as the server shows it.
    :ivar budget: connections that all of them may have.
    :ivar share: those that this pool may have; 0 before it has joined.
    :ivar members: processes, this one included.
    :ivar claimed: connections that all of them have, or may open.
    :ivar age: seconds since it last asked; infinity before it has joined.
    :ivar hint: why there are not more, in words; None when there is nothing to say.
    :ivar line: connections that all of them should have, where the fleet looks for its best size
        (``max_size="auto"``); None where it does not.
    """

    name: str
    member: str
    budget: int
    share: int
    members: int
    claimed: int
    age: float
    hint: str | None
    line: int | None = None


class Door(Protocol):
    """What stands before each connection that is opened."""

    async def admit(self, dial: Callable[[Mapping[str, Any]], Awaitable[Any]]) -> Any:
        """Open a connection with *dial*, which takes more arguments for the driver, if there is room for it.

        :raises NotNow: when there is none.
        """


class Membership(Door, Protocol):
    """One pool's place in a fleet. It sizes the pool, and no connection is opened without it."""

    settings: Mapping[str, str]

    def resize(self, min_size: int, max_size: int) -> None:
        """The pool would have these sizes, as far as its share allows."""

    def begin(self) -> None:
        """The pool was opened."""

    def end(self) -> None:
        """The pool is closed. From any thread."""

    async def leave(self) -> None:
        """As far as the pool waits for its connections to end, it has waited. Never raises."""

    def state(self) -> FleetState: ...


class Fleet(Protocol):
    """What a pool belongs to."""

    def join(self, pool: BasePool[Any]) -> Membership:
        """A place in the fleet for *pool*, which is not open yet."""
