"""An application that would pass its budget is told where, by how much and what to write; unknown is never fine."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner, Result

from penstock.budget import read
from penstock.budget.application import Reading
from penstock.budget.names import whose
from penstock.cli.plan import plan as command
from support.project import ONE_SERVICE, broken, held_against, the_use, unknown, write

ENGINE = """\
from sqlalchemy import create_engine
import os
engine = create_engine(os.environ["DATABASE_URL"], pool_size={size}, max_overflow={more})
"""
GUNICORN = "workers = 4\nthreads = 2\n"
DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  strategy: {{rollingUpdate: {{maxSurge: {surge}}}}}
  template:
    spec:
      containers:
        - {{name: app, image: shop, command: [{command}]}}
"""


def engine(size: int, more: int) -> str:
    return ENGINE.format(size=size, more=more)


def deployment(name: str = "web", replicas: int = 10, surge: str = "0", command: str = "gunicorn, 'app:app'") -> str:
    return DEPLOYMENT.format(name=name, replicas=replicas, surge=surge, command=command)


def test_the_arithmetic_says_where_how_much_and_what_to_write(tmp_path: Path) -> None:
    files = {"app/db.py": engine(20, 10), "gunicorn.conf.py": GUNICORN, "k8s/web.yaml": deployment()}
    (finding,) = broken(held_against(tmp_path, files))
    assert str(finding) == (
        f"{tmp_path}/app/db.py:3: create_engine sets pool_size=20, max_overflow=10: "
        "10 replicas x 4 processes x 30 = 1200 of 92 usable by service web: at most 2 fit"
    )
    assert finding.instead == (f"{tmp_path}/app/db.py:3: pool_size=2, max_overflow=0",)
    assert f"workers = 4 ({tmp_path}/gunicorn.conf.py:1)" in finding.because


@pytest.mark.parametrize(("size", "more", "fits"), [(2, 0, True), (1, 1, True), (3, 0, False), (2, 1, False)])
def test_the_line_is_exact_and_what_it_says_to_write_holds(tmp_path: Path, size: int, more: int, fits: bool) -> None:
    files = {"app/db.py": engine(size, more), "gunicorn.conf.py": GUNICORN, "k8s/web.yaml": deployment()}
    reading = held_against(tmp_path, files)
    assert reading.fits is fits
    assert the_use(reading).total == 40 * (size + more)


@pytest.mark.parametrize(("size", "fits"), [(92, True), (93, False)])
def test_the_last_usable_connection_fits_and_one_more_does_not(tmp_path: Path, size: int, fits: bool) -> None:
    files = {"app/db.py": engine(size, 0), "k8s/web.yaml": deployment(replicas=1)}
    reading = held_against(tmp_path, files)
    assert reading.fits is fits
    assert [each.what.partition(" x ")[2] for each in broken(reading)] == (
        [] if fits else ["1 process x 93 = 93 of 92 usable by service web: at most 92 fit"]
    )


def test_surge_counts(tmp_path: Path) -> None:
    declared = ONE_SERVICE.replace("surge = 0", 'surge = "25%"').replace("100", "60")
    files = {"db.py": engine(1, 0), "gunicorn.conf.py": GUNICORN}
    assert held_against(tmp_path, files | {"k8s.yaml": deployment(surge="25%")}, declared).fits is True
    reading = held_against(tmp_path, files | {"k8s.yaml": deployment(surge="100%")}, declared)
    assert the_use(reading).total == 80
    assert [each.place.file for each in broken(reading)] == [f"{tmp_path}/db.py", f"{tmp_path}/k8s.yaml"]


def test_when_not_even_one_fits_the_ways_out_have_figures(tmp_path: Path) -> None:
    files = {"db.py": engine(5, 0), "gunicorn.conf.py": "workers = 20\n", "k8s.yaml": deployment()}
    finding = broken(held_against(tmp_path, files))[0]
    assert finding.what.endswith("not even 1 fits")
    assert finding.instead[0] == "run at most 9 processes in each replica, and let the pool open 1 in each process"
    assert any("PgBouncer" in each for each in finding.instead)


TWO_POOLS = "from sqlalchemy import create_engine\n" + "".join(
    f'{name} = create_engine("{name}://", pool_size={{size}}, max_overflow=0)\n' for name in ("one", "two")
)


@pytest.mark.parametrize(
    ("way", "replicas", "workers", "surge", "total"),
    [
        ("run at most 1 process in each replica", 20, 1, "50%", 60),
        ("run at most 4 replicas", 4, 6, "50%", 72),
    ],
)
def test_a_way_out_counts_every_pool_of_a_process_and_a_surge_that_follows_the_replicas(
    tmp_path: Path, way: str, replicas: int, workers: int, surge: str, total: int
) -> None:
    declared = ONE_SERVICE.replace("surge = 0", 'surge = "50%"').replace("= 100", "= 86")
    declared = declared.replace("replicas = 10", "replicas = 20").replace("processes = 4", "processes = 6")

    def reading(size: int, replicas: int, workers: int, surge: str) -> Reading:
        files = {"db.py": TWO_POOLS.format(size=size), "gunicorn.conf.py": f"workers = {workers}\n"}
        return held_against(tmp_path, files | {"k8s.yaml": deployment("web", replicas, surge)}, declared)

    found = broken(reading(5, 20, 6, "50%"))[0]
    assert "6 processes x 10 = 1800 of 78" in found.what
    assert f"{way}, and let these 2 pools open 2 together in each process" in found.instead
    done = reading(1, replicas, workers, surge)
    assert (the_use(done).total, done.fits) == (total, True)
    more_workers, more_replicas = (workers + 1, replicas) if workers == 1 else (workers, replicas + 1)
    assert reading(1, more_replicas, more_workers, surge).fits is False


@pytest.mark.parametrize("replicas", [9, 20, 31])
@pytest.mark.parametrize("surge", ["0", "1", "7", "25%", "50%", "100%"])
@pytest.mark.parametrize("workers", [3, 8])
def test_each_way_out_with_a_figure_fits_once_it_is_taken(
    tmp_path: Path, replicas: int, surge: str, workers: int
) -> None:
    declared = ONE_SERVICE.replace("= 100", "= 38").replace("= 10", "= 99").replace("processes = 4", "processes = 9")

    def reading(replicas: int, surge: str, workers: int, size: int) -> Reading:
        files = {"db.py": TWO_POOLS.format(size=size), "gunicorn.conf.py": f"workers = {workers}\n"}
        return held_against(tmp_path, files | {"k8s.yaml": deployment("web", replicas, surge)}, declared)

    finding = broken(reading(replicas, surge, workers, 4))[0]
    for way in finding.instead:
        if (found := re.match(r"(?:run|let a deploy start) at most (\d+) (process|replica|extra)", way)) is not None:
            most, of = int(found[1]), found[2]
            together = re.search(r"let these 2 pools open (\d+) together", way)
            size = 4 if together is None else int(together[1]) // 2
            assert size >= 1, way
            taken = reading(
                most if of == "replica" else replicas, str(most) if of == "extra" else surge,
                most if of == "process" else workers, size,
            )  # fmt: skip
            assert taken.fits, (way, taken.findings)
    assert "PgBouncer" in finding.instead[-1]


def test_a_surge_that_the_budget_declares_in_percent_follows_its_replicas(tmp_path: Path) -> None:
    declared = ONE_SERVICE.replace("surge = 0", 'surge = "50%"').replace("= 100", "= 86").replace("= 10", "= 20")
    (finding,) = broken(held_against(tmp_path, {"db.py": TWO_POOLS.format(size=1)}, declared))
    assert "run at most 6 replicas" in finding.instead  # (6 + 3) x 4 x 2 = 72 of 78, and 7 + 4 would be 88


def test_compose_s_all_at_once_follows_the_replicas(tmp_path: Path) -> None:
    compose = (
        "services: {web: {build: ., command: 'gunicorn app:app -w 4', "
        "deploy: {replicas: 20, update_config: {order: start-first, parallelism: 0}}}}"
    )
    found = broken(held_against(tmp_path, {"db.py": TWO_POOLS.format(size=1), "compose.yaml": compose}))
    assert "run at most 5 replicas" in [way for finding in found for way in finding.instead]  # 10 x 4 x 2 = 80 of 92


def test_pools_that_are_more_than_fit_are_not_told_to_open_less_than_one_each(tmp_path: Path) -> None:
    files = {"db.py": TWO_POOLS.format(size=1), "gunicorn.conf.py": "workers = 6\n", "k8s.yaml": deployment()}
    (finding, _) = broken(held_against(tmp_path, files))
    assert finding.what.endswith("at most 1 fits, and these are 2 pools")
    assert finding.instead[0] == "run at most 4 processes in each replica"
    assert not any("let these" in each for each in finding.instead)


def test_more_replicas_or_processes_than_declared_break_the_budget_even_with_small_pools(tmp_path: Path) -> None:
    files = {"db.py": engine(1, 0), "gunicorn.conf.py": "workers = 5\n", "k8s.yaml": deployment(replicas=12)}
    (finding,) = broken(held_against(tmp_path, files))
    assert finding.what == (
        "service web has 60 processes at the worst moment, and the budget counts on 40: "
        "replicas: 12 and penstock.toml has replicas = 10; workers = 5 and penstock.toml has processes = 4"
    )
    assert finding.instead == (
        "penstock.toml:7: [services.web]: replicas = 12",
        "penstock.toml:7: [services.web]: processes = 5",
    )


def test_all_pools_of_a_process_count_together(tmp_path: Path) -> None:
    files = {
        "db.py": engine(1, 0),
        "audit.py": "import asyncpg\nasync def pool():\n    return await asyncpg.create_pool(max_size=4)\n",
        "gunicorn.conf.py": GUNICORN,
        "k8s.yaml": deployment(),
    }
    (finding,) = broken(held_against(tmp_path, files))
    assert finding.place.file.endswith("audit.py")
    assert "x 5 = 200 of 92" in finding.what
    assert f"and create_engine at {tmp_path}/db.py:3 sets pool_size=1" in finding.what
    assert finding.instead == (f"{tmp_path}/audit.py:3: min_size=1, max_size=1",)


@pytest.mark.parametrize(
    ("command", "code", "total"),
    [
        ("gunicorn, 'app:app', --workers, '4', --threads, '2'", "thread", 80),
        ("gunicorn, 'app:app', --workers, '4'", "thread", 40),
        ("gunicorn, 'app:app', --workers, '1', -k, gevent, --worker-connections, '9'", "thread", 90),
    ],
)
def test_without_a_pool_the_threads_bound_it(tmp_path: Path, command: str, code: str, total: int) -> None:
    settings = 'DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql"}}\n'
    reading = held_against(tmp_path, {"shop/settings.py": settings, "k8s.yaml": deployment(command=command)})
    assert (the_use(reading).total, reading.fits) == (total, True)


def test_what_nothing_bounds_breaks_any_budget(tmp_path: Path) -> None:
    settings = 'DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql"}}\n'
    files = {"shop/settings.py": settings, "k8s.yaml": deployment(command="uvicorn, 'shop.asgi:app', --workers, '4'")}
    (finding,) = broken(held_against(tmp_path, files))
    assert "uvicorn serves any number of requests at once: nothing keeps service web within its share" in finding.what
    assert finding.instead == (
        f'{tmp_path}/shop/settings.py:1: OPTIONS["pool"] = {{"min_size": 2, "max_size": 2}}, CONN_MAX_AGE = 0',
    )
    endless = held_against(tmp_path / "b", {"db.py": engine(5, -1), "k8s.yaml": deployment()})
    assert "max_overflow=-1 means no limit" in broken(endless)[0].what


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"db.py": "from sqlalchemy import create_engine\ncreate_engine(u, pool_size=cfg.n)\n"}, "cfg.n is no literal"),
        ({"db.py": engine(1, 0), "k8s.yaml": deployment(command="celery, worker")}, "a process for each CPU"),
        ({"db.py": engine(1, 0), "k8s.yaml": deployment().replace("10", "'{n}'")}, "is no whole number"),
        ({"db.py": engine(1, 0), "compose.yaml": "services: {web: {deploy: {mode: global}}}"}, "on each node"),
        ({"k8s.yaml": deployment()}, "no pool was found in its code"),
        ({}, "no pool was found"),
        ({"db.py": engine(1, 0), "k8s.yaml": deployment(command="gunicorn, -c, /g.py, 'a:b'")}, "/g.py is not among"),
    ],
)
def test_what_is_unknown_is_said_and_never_fine(tmp_path: Path, files: dict[str, str], says: str) -> None:
    reading = held_against(tmp_path, files)
    assert any(says in each for each in unknown(reading)), reading.findings
    assert reading.fits is None
    assert "no proof" in str(reading)
    assert all(use.total is None for use in reading.uses)


def test_what_is_known_breaks_the_budget_though_something_else_is_unknown(tmp_path: Path) -> None:
    code = engine(20, 10) + "other = create_engine(os.environ['DATABASE_URL'], pool_size=cfg.n)\n"
    reading = held_against(tmp_path, {"db.py": code, "gunicorn.conf.py": GUNICORN, "k8s.yaml": deployment()})
    assert reading.fits is False
    assert "x 30 = 1200 of 92" in broken(reading)[0].what
    assert the_use(reading).total is None


def test_a_limit_that_nobody_knows_is_unknown(tmp_path: Path) -> None:
    files = {"db.py": engine(1, 0), "k8s.yaml": deployment()}
    reading = held_against(tmp_path, files, ONE_SERVICE.replace("max_connections = 100\n", ""))
    assert unknown(reading) == ["databases.main: max_connections is neither declared nor known"]
    assert unknown(reading) and reading.fits is None  # noqa: PT018


SIDE = (
    ONE_SERVICE
    + """
[services.web.side_pools.celery]
processes = 2
size = 2
[services.api]
database = "main"
replicas = 2
surge = 0
"""
)


def test_programs_are_known_by_name_by_label_and_by_what_they_run(tmp_path: Path) -> None:
    files = {
        "db.py": engine(1, 0),
        "a.yaml": deployment("shop-api", 2),
        "b.yaml": deployment("worker", 2, command="celery, -A, app, worker, -c, '3'"),
        "c.yaml": deployment("web", 2),
        "d.yaml": deployment("redis", command="redis-server"),
    }
    reading = held_against(tmp_path, files, SIDE)
    assert {(use.program, use.service, use.side_pool) for use in reading.uses} == {
        ("shop-api", "api", None),
        ("worker", "web", "celery"),
        ("web", "web", None),
    }
    assert [each.what for each in reading.findings if each.level == "note"] == [
        f"not compared, no service of penstock.toml has their name: redis ({tmp_path}/d.yaml:3)"
    ]


@pytest.mark.parametrize(
    ("names", "runner", "whose_it_is"),
    [
        (("web", "celery"), "celery", ("web", "celery")),  # a worker beside the server, in the server's own pod
        (("web", "celery"), "gunicorn", ("web", None)),
        (("web", "app"), "celery", ("web", "celery")),
        (("shop_api",), "gunicorn", ("api", None)),
        (("web-api",), "gunicorn", None),  # it could be either
        (("webshop",), "gunicorn", None),  # a part is a whole word
        (("worker", "api"), "gunicorn", ("api", None)),
    ],
)
def test_a_name_is_one_thing_in_the_budget_or_none(
    names: tuple[str, ...], runner: str, whose_it_is: tuple[str, str | None] | None
) -> None:
    assert whose(read(SIDE), names, runner) == whose_it_is


def test_a_side_pool_may_have_what_is_declared_for_it(tmp_path: Path) -> None:
    # 10 replicas x 2 processes x 2 = 40 are declared.
    files = {"db.py": engine(2, 0), "b.yaml": deployment("worker", 11, command="celery, -A, app, worker, -c, '2'")}
    (second, first) = broken(held_against(tmp_path, files, SIDE))
    assert "11 replicas x 2 processes x 2 = 44 of 40 usable by web/celery" in first.what
    assert "worker (web/celery) has 22 processes at the worst moment, and the budget counts on 20" in second.what


def test_a_program_that_nobody_declared_is_counted_by_nobody(tmp_path: Path) -> None:
    files = {"db.py": engine(1, 0), "a.yaml": deployment(), "b.yaml": deployment("mailer")}
    (finding,) = broken(held_against(tmp_path, files))
    assert finding.what.startswith("Deployment mailer opens connections (create_engine at ")
    assert "nobody counts it" in finding.what


def test_services_that_each_use_what_is_left_over_are_too_many_together(tmp_path: Path) -> None:
    declared = """
    [databases.main]
    max_connections = 20
    reserved = 0
    headroom = 0
    [services.a]
    database = "main"
    replicas = 7
    surge = 0
    [services.b]
    database = "main"
    replicas = 7
    surge = 0
    """  # 20 // 14 = 1 each, and 6 are left over: either service may have 13, both may not
    side = {"a/db.py": engine(1, 0), "b/db.py": engine(1, 0)}
    compose = "services:\n  a: {build: a, scale: 7}\n  b: {build: b, scale: 7}\n"
    assert held_against(tmp_path, side | {"compose.yaml": compose}, declared).fits is True
    compose = compose.replace("build: a, scale: 7", "build: a, scale: 5").replace("b, scale: 7", "b, scale: 5")
    both = {"a/db.py": engine(2, 0), "b/db.py": engine(2, 0), "compose.yaml": compose}
    assert held_against(tmp_path, both, declared).fits is True
    more = both | {"b/db.py": engine(2, 0), "compose.yaml": compose.replace("build: b, scale: 5", "build: b, scale: 6")}
    (finding,) = broken(held_against(tmp_path, more, declared))
    assert finding.what == "database main: together services hold 22 of 20: a 10, b 12"


def test_each_directory_s_code_is_its_own_program_s(tmp_path: Path) -> None:
    files = {
        "backend/db.py": engine(1, 0),
        "backend/Dockerfile": 'FROM python\nENV WEB_CONCURRENCY=3\nCMD ["gunicorn", "app:app"]\n',
        "other/db.py": engine(900, 0),
        "deploy/compose.yaml": "services: {web: {build: ../backend, scale: 2}}",
    }
    use = the_use(held_against(tmp_path, files))
    assert (use.alive, use.processes, use.each) == (2, 3, 1)


def test_the_same_program_in_several_environments_is_not_added_up(tmp_path: Path) -> None:
    files = {
        "db.py": engine(2, 0),
        "gunicorn.conf.py": GUNICORN,
        "k8s/staging/web.yaml": deployment(replicas=2),
        "k8s/production/web.yaml": deployment(replicas=10),
    }
    assert held_against(tmp_path, files).fits is True


def test_an_engine_for_another_database_of_the_budget_is_not_this_one_s(tmp_path: Path) -> None:
    declared = ONE_SERVICE + '[databases.reports]\nurl = "env:REPORTS_URL"\nmax_connections = 50\n'
    code = engine(1, 0) + "r = create_engine(os.environ['REPORTS_URL'], pool_size=40)\n"
    reading = held_against(tmp_path, {"db.py": code, "k8s.yaml": deployment()}, declared)
    assert the_use(reading).each == 1
    assert unknown(reading) == [
        "create_engine is for database reports, and penstock.toml has no service for that: not compared"
    ]


def test_pools_that_read_their_share_are_within_it(tmp_path: Path) -> None:
    code = "from penstock import Pool\npool = Pool.from_budget('{}')\n"
    files = {"gunicorn.conf.py": GUNICORN, "k8s.yaml": deployment()}
    assert held_against(tmp_path, files | {"db.py": code.format("web")}).fits is True
    assert the_use(held_against(tmp_path, files | {"db.py": code.format("web")})).each == 2
    wrong = held_against(tmp_path, files | {"db.py": code.format("wbe")})
    assert "penstock.toml has no service 'wbe'" in broken(wrong)[0].what
    many = held_against(tmp_path, files | {"db.py": code.format("web"), "k8s.yaml": deployment(replicas=30)})
    assert "has 120 processes at the worst moment, and the budget counts on 40" in broken(many)[0].what


def test_the_pool_of_another_service_in_the_same_code_is_not_this_one_s(tmp_path: Path) -> None:
    code = "from penstock import Pool\n"
    code += "".join(f"def {name}():\n    return Pool.from_budget('{name}')\n" for name in ("web", "api"))
    files = {"db.py": code, "gunicorn.conf.py": GUNICORN, "k8s.yaml": deployment()}
    reading = held_against(tmp_path, files, SIDE)
    assert (the_use(reading).each, reading.fits) == (1, True)


def test_a_side_pool_that_takes_its_service_s_share_has_more_than_is_declared_for_it(tmp_path: Path) -> None:
    declared = SIDE.replace("size = 2", "size = 1").replace("max_connections = 100", "max_connections = 300")
    files = {
        "db.py": "from penstock import Pool\npool = Pool.from_budget('web')\n",
        "k8s.yaml": deployment("worker", 10, command="celery, -A, app, worker, -c, '2'"),
    }
    (finding,) = broken(held_against(tmp_path, files, declared))
    assert "10 replicas x 2 processes x 6 = 120 of 20 usable by web/celery: at most 1 fits" in finding.what


def test_code_that_no_file_deploys_is_held_against_the_only_service(tmp_path: Path) -> None:
    files = {"db.py": engine(3, 0), "gunicorn.conf.py": GUNICORN}
    assert "x 3 = 120 of 92" in broken(held_against(tmp_path, files))[0].what
    assert "say --service web|api" in unknown(held_against(tmp_path, files, SIDE))[0]
    assert the_use(held_against(tmp_path, files, SIDE, "api")).service == "api"


def test_migrations_run_beside_a_deploy_and_not_in_it(tmp_path: Path) -> None:
    env = "from alembic import context\nfrom sqlalchemy import create_engine, pool\ncreate_engine('x', pool_size=50)\n"
    files = {"db.py": engine(1, 0), "migrations/env.py": env, "gunicorn.conf.py": GUNICORN}
    reading = held_against(tmp_path, files)
    assert the_use(reading).each == 1
    assert [each.place.file for each in reading.findings] == [f"{tmp_path}/migrations/env.py"]


def test_a_pool_that_is_opened_before_the_fork_is_said(tmp_path: Path) -> None:
    files = {"db.py": engine(1, 0), "gunicorn.conf.py": "workers = 4\npreload_app = True\n", "k8s.yaml": deployment()}
    (finding,) = held_against(tmp_path, files).findings
    assert (finding.level, finding.place.line) == ("note", 2)


def test_django_is_started_with_one_settings_module(tmp_path: Path) -> None:
    text = 'DATABASES = {{"default": {{"ENGINE": "x.postgresql", "OPTIONS": {{"pool": {{"max_size": {}}}}}}}}}'
    files = {"shop/settings/production.py": text.format(2), "shop/settings/local.py": text.format(50)}
    compose = "services: {web: {build: ., command: gunicorn shop.wsgi -w 4%s}}"
    named = compose % ", environment: {DJANGO_SETTINGS_MODULE: shop.settings.production}"
    assert the_use(held_against(tmp_path, files | {"compose.yaml": named})).each == 2
    assert the_use(held_against(tmp_path, files | {"compose.yaml": compose % ""})).each == 50


def test_flask_has_the_default_pool_until_its_options_say_otherwise(tmp_path: Path) -> None:
    app = "from flask_sqlalchemy import SQLAlchemy\ndb = SQLAlchemy()\n"
    options = "class {}:\n    SQLALCHEMY_ENGINE_OPTIONS = {{'pool_size': {}, 'max_overflow': 0}}\n"
    files = {"app.py": app, "compose.yaml": "services: {web: {build: ., command: gunicorn app:app}}"}
    assert the_use(held_against(tmp_path, files)).each == 15
    config = options.format("Development", 3) + options.format("Production", 2)
    assert the_use(held_against(tmp_path, files | {"config.py": config})).each == 3


# ---------------------------------------------------------------------------------------------- the command


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command in a project with these files."""
    for name in ("PENSTOCK_TOML", "PENSTOCK_ENV", "DATABASE_URL", "GITHUB_ACTIONS", "GITHUB_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*words: str, files: dict[str, str], declared: str = ONE_SERVICE, **environ: str) -> Result:
        write(tmp_path, files | {"penstock.toml": declared})
        app = Typer()
        app.command()(command)
        return CliRunner().invoke(app, ["--offline", *words], env=environ)

    return run


BAD = {"db.py": engine(20, 10), "gunicorn.conf.py": GUNICORN, "k8s.yaml": deployment()}


def test_the_command_prints_it_and_fails(run: Callable[..., Result]) -> None:
    told = run("--app", ".", files=BAD)
    assert told.exit_code == 1
    assert "db.py:3: create_engine sets pool_size=20, max_overflow=10" in told.stdout
    assert "  - db.py:3: pool_size=2, max_overflow=0" in told.stdout
    assert told.stdout.splitlines()[-1] == ".: 1 thing breaks the budget"


def test_a_figure_is_written_as_the_file_takes_it(run: Callable[..., Result]) -> None:
    declared = ONE_SERVICE.replace("= 100", "= 2000")
    told = run("--app", ".", files=BAD | {"db.py": engine(2000, 100)}, declared=declared)
    assert re.search(r"\b84000\b", told.stdout), told.stdout
    assert "1992 usable" in told.stdout
    assert not re.search(r"\d,\d{3}", told.stdout)


def test_what_it_says_to_write_makes_it_pass(run: Callable[..., Result]) -> None:
    told = run("--app", ".", files=BAD | {"db.py": engine(2, 0)})
    assert told.exit_code == 0, told.stdout
    assert told.stdout.splitlines()[-1] == ".: stays within the budget"


def test_in_ci_it_stands_on_the_line_and_what_is_unknown_is_a_warning(run: Callable[..., Result]) -> None:
    code = engine(20, 10) + "other = create_engine(os.environ['DATABASE_URL'], pool_size=cfg.n)\n"
    told = run("--app", ".", "--check", files=BAD | {"db.py": code}, GITHUB_ACTIONS="true")
    commands = [line for line in told.stdout.splitlines() if line.startswith("::")]
    places = [each.partition(",title")[0] for each in commands]
    assert places == ["::error file=db.py,line=3", "::warning file=db.py,line=4"]


def test_the_command_speaks_json(run: Callable[..., Result]) -> None:
    found = json.loads(run("--app", ".", "--json", files=BAD).stdout)
    assert found["fits"] is True
    assert found["application"]["fits"] is False
    assert found["application"]["uses"][0]["total"] == 1200
    assert found["application"]["findings"][0]["place"] == {"file": "db.py", "line": 3}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--app", "nowhere"), "--app nowhere: No such file or directory"),
        (("--app", "db.py"), "--app db.py: Not a directory"),
        (("--app", ".", "--service", "wbe"), "--service wbe: there are web"),
        (("--service", "web"), "--service goes with --emit or --app"),
        (("--app", ".", "--emit", "env"), "--emit prints settings and nothing else"),
    ],
)
def test_a_wrong_question_is_refused(run: Callable[..., Result], words: tuple[str, ...], why: str) -> None:
    told = run(*words, files=BAD)
    assert told.exit_code == 2
    assert why in told.stderr


def test_no_secret_of_an_application_is_ever_printed(run: Callable[..., Result]) -> None:
    secret = "hunter2-s3cret"
    files = {
        "db.py": f"from sqlalchemy import create_engine as make\nmake('postgresql://{secret}', pool_size='{secret}')\n",
        "settings.py": f"DATABASES = {{'default': env.db('URL', default='postgresql://u:{secret}@h/d')}}\n",
        "jobs.py": f"import asyncpg\nasyncpg.create_pool(**make('{secret}', f'{secret}'))\n",
        "pool.py": f"import asyncpg\nasyncpg.create_pool(password='{secret}', max_size='{secret}')\n",
        ".env": f"PASSWORD={secret}\n",
        "compose.yaml": f"services: {{web: {{build: ., env_file: .env, environment: {{WEB_CONCURRENCY: {secret}}}}}}}",
        "gunicorn.conf.py": f"workers = '{secret}'\n",
        "k8s.yaml": deployment().replace("10", secret).replace('"0"', secret),
        "Dockerfile": f"ENV PASSWORD={secret}\nCMD uvicorn app:app --workers {secret}\n",
    }
    for words in ((), ("--json",), ("--check",)):
        told = run("--app", ".", *words, files=files, GITHUB_ACTIONS="true")
        assert secret not in told.output
