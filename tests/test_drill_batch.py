"""The drill's job is killed as it says, and what it says of each arm is true."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace

import httpx
import psycopg
import pytest
from typer import Typer
from typer.testing import CliRunner

from penstock.cli.drill import drill
from penstock.drill import arms
from penstock.drill.api import Api, Behaviour
from penstock.drill.arms.naive_loop import NaiveLoop
from penstock.drill.arms.penstock_batch import PenstockBatch
from penstock.drill.batch_result import BatchResult
from penstock.drill.conduct import Outcome, conduct
from penstock.drill.document import document
from penstock.drill.failure import CannotStart
from penstock.drill.measure import Sample
from penstock.drill.report import report
from penstock.drill.scenarios import choose
from penstock.drill.server import embedded
from penstock.drill.shape import Batch
from penstock.drill.verdict import duration, sentence

API = Behaviour(latency=0.005, failing=20, limited=700, hanging=1_000_000, hangs_first=30)
SMALL = Batch(items=800, kills=(0.4,), killed_at=12, patience=2.5, api=API)

app = Typer()
app.command()(drill)


@pytest.fixture(scope="module")
def outcome() -> Iterator[Outcome]:
    [scenario] = choose("batch")
    scenario = replace(scenario, shape=SMALL, seconds=60.0)
    with embedded(scenario.max_connections) as server:
        yield conduct(scenario, arms.choose([], scenario.arms), server, lambda result, at: None)
        with psycopg.connect(server.admin_dsn) as admin:
            assert admin.execute("SELECT to_regnamespace('penstock_drill')").fetchone() == (None,)


def result_of(*progress: tuple[float, int], judged: bool = True, **figures: object) -> BatchResult:
    """An arm that had saved so many of 100 users at each look."""
    arm = PenstockBatch if judged else NaiveLoop
    result = BatchResult(arm=arm, line=10, pool_size=5, instances=1, deadline=1.0, seconds=9.0, items=100)
    result.samples = [Sample(0.0, 3, 1, 0)]
    result.progress = list(progress)
    result.ends = [(progress[-1][0], judged)]
    result.distinct = result.passed = result.rows
    for name, figure in figures.items():
        setattr(result, name, figure)
    return result


# ---------------------------------------------------------------------------------------------- against a real server


def test_a_job_of_ours_saves_each_user_once_though_it_is_killed(outcome: Outcome) -> None:
    ours = outcome.results[1]
    assert isinstance(ours, BatchResult)
    assert (ours.distinct, ours.twice, ours.gone, ours.failed_items) == (SMALL.items, 0, 0, 0)
    assert [mark.label for mark in ours.marks] == ["SIGKILL"]
    assert [of_itself for _, of_itself in ours.ends] == [False, True]
    assert 0 < ours.peak <= ours.pool_size
    assert (ours.good, ours.failed, outcome.failed) == (True, False, False)
    assert sentence(ours).startswith(f"Held the line: {ours.peak} connections at most")
    assert "It saved each of 800 users once, though it was killed 1 time." in sentence(ours)


def test_the_naive_loop_begins_anew_and_saves_again_what_it_had(outcome: Outcome) -> None:
    theirs = outcome.results[0]
    assert isinstance(theirs, BatchResult)
    assert theirs.twice >= 12
    assert theirs.gone == 1  # who got 500 at the first time, and was not asked for again
    assert theirs.stood_still >= 2.5
    assert not theirs.complete
    assert (theirs.good, theirs.failed) == (False, False)  # only Penstock is judged
    assert theirs.peak <= 2  # one, and another whose end the server is still about
    assert "as it began anew" in sentence(theirs)
    assert "reckoned, not measured" in sentence(theirs)


def test_the_document_and_the_report_say_what_was_measured(outcome: Outcome) -> None:
    written = json.loads(json.dumps(document([outcome])))
    [scenario] = written["scenarios"]
    assert scenario["settings"]["batch"]["items"] == SMALL.items
    naive, ours = scenario["arms"]
    assert ours["batch"]["distinct"] == SMALL.items
    assert ours["batch"]["progress"][-1]["rows"] == SMALL.items
    assert naive["batch"]["twice"] > 0
    assert (naive["overload"], naive["scale_out"]) == (None, None)
    html = report(written)
    assert "Passed: Penstock held the line and saved each of 800 users once." in html
    assert "(reckoned)" in html
    assert html.count("<svg") == 4
    assert not re.search(r"https?:|//|<script|<link|<img|@import|url\(|\bsrc=|\bhref=", html)


def test_a_server_where_no_schema_can_be_made_is_refused(outcome: Outcome) -> None:
    with embedded(20) as server:
        [scenario] = choose("batch")
        server = replace(server, admin_dsn=server.dsn)  # an ordinary role
        with pytest.raises(CannotStart, match="needs a schema of its own, penstock_drill: permission denied"):
            conduct(replace(scenario, shape=SMALL), arms.choose([], scenario.arms), server, lambda result, at: None)


# ---------------------------------------------------------------------------------------------- what is reckoned


def test_a_pace_is_of_the_time_in_which_something_was_saved() -> None:
    result = result_of((0.0, 0), (1.0, 1), (2.0, 11), (3.0, 21), (9.0, 21), judged=False)
    assert result.per_second == 10.0
    assert result.seconds_for_all == 10.0
    assert result.stood_still == 6.0
    assert "For the last 6.0 s it stood still" in sentence(result)


def test_each_process_s_start_is_left_out_of_the_pace() -> None:
    result = result_of((0.5, 0), (1.0, 1), (2.0, 21), (3.0, 21), (4.0, 22), (5.0, 42), judged=False)
    result.ends = [(2.5, False), (5.0, False)]
    assert result.per_second == 20.0


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"distinct": 90}, "It saved 10 rows too many"),
        ({"passed": 104}, "It passed 4 users by, whom nobody will find again."),
        ({"errors_told": ["ValueError: no"]}, "It ended with ValueError: no; 100 of 100 users are saved."),
    ],
)
def test_an_arm_that_saves_twice_loses_or_breaks_off_is_not_good(figures: dict[str, object], said: str) -> None:
    result = result_of((1.0, 50), (2.0, 100), **figures)
    assert not result.good
    assert said in sentence(result)


def test_failures_that_are_in_the_list_are_not_lost() -> None:
    result = result_of((1.0, 50), (2.0, 98), passed=100, failed_items=2)
    assert (result.gone, result.good) == (0, True)
    assert "and has 2 others in its list of failures" in sentence(result)


def test_lengths_of_time_are_said_as_people_do() -> None:
    assert [duration(seconds) for seconds in (7.2, 119.0, 1680.0)] == ["7 s", "119 s", "28 min"]


# ---------------------------------------------------------------------------------------------- the API, the arms


def test_the_api_behaves_as_it_is_told_the_first_time_and_well_from_then_on() -> None:
    behaviour = Behaviour(latency=0.0, failing=10, limited=100, hanging=50, hangs_first=20, retry_after=7)
    with Api(behaviour) as api, httpx.Client(base_url=api.url, timeout=0.3) as http:
        assert http.get("/users/13").status_code == 500
        limited = http.get("/users/50")
        assert (limited.status_code, limited.headers["retry-after"]) == (429, "7")
        with pytest.raises(httpx.ReadTimeout):
            http.get("/users/70")
        for number in (13, 50, 70):
            assert http.get(f"/users/{number}").json() == {"id": number, "name": f"user {number}"}
        assert http.get("/orders/1").status_code == 404


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["batch", "--arm", "penstock"], "the arms of batch are naive-loop, penstock-batch"),
        (["outage", "--arm", "penstock-batch"], "the arms of outage are per-request"),
        (["batch", "--seconds", "3"], "--seconds means nothing to batch"),
        (["batch", "--clients", "30"], "--clients means nothing to batch"),
    ],
)
def test_an_arm_or_option_that_means_nothing_here_is_refused(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert said in done.output.replace("\n", " ")


def test_who_asks_for_an_arm_in_all_scenarios_gets_it_where_it_can_play() -> None:
    asked = arms.choose(["penstock"])
    for scenario in choose("all"):
        found = arms.able(asked, scenario, alone=False)
        assert [arm.name for arm in found] == ([] if scenario.name == "batch" else ["penstock"])
