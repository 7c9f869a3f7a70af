"""PEN311: what the application opens, held against the budget that is declared for it. `plan --app` says it at length.

It is a matter of all files together, and of some that are no Python: it is looked at once for a run, if a penstock.toml
declares a budget for the audited root.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..budget import Account, Budget, account, load, pooler_account
from ..budget.application import Finding as Reason
from ..budget.application import read
from ..budget.find import find
from ..errors import BudgetError
from .files import show
from .finding import Confidence, Finding
from .rules.deployed import OVER
from .source import Unread


def over(root: Path) -> list[Finding] | Unread:
    """What breaks the budget of the application under *root*; nothing if it has none.

    A budget that cannot be read is a note: it is `plan`'s to say what is wrong in it.
    """
    try:
        path = find(os.environ, root)
        if path is None:
            return []
        declared = load(path)
        reading = read(root, declared, dict(_accounts(declared)))
    except BudgetError as error:
        return Unread(str(root), 0, f"its budget could not be read: {str(error).splitlines()[0]}")
    except OSError as error:
        return Unread(str(root), 0, f"it could not be held against its budget: {error.strerror}")
    return [_finding(one) for one in reading.findings if one.level == "breaks"]


def _accounts(declared: Budget) -> Iterator[tuple[str, Account]]:
    """Those of databases and poolers whose limit is declared: no server is asked."""
    known = [account(declared, name) for name in declared.databases]
    known += [pooler_account(declared, name) for name in declared.poolers]
    yield from ((f"{each.kind}:{each.name}", each) for each in known if each is not None)


def _finding(reason: Reason) -> Finding:
    line = max(reason.place.line, 1)
    remedy = f". Instead: {reason.instead[0]}" if reason.instead else ""
    return Finding(
        path=show(Path(reason.place.file), Path.cwd()),
        line=line,
        column=1,
        code=OVER.code,
        message=f"{reason.what}{remedy}",
        end_line=line,
        kind=OVER.kind,
        severity=OVER.severity,
        confidence=Confidence.HIGH,
    )
