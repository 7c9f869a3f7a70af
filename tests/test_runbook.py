"""The runbook is of this very system, its commands run, and it shows no secret."""

import re
from pathlib import Path

import psycopg
import pytest
import typer
from typer.testing import CliRunner, Result

from penstock.cli.runbook import runbook
from penstock.drill.postgres import EmbeddedPostgres

BUDGET = """
[databases.main]
url = "env:DATABASE_URL"
max_connections = 100
headroom = 7
fleet = {fleet}

[services.web]
database = "main"
replicas = 4
surge = 1
processes = 3

[services.web.side_pools.celery]
processes = 1
size = 2

[consumers.metabase]
database = "main"
connections = 11
"""


@pytest.fixture
def budget(tmp_path: Path) -> Path:
    path = tmp_path / "penstock.toml"
    path.write_text(BUDGET.format(fleet="false"))
    return path


def written(*words: object, env: dict[str, str | None] | None = None) -> Result:
    app = typer.Typer()
    app.command()(runbook)
    return CliRunner().invoke(app, [str(word) for word in words], env=env)


def statements(text: str) -> list[str]:
    """What stands between the fences, as somebody would paste it."""
    blocks = re.findall(r"^ *```sql\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [one for block in blocks for one in block.split(";") if one.strip()]


def test_every_figure_is_of_this_system(budget: Path) -> None:
    told = written("--budget", budget, "--offline")
    assert told.exit_code == 0
    assert "| metabase |  |  | 11 |" in told.output
    assert "| web/celery | 5 | 2 | 10 |" in told.output
    assert "| web | 15 | 4 | 60 |" in told.output
    assert "from **77** connected (80%), act from **87**" in told.output  # of 97 that clients can have
    assert "web up to 5 replicas" in told.output


def test_who_holds_what_is_asked_of_the_server(budget: Path, dsn: str) -> None:
    with psycopg.connect(dsn, application_name="nightly report"):
        told = written("--budget", budget, env={"DATABASE_URL": dsn})
    assert re.search(r"\| app \| \w+ \| nightly report \| 1 \| 0 \| \d \|", told.output)
    assert "Database `" not in told.output  # which has no limit of its own


def test_a_server_that_cannot_be_asked_leaves_a_runbook_all_the_same(budget: Path) -> None:
    told = written("--budget", budget, env={"DATABASE_URL": "postgresql://app:hunter2@127.0.0.1:1/none"})
    assert told.exit_code == 0
    assert "Nobody could be asked" in told.output
    assert "## Emergency" in told.output
    assert "hunter2" not in told.output


def test_every_command_runs_as_it_stands(budget: Path, postgres: EmbeddedPostgres) -> None:
    budget.write_text(BUDGET.format(fleet="true"))
    found = statements(written("--budget", budget, "--offline").output)
    assert len(found) >= 6
    with postgres.admin() as admin:
        for statement in found:
            admin.execute(statement)  # type: ignore[call-overload]


def test_who_is_idle_in_a_transaction_for_long_is_ended_and_others_are_not(budget: Path, dsn: str) -> None:
    told = written("--budget", budget, "--offline").output
    _, ends = [one for one in statements(told) if "idle in transaction%" in one]
    with psycopg.connect(dsn) as old, psycopg.connect(dsn) as young:
        old.execute("SELECT 1")
        with psycopg.connect(dsn, autocommit=True) as who:
            who.execute("SELECT pg_sleep(0.05)")
            young.execute("SELECT 1")
            pid = old.info.backend_pid
            since = who.execute("SELECT state_change FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone()
            assert since is not None
            query = ends.replace("now() - interval '1 minute'", "%s + interval '1 millisecond'")
            query = query.replace("'idle in transaction%'", "'idle in transaction%%'")
            ended = who.execute(query + " AND pid = ANY(%s)", (since[0], [pid, young.info.backend_pid])).fetchall()  # type: ignore[call-overload]
        assert [pid for pid, _ in ended] == [old.info.backend_pid]
        with pytest.raises(psycopg.OperationalError):
            old.execute("SELECT 1")
        young.execute("SELECT 1")


def test_it_is_written_to_a_file(budget: Path, tmp_path: Path) -> None:
    where = tmp_path / "RUNBOOK.md"
    told = written("--budget", budget, "--offline", "--output", where)
    assert told.exit_code == 0
    assert where.read_text().startswith("# Runbook")


def test_what_cannot_be_written_is_one_clear_error(budget: Path, tmp_path: Path) -> None:
    told = written("--budget", budget, "--offline", "--output", tmp_path / "no" / "RUNBOOK.md")
    assert told.exit_code == 2
    assert told.output.startswith("penstock runbook: ")
    assert "RUNBOOK.md" in told.output


def test_a_wrong_budget_is_one_clear_error(budget: Path) -> None:
    budget.write_text("[databases.main]\nmax_conections = 100\n")
    told = written("--budget", budget)
    assert told.exit_code == 2
    assert "penstock.toml:2" in told.output
    assert "Traceback" not in told.output


def test_nothing_but_clients_is_ever_cancelled_or_ended(budget: Path) -> None:
    """Replication runs for days: what takes long is not wrong for that."""
    acting = [
        one
        for one in statements(written("--budget", budget, "--offline").output)
        if "pg_cancel" in one or "pg_term" in one
    ]
    assert len(acting) == 3
    assert all("backend_type = 'client backend'" in one or "pid IN (0, 0)" in one for one in acting)


def test_the_server_s_own_limit_leads_where_it_is_the_tighter_one(budget: Path, dsn: str) -> None:
    budget.write_text(BUDGET.format(fleet="false").replace("max_connections = 100", "max_connections = 400"))
    told = written("--budget", budget, env={"DATABASE_URL": dsn}).output
    assert "**100 connections** in all (the server's own limit; the file has 400)" in told
