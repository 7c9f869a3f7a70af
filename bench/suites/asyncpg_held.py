"""asyncpg's own tests of its connections, as they are and under `penstock run --hold`.

    python -m bench.suites.asyncpg_held [--max 10] [tests]

They come from asyncpg's source distribution, of the release that is installed, and start servers of their own.
Exit status 1 when a test failed under it that passes without, and that touches no private name.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from unittest import mock

from penstock.guard import launch
from penstock.guard.settings import Mode, Settings

from .asyncpg import FOLDER, _run, _sources, _touching_private_names

MODULES = ("connect", "pool", "transaction", "listeners", "prepare", "cursor", "execute", "cancellation", "timeout")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.suites.asyncpg_held")
    parser.add_argument("--max", type=int, default=10, help="connections that each process may have to one database")
    parser.add_argument("tests", nargs="*", help="which; all of those modules when none is named")
    arguments = parser.parse_args()
    folder = _sources()
    (folder / "conftest.py").write_text("")
    modules = [f"tests/test_{module}.py" for module in MODULES]
    private = {name: names for module in modules for name, names in _touching_private_names(folder / module).items()}
    alone = _arm(folder, arguments.tests, modules, {})
    held = _arm(folder, arguments.tests, modules, launch.environment(Settings(Mode.HOLD, arguments.max), os.environ))
    worse = [name for name, outcome in held.items() if outcome == "failed" and alone.get(name) != "failed"]
    for arm, results in (("alone", alone), ("held", held)):
        counts = Counter(results.values())
        print(f"{arm}: {counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    for name in worse:
        print(f"  only when held: {name} ({', '.join(private.get(name, ['no private name']))})")
    return 1 if any(name not in private for name in worse) else 0


def _arm(folder: Path, tests: list[str], modules: list[str], environment: dict[str, str]) -> dict[str, str]:
    needed = os.pathsep.join([*filter(None, [environment.get("PYTHONPATH", os.environ.get("PYTHONPATH"))]), _needed()])
    environment = {**environment, "PYTHONPATH": needed}
    with tempfile.TemporaryDirectory(prefix="penstock-suite-") as scratch, mock.patch.dict(os.environ, environment):
        return _run(folder, Path(scratch), tests, False, modules)


def _needed() -> str:
    """A folder with what the tests import beside asyncpg."""
    folder = FOLDER / "needed"
    if not folder.exists():
        install = ["install", "--quiet", "--no-deps", f"--target={folder}", "distro"]
        subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    return str(folder)


if __name__ == "__main__":
    sys.exit(main())
