"""`penstock audit` on SQLAlchemy, as installed: anew, from its cache, and how much memory more of the same takes.

The figures are of CPU time, so that they are a core's, whatever else the machine does.
"""

import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from bench.context import Context
from bench.report import Line, Result, at_least

CLAIM = "`penstock audit` on SQLAlchemy: lines a second of one core, anew and from the cache; memory"
BAR = ">= 40,000 lines/s, >= 10x that from the cache; ten times the files in less than twice the memory"

ROUNDS = 3

# Each in an interpreter of its own: what one left in memory is not the next one's. The time is that of the whole
# question, reading and writing the cache included; importing what it needs is not.
SCRIPT = """
import json, resource, sys, time
from pathlib import Path
from penstock.audit.check import Asked, check
from penstock.audit.settings import Settings

root, paths = Path(sys.argv[1]), [Path(one) for one in sys.argv[2:]]
started = time.process_time()
report = check(Asked(paths, Settings(root), jobs=1))
print(json.dumps([report.lines / (time.process_time() - started), report.lines,
                  resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def run(ctx: Context) -> Result:
    spec = find_spec("sqlalchemy")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    anew, again = [], []
    for _ in range(1 if ctx.quick else ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            anew.append(_audit(folder, package))
            again.append(_audit(folder, package))
    speed, lines, memory = median(one[0] for one in anew), anew[0][1], median(one[2] for one in anew)
    cached = median(one[0] for one in again)
    ratio = cached / speed
    return [
        at_least(f"audit: anew, {lines:,} lines", speed, 40_000, "lines/s"),
        Line("audit: from the cache", f"{cached:,.0f} lines/s", "", f"{ratio:.0f}x", ">= 10x", ratio >= 10),
        _memory(package, memory),
    ]


def _memory(package: Path, once: float) -> Line:
    with tempfile.TemporaryDirectory() as folder:
        copies = [Path(folder, f"copy{number}") for number in range(10)]
        for copy in copies:
            copy.symlink_to(package)
        _, lines, memory = _audit(folder, *copies)
    ours = f"{memory:.0f} MB for {lines:,} lines, {once:.0f} MB for a tenth of them"
    return Line("audit: memory", ours, "", f"{memory / once:.1f}x", "< 2x", memory < 2 * once)


def _audit(folder: str, *paths: Path) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, folder, *map(str, paths)], capture_output=True, check=True, text=True
    )
    return json.loads(done.stdout)
