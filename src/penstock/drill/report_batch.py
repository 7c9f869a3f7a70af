"""What the report says of a job: its table, its settings, and the chart of what was saved when."""

from collections.abc import Callable
from html import escape
from typing import Any

from penstock.drill import charts
from penstock.drill.cells import grade, held_of_line
from penstock.drill.charts import Frame
from penstock.drill.verdict import duration

Arm = dict[str, Any]


def settings(scenario: dict[str, Any]) -> str:
    """Return how it was played, in a paragraph."""
    given = scenario["settings"]["batch"]
    api = given["api"]
    kills = " and ".join(f"{100 * share:.0f} %" for share in given["kills"])
    return (
        f"{given['items']:,} users. An API over real HTTP, in a process of its own, answers after "
        f"{1000 * api['latency']:g} ms. Of the first requests for each user one in {api['failing']:,} is answered with "
        f"500, one in {api['limited']:,} with 429 and Retry-After: {api['retry_after']}, and one in "
        f"{api['hanging']:,}, the first of them that for user {api['hangs_first']:,}, never. The table has no key: who "
        "is saved twice is there twice. penstock.batch runs to its end, and is killed with SIGKILL and started again "
        f"when {kills} of the users are saved. The naive loop is killed and started again after "
        f"{given['killed_at']} users, and shown until it stands still ({scenario['settings']['seconds']:g} s at most); "
        "how long it would take for all is reckoned from the pace that it had, as if it met no answer that never comes."
    )


def _for_all(arm: Arm) -> str:
    found = arm["batch"]
    if found["seconds_for_all"] is None:
        return "-"
    return duration(found["seconds_for_all"]) + ("" if found["complete"] else " (reckoned)")


def _stood(arm: Arm) -> str:
    still = arm["batch"]["stood_still"]
    return grade(f"for the last {still:.1f} s" if still else "no", good=not still)


COLUMNS: dict[str, Callable[[Arm], str]] = {
    "users saved": lambda arm: f"{arm['batch']['distinct']:,} of {arm['batch']['items']:,}",
    "rows too many": lambda arm: grade(f"{arm['batch']['twice']:,}", good=not arm["batch"]["twice"]),
    "passed by and lost": lambda arm: grade(f"{arm['batch']['gone']:,}", good=not arm["batch"]["gone"]),
    "stood still": _stood,
    "users/s": lambda arm: f"{arm['batch']['per_second']:,.0f}",
    "time for all": _for_all,
    "held / line": held_of_line,
}


def frame(scenario: dict[str, Any], seconds: float) -> Frame:
    """Return the plane of every arm's chart."""
    return Frame(seconds, 1.05 * scenario["settings"]["batch"]["items"])


def figure(arm: Arm, plane: Frame) -> str:
    """Return the chart of what was saved."""
    key = '<span><span class="key held-key"></span>users saved</span>'
    told = "".join(f"<p>{escape(said)}</p>" for said in arm["batch"]["errors_told"])
    return f"<figure>{charts.saved(arm, plane)}<figcaption>{key}</figcaption></figure>{told}"
