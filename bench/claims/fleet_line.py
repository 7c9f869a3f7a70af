"""From 1 process to 50 and back, some killed, some cut off, all replaced: does the fleet's total ever pass the budget?

The server would let in far more, so that nothing but the fleet holds the line. What is shorter than the time between
two looks may be missed; how long that was stands in the line.
"""

from bench.context import Context
from bench.fleets import play
from bench.report import Line, Result

CLAIM = "a fleet's total while its processes come and go, looked at every 10 ms"
BAR = "0 looks above the budget"


def run(ctx: Context) -> Result:
    results = play(ctx)
    looks, above = sum(len(result.samples) for result in results), sum(result.above for result in results)
    peak, budget = max(result.peak for result in results), results[0].line
    gap = max(result.gap(0.99) for result in results) * 1000
    lost, requests = sum(result.lost for result in results), sum(result.requests for result in results)
    return [
        Line(
            f"1 to 50 processes and back, budget {budget}: looks above it (99 % within {gap:.0f} ms of the one before)",
            f"{above} of {looks:,}, at most {peak}",
            "",
            "",
            "0",
            above == 0 and all(result.samples for result in results),  # who has not looked has seen nothing
        ),
        Line(
            "the same: requests lost, of processes that were not cut off", f"{lost} of {requests:,}", "", "", "", None
        ),
    ]
