"""The drill's processes come and go as it says, and what it says of the line, the shares and the killed is true."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from penstock.cli.drill import drill
from penstock.drill import arms
from penstock.drill.arms.penstock_pool import PenstockPool
from penstock.drill.arms.psycopg_pool import PsycopgPool
from penstock.drill.conduct import Outcome, adjust, check_room, conduct
from penstock.drill.document import document
from penstock.drill.failure import CannotStart
from penstock.drill.kinds import POOL_TIMEOUT
from penstock.drill.measure import Answer, Sample
from penstock.drill.report import report
from penstock.drill.scaleout_result import Change, ScaleOutResult
from penstock.drill.scenarios import choose
from penstock.drill.server import embedded
from penstock.drill.shape import ScaleOut
from penstock.drill.verdict import sentence

SMALL = ScaleOut(processes=6, settle=1.0, each=3.0, least=8)
GOOD = Answer(0.0, 0.1, None, None)

app = Typer()
app.command()(drill)


@pytest.fixture(scope="module")
def outcome() -> Iterator[Outcome]:
    """Six processes, and little time to settle: whether enough is in use by then is not what is tested."""
    [scenario] = choose("scale-out")
    scenario = replace(scenario, shape=SMALL)
    with embedded(scenario.max_connections) as server:
        yield conduct(scenario, arms.choose(["psycopg_pool", "penstock"]), server, lambda result, at: None)


def result_of(
    *held: int, answers: int = 1, killed_at: float | None = None, arm: type[arms.Arm] = PenstockPool
) -> ScaleOutResult:
    """An arm that held so many of 10 connections at each look, ten looks a second, all but one of them in use."""
    result = ScaleOutResult(arm=arm, line=10, pool_size=5, instances=6, deadline=1.0, seconds=9.0)
    result.samples = [Sample(number / 10, each, max(0, each - 1), 0) for number, each in enumerate(held)]
    result.answers = [GOOD] * answers
    result.killed, result.killed_at = (0, None) if killed_at is None else (2, killed_at)
    return result


# ---------------------------------------------------------------------------------------------- against a real server


def test_a_fleet_holds_the_line_while_its_processes_are_started_killed_cut_off_and_replaced(outcome: Outcome) -> None:
    ours = outcome.results[1]
    assert isinstance(ours, ScaleOutResult)
    assert (ours.above, ours.refused, ours.line) == (0, 0, SMALL.budget)
    assert ours.peak > SMALL.processes
    assert (ours.errors, ours.not_ready) == ({}, 0)
    assert [mark.label for mark in ours.marks] == ["6", "kill", "cut off", "healed", "1"]
    labels = ["1 to 6 processes", "2 killed", "4 replaced", "back to 1 process"]
    assert [(change.label, change.members) for change in ours.changes] == list(zip(labels, (6, 4, 4, 1), strict=True))
    assert len(ours.joined) == 1 + 5 + 4
    assert {number for _, number in ours.processes} >= {1, 4, 6}
    assert ours.reused_after is None or ours.reused_after > 0


def test_fixed_pools_cross_the_line_as_soon_as_there_are_more_processes(outcome: Outcome) -> None:
    theirs = outcome.results[0]
    assert isinstance(theirs, ScaleOutResult)
    assert theirs.peak > SMALL.budget
    assert theirs.above > 0
    assert (theirs.crossed, theirs.good, theirs.failed) == (True, False, False)  # only Penstock is judged
    assert sentence(theirs).startswith(f"Crossed the line of {SMALL.budget}: {theirs.peak} connections at most, above")


def test_the_document_and_the_report_say_what_was_measured(outcome: Outcome) -> None:
    written = json.loads(json.dumps(document([outcome])))
    [scenario] = written["scenarios"]
    assert scenario["line"]["max_connections"] == SMALL.max_connections
    assert scenario["settings"]["scale_out"]["budget"] == SMALL.budget
    for arm, result in zip(scenario["arms"], outcome.results, strict=True):
        assert isinstance(result, ScaleOutResult)
        assert arm["line"] == SMALL.budget
        assert arm["scale_out"]["above"] == result.above
        assert arm["scale_out"]["looks"] == len(result.samples) > len(arm["connections"])
        # What is left out of the chart is never what is highest.
        assert max(sample["held"] for sample in arm["connections"]) == result.peak
    html = report(written)
    assert f"<h1>Who held the line of {SMALL.budget} connections</h1>" in html
    assert html.count("<svg") == 4
    assert not re.search(r"https?:|//|<script|<link|<img|@import|url\(|\bsrc=|\bhref=", html)
    for change in scenario["arms"][1]["scale_out"]["changes"]:
        row = f"<tr><td>{change['label']}</td><td>{change['members']}</td><td>{change['held']:g}</td>"
        assert row in html


def test_no_process_outlives_a_drill_that_is_killed() -> None:
    command = [sys.executable, "-c", "from penstock.cli import main; main()", "drill", "scale-out", "--processes", "10"]
    process = subprocess.Popen(
        [*command, "--arm", "penstock"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        assert _until(lambda: _forked(process.pid) >= 4, 30), "the processes of the service never started"
    finally:
        process.kill()
        process.wait()
    assert _until(lambda: not _forked(process.pid), 10), "some are still there"


def _forked(session: int) -> int:
    """Processes of a session that the fork server has made."""
    found = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
            command = (status.parent / "cmdline").read_text()
        except OSError:  # it has ended
            continue
        found += fields[3] == str(session) and "forkserver" in command
    return found


def _until(done: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


# ---------------------------------------------------------------------------------------------- what is counted as what


def test_each_look_above_the_budget_counts() -> None:
    assert result_of(10, 10).above == 0
    crossed = result_of(10, 11, 12, 10)
    assert (crossed.above, crossed.crossed, crossed.failed) == (2, True, True)
    assert not result_of(11, arm=PsycopgPool).failed


def test_in_use_is_what_runs_a_statement_or_has_a_transaction_open() -> None:
    result = result_of(0, 0, 10, 10, 0)
    change = Change("killed", 0.2, 0.4, 6)
    result.changes = [change]
    assert (result.held_in(change), result.used_in(change), result.share_in(change)) == (10, 9, 0.9)
    assert not result.failed
    result.samples = [sample._replace(active=5, idle_in_transaction=3) for sample in result.samples]
    assert result.share_in(change) == 0.8
    assert result.failed
    assert "only 80.0 % of the budget" in sentence(result)


def test_what_the_killed_had_is_used_again_when_nine_tenths_of_it_is() -> None:
    back = result_of(*[10] * 10, *[4] * 10, *[9] * 10, *[10] * 10, killed_at=1.0)
    assert back.reused_after == pytest.approx(2.0)
    assert not back.failed
    never = result_of(*[10] * 10, *[4] * 10, *[9] * 40, killed_at=1.0)
    assert never.reused_after is None
    assert never.failed
    assert "What 2 killed processes had was not used again." in sentence(never)
    late = result_of(*[10] * 10, *[4] * 101, 10, killed_at=1.0)
    assert late.reused_after == pytest.approx(10.1)
    assert late.failed


def test_a_lost_request_or_a_process_without_a_connection_fails_it() -> None:
    assert not result_of(10).failed
    assert result_of(10, answers=0).failed
    lost, never = result_of(10), result_of(10)
    lost.answers.append(GOOD._replace(error=POOL_TIMEOUT))
    assert lost.failed
    never.not_ready = 1
    assert never.failed
    assert "1 process got no connection in time." in sentence(never)


def test_the_time_between_looks_is_told() -> None:
    result = result_of(1, 1, 1)
    result.samples.append(Sample(0.7, 1, 0, 0))
    assert result.gap(1.0) == pytest.approx(0.5)
    assert result.gap(0.5) == pytest.approx(0.1)


# ---------------------------------------------------------------------------------------------- what cannot start


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["outage", "--processes", "12"], "--processes means nothing to outage"),
        (["scale-out", "--processes", "4"], "--processes is 4; use 10 to 100"),
        (["scale-out", "--seconds", "5"], "--seconds means nothing to scale-out"),
        (["scale-out", "--clients", "30"], "--clients means nothing to scale-out"),
        (["scale-out", "--overload", "3"], "--overload means nothing to scale-out"),
        (["scale-out", "--max-connections", "40"], "50 processes share a budget of 60 connections, and the server has"),
    ],
)
def test_what_means_nothing_is_said(arguments: list[str], reason: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert reason in done.stderr


def test_a_server_that_has_too_little_to_give_is_told_before_anything_is_played() -> None:
    scenarios = adjust(choose("all"), processes=10)
    check_room(scenarios, 24)
    with pytest.raises(CannotStart, match=r"10 processes share a budget of 24 connections, and the server has 23 to"):
        check_room(scenarios, 23)
