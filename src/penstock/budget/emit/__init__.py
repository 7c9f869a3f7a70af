"""Settings for a stack that keep one service within its share, each figure with its arithmetic as a comment."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...errors import BudgetError, Problem
from ..model import Budget
from ..schema import nearest
from ..shares import Account, unfit
from . import java, node, pgbouncer, php, python
from .share import Share

_STACKS: dict[str, Callable[[Share], str]] = {
    "sqlalchemy": python.sqlalchemy,
    "django": python.django,
    "psycopg": python.psycopg,
    "asyncpg": python.asyncpg,
    "node-postgres": node.postgres,
    "mysql2": node.mysql2,
    "laravel": php.laravel,
    "hikaricp": java.hikaricp,
    "env": python.env,
}
STACKS = (*_STACKS, "pgbouncer")


def emit(stack: str, budget: Budget, accounts: Mapping[str, Account], service: str | None = None) -> str:
    """The settings of *service* for *stack*; for ``pgbouncer`` those of the pooler that *service* goes through.

    *accounts* are those whose limits are known, by ``database:NAME`` and ``pooler:NAME``. *service* may be left out
    when there is one. The URL's variable is named, its value never read.

    :raises ValueError: no such stack, or it has to be said for which service.
    :raises BudgetError: the budget does not fit, or does not say what is needed.
    """
    if stack not in STACKS:
        raise ValueError(f"--emit {stack}: {nearest(stack, STACKS)}")
    if stack == "pgbouncer":
        pooler = _pooler(budget, service)
        return pgbouncer.ini(budget, pooler)
    return _STACKS[stack](_share(budget, accounts, _service(budget, service)))


def _service(budget: Budget, service: str | None) -> str:
    if service is None and len(budget.services) == 1:
        return next(iter(budget.services))
    if service is None:
        raise ValueError(f"for which service? --service {'|'.join(budget.services)}")
    if service not in budget.services:
        raise ValueError(f"--service {service}: no such service, {nearest(service, budget.services)}")
    return service


def _share(budget: Budget, accounts: Mapping[str, Account], name: str) -> Share:
    service = budget.services[name]
    pooler = None if service.through is None else budget.poolers[service.through]
    account = accounts.get(f"database:{service.database}" if pooler is None else f"pooler:{pooler.name}")
    if account is None:
        key = ("databases", service.database)
        what = "is neither declared nor known from the server: declare it"
        raise BudgetError(Problem(budget.path, budget.line(*key), ".".join((*key, "max_connections")), what))
    if not account.fits:
        raise BudgetError(unfit(budget, account))
    return Share(budget, service, account, account.shares[name], budget.databases[service.database], pooler)


def _pooler(budget: Budget, service: str | None) -> str:
    """The pooler whose settings are wanted: the service's, or the only one."""
    if service is not None and service in budget.poolers:
        return service
    if service is not None:
        through = budget.services[_service(budget, service)].through
        if through is not None:
            return through
        raise ValueError(f'service {service} goes through no pooler: say `through = "NAME"` in {budget.path}')
    if len(budget.poolers) == 1:
        return next(iter(budget.poolers))
    if budget.poolers:
        raise ValueError(f"for which pooler? --service {'|'.join(budget.poolers)}")
    first = next(iter(budget.databases), "main")
    raise ValueError(
        f'{budget.path} has no pooler. Declare it: [poolers.edge], database = "{first}", instances = 1, '
        'pool_size = 20; and in each service that goes through it: through = "edge"'
    )
