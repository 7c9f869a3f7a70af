"""`penstock plan`: how large each pool may be, and what to do when it does not fit."""

import json
from dataclasses import asdict
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from penstock import budget
from penstock.drivers.limits import Limit, LimitsUnknown, ServerLimits, ask

FITS, DOES_NOT_FIT, USAGE = 0, 1, 2


def plan(
    instances: Annotated[int, typer.Option(min=1, help="Machines, containers or pods that run the service.")],
    max_connections: Annotated[
        int | None, typer.Option(min=1, help="The server's max_connections. Needed unless --dsn asks the server.")
    ] = None,
    reserved: Annotated[
        int,
        typer.Option(
            min=0,
            help="Connections to leave alone: operators, other programs, the server's own reserve. "
            "With --dsn, what the server reserves itself and what others use now is added to it.",
        ),
    ] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes with a pool in each instance.")] = 1,
    surge: Annotated[
        str, typer.Option(help="More instances alive during a rolling deploy: a count, or a percentage such as 25%.")
    ] = "0",
    dsn: Annotated[
        str | None, typer.Option(help="Ask this server for its limits, as the role and in the database named here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Compute how large each pool may be: (max_connections - reserved) / processes.

    Exit status: 0 when it fits, 1 when it does not, 2 when the question is wrong or the server could not be asked.
    """
    if (dsn is None) == (max_connections is None):
        _refuse("give either --max-connections, or --dsn to ask the server for it")
    server = limits = None
    try:
        if dsn is not None:
            server = ask(dsn)
            limits = server.limits(reserved)
            max_connections, reserved = limits[0].connections, limits[0].reserved + limits[0].in_use
        assert max_connections is not None
        answer = budget.plan(max_connections, reserved=reserved, instances=instances, workers=workers, surge=surge)
    except (ValueError, LimitsUnknown) as error:
        _refuse(str(error))
    if as_json:
        print(json.dumps(_as_dict(answer, server, limits), indent=2))
    else:
        _show(answer, server, limits)
    raise typer.Exit(FITS if answer.fits else DOES_NOT_FIT)


def _refuse(why: str) -> NoReturn:
    typer.echo(f"penstock plan: {why}", err=True)
    raise typer.Exit(USAGE)


def _as_dict(answer: budget.Plan, server: ServerLimits | None, limits: list[Limit] | None) -> dict[str, object]:
    figures = ("usable", "processes", "pool_size", "leftover", "fits", "too_many", "remedies")
    found: dict[str, object] = asdict(answer) | {name: getattr(answer, name) for name in figures}
    if server is not None and limits is not None:
        found["server"] = asdict(server)
        found["limits"] = [asdict(limit) | {"room": limit.room} for limit in limits]
    return found | {"sentence": str(answer)}


def _show(answer: budget.Plan, server: ServerLimits | None, limits: list[Limit] | None) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if server is not None and limits is not None:
        console.print(_table(limits))
        if server.superuser:
            console.print(
                f"Role {server.role} is a superuser: no role or database limit binds it, and it can use up the "
                "connections that are kept for rescue. Let the service connect as an ordinary role."
            )
        console.print(f"The tightest limit is {limits[0].name}.")
    console.print(str(answer))
    if answer.remedies:
        console.print("Do one of these:")
        for remedy in answer.remedies:
            console.print(f"  - {remedy}")


def _table(limits: list[Limit]) -> Table:
    table = Table("limit", "connections", "reserved", "in use by others", "left for the service")
    for column in table.columns[1:]:
        column.justify = "right"
    for limit in limits:
        table.add_row(limit.name, *map(str, (limit.connections, limit.reserved, limit.in_use, limit.room)))
    return table
