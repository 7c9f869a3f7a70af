"""A Django project on our backend, whole: its own tests, its commands, and its views under ASGI."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import penstock
from penstock.drill.postgres import EmbeddedPostgres

ENGINE = "penstock.integrations.django.postgresql"
Manage = Callable[..., str]


@pytest.fixture
def project(postgres: EmbeddedPostgres) -> Iterator[Callable[..., str]]:
    """Runs Python with the project's settings on a database of its own; returns what it says."""
    name = "django_project"
    with postgres.admin() as admin:
        admin.execute(f"CREATE DATABASE {name}")
        where = psycopg.conninfo.conninfo_to_dict(postgres.admin_dsn)
        keys = {"USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
        given = {key: str(where[each]) for key, each in keys.items()} | {"ENGINE": ENGINE, "NAME": name}

        def run(*arguments: str, pool: Any = None, **settings: Any) -> str:
            database = given | {"OPTIONS": {"pool": pool or {"max_size": 2, "timeout": 5}}} | settings
            paths = [str(Path(__file__).parent), str(Path(penstock.__file__).parents[1])]
            environment = os.environ | {
                "DJANGO_DATABASE": json.dumps(database),
                "DJANGO_SETTINGS_MODULE": "support.django_project.settings",
                "PYTHONPATH": os.pathsep.join(paths),
                "PYTHONWARNINGS": "error::ResourceWarning",
            }
            done = subprocess.run(
                [sys.executable, *arguments],
                env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout
            return done.stdout

        yield run
        admin.execute(f"DROP DATABASE {name}")  # fails where a connection was left behind


def manage(project: Callable[..., str], *arguments: str, **settings: Any) -> str:
    return project("-m", "django", *arguments, **settings)


def test_a_project_s_own_tests_run_in_two_processes(project: Callable[..., str]) -> None:
    """Databases are made, cloned, flushed and dropped while pools come and go."""
    said = manage(project, "test", "support.django_project", "--parallel=2", "--noinput", "-v2", CONN_MAX_AGE=None)
    assert "Ran 5 tests" in said
    assert "OK" in said
    assert "Cloning test database" in said
    assert "being accessed by other users" not in said


def test_commands_that_work_on_the_database(project: Callable[..., str]) -> None:
    assert "Applying django_project.0001_initial... OK" in manage(project, "migrate")
    assert "class DjangoProjectOrder" in manage(project, "inspectdb", "django_project_order")
    manage(project, "flush", "--noinput")
    assert "of this project: 0 connections of 0 processes" in manage(project, "penstock")
