"""Where the members of a fleet say what they claim, and see what the others do.

A ledger keeps what is said and decides nothing. Whatever it is, to say and to look is one step in this order, so that
of two members who claim the same room at the same moment at least one sees the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .shares import View
from .tag import Said


class Elsewhere(Exception):
    """The session is not the client's own: something between hands it to others too."""


class Ledger(Protocol):
    """One member's.

    :ivar settings: of the server, to begin each session with.
    :ivar asks_on_one: whether to say and look takes a connection of the pool, so that who joins has to open one first.
    :ivar takes_places: whether a connection has to `take` its place once it is open, or is known from the login on.
    :ivar fresh: seconds since a claim was made for which connections are opened under it.
    :ivar lost: seconds since then after which idle connections are given up; infinity where others cannot believe that
        a claim has ended while its connections are there.
    :ivar longest: seconds between two looks, at most.
    """

    settings: Mapping[str, str]
    asks_on_one: bool
    takes_places: bool
    fresh: float
    lost: float
    longest: float

    def arguments(self) -> Mapping[str, Any]:
        """For the driver's `connect`: what makes a connection known as this member's from its first moment."""

    async def take(self, conn: Any) -> None:
        """Have *conn*, which was opened under the claim, count as a part of it; where it `takes_places`.

        :raises NotNow: when the claim has ended.
        """

    async def say(self, conn: Any, said: Said, count: int) -> tuple[View, Callable[[], bool]]:
        """Say this of the member, which has *count* connections, and then see what all say.

        Also returned is what tells, without waiting and from any thread, whether this claim still stands as far as can
        be known, its age apart.

        :param conn: the connection to ask on, where that takes one.
        """

    def speaker(self) -> Any:
        """The connection that is best asked on, if it is idle; None where each is as good."""

    async def leave(self, number: int) -> None:
        """The member has no connection and claims none. *number*: as of what is said, counted up."""

    async def close(self) -> None:
        """Nothing will be said any more."""
