"""Programs that know nothing of Penstock, as `penstock run --watch` runs them."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUN = (sys.executable, "-c", "import sys; sys.argv[0] = 'penstock'; from penstock.cli import main; main()", "run")
SECONDS = 60


@dataclass
class Watched:
    """What became of it."""

    status: int
    output: str
    told: str
    report: dict[str, Any]

    def leaks(self) -> dict[str, dict[str, int]]:
        """By `file:line` of every line that is named, innermost first, joined by ` < `."""
        return {
            " < ".join(re.sub(r".*/| in .*", "", line) for line in site["lines"]): site["leaks"]
            for database in self.report["databases"]
            for site in database["sites"]
            if site["leaks"]
        }

    def sites(self) -> dict[str, dict[str, Any]]:
        return {
            re.sub(r".*/| in .*", "", site["lines"][0]): site
            for database in self.report["databases"]
            for site in database["sites"]
        }


def marked(program: Path, mark: str = "# leak") -> set[str]:
    """The lines that a program says of itself that they leak."""
    lines = enumerate(program.read_text().splitlines(), 1)
    return {f"{program.name}:{number}" for number, line in lines if mark in line}


def command(folder: Path, *words: str) -> list[str]:
    return [*RUN, "--watch", "--report", str(folder / "report.json"), "--", *words]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONWARNINGS": "ignore", **more}


def finished(process: subprocess.Popen[str], folder: Path) -> Watched:
    output, told = process.communicate(timeout=SECONDS)
    return Watched(process.returncode, output, told, json.loads((folder / "report.json").read_text()))


def watched(program: Path, *args: str, **env: str) -> Watched:
    """Run it to its end."""
    with started(program, *args, **env) as process:
        return finished(process, program.parent)


@contextmanager
def started(program: Path, *args: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """It is killed at the end, if it has not ended before."""
    words = command(program.parent, str(program), *args)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        words, env=environment(**env), cwd=program.parent, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
