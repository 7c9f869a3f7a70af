"""The fleet that penstock.toml declares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import BudgetError, Problem
from .settings import Fleet

if TYPE_CHECKING:
    from ..budget import Budget


def of(found: Budget, service: str) -> Fleet:
    """The fleet of the database of *service*, for one of its processes.

    Side pools and poolers are taken off the budget already, and most likely connect as the same role: they are no
    strangers. A fixed consumer has a role of its own.

    :raises BudgetError: when the database's limit is not declared, or everybody's least does not fit.
    """
    from ..budget import fleet_budget, static_share

    static_share(found, service)  # which checks what it says above
    declared = found.services[service]
    name = declared.database
    usable = fleet_budget(found, name)
    assert usable is not None, "bug: a share of nothing"
    sides = sum(
        each.alive * side.processes * side.size for each in found.services_of(name) for side in each.side_pools.values()
    )
    poolers = sum(each.instances * each.pool_size for each in found.poolers.values() if each.database == name)
    try:
        return Fleet(
            usable,
            name=name,
            service=service,
            members=found.members(name),
            least=declared.min,
            weight=declared.weight,
            outside=sides + poolers,
        )
    except ValueError as error:  # it keeps a connection for who joins, which a fixed share need not
        at = ("databases", name)
        raise BudgetError(Problem(found.path, found.line(*at, "fleet"), ".".join((*at, "fleet")), str(error))) from None
