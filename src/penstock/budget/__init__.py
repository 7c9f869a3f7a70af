"""The line: how many connections there are, and whose they are. Arithmetic, and the file that declares them.

Nothing here speaks to a server.
"""

from penstock.budget.file import conninfo, load, read
from penstock.budget.formula import Plan, extra_instances, plan
from penstock.budget.model import Budget, Consumer, Database, Pooler, Service, SidePool
from penstock.budget.shares import Account, Row, account, fleet_budget, pooler_account, static_share, unfit
from penstock.budget.verdict import Server, Verdict, all_fit, judge_database, judge_pooler
from penstock.budget.whatif import what_if

__all__ = [
    "Account",
    "Budget",
    "Consumer",
    "Database",
    "Plan",
    "Pooler",
    "Row",
    "Server",
    "Service",
    "SidePool",
    "Verdict",
    "account",
    "all_fit",
    "conninfo",
    "extra_instances",
    "fleet_budget",
    "judge_database",
    "judge_pooler",
    "load",
    "plan",
    "pooler_account",
    "read",
    "static_share",
    "unfit",
    "what_if",
]
