"""The drill's overload is one, and says truly what became of every request in it."""

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer import Typer
from typer.testing import CliRunner

import penstock
from penstock.cli.drill import drill
from penstock.drill import arms
from penstock.drill.arms.asyncpg_pool import numbered
from penstock.drill.arms.penstock_pool import PenstockPool
from penstock.drill.arms.psycopg_pool import PsycopgPool
from penstock.drill.conduct import Outcome, adjust, conduct
from penstock.drill.document import document
from penstock.drill.failure import CannotStart
from penstock.drill.kinds import NO_ANSWER, POOL_TIMEOUT, REFUSED, SHED, WRONG, kind_of
from penstock.drill.measure import Answer, Sample
from penstock.drill.overload import OverloadResult, Spike
from penstock.drill.report import report
from penstock.drill.scenarios import choose
from penstock.drill.server import Server, embedded
from penstock.drill.shape import OpenLoop
from penstock.drill.verdict import sentence
from penstock.drill.work import ApplicationError, Request, Work, WrongAnswer

SECONDS = 4.0

app = Typer()
app.command()(drill)


class Undeclared(PenstockPool):
    """Penstock's arm, broken: nobody declares a deadline."""

    def middleware(self, deadline: float) -> AbstractContextManager[object]:
        return nullcontext()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with embedded(20) as found:
        yield found


@pytest.fixture(scope="module")
def spike(server: Server) -> Outcome:
    return run(server, "psycopg_pool", "penstock")


def run(server: Server, *names: str, seconds: float = SECONDS) -> Outcome:
    [asked] = adjust(choose("spike"), seconds=seconds, clients=None, overload=None)
    return conduct(asked, arms.choose(names), server, lambda result, at: None)


def result_of(*answers: Answer, arm: type[arms.Arm] = PenstockPool, due: int = 0, held: int = 15) -> OverloadResult:
    """What an arm did in 10 s with a spike from 2 s to 4 s, at a capacity of 10 requests a second."""
    spike = Spike(capacity=10.0, due=due, begin=2.0, end=4.0)
    result = OverloadResult(arm=arm, line=16, pool_size=5, instances=3, deadline=0.5, seconds=10.0, spike=spike)
    result.answers, result.samples = list(answers), [Sample(0.0, held, 0, 0)]
    return result


def answers(begin: float, end: float, each: float, error: str | None = None, latency: float = 0.1) -> list[Answer]:
    number = round((end - begin) / each)
    return [Answer(begin + each * index, latency, error, None) for index in range(number)]


# ---------------------------------------------------------------------------------------------- against a real server


@pytest.mark.alone
def test_penstock_keeps_answering_where_first_come_first_served_collapses(spike: Outcome) -> None:
    queue, ours = spike.results
    assert isinstance(ours, OverloadResult)
    assert isinstance(queue, OverloadResult)
    assert (queue.arm.name, ours.arm.name) == ("psycopg_pool", "penstock")
    assert not ours.crossed
    assert not queue.crossed
    assert ours.shed > 0
    assert (ours.good, queue.good, spike.failed) == (True, False, False)
    assert ours.useful_in_spike > queue.useful_in_spike
    assert queue.recovery is None
    assert sentence(ours).startswith("Held the line: 15 connections at most, and the line is 16. Offered 3.")
    assert "that it could not have answered in time" in sentence(ours)
    assert "It did not recover within the drill" in sentence(queue)


@pytest.mark.alone
def test_every_arm_is_offered_the_same_and_every_request_is_accounted_for(spike: Outcome) -> None:
    for result in spike.results:
        assert isinstance(result, OverloadResult)
        assert result.really_offered
        assert result.requests == result.useful + result.late + result.shed + result.lost
        assert result.requests == sum(result.fates.values())
        assert result.retried == 0
        assert sum(sum(counts.values()) for counts in result.over_time(0.25)) == result.requests
    due = [sorted(answer.start for answer in result.answers) for result in spike.results]
    assert due[0] == pytest.approx(due[1])


@pytest.mark.alone
def test_the_capacity_is_measured_with_the_connections_of_the_budget(spike: Outcome, server: Server) -> None:
    assert spike.capacity is not None
    assert spike.capacity.connections == server.share(3).pool_size * 3
    hold = spike.scenario.work.elsewhere
    assert 0 < spike.capacity.per_second <= spike.capacity.connections / hold / (1 - spike.scenario.work.failing)


@pytest.mark.alone
def test_the_drill_fails_when_nobody_declares_the_deadline(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arms, "ARMS", (Undeclared,))
    outcome = run(server, "penstock", seconds=3.0)
    assert outcome.failed
    assert outcome.results[0].late > 0
    assert "too late to be of use" in sentence(outcome.results[0])


def test_sqlalchemy_and_asyncpg_take_part(server: Server) -> None:
    for result in run(server, "sqlalchemy", "asyncpg", seconds=3.0).results:
        assert result.useful > 0
        assert WRONG not in result.errors
        assert result.crossed
        assert result.refused > 0


@pytest.mark.parametrize("name", ["asyncpg", "psycopg_pool"])
def test_a_pool_of_this_scenario_works_in_one_of_clients_too(server: Server, name: str) -> None:
    [asked] = adjust(choose("leak"), seconds=1.0, clients=6, overload=None)
    [result] = conduct(asked, arms.choose([name]), server, lambda result, at: None).results
    assert result.ok > 0
    assert result.errors == {}


@pytest.mark.alone
def test_the_command_writes_document_and_report(tmp_path: Path) -> None:
    html = tmp_path / "report.html"
    options = ["spike", "--overload", "2", "--seconds", "3", "--arm", "penstock", "--json", "--html", str(html)]
    done = CliRunner().invoke(app, options)
    found = json.loads(done.stdout)
    assert done.exit_code == (0 if found["passed"] else 1)
    [scenario] = found["scenarios"]
    assert scenario["settings"]["open_loop"]["overload"] == 2
    assert scenario["settings"]["clients"] is None
    [arm] = scenario["arms"]
    overload = arm["overload"]
    assert arm["requests"] == arm["ok"] + arm["lost"] + overload["shed"]
    assert arm["requests"] == sum(sum(row["fates"].values()) for row in overload["arrivals"])
    assert overload["offered"] == pytest.approx(2 * scenario["capacity"]["per_second"], rel=0.25)
    assert f"{arm['requests']:,}" in html.read_text()


# ---------------------------------------------------------------------------------------------- what is counted as what


def test_a_refusal_is_neither_useful_nor_lost() -> None:
    refused = Answer(2.5, 0.001, SHED, None)
    result = result_of(
        refused, Answer(2.5, 0.4, None, None), Answer(2.5, 0.6, None, None), Answer(2.6, 1, REFUSED, None)
    )
    assert dict(result.fates) == {SHED: 1, "useful": 1, "late": 1, REFUSED: 1}
    assert (result.shed, result.useful, result.late, result.lost) == (1, 1, 1, 1)
    assert result.errors == {REFUSED: 1}
    assert result.refusal_ms(0.99) == pytest.approx(1.0)
    assert kind_of(penstock.Overloaded("x")) == SHED
    assert kind_of(penstock.PoolTimeout("x")) == POOL_TIMEOUT
    assert kind_of(WrongAnswer("x")) == WRONG


def test_useful_answers_of_the_spike_are_those_given_in_it() -> None:
    before = Answer(1.9, 0.2, None, None)  # asked before it
    after = Answer(3.9, 0.2, None, None)  # answered after it
    late = Answer(2.5, 0.7, None, None)
    assert result_of(before, after, late).useful_in_spike == 1 / 20


def test_recovery_is_from_when_on_the_rest_was_useful() -> None:
    normal = answers(0.0, 2.0, 0.01)
    assert result_of(*normal, *answers(4.0, 10.0, 0.01)).recovery == pytest.approx(0.0)
    slow = result_of(*answers(4.0, 5.5, 0.01, latency=0.9), *answers(5.5, 10.0, 0.01))
    assert slow.recovery == pytest.approx(1.5, abs=0.06)
    again = result_of(*answers(4.0, 8.0, 0.01), *answers(8.0, 8.5, 0.01, NO_ANSWER), *answers(8.5, 10.0, 0.01))
    assert again.recovery == pytest.approx(4.5, abs=0.06)  # what looked like recovery was none
    assert result_of(*answers(4.0, 9.8, 0.01, SHED), *answers(9.8, 10.0, 0.01)).recovery is None  # too short to say
    assert result_of(*normal).recovery is None


def test_what_passes_and_what_does_not() -> None:
    spike = answers(2.0, 4.0, 0.1)
    rest = answers(4.0, 10.0, 0.1)
    refused = answers(2.0, 4.0, 0.05, SHED, latency=0.001)
    assert not result_of(*spike, *refused, *rest, due=60).failed
    assert result_of(*spike, *refused, *rest, due=60, held=17).failed  # crossed the line
    assert result_of(*spike[:15], *refused, *rest, due=55).failed  # too few useful answers
    assert result_of(*spike, *refused, due=60).failed  # no recovery
    assert result_of(*spike, *refused, *rest, Answer(1.0, 0.1, WRONG, None), due=60).failed
    assert not result_of(*spike, *refused, *rest, Answer(1.0, 0.1, POOL_TIMEOUT, None), due=60).failed
    assert not result_of(*refused, arm=PsycopgPool).failed  # only Penstock is judged
    weak = result_of(*spike, *refused, *rest, due=100)
    assert weak.failed
    assert "this machine could not make more, so nothing is proven" in sentence(weak)


def test_a_request_handed_over_late_was_not_offered_in_time() -> None:
    late = [answer._replace(lag=3.0) for answer in answers(2.0, 4.0, 0.1)]
    result = result_of(*late, due=20)
    assert (result.offered, result.really_offered) == (0, False)
    assert result.lag_p99_ms == pytest.approx(3000)


@pytest.mark.alone
def test_the_report_shows_every_fate_and_loads_nothing(spike: Outcome, server: Server) -> None:
    html = report(document([spike]))
    assert not re.search(r"https?:|//|<script|<link|<img|@import|url\(|\bsrc=|\bhref=", html)
    assert html.count("<svg") == 4
    assert html.count("- - capacity: ") == 2
    for fate in ("useful", "late", SHED, NO_ANSWER):
        assert f"</span>{fate}</span>" in html
    assert "Passed: Penstock held the line and gave useful answers at" in html


# ---------------------------------------------------------------------------------------------- load and work


def test_arrivals_come_at_the_rates_that_were_asked_for() -> None:
    shape = OpenLoop(overload=5.0)
    arrivals = shape.arrivals(40.0, capacity=100.0)
    assert arrivals == sorted(arrivals) == shape.arrivals(40.0, capacity=100.0)
    begin, end = shape.spike(40.0)
    inside = sum(begin <= at < end for at in arrivals)
    assert inside / (end - begin) == pytest.approx(500, rel=0.05)
    assert (len(arrivals) - inside) / (40.0 - end + begin) == pytest.approx(70, rel=0.1)
    assert arrivals[0] > 0
    assert arrivals[-1] < 40.0


def test_a_request_does_the_same_in_a_thread_and_in_a_task() -> None:
    work = Work(elsewhere=0.0, failing=0.1, slow=0.1, slow_seconds=0.2)

    def asked(dice: float, answer: int) -> tuple[Any, Any]:
        seen: tuple[list[Any], list[Any]] = ([], [])

        def execute(*step: Any) -> Any:
            seen[0].append(step)
            return SimpleNamespace(fetchone=lambda: (answer,))

        async def fetch(*step: Any) -> Any:
            seen[1].append(step)
            return (answer,)

        ends: list[str] = []
        request = Request(work, 7, dice)
        for do in (lambda: request(execute), lambda: asyncio.run(request.awaited(fetch))):
            try:
                do()
            except (ApplicationError, WrongAnswer) as error:
                ends.append(type(error).__name__)
        assert seen[0] == seen[1]
        assert len(ends) != 1
        return seen[0], ends[:1]

    query = ("SELECT %s::int + 1", (7,))
    assert asked(0.5, 8) == ([query], [])
    assert asked(0.95, 8) == ([query, ("SELECT pg_sleep(%s::float8)", (0.2,))], [])
    assert asked(0.05, 8) == ([query], ["ApplicationError"])
    assert asked(0.5, 9) == ([query], ["WrongAnswer"])


def test_parameters_are_numbered_for_asyncpg() -> None:
    assert numbered("SELECT %s::int + %s") == "SELECT $1::int + $2"


# ---------------------------------------------------------------------------------------------- what cannot start


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["outage", "--overload", "3"], "--overload means nothing to outage"),
        (["spike", "--overload", "0.5"], "--overload is 0.5; use 1 to 20"),
        (["spike", "--overload", "21"], "--overload is 21; use 1 to 20"),
        (["spike", "--clients", "30"], "--clients means nothing to spike"),
        (["spike", "--seconds", "1"], "use 3 to 600 for spike"),
    ],
)
def test_what_means_nothing_is_said(arguments: list[str], reason: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert reason in done.stderr


def test_all_takes_every_option_where_it_has_a_meaning() -> None:
    asked = adjust(choose("all"), seconds=5.0, clients=9, overload=4.0, processes=12)
    found = {scenario.name: scenario for scenario in asked}
    assert found["outage"].shape.clients == 9  # type: ignore[union-attr]
    assert found["spike"].shape.overload == 4.0  # type: ignore[union-attr]
    assert found["scale-out"].shape.processes == 12  # type: ignore[union-attr]
    own = {"batch", "scale-out"}  # which take the time that they need
    assert {scenario.seconds for scenario in asked if scenario.name not in own} == {5.0}


def test_an_arm_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arms, "find_spec", lambda name: None if name == "asyncpg" else find_spec(name))
    with pytest.raises(CannotStart, match=r"'asyncpg' needs the package asyncpg.*penstock\[drill\]"):
        arms.choose(["penstock", "asyncpg"])
    assert [arm.name for arm in arms.choose(["penstock"])] == ["penstock"]


def test_a_password_never_reaches_an_error_of_the_asyncpg_arm() -> None:
    arm = arms.choose(["asyncpg"])[0]("host=127.0.0.1 port=1 user=me password=s3cret dbname=shop", 5)
    with pytest.raises(OSError) as caught:
        arm.start()
    assert "s3cret" not in str(caught.value)
