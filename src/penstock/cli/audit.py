"""`penstock audit`: what in the code makes a service run out of connections."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated, NoReturn

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.text import Text

from penstock.audit import baseline, mend, settings
from penstock.audit.audit import RULES
from penstock.audit.check import Asked, Report, check
from penstock.audit.pages import page
from penstock.audit.report import github, json, junit, sarif, text
from penstock.errors import AuditError

NOTHING, FINDINGS, USAGE = 0, 1, 2

_WHAT = "What is read, and what of it is told"
_HOW = "How it is told"
_MENDED = "What is mended"


class Form(StrEnum):
    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"
    GITHUB = "github"
    JUNIT = "junit"


def audit(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files and directories; by default this directory; - is a file on standard input. "
            "`explain PEN101` prints the page of a rule."
        ),
    ] = None,
    select: Annotated[
        list[str] | None, typer.Option(rich_help_panel=_WHAT, help="Only this rule or family, such as PEN1.")
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option(rich_help_panel=_WHAT, help="Not this rule or family.")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(rich_help_panel=_WHAT, help="Leave out what is at this pattern as well.")
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_WHAT,
            help="The pooler in front of the database, such as PgBouncer, works in this mode: transaction, ...",
        ),
    ] = None,
    hints: Annotated[
        bool, typer.Option("--hints", rich_help_panel=_WHAT, help="Tell hints too; the exit status counts none.")
    ] = False,
    changed: Annotated[
        str | None,
        typer.Option(
            metavar="REVISION",
            rich_help_panel=_WHAT,
            help="Only what is wrong since this revision of git, such as HEAD or main; all is read.",
        ),
    ] = None,
    baseline_file: Annotated[
        Path | None,
        typer.Option("--baseline", rich_help_panel=_WHAT, help="Only what is not in this file yet."),
    ] = None,
    write_baseline: Annotated[
        bool,
        typer.Option(
            "--write-baseline", rich_help_panel=_WHAT, help="Write what is found now to the baseline, and end."
        ),
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=_WHAT,
            help="A pyproject.toml with [tool.penstock.audit]; by default the nearest one from here up.",
        ),
    ] = None,
    fix: Annotated[
        bool, typer.Option("--fix", rich_help_panel=_MENDED, help="Mend what can be mended safely; tell the rest.")
    ] = False,
    unsafe: Annotated[
        bool,
        typer.Option(
            "--unsafe",
            rich_help_panel=_MENDED,
            help="With --fix or --diff: also by what changes the program, such as a timeout.",
        ),
    ] = False,
    diff: Annotated[
        bool, typer.Option("--diff", rich_help_panel=_MENDED, help="Print what --fix would change, and write nothing.")
    ] = False,
    form: Annotated[Form, typer.Option("--format", rich_help_panel=_HOW, help="How it is written.")] = Form.TEXT,
    as_json: Annotated[
        bool, typer.Option("--json", rich_help_panel=_HOW, help="Print a list of objects and nothing else.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(rich_help_panel=_HOW, help="Write it to this file instead of standard output.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0 for as many as there are cores.")] = 0,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Neither use nor keep what was found before (.penstock_cache).")
    ] = False,
) -> None:
    """Read Python code, never run it, and say where it leaks, multiplies or holds database connections.

    Exit status: 0 when nothing is found (hints do not count), 1 when something is, 2 when the question or the settings
    are wrong, or a file that was named itself cannot be read.
    """
    given = paths or []
    if given[:1] == ["explain"] and not Path("explain").exists():
        return _explain(given[1:])
    form = Form.JSON if as_json else form
    try:
        asked = _asked(given, config, baseline_file, changed, no_cache, jobs)
        asked.settings = _overruled(asked.settings, select, ignore, exclude, pooling, hints)
        if write_baseline:
            return _write(asked)
        if diff:
            return _show(asked, unsafe)
        report = _fixed(asked, unsafe) if fix else check(asked)
    except (AuditError, ValueError) as error:
        _refuse(str(error))
    for note in report.notes:
        place = f"{note.path}:{note.line}" if note.line else note.path
        typer.echo(f"penstock audit: {place}: {note.why}", err=True)
    with _written_to(output) as file:
        _print(report, form, Console(file=file, highlight=False, markup=False, emoji=False, soft_wrap=True))
    raise typer.Exit(USAGE if report.unread else FINDINGS if report.counted else NOTHING)


def _asked(
    given: list[str], config: Path | None, baseline_file: Path | None, since: str | None, no_cache: bool, jobs: int
) -> Asked:
    if "-" in given and (len(given) > 1 or since or baseline_file):
        _refuse("- is standard input: it goes alone, without --changed and --baseline")
    paths = [Path(one) for one in given] or [Path()]
    here = Path.cwd()
    found = config or settings.find(here)
    chosen = settings.Settings(here) if found is None else settings.load(found)
    if baseline_file is None and chosen.baseline is not None:
        baseline_file = chosen.root / chosen.baseline
    stdin = sys.stdin.buffer.read() if given == ["-"] else None
    return Asked(paths, chosen, stdin, None if stdin is not None else baseline_file, since, not no_cache, jobs)


def _overruled(
    chosen: settings.Settings,
    select: list[str] | None,
    ignore: list[str] | None,
    exclude: list[str] | None,
    pooling: str | None,
    hints: bool,
) -> settings.Settings:
    """What the command line says goes before what the file says."""
    if pooling is not None and pooling not in settings.POOLING:
        raise ValueError(f"--pooling is one of {', '.join(settings.POOLING)}, not {pooling}")
    return replace(
        chosen,
        select=settings.codes(select) if select else chosen.select,
        ignore=settings.codes(ignore) if ignore else chosen.ignore,
        exclude=(*chosen.exclude, *(exclude or ())),
        pooling=pooling or chosen.pooling,
        hints=hints or chosen.hints,
    )


def _write(asked: Asked) -> None:
    path, asked.baseline = asked.baseline, None
    if path is None:
        _refuse("--write-baseline needs --baseline FILE, or `baseline` in the settings, to know where")
    report = check(asked)
    baseline.write(path, report.known)
    typer.echo(f"penstock audit: {len(report.known)} findings are in {path}; from now on only new ones are told.")


def _show(asked: Asked, unsafe: bool) -> None:
    mended = _mended(asked, unsafe)
    for change in mended.changes:
        typer.echo(mend.diff(change), nl=False)
    _tell_skipped(mended)
    raise typer.Exit(FINDINGS if mended.changes else NOTHING)


def _fixed(asked: Asked, unsafe: bool) -> Report:
    """What is left when what can be mended is; the files are written."""
    if asked.stdin is not None:
        _refuse("--fix writes files, and - is none: --diff prints what would change")
    mended = _mended(asked, unsafe)
    failed = 0
    for change in mended.changes:
        why = mend.write(change)
        failed += bool(why)
        typer.echo(f"penstock audit: {change.shown}: {why or f'{len(change.applied)} fixed'}", err=True)
    _tell_skipped(mended)
    return check(asked) if failed else mended.report


def _mended(asked: Asked, unsafe: bool) -> mend.Mended:
    try:
        return mend.mend(asked, unsafe)
    except ImportError as error:
        if error.name != "libcst":
            raise
        _refuse("fixes are written with LibCST, which is not installed: pip install 'penstock[audit]'")


def _tell_skipped(mended: mend.Mended) -> None:
    for finding, why in mended.skipped:
        typer.echo(f"penstock audit: {finding.path}:{finding.line}: {finding.code} is not fixed: {why}", err=True)


def _print(report: Report, form: Form, console: Console) -> None:
    match form:
        case Form.TEXT:
            for line in text.render(report):
                console.print(Text.assemble(*line))
        case Form.GITHUB:
            for command in github.render(report):
                console.out(command, highlight=False)
        case Form.JSON:
            console.out(json.render(report), highlight=False)
        case Form.SARIF:
            console.out(sarif.render(report), highlight=False)
        case Form.JUNIT:
            console.out(junit.render(report), highlight=False)


@contextmanager
def _written_to(output: Path | None) -> Iterator[IO[str]]:
    if output is None:
        yield sys.stdout
        return
    try:
        with output.open("w", encoding="utf-8") as file:
            yield file
    except OSError as error:
        _refuse(f"--output: {output} cannot be written: {error.strerror}")


def _explain(codes: list[str]) -> None:
    console = Console(highlight=False, markup=False)
    if not codes:
        for code in sorted(RULES):
            console.print(f"{code}  {RULES[code].severity.value:<6}  {RULES[code].title}", soft_wrap=True)
        return
    for code in codes:
        rule = RULES.get(code.upper())
        if rule is None:
            _refuse(f"{code} is no rule; `penstock audit explain` lists them all")
        written = page(rule.code) or f"# {rule.code}: {rule.title}\n"
        console.print(Markdown(written) if console.is_terminal else written, soft_wrap=not console.is_terminal)


def _refuse(why: str) -> NoReturn:
    typer.echo("\n".join(f"penstock audit: {line}" for line in why.splitlines()), err=True)
    raise typer.Exit(USAGE)
