"""A claim is one file of one shape, and so is a row of the hall of shame; figures are reckoned as they say."""

import importlib
import importlib.util

import pytest

pytest.importorskip("psycopg_pool", reason="the peers are not installed (make bench installs them)")
for peer in ("asyncpg", "dbutils", "psycopg2", "sqlalchemy", "uvloop"):
    if importlib.util.find_spec(peer) is None:
        pytest.skip(f"the peers are not installed: no {peer}", allow_module_level=True)

from bench import claims, measure, report  # noqa: E402
from bench.shame.__main__ import ROWS  # noqa: E402


@pytest.mark.parametrize("name", claims.names())
def test_every_claim_has_the_shape(name: str) -> None:
    claim = claims.load(name)
    assert claim.CLAIM
    assert claim.BAR
    assert callable(claim.run)


@pytest.mark.parametrize("name", ROWS)
def test_every_row_says_what_it_shows(name: str) -> None:
    title, row = ROWS[name]
    assert title
    assert row.__doc__


def test_every_contestant_comes_first_once_in_as_many_rounds() -> None:
    order = list(measure.turns(["a", "b", "c"], 3))
    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_fairness_is_jains() -> None:
    assert measure.jain([5, 5, 5, 5]) == pytest.approx(1)
    assert measure.jain([1, 0, 0, 0]) == pytest.approx(1 / 4)


def test_a_quantile_is_a_figure_that_was_measured() -> None:
    assert measure.quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert measure.quantile([float(number) for number in range(1, 1001)], 0.999) == 999.0


def test_a_bar_is_met_or_not() -> None:
    fast, slow = report.times("it", 1.0, {"a": 36.0, "b": 34.0}, {"a": 35, "b": 35}, "us")
    assert (fast.met, slow.met) == (True, False)
    assert report.at_most("it", 51.0, 50, "ms").met is False
    assert report.beats_best("it", 12.0, {"a": 10.0, "b": 5.0}, 1.2, "/s").met is True


def test_a_table_survives_a_bar_in_a_cell() -> None:
    assert report.markdown(["a"], [["x|y"]]).splitlines()[-1] == "| x\\|y |"
