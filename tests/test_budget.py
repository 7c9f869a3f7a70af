"""The line is never passed: the formula, and `penstock plan` on top of it."""

import json
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer import Typer
from typer.testing import CliRunner, Result

from penstock.budget import Plan, extra_instances, plan
from penstock.cli.plan import plan as command
from penstock.drill.postgres import EmbeddedPostgres
from penstock.drivers.limits import LimitsUnknown, ServerLimits, ask

counts = st.integers(min_value=1, max_value=10_000)
arguments = st.fixed_dictionaries(
    {
        "max_connections": counts,
        "reserved": st.integers(min_value=0, max_value=10_000),
        "instances": counts,
        "workers": st.integers(min_value=1, max_value=200),
        "surge": st.integers(min_value=0, max_value=10_000) | st.integers(min_value=0, max_value=300).map("{}%".format),
    }
)


@given(arguments)
def test_all_pools_together_never_pass_the_usable_connections(given: dict[str, Any]) -> None:
    answer = plan(**given)
    assert answer.pool_size * answer.processes <= answer.usable
    assert answer.pool_size * answer.processes + answer.leftover == answer.usable
    assert answer.usable + answer.reserved <= max(answer.max_connections, answer.reserved)


@given(arguments)
def test_no_larger_pool_would_do(given: dict[str, Any]) -> None:
    answer = plan(**given)
    assert (answer.pool_size + 1) * answer.processes > answer.usable
    assert 0 <= answer.leftover < answer.processes


@given(arguments)
def test_it_fits_exactly_when_each_process_can_have_one(given: dict[str, Any]) -> None:
    answer = plan(**given)
    assert answer.fits == (answer.processes <= answer.usable)
    assert answer.fits == (answer.too_many == 0) == (answer.remedies == ())
    assert ("it does not fit" in str(answer)) != answer.fits


@given(arguments, st.sampled_from(["reserved", "instances", "workers"]))
def test_more_of_anything_but_connections_never_makes_a_pool_larger(given: dict[str, Any], what: str) -> None:
    assert plan(**(given | {what: given[what] + 1})).pool_size <= plan(**given).pool_size


@given(arguments, counts)
def test_more_connections_never_make_a_pool_smaller(given: dict[str, Any], more: int) -> None:
    larger = given | {"max_connections": given["max_connections"] + more}
    assert plan(**larger).pool_size >= plan(**given).pool_size


@given(arguments)
def test_a_remedy_with_a_figure_is_one(given: dict[str, Any]) -> None:
    for remedy in plan(**given).remedies:
        figures = [int(figure) for figure in re.findall(r"\d+", remedy)]
        fixed = plan(**given)
        surge, instances, workers, line = fixed.surge, fixed.instances, fixed.workers, fixed.max_connections
        if "worker" in remedy:
            workers = figures[0]
        elif "extra" in remedy:
            surge = figures[0]
        elif "instance" in remedy:
            instances = figures[0]
        elif "raise" in remedy:
            line = figures[-1]
        else:
            continue
        assert Plan(line, fixed.reserved, instances, workers, surge).fits, remedy


@pytest.mark.parametrize(
    ("surge", "instances", "extra"),
    [("25%", 4, 1), ("25%", 5, 2), ("7%", 100, 7), ("0%", 6, 0), ("1", 6, 1), (2, 6, 2), (" 9% ", 4, 1)],
)
def test_surge_is_a_count_or_a_percentage_rounded_up(surge: int | str, instances: int, extra: int) -> None:
    assert extra_instances(surge, instances) == extra


def test_the_example_of_the_manual() -> None:
    answer = plan(100, reserved=10, instances=6)
    assert (answer.pool_size, answer.leftover, answer.processes) == (15, 0, 6)
    assert str(answer) == (
        "100 connections less 10 reserved leave 90 for 6 processes (6 instances with 1 worker each): "
        "at most 15 in each process's pool, 0 left over."
    )


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"max_connections": 0}, ValueError),
        ({"reserved": -1}, ValueError),
        ({"instances": 0}, ValueError),
        ({"workers": 0}, ValueError),
        ({"surge": -1}, ValueError),
        ({"surge": "25.5%"}, ValueError),
        ({"surge": "%"}, ValueError),
        ({"surge": "²"}, ValueError),
        ({"instances": 1.5}, TypeError),
        ({"workers": True}, TypeError),
    ],
)
def test_a_bad_argument_is_named(bad: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=f"^{next(iter(bad))} must be"):
        plan(**({"max_connections": 100, "instances": 6} | bad))


def run(*words: object) -> Result:
    app = Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_command_says_what_fits() -> None:
    told = run("--max-connections", 100, "--reserved", 10, "--instances", 6)
    assert told.exit_code == 0
    assert "at most 15 in each process's pool" in told.stdout


def test_the_command_says_what_does_not_and_what_to_do() -> None:
    told = run("--max-connections", 20, "--reserved", 10, "--instances", 6, "--workers", 4, "--surge", "25%")
    assert told.exit_code == 1
    assert "22 processes too many" in told.stdout
    assert "run at most 1 worker in each instance" in told.stdout


def test_the_command_speaks_json() -> None:
    told = run("--max-connections", 100, "--reserved", 10, "--instances", 6, "--surge", "1", "--json")
    found = json.loads(told.stdout)
    assert (found["pool_size"], found["processes"], found["fits"]) == (12, 7, True)


@pytest.mark.parametrize(
    "words",
    [
        ("--instances", 6),
        ("--instances", 6, "--max-connections", 100, "--dsn", "host=127.0.0.1"),
        ("--instances", 0, "--max-connections", 100),
        ("--instances", 6, "--max-connections", 100, "--surge", "some"),
        ("--instances", 6, "--dsn", "host=127.0.0.1 port=1"),
        ("--instances", 6, "--dsn", "nonsense"),
    ],
)
def test_a_wrong_question_is_status_2_with_one_message(words: tuple[object, ...]) -> None:
    told = run(*words)
    assert told.exit_code == 2
    assert told.stdout == ""
    assert told.stderr.strip()


@pytest.mark.parametrize(
    "dsn",
    [
        "hush-hush",
        "postgresql://app:hush@127.0.0.1:1/app",
        "postgresql://app:x@hush@127.0.0.1:1/app",
        "postgresql://app:hush/x@127.0.0.1:1/app",
        "postgresql://app:x/hush@127.0.0.1:1/app",
        "host=127.0.0.1 port=1 password=hush",
        "host=127.0.0.1 port=1 pass word=hush",
    ],
)
def test_no_error_shows_a_password(dsn: str) -> None:
    with pytest.raises(LimitsUnknown) as caught:
        ask(dsn)
    assert "hush" not in str(caught.value)
    assert "hush" not in repr(caught.value.__cause__)


def limits(**other: Any) -> ServerLimits:
    known: dict[str, Any] = {
        "max_connections": 100,
        "superuser_reserved_connections": 3,
        "reserved_connections": 2,
        "role": "app",
        "role_limit": -1,
        "superuser": False,
        "database": "shop",
        "database_limit": -1,
        "others": 15,
        "others_of_role": 4,
        "others_in_database": 5,
    }
    return ServerLimits(**(known | other))


@pytest.mark.parametrize(
    ("other", "name", "room"),
    [
        ({}, "max_connections", 100 - 3 - 2 - 10 - 15),
        ({"role_limit": 30}, "role app", 30 - 4),
        ({"database_limit": 20}, "database shop", 20 - 5),
        ({"role_limit": 0}, "role app", 0),
        ({"role_limit": 500, "database_limit": 500}, "max_connections", 70),
    ],
)
def test_the_tightest_limit_comes_first(other: dict[str, int], name: str, room: int) -> None:
    tightest = limits(**other).limits(headroom=10)[0]
    assert (tightest.name, tightest.room) == (name, room)


@pytest.fixture
def server(own_postgres: Callable[..., EmbeddedPostgres]) -> EmbeddedPostgres:
    return own_postgres(max_connections=14, superuser_reserved_connections=2, reserved_connections=1)


def settle(admin: psycopg.Connection[Any]) -> None:
    """Wait until no backend but this one is left: a closed connection counts until its backend has ended."""
    deadline = time.monotonic() + 5
    others = "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    while admin.execute(others).fetchone() and time.monotonic() < deadline:
        time.sleep(0.01)


def refused_after(dsn: str, at_most: int) -> int:
    """How many connections the server really gives."""
    with ExitStack() as held:
        for given in range(at_most):
            try:
                held.enter_context(psycopg.connect(dsn))
            except psycopg.OperationalError:
                return given
    return at_most


def test_the_server_grants_exactly_what_the_plan_says(server: EmbeddedPostgres) -> None:
    with server.admin() as other:  # another program's connection, of another role
        settle(other)
        room = ask(server.dsn).limits()[0].room
        assert room == 14 - 2 - 1 - 1
        settle(other)
        assert refused_after(server.dsn, 14) == room


@pytest.mark.parametrize(
    ("sql", "name", "room"),
    [
        ("ALTER ROLE app CONNECTION LIMIT 5", "role app", 5),
        ("ALTER DATABASE postgres CONNECTION LIMIT 4", "database postgres", 4 - 1),  # the superuser's counts too
    ],
)
def test_the_tightest_limit_of_a_real_server_is_found(server: EmbeddedPostgres, sql: str, name: str, room: int) -> None:
    with server.admin() as admin:
        admin.execute(sql)
        settle(admin)
        tightest = ask(server.dsn).limits()[0]
        assert (tightest.name, tightest.room) == (name, room)
        settle(admin)
        assert refused_after(server.dsn, 14) == room


def test_the_command_asks_the_server(server: EmbeddedPostgres) -> None:
    with server.admin() as admin:
        settle(admin)
        told = run("--dsn", server.dsn, "--instances", 2, "--reserved", 1, "--json")
    found = json.loads(told.stdout)
    assert (found["pool_size"], found["usable"], told.exit_code) == (4, 14 - 2 - 1 - 1 - 1, 0)
    assert found["server"]["reserved_connections"] == 1
    told = run("--dsn", server.dsn, "--instances", 11)
    assert "The tightest limit is max_connections." in told.stdout


def test_the_command_warns_of_a_superuser(server: EmbeddedPostgres) -> None:
    assert "is a superuser" in run("--dsn", server.admin_dsn, "--instances", 2).stdout


def test_a_wrong_password_is_status_2_and_not_shown(server: EmbeddedPostgres) -> None:
    told = run("--dsn", f"postgresql://app:hush@{server.host}:{server.port}/postgres", "--instances", 2)
    assert told.exit_code == 2
    assert "hush" not in told.output
    assert "password authentication failed" in told.output
