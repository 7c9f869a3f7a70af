"""Drivers' own tests, alone and under `penstock run --hold`, compared test by test.

    python -m bench.suites.guard [psycopg2] [pymysql] [mysqlclient]

They come from the drivers' source distributions, fetched once into .venv/suites: of the releases that are installed,
but for PyMySQL's, whose last one with tests is 0.10.1. They run against the drivers that are installed, a PostgreSQL
and a MariaDB of our own. Exit status 1 when a test fails under guard that does not fail alone, and is not among those
that must (see `DIFFERENT`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psycopg.conninfo

import penstock
from penstock.drill.postgres import EmbeddedPostgres

FOLDER = Path(sys.prefix) / "suites"
SECONDS = 600
# Under guard these must end otherwise, or may.
DIFFERENT: Mapping[str, Mapping[str, str]] = {
    "psycopg2": {
        "test_cursor_factory_none": "compares type(cursor): the cursor is one of ours, and isinstance() holds",
        "test_attributes": "an exception's cursor is the driver's own, and not the one that the program has",
        "test_encoding_from_conn": "QuotedString(...).prepare(conn), in C, takes the driver's own connection only",
        "test_adapt_bytes": "the same",
        "test_connection_wins_anyway": "the same",
        "test_set_encoding": "the same",
    },
    "pymysql": {"test_affected_rows": "of a new connection, on which the pool has asked already whether it can write"},
    "mysqlclient": {
        "test_affected_rows": "of a new connection, on which the pool has asked already whether it can write",
    },
}


# What PyMySQL 0.10 had for Python 2, and its tests still import.
_GONE = """
CPYTHON, PY2, text_type, long_type = False, False, str, int


def int2byte(number):
    return bytes([number])
"""
_MOVED = {
    "pymysql.tests": "pymysql_tests",
    "from .._compat import": "from pymysql_tests._gone import",
    "from pymysql._compat import": "from pymysql_tests._gone import",
    "from pymysql import util": "from pymysql_tests import _gone as util",
}


@dataclass(frozen=True)
class Suite:
    """*files*: what pytest is given, within *folder*."""

    folder: Path
    files: tuple[str, ...]
    environment: Mapping[str, str]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.suites.guard", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("drivers", nargs="*", metavar="driver", help=f"of {', '.join(SUITES)}; all by default")
    unexplained = 0
    for driver in parser.parse_args().drivers or list(SUITES):
        with ExitStack() as servers:
            suite = SUITES[driver](servers)
            alone = _run(suite, [])
            held = _run(suite, [str(Path(sys.prefix, "bin", "penstock")), "run", "--hold", "--"])
        unexplained += _show(driver, alone, held)
    return 1 if unexplained else 0


def _fetched(package: str, release: str) -> Path:
    """The folder of the source distribution of *release*."""
    FOLDER.mkdir(exist_ok=True)
    found = _unpacked(package, release)
    if found is None:
        download = ["download", "-q", "--no-deps", "--no-binary", package, f"--dest={FOLDER}"]
        subprocess.run([sys.executable, "-m", "pip", *download, f"{package}=={release}"], check=True)
        for archive in FOLDER.glob(f"*-{release}.tar.gz"):
            if archive.name.lower().startswith(package):
                with tarfile.open(archive) as sdist:
                    sdist.extractall(FOLDER, filter="data")
        found = _unpacked(package, release)
    assert found is not None, f"{package} {release} has no source distribution"
    return found


def _unpacked(package: str, release: str) -> Path | None:
    folders = (path for path in FOLDER.glob(f"*-{release}") if path.name.lower() == f"{package}-{release}")
    return next(folders, None)


def _psycopg2(servers: ExitStack) -> Suite:
    folder = _fetched("psycopg2", version("psycopg2-binary"))
    server = servers.enter_context(EmbeddedPostgres(max_connections=60))
    with psycopg.connect(server.admin_dsn, autocommit=True) as admin:
        admin.execute("CREATE DATABASE psycopg2_test")
    where = psycopg.conninfo.conninfo_to_dict(server.admin_dsn)
    environment = {
        "PSYCOPG2_TESTDB": "psycopg2_test",
        "PSYCOPG2_TESTDB_HOST": str(where["host"]),
        "PSYCOPG2_TESTDB_PORT": str(where["port"]),
        "PSYCOPG2_TESTDB_USER": str(where["user"]),
        "PGPASSWORD": str(where["password"]),
        "PGSSLMODE": "disable",
    }
    # Left out: a wait callback that waits for one connection, whichever it is called for, hangs in another's thread.
    return Suite(folder, ("tests", "--ignore=tests/test_green.py"), environment)


def _mariadb(servers: ExitStack) -> Mapping[str, object]:
    sys.path.append(str(Path(__file__).parents[2] / "tests"))
    from support.mariadb import PASSWORD, USER, MariaDB

    server = servers.enter_context(MariaDB())
    for database in ("test1", "test2"):
        server.ask(f"CREATE DATABASE {database} CHARACTER SET utf8mb4")
    server.ask(f"GRANT ALL ON *.* TO {USER} WITH GRANT OPTION")
    server.ask("SET GLOBAL local_infile = 1")
    return {"host": server.host, "port": server.port, "user": USER, "password": PASSWORD}


def _pymysql(servers: ExitStack) -> Suite:
    """Its tests are a part of its package. Here they are one of their own, beside the release that is installed."""
    source = _fetched("pymysql", "0.10.1") / "pymysql" / "tests"
    folder = Path(servers.enter_context(tempfile.TemporaryDirectory(prefix="penstock-suite-")))
    for path in source.rglob("*.py"):
        copy = folder / "pymysql_tests" / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text()
        for old, new in _MOVED.items():
            text = text.replace(old, new)
        copy.write_text(text)
    (folder / "pymysql_tests" / "_gone.py").write_text(_GONE)
    given = {**_mariadb(servers), "use_unicode": True, "local_infile": True}
    databases = json.dumps([{**given, "database": database} for database in ("test1", "test2")])
    (folder / "pymysql_tests" / "databases.json").write_text(databases)
    return Suite(folder, ("pymysql_tests",), {})


def _mysqlclient(servers: ExitStack) -> Suite:
    source = _fetched("mysqlclient", version("mysqlclient"))
    scratch = Path(servers.enter_context(tempfile.TemporaryDirectory(prefix="penstock-suite-")))
    given = {**_mariadb(servers), "database": "test1", "default-character-set": "utf8mb4"}
    lines = "\n".join(f"{name} = {value}" for name, value in given.items())
    (scratch / "default.cnf").write_text(f"[MySQLdb-tests]\n{lines}\n")
    return Suite(source, ("tests",), {"TESTDB": str(scratch / "default.cnf")})


SUITES: Mapping[str, Callable[[ExitStack], Suite]] = {
    "psycopg2": _psycopg2,
    "pymysql": _pymysql,
    "mysqlclient": _mysqlclient,
}


def _run(suite: Suite, before: list[str]) -> dict[str, str]:
    """What became of each test: passed, failed or skipped."""
    with tempfile.TemporaryDirectory(prefix="penstock-suite-") as scratch:
        report = Path(scratch, "report.xml")
        options = ["-q", "-W", "ignore", "-p", "no:cacheprovider", "-o", "addopts=", f"--junit-xml={report}"]
        path = [str(Path(penstock.__file__).parents[1]), str(suite.folder)]
        environment = {**os.environ, **suite.environment, "PYTHONPATH": os.pathsep.join(path)}
        command = [*before, sys.executable, "-m", "pytest", *options, "--tb=line", f"--rootdir={suite.folder}"]
        output = Path(scratch, "output")
        with output.open("w") as file:
            subprocess.run(
                [*command, *suite.files], cwd=suite.folder, env=environment, stdout=file, stderr=file, timeout=SECONDS
            )
        if not report.exists():
            sys.exit(f"the tests did not come to their end:\n{output.read_text()[-3000:]}")
        return {f"{case.get('classname')}.{case.get('name')}": _end(case) for case in ET.parse(report).iter("testcase")}


def _end(case: ET.Element) -> str:
    if case.find("skipped") is not None:
        return "skipped"
    return "passed" if case.find("failure") is None and case.find("error") is None else "failed"


def _show(driver: str, alone: Mapping[str, str], held: Mapping[str, str]) -> int:
    """How many tests fail under guard alone, and nobody knows why."""
    for name, ends in (("alone", alone), ("--hold", held)):
        counts = {end: list(ends.values()).count(end) for end in ("passed", "failed", "skipped")}
        print(f"{driver}, {name}: " + ", ".join(f"{count} {end}" for end, count in counts.items()))
    unexplained = 0
    for test in sorted(alone.keys() | held.keys()):
        before, now = alone.get(test, "did not run"), held.get(test, "did not run")
        if before != now:
            why = DIFFERENT[driver].get(test.rpartition(".")[2])
            unexplained += now != "passed" and why is None
            print(f"  {test}: alone {before}, held {now}: {why or 'not explained'}")
    return unexplained


if __name__ == "__main__":
    sys.exit(main())
