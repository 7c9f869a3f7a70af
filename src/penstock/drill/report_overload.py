"""What the report says of an open loop: its table, its settings and its chart."""

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from penstock.drill import charts
from penstock.drill.cells import LOST_BY_KIND, grade, held_of_line, lost_by_kind
from penstock.drill.charts import Frame
from penstock.drill.kinds import SHED
from penstock.drill.overload import LATE, USEFUL
from penstock.drill.verdict import milliseconds, percent

Arm = dict[str, Any]


def settings(scenario: dict[str, Any]) -> str:
    """Return how the load was made, in a paragraph."""
    given, capacity = scenario["settings"], scenario["capacity"]
    shape = given["open_loop"]
    return (
        f"The database can do {capacity['per_second']:,.0f} of these requests a second: measured just before, with "
        f"{capacity['connections']} clients that had a connection each and never paused. Then, for each arm, the same "
        f"requests arrived by chance at {shape['normal']:g} times this rate, from {shape['begin']:g} s to "
        f"{shape['end']:g} s at {shape['overload']:g} times, and at {shape['normal']:g} times again. They are dealt "
        f"out to {given['instances']} instances, each with {shape['workers']} worker threads (asyncpg: a task for each "
        "request); who finds no thread free waits in the instance's backlog. A request runs a query and keeps its "
        f"connection for {1000 * given['elsewhere']:g} ms more; {percent(given['failing_share'])} end in an exception "
        f"of the service's own. None is tried twice. An answer is useful within {given['deadline']:g} s of the "
        "request's arrival. Penstock's arm knows that: one middleware declares "
        f"penstock.deadline({given['deadline']:g}). The others have no such thing."
    )


def _of_capacity(arm: Arm) -> str:
    return grade(percent(arm["overload"]["useful_in_spike"]), good=arm["overload"]["enough"])


def _recovery(arm: Arm) -> str:
    if arm["recovery"] is None:
        return grade("not in the drill", good=False)
    return f"{arm['recovery']:.2f} s"


def _refusals(arm: Arm) -> str:
    found = arm["overload"]
    if not found["shed"]:
        return "-"
    return f"{milliseconds(found['refusal_p50_ms'])} / {milliseconds(found['refusal_p99_ms'])}"


COLUMNS: dict[str, Callable[[Arm], str]] = {
    "requests": lambda arm: f"{arm['requests']:,}",
    "offered": lambda arm: f"{arm['overload']['offered']:,.0f}/s",
    "useful / capacity": _of_capacity,
    "recovered after": _recovery,
    "useful": lambda arm: f"{arm['useful']:,}",
    "late": lambda arm: f"{arm['overload']['late']:,}",
    "refused": lambda arm: f"{arm['overload']['shed']:,}",
    "refused within p50 / p99": _refusals,
    "held / line": held_of_line,
    LOST_BY_KIND: lost_by_kind,
}


def frame(scenario: dict[str, Any], seconds: float) -> Frame:
    """Return the plane of every arm's chart, which is `seconds` long."""
    rates = [sum(row["fates"].values()) for arm in scenario["arms"] for row in arm["overload"]["arrivals"]]
    most = max(rates, default=1) / scenario["settings"]["open_loop"]["bucket"]
    return Frame(seconds, 1.1 * max(most, scenario["capacity"]["per_second"]))


def figure(arm: Arm, scenario: dict[str, Any], plane: Frame, kinds: Sequence[str]) -> str:
    """Return the chart of what became of the requests, with its key."""
    styles = {USEFUL: "useful", LATE: "kind-1", SHED: "shed"}
    # The second colour is the late ones'.
    styles |= {kind: f"kind-{(0, 2, 3, 4, 5)[number % 5]}" for number, kind in enumerate(kinds)}
    bucket = scenario["settings"]["open_loop"]["bucket"]
    rows = [(row["at"], row["fates"]) for row in arm["overload"]["arrivals"]]
    met = {fate for _, counts in rows for fate, number in counts.items() if number}
    keys = "".join(
        f'<span><span class="key {style}"></span>{escape(fate)}</span>' for fate, style in styles.items() if fate in met
    )
    chart = charts.fates(arm, plane, rows, styles, bucket=bucket, capacity=scenario["capacity"]["per_second"])
    lag = f"99 % of it within {milliseconds(arm['overload']['lag_p99_ms'])} of its time"
    offered = f'<span><span class="key offered-key"></span>offered, {lag}</span>'
    return f"<figure>{chart}<figcaption>{offered}{keys}</figcaption></figure>"
