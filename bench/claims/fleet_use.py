"""Ten seconds after processes have come, gone, been killed or replaced: how much of the budget is in use?

All members have more clients than connections. In use is a connection that runs a statement or has a transaction open,
on the average of 0.6 s. The play is that of `fleet_line`.
"""

from collections.abc import Sequence

from bench.context import Context
from bench.fleets import play
from bench.report import Line, Result, at_least, figure
from penstock.drill.scaleout_result import ENOUGH, Change, ScaleOutResult

CLAIM = "what a fleet uses of its budget 10 s after a change"
BAR = f">= {ENOUGH:g} of the budget"


def run(ctx: Context) -> Result:
    results = play(ctx)
    changes = list(zip(*(_changes(result) for result in results), strict=False))
    ready = max(result.ready_after(1.0) or 0.0 for result in results)
    half = max(result.ready_after(0.5) or 0.0 for result in results)
    never = sum(result.not_ready for result in results)
    return [
        *(at_least(f"in use 10 s after: {_name(same)}", min(share for _, share in same), ENOUGH) for same in changes),
        Line(
            "from a process's start to its first connection: half of them, all",
            f"{figure(half)} s, {figure(ready)} s, {never} never",
            "",
            "",
            "",
            None,
        ),
    ]


def _changes(result: ScaleOutResult) -> list[tuple[Change, float]]:
    return [(change, result.share_in(change)) for change in result.changes]


def _name(same: Sequence[tuple[Change, float]]) -> str:
    return same[0][0].label
