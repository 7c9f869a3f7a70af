"""Whether the worst moment fits: by what is declared, and by what the server itself says beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from ..errors import Problem
from .model import Budget
from .shares import Account, account, pooler_account, unfit


class Server(Protocol):
    """What a server answered (`drivers.limits.ServerLimits`). A limit of -1 means none."""

    @property
    def max_connections(self) -> int: ...
    @property
    def superuser_reserved_connections(self) -> int: ...
    @property
    def reserved_connections(self) -> int: ...
    @property
    def role(self) -> str: ...
    @property
    def role_limit(self) -> int: ...
    @property
    def superuser(self) -> bool: ...
    @property
    def database(self) -> str: ...
    @property
    def database_limit(self) -> int: ...
    @property
    def others(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of one database or pooler.

    :ivar account: None when its limit is neither declared nor known from the server.
    :ivar server: its own words; None when it was not asked, or is a pooler.
    :ivar problems: what breaks the budget; none when it fits.
    :ivar notes: what is worth knowing and breaks nothing.
    """

    account: Account | None
    server: Server | None
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]


def judge_database(budget: Budget, name: str, server: Server | None, not_asked: str | None = None) -> Verdict:
    """The verdict on a database. *not_asked* says why there is no *server*."""
    reserve = None if server is None else _reserve(server)
    limit = None if server is None else server.max_connections
    found = account(budget, name, max_connections=limit, reserved=reserve)
    problems, notes = [], []
    if found is None:
        key = ("databases", name)
        what = f"is missing: declare it, because the server did not say: {_sentence(not_asked)}"
        problems.append(Problem(budget.path, budget.line(*key), ".".join((*key, "max_connections")), what))
    else:
        if not_asked is not None:
            notes.append(f"The server did not say: {_sentence(not_asked)}")
        if not found.fits:
            problems.append(unfit(budget, found))
        elif budget.databases[name].fleet and found.shares:
            notes.append(_follow_need(budget, found))
        if server is not None:
            problems += _beyond(budget, found, server)
            notes += _differences(budget, name, server)
    return Verdict(found, server, tuple(problems), tuple(notes))


def judge_pooler(budget: Budget, name: str) -> Verdict:
    """The verdict on the connections that services may have to a pooler."""
    found = pooler_account(budget, name)
    return Verdict(found, None, () if found.fits else (unfit(budget, found),), ())


def _follow_need(budget: Budget, found: Account) -> str:
    """What the table does not show: a pool may have more than the share that it stands there with, or less."""
    services = [budget.services[each] for each in found.shares]
    between = ", ".join(
        f"{each.name} {each.min} to {found.usable if each.max is None else min(each.max, found.usable)}"
        for each in services
    )
    return (
        f"fleet = true: shares follow need, and all together stay within {found.usable}. A process may have, at least "
        f"and at most: {between}. The share that stands here is the one without a fleet."
    )


def _sentence(why: str | None) -> str:
    """What others say ends with a full stop, a question mark, or nothing."""
    why = why or "it was not asked"
    return why if why.endswith((".", "?")) else f"{why}."


def _reserve(server: Server) -> int:
    return server.superuser_reserved_connections + server.reserved_connections


def _beyond(budget: Budget, found: Account, server: Server) -> Iterator[Problem]:
    """The server's limits that the declared worst moment passes. Whoever has a share of it may hold all of it."""
    ours = sum(row.total for row in found.rows if row.kind in ("service", "side pool", "pooler"))
    consumers = sum(row.total for row in found.rows if row.kind == "consumer")
    headroom = sum(row.total for row in found.rows if row.kind == "headroom")
    key = ("databases", found.name)

    def problem(at: str, what: str) -> Problem:
        return Problem(budget.path, budget.line(*key, at), ".".join((*key, at)), what)

    room = server.max_connections - _reserve(server)
    if found.fits and (wanted := ours + consumers + headroom) > room:
        yield problem(
            "max_connections",
            f"{wanted} connections at the worst moment, and the server has room for {room}: its max_connections is "
            f"{server.max_connections}, of which it reserves {_reserve(server)}",
        )
    if 0 <= server.role_limit < ours:
        yield problem(
            "url",
            f"services, side pools and poolers hold {ours} at the worst moment, and role {server.role} may have "
            f"{server.role_limit} (ALTER ROLE ... CONNECTION LIMIT)",
        )
    if 0 <= server.database_limit < ours + consumers:
        yield problem(
            "url",
            f"all who use it hold {ours + consumers} at the worst moment, and database {server.database} accepts "
            f"{server.database_limit} (ALTER DATABASE ... CONNECTION LIMIT)",
        )


def _differences(budget: Budget, name: str, server: Server) -> Iterator[str]:
    declared = budget.databases[name]
    for key, says, real in (
        ("max_connections", declared.max_connections, server.max_connections),
        ("reserved", declared.reserved, _reserve(server)),
    ):
        if says is not None and says != real:
            place = f"{budget.path}:{budget.line('databases', name, key)}"
            yield f"{place}: {key} is declared as {says}, the server has {real}."
    if server.superuser:
        yield (
            f"Role {server.role} is a superuser: no role or database limit binds it, and it can use up the connections "
            "that are kept for rescue. Let services connect as an ordinary role."
        )


def all_fit(verdicts: list[Verdict]) -> bool | None:
    """Whether nothing breaks the budget; None when that cannot be said because a limit is not known."""
    if any(verdict.problems and verdict.account is not None for verdict in verdicts):
        return False
    return None if any(verdict.account is None for verdict in verdicts) else True
