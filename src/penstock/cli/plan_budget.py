"""`penstock plan` with a budget file: who may hold how much, and whether the worst moment fits."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rich import box
from rich.console import Console
from rich.table import Table

from penstock import budget
from penstock.budget import Account, Budget, Verdict
from penstock.cli import annotations
from penstock.drivers.limits import LimitsUnknown, ServerLimits, UnreadableDsn, ask
from penstock.errors import BudgetError

Shares = Mapping[str, int]


def run(declared: Budget, what_if: Sequence[str], offline: bool, check: bool, as_json: bool) -> bool | None:
    """Print the plan; whether it fits, None when a limit is not known. Raises ValueError."""
    changed = budget.what_if(declared, what_if)
    verdicts = judged(changed, offline)
    if as_json:
        print(json.dumps(as_dict(changed, what_if, verdicts), indent=2))
    else:
        show(changed, what_if, verdicts, _shares(declared) if what_if else {}, brief=check)
    if check and not as_json:
        annotations.show(problem for verdict in verdicts for problem in verdict.problems)
    return budget.all_fit(verdicts)


def judged(declared: Budget, offline: bool) -> list[Verdict]:
    """The verdict on each database, and on each pooler that somebody goes through."""
    verdicts = [judge(declared, name, offline) for name in declared.databases]
    through = [name for name in declared.poolers if declared.services_through(name)]
    return verdicts + [budget.judge_pooler(declared, name) for name in through]


def judge(declared: Budget, name: str, offline: bool) -> Verdict:
    """The verdict on one database, its server asked unless *offline*."""
    server, not_asked = _ask(declared, name, offline)
    return budget.judge_database(declared, name, server, not_asked)


def _shares(declared: Budget) -> Shares:
    """What each process of each service has, where that is declared and fits."""
    accounts = [budget.account(declared, name) for name in declared.databases]
    accounts += [budget.pooler_account(declared, name) for name in declared.poolers]
    return {name: share for each in accounts if each and each.fits for name, share in each.shares.items()}


def _ask(declared: Budget, name: str, offline: bool) -> tuple[ServerLimits | None, str | None]:
    """What the server says, or why it was not asked."""
    if offline:
        return None, "it is not asked (--offline)"
    if declared.databases[name].url is None:
        return None, "the file has no url for it"
    try:
        return ask(budget.conninfo(declared, "databases", name)), None
    except BudgetError as error:
        return None, f"{error.problems[0].key}: {error.problems[0].what}"
    except UnreadableDsn as error:
        return None, f"databases.{name}.url{_variable(declared.databases[name].url)}: {error}"
    except LimitsUnknown as error:
        return None, " ".join(str(error).removeprefix("the server could not be asked: ").split())


def _variable(url: str | None) -> str:
    """Which variable it is that has the URL, when the file names one."""
    return f" (the variable {url.removeprefix('env:')})" if url is not None and url.startswith("env:") else ""


# ---------------------------------------------------------------------------------------------- for people


def console() -> Console:
    """Where it is printed. A log has no width of its own, and a table folded to 80 columns cannot be read at 2 a.m."""
    width = None if sys.stdout.isatty() else 120
    return Console(highlight=False, markup=False, soft_wrap=True, width=width)


def show(declared: Budget, what_if: Sequence[str], verdicts: list[Verdict], was: Shares, *, brief: bool) -> None:
    """Print the plan for people; *brief* without its tables."""
    out = console()
    title = declared.path
    title += f", environment {declared.environment}" if declared.environment else ""
    title += f", what if {', '.join(what_if)}" if what_if else ""
    out.print(title)
    for verdict in verdicts:
        account = verdict.account
        if not brief:
            out.print()
        if account is not None and account.fits:
            out.print(str(account))
        for problem in verdict.problems:
            out.print(str(problem))
        if account is not None and not brief:
            out.print(_who(account, was))
            if verdict.server is not None:
                out.print(_limits(declared, account, verdict.server))
        for note in verdict.notes:
            out.print(note)
        if account is not None and account.remedies:
            out.print("Do one of these:")
            for remedy in account.remedies:
                out.print(f"  - {remedy}")


def _who(account: Account, was: Shares) -> Table:
    table = Table("who", "processes", "each", "connections", "why", box=box.SIMPLE_HEAD)
    for column in table.columns[1:4]:
        column.justify = "right"
    for row in account.rows:
        who = f"{row.who} ({row.kind})" if row.kind in ("consumer", "pooler", "side pool") else row.who
        each = _figure(row.each)
        if row.kind == "service" and was.get(row.who, row.each) != row.each:
            each = f"{was[row.who]} -> {each}"
        table.add_row(who, _figure(row.processes), each, str(row.total), row.why)
    table.add_section()
    rest = f"of {account.limit}" + (f", {account.leftover} left over" if account.fits else "")
    table.add_row("at the worst moment", "", "", str(account.total), rest)
    return table


def _limits(declared: Budget, account: Account, server: budget.Server) -> Table:
    database = declared.databases[account.name]
    table = Table("limit", "declared", "the server", box=box.SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, says, real in (
        ("max_connections", database.max_connections, server.max_connections),
        ("reserved", database.reserved, server.superuser_reserved_connections + server.reserved_connections),
        (f"role {server.role}", None, server.role_limit),
        (f"database {server.database}", None, server.database_limit),
        ("in use now by other roles and databases", None, server.others),
    ):
        table.add_row(name, _figure(says), "no limit" if real < 0 else str(real))
    return table


def _figure(value: int | None) -> str:
    return "" if value is None else str(value)


# ---------------------------------------------------------------------------------------------- for programs


def as_dict(declared: Budget, what_if: Sequence[str], verdicts: list[Verdict]) -> dict[str, object]:
    """The plan for programs."""
    return {
        "path": declared.path,
        "environment": declared.environment,
        "what_if": list(what_if),
        "fits": budget.all_fit(verdicts),
        "accounts": [_account(verdict) for verdict in verdicts if verdict.account is not None],
        "problems": [problem._asdict() for verdict in verdicts for problem in verdict.problems],
        "notes": [note for verdict in verdicts for note in verdict.notes],
    }


def _account(verdict: Verdict) -> dict[str, object]:
    account, server = verdict.account, verdict.server
    assert account is not None
    figures = {name: getattr(account, name) for name in ("total", "leftover", "fits")}
    asked = asdict(server) if isinstance(server, ServerLimits) else None
    return asdict(account) | figures | {"server": asked, "sentence": str(account)}
