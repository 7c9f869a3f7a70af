"""`penstock plan --app`: what an application really sets, beside what the budget lets it have."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.table import Table

from penstock import budget
from penstock.budget import Budget
from penstock.budget.application import Finding, Reading, read
from penstock.cli import annotations, plan_budget
from penstock.errors import Problem

_WORDS = {"breaks": "", "unknown": "unknown: ", "note": "note: "}


def run(
    app: Path, declared: Budget, what_if: Sequence[str], service: str | None, offline: bool, check: bool, as_json: bool
) -> bool | None:
    """Print what was found; whether plan and application fit, None when a limit is not known. Raises ValueError.

    What is unknown of the application is printed, and fails nothing: only what is known to break the budget does.
    """
    if service is not None and service not in declared.services:
        raise ValueError(f"--service {service}: there are {', '.join(declared.services)}")
    verdicts = plan_budget.judged(declared, offline)
    accounts = {f"{each.kind}:{each.name}": each for verdict in verdicts if (each := verdict.account) is not None}
    try:
        reading = read(app, declared, accounts, service)
    except OSError as error:
        raise ValueError(f"--app {app}: {error.strerror}") from None
    if as_json:
        found = plan_budget.as_dict(declared, what_if, verdicts)
        print(json.dumps(found | {"application": _as_dict(reading)}, indent=2))
    else:
        plan_budget.show(declared, what_if, verdicts, {}, brief=True)
        _show(reading)
    if check and not as_json:
        annotations.show(problem for verdict in verdicts for problem in verdict.problems)
        annotations.show(_problem(each) for each in reading.findings if each.level == "breaks")
        annotations.show((_problem(each) for each in reading.findings if each.level == "unknown"), "warning")
    fits = budget.all_fit(verdicts)
    return False if reading.fits is False else fits


def _show(reading: Reading) -> None:
    out = plan_budget.console()
    if reading.uses:
        out.print()
        out.print(_table(reading))
    for finding in reading.findings:
        out.print(f"{finding.place}: {_WORDS[finding.level]}{finding.what}")
        for each in finding.because:
            out.print(f"    {each}")
        for each in finding.instead:
            out.print(f"  - {each}")
    out.print(str(reading))


def _table(reading: Reading) -> Table:
    columns = ("program", "in the budget", "alive", "processes", "each", "connections", "may have")
    table = Table(*columns, box=box.SIMPLE_HEAD)
    for column in table.columns[2:]:
        column.justify = "right"
    for use in reading.uses:
        declared = use.service if use.side_pool is None else f"{use.service}/{use.side_pool}"
        figures = (use.alive, use.processes, use.each, use.total, use.allowed)
        name = f"{use.program} ({use.kind}, {use.place})"
        table.add_row(name, declared, *("?" if each is None else str(each) for each in figures))
    return table


def _problem(finding: Finding) -> Problem:
    """A finding as an annotation has it: with what to write instead, which is seen nowhere else on the line."""
    more = "".join(f"\n- {each}" for each in finding.instead)
    return Problem(finding.place.file, finding.place.line, "", finding.what + more)


def _as_dict(reading: Reading) -> dict[str, object]:
    return asdict(reading) | {"fits": reading.fits, "sentence": str(reading)}
