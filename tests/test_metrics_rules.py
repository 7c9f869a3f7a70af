"""The ready-made alert rules and dashboard: they are valid, say what they should, and name figures that there are."""

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse

from penstock import Pool
from penstock.fallback import Fallback
from penstock.observe import metrics, prometheus
from penstock.observe.alerts.kinds import Kind
from penstock.observe.looplag import LoopLag
from penstock.observe.rules import dashboard, rules
from penstock.pool.membership import FleetState
from support.fake import FakeDriver, make
from support.promtool import promtool
from support.waiting import eventually

TESTS = Path(__file__).with_name("penstock.rules.test.yml")
RULES = yaml.safe_load(rules())["groups"][0]["rules"]
DASHBOARD = json.loads(dashboard())
NAME = re.compile(r"\b(?:db_client_connection|penstock)_[a-z_]+\b")
LABELS = {label.replace(".", "_") for metric in metrics.METRICS for label in metric.labels}


def panels() -> list[dict[str, Any]]:
    """Those that show something."""
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[str]:
    """The dashboard's, as they are once Grafana has filled them in."""
    for panel in panels():
        for target in panel["targets"]:
            yield re.sub(r"\$\w+", ".*", target["expr"].replace("$__rate_interval", "1m"))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of all samples that a pool with everything tells Prometheus."""
    fallback = Fallback(name="any")
    fleet = FleetState("any", "any", budget=1, share=1, members=1, claimed=1, age=0.0, hint=None)
    registry = CollectorRegistry()
    unregister = prometheus.register(registry)
    with make(Pool, FakeDriver(False), min_size=1, leak_after=0.01) as pool:
        pool.wait()
        pool.fleet = lambda: fleet  # type: ignore[method-assign]
        monkeypatch.setattr(metrics, "lag", lambda _: LoopLag(0.0, 0.0, 0.0))
        conn = pool.getconn()
        with pytest.raises(Exception, match="couldn't get a connection"):
            pool.getconn(timeout=0)
        eventually(lambda: pool.snapshot().suspects)
        pool.putconn(conn)
        pool.drain()
        eventually(lambda: pool.snapshot().closes)
        text = generate_latest(registry).decode()
    unregister()
    assert fallback.name in text
    return {sample.name for family in parse(text) for sample in family.samples} | {
        "penstock_multiplex_statements_total"  # only of a pool that has multiplexed: see test_metrics_prometheus.py
    }


def test_the_rules_do_as_their_tests_say() -> None:
    """Promtool plays figures that were made up, and compares what is raised."""
    said = promtool("test", "rules", TESTS)
    assert said.returncode == 0, said.stdout + said.stderr


def test_every_rule_has_a_test_and_every_alert_of_ours_has_a_rule() -> None:
    """Also those that a process tells of by itself."""
    names = {rule["alert"] for rule in RULES}
    assert len(names) == len(RULES) == len(Kind)
    text = TESTS.read_text()
    assert not [name for name in names if name not in text]


def test_every_figure_that_is_named_is_told(told: set[str]) -> None:
    """A rule on a figure that nobody has is silent for ever."""
    named = {
        name
        for text in [*expressions(), *(rule["expr"] for rule in RULES), *(str(rule["annotations"]) for rule in RULES)]
        for name in NAME.findall(text)
        if name not in LABELS
    }
    assert len(named) > 20
    assert named <= told


def test_the_dashboard_asks_what_prometheus_understands(tmp_path: Path) -> None:
    """Each expression, as a rule of its own."""
    group = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(expressions())]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": group}]}))
    said = promtool("check", "rules", file)
    assert said.returncode == 0, said.stdout + said.stderr
    assert f"{len(group)} rules found" in said.stdout


def test_the_dashboards_panels_lie_side_by_side() -> None:
    """None over another, none wider than the screen, each with words that say what it shows."""
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    for panel in panels():
        assert panel["title"]
        assert panel["description"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in itertools.combinations([panel["gridPos"] for panel in DASHBOARD["panels"]], 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert apart or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]


@pytest.mark.parametrize(("command", "text"), [("rules", rules()), ("dashboard", dashboard())])
def test_the_command_line_prints_them(command: str, text: str) -> None:
    """For Prometheus and Grafana to load, wherever they are."""
    said = subprocess.run(
        [sys.executable, "-c", "from penstock.cli import main; main()", command],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout == text


def row(metric: metrics.Metric) -> str:
    """The metric's line in the manual."""
    spelled = prometheus.spelled(metric) + ("_total" if metric.kind is metrics.Kind.COUNTER else "")
    labels = ", ".join(f"`{label}`" for label in prometheus.labels_of(metric) if not label.endswith("pool_name"))
    unit = metric.unit.strip("{}") or "0 or 1"
    return f"| `{metric.name}` | `{spelled}` | {metric.kind.value} | {unit} | {labels} | {metric.help} |"


def test_the_manual_lists_every_metric() -> None:
    """With its names, unit, labels and words, as they are."""
    manual = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text().splitlines()
    assert [line for line in map(row, metrics.METRICS) if line not in manual] == []
