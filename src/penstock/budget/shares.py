"""How the connections of one database, or of one pooler, are shared out among those who may use it.

First whatever is fixed is taken away: the server's reserve, headroom, consumers, poolers, side pools. What is left is
usable, and the processes of the services share it:

    share of a process = min + floor(level * weight), at most max

with one level for all of them, the highest for which everybody's shares together are not more than what is usable.
With a single service that is `formula.plan`'s rule: floor(usable / processes). Shares are whole numbers and the same
for every process of a service, so that a few connections may be left over: they are a margin.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from ..errors import BudgetError, Problem
from .formula import count, ways_out
from .model import RESERVED, Budget, Service
from .schema import nearest


@dataclass(frozen=True, slots=True)
class Row:
    """Who may hold how much.

    :ivar key: where in the file it is declared; None when only the server says so.
    :ivar processes: how many of them there are at the worst moment; None when it is not a matter of processes.
    :ivar each: connections of each of them.
    :ivar why: the arithmetic, in words.
    """

    who: str
    kind: Literal["reserve", "headroom", "consumer", "pooler", "side pool", "service"]
    key: tuple[str, ...] | None
    processes: int | None
    each: int | None
    total: int
    why: str


@dataclass(frozen=True, slots=True)
class Account:
    """Every connection of one database or one pooler, and whose it is at the worst moment.

    :ivar kind: of what: a database's server connections, or a pooler's client connections.
    :ivar limit: connections that there are.
    :ivar rows: who may hold how much. When it does not fit, the services' rows have their `min` only.
    :ivar usable: what is left for the services' processes to share.
    :ivar shares: connections of each process, by service; `min` when it does not fit.
    :ivar remedies: what would make it fit, each with its figure; empty when it fits.
    """

    name: str
    kind: Literal["database", "pooler"]
    limit: int
    rows: tuple[Row, ...]
    usable: int
    shares: Mapping[str, int]
    remedies: tuple[str, ...]

    @property
    def total(self) -> int:
        """Connections that are spoken for at the worst moment."""
        return sum(row.total for row in self.rows)

    @property
    def fits(self) -> bool:
        """Whether the limit holds at the worst moment, with everybody's `min`."""
        return self.total <= self.limit

    @property
    def leftover(self) -> int:
        """Connections that nobody gets; 0 when it does not fit."""
        return max(0, self.limit - self.total)

    def __str__(self) -> str:
        if self.fits:
            return f"{self.kind} {self.name}: fits: {self.total} of {self.limit} connections, {self.leftover} left over"
        return (
            f"{self.kind} {self.name}: does not fit: {self.total} connections at the worst moment, {self.limit} "
            f"there are, {self.total - self.limit} too many"
        )


def share_out(room: int, services: Iterable[Service]) -> dict[str, int] | None:
    """Connections of each process, by service; None when *room* does not suffice for everybody's `min`."""
    claims = list(services)
    if _held(claims, Fraction(0)) > room:
        return None
    level = _certain_level(room, claims)
    while steps := [step for each in claims if (step := _next_step(each, level)) is not None]:
        # All who step at the same level do so together, or nobody does: a name or a place in the file gives no right.
        following = min(steps)
        if _held(claims, following) > room:
            break
        level = following
    return {each.name: _share(each, level) for each in claims}


def account(
    budget: Budget, database: str, *, max_connections: int | None = None, reserved: int | None = None
) -> Account | None:
    """The account of *database*; None when its limit is neither declared nor given.

    *max_connections* and *reserved* are the server's own words, used where the file says nothing.
    """
    declared = budget.databases[database]
    limit = declared.max_connections if declared.max_connections is not None else max_connections
    if limit is None:
        return None
    return _close("database", database, limit, _fixed(budget, database, reserved), budget.services_of(database))


def pooler_account(budget: Budget, pooler: str) -> Account:
    """The account of *pooler*: the connections that services may have to it."""
    declared = budget.poolers[pooler]
    services = budget.services_through(pooler)
    return _close("pooler", pooler, declared.instances * declared.max_clients, _side_pools(services), services)


def fleet_budget(
    budget: Budget, database: str, *, max_connections: int | None = None, reserved: int | None = None
) -> int | None:
    """What the processes that connect to *database* straight share among them; None when its limit is not known."""
    found = account(budget, database, max_connections=max_connections, reserved=reserved)
    return None if found is None else found.usable


def static_share(budget: Budget, service: str) -> int:
    """Connections that each process of *service* may hold, by what is declared alone; nobody is asked.

    :raises BudgetError: when there is no such service, its database's limit is not declared, or it does not fit.
    """
    if service not in budget.services:
        raise BudgetError(
            Problem(budget.path, 0, "services", f"no service {service!r}: {nearest(service, budget.services)}")
        )
    declared = budget.services[service]
    if declared.through is not None:
        found = pooler_account(budget, declared.through)
    else:
        key = ("databases", declared.database)
        maybe = account(budget, declared.database)
        if maybe is None:
            what = "is missing: a pool's size needs it declared (`penstock plan` shows what the server says)"
            raise BudgetError(Problem(budget.path, budget.line(*key), ".".join((*key, "max_connections")), what))
        found = maybe
    if not found.fits:
        raise BudgetError(unfit(budget, found))
    return found.shares[service]


def unfit(budget: Budget, found: Account) -> Problem:
    """That an account does not fit, as a problem of the line that sets its limit."""
    key = (f"{found.kind}s", found.name)
    limit = "max_connections" if found.kind == "database" else "max_clients"
    return Problem(budget.path, budget.line(*key, limit), ".".join(key), str(found).partition(": ")[2])


def _close(
    kind: Literal["database", "pooler"], name: str, limit: int, fixed: Iterable[Row], services: list[Service]
) -> Account:
    rows = list(fixed)
    usable = max(0, limit - sum(row.total for row in rows))
    overdrawn = sum(row.total for row in rows) > limit
    shares = None if overdrawn else share_out(usable, services)
    granted = {each.name: each.min for each in services} if shares is None else shares
    rows += [_service_row(each, granted[each.name]) for each in services]
    remedies = () if shares is not None else tuple(_remedies(kind, name, limit, rows, services))
    return Account(name, kind, limit, tuple(rows), usable, granted, remedies)


# ---------------------------------------------------------------------------------------------- the level


def _share(service: Service, level: Fraction) -> int:
    share = service.min + int(level * Fraction(service.weight))
    return share if service.max is None else min(share, service.max)


def _held(claims: list[Service], level: Fraction) -> int:
    return sum(each.processes_at_worst * _share(each, level) for each in claims)


def _next_step(service: Service, level: Fraction) -> Fraction | None:
    """The lowest level above *level* at which this service's processes get one more; None when they have their max."""
    share = _share(service, level)
    if service.max is not None and share >= service.max:
        return None
    return Fraction(share - service.min + 1) / Fraction(service.weight)


def _certain_level(room: int, claims: list[Service]) -> Fraction:
    """A level that fits for certain, at most a step a service below the highest: so that nobody counts up to it."""
    level, growing = Fraction(0), claims
    while growing:
        full = [each for each in claims if each not in growing]
        left = room - sum(each.processes_at_worst * _share(each, level) for each in full)
        left -= sum(each.processes_at_worst * each.min for each in growing)
        wanted = sum((Fraction(each.weight) * each.processes_at_worst for each in growing), Fraction(0))
        level = left / wanted
        still = [each for each in growing if _next_step(each, level) is not None]
        if len(still) == len(growing):
            break
        growing = still
    return level


# ---------------------------------------------------------------------------------------------- the rows


def _fixed(budget: Budget, database: str, reserved: int | None) -> Iterator[Row]:
    """Whatever is taken before the services share the rest."""
    declared = budget.databases[database]
    key = ("databases", database)
    if declared.reserved is not None:
        yield Row("the server's reserve", "reserve", (*key, "reserved"), None, None, declared.reserved, "declared")
    elif reserved is not None:
        yield Row("the server's reserve", "reserve", None, None, None, reserved, "says the server")
    else:
        yield Row("the server's reserve", "reserve", None, None, None, RESERVED, "PostgreSQL's default")
    yield Row("headroom", "headroom", (*key, "headroom"), None, None, declared.headroom, "kept for operators")
    for consumer in budget.consumers.values():
        if consumer.database == database:
            where = ("consumers", consumer.name)
            yield Row(consumer.name, "consumer", where, None, None, consumer.connections, "a fixed consumer")
    for pooler in budget.poolers.values():
        if pooler.database == database:
            why = f"{count(pooler.instances, 'instance')} x pool_size {pooler.pool_size}"
            total = pooler.instances * pooler.pool_size
            where = ("poolers", pooler.name)
            yield Row(pooler.name, "pooler", where, pooler.instances, pooler.pool_size, total, why)
    yield from _side_pools(budget.services_of(database))


def _side_pools(services: Iterable[Service]) -> Iterator[Row]:
    for service in services:
        for side in service.side_pools.values():
            many = service.alive * side.processes
            key = ("services", service.name, "side_pools", side.name)
            why = f"{_replicas(service)} x {count(side.processes, 'process', 'processes')}"
            yield Row(f"{service.name}/{side.name}", "side pool", key, many, side.size, many * side.size, why)


def _service_row(service: Service, share: int) -> Row:
    many = service.processes_at_worst
    why = f"{_replicas(service)} x {count(service.processes, 'process', 'processes')}"
    return Row(service.name, "service", ("services", service.name), many, share, many * share, why)


def _replicas(service: Service) -> str:
    extra = service.alive - service.replicas
    return f"({service.replicas} + {extra} in a deploy)" if extra else count(service.replicas, "replica")


# ---------------------------------------------------------------------------------------------- what to do


def _remedies(kind: str, name: str, limit: int, rows: list[Row], services: list[Service]) -> Iterator[str]:
    """What would make it fit, each alone: cheapest first. One that no figure could satisfy is left out."""
    over = sum(row.total for row in rows) - limit
    for service in services:
        yield from _remedies_of(service, over)
    for row in rows:
        if row.kind == "pooler" and row.processes and row.each and (fewer := (row.total - over) // row.processes) > 0:
            yield f"poolers.{row.who}: pool_size at most {fewer}, it is {row.each}"
        if row.kind == "consumer" and row.total > over:
            yield f"consumers.{row.who}: connections at most {row.total - over}, it is {row.total}"
    if kind == "database":
        if services:
            yield "put a pooler in transaction mode (PgBouncer) between a service and the server: [poolers], `through`"
        yield f"raise max_connections from {limit} to at least {limit + over}, if the server has the memory for it"
    else:
        yield f"raise what poolers.{name} accepts from {limit} to at least {limit + over}: max_clients x instances"


def _remedies_of(service: Service, over: int) -> Iterator[str]:
    beside = sum(side.processes * side.size for side in service.side_pools.values())
    held = service.alive * (service.processes * service.min + beside)
    ways = ways_out(held - over, service.replicas, service.surge, service.processes, service.min, beside)
    at = f"services.{service.name}"
    if ways.each is not None:
        yield f"{at}: min at most {ways.each}, it is {service.min}"
    if ways.workers is not None:
        yield f"{at}: processes at most {ways.workers}, it is {service.processes}"
    if ways.surge is not None:
        yield f"{at}: surge at most {ways.surge}, it is {service.alive - service.replicas}"
    if ways.instances is not None:
        yield f"{at}: replicas at most {ways.instances}, it is {service.replicas}"
