"""What deadlines, admission, priorities and the breaker cost a checkout that meets none of them.

Each contestant is a process of its own, because the one without them is another Penstock: the last commit before they
came, taken out of git. Processes differ by their memory's layout alone; so there are several of each, and a second one
of the old kind that shows how much of a difference means nothing.
"""

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import IO

from bench.context import Context
from bench.overload_rounds import rotated
from bench.report import Line, Result

CLAIM = "an uncontended checkout, with and without what overload protection adds"
BAR = "<= 5 % more"

BEFORE = "6393b58"
ROOT = Path(__file__).resolve().parents[2]
NOW = ROOT / "src"
WORKER = ROOT / "bench" / "checkouts.py"
LAUNCHES, ROUNDS = 7, 9
SECONDS = 0.08  # that a turn lasts
BAR_PERCENT = 5.0
SHELLS = ("threads", "asyncio")


class Worker:
    """A process with one Penstock, used in one way, when it is told to."""

    def __init__(self, source: Path, dsn: str, kind: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER), dsn, kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(source)},
            text=True,
        )
        module, protected = json.loads(self._read())
        assert Path(module).is_relative_to(source), f"{module} is measured in place of {source}"
        assert protected is (source == NOW), f"{module} is not of the time that it is taken for"

    def microseconds(self, shell: str, cycles: int) -> float:
        """The time of a checkout, over so many of them."""
        self._pipe(self._process.stdin).write(json.dumps([shell, cycles]) + "\n")
        self._pipe(self._process.stdin).flush()
        return float(json.loads(self._read())) / cycles * 1e6

    def stop(self) -> None:
        """End it, in order if it still listens."""
        self._pipe(self._process.stdin).close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._pipe(self._process.stdout).close()

    def _read(self) -> str:
        line = self._pipe(self._process.stdout).readline()
        if not line:
            raise RuntimeError("the process that was measured has ended; what it said is above")
        return line

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None  # all are pipes
        return pipe


@contextmanager
def before() -> Iterator[Path | None]:
    """The sources of the last commit without overload protection; None where there is no git to have them from."""
    try:
        archive = subprocess.run(
            ["git", "-C", str(ROOT), "archive", BEFORE, "src"], capture_output=True, check=True, timeout=30
        )
    except (OSError, subprocess.CalledProcessError):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="penstock-before-") as folder:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
            tar.extractall(folder, filter="data")
        yield Path(folder, "src")


# In every way that a pool is used; None: by the commit before.
CONTESTANTS = {
    "before": None,
    "before, again": None,
    "plain": "plain",
    "overload=": "overload=",
    "one deadline": "one deadline",
    "deadline": "deadline",
}


def run(ctx: Context) -> Result:
    with before() as source:
        if source is None:
            return [Line("cost of admission", "not measured", f"no git with commit {BEFORE}", "", BAR, None)]
        launches = [_launch(ctx, source) for _ in range(2 if ctx.quick else LAUNCHES)]
    return [
        line
        for shell in SHELLS
        for line in _lines(
            shell, {name: median(each[shell, name] for each in launches) for name in CONTESTANTS}, launches
        )
    ]


Figures = dict[tuple[str, str], float]


def _launch(ctx: Context, source: Path) -> Figures:
    """Microseconds by shell and contestant, of one set of processes: the least, as other things only ever add to it."""
    with ExitStack() as stack:
        workers = {}
        for name, kind in CONTESTANTS.items():
            workers[name] = Worker(NOW if kind else source, ctx.dsn, kind or "plain")
            stack.callback(workers[name].stop)
        found: Figures = {}
        for shell in SHELLS:
            cycles = {
                name: round(SECONDS * 1e6 / worker.microseconds(shell, 2_000)) for name, worker in workers.items()
            }
            turns: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
            for number in range(ROUNDS):
                for name in rotated(list(CONTESTANTS), number):
                    turns[name].append(workers[name].microseconds(shell, cycles[name]))
            found |= {(shell, name): min(each) for name, each in turns.items()}
        return found


def _lines(shell: str, middle: dict[str, float], launches: list[Figures]) -> Iterator[Line]:
    old = middle["before"]
    noise = sorted(each[shell, "before, again"] / each[shell, "before"] - 1 for each in launches)
    for name, words in _WORDS.items():
        more = [each[shell, name] / each[shell, "before"] - 1 for each in launches]
        percent = median(more) * 100
        yield Line(
            f"uncontended checkout, {shell}, {words}",
            f"{middle[name]:.2f} us",
            f"before: {old:.2f} us (another process of it: {noise[0]:+.1%} to {noise[-1]:+.1%})",
            f"{percent:+.1f} %",
            "" if "deadline" in name else f"<= {BAR_PERCENT:g} %",
            None if "deadline" in name else percent <= BAR_PERCENT,
        )


_WORDS = {
    "plain": "nothing declared",
    "overload=": "with overload=",
    "one deadline": "within a declared deadline",
    "deadline": "and each declares its own",
}
