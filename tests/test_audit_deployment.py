"""The audit of a program whose files tell together how it is run: forks, ASGI, and the budget that it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.audit.audit import audit, sources
from penstock.audit.check import Asked, Report, check
from penstock.audit.finding import Finding, Severity
from penstock.audit.settings import Settings

POOL = """
from psycopg2.pool import ThreadedConnectionPool

pool = ThreadedConnectionPool(1, 10, "dbname=app")
"""
ENGINE = """
from sqlalchemy import create_engine

engine = create_engine("postgresql://localhost/app", pool_size=5)
"""
TASK = """
import psycopg2
from celery import Celery

app = Celery()
conn = psycopg2.connect("dbname=app", connect_timeout=3)


@app.task
def count():
    with conn, conn.cursor() as cur:
        cur.execute("SELECT count(*) FROM t")
        return cur.fetchone()
"""
SETTINGS = """
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "app", "CONN_MAX_AGE": 600}}
"""


@pytest.fixture
def found(tmp_path: Path):
    def found(**files: str) -> list[tuple[str, str]]:
        paths = [tmp_path / f"{name.replace('__', '.')}.py" for name in files]
        for path, text in zip(paths, files.values(), strict=True):
            path.write_text(text)
        findings: list[Finding] = audit(sources(tmp_path, paths)).findings
        return [(one.path, one.code) for one in findings if one.severity is not Severity.HINT]

    return found


def test_a_pool_that_is_open_before_gunicorn_forks_is_told(found) -> None:
    assert found(db=POOL, gunicorn__conf="preload_app = True\n") == [("db.py", "PEN312")]


def test_a_hook_after_the_fork_is_trusted_to_renew_it(found) -> None:
    hook = "def post_fork(server, worker):\n    renew()\n"
    assert found(db=POOL, gunicorn__conf=f"preload_app = True\n{hook}") == []


def test_without_preload_each_worker_makes_its_own(found) -> None:
    assert found(db=POOL, gunicorn__conf="preload_app = False\nworkers = 4\n") == []


def test_an_engine_has_no_connection_before_it_is_used(found) -> None:
    assert found(db=ENGINE, gunicorn__conf="preload_app = True\n") == []


def test_an_engine_that_is_used_as_it_is_imported_is_connected_before_the_fork(found) -> None:
    used = f"{ENGINE}\nBase.metadata.create_all(bind=engine)\n"
    assert found(db=used, gunicorn__conf="preload_app = True\n") == [("db.py", "PEN312")]


def test_a_connection_of_the_module_that_tasks_of_celery_use_is_shared_by_its_workers(found) -> None:
    assert found(tasks=TASK) == [("tasks.py", "PEN313")]


def test_a_hook_of_celery_that_runs_in_each_worker_is_trusted(found) -> None:
    hook = "from celery.signals import worker_process_init\n\nworker_process_init.connect(renew)\n"
    assert found(tasks=TASK, hooks=hook) == []


def test_an_engine_of_the_module_is_what_tasks_of_celery_should_use(found) -> None:
    engine = TASK.replace("import psycopg2", "from sqlalchemy import create_engine").replace(
        'psycopg2.connect("dbname=app", connect_timeout=3)', 'create_engine("postgresql://localhost/app")'
    )
    assert found(tasks=engine) == []


@pytest.mark.parametrize(
    "evidence",
    ['ASGI_APPLICATION = "app.asgi.application"\n', 'INSTALLED_APPS = [\n    "daphne",\n]\n', "import uvicorn\n",
     'worker_class = "uvicorn.workers.UvicornWorker"\n'],
)  # fmt: skip
def test_connections_that_django_keeps_pile_up_under_asgi(found, evidence: str) -> None:
    assert found(settings=SETTINGS, other=evidence) == [("settings.py", "PEN310")]


@pytest.mark.parametrize("age", ["0", "os.environ['AGE']", "int(env('AGE'))"])
def test_an_age_of_zero_or_one_that_is_not_known_is_fine_under_asgi(found, age: str) -> None:
    assert found(settings=SETTINGS.replace("600", age), other="import uvicorn\n") == []


def test_connections_that_django_keeps_are_fine_under_wsgi(found) -> None:
    assert found(settings=SETTINGS, other="from django.core.asgi import get_asgi_application\n") == []


def test_what_a_file_rests_on_without_importing_it_makes_its_findings_stale(tmp_path: Path) -> None:
    (tmp_path / "db.py").write_text(POOL)
    conf = tmp_path / "gunicorn.conf.py"
    conf.write_text("workers = 2\n")

    def codes() -> list[str]:
        return [one.code for one in _check(tmp_path).findings]

    assert codes() == []
    conf.write_text("preload_app = True\n")
    assert codes() == ["PEN312"]
    conf.unlink()
    assert codes() == []


def _check(root: Path) -> Report:
    return check(Asked([root], Settings(root=root), jobs=1))


BUDGET = """
[databases.main]
max_connections = 40

[services.web]
database = "main"
replicas = 2
processes = 4
"""
COMPOSE = """
services:
  web:
    build: .
    command: gunicorn -w 4 app:app
    deploy:
      replicas: 2
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PENSTOCK_TOML", raising=False)
    (tmp_path / "penstock.toml").write_text(BUDGET)
    (tmp_path / "compose.yml").write_text(COMPOSE)
    (tmp_path / "app.py").write_text(ENGINE.replace("pool_size=5", "pool_size=5, max_overflow=5"))
    return tmp_path


def test_pools_times_workers_beyond_the_budget_are_told_with_the_arithmetic(program: Path) -> None:
    report = _check(program)
    assert [(one.path, one.line, one.code) for one in report.findings] == [("app.py", 4, "PEN311")]
    assert "x 4 processes x 10 = 80 of 3" in report.findings[0].message


def test_pools_within_the_budget_are_silent(program: Path) -> None:
    (program / "penstock.toml").write_text(BUDGET.replace("40", "200"))
    assert _check(program).findings == []


def test_without_a_budget_no_size_is_too_large(program: Path) -> None:
    (program / "penstock.toml").unlink()
    assert _check(program).findings == []


def test_settings_of_the_audit_are_no_budget(program: Path) -> None:
    (program / "penstock.toml").unlink()
    (program / "pyproject.toml").write_text("[tool.penstock.audit]\nhints = false\n")
    report = _check(program)
    assert report.findings == report.notes == []


def test_a_budget_that_cannot_be_read_is_a_note(program: Path) -> None:
    (program / "penstock.toml").write_text("[databases.main]\nmax_connections = 'many'\n")
    assert [note.why[:27] for note in _check(program).notes] == ["its budget could not be rea"]


def test_what_is_over_the_budget_is_known_to_a_baseline_too(program: Path) -> None:
    report = _check(program)
    assert len(report.known) == len(report.findings) == 1
