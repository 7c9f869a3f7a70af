"""The audit of files that are broken, tangled, or no Python at all: it ends soon and says what it did not read."""

import time
from collections import Counter
from pathlib import Path

from bench.context import Context
from bench.mutants import files, mutants
from bench.report import Line, Result, at_most
from penstock.audit.files import Found
from penstock.audit.run import run as judge

CLAIM = "`penstock audit` on 10,000 mutated files: no crash, no file takes long"
BAR = "no crash, <= 1 s a file"

COUNT = 10_000
SEEDS = sorted((Path(__file__).parents[2] / "tests/audit").glob("*/*.py"))


def run(ctx: Context) -> Result:
    count = COUNT // 20 if ctx.quick else COUNT
    slowest, failed, outcomes = 0.0, 0, Counter[str]()
    for number, data in enumerate(mutants(count, files(SEEDS), seed=11)):
        started = time.process_time()
        entry = judge([Found(Path("mutant.py"), "mutant.py", data=data)], jobs=1).entries["mutant.py"]
        slowest = max(slowest, time.process_time() - started)
        outcomes["unread" if entry.unread else "findings" if entry.findings else "nothing"] += 1
        if any("mistake of Penstock's" in note.why for note in entry.unread):
            failed += 1
            ctx.say(f"mutant {number}: {entry.unread}")
    told = ", ".join(f"{number:,} {what}" for what, number in outcomes.most_common())
    return [
        Line("audit: mutated files it failed on", f"{failed} of {count:,} ({told})", "", "", "none", failed == 0),
        at_most("audit: the mutated file that took longest", slowest, 1, "s of CPU"),
    ]
