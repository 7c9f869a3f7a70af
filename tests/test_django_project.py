"""A Django project on our backends, whole: its own tests, its commands, and its views under ASGI."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from penstock.drill.postgres import EmbeddedPostgres
from support.django_run import COMMANDS, drive, run
from support.mariadb import DATABASE, PASSWORD, USER, MariaDB

NAME = "django_project"


@pytest.fixture
def on_postgres(postgres: EmbeddedPostgres) -> Iterator[dict[str, Any]]:
    """The project's settings for a database of its own."""
    where = psycopg.conninfo.conninfo_to_dict(postgres.admin_dsn)
    keys = {"USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    given = {key: str(where[each]) for key, each in keys.items()}
    with postgres.admin() as admin:
        admin.execute(f"CREATE DATABASE {NAME}")
        yield given | {"ENGINE": "penstock.integrations.django.postgresql", "NAME": NAME, "CONN_MAX_AGE": None}
        admin.execute(f"DROP DATABASE {NAME}")  # fails where a connection was left behind


@pytest.fixture
def on_mariadb(mariadb: MariaDB) -> Iterator[dict[str, Any]]:
    name = f"{DATABASE}_{NAME}"
    mariadb.ask(f"CREATE DATABASE {name}")
    yield {
        "ENGINE": "penstock.integrations.django.mysql", "NAME": name, "USER": USER, "PASSWORD": PASSWORD,
        "HOST": mariadb.host, "PORT": str(mariadb.port), "CONN_MAX_AGE": None, "TEST": {"NAME": f"{name}_test"},
    }  # fmt: skip
    mariadb.ask(f"DROP DATABASE {name}")


@pytest.fixture(params=["on_postgres", "on_mariadb"])
def database(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def test_a_project_s_own_tests_run_in_two_processes(on_postgres: dict[str, Any]) -> None:
    """Databases are made, cloned, flushed and dropped while pools come and go."""
    said = run(on_postgres, "-m", "django", "test", "support.django_project", "--parallel=2", "--noinput", "-v2")
    assert "Ran 5 tests" in said
    assert "OK" in said
    assert "Cloning test database" in said
    assert "being accessed by other users" not in said


def test_a_project_s_own_tests_run_on_mariadb(on_mariadb: dict[str, Any]) -> None:
    said = run(on_mariadb, "-m", "django", "test", "support.django_project", "--noinput")
    assert "Ran 5 tests" in said
    assert "OK" in said


def test_commands_that_work_on_the_database(database: dict[str, Any]) -> None:
    said = run(database, "-c", COMMANDS)
    assert "Applying django_project.0001_initial... OK" in said
    assert "class DjangoProjectOrder" in said
    assert "of this project: 0 connections" in said


def test_views_of_all_kinds_under_asgi_stay_below_the_line(database: dict[str, Any]) -> None:
    """Each request has a thread of its own there, some clients go away, and nobody closes anything."""
    said = drive(database, 200)
    assert said["ended"].keys() <= {"200", "left"}
    assert said["ended"]["200"] > 100
    assert sum(said["ended"].values()) == 200
    assert said["most"] <= 2
    assert said["looks"] > 20
