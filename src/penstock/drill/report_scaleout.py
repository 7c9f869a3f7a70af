"""What the report says of processes that come and go: its table, its settings, its chart, and what each change did."""

from collections.abc import Callable
from html import escape
from typing import Any

from penstock.drill import charts
from penstock.drill.cells import LOST_BY_KIND, grade, held_of_line, lost_by_kind
from penstock.drill.charts import Frame
from penstock.drill.scaleout_result import ENOUGH
from penstock.drill.verdict import percent

Arm = dict[str, Any]


def settings(scenario: dict[str, Any]) -> str:
    """Return how it was played, in a paragraph."""
    given = scenario["settings"]
    play = given["scale_out"]
    return (
        f"A budget of {play['budget']} connections for all processes: that is the line here, and the server, which "
        f"has others to serve too, would let more in. {given['clients']} clients who never pause are shared out evenly "
        "among the processes that are ready. A request holds its connection for "
        f"{1000 * given['slow_seconds']:g} ms, in a statement. After each change all is left alone for "
        f"{play['settle']:g} s; then what is in use is looked at. "
        "First there is one process. Then all the others start at once; a third are killed with SIGKILL; a fifth of "
        "those that were started are cut off from the server by a proxy, and meanwhile a rolling deploy replaces all "
        f"the others, up to {play['surge']} more than there were at a time, and them once the network is back; and in "
        "the end all but one stop. An arm that does not know of the other processes is shown until all have started. "
        "Answers of the processes that are to be cut off are counted apart."
    )


def _in_use(arm: Arm) -> str:
    changes = arm["scale_out"]["changes"]
    if not changes:
        return "-"
    return grade(percent(min(change["share"] for change in changes)), good=all(change["enough"] for change in changes))


def _reused(arm: Arm) -> str:
    found = arm["scale_out"]
    if not found["killed"]:
        return "-"
    after = found["reused_after"]
    return grade("never" if after is None else f"{after:.1f} s", good=found["reused_good"])


def _ready(arm: Arm) -> str:
    found = arm["scale_out"]
    if found["ready_after_p50"] is None:
        return "-"
    return f"{found['ready_after_p50']:.1f} / {found['ready_after_worst']:.1f} s"


COLUMNS: dict[str, Callable[[Arm], str]] = {
    "requests": lambda arm: f"{arm['requests']:,}",
    "held / line": held_of_line,
    "looks above": lambda arm: grade(
        f"{arm['scale_out']['above']:,} of {arm['scale_out']['looks']:,}", good=not arm["scale_out"]["above"]
    ),
    "in use, least": _in_use,
    "killed share used again": _reused,
    "ready after p50 / worst": _ready,
    "never ready": lambda arm: grade(f"{arm['scale_out']['not_ready']}", good=not arm["scale_out"]["not_ready"]),
    LOST_BY_KIND: lost_by_kind,
}


def figure(arm: Arm, plane: Frame) -> str:
    """Return the chart of how many processes there were, and under it what each change came to."""
    found = arm["scale_out"]
    most, worst = found["look_p99_ms"], found["look_worst_ms"]
    looks = f"looks: 99 % within {most:.0f} ms of the one before, all within {worst:.0f} ms"
    key = '<span><span class="key held-key"></span>processes, those that are stopping included</span>'
    chart = charts.processes(arm, plane)
    return f"<figure>{chart}<figcaption>{key}<span>{looks}</span></figcaption></figure>{_changes(found['changes'])}"


def _changes(changes: list[dict[str, Any]]) -> str:
    if not changes:
        return ""
    names = ("after", "processes", "connections", "in use", f"of the budget (enough: {percent(ENOUGH)})")
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = "".join(
        f"<tr><td>{escape(change['label'])}</td><td>{change['members']}</td><td>{change['held']:g}</td>"
        f"<td>{change['in_use']:g}</td><td>{grade(percent(change['share']), good=change['enough'])}</td></tr>"
        for change in changes
    )
    return f'<div class="changes"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
