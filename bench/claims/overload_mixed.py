"""As `overload`, at 3x, where nine requests in ten take 5 ms and one takes 100 ms, and no pool knows which.

Useful answers count with their work, so that to answer the short ones only would not look like more.
"""

from bench.claims.overload import OURS, PEERS, TUNED, answers, generator, tuned
from bench.context import Context
from bench.overload_rounds import compare, tasks
from bench.overloaded import DEADLINE, mixed
from bench.report import Result

CLAIM = f"3x of what the database can do, nine in ten take 5 ms, one 100 ms, {DEADLINE:g} s for each answer"
BAR = "useful work >= 0.95 of the capacity, >= 5x the best peer; p99 <= the deadline"

FACTOR = 3.0


def run(ctx: Context) -> Result:
    rounds, seconds = (1, 4.0) if ctx.quick else (3, 6.0)
    contestants = {name: tasks(ctx.dsn, opened, mixed) for name, opened in (OURS | PEERS | TUNED).items()}
    found = compare(ctx, contestants, mixed, [FACTOR], rounds, seconds)[FACTOR]
    what = f"{FACTOR:g}x overload, mixed work"
    return [
        *(line for name in OURS for line in answers(what, name, found, ratio=True)),
        tuned(what, found),
        generator(what, found),
    ]
