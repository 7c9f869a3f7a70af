"""`penstock plan`: how large each pool may be, and what to do when it does not fit."""

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from penstock import budget
from penstock.budget.emit import STACKS
from penstock.cli import annotations, plan_app, plan_budget, plan_emit, plan_formula
from penstock.drivers.limits import LimitsUnknown
from penstock.errors import BudgetError, NoBudget

FITS, DOES_NOT_FIT, USAGE = 0, 1, 2

_FILE = "With a budget file"
_FORMULA = "Without one"


def plan(
    budget_file: Annotated[
        Path | None,
        typer.Option(
            "--budget",
            rich_help_panel=_FILE,
            help="The file; by default PENSTOCK_TOML, or the nearest penstock.toml or pyproject.toml from here up.",
        ),
    ] = None,
    environment: Annotated[
        str | None,
        typer.Option(rich_help_panel=_FILE, help="Which of the file's environments; by default PENSTOCK_ENV, or none."),
    ] = None,
    what_if: Annotated[
        list[str] | None,
        typer.Option(rich_help_panel=_FILE, help="A figure to change, such as web.replicas=20. May be repeated."),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", rich_help_panel=_FILE, help="Ask no server.")] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            rich_help_panel=_FILE,
            help="For CI: print a line for each database, and what is wrong; on GitHub Actions as annotations.",
        ),
    ] = False,
    app: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=_FILE,
            help="Read the application in this directory, never run it, and say where what it sets breaks the budget.",
        ),
    ] = None,
    emit: Annotated[
        str | None,
        typer.Option(
            metavar="STACK",
            rich_help_panel=_FILE,
            help=f"Print the settings that keep a service within its share, for {', '.join(STACKS)}.",
        ),
    ] = None,
    service: Annotated[
        str | None,
        typer.Option(rich_help_panel=_FILE, help="Which service, with --emit and --app, if there are several."),
    ] = None,
    instances: Annotated[
        int | None,
        typer.Option(min=1, rich_help_panel=_FORMULA, help="Machines, containers or pods that run the service."),
    ] = None,
    max_connections: Annotated[
        int | None,
        typer.Option(
            min=1,
            rich_help_panel=_FORMULA,
            help="The server's max_connections. Needed unless --dsn asks the server.",
        ),
    ] = None,
    reserved: Annotated[
        int | None,
        typer.Option(
            min=0,
            rich_help_panel=_FORMULA,
            help="Connections to leave alone: operators, other programs, the server's own reserve; 0 if not given. "
            "With --dsn, what the server reserves itself and what others use now is added to it.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, rich_help_panel=_FORMULA, help="Processes with a pool in each instance; 1 if not given."),
    ] = None,
    surge: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_FORMULA,
            help="More instances alive during a rolling deploy: a count, or a percentage such as 25%; 0 if not given.",
        ),
    ] = None,
    dsn: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_FORMULA,
            help="Ask this server for its limits, as the role and in the database named here.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Say who may hold how many connections, and whether all of them fit at the worst moment.

    With a penstock.toml: the whole budget, and with --app what an application really sets beside it.
    With --instances: one service, (max_connections - reserved) / processes.

    Exit status: 0 when it fits, 1 when it does not, 2 when the question or the file is wrong, or a limit is not known.
    """
    formula = (instances, max_connections, reserved, workers, surge, dsn)
    by_formula = any(given is not None for given in formula)
    if by_formula and (budget_file or environment or what_if or offline or check or app or emit or service):
        _refuse("--instances and its like go without a budget file; to change a figure of one: --what-if replicas=20")
    fits: bool | None
    try:
        if by_formula:
            if instances is None:
                _refuse("--instances is missing, or none of the options that go with it (--what-if changes a file's)")
            fits = plan_formula.run(instances, max_connections, reserved or 0, workers or 1, surge or "0", dsn, as_json)
        else:
            declared = budget.load(budget_file, environment)
            changed = budget.what_if(declared, what_if or [])
            if service is not None and not (app or emit):
                _refuse("--service goes with --emit or --app")
            if emit is not None and (app or check or as_json):
                _refuse("--emit prints settings and nothing else: it goes without --app, --check and --json")
            if emit is not None:
                fits = plan_emit.run(emit, changed, service, offline)
            elif app is not None:
                fits = plan_app.run(app, changed, what_if or [], service, offline, check, as_json)
            else:
                fits = plan_budget.run(declared, what_if or [], offline, check, as_json)
    except NoBudget as error:
        _refuse(f"{error}\nwithout a file: --instances and --max-connections, or --dsn")
    except BudgetError as error:
        if check and not as_json:
            annotations.show(error.problems)
        _refuse(str(error))
    except (ValueError, LimitsUnknown) as error:
        _refuse(str(error))
    raise typer.Exit(DOES_NOT_FIT if fits is False else FITS if fits else USAGE)


def _refuse(why: str) -> NoReturn:
    typer.echo("\n".join(f"penstock plan: {line}" for line in why.splitlines()), err=True)
    raise typer.Exit(USAGE)
