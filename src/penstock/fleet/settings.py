"""What a fleet is: declared alike by all its processes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..core.settings import check_count, check_seconds

if TYPE_CHECKING:
    from ..pool.base import BasePool
    from .member import Member


@dataclass(slots=True, frozen=True)
class Fleet:
    """Processes that share one budget of connections to one database: `Pool(..., fleet=Fleet(60))`.

    Each pool's size is its share, which follows its need. The processes see one another through the database itself, by
    the names of their connections, and the sum never passes the budget: a process that has lost touch keeps what it has
    and never grows, and who finds no room waits. All processes of a fleet connect to the same database, straight; where
    there is a pooler between, they see one another through a Redis.

    :param budget: connections that all processes may have open, those that are opening and closing included.
    :param name: of the fleet: 1 to 16 letters a to z, digits, "-" and "_".
    :param service: what the process is, for those who look; alike.
    :param members: processes that there are at most, during a deploy, say; None where nobody can tell. Room is kept
        for those who are still to come, up to a twentieth of the budget: a true figure leaves more for those there.
    :param least: connections guaranteed to this process.
    :param weight: of this process's demand, beside that of others.
    :param outside: connections of the same role to the same database that are no member's, and that the budget leaves
        room for: a migration, a job. Those beyond are taken off it while they last.
    :param period: seconds after which a process looks again, at least. In a large fleet where nothing changes it looks
        less often; through Redis every 2 s at most.
    :param redis: through which the processes see one another, instead of the database: a URL (redis://..., rediss://...,
        unix://...), a `redis.Redis`, or for an `AsyncPool` a `redis.asyncio.Redis`. One *name* for each database there.
        See `docs/fleet.md` for what is weaker then.
    :raises ValueError: (or TypeError) naming the argument, what was found and what it may be.
    """

    budget: int
    name: str = "main"
    service: str = "app"
    members: int | None = None
    least: int = 1
    weight: float = 1.0
    outside: int = 0
    period: float = 5.0
    redis: Any = field(default=None, repr=False)  # it may hold a password

    def __post_init__(self) -> None:
        from .shares import most_room  # here: most programs have no fleet, and all import this
        from .tag import LONGEST, NAME, longest_fleet

        check_count("budget", self.budget, at_least=1)
        if self.budget > 99_999:
            raise ValueError(f"budget must be 99999 at most, not {self.budget}")
        for which in ("name", "service"):
            value = getattr(self, which)
            if not isinstance(value, str) or not NAME.fullmatch(value):
                raise ValueError(f"{which} must be 1 to 16 letters a to z, digits, '-' and '_', not {value!r}")
        if self.budget == 1 and self.redis is None:
            raise ValueError("budget (1) must be 2 or more: one is kept for who comes to ask")
        if self.members is not None:
            check_count("members", self.members, at_least=1)
            most = self.budget - (self.redis is None)
            if self.members > most:
                who = "" if self.redis is not None else ", and so does who comes to ask"
                raise ValueError(
                    f"members ({self.members}) must be {most} at most where budget is {self.budget}:"
                    f" each needs a connection{who}"
                )
        check_count("least", self.least, at_least=1)
        kept = 0 if self.redis is not None else most_room(self.budget) if self.members is None else 1
        if self.least > 1 and self.least * (self.members or 1) > self.budget - kept:
            raise ValueError(
                f"least ({self.least}) cannot be guaranteed to {self.members or 1} of them: budget is {self.budget},"
                f" and {kept} kept for who joins"
            )
        longest = longest_fleet(self.budget, self.least)
        if len(self.name) > longest:
            raise ValueError(
                f"name must be {longest} letters at most where budget is {self.budget}, not {self.name!r}: both are"
                f" part of each connection's name, which has {LONGEST} bytes"
            )
        if isinstance(self.weight, bool) or not isinstance(self.weight, (int, float)):
            raise TypeError(f"weight must be a number, not {self.weight!r}")
        if not 0 < self.weight < math.inf:
            raise ValueError(f"weight must be more than 0, not {self.weight!r}")
        check_count("outside", self.outside, at_least=0)
        check_seconds("period", self.period)
        if not 0.05 <= self.period < math.inf:
            raise ValueError(f"period must be 0.05 seconds or more, not {self.period!r}")
        if self.redis is not None:
            from . import redis

            redis.check(self.redis)

    def join(self, pool: BasePool[Any]) -> Member:
        """A place in the fleet for *pool*. `Pool(..., fleet=...)` asks for it."""
        from .member import Member
        from .watch import TaskWatch, ThreadWatch

        return Member(self, pool, TaskWatch if pool._is_async else ThreadWatch)
