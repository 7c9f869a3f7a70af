"""What one process may open is read from the code, and what cannot be read is unknown and never fine."""

import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

import asyncpg
import psycopg_pool
import pytest
from sqlalchemy.pool import QueuePool

from penstock import Pool
from penstock.budget.readers import django, gunicorn, pools, sqlalchemy
from penstock.budget.readers.facts import Bound, Environment, Opens, Unreadable
from penstock.budget.readers.source import Module, Unknown


def opens(text: str, environment: dict[str, str | None] | None = None, *, complete: bool = True) -> list[Opens]:
    module = Module(textwrap.dedent(text), "app/db.py", Environment(environment or {}, complete))

    def every() -> Iterator[Opens]:
        yield from sqlalchemy.read(module)
        yield from pools.read(module)
        yield from django.read(module)

    return list(every())


def only(text: str, environment: dict[str, str | None] | None = None, *, complete: bool = True) -> Opens:
    (found,) = opens(text, environment, complete=complete)
    return found


SQLALCHEMY = "from sqlalchemy import create_engine\nfrom sqlalchemy.pool import NullPool, QueuePool, StaticPool\nurl = 'postgresql://db/shop'\n"


@pytest.mark.parametrize(
    ("call", "bound", "most"),
    [
        ("create_engine(url)", Bound.POOL, 15),
        ("create_engine(url, pool_size=20)", Bound.POOL, 30),
        ("create_engine(url, pool_size=20, max_overflow=0)", Bound.POOL, 20),
        ("create_engine(url, poolclass=QueuePool, pool_size=2)", Bound.POOL, 12),
        ("create_engine(url, poolclass=PenstockPool, pool_size=2)", Bound.POOL, 12),
        ("create_engine(url, poolclass=None)", Bound.POOL, 15),
        ("create_engine(url, poolclass=StaticPool)", Bound.POOL, 1),
        ("create_engine(url, poolclass=NullPool)", Bound.THREADS, None),
        ("create_engine(url, pool_size=0)", Bound.NONE, None),
        ("create_engine(url, max_overflow=-1)", Bound.NONE, None),
        ("create_engine(url, pool_size=settings.size)", Bound.UNKNOWN, None),
        ("create_engine(url, **options)", Bound.UNKNOWN, None),
        ("create_engine(url, pool=made_elsewhere)", Bound.UNKNOWN, None),
        ("create_engine(url, poolclass=OurPool)", Bound.UNKNOWN, None),
        ("create_engine(url, pool_size='20')", Bound.UNKNOWN, None),
        ("create_engine(url, pool_size=True)", Bound.UNKNOWN, None),
    ],
)
def test_an_engine_opens_its_pool_and_its_overflow(call: str, bound: Bound, most: int | None) -> None:
    found = only(f"{SQLALCHEMY}engine = {call}\n")
    assert (found.bound, found.most, str(found.place)) == (bound, most, "app/db.py:4")


@pytest.mark.parametrize(
    ("text", "bound", "most"),
    [
        ("import sqlalchemy as sa\nsa.create_engine(url, pool_size=3)", Bound.POOL, 13),
        ("from sqlalchemy import create_engine as make\nmake(url, pool_size=3)", Bound.POOL, 13),
        ("from sqlmodel import create_engine\ncreate_engine(url)", Bound.POOL, 15),
        ("import sqlalchemy.ext.asyncio as sa\nsa.create_async_engine(url, pool_size=1)", Bound.POOL, 11),
        (
            "from sqlalchemy.ext.asyncio import create_async_engine\nfrom sqlalchemy.pool import NullPool\n"
            "create_async_engine(url, poolclass=NullPool)",
            Bound.NONE,
            None,
        ),
        ("from sqlalchemy import engine_from_config\nengine_from_config(configuration)", Bound.UNKNOWN, None),
        (
            "from sqlalchemy import engine_from_config\nengine_from_config(c, pool_size=3, max_overflow=2)",
            Bound.POOL,
            5,
        ),
        ("from flask_sqlalchemy import SQLAlchemy\nSQLAlchemy(engine_options={'pool_size': 3})", Bound.POOL, 13),
        ("app.config['SQLALCHEMY_ENGINE_OPTIONS'] = {'pool_size': 3, 'max_overflow': 1}", Bound.POOL, 4),
        ("class Config:\n    SQLALCHEMY_ENGINE_OPTIONS = {'pool_size': 3, 'max_overflow': 1}", Bound.POOL, 4),
    ],
)
def test_an_engine_is_found_by_whatever_name_it_is_made(text: str, bound: Bound, most: int | None) -> None:
    found = only(text)
    assert (found.bound, found.most) == (bound, most)


def test_what_only_looks_like_an_engine_is_none() -> None:
    assert opens("from motors import create_engine\ncreate_engine(url, pool_size=20)") == []
    assert opens(f"{SQLALCHEMY}create_engine('sqlite:///local.db')") == []


@pytest.mark.parametrize(
    ("size", "value"),
    [
        ("SIZE", 7),
        ("SIZE * 2 - 1", 13),
        ("int(os.environ.get('DB_POOL', '9'))", 9),
        ("int(os.getenv('DB_POOL') or 8)", 8),
        ("int(os.environ.get('DB_POOL', 5))", 5),
        ("OPTIONS['size']", 4),
        ("int(environ.get('DB_POOL', '6'))", 6),
        ("config('DB_POOL', default=11, cast=int)", 11),
        ("env.int('DB_POOL', default=12)", 12),
    ],
)
def test_constants_and_the_defaults_of_variables_are_followed(size: str, value: int) -> None:
    start = "import os\nfrom os import environ\nfrom decouple import config\nimport environs\nenv = environs.Env()\n"
    start += "SIZE = 7\nOPTIONS = {'size': 4}\n"
    assert only(f"{start}{SQLALCHEMY}create_engine(url, pool_size={size}, max_overflow=0)").most == value


def test_a_variable_that_the_program_is_started_with_goes_before_the_default() -> None:
    text = f"import os\n{SQLALCHEMY}create_engine(url, pool_size=int(os.environ.get('DB_POOL', 5)), max_overflow=0)"
    assert only(text, {"DB_POOL": "40"}).most == 40


def test_a_variable_that_may_be_set_elsewhere_is_unknown_though_it_has_a_default() -> None:
    text = f"import os\n{SQLALCHEMY}create_engine(url, pool_size=int(os.environ.get('DB_POOL', 5)))"
    for environment, complete in (({"DB_POOL": None}, True), ({}, False)):
        found = only(text, environment, complete=complete)
        assert (found.bound, found.why) == (Bound.UNKNOWN, "DB_POOL is set where penstock cannot look")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("SIZE = 5\nSIZE = 6\nE = create_engine(url, pool_size=SIZE)", "SIZE is assigned more than once"),
        ("def make(size=5):\n    return create_engine(url, pool_size=size)", "size is a parameter"),
        ("SIZE = 5\ndef make(SIZE):\n    return create_engine(url, pool_size=SIZE)", "SIZE is a parameter"),
        ("from conf import SIZE\ncreate_engine(url, pool_size=SIZE)", "SIZE comes from conf"),
        ("create_engine(url, pool_size=SIZE)", "SIZE is not assigned here"),
        ("SIZE = SIZE\ncreate_engine(url, pool_size=SIZE)", "SIZE is defined by itself"),
        ("import os\ncreate_engine(url, pool_size=int(os.environ['N']))", "N is set nowhere in these files"),
        ("import os\ncreate_engine(url, pool_size=os.cpu_count())", "os.cpu_count() depends on the machine"),
        ("create_engine(url, pool_size=5 // 0)", "5 // 0 divides by zero"),
        ("for SIZE in (1, 2):\n    create_engine(url, pool_size=SIZE)", "SIZE is a parameter"),
    ],
)
def test_what_is_no_literal_says_what_it_is(text: str, why: str) -> None:
    found = only(SQLALCHEMY + text)
    assert (found.bound, found.most, found.why) == (Bound.UNKNOWN, None, why)


def test_a_local_name_hides_the_module_s_own() -> None:
    text = f"{SQLALCHEMY}SIZE = 5\ndef make():\n    SIZE = 9\n    return create_engine(url, pool_size=SIZE)\n"
    assert only(text).most == 19


@pytest.mark.parametrize(
    ("text", "bound", "most"),
    [
        ("from psycopg_pool import ConnectionPool\nConnectionPool(dsn)", Bound.POOL, 4),
        ("from psycopg_pool import AsyncConnectionPool\nAsyncConnectionPool(dsn, max_size=9)", Bound.POOL, 9),
        ("from psycopg_pool import ConnectionPool\nConnectionPool(dsn, min_size=7)", Bound.POOL, 7),
        ("import psycopg_pool\npsycopg_pool.NullConnectionPool(dsn, max_size=9)", Bound.POOL, 9),
        ("import psycopg_pool\npsycopg_pool.NullConnectionPool(dsn)", Bound.NONE, None),
        ("import asyncpg\nasyncpg.create_pool(dsn)", Bound.POOL, 10),
        ("import asyncpg\nasyncpg.create_pool(dsn, max_size=30)", Bound.POOL, 30),
        ("import asyncpg\nasyncpg.create_pool(**arguments)", Bound.UNKNOWN, None),
        ("from psycopg2.pool import ThreadedConnectionPool\nThreadedConnectionPool(1, 25, dsn)", Bound.POOL, 25),
        ("import aiomysql\naiomysql.create_pool(host='db')", Bound.POOL, 10),
        ("from mysql.connector.pooling import MySQLConnectionPool\nMySQLConnectionPool(pool_name='x')", Bound.POOL, 5),
        ("import mysql.connector\nmysql.connector.connect(pool_size=8)", Bound.POOL, 8),
        ("from dbutils.pooled_db import PooledDB\nPooledDB(psycopg2, 5)", Bound.NONE, None),
        ("from dbutils.pooled_db import PooledDB\nPooledDB(psycopg2, maxconnections=6)", Bound.POOL, 6),
        ("from penstock import Pool\nPool(dsn, max_size=3)", Bound.POOL, 3),
        ("import penstock\npenstock.AsyncPool(dsn)", Bound.POOL, 4),
        ("import penstock\npenstock.AsyncPool.from_budget('web')", Bound.BUDGET, None),
    ],
)
def test_pools_of_every_library(text: str, bound: Bound, most: int | None) -> None:
    found = only(text)
    assert (found.bound, found.most) == (bound, most)


def default(of: Any, name: str) -> Any:
    return inspect.signature(of).parameters[name].default


def test_the_defaults_are_those_of_the_libraries_that_are_installed() -> None:
    assert default(QueuePool, "pool_size") == sqlalchemy.POOL_SIZE
    assert default(QueuePool, "max_overflow") == sqlalchemy.MAX_OVERFLOW
    for pool in (psycopg_pool.ConnectionPool, psycopg_pool.AsyncConnectionPool, Pool):
        assert (default(pool, "min_size"), default(pool, "max_size")) == (django.POOL_DEFAULT, None)
    assert default(asyncpg.create_pool, "max_size") == only("import asyncpg\nasyncpg.create_pool()").most


DJANGO = """
import os
DATABASES = {{
    "default": {{
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ["DB_HOST"],
        "PASSWORD": "s3cret",
        {more}
    }},
}}
"""


@pytest.mark.parametrize(
    ("more", "bound", "most", "line"),
    [
        ("", Bound.THREADS, None, 4),
        ('"CONN_MAX_AGE": 600,', Bound.THREADS, None, 4),
        ('"OPTIONS": {"pool": True},', Bound.POOL, 4, 8),
        ('"OPTIONS": {"pool": False},', Bound.THREADS, None, 8),
        ('"OPTIONS": {"pool": {"max_size": 12}},', Bound.POOL, 12, 8),
        ('"OPTIONS": {"pool": {"min_size": 6}},', Bound.POOL, 6, 8),
        ('"OPTIONS": {"pool": POOL},', Bound.UNKNOWN, None, 8),
        ('"OPTIONS": OPTIONS,', Bound.UNKNOWN, None, 4),
        ('"OPTIONS": {"pool": {"max_size": SIZE}},', Bound.UNKNOWN, None, 8),
    ],
)
def test_django_has_a_pool_when_it_is_told_and_a_connection_a_thread_when_not(
    more: str, bound: Bound, most: int | None, line: int
) -> None:
    found = only(DJANGO.format(more=more))
    assert (found.bound, found.most, found.place.line) == (bound, most, line)
    assert "s3cret" not in repr(found)


@pytest.mark.parametrize(
    ("more", "bound", "most", "service"),
    [
        ('"CONN_MAX_AGE": 600,', Bound.POOL, 4, None),
        ('"OPTIONS": {"pool": {"max_size": 12}},', Bound.POOL, 12, None),
        ('"OPTIONS": {"pool": {"budget": "web"}},', Bound.BUDGET, None, "web"),
        ('"OPTIONS": {"pool": False},', Bound.THREADS, None, None),
    ],
)
def test_our_backend_for_django_has_a_pool_unless_told_otherwise(
    more: str, bound: Bound, most: int | None, service: str | None
) -> None:
    ours = DJANGO.replace("django.db.backends.postgresql", "penstock.integrations.django.postgresql")
    found = only(ours.format(more=more))
    assert (found.bound, found.most, found.service) == (bound, most, service)


def test_each_alias_of_django_counts_but_a_file_s() -> None:
    text = """
    DATABASES = {
        "default": {"ENGINE": "django.db.backends.postgresql", "OPTIONS": {"pool": True}},
        "reports": {"ENGINE": "django.db.backends.mysql"},
        "local": {"ENGINE": "django.db.backends.sqlite3"},
    }
    """
    assert [each.kind for each in opens(text)] == ["DATABASES['default']", "DATABASES['reports']"]


def test_django_settings_that_are_made_at_run_time() -> None:
    made = "import dj_database_url\nDATABASES = {'default': dj_database_url.config(conn_max_age=600)}"
    assert (only(made).bound, only(made).sets) == (Bound.THREADS, "CONN_MAX_AGE=600, no pool")
    env = "import environ\nenv = environ.Env()\n"
    assert only(f"{env}DATABASES = {{'default': env.db('URL')}}").bound is Bound.THREADS
    pooled = "{'default': {**env.db('URL'), 'OPTIONS': {'pool': {'max_size': env.int('POOL', default=7)}}}}"
    assert only(f"{env}DATABASES = {pooled}").most == 7
    later = "DATABASES = {'default': env.db('URL')}\nDATABASES['default']['OPTIONS'] = {'pool': {'max_size': 8}}"
    assert (only(f"{env}{later}").most, only(f"{env}{later}").place.line) == (8, 4)
    later = "DATABASES = {'default': env.db('URL')}\nDATABASES['default']['CONN_MAX_AGE'] = 60"
    assert only(f"{env}{later}").sets == "CONN_MAX_AGE=60, no pool"
    assert only("DATABASES = {'default': {**make(), 'CONN_MAX_AGE': 0}}").bound is Bound.UNKNOWN
    assert only("DATABASES = {'default': read_settings()}").bound is Bound.UNKNOWN
    assert only("DATABASES = make()").bound is Bound.UNKNOWN


def test_a_gunicorn_configuration() -> None:
    text = "import os\nworkers = int(os.environ.get('WEB_CONCURRENCY', 3))\nthreads = '8'\npreload_app = True\n"
    config = gunicorn.read(Module(text, "gunicorn.conf.py"))
    assert config.workers is not None
    assert config.threads is not None
    assert (config.workers.value, str(config.workers.place), config.threads.value) == (3, "gunicorn.conf.py:2", 8)
    assert config.preload is not None
    by_cpus = gunicorn.read(Module("import multiprocessing\nworkers = multiprocessing.cpu_count() * 2 + 1", "g.py"))
    assert by_cpus.workers is not None
    assert by_cpus.workers.value is None
    assert "depends on the machine" in by_cpus.workers.said


@pytest.mark.parametrize("text", ["def (:\n", "x = 1\x00", "(" * 5000])
def test_what_is_no_python_is_said_and_stops_nothing(text: str) -> None:
    with pytest.raises(Unreadable):
        Module(text, "broken.py")


def test_nothing_of_an_application_is_ever_run(tmp_path: Any) -> None:
    proof = tmp_path / "run"
    opened = f"open({str(proof)!r}, 'w')"
    text = f"{opened}\nSIZE = {opened}.fileno()\n{SQLALCHEMY}create_engine(url, pool_size=SIZE)"
    assert only(text).bound is Bound.UNKNOWN
    assert not proof.exists()


def test_a_string_multiplied_into_a_monster_is_not_evaluated() -> None:
    module = Module("X = 'a' * 10**12", "x.py")
    assert isinstance(module.value(module.assignments("X")[0]), Unknown)
