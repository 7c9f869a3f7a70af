"""How a drill looks in a terminal: a live table while it runs, the verdict at the end."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from penstock.drill.arms import Arm
    from penstock.drill.batch_result import BatchResult
    from penstock.drill.conduct import Outcome
    from penstock.drill.result import Result
    from penstock.drill.scaleout_result import ScaleOutResult
    from penstock.drill.scenario import Scenario
    from penstock.drill.server import Server

BAR_CELLS = 24
REDRAWS = 6  # of the live table in a second

Columns = dict[str, Callable[[Any], str | Text]]


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
            self._say(f"  running for {result.seconds:g} s: {result.arm.title}{_against(result)}")

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
        self._arms = list(arms)
        self._name = scenario.name
        self._columns = _live_columns(scenario)
        self._results = {}
        percentage = TextColumn("{task.percentage:>3.0f} %")
        self._progress = Progress(TextColumn("{task.description}"), BarColumn(), percentage, console=self._console)
        self._task = self._progress.add_task(scenario.name, total=scenario.seconds * len(arms))
        self._due = 0.0
        self._console.print(_headline(scenario, server), markup=False)
        with Live(console=self._console, refresh_per_second=8, transient=True) as self._live:
            yield

    def watch(self, result: "Result", seconds: float) -> None:
        """Redraw, if it is time to."""
        new = result.arm.name not in self._results
        if not new and time.monotonic() < self._due:
            return  # the figures are counted anew each time, on the machine that makes the load
        self._due = time.monotonic() + 1 / REDRAWS
        if new and result.arm not in self._arms:  # what runs before the arms: the capacity
            self._arms.insert(0, result.arm)
            self._progress.update(self._task, total=result.seconds + (self._progress.tasks[0].total or 0))
        self._results[result.arm.name] = result
        done = sum(earlier.seconds for earlier in self._results.values() if earlier is not result)
        name = f"{self._name}{_against(result)}"
        self._progress.update(self._task, description=name, completed=done + min(seconds, result.seconds))
        self._live.update(Group(self._table(result), self._progress))

    def _table(self, running: "Result") -> Table:
        table = Table(box=box.SIMPLE_HEAD)
        for name in ("arm", *self._columns, "connections | line"):
            table.add_column(name, justify="left" if name in ("arm", "connections | line") else "right")
        for arm in self._arms:
            result = self._results.get(arm.name)
            if result is None:
                table.add_row(arm.title, *["·"] * len(self._columns), style="dim")
            else:
                cells = [cell(result) for cell in self._columns.values()]
                table.add_row(arm.title, *cells, _bar(result), style="bold" if result is running else "")
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
        sign, style = ("✓", "green") if result.good else ("✗", "red")
        line = Text(f"{sign} ", style).append(f"{result.arm.title}: ", "bold").append(sentence(result), "default")
        console.print(line, soft_wrap=not console.is_terminal)
    console.print()


def _headline(scenario: "Scenario", server: "Server") -> str:
    from penstock.drill.shape import Batch, ScaleOut

    if isinstance(scenario.shape, Batch):
        return (
            f"{scenario.title}: {_load(scenario)}; {server.version}, max_connections {server.max_connections}, "
            f"{server.reserved} reserved, so the line is {server.line}."
        )
    if isinstance(scenario.shape, ScaleOut):
        return (
            f"{scenario.title}: {_load(scenario)}; {server.version}, max_connections {server.max_connections}, of "
            f"which their budget is {scenario.shape.budget}: that is the line."
        )
    return (
        f"{scenario.title}: {_load(scenario)} in {scenario.instances} instances; {server.version}, "
        f"max_connections {server.max_connections}, {server.reserved} reserved, so the line is {server.line}."
    )


def _load(scenario: "Scenario") -> str:
    from penstock.drill.shape import Batch, OpenLoop, ScaleOut

    if isinstance(scenario.shape, Batch):
        api = scenario.shape.api
        return f"{scenario.shape.items:,} users, an API that takes {1000 * api.latency:g} ms, and now and then fails"
    if isinstance(scenario.shape, ScaleOut):
        return f"from 1 to {scenario.shape.processes} processes and back"
    if isinstance(scenario.shape, OpenLoop):
        return f"{scenario.shape.overload:g} times what the database can do"
    return f"{scenario.shape.clients} clients"


def _against(result: "Result") -> str:
    from penstock.drill.overload import OverloadResult

    if isinstance(result, OverloadResult):
        return f", against a capacity of {result.spike.capacity:,.0f} requests/s"
    return ""


def _live_columns(scenario: "Scenario") -> Columns:
    from penstock.drill.shape import Batch, OpenLoop, ScaleOut

    if isinstance(scenario.shape, Batch):
        return _LIVE_BATCH
    if isinstance(scenario.shape, ScaleOut):
        return _LIVE_SCALE_OUT
    return _LIVE_OPEN if isinstance(scenario.shape, OpenLoop) else _LIVE_CLOSED


def _errors(result: "Result") -> Text:
    return Text(f"{result.lost:,}", "red" if result.lost else "")


def _at_most(result: "Result") -> Text:
    return Text(f"{result.peak}", "red" if result.crossed else "")


_LIVE_CLOSED: Columns = {
    "requests": lambda result: f"{result.requests:,}",
    "ok": lambda result: f"{result.ok:,}",
    "errors": _errors,
    "held now": lambda result: f"{result.held}",
    "at most": _at_most,
}
_LIVE_SCALE_OUT: Columns = {
    "processes": lambda result: f"{result.processes[-1][1] if result.processes else 0}",
    "last": lambda result: result.marks[-1].label if result.marks else "1",
    "requests": lambda result: f"{result.requests:,}",
    "errors": _errors,
    "held now": lambda result: f"{result.held}",
    "at most": _at_most,
}
_LIVE_BATCH: Columns = {
    "rows saved": lambda result: f"{result.rows:,} of {result.items:,}",
    "killed": lambda result: f"{len(result.marks)}",
    "held now": lambda result: f"{result.held}",
    "at most": _at_most,
}
_LIVE_OPEN: Columns = {
    "requests": lambda result: f"{result.requests:,}",
    "useful": lambda result: f"{result.useful:,}",
    "late": lambda result: f"{result.late:,}",
    "refused": lambda result: f"{result.shed:,}",
    "errors": _errors,
    "held now": lambda result: f"{result.held}",
    "at most": _at_most,
}


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
    columns = _verdict_columns(outcome)
    for name in columns:
        table.add_column(name, justify="left" if name in ("arm", "errors by kind") else "right")
    for result in outcome.results:
        table.add_row(*[cell(result) for cell in columns.values()])
    return table


def _plain_table(outcome: "Outcome") -> Text:
    # As wide as it needs to be: a file or a pipe has no margin.
    columns = _verdict_columns(outcome)
    rows = [list(columns), *[[str(cell(result)) for cell in columns.values()] for result in outcome.results]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(columns))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return Text("\n".join(lines))


def _verdict_columns(outcome: "Outcome") -> Columns:
    if outcome.scenario.name == "scale-out":
        return _SCALE_OUT
    if outcome.scenario.name == "batch":
        return _BATCH
    return _CLOSED if outcome.capacity is None else _OPEN


def _percent(share: float) -> str:
    from penstock.drill.verdict import percent

    return percent(share)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _held(result: "Result") -> str:
    return f"{result.peak} / {result.line}"


def _kinds(result: "Result") -> str:
    return ", ".join(f"{number:,} {kind}" for kind, number in result.errors.items()) or "none"


def _in_use(result: "ScaleOutResult") -> str:
    return _percent(min(map(result.share_in, result.changes))) if result.changes else "-"


def _reused(result: "ScaleOutResult") -> str:
    if not result.killed:
        return "-"
    return "never" if result.reused_after is None else f"{result.reused_after:.1f} s"


def _for_all(result: "BatchResult") -> str:
    from penstock.drill.verdict import duration

    if result.seconds_for_all is None:
        return "-"
    return duration(result.seconds_for_all) + ("" if result.complete else " (reckoned)")


def _recovery(result: "Result") -> str:
    return "not in drill" if result.recovery is None else f"{result.recovery:.2f} s"


_CLOSED: Columns = {
    "arm": lambda result: result.arm.title,
    "requests": lambda result: f"{result.requests:,}",
    "ok": lambda result: f"{result.ok:,}",
    "held / line": _held,
    "p50 ms": lambda result: _ms(result.p50_ms),
    "p99 ms": lambda result: _ms(result.p99_ms),
    "useful": lambda result: _percent(result.useful_share),
    "by retry": lambda result: f"{result.retried:,}",
    "errors by kind": _kinds,
}
_OPEN: Columns = {
    "arm": lambda result: result.arm.title,
    "offered/s": lambda result: f"{result.offered:,.0f}",
    "of capacity": lambda result: _percent(result.useful_in_spike),
    "recovered": _recovery,
    "useful": lambda result: f"{result.useful:,}",
    "late": lambda result: f"{result.late:,}",
    "refused": lambda result: f"{result.shed:,}",
    "held / line": _held,
    "errors by kind": _kinds,
}
_SCALE_OUT: Columns = {
    "arm": lambda result: result.arm.title,
    "requests": lambda result: f"{result.requests:,}",
    "held / line": _held,
    "looks above": lambda result: f"{result.above:,} of {len(result.samples):,}",
    "in use, least": _in_use,
    "killed share used again": _reused,
    "never ready": lambda result: f"{result.not_ready}",
    "errors by kind": _kinds,
}
_BATCH: Columns = {
    "arm": lambda result: result.arm.title,
    "users saved": lambda result: f"{result.distinct:,} of {result.items:,}",
    "rows too many": lambda result: f"{result.twice:,}",
    "lost": lambda result: f"{result.gone:,}",
    "stood still": lambda result: f"{result.stood_still:.1f} s" if result.stood_still else "no",
    "users/s": lambda result: f"{result.per_second:,.0f}",
    "time for all": _for_all,
    "held / line": _held,
}
