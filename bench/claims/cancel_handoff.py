"""A waiting task is cancelled at the very moment it is handed a connection; see `bench/handoff.py`.

Run on every interpreter from 3.11 to 3.13 that is found and has a driver: before 3.12 `asyncio.wait_for` lost such
cancellations, and a pool that relies on it does so still.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import penstock
from bench import handoff
from bench.context import Context
from bench.report import Line, Result

CLAIM = "a task cancelled at the hand-off, on every interpreter found"
BAR = "0 cancels swallowed, 0 slots lost"

VERSIONS = ("3.11", "3.12", "3.13")
ROOT = Path(__file__).parents[2]
LIMIT = 60.0  # seconds for one contestant on one interpreter


def run(ctx: Context) -> Result:
    lines = []
    for version in VERSIONS:
        python = _interpreter(version)
        if python is None:
            ctx.say(f"Python {version} with psycopg: not found, skipped")
            continue
        mine = ask(python, "Penstock", ctx.dsn)
        peers = {name: ask(python, name, ctx.dsn) for name in handoff.CONTESTANTS if name != "Penstock"}
        lines.append(
            Line(
                f"cancelled at the hand-off, Python {version}: swallowed, lost",
                _told(mine) if mine else "failed",
                ", ".join(f"{name} {_told(found)}" for name, found in peers.items() if found),
                "",
                "0, 0",
                mine is not None and mine["cancelled"] > 0 and mine["swallowed"] == mine["lost"] == 0,
            )
        )
    return lines


def _told(found: dict[str, int]) -> str:
    return f"{found['swallowed']}, {found['lost']} of {found['cancelled']}"


def _interpreter(version: str) -> str | None:
    return next((python for python in _candidates(version) if _works(python, version)), None)


def _candidates(version: str) -> Iterator[str]:
    yield sys.executable
    yield str(ROOT / f".venv-{version}" / "bin" / "python")  # what `make test-all` leaves
    if found := shutil.which(f"python{version}"):
        yield found


def _works(python: str, version: str) -> bool:
    code = f"import sys, psycopg; sys.exit('%d.%d' % sys.version_info[:2] != '{version}')"
    try:
        return subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def ask(python: str, contestant: str, dsn: str) -> dict[str, int] | None:
    """What the script found; None when the contestant is not installed there, or failed."""
    path = os.pathsep.join(filter(None, [str(Path(penstock.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [python, handoff.__file__, contestant],
        env={**os.environ, "DSN": dsn, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    if done.returncode == 0:
        return {str(name): int(value) for name, value in json.loads(done.stdout).items()}
    if "No module named" not in done.stderr:
        sys.stderr.write(done.stderr)
    return None
