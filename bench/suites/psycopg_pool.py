"""psycopg's own tests of its pool, run against `penstock.compat.psycopg_pool` (--peer: against psycopg_pool itself).

`python -m bench.suites.psycopg_pool CHECKOUT`, a checkout of psycopg's repository: no package has its tests in it.
Those that go through its proxy need the program pproxy on the PATH, and anyio has to be installed.

A test counts where it touches no private name: nothing that begins with an underscore, but for ``conn._pool``, which is
part of the face, and nothing of a module that is no part of it (``pool.base``, ``psycopg_pool.sched``). How the others
end is told all the same. Many measure time, and fail on a busy machine, against psycopg_pool too: one that fails is run
again, twice at most, and counts as passed if it passes then. Exit status 1 when fewer than 95 % of them pass.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from rich.console import Console
from rich.table import Table

import penstock
from penstock.drill.postgres import EmbeddedPostgres

BAR = 0.95
SECONDS = 900  # for the whole suite, which sleeps a lot
AGAIN = 2  # times that what has failed is run again
OWN = ("test_module.py", "test_sched.py", "test_sched_async.py")  # of psycopg_pool's insides, not of its pools
_PRIVATE = re.compile(r"_[a-z]\w*")
_INSIDE = ("base", "sched", "pool", "pool_async")
_SWAP = "import penstock.compat.psycopg_pool as ours\nours.install()\n"


def private_names(suite: Path) -> dict[tuple[str, str], set[str]]:
    """For each test, by module and name, the private names that it touches, be it in a function that it calls."""
    touched: dict[str, dict[str, set[str]]] = {}
    calls: dict[str, dict[str, set[str]]] = {}
    for path in sorted(suite.glob("*.py")):
        functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, _BLOCKS)]
        touched[path.stem] = {node.name: set(_private(node)) for node in functions}
        calls[path.stem] = {node.name: {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} for node in functions}
    helpers: dict[str, set[str]] = {}
    for names in touched.values():
        for name, private in names.items():
            if not name.startswith("test_"):
                helpers.setdefault(name, set()).update(private)
    return {
        (stem, name): private.union(*(helpers.get(called, set()) for called in calls[stem][name]))
        for stem, names in touched.items()
        for name, private in names.items()
        if name.startswith("test_")
    }


_BLOCKS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _private(block: ast.AST) -> Iterator[str]:
    for node in ast.walk(block):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("psycopg_pool."):
            yield node.module or ""
        elif isinstance(node, ast.Attribute):
            of = node.value.id if isinstance(node.value, ast.Name) else ""
            if of == "pool" and node.attr in _INSIDE:
                yield f"psycopg_pool.{node.attr}"
            elif _PRIVATE.fullmatch(node.attr) and (of, node.attr) not in (("conn", "_pool"), ("self", "_pool")):
                yield node.attr


def run(checkout: Path, peer: bool, more: list[str]) -> dict[tuple[str, str], str]:
    """By module and test, how it ended: passed, failed or skipped."""
    with EmbeddedPostgres(max_connections=100) as server, tempfile.TemporaryDirectory() as folder:
        Path(folder, "penstock_swap.py").write_text("" if peer else _SWAP)
        ignored = [f"--ignore={Path('tests/pool', name)}" for name in OWN]
        arguments = ["-p", "penstock_swap", "--test-dsn", server.dsn, *more, *ignored]
        ends = _run(checkout, Path(folder), [*arguments, "tests/pool"])
        for _ in range(AGAIN):
            failed = [f"tests/pool/{module}.py::{name}" for (module, name), end in ends.items() if end == "failed"]
            if failed:
                ends |= _run(checkout, Path(folder), [*arguments, *failed])
        return ends


def _run(checkout: Path, folder: Path, arguments: list[str]) -> dict[tuple[str, str], str]:
    results = folder / "results.xml"
    results.unlink(missing_ok=True)
    path = os.pathsep.join([str(folder), str(Path(penstock.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", f"--junitxml={results}"]
    environment = {**os.environ, "PYTHONPATH": path}
    subprocess.run([*command, *arguments], cwd=checkout, env=environment, timeout=SECONDS, check=False)
    if not results.exists():
        sys.exit("pytest did not get as far as the tests: see above")
    cases = ElementTree.parse(results).getroot().iter("testcase")
    return {(case.get("classname", "").rpartition(".")[2], case.get("name", "")): _end(case) for case in cases}


def _end(case: ElementTree.Element) -> str:
    if case.find("skipped") is not None:
        return "skipped"
    return "passed" if case.find("failure") is None and case.find("error") is None else "failed"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.suites.psycopg_pool", description=__doc__.split("\n")[0])
    parser.add_argument("checkout", type=Path, help="of psycopg's repository")
    parser.add_argument("--peer", action="store_true", help="run them against psycopg_pool itself")
    arguments, more = parser.parse_known_args()
    private = private_names(arguments.checkout / "tests" / "pool")
    results = run(arguments.checkout, arguments.peer, more)
    console = Console(highlight=False, markup=False)
    table = Table("", "passed", "failed", "skipped")
    for title, wanted in (("touch no private name", False), ("touch private names", True)):
        ends = Counter(end for test, end in results.items() if bool(_of(private, *test)) is wanted)
        table.add_row(title, *(str(ends[end]) for end in ("passed", "failed", "skipped")))
        if not wanted:
            share = ends["passed"] / max(1, ends["passed"] + ends["failed"])
    console.print(table)
    for (module, name), end in sorted(results.items(), key=lambda result: bool(_of(private, *result[0]))):
        if end == "failed":
            names = ", ".join(sorted(_of(private, module, name)))
            console.print(f"  {module}::{name}{f' ({names})' if names else ''}")
    console.print(f"{share:.1%} of those that touch no private name pass; the bar is {BAR:.0%}")
    return 0 if share >= BAR else 1


def _of(private: dict[tuple[str, str], set[str]], module: str, name: str) -> set[str]:
    return private.get((module, name.partition("[")[0]), set())


if __name__ == "__main__":
    sys.exit(main())
