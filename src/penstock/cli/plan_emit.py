"""`penstock plan --emit`: the settings of one service, for its stack."""

from penstock import budget
from penstock.budget import Account, Budget
from penstock.budget.emit import emit
from penstock.cli import plan_budget


def run(stack: str, declared: Budget, service: str | None, offline: bool) -> bool:
    """Print the settings. Raises ValueError, BudgetError when there is nothing that fits."""
    print(emit(stack, declared, _accounts(declared, offline), service), end="")
    return True


def _accounts(declared: Budget, offline: bool) -> dict[str, Account]:
    """What is declared, as pools from the budget have it; a server is asked for what is not."""
    known = [budget.account(declared, name) for name in declared.databases]
    if None in known:
        known = [verdict.account for verdict in plan_budget.judged(declared, offline)]
    known += [budget.pooler_account(declared, name) for name in declared.poolers]
    return {f"{each.kind}:{each.name}": each for each in known if each is not None}
