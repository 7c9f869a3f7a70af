"""`penstock runbook`: what to do when connections run out, written for this very system."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from penstock import __version__, budget
from penstock.budget.runbook import Found
from penstock.budget.runbook import runbook as text_of
from penstock.cli import plan_budget
from penstock.drivers.clients import clients
from penstock.drivers.conninfo import parse
from penstock.drivers.limits import LimitsUnknown
from penstock.errors import BudgetError

WRITTEN, USAGE = 0, 2


def runbook(
    budget_file: Annotated[
        Path | None,
        typer.Option(
            "--budget", help="The file; by default PENSTOCK_TOML, or the nearest penstock.toml or pyproject.toml."
        ),
    ] = None,
    environment: Annotated[
        str | None, typer.Option(help="Which of the file's environments; by default PENSTOCK_ENV, or none.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no server.")] = False,
    output: Annotated[Path | None, typer.Option(help="A file to write it to; printed if there is none.")] = None,
) -> None:
    """Write the runbook of this system, in Markdown: from penstock.toml and from what its servers say.

    Exit status: 0 when it was written, 2 when the budget file is wrong or the output cannot be written.
    """
    try:
        declared = budget.load(budget_file, environment)
        text = text_of(declared, {name: _find(declared, name, offline) for name in declared.databases}, _made())
        if output is None:
            print(text, end="")
        else:
            output.write_text(text, encoding="utf-8")
            typer.echo(f"wrote {output}")
    except (BudgetError, OSError) as error:
        typer.echo("\n".join(f"penstock runbook: {line}" for line in str(error).splitlines()), err=True)
        raise typer.Exit(USAGE) from None
    raise typer.Exit(WRITTEN)


def _made() -> str:
    return f"made by penstock {__version__} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def _find(declared: budget.Budget, name: str, offline: bool) -> Found:
    verdict, where = plan_budget.judge(declared, name, offline), _where(declared, name)
    if verdict.server is None:
        return Found(verdict, where)
    try:
        return Found(verdict, where, clients(budget.conninfo(declared, "databases", name)))
    except LimitsUnknown:
        return Found(verdict, where)


def _where(declared: budget.Budget, name: str) -> str | None:
    """What of the URL is no secret, and the variable that has it."""
    url = declared.databases[name].url
    if url is None:
        return None
    variable = f"`{url.removeprefix('env:')}`, " if url.startswith("env:") else ""
    try:
        params = parse(budget.conninfo(declared, "databases", name))
    except (BudgetError, ValueError, ImportError):
        return variable.rstrip(", ") or None
    shown = [f"{part} {params[part]}" for part in ("host", "port", "dbname") if part in params]
    return (variable + ", ".join(shown)).rstrip(", ") or None
