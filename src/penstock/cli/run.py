"""`penstock run`: an unmodified program, with its connections watched, or held below a line."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from penstock.guard import launch
from penstock.guard.settings import Mode, Settings

USAGE, CANNOT_START, NOT_FOUND = 2, 126, 127


def run(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="As you would start it without.")],
    watch: Annotated[
        bool, typer.Option("--watch", help="Change nothing; tell who opens, who holds, who never closes.")
    ] = False,
    hold: Annotated[
        bool, typer.Option("--hold", help="Let connections come from one bounded pool per database and process.")
    ] = False,
    max: Annotated[
        int | None,
        typer.Option(min=1, help="With --hold: connections that each process may have to one database; by default 10."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --watch: write what is told at the end, as JSON."),
    ] = None,
) -> None:
    """Run a program as it is, with its database connections under guard, in every worker and child.

    penstock run --watch -- gunicorn app:app
    penstock run --hold --max 10 -- gunicorn app:app

    PENSTOCK=off in its environment leaves it alone.
    """
    if hold and report is not None:
        print("penstock run: --report is what --watch tells; with --hold there is none", file=sys.stderr)
        raise typer.Exit(USAGE)
    if watch and max is not None:
        print("penstock run: --max is what --hold keeps to; --watch changes nothing", file=sys.stderr)
        raise typer.Exit(USAGE)
    if report is not None and not _can_write(report):
        print(f"penstock run: {report}: cannot be written", file=sys.stderr)
        raise typer.Exit(USAGE)
    if watch == hold:
        print("penstock run: say --watch, which changes nothing, or --hold", file=sys.stderr)
        raise typer.Exit(USAGE)
    try:
        settings = Settings(Mode.WATCH) if watch else Settings(Mode.HOLD, *([] if max is None else [max]))
        launch.run(settings, command, report)
    except OSError as error:
        print(f"penstock run: {command[0]}: {error.strerror}", file=sys.stderr)
        raise typer.Exit(NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_START) from None


def _can_write(file: Path) -> bool:
    """To be known before the program has run, and not when what there is to tell is lost."""
    if file.exists():
        return not file.is_dir() and os.access(file, os.W_OK)
    return os.access(file.parent, os.W_OK | os.X_OK)
