"""The drill measures what it says, fails when Penstock's arm fails, and shows no password."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import psycopg
import pytest
from typer import Typer
from typer.testing import CliRunner

from penstock.cli.drill import drill
from penstock.drill import arms
from penstock.drill.arms import Request
from penstock.drill.arms.penstock_pool import PenstockPool
from penstock.drill.arms.per_request import PerRequest
from penstock.drill.conduct import Outcome, adjust, conduct
from penstock.drill.failure import CannotStart
from penstock.drill.kinds import ENDED, POOL_TIMEOUT, REFUSED, kind_of
from penstock.drill.measure import Answer, Sample
from penstock.drill.postgres import EmbeddedPostgres
from penstock.drill.result import Result
from penstock.drill.scenarios import choose, discover
from penstock.drill.server import Server, embedded, given
from penstock.drill.shape import ClosedLoop
from penstock.drill.verdict import sentence

SECONDS, CLIENTS = 1.0, 24
CLOSED = {name for name, scenario in discover().items() if isinstance(scenario.shape, ClosedLoop)}
PENSTOCK = [sys.executable, "-c", "from penstock.cli import main; main()"]

app = Typer()
app.command()(drill)


class Greedy(PenstockPool):
    """Penstock's arm, broken: it takes a connection a request, whatever the budget says."""

    def start(self) -> None:
        self._each = PerRequest(self._dsn, self._pool_size)

    def request(self, work: Request) -> None:
        self._each.request(work)

    def stop(self) -> None:
        pass


class Forgetful(PenstockPool):
    """Penstock's arm, broken: it holds the line and loses a request now and then."""

    seen: ClassVar[int] = 0

    def request(self, work: Request) -> None:
        type(self).seen += 1
        if self.seen % 10 < 2:  # the second try as well
            raise LookupError("broken on purpose")
        super().request(work)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with embedded(20) as found:
        yield found


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder like /tmp; pytest's own are closed to the server's user."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o1777)
        yield Path(folder)


def run(server: Server, scenario: str, *names: str, seconds: float = SECONDS, clients: int = CLIENTS) -> Outcome:
    [asked] = adjust(choose(scenario), seconds=seconds, clients=clients, overload=None)
    return conduct(asked, arms.choose(names, asked.arms), server, lambda result, at: None)


def result_of(*answers: Answer, arm: type[arms.Arm] = PenstockPool, held: int = 3, line: int = 16) -> Result:
    result = Result(arm=arm, line=line, pool_size=5, instances=3, deadline=1.0, seconds=5.0)
    result.answers, result.samples = list(answers), [Sample(0.0, held, 0, 0)]
    return result


def test_the_scenarios_are_discovered() -> None:
    assert set(discover()) >= {"outage", "leak", "restart", "exhaustion", "blackhole", "spike"}
    assert len(choose("all")) == len(discover())
    with pytest.raises(CannotStart, match=r"no scenario 'flood'; choose one of: .*outage"):
        choose("flood")


@pytest.mark.alone
@pytest.mark.parametrize("name", sorted(CLOSED))
def test_every_scenario_of_clients_runs_and_penstock_passes_it(server: Server, name: str) -> None:
    outcome = run(server, name, "penstock")
    [result] = outcome.results
    assert result.requests > 0
    assert (result.errors, result.refused) == ({}, 0)
    # While the server ends connections it still counts those, beside the first of their successors.
    most = result.line if name == "restart" else result.pool_size * result.instances
    assert result.peak <= most <= result.line
    assert not outcome.failed
    assert [mark.label for mark in result.marks] == [event.label for event in outcome.scenario.events]
    assert all(0 <= answer.start <= SECONDS + 0.1 for answer in result.answers)


def test_every_arm_crosses_the_line_in_the_outage_but_penstock(server: Server) -> None:
    outcome = run(server, "outage", clients=60)
    crossed = {result.arm.name: result.crossed for result in outcome.results}
    assert crossed == {name: name != "penstock" for name in outcome.scenario.arms}
    for result in outcome.results:
        assert result.ok + sum(result.errors.values()) == result.requests
        assert sentence(result).startswith("Crossed the line" if result.crossed else "Held the line")


def test_the_outcome_fails_when_penstocks_arm_crosses_the_line(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arms, "ARMS", (Greedy,))
    outcome = run(server, "outage", clients=60)
    assert outcome.failed
    assert outcome.results[0].crossed
    assert outcome.results[0].errors[REFUSED] > 0


def test_the_command_ends_with_1_when_penstocks_arm_loses_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arms, "ARMS", (Forgetful,))
    html = tmp_path / "report.html"
    done = CliRunner().invoke(app, ["leak", "--seconds", "1", "--clients", "12", "--html", str(html)])
    assert done.exit_code == 1
    assert "lost" in done.stdout
    assert "LookupError" in done.stdout
    assert "\x1b" not in done.stdout
    assert "Failed: Penstock" in html.read_text()


def test_json_html_and_an_own_server_by_dsn(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    html = tmp_path / "report.html"
    with psycopg.connect(postgres.dsn) as bystander:  # it is there already, so the budget leaves it its connection
        options = ["--dsn", postgres.admin_dsn, "--seconds", "1.5", "--clients", "9", "--json", "--html", str(html)]
        options += ["--arm", "penstock", "--arm", "per-request"]
        command = [*PENSTOCK, "drill", "restart", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert bystander.execute("SELECT 1").fetchone() == (1,)  # only the drill's own backends are ended
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["schema"] == "penstock.drill/1"
    assert document["line"]["reserved"] >= 5
    [scenario] = document["scenarios"]
    assert [arm["name"] for arm in scenario["arms"]] == ["per-request", "penstock"]
    text = html.read_text()
    for arm in scenario["arms"]:
        assert arm["requests"] == arm["ok"] + arm["lost"]
        assert arm["lost"] == sum(arm["errors"].values()) == len(arm["lost_at"])
        assert arm["connections_at_most"] == max(sample["held"] for sample in arm["connections"])
        row = re.search(f"<tr[^>]*><td>{arm['title']}</td>(.*?)</tr>", text)
        assert row is not None
        assert re.findall("<td>([0-9,]+)</td>", row[1])[:2] == [f"{arm['requests']:,}", f"{arm['ok']:,}"]
        assert f"{arm['connections_at_most']} / {arm['line']}" in row[1]
    secret = postgres.admin_dsn.split(":")[2].split("@")[0]
    assert secret not in done.stdout + text


def test_the_report_loads_nothing(server: Server) -> None:
    from penstock.drill.document import document
    from penstock.drill.report import report

    html = report(document([run(server, "leak", "leaking", seconds=0.6)]))
    assert not re.search(r"https?:|//|<script|<link|<img|@import|url\(|\bsrc=|\bhref=", html)
    assert html.count("<svg") == 2
    assert "prefers-color-scheme: dark" in html


def test_what_counts_as_crossing_and_losing() -> None:
    good = Answer(0.0, 0.1, None, None)
    assert not result_of(good).failed
    assert result_of(good, held=17).failed
    assert result_of(good, good._replace(retried=REFUSED)).failed  # a retry that hid the refusal
    assert result_of(good, good._replace(error=POOL_TIMEOUT)).failed
    assert result_of().failed  # nothing was proven
    assert not result_of(good._replace(error=REFUSED), arm=PerRequest).failed  # only Penstock is judged
    late = result_of(good, good._replace(latency=2.0))
    assert (late.ok, late.useful, late.useful_share) == (2, 1, 0.5)
    assert not late.failed
    assert (late.p50_ms, late.p99_ms) == (100.0, 2000.0)
    assert result_of(good, *[good._replace(error=ENDED)] * 1999).errors == {ENDED: 1999}


def test_kinds_look_through_wrappers_and_into_a_failed_login() -> None:
    class Wrapped(Exception):
        orig = psycopg.errors.AdminShutdown("terminating connection")

    assert kind_of(Wrapped()) == ENDED
    assert kind_of(psycopg.OperationalError("FATAL:  sorry, too many clients already")) == REFUSED
    assert kind_of(psycopg.OperationalError("FATAL:  remaining connection slots are reserved for")) == REFUSED
    assert kind_of(LookupError("x")) == "LookupError"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["flood"], "no scenario 'flood'"),
        (["--arm", "mysql"], "no arm 'mysql'"),
        (["--seconds", "0"], "--seconds is 0"),
        (["--clients", "1"], "--clients is 1"),
        (["--max-connections", "5"], "--max-connections is 5"),
        (["--max-connections", "0"], "--max-connections is 0"),
        (["--html", "/nowhere/at/all.html"], "no folder /nowhere/at"),
        (["--dsn", "postgresql://me:s3cret@db.example/shop"], "not on this machine"),
        (["--dsn", "postgresql://me:s3cret@host name/"], "does not parse"),
        (["--dsn", "postgresql://me:p@s3cret@127.0.0.1/"], "write %40 for @"),
        (["--dsn", "postgresql://127.0.0.1:1/", "--max-connections", "20"], "for the embedded server"),
        (["--dsn", "postgresql://me:s3cret@127.0.0.1:1/shop"], "could not be asked"),
    ],
)
def test_what_cannot_start_says_why(arguments: list[str], reason: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert reason in done.stderr
    assert "s3cret" not in done.stderr + done.stdout


def test_a_role_that_cannot_look_is_told_which_grant_it_needs(dsn: str) -> None:
    with pytest.raises(CannotStart, match="GRANT pg_monitor"):
        given(dsn)


def test_list_names_scenarios_and_arms() -> None:
    done = CliRunner().invoke(app, ["--list"])
    assert done.exit_code == 0
    for name in [*discover(), *(arm.name for arm in arms.ARMS)]:
        assert name in done.stdout


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_stays_behind_when_a_drill_is_ended(open_folder: Path, ending: signal.Signals) -> None:
    command = [*PENSTOCK, "drill", "leak", "--seconds", "20"]
    environment = os.environ | {"TMPDIR": str(open_folder)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    killer = threading.Timer(30, process.kill)
    killer.start()
    while "running" not in process.stdout.readline():
        pass
    time.sleep(0.8)
    process.send_signal(ending)
    _, errors = process.communicate()
    killer.cancel()
    if ending is not signal.SIGKILL:
        assert process.returncode == 130
        assert "stopped by Ctrl-C; every client and server it started has ended" in errors
    deadline = time.monotonic() + 10
    while list(open_folder.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not list(open_folder.iterdir())


def test_without_typer_the_command_line_says_what_to_install() -> None:
    code = "import sys; sys.modules['typer'] = None; from penstock.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "penstock: the command line needs typer and rich: pip install 'penstock[cli]'\n"
