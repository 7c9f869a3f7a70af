"""What penstock.toml says of a fleet is what its pools do."""

from pathlib import Path

import pytest

from penstock import Pool
from penstock.errors import BudgetError
from penstock.fleet import tag

DOCS = Path(__file__).parents[1] / "docs" / "fleet.md"

BUDGET = """
[databases.main]
url = "env:DATABASE_URL"
max_connections = 60
reserved = 3
headroom = 5
fleet = true

[services.web]
database = "main"
replicas = 4
surge = 1
processes = 2
min = 2
weight = 3

[services.web.side_pools.celery]
processes = 1
size = 2

[services.jobs]
database = "main"
replicas = 1
surge = 0
max = 5
"""


@pytest.fixture
def budget(tmp_path: Path, dsn: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "penstock.toml"
    path.write_text(BUDGET)
    monkeypatch.setenv("DATABASE_URL", dsn)
    return path


def test_the_share_follows_need_within_the_whole_budget(budget: Path) -> None:
    with Pool.from_budget("web", path=budget, min_size=1, open=True) as pool:
        pool.wait()
        fleet = pool._fleet
        assert fleet is not None
        # 60 less 3, 5 and 5 x 2 for Celery; 5 x 2 processes of web and one of jobs.
        assert (fleet.budget, fleet.members, fleet.least, fleet.weight, fleet.outside) == (42, 11, 2, 3, 10)  # type: ignore[attr-defined]
        state = pool.fleet()
        assert state is not None
        assert state.members == 1
        assert 2 <= state.share <= 42


def test_a_service_s_max_bounds_its_share(budget: Path) -> None:
    with Pool.from_budget("jobs", path=budget, open=True) as pool:
        with pool.connection():
            assert pool.max_size <= 5


def test_a_max_size_beyond_what_is_declared_is_an_error(budget: Path) -> None:
    with pytest.raises(BudgetError, match="max_size is 6, and the share of each of its processes is 5"):
        Pool.from_budget("jobs", path=budget, max_size=6, open=False)


def test_a_budget_that_does_not_fit_makes_no_pool(budget: Path) -> None:
    budget.write_text(BUDGET.replace("max_connections = 60", "max_connections = 20"))
    with pytest.raises(BudgetError, match="does not fit"):
        Pool.from_budget("web", path=budget, open=False)


def test_as_many_processes_as_connections_leave_none_to_ask_on(budget: Path) -> None:
    budget.write_text(BUDGET.replace("max_connections = 60", "max_connections = 40").replace("min = 2", "min = 2"))
    with pytest.raises(BudgetError, match=r"penstock.toml:7: databases.main.fleet: least \(2\) cannot be guaranteed"):
        Pool.from_budget("web", path=budget, open=False)


def test_what_the_documentation_shows_is_what_is_said() -> None:
    shown = next(
        line.split()[0] for line in DOCS.read_text().splitlines() if line.startswith("penstock:main:3f9a2c1d:1c")
    )
    found = tag.read("main", shown)
    assert found is not None
    said = found[1]
    assert said is not None
    assert (said.share, said.least, said.most, said.demand) == (12, 1, 60, 9.5)
