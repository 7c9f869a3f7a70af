"""`penstock plan` says of a whole budget file whether the line holds, to people, programs and CI."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer import Typer
from typer.testing import CliRunner, Result

from penstock.budget import read, what_if
from penstock.cli.plan import plan as command
from penstock.drill.postgres import EmbeddedPostgres

FITS = """\
[databases.main]
url = "env:SHOP_URL"
max_connections = 14
reserved = 3
headroom = 1

[services.web]
database = "main"
replicas = 2
surge = 1
processes = 2
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command where this budget file is, with these variables."""
    for name in ("PENSTOCK_TOML", "PENSTOCK_ENV", "SHOP_URL", "GITHUB_ACTIONS", "GITHUB_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*words: object, text: str | None = FITS, **environ: str) -> Result:
        if text is not None:
            (tmp_path / "penstock.toml").write_text(text)
        app = Typer()
        app.command()(command)
        return CliRunner().invoke(app, [str(word) for word in words], env=environ)

    return run


def test_it_says_who_may_hold_how_much(run: Callable[..., Result]) -> None:
    told = run("--offline")
    assert told.exit_code == 0
    lines = [" ".join(line.split()) for line in told.stdout.splitlines()]
    assert lines[0] == "penstock.toml"
    assert "database main: fits: 10 of 14 connections, 4 left over" in lines
    assert "the server's reserve 3 declared" in lines
    assert "web 6 1 6 (2 + 1 in a deploy) x 2 processes" in lines
    assert "at the worst moment 10 of 14, 4 left over" in lines


def test_where_shares_follow_need_it_says_between_what(run: Callable[..., Result]) -> None:
    text = FITS.replace("headroom = 1", "headroom = 1\nfleet = true") + "min = 1\n"
    text += '[services.jobs]\ndatabase = "main"\nreplicas = 1\nsurge = 0\nmax = 3\n'
    told = run("--offline", text=text)
    assert "A process may have, at least and at most: web 1 to 10, jobs 1 to 3." in told.stdout
    assert "all together stay within 10" in told.stdout
    assert "follow need" not in run("--offline", text=text.replace("fleet = true", "fleet = false")).stdout
    assert "follow need" not in run("--offline", text=text.replace("replicas = 2", "replicas = 20")).stdout


def test_it_says_what_does_not_fit_and_what_to_do(run: Callable[..., Result]) -> None:
    told = run("--offline", text=FITS.replace("replicas = 2", "replicas = 7"))
    assert told.exit_code == 1
    assert (
        "penstock.toml:3: databases.main: does not fit: 20 connections at the worst moment, 14 there are" in told.stdout
    )
    assert "services.web: processes at most 1, it is 2" in told.stdout
    assert "services.web: replicas at most 4, it is 7" in told.stdout


@pytest.mark.parametrize(
    ("words", "status", "share"),
    [
        (["--what-if", "replicas=6"], 1, 1),
        (["--what-if", "replicas=6", "--what-if", "processes=1"], 0, 1),
        (["--what-if", "web.surge=0"], 0, 2),
        (["--what-if", "services.web.surge=100%"], 0, 1),
        (["--what-if", "max_connections=100"], 0, 16),
        (["--what-if", "main.headroom=6"], 1, 1),
        (["--what-if", "weight=0.5"], 0, 1),
    ],
)
def test_what_if(run: Callable[..., Result], words: list[str], status: int, share: int) -> None:
    told = run("--offline", "--json", *words)
    assert told.exit_code == status
    found = json.loads(told.stdout)
    assert found["what_if"] == words[1::2]
    assert found["accounts"][0]["shares"] == {"web": share}
    assert found["fits"] == (status == 0)


def test_what_if_shows_what_it_was(run: Callable[..., Result]) -> None:
    assert "1 -> 2" in run("--offline", "--what-if", "surge=0").stdout


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("replicas", "say which figure is what, such as web.replicas=20"),
        ("replicas=", "say which figure is what"),
        ("=20", "say which figure is what"),
        ("replica=20", "no figure 'replica': did you mean replicas?"),
        ("url=x", "no figure 'url'"),
        ("wep.replicas=20", "nothing called 'wep' has replicas: did you mean web?"),
        ("main.replicas=20", "nothing called 'main' has replicas: there are web, jobs"),
        ("replicas=20", "whose? One of services.web.replicas, services.jobs.replicas"),
        ("web.replicas=0", "must be at least 1, not 0"),
        ("web.replicas=many", 'must be a whole number, not "many"'),
        ("web.replicas=2.5", "must be a whole number, not 2.5"),
        ("web.surge=half", 'must be a count such as 1 or a percentage such as "25%"'),
        ("web.weight=nan", "must be a number from 0.001 to 1000, not nan"),
        ("web.max=0", "must be at least 1, not 0"),
        ("jobs.max=1", "max is 1, and min is 2"),
        ("size=3", "nothing in penstock.toml has size"),
    ],
)
def test_a_wrong_what_if_is_status_2_with_one_message(run: Callable[..., Result], change: str, why: str) -> None:
    two = FITS + '[services.jobs]\ndatabase = "main"\nreplicas = 1\nmin = 2\n'
    told = run("--offline", "--what-if", change, text=two)
    assert (told.exit_code, told.stdout) == (2, "")
    assert told.stderr.startswith(f"penstock plan: what-if {change!r}: ")
    assert why in told.stderr


SIDES = FITS + "[services.web.side_pools.celery]\nprocesses = 1\nsize = 1\n"


@pytest.mark.parametrize(
    "name", ["", "celery.", "web.celery.", "web/celery.", "web.side_pools.celery.", "services.web.side_pools.celery."]
)
def test_what_if_a_side_pool_were_larger(run: Callable[..., Result], name: str) -> None:
    told = run("--offline", "--json", "--what-if", f"{name}size=9", text=SIDES)
    rows = {row["who"]: row["total"] for row in json.loads(told.stdout)["accounts"][0]["rows"]}
    assert rows["web/celery"] == 3 * 9


def test_what_if_figures_of_a_side_pool_are_not_its_service_s(run: Callable[..., Result]) -> None:
    changed = what_if(read(SIDES), ["web.celery.processes=4", "processes=3"]).services["web"]
    assert (changed.side_pools["celery"].processes, changed.side_pools["celery"].size, changed.processes) == (4, 1, 3)
    two = SIDES + '[services.jobs]\ndatabase = "main"\nreplicas = 1\n[services.jobs.side_pools.celery]\n'
    two += "processes = 1\nsize = 1\n"
    for change, why in (
        ("celery.size=2", "One of services.web.side_pools.celery.size, services.jobs.side_pools.celery.size"),
        ("web.cellery.size=2", "nothing called 'web.cellery' has size: did you mean web.celery?"),
        ("web.celery.size=0", "size must be at least 1, not 0"),
    ):
        told = run("--offline", "--what-if", change, text=two)
        assert (told.exit_code, told.stdout) == (2, "")
        assert why in told.stderr


def test_what_if_changes_nothing_but_what_it_names() -> None:
    before = read(FITS)
    after = what_if(before, ["replicas=9"])
    assert (before.services["web"].replicas, after.services["web"].replicas) == (2, 9)
    assert (after.databases, after.lines) == (before.databases, before.lines)


def test_an_environment_is_chosen_by_option_or_variable(run: Callable[..., Result]) -> None:
    text = FITS + "[environments.big.services.web]\nreplicas = 7\n"
    assert run("--offline", text=text).exit_code == 0
    assert run("--offline", "--environment", "big", text=text).exit_code == 1
    told = run("--offline", text=text, PENSTOCK_ENV="big")
    assert (told.exit_code, told.stdout.splitlines()[0]) == (1, "penstock.toml, environment big")
    assert run("--offline", "--environment", "bug", text=text).exit_code == 2


# ---------------------------------------------------------------------------------------------- for CI


def test_check_is_short_and_its_status_decides(run: Callable[..., Result]) -> None:
    told = run("--check", "--offline")
    assert told.exit_code == 0
    assert told.stdout.splitlines() == [
        "penstock.toml",
        "database main: fits: 10 of 14 connections, 4 left over",
        "The server did not say: it is not asked (--offline).",
    ]
    assert run("--check", "--offline", text=FITS.replace("replicas = 2", "replicas = 7")).exit_code == 1
    assert run("--check", "--offline", text=FITS.replace("replicas = 2", "replicas = 0")).exit_code == 2


def test_github_shows_each_problem_on_its_line(run: Callable[..., Result]) -> None:
    told = run("--check", "--offline", text=FITS.replace("replicas = 2", "replicas = 7"), GITHUB_ACTIONS="true")
    assert [line for line in told.stdout.splitlines() if line.startswith("::")] == [
        "::error file=penstock.toml,line=3,title=penstock plan::databases.main: does not fit: "
        "20 connections at the worst moment, 14 there are, 6 too many"
    ]
    wrong = FITS.replace("replicas = 2", 'replicas = "50%"').replace("surge = 1", 'surge = "a,b\\n"')
    told = run("--check", text=wrong, GITHUB_ACTIONS="true")
    assert told.exit_code == 2
    assert told.stdout.splitlines() == [
        "::error file=penstock.toml,line=9,title=penstock plan::services.web.replicas: must be a whole number, "
        'not "50%25"',
        "::error file=penstock.toml,line=10,title=penstock plan::services.web.surge: must be a count such as 1 or a "
        'percentage such as "25%25", not "a,b\\n"',
    ]
    assert len(told.stderr.splitlines()) == 2


def test_github_knows_files_by_their_path_in_the_repository(run: Callable[..., Result], tmp_path: Path) -> None:
    below = tmp_path / "a,b"
    below.mkdir()
    (below / "budget.toml").write_text("")
    told = run("--check", "--budget", below / "budget.toml", GITHUB_ACTIONS="true", GITHUB_WORKSPACE=str(tmp_path))
    assert told.stdout.startswith("::error file=a%2Cb/budget.toml,title=penstock plan::declares no database")


def test_there_are_no_annotations_elsewhere(run: Callable[..., Result]) -> None:
    assert "::error" not in run("--check", "--offline", text=FITS.replace("replicas = 2", "replicas = 7")).output
    told = run(
        "--check", "--offline", "--json", text=FITS.replace("replicas = 2", "replicas = 7"), GITHUB_ACTIONS="true"
    )
    assert json.loads(told.stdout)["problems"][0]["line"] == 3


# ---------------------------------------------------------------------------------------------- wrong questions


@pytest.mark.parametrize(
    "words",
    [
        ["--instances", 6, "--max-connections", 100, "--what-if", "replicas=3"],
        ["--instances", 6, "--max-connections", 100, "--budget", "penstock.toml"],
        ["--max-connections", 100],
        ["--workers", 2],
        ["--budget", "gone.toml"],
    ],
)
def test_a_wrong_question_is_status_2(run: Callable[..., Result], words: list[object]) -> None:
    told = run(*words)
    assert (told.exit_code, told.stdout) == (2, "")
    assert told.stderr.startswith("penstock plan: ")


def test_without_a_file_it_says_where_it_looked(run: Callable[..., Result], tmp_path: Path) -> None:
    told = run(text=None)
    assert told.exit_code == 2
    assert f"{tmp_path}: no penstock.toml" in told.stderr
    assert "--instances" in told.stderr


def test_figures_given_go_without_the_file_that_is_there(run: Callable[..., Result]) -> None:
    told = run("--instances", 6, "--max-connections", 100, "--reserved", 10)
    assert "at most 15 in each process's pool" in told.stdout


# ---------------------------------------------------------------------------------------------- the server


@pytest.fixture
def server(own_postgres: Callable[..., EmbeddedPostgres]) -> EmbeddedPostgres:
    return own_postgres(max_connections=14, superuser_reserved_connections=2, reserved_connections=1)


def figures(told: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def test_the_servers_limits_stand_beside_the_declared_ones(
    run: Callable[..., Result], server: EmbeddedPostgres
) -> None:
    told = run(SHOP_URL=server.dsn, text=FITS.replace("= 14", "= 20"))
    lines = [" ".join(line.split()) for line in told.stdout.splitlines()]
    assert told.exit_code == 1  # shares of 20 - 3 - 1 are given out: 6 x 2, and the server has room for 11
    assert "max_connections 20 14" in lines
    assert "reserved 3 3" in lines
    assert any(line.startswith("role app no limit") for line in lines)
    assert (
        "penstock.toml:3: databases.main.max_connections: 13 connections at the worst moment, and the server has room "
        "for 11: its max_connections is 14, of which it reserves 3"
    ) in lines
    assert "penstock.toml:3: max_connections is declared as 20, the server has 14." in lines


def test_a_smaller_declaration_than_the_server_has_breaks_nothing(
    run: Callable[..., Result], server: EmbeddedPostgres
) -> None:
    told = run(SHOP_URL=server.dsn, text=FITS.replace("= 14", "= 12"))
    assert told.exit_code == 0
    assert "max_connections is declared as 12, the server has 14." in told.stdout


def test_what_is_not_declared_is_asked(run: Callable[..., Result], server: EmbeddedPostgres) -> None:
    silent = FITS.replace("max_connections = 14\nreserved = 3\n", "")
    found = figures(run("--json", SHOP_URL=server.dsn, text=silent))
    assert (found["accounts"][0]["limit"], found["accounts"][0]["usable"], found["fits"]) == (14, 10, True)
    told = run("--json", text=silent)
    assert (told.exit_code, figures(told)["fits"], figures(told)["accounts"]) == (2, None, [])
    assert figures(told)["problems"][0]["key"] == "databases.main.max_connections"


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("ALTER ROLE app CONNECTION LIMIT 5", "hold 6 at the worst moment, and role app may have 5"),
        ("ALTER DATABASE postgres CONNECTION LIMIT 5", "hold 6 at the worst moment, and database postgres accepts 5"),
    ],
)
def test_a_limit_of_the_role_or_the_database_is_a_line_too(
    run: Callable[..., Result], server: EmbeddedPostgres, sql: str, words: str
) -> None:
    with server.admin() as admin:
        admin.execute(sql)
    told = run("--check", SHOP_URL=server.dsn)
    assert told.exit_code == 1
    assert words in told.stdout
    with server.admin() as admin:
        admin.execute(sql.replace("5", "6"))
    assert run("--check", SHOP_URL=server.dsn).exit_code == 0


def test_a_server_that_cannot_be_asked_is_said_without_its_password(run: Callable[..., Result]) -> None:
    told = run(SHOP_URL="postgresql://app:hush@127.0.0.1:1/shop")
    assert told.exit_code == 0
    assert "The server did not say: connection failed" in told.stdout
    assert "hush" not in told.output
    assert "the variable SHOP_URL is not set" in run().stdout


def test_a_server_that_is_no_postgresql_is_not_asked_and_what_is_declared_counts(run: Callable[..., Result]) -> None:
    told = run(SHOP_URL="mysql://app:hush@db/shop")
    assert told.exit_code == 0
    assert "The server did not say: it is no PostgreSQL, and others are not asked" in told.stdout
    assert "hush" not in told.output


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("oracle://app:hush@db/shop", "SHOP_URL has a URL of a database that is not known: it must begin with"),
        (
            "postgresql+asyncpg://app:hush@db/shop",
            "SHOP_URL has a URL as SQLAlchemy writes it, with a driver: write postgresql:// instead of "
            "postgresql+asyncpg://",
        ),
        ("POSTGRES+psycopg2://app:hush@db/shop", "write postgresql:// instead of POSTGRES+psycopg2://"),
        ("hush", "databases.main.url (the variable SHOP_URL): conninfo does not parse"),
        ("postgresql://app:hush/x@db/shop", "databases.main.url (the variable SHOP_URL): conninfo has a password"),
    ],
)
def test_a_url_that_cannot_be_read_is_named_by_its_key_and_variable_and_never_shown(
    run: Callable[..., Result], url: str, why: str
) -> None:
    told = run(SHOP_URL=url)
    assert "The server did not say: databases.main.url" in told.stdout
    assert why in told.stdout
    assert "hush" not in told.output
    if "+" in url or "mysql" in url:
        told = run(text=FITS.replace("env:SHOP_URL", url.lower()))
        assert "databases.main.url: has a URL " in told.stdout
        assert "hush" not in told.output


def test_a_superuser_is_pointed_out(run: Callable[..., Result], server: EmbeddedPostgres) -> None:
    assert "is a superuser" in run(SHOP_URL=server.admin_dsn).stdout
