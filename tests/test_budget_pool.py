"""A pool made from the budget file is as large as its share, and its connections are really refused beyond it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock import AsyncPool, BudgetError, Pool, PoolDeadlock

TEXT = """\
[databases.main]
url = "env:SHOP_URL"
max_connections = 20

[services.web]
database = "main"
replicas = 2
surge = 0
weight = 2

[services.pooled]
through = "edge"
replicas = 1
surge = 0
max = 2

[poolers.edge]
url = "env:EDGE_URL"
database = "main"
pool_size = 2

[environments.small.databases.main]
max_connections = 10

[environments.crowd.services.web]
replicas = 20

"""

both = pytest.mark.parametrize("make", [Pool.from_budget, AsyncPool.from_budget], ids=["threads", "asyncio"])


@pytest.fixture(autouse=True)
def budget_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory has TEXT as its penstock.toml; its variables are set."""
    for name in ("PENSTOCK_TOML", "PENSTOCK_ENV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SHOP_URL", "postgresql://app:hush@127.0.0.1:1/shop")
    monkeypatch.setenv("EDGE_URL", "postgresql://app:hush@127.0.0.1:1/edge")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "penstock.toml"
    path.write_text(TEXT)
    return path


@both
def test_a_pool_has_its_services_name_share_and_place(make: Callable[..., Any]) -> None:
    pool = make("web", open=False)
    assert (pool.name, pool.min_size, pool.max_size) == ("web", 4, (20 - 3 - 3 - 2) // 2)
    assert pool.conninfo.endswith("/shop")


@both
def test_a_service_behind_a_pooler_connects_to_the_pooler(make: Callable[..., Any]) -> None:
    pool = make("pooled", open=False)
    assert (pool.min_size, pool.max_size) == (2, 2)  # what it keeps open is no more than its share
    assert pool.conninfo.endswith("/edge")


@both
def test_the_environment_is_the_one_asked_for_or_the_variables(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make("web", environment="small", open=False).max_size == 1
    monkeypatch.setenv("PENSTOCK_ENV", "small")
    assert make("web", open=False).max_size == 1


@both
def test_explicit_options_win(make: Callable[..., Any], budget_file: Path) -> None:
    pool = make("web", max_size=3, name="mine", timeout=1.5, conninfo="host=elsewhere", path=budget_file, open=False)
    assert (pool.max_size, pool.min_size, pool.name, pool.timeout) == (3, 3, "mine", 1.5)
    assert pool.conninfo == "host=elsewhere"


@both
def test_a_larger_pool_than_the_share_is_refused(make: Callable[..., Any]) -> None:
    with pytest.raises(BudgetError) as caught:
        make("web", max_size=7, open=False)
    assert str(caught.value) == (
        "penstock.toml:5: services.web: max_size is 7, and the share of each of its processes is 6"
    )


@both
def test_keeping_more_open_than_the_share_is_refused_as_a_larger_pool_is(make: Callable[..., Any]) -> None:
    with pytest.raises(BudgetError) as caught:
        make("web", min_size=7, open=False)
    assert str(caught.value) == (
        "penstock.toml:5: services.web: min_size is 7, and the share of each of its processes is 6"
    )
    assert make("web", min_size=6, open=False).min_size == 6


@both
@pytest.mark.parametrize(("bad", "kind"), [(None, "NoneType"), (7, "int"), (["web"], "list")])
def test_a_service_that_is_no_text_is_named(make: Callable[..., Any], bad: Any, kind: str) -> None:
    with pytest.raises(TypeError, match=rf"^service must be the name of a service in the budget file, got {kind}$"):
        make(bad, open=False)


@both
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"service": "wep"}, "penstock.toml: services: no service 'wep': did you mean web?"),
        ({"environment": "larg"}, 'penstock.toml:22: environments: there is no environment "larg"'),
        ({"environment": "crowd"}, "penstock.toml:3: databases.main: does not fit: 28 connections"),
        ({"path": "gone.toml"}, "gone.toml: cannot be read"),
    ],
)
def test_what_cannot_be_given_is_an_error_and_no_guess(
    make: Callable[..., Any], arguments: dict[str, Any], why: str
) -> None:
    with pytest.raises(BudgetError) as caught:
        make(**({"service": "web", "open": False} | arguments))
    assert str(caught.value).startswith(why)


@both
def test_nobody_is_asked_for_what_is_not_declared(make: Callable[..., Any], budget_file: Path) -> None:
    budget_file.write_text(TEXT.replace("max_connections = 20\n", ""))
    with pytest.raises(BudgetError) as caught:
        make("web", open=False)
    assert str(caught.value).startswith("penstock.toml:1: databases.main.max_connections: is missing: a pool's size")


@both
def test_a_variable_that_is_not_set_is_named(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP_URL")
    with pytest.raises(BudgetError) as caught:
        make("web", open=False)
    assert str(caught.value) == "penstock.toml:2: databases.main.url: the variable SHOP_URL is not set, or empty"


@both
def test_a_url_that_no_driver_here_reads_is_named_and_not_shown(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_URL", "postgresql+asyncpg://app:hush@127.0.0.1:1/shop")
    with pytest.raises(BudgetError) as caught:
        make("web", open=False)
    assert str(caught.value) == (
        "penstock.toml:2: databases.main.url: the variable SHOP_URL has a URL as SQLAlchemy writes it, with a driver: "
        "write postgresql:// instead of postgresql+asyncpg://"
    )


@both
@pytest.mark.parametrize(("bad", "error"), [(True, TypeError), ("6", TypeError), (0, ValueError), (-1, ValueError)])
def test_a_wrong_max_size_is_named_as_by_the_pool_itself(
    make: Callable[..., Any], bad: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"^max_size must be"):
        make("web", max_size=bad, open=False)


def test_the_share_is_held_against_a_real_server(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_URL", dsn)
    with Pool.from_budget("web", min_size=0, open=True) as pool:
        held = [pool.getconn() for _ in range(6)]
        with pytest.raises(PoolDeadlock, match="All 6 connections are held"):
            pool.getconn(timeout=0.05)
        for conn in held:
            pool.putconn(conn)


def test_the_share_is_held_in_asyncio_too(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_URL", dsn)

    async def hold() -> None:
        async with AsyncPool.from_budget("web", min_size=0, open=False) as pool:
            held = [await pool.getconn() for _ in range(6)]
            with pytest.raises(PoolDeadlock, match="All 6 connections are held"):
                await pool.getconn(timeout=0.05)
            for conn in held:
                await pool.putconn(conn)

    asyncio.run(hold())
