"""asyncpg's own tests of its pool, with `penstock.compat.asyncpg.Pool` in its place.

    python -m bench.suites.asyncpg [--uvloop] [--theirs]

They come from asyncpg's source distribution, of the release that is installed, and start servers of their own.
Exit status 1 when a test failed that touches no private name. `--theirs` runs them with asyncpg's own pool.
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from penstock.drill import binaries

FOLDER = Path(sys.prefix) / "suites"
SWAP = """
import asyncpg.pool
import penstock.compat.asyncpg

asyncpg.pool.Pool = penstock.compat.asyncpg.Pool
"""
# PostgreSQL refuses to run as root, and asyncpg's tests know no other user.
AS_ANOTHER = """#!/bin/sh
for argument; do
    [ "$before" = -D ] && chown -R {uid}:{gid} "$argument"
    before=$argument
done
exec setpriv --reuid {uid} --regid {gid} --clear-groups {program} "$@"
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.suites.asyncpg", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--uvloop", action="store_true", help="under uvloop")
    parser.add_argument("--theirs", action="store_true", help="with asyncpg's own pool, to compare with")
    parser.add_argument("tests", nargs="*", help="which; all of test_pool.py when none is named")
    arguments = parser.parse_args()
    folder = _sources()
    (folder / "conftest.py").write_text("" if arguments.theirs else SWAP)
    private = _touching_private_names(folder / "tests" / "test_pool.py")
    with tempfile.TemporaryDirectory(prefix="penstock-suite-") as scratch:
        results = _run(folder, Path(scratch), arguments.tests, arguments.uvloop)
    return _show(results, private)


def _sources() -> Path:
    """asyncpg's folder of tests, fetched if it is not there. Only that: the package is the one that is installed."""
    release = f"asyncpg-{version('asyncpg')}"
    folder = FOLDER / release
    if not (folder / "tests").exists():
        download = ["download", "--quiet", "--no-deps", "--no-binary", "asyncpg", f"--dest={FOLDER}"]
        subprocess.run([sys.executable, "-m", "pip", *download, release.replace("-", "==")], check=True)
        with tarfile.open(FOLDER / f"{release}.tar.gz") as archive:
            tests = [member for member in archive if member.name.startswith(f"{release}/tests/")]
            archive.extractall(FOLDER, tests, filter="data")
    return folder


def _run(
    folder: Path, scratch: Path, tests: list[str], uvloop: bool, modules: Sequence[str] = ("tests/test_pool.py",)
) -> dict[str, str]:
    """What became of each test: passed, failed or skipped."""
    scratch.chmod(0o755)
    environment = dict(os.environ, PGINSTALLATION=str(_programs(scratch)), TMPDIR=str(scratch))
    environment.pop("PGHOST", None)
    if uvloop:
        environment["USE_UVLOOP"] = "1"
    report = scratch / "report.xml"
    options = ["-q", "-p", "no:cacheprovider", "-o", "addopts=", f"--rootdir={folder}", f"--junit-xml={report}"]
    chosen = ["-k", " or ".join(tests)] if tests else []
    command = [sys.executable, "-m", "pytest", *options, *chosen, *modules]
    subprocess.run(command, cwd=folder, env=environment, check=False)
    found: dict[str, str] = {}
    for case in ET.parse(report).iter("testcase"):
        kinds, name = {child.tag for child in case}, case.attrib["name"]
        if kinds & {"failure", "error"}:
            found[name] = "failed"
        elif found.get(name) != "failed":  # by one of its subtests
            found[name] = "skipped" if "skipped" in kinds else "passed"
    return found


def _programs(scratch: Path) -> Path:
    """PostgreSQL's programs, such as whoever runs this may run."""
    account = binaries.account()
    if account is not None:
        os.chown(scratch, account.uid, account.gid)
    programs = binaries.reachable(binaries.find(), account, scratch) / "bin"
    if account is None:
        return programs
    wrapped = scratch / "bin"
    wrapped.mkdir()
    for program in programs.iterdir():
        script = wrapped / program.name
        script.write_text(AS_ANOTHER.format(uid=account.uid, gid=account.gid, program=program))
        script.chmod(0o755)
    return wrapped


def _touching_private_names(module: Path) -> dict[str, list[str]]:
    """The private names of each test that touches some: attributes, methods overridden, names patched."""
    found = {}
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            names = sorted({name for part in ast.walk(node) for name in _names(part) if _is_private(name)})
            if names:
                found[node.name] = names
    return found


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "object":
        yield from (str(each.value) for each in node.args if isinstance(each, ast.Constant))  # mock.patch.object


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _show(results: dict[str, str], private: dict[str, list[str]]) -> int:
    missed = [name for name, outcome in results.items() if outcome != "passed" and name not in private]
    for kind, names in (("no private name", results.keys() - private), ("private names", results.keys() & private)):
        passed = sum(results[name] == "passed" for name in names)
        print(f"of {len(names)} tests that touch {kind}, {passed} passed")
    for name, outcome in results.items():
        if outcome != "passed":
            print(f"  {outcome}: {name} ({', '.join(private.get(name, ['no private name']))})")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
