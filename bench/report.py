"""What a claim hands back, and the one table that all of them end in."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

COLUMNS = ("claim", "ours", "peers", "ratio", "bar", "met")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table. `met` is None where there is no bar, only something to know."""

    claim: str
    ours: str
    peers: str
    ratio: str
    bar: str
    met: bool | None

    def cells(self) -> tuple[str, ...]:
        """The line as text, one string a column."""
        return (self.claim, self.ours, self.peers, self.ratio, self.bar, _MET[self.met])


_MET: dict[bool | None, str] = {True: "yes", False: "NO", None: ""}

Result = list[Line]


def times(claim: str, ours: float, peers: Mapping[str, float], bars: Mapping[str, float], unit: str) -> Result:
    """One line a bar: how many times smaller our figure is than that peer's. For figures where less is better."""
    return [
        Line(
            f"{claim} / {peer}",
            f"{figure(ours)} {unit}",
            f"{figure(peers[peer])} {unit}",
            f"{peers[peer] / ours:.1f}x",
            f">= {bar:g}x",
            peers[peer] / ours >= bar,
        )
        for peer, bar in bars.items()
    ]


def beats_best(claim: str, ours: float, peers: Mapping[str, float], bar: float, unit: str) -> Line:
    """Our figure against the best peer's. For figures where more is better."""
    ratio = ours / max(peers.values())
    return Line(claim, f"{figure(ours)} {unit}", listed(peers, unit), f"{ratio:.2f}x", f">= {bar:g}x", ratio >= bar)


def at_most(claim: str, ours: float, bar: float, unit: str, peers: str = "") -> Line:
    """Our figure against a fixed upper bound."""
    return Line(claim, f"{figure(ours)} {unit}".strip(), peers, "", f"<= {bar:g} {unit}".strip(), ours <= bar)


def at_least(claim: str, ours: float, bar: float, unit: str = "", peers: str = "") -> Line:
    """Our figure against a fixed lower bound."""
    return Line(claim, f"{figure(ours)} {unit}".strip(), peers, "", f">= {bar:g} {unit}".strip(), ours >= bar)


def listed(peers: Mapping[str, float], unit: str = "") -> str:
    """Every peer with its figure, in one cell."""
    return ", ".join(f"{name} {figure(value)}" for name, value in peers.items()) + (f" {unit}" if unit else "")


def figure(value: float) -> str:
    """A number with as many digits as mean something."""
    if value != value or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def duration(seconds: float) -> str:
    """A time, in the unit that suits it."""
    return f"{figure(seconds)} s" if seconds >= 1 else f"{figure(seconds * 1e3)} ms"


def show(lines: Iterable[Line], console: Console) -> None:
    """Print the table to a terminal."""
    table = Table(*COLUMNS, show_lines=True)
    for line in lines:
        table.add_row(*line.cells(), style="red" if line.met is False else None)
    console.print(table)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
