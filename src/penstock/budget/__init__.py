"""The line: how many connections there are, and whose they are. Arithmetic, and the file that declares them.

Nothing here speaks to a server.
"""

from penstock.budget.file import conninfo, load, read
from penstock.budget.formula import Plan, extra_instances, plan
from penstock.budget.model import Budget, Consumer, Database, Pooler, Service, SidePool
from penstock.budget.shares import Account, Row, account, fleet_budget, pooler_account

__all__ = [
    "Account",
    "Budget",
    "Consumer",
    "Database",
    "Plan",
    "Pooler",
    "Row",
    "Service",
    "SidePool",
    "account",
    "conninfo",
    "extra_instances",
    "fleet_budget",
    "load",
    "plan",
    "pooler_account",
    "read",
]
