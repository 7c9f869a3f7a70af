"""The settings that are printed for a stack are of its language, mean what they say, and keep it within its share."""

import ast
import asyncio
import configparser
import inspect
import json
import os
import shutil
import subprocess
import textwrap
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import psycopg_pool
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.pool import QueuePool
from typer import Typer
from typer.testing import CliRunner, Result

from penstock import BudgetError, budget
from penstock.budget import application
from penstock.budget.emit import STACKS, emit
from penstock.cli.plan import plan as command
from penstock.drill.postgres import EmbeddedPostgres
from support.pgbouncer import PgBouncer
from support.project import held_against, the_use, write
from support.waiting import aside, eventually

SHOP = """
[databases.main]
url = "env:SHOP_URL"
max_connections = 200
reserved = 3
headroom = 7
[services.web]
database = "main"
replicas = 4
surge = "25%"
processes = 4
weight = 2
[services.jobs]
database = "main"
replicas = 2
surge = 0
[services.api]
through = "edge"
replicas = 3
surge = 0
[poolers.edge]
database = "main"
url = "env:EDGE_URL"
instances = 2
pool_size = 3
max_clients = 40
"""
SHARE = budget.static_share(budget.read(SHOP), "web")  # shares themselves are the subject of test_budget_shares


def printed(stack: str, service: str | None = "web", declared: str = SHOP) -> str:
    found = budget.read(textwrap.dedent(declared))
    accounts = [budget.account(found, name) for name in found.databases]
    accounts += [budget.pooler_account(found, name) for name in found.poolers]
    return emit(stack, found, {f"{each.kind}:{each.name}": each for each in accounts if each}, service)


def run_python(text: str, **variables: str) -> dict[str, Any]:
    """The module that *text* is, with these variables in its environment."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        names: dict[str, Any] = {}
        exec(compile(text, "settings.py", "exec"), names)
        return names
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.mark.parametrize("stack", [each for each in STACKS if each != "pgbouncer"])
def test_each_says_where_its_figure_comes_from(stack: str) -> None:
    text = printed(stack)
    assert "Service web (penstock.toml:7): at most 8 connections a process." in text
    assert "database main: 200 connections, 16 spoken for: 184 usable." in text
    assert "(4 + 1 in a deploy) x 4 processes = 20 at the worst moment." in text
    assert "20 x 8 = 160 of 184; 24 are for other services or left over." in text
    assert text.endswith("\n")


@pytest.mark.parametrize("service", ["web", "api"])
def test_sqlalchemy_makes_an_engine_of_that_size(service: str) -> None:
    text = printed("sqlalchemy", service)
    url = {"SHOP_URL" if service == "web" else "EDGE_URL": "postgresql+psycopg://db/shop"}
    engine = run_python(text, **url)["engine"]
    assert isinstance(engine.pool, QueuePool)
    share = budget.static_share(budget.read(SHOP), service)
    assert (engine.pool.size(), engine.pool._max_overflow, engine.pool.timeout()) == (share, 0, 10)
    assert ("prepare_threshold" in text) == (service == "api")


def test_psycopg_makes_a_pool_of_that_size() -> None:
    pool = run_python(printed("psycopg"), SHOP_URL="postgresql://db/shop")["pool"]
    assert isinstance(pool, psycopg_pool.ConnectionPool)
    assert (pool.min_size, pool.max_size, pool.timeout, pool.closed) == (4, SHARE, 10, True)
    assert pool.kwargs == {"connect_timeout": 5}
    behind = run_python(printed("psycopg", "api"), EDGE_URL="postgresql://db/shop")["pool"]
    assert behind.kwargs == {"connect_timeout": 5, "prepare_threshold": None}


async def called_with(text: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    given: dict[str, Any] = {}

    async def create_pool(dsn: str, **arguments: Any) -> None:
        given.update(arguments, dsn=dsn)

    monkeypatch.setattr(asyncpg, "create_pool", create_pool)
    monkeypatch.setenv("SHOP_URL", "postgresql://db/shop")
    monkeypatch.setenv("EDGE_URL", "postgresql://edge/shop")
    names = run_python(text)
    await names["make_pool"]()
    return given


def test_asyncpg_takes_every_argument_and_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {*inspect.signature(asyncpg.create_pool).parameters, *inspect.signature(asyncpg.connect).parameters}
    given = asyncio.run(called_with(printed("asyncpg"), monkeypatch))
    assert (given["min_size"], given["max_size"], given["dsn"]) == (4, SHARE, "postgresql://db/shop")
    behind = asyncio.run(called_with(printed("asyncpg", "api"), monkeypatch))
    assert behind["statement_cache_size"] == 0
    assert given.keys() | behind.keys() <= known


def test_django_has_a_pool_of_that_size_and_no_option_that_the_pool_does_not_take() -> None:
    settings = run_python(printed("django"))["DATABASES"]["default"]
    assert settings["OPTIONS"]["pool"].keys() <= inspect.signature(psycopg_pool.ConnectionPool).parameters.keys()
    assert settings["OPTIONS"]["pool"]["max_size"] == SHARE
    assert settings["CONN_MAX_AGE"] == 0
    assert "DISABLE_SERVER_SIDE_CURSORS" not in settings
    behind = run_python(printed("django", "api"))["DATABASES"]["default"]
    assert behind["DISABLE_SERVER_SIDE_CURSORS"] is True
    assert behind["OPTIONS"]["prepare_threshold"] is None


@pytest.mark.parametrize(
    ("stack", "package", "makes", "size"),
    [
        ("node-postgres", "pg", "export default { Pool: function (c) { console.log(JSON.stringify(c)) } }", "max"),
        ("mysql2", "mysql2", "export default { createPool: (c) => console.log(JSON.stringify(c)) }", "connectionLimit"),
    ],
)
def test_node_makes_a_pool_of_that_size(tmp_path: Path, stack: str, package: str, makes: str, size: str) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node to read it")
    inside = tmp_path / "node_modules" / package
    inside.mkdir(parents=True)
    (inside / "index.mjs").write_text(makes)
    exports = {".": "./index.mjs", "./promise": "./index.mjs"}
    (inside / "package.json").write_text(json.dumps({"name": package, "exports": exports}))
    (tmp_path / "db.mjs").write_text(printed(stack))
    told = subprocess.run(
        [node, "db.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=30, env={"SHOP_URL": "x://db/shop"}
    )
    assert told.stderr == ""
    made = json.loads(told.stdout)
    assert made[size] == SHARE
    assert "x://db/shop" in made.values()


def test_laravel_bounds_the_children_that_have_a_connection_each() -> None:
    parser = configparser.ConfigParser()
    parser.read_string(printed("laravel"))
    fpm = {name: int(value) for name, value in parser["www"].items() if name != "pm"}
    assert fpm["pm.max_children"] == 4 * SHARE
    # php-fpm refuses to start unless these hold.
    assert 1 <= fpm["pm.min_spare_servers"] <= fpm["pm.start_servers"] <= fpm["pm.max_spare_servers"]
    assert fpm["pm.max_spare_servers"] <= fpm["pm.max_children"]


def test_hikaricp_is_a_properties_file() -> None:
    lines = [line for line in printed("hikaricp").splitlines() if line and not line.startswith("#")]
    found = dict(line.split("=") for line in lines)
    assert len(found) == len(lines)
    hikari = {name.removeprefix("spring.datasource.hikari."): value for name, value in found.items()}
    assert hikari["maximum-pool-size"] == str(SHARE)
    # HikariCP resets what it holds for wrong, with no more than a warning: idle-timeout has to be below max-lifetime.
    assert int(hikari["idle-timeout"]) + 1000 < int(hikari["max-lifetime"])
    assert int(hikari["validation-timeout"]) < int(hikari["connection-timeout"])


@pytest.mark.parametrize(
    ("stack", "says"),
    [
        ("sqlalchemy", '"prepare_threshold": None'),
        ("django", '"prepare_threshold": None'),
        ("psycopg", '"prepare_threshold": None'),
        ("asyncpg", "statement_cache_size=0"),
        ("hikaricp", "\nspring.datasource.hikari.data-source-properties.prepareThreshold=0\n"),
        ("laravel", "'options' => [PDO::ATTR_EMULATE_PREPARES => true],"),
        ("node-postgres", "Only a query with a name is prepared: give none."),
        ("mysql2", "execute() prepares: use query()."),
        ("env", "prepare none."),
    ],
)
def test_behind_a_pooler_each_stack_says_how_nothing_is_prepared_and_elsewhere_none_does(stack: str, says: str) -> None:
    assert says in printed(stack, "api")
    assert "may be on another connection: prepare none." in printed(stack, "api")
    assert says not in printed(stack, "web")


def test_comments_of_a_pooler_leave_every_file_readable() -> None:
    parser = configparser.ConfigParser()
    parser.read_string(printed("laravel", "api"))
    assert parser.sections() == ["www"]
    lines = [line for line in printed("hikaricp", "api").splitlines() if line and not line.startswith("#")]
    assert all(line.startswith("spring.datasource.hikari.") and line.count("=") == 1 for line in lines)


def test_pgbouncer_s_ini_names_what_an_older_one_refuses_and_leaves_it_off() -> None:
    parser = configparser.ConfigParser()
    parser.read_string(printed("pgbouncer", None))
    assert "max_prepared_statements" not in parser["pgbouncer"]
    assert "\n;max_prepared_statements = " in printed("pgbouncer", None)


def test_variables_can_be_read_by_a_shell() -> None:
    told = subprocess.run(
        ["/bin/sh", "-ec", f"set -a\n{printed('env')}\nexec env"], capture_output=True, text=True, check=True, env={}
    )
    found = dict(line.split("=", 1) for line in told.stdout.splitlines())
    assert (found["DB_POOL_SIZE"], found["DB_MAX_OVERFLOW"], found["WEB_CONCURRENCY"]) == (str(SHARE), "0", "4")


# ---------------------------------------------------------------------------------------------- pgbouncer


@pytest.mark.parametrize("prepares", [False, True], ids=["before-1.21", "since-1.21"])
def test_a_real_pgbouncer_starts_with_it_and_holds_the_line(postgres: EmbeddedPostgres, prepares: bool) -> None:
    parser = configparser.ConfigParser()
    parser.read_string(printed("pgbouncer", None))
    settings = dict(parser["pgbouncer"])
    assert settings.pop("pool_mode") == "transaction"
    with PgBouncer(postgres, prepares=prepares, **settings) as bouncer, ExitStack() as clients:
        config = {row["key"]: row["value"] for row in bouncer.show("config")}
        assert {name: config[name] for name in settings} == settings
        first, second, third, fourth = [clients.enter_context(psycopg.connect(bouncer.dsn)) for _ in range(4)]
        for client in (first, second, third):
            client.execute("SELECT 1")  # which opens a transaction, and holds a server connection until it ends
        answer = aside(lambda: fourth.execute("SELECT 1").fetchone())

        def counts() -> tuple[int, int]:
            rows = [row for row in bouncer.show("pools") if row["database"] != "pgbouncer"]
            return sum(row["sv_active"] for row in rows), sum(row["cl_waiting"] for row in rows)

        eventually(lambda: counts() == (3, 1))
        first.rollback()
        assert answer.result(5) == (1,)
        assert counts() == (3, 0)


def test_a_pooler_s_figures_are_those_of_one_instance() -> None:
    parser = configparser.ConfigParser()
    text = printed("pgbouncer", "api")
    parser.read_string(text)
    assert parser["pgbouncer"]["max_db_connections"] == "3"
    assert parser["pgbouncer"]["max_client_conn"] == "40"
    assert "2 instances x 3 connections = 6 of database main." in text
    assert not dict(parser["databases"])


# ---------------------------------------------------------------------------------------------- the rule


shapes = st.tuples(st.integers(1, 40), st.integers(0, 100), st.integers(1, 8), st.integers(1, 5))


@given(
    limit=st.integers(min_value=20, max_value=2000),
    services=st.lists(shapes, min_size=1, max_size=3),
)
def test_whatever_the_budget_what_is_printed_stays_within_it(
    limit: int, services: list[tuple[int, int, int, int]]
) -> None:
    text = f"[databases.main]\nmax_connections = {limit}\n"
    for number, (replicas, surge, processes, weight) in enumerate(services):
        text += f'[services.s{number}]\ndatabase = "main"\nreplicas = {replicas}\nsurge = "{surge}%"\n'
        text += f"processes = {processes}\nweight = {weight}\n"
    found = budget.read(text)
    account = budget.account(found, "main")
    assert account is not None
    total = 0
    for name, service in found.services.items():
        if not account.fits:
            with pytest.raises(BudgetError, match="does not fit"):
                printed("sqlalchemy", name, text)
            continue
        call = next(
            node for node in ast.walk(ast.parse(printed("sqlalchemy", name, text)))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "create_engine"
        )  # fmt: skip
        given = {each.arg: each.value for each in call.keywords}
        size, overflow = (ast.literal_eval(given[name]) for name in ("pool_size", "max_overflow"))
        assert size >= 1
        total += service.processes_at_worst * (size + overflow)
    assert total <= account.usable


@pytest.mark.parametrize("stack", ["sqlalchemy", "django", "psycopg", "asyncpg"])
def test_what_is_printed_is_read_again_as_within_the_budget(tmp_path: Path, stack: str) -> None:
    declared = SHOP.partition("[services.jobs]")[0]
    compose = "services: {web: {build: ., command: 'gunicorn app:app -w 4', scale: 5}}"
    reading = held_against(tmp_path, {"db.py": printed(stack, None, declared), "compose.yaml": compose}, declared)
    assert (reading.fits, the_use(reading).each) == (True, 9)
    assert isinstance(reading, application.Reading)


# ---------------------------------------------------------------------------------------------- the command


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    for name in ("PENSTOCK_TOML", "PENSTOCK_ENV", "SHOP_URL", "EDGE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*words: str, declared: str = SHOP, **environ: str) -> Result:
        write(tmp_path, {"penstock.toml": declared})
        app = Typer()
        app.command()(command)
        return CliRunner().invoke(app, [*words], env=environ)

    return run


def test_the_command_prints_settings_and_nothing_else(run: Callable[..., Result]) -> None:
    told = run("--emit", "sqlalchemy", "--service", "web")
    assert (told.exit_code, told.stdout) == (0, printed("sqlalchemy"))


def test_what_if_and_the_environment_count(run: Callable[..., Result]) -> None:
    told = run("--emit", "env", "--service", "web", "--what-if", "web.replicas=9")
    assert "DB_POOL_SIZE=3" in told.stdout, told.output
    staging = SHOP + "[environments.staging.services.web]\nprocesses = 1\n"
    told = run("--emit", "env", "--service", "web", "--environment", "staging", declared=staging)
    assert "WEB_CONCURRENCY=1" in told.stdout


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--emit", "sqlalcemy"), "did you mean sqlalchemy?"),
        (("--emit", "cobol"), "there are sqlalchemy, django"),
        (("--emit", "env"), "for which service? --service web|jobs|api"),
        (("--emit", "env", "--service", "wbe"), "--service wbe: no such service"),
        (("--emit", "pgbouncer", "--service", "web"), "service web goes through no pooler"),
        (("--emit", "env", "--service", "web", "--json"), "goes without --app, --check and --json"),
        (("--emit", "env", "--service", "web", "--what-if", "web.replicas=900"), "does not fit"),
    ],
)
def test_a_wrong_question_is_refused(run: Callable[..., Result], words: tuple[str, ...], why: str) -> None:
    told = run(*words)
    assert told.exit_code == 2
    assert why in told.stderr
    assert told.stdout == ""


@pytest.mark.parametrize(("stack", "times"), [("cobol", 1), ("sqlalcemy", 0)])
def test_the_list_of_stacks_is_said_once_and_only_when_none_is_near(
    run: Callable[..., Result], stack: str, times: int
) -> None:
    assert run("--emit", stack).stderr.count(", ".join(STACKS)) == times


def test_without_a_pooler_it_says_how_to_declare_one(run: Callable[..., Result]) -> None:
    told = run("--emit", "pgbouncer", declared=SHOP.partition("[services.jobs]")[0])
    assert (told.exit_code, told.stdout) == (2, "")
    assert "[poolers.edge]" in told.stderr


def test_an_undeclared_limit_is_asked_of_the_server(run: Callable[..., Result], postgres: EmbeddedPostgres) -> None:
    declared = '[databases.main]\nurl = "env:SHOP_URL"\n[services.web]\ndatabase = "main"\nreplicas = 2\nsurge = 0\n'
    told = run("--emit", "env", declared=declared, SHOP_URL=postgres.dsn)
    assert told.exit_code == 0, told.output
    assert "database main: 100 connections, " in told.stdout
    alone = run("--emit", "env", "--offline", declared=declared)
    assert alone.exit_code == 2
    assert "neither declared nor known" in alone.stderr


@pytest.mark.parametrize("stack", STACKS)
def test_no_url_is_ever_printed(run: Callable[..., Result], stack: str) -> None:
    declared = SHOP.replace("env:SHOP_URL", "postgresql://u:s3cret@h/d")
    declared = declared.replace("env:EDGE_URL", "postgresql://u:s3cret@e/d")
    for service in ("web", "api"):
        told = run("--emit", stack, "--service", service, declared=declared)
        assert "s3cret" not in told.output
        told = run("--emit", stack, "--service", service, SHOP_URL="postgresql://u:s3cret@h/d", EDGE_URL="x://s3cret")
        assert "s3cret" not in told.output
