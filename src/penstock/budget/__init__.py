"""The line: how many connections there are, and whose they are. Arithmetic, and the file that declares them.

Nothing here speaks to a server.
"""

from penstock.budget.formula import Plan, extra_instances, plan
from penstock.budget.model import Budget, Consumer, Database, Pooler, Service, SidePool

__all__ = ["Budget", "Consumer", "Database", "Plan", "Pooler", "Service", "SidePool", "extra_instances", "plan"]
