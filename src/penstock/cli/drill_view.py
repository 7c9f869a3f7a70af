"""How a drill looks in a terminal: a live table while it runs, the verdict at the end."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from penstock.drill.arms import Arm
    from penstock.drill.conduct import Outcome
    from penstock.drill.result import Result
    from penstock.drill.scenario import Scenario
    from penstock.drill.server import Server

BAR_CELLS = 24


class View(Protocol):
    """What shows a drill while it runs."""

    def scenario(
        self, scenario: "Scenario", arms: "Sequence[type[Arm]]", server: "Server"
    ) -> AbstractContextManager[None]:
        """Show `scenario` inside the block."""

    def watch(self, result: "Result", seconds: float) -> None:
        """Take notice of the running arm's figures, `seconds` after its load began."""


class Plain:
    """Lines without control codes, one when an arm begins; nothing at all when `silent`."""

    def __init__(self, console: Console, *, silent: bool) -> None:
        self._console = console
        self._silent = silent
        self._seen: set[str] = set()

    @contextmanager
    def scenario(self, scenario: "Scenario", arms: "Sequence[type[Arm]]", server: "Server") -> Iterator[None]:
        """Say what begins."""
        self._seen.clear()
        self._say(_headline(scenario, server))
        yield

    def watch(self, result: "Result", seconds: float) -> None:
        """Say which arm runs."""
        if result.arm.name not in self._seen:
            self._seen.add(result.arm.name)
            self._say(f"  running for {result.seconds:g} s: {result.arm.title}")

    def _say(self, line: str) -> None:
        if not self._silent:
            self._console.print(line, markup=False, soft_wrap=True)


class _LiveView:
    """A table that follows the figures, and a progress bar over all arms."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._results: dict[str, Result] = {}

    @contextmanager
    def scenario(self, scenario: "Scenario", arms: "Sequence[type[Arm]]", server: "Server") -> Iterator[None]:
        """Keep the table on the screen inside the block."""
        self._arms = arms
        self._results = {}
        percentage = TextColumn("{task.percentage:>3.0f} %")
        self._progress = Progress(TextColumn("{task.description}"), BarColumn(), percentage, console=self._console)
        self._task = self._progress.add_task(scenario.name, total=scenario.seconds * len(arms))
        self._console.print(_headline(scenario, server), markup=False)
        with Live(console=self._console, refresh_per_second=8, transient=True) as self._live:
            yield

    def watch(self, result: "Result", seconds: float) -> None:
        """Redraw."""
        self._results[result.arm.name] = result
        done = (len(self._results) - 1) * result.seconds + min(seconds, result.seconds)
        self._progress.update(self._task, completed=done)
        self._live.update(Group(self._table(result), self._progress))

    def _table(self, running: "Result") -> Table:
        table = Table(box=box.SIMPLE_HEAD)
        for name in ("arm", "requests", "ok", "errors", "held now", "at most"):
            table.add_column(name, justify="left" if name == "arm" else "right")
        table.add_column("connections | line")
        for arm in self._arms:
            result = self._results.get(arm.name)
            if result is None:
                table.add_row(arm.title, *["·"] * 5, style="dim")
            else:
                table.add_row(*_live_row(result), style="bold" if result is running else "")
        return table


def live(console: Console) -> View:
    """Return the view for a terminal."""
    return _LiveView(console)


def show_verdict(console: Console, outcome: "Outcome") -> None:
    """Print the verdict table, and one sentence for each arm."""
    from penstock.drill.verdict import sentence

    if console.is_terminal:
        console.print(_verdict_table(outcome))
    else:
        console.print(_plain_table(outcome), soft_wrap=True)
    for result in outcome.results:
        sign, style = ("✗", "red") if result.crossed or result.lost else ("✓", "green")
        line = Text(f"{sign} ", style).append(f"{result.arm.title}: ", "bold").append(sentence(result), "default")
        console.print(line, soft_wrap=not console.is_terminal)
    console.print()


def _headline(scenario: "Scenario", server: "Server") -> str:
    return (
        f"{scenario.title}: {scenario.clients} clients in {scenario.instances} instances; {server.version}, "
        f"max_connections {server.max_connections}, {server.reserved} reserved, so the line is {server.line}."
    )


def _live_row(result: "Result") -> list[str | Text]:
    errors = Text(f"{result.lost:,}", "red" if result.lost else "")
    peak = Text(f"{result.peak}", "red" if result.crossed else "")
    title, requests, ok = result.arm.title, f"{result.requests:,}", f"{result.ok:,}"
    return [title, requests, ok, errors, str(result.held), peak, _bar(result)]


def _bar(result: "Result") -> Text:
    top = max(1, round(result.line * 1.25))
    line = round(BAR_CELLS * result.line / top)
    filled = min(BAR_CELLS, round(BAR_CELLS * result.held / top))
    bar = Text()
    for cell in range(BAR_CELLS):
        if cell == line:
            bar.append("|", "yellow")
        bar.append("█" if cell < filled else " ", "red" if cell >= line else "cyan")
    return bar


def _verdict_table(outcome: "Outcome") -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name in ("arm", "errors by kind") else "right")
    for row in _rows(outcome):
        table.add_row(*row)
    return table


def _plain_table(outcome: "Outcome") -> Text:
    # As wide as it needs to be: a file or a pipe has no margin.
    rows = [list(_COLUMNS), *_rows(outcome)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return Text("\n".join(lines))


_COLUMNS = ("arm", "requests", "ok", "held / line", "p50 ms", "p99 ms", "useful", "by retry", "errors by kind")


def _rows(outcome: "Outcome") -> list[list[str]]:
    from penstock.drill.verdict import percent

    return [
        [
            result.arm.title,
            f"{result.requests:,}",
            f"{result.ok:,}",
            f"{result.peak} / {result.line}",
            _ms(result.p50_ms),
            _ms(result.p99_ms),
            percent(result.useful_share),
            f"{result.retried:,}",
            ", ".join(f"{number:,} {kind}" for kind, number in result.errors.items()) or "none",
        ]
        for result in outcome.results
    ]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
