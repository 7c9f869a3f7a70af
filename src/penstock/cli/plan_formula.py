"""`penstock plan --instances ...`: the formula for one service, with figures given or the server's own."""

import json
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from penstock import budget
from penstock.drivers.limits import Limit, ServerLimits, ask


def run(
    instances: int,
    max_connections: int | None,
    reserved: int,
    workers: int,
    surge: str,
    dsn: str | None,
    as_json: bool,
) -> bool:
    """Print the plan; whether it fits. Raises ValueError or LimitsUnknown."""
    if (dsn is None) == (max_connections is None):
        raise ValueError("give either --max-connections, or --dsn to ask the server for it")
    server = limits = None
    if dsn is not None:
        server = ask(dsn)
        limits = server.limits(reserved)
        max_connections, reserved = limits[0].connections, limits[0].reserved + limits[0].in_use
    assert max_connections is not None
    answer = budget.plan(max_connections, reserved=reserved, instances=instances, workers=workers, surge=surge)
    if as_json:
        print(json.dumps(_as_dict(answer, server, limits), indent=2))
    else:
        _show(answer, server, limits)
    return answer.fits


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
