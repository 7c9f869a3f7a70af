"""Django's own tests on `penstock.integrations.django.postgresql`, and on its own backend, compared test by test.

`python -m bench.suites.django [label ...]`: by default `backends basic transactions queries`. Django's sdist, of the
version that is installed, is fetched once into .venv/suites; all engines run on one PostgreSQL, one after the other.
Exit status 1 when a test ends otherwise on ours and is not among those that must (see `DIFFERENT`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import django
import psycopg.conninfo

import penstock
from penstock.drill.postgres import EmbeddedPostgres

LABELS = ("backends", "basic", "transactions", "queries")
SUITES = Path(sys.prefix) / "suites"
ENGINES: Mapping[str, tuple[str, object]] = {
    "Django, no pool": ("django.db.backends.postgresql", False),
    "Django, psycopg_pool": ("django.db.backends.postgresql", True),
    "Penstock": ("penstock.integrations.django.postgresql", True),
    "Penstock, pool: False": ("penstock.integrations.django.postgresql", False),
}
# Of Django's tests of its own pool, and of connections kept from request to request, those that must end otherwise.
DIFFERENT: Mapping[str, str] = {
    "test_pooling_health_checks": "reads `pool._check`: CONN_HEALTH_CHECKS asks for nothing here",
    "test_pooling_not_support_persistent_connections": "CONN_MAX_AGE is no error here, and keeps nothing",
    "test_health_checks_disabled": "expects CONN_MAX_AGE=None to keep the connection after the request",
    "test_health_checks_enabled_errors_occurred": "expects the same",
    "test_health_checks_enabled": "skipped by Django where there is a pool",
    "test_set_autocommit_health_checks_enabled": "skipped by Django where there is a pool",
}

_SETTINGS = """
import json, os, sys, types
from django.test.runner import DiscoverRunner

_given = json.loads(os.environ["PENSTOCK_SUITE"])
if _given["ours"]:  # one test looks for psycopg_pool's error, by name
    from penstock import PoolTimeout
    sys.modules["psycopg_pool"] = types.SimpleNamespace(PoolTimeout=PoolTimeout)
DATABASES = _given["databases"]
SECRET_KEY = "django_tests_secret_key"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
TEST_RUNNER = "penstock_suite.Runner"


class Runner(DiscoverRunner):
    def run_suite(self, suite, **kwargs):
        result = super().run_suite(suite, **kwargs)
        ended = {"fails": result.failures, "errs": result.errors, "is skipped": result.skipped}
        found = {str(test): how for how, tests in ended.items() for test, _ in tests}
        found |= {str(test): "succeeds unexpectedly" for test in result.unexpectedSuccesses}
        with open(_given["result"], "w") as file:
            json.dump({"run": result.testsRun, "found": found}, file)
        return result
"""


def main(labels: list[str]) -> int:
    tests = _fetched() / "tests"
    with EmbeddedPostgres(max_connections=60) as server:
        results = {name: _run(tests, server, name, *engine, labels or list(LABELS)) for name, engine in ENGINES.items()}
    theirs = results["Django, no pool"]["found"]
    unexplained = 0
    for name, result in results.items():
        counts = {how: list(result["found"].values()).count(how) for how in ("fails", "errs", "is skipped")}
        print(f"{name}: {result['run']} run, " + ", ".join(f"{count} {how}" for how, count in counts.items()))
        for test, (before, now) in _difference(theirs, result["found"]).items():
            why = DIFFERENT.get(test.split()[0])
            unexplained += why is None
            print(f"  {test}: {now}, on Django's own without a pool it {before}: {why or 'not explained'}")
    return 1 if unexplained or len({result["run"] for result in results.values()}) > 1 else 0


def _fetched() -> Path:
    folder = SUITES / f"django-{django.__version__}"
    if not folder.exists():
        SUITES.mkdir(exist_ok=True)
        wanted = f"django=={django.__version__}"
        download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "django", wanted]
        subprocess.run([*download, "-d", SUITES], check=True)
        with tarfile.open(SUITES / f"django-{django.__version__}.tar.gz") as sdist:
            sdist.extractall(SUITES, filter="data")
    return folder


def _run(tests: Path, server: EmbeddedPostgres, name: str, engine: str, pool: object, labels: list[str]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "penstock_suite.py").write_text(_SETTINGS)
        result = Path(folder, "result.json")
        databases = {alias: _database(server, alias, engine, pool) for alias in ("default", "other")}
        paths = [folder, str(Path(penstock.__file__).parents[1])]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(paths),
            "PENSTOCK_SUITE": json.dumps(
                {"databases": databases, "result": str(result), "ours": engine.startswith("penstock")}
            ),
        }
        print(f"{name}:", flush=True)
        command = [sys.executable, "runtests.py", "--settings=penstock_suite", "--parallel=1", "--noinput", *labels]
        subprocess.run(command, cwd=tests, env=environment)
        return json.loads(result.read_text())


def _database(server: EmbeddedPostgres, alias: str, engine: str, pool: object) -> dict[str, Any]:
    where = psycopg.conninfo.conninfo_to_dict(server.admin_dsn)
    names = {"USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    given = {key: str(where[name]) for key, name in names.items()}
    return given | {"ENGINE": engine, "NAME": f"suite_{alias}", "OPTIONS": {"pool": pool}}


def _difference(theirs: Mapping[str, str], ours: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    return {
        test: (theirs.get(test, "passes"), ours.get(test, "passes"))
        for test in sorted(theirs.keys() | ours.keys())
        if theirs.get(test) != ours.get(test)
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
