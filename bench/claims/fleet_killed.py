"""A busy member is killed with SIGKILL: how long until others use what it had?

Eight members share 24 connections; time counts until the fleet has as many as before, but for the one that is kept for
whoever comes in its place. And the third of the 50 processes
that is killed in the play of `fleet_line`, until nine tenths of what they had is in use.
"""

from bench.context import Context
from bench.fleets import Fleet, fleet, play
from bench.report import Line, Result, at_most, duration
from penstock.drill.scaleout_result import REUSED_SECONDS

CLAIM = "a killed member's share, until others use it"
BAR = f"<= {REUSED_SECONDS:g} s"

BUDGET, MEMBERS = 24, 8
ROUNDS, QUICK_ROUNDS = 5, 2
PATIENCE = 30.0
SETTLE = 12.0


def run(ctx: Context) -> Result:
    with fleet(BUDGET, MEMBERS, 3 * BUDGET) as found:
        found.join(MEMBERS)
        took = [_killed(ctx, found) for _ in range(QUICK_ROUNDS if ctx.quick else ROUNDS)]
    thirds = [result.reused_after for result in play(ctx)]
    third = max(float("inf") if after is None else after for after in thirds)
    all_of_them = ", ".join(duration(one) for one in took)
    return [
        at_most(f"1 of {MEMBERS} killed: its share in use again after ({all_of_them})", max(took), REUSED_SECONDS, "s"),
        Line(
            "a third of 50 killed: nine tenths of their shares in use again after",
            duration(third),
            "",
            "",
            f"<= {REUSED_SECONDS:g} s",
            third <= REUSED_SECONDS,
        ),
    ]


def _killed(ctx: Context, found: Fleet) -> float:
    found.go_on(SETTLE)
    before = found.held
    found.replicas.kill(found.replicas.ready[:1])
    gone = found.until(lambda: found.held < before, 5.0)
    took = gone + found.until(lambda: found.held >= before - 1, PATIENCE)
    ctx.say(f"{before} connections before, all of them but one again after {took:.1f} s")
    found.join(1)
    return took
