"""A job over 50,000 items and an API that takes 20 ms: killed five times, beside the naive loop, and left alone.

The API (`penstock.drill.api`) is a process of its own, over real HTTP on loopback; now and then it answers 500 or 429,
or never. The loop is the drill's: one after the other, a connection each, held over the call. Its pace is what it saved
while it saved: the starts of its processes, and what it stood still for, are not counted against it. Ours is all items
by all of the time, kills and new starts included.
"""

from statistics import mean

from bench.context import Context
from bench.report import Line, Result, at_least, at_most, duration, figure
from penstock.drill import batch
from penstock.drill.arms.arm import Arm
from penstock.drill.arms.naive_loop import NaiveLoop
from penstock.drill.arms.penstock_batch import PenstockBatch
from penstock.drill.batch_result import BatchResult
from penstock.drill.server import Server, embedded
from penstock.drill.shape import Batch

CLAIM = "50,000 items through an API of 20 ms: once each, whatever kills the job, and how fast"
BAR = "exactly once, >= 20x"

ITEMS, QUICK_ITEMS = 50_000, 12_000
KILLS = 5
POOL = 10  # connections that ours may have
NAIVE_SECONDS = 60.0  # at most: it ends when it stands still
TIMES, GROWTH = 20.0, 4.0  # MiB, from when a tenth of the items is saved
MIB = 2**20


def run(ctx: Context) -> Result:
    items = QUICK_ITEMS if ctx.quick else ITEMS
    killed = Batch(items=items, kills=tuple(number / (KILLS + 1) for number in range(1, KILLS + 1)))
    with embedded(20) as server:
        before = _play(ctx, server, NaiveLoop, killed)
        ours = _play(ctx, server, PenstockBatch, killed)
        after = _play(ctx, server, NaiveLoop, killed)
        alone = _play(ctx, server, PenstockBatch, Batch(items=items, kills=()))
    naive = mean([before.per_second, after.per_second])
    once = ours.complete and ours.distinct == items and not ours.twice and len(ours.marks) == KILLS
    found = f"{ours.distinct:,} items in {ours.rows:,} rows, {ours.failed_items} given up"
    theirs = (
        f"naive loop {figure(before.per_second)} and {figure(after.per_second)} /s (all: {duration(items / naive)})"
    )
    return [
        Line(f"{items:,} items, killed {len(ours.marks)} times: saved", found, "", "", "each once", once),
        at_least("items a second, kills included / naive loop", ours.per_second / naive, TIMES, "x", theirs),
        at_least("items a second, not killed / naive loop", alone.per_second / naive, TIMES, "x", theirs),
        at_most(f"connections of {POOL}, {len(ours.samples):,} looks", max(ours.peak, alone.peak), POOL, ""),
        at_most("memory from a tenth of the items to the last, growth", _growth(alone), GROWTH, "MiB"),
    ]


def _play(ctx: Context, server: Server, arm: type[Arm], shape: Batch) -> BatchResult:
    result = BatchResult(
        arm=arm,
        line=POOL,
        pool_size=POOL,
        instances=1,
        deadline=0.0,
        seconds=NAIVE_SECONDS,
        items=shape.items,
    )
    batch.run(result, shape, server, lambda result, now: None)
    ctx.say(f"{arm.title}: {result.rows:,} rows, {figure(result.per_second)} /s, killed {len(result.marks)} times")
    return result


def _growth(result: BatchResult) -> float:
    """MiB."""
    started = next(at for at, rows in result.progress if rows >= result.items / 10)
    early = max(used for at, used in result.memory if at <= started)
    return (max(used for _, used in result.memory) - early) / MIB
