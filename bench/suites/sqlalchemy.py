"""SQLAlchemy's own tests of its pool and of reconnecting, with PenstockPool in QueuePool's place.

`python -m bench.suites.sqlalchemy`: half a minute, no server (they use mock drivers and SQLite). The sdist, of the
version that is installed, is fetched once into .venv/suites. Exit status 1 when fewer pass than the bar asks, or when
a test fails that `MISSES` does not explain.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

import sqlalchemy

import penstock

SUITES = Path(sys.prefix) / "suites"
BARS = {"test/engine/test_pool.py": 148, "test/engine/test_reconnect.py": 52}
# See docs/sqlalchemy.md.
MISSES: Mapping[str, str] = {
    "test_timeout": "a thread that holds every connection and asks for one more is told at once, not after the timeout",
    "test_dispose_closes_pooled": "a connection that was lent when the pool was disposed of is closed on its return",
    "test_connrec_invalidated_within_checkout_no_race": "patches a private method that ours does without",
}

# The modules under test say `pool.QueuePool`, and so does the dialect when it is asked for its pool's class.
_SWAP = """
import sqlalchemy.pool
from penstock.integrations.sqlalchemy import PenstockPool

sqlalchemy.pool.QueuePool = PenstockPool
"""


def main() -> int:
    tests = _fetched()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "penstock_swap.py").write_text(_SWAP)
        return max([_run(tests, module, bar, folder) for module, bar in BARS.items()])


def _run(tests: Path, module: str, bar: int, plugin: str) -> int:
    paths = [plugin, str(Path(penstock.__file__).parents[1]), str(tests / "lib"), str(tests)]
    options = ["-p", "penstock_swap", "-p", "no:cacheprovider", "-q", "--tb=no", "-rf"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, module],
        cwd=tests,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    failed = re.findall(r"^FAILED \S+::(\w+)", done.stdout, re.MULTILINE)
    passed = re.search(r"(\d+) passed", done.stdout)
    count = int(passed[1]) if passed else 0
    print(f"{module}: {count} of {count + len(failed)} pass (bar: {bar})")
    for test in failed:
        print(f"  {test}: {MISSES.get(test, 'NOT EXPLAINED')}")
    return 0 if count >= bar and MISSES.keys() >= set(failed) else 1


def _fetched() -> Path:
    folder = SUITES / f"sqlalchemy-{sqlalchemy.__version__}"
    if not folder.exists():
        SUITES.mkdir(exist_ok=True)
        wanted = f"sqlalchemy=={sqlalchemy.__version__}"
        download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "sqlalchemy", wanted]
        subprocess.run([*download, "-d", SUITES], check=True)
        with tarfile.open(SUITES / f"sqlalchemy-{sqlalchemy.__version__}.tar.gz") as sdist:
            sdist.extractall(SUITES, filter="data")
    return folder


if __name__ == "__main__":
    sys.exit(main())
