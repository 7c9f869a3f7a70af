"""Everybody's share together is never more than there is: how a budget's connections are shared out."""

import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from penstock import BudgetError
from penstock.budget import (
    Account,
    Budget,
    Consumer,
    Database,
    Pooler,
    Service,
    SidePool,
    account,
    fleet_budget,
    load,
    plan,
    pooler_account,
    static_share,
    what_if,
)
from penstock.budget import shares as sharing
from penstock.budget.shares import share_out

few = st.integers(1, 6)


@st.composite
def services(draw: st.DrawFn) -> list[Service]:
    found = []
    for number in range(draw(st.integers(0, 5))):
        low = draw(st.integers(1, 3))
        found.append(
            Service(
                f"s{number}",
                "main",
                replicas=draw(few),
                surge=draw(st.sampled_from(["0%", "25%", "100%", 0, 1, 3])),
                processes=draw(few),
                weight=draw(st.sampled_from([0.001, 0.1, 0.5, 1, 1.0, 2, 3.7, 1000])),
                min=low,
                max=draw(st.none() | st.integers(low, 9)),
                side_pools={"side": SidePool("side", draw(few), draw(few))} if draw(st.booleans()) else {},
            )
        )
    return found


def budget(claims: list[Service], limit: int = 100, **database: int) -> Budget:
    return Budget({"main": Database("main", None, limit, **database)}, {each.name: each for each in claims}, {}, {})


def closed(of: Budget) -> Account:
    found = account(of, "main")
    assert found is not None
    return found


def held(claims: list[Service], shares: dict[str, int]) -> int:
    return sum(each.processes_at_worst * shares[each.name] for each in claims)


@given(services(), st.integers(0, 400))
def test_all_shares_together_never_pass_what_is_usable(claims: list[Service], room: int) -> None:
    shares = share_out(room, claims)
    least = held(claims, {each.name: each.min for each in claims})
    if shares is None:
        assert least > room
        return
    assert held(claims, shares) <= room
    for each in claims:
        assert each.min <= shares[each.name] <= (each.max or room)


@given(services(), st.integers(0, 400))
def test_shares_are_those_of_the_highest_level_that_fits(claims: list[Service], room: int) -> None:
    """Tried at every level, one after the other, as the manual has the rule."""
    shares = share_out(room, claims)
    assume(shares is not None)
    steps = {Fraction(n) / Fraction(each.weight) for each in claims for n in range(1, room + 1)}
    best = {each.name: each.min for each in claims}
    for level in sorted(steps):
        at_level = {
            each.name: min(each.min + int(level * Fraction(each.weight)), each.max or room + each.min)
            for each in claims
        }
        if held(claims, at_level) > room:
            break
        best = at_level
    assert shares == best


@given(services(), st.integers(0, 400), st.integers(1, 50))
def test_more_connections_never_make_a_share_smaller(claims: list[Service], room: int, more: int) -> None:
    before, after = share_out(room, claims), share_out(room + more, claims)
    if before is not None:
        assert after is not None
        assert all(after[name] >= share for name, share in before.items())


@given(services(), st.integers(0, 400))
def test_neither_name_nor_place_in_the_file_gives_anybody_more(claims: list[Service], room: int) -> None:
    assert share_out(room, claims) == share_out(room, claims[::-1])


@given(
    st.integers(1, 500), st.integers(0, 20), st.integers(1, 40), st.integers(1, 8), st.sampled_from(["25%", "0%", 1, 7])
)
def test_one_service_gets_what_the_formula_gives(
    limit: int, reserved: int, replicas: int, processes: int, surge: int | str
) -> None:
    one = Service("web", "main", replicas=replicas, surge=surge, processes=processes)
    found = closed(budget([one], limit, reserved=reserved, headroom=0))
    answer = plan(limit, reserved=reserved, instances=replicas, workers=processes, surge=surge)
    assert found.fits == answer.fits
    if answer.fits:
        assert (found.shares["web"], found.leftover, found.usable) == (
            answer.pool_size,
            answer.leftover,
            answer.usable,
        )


@given(services(), st.integers(1, 300), st.integers(0, 5), st.integers(0, 5))
def test_an_account_adds_up(claims: list[Service], limit: int, reserved: int, headroom: int) -> None:
    found = closed(budget(claims, limit, reserved=reserved, headroom=headroom))
    assert found.total == sum(row.total for row in found.rows)
    assert found.fits == (found.total <= limit) == (found.remedies == ())
    assert found.leftover == (limit - found.total if found.fits else 0)
    assert all(row.total == row.processes * row.each for row in found.rows if row.processes and row.each)
    side = sum(each.alive * s.processes * s.size for each in claims for s in each.side_pools.values())
    assert found.usable == max(0, limit - reserved - headroom - side)


@given(services(), st.integers(1, 300), few, few, st.integers(0, 20))
def test_a_remedy_makes_it_fit_and_one_more_would_not(
    claims: list[Service], limit: int, instances: int, size: int, bi: int
) -> None:
    of = replace(
        budget(claims, limit),
        poolers={"edge": Pooler("edge", "main", size, instances)},
        consumers={"bi": Consumer("bi", "main", bi)},
    )
    for remedy in closed(of).remedies:
        if found := re.fullmatch(r"(\w+\.\w+): (\w+) at most (\d+), it is (\d+)", remedy):
            where, key, most, now = found[1], found[2], int(found[3]), int(found[4])
            assert most < now
            assert closed(what_if(of, [f"{where}.{key}={most}"])).fits
            assert not closed(what_if(of, [f"{where}.{key}={most + 1}"])).fits
        elif found := re.search(r"to at least (\d+)", remedy):
            least = int(found[1])
            assert closed(what_if(of, [f"max_connections={least}"])).fits
            assert not closed(what_if(of, [f"max_connections={least - 1}"])).fits
        else:
            assert "put a pooler" in remedy


def test_what_is_behind_a_pooler_counts_against_the_pooler_alone() -> None:
    of = load(Path(__file__).parent.parent / "examples" / "penstock.toml", environ={})
    database, pooler = closed(of), pooler_account(of, "edge")
    assert "api" not in database.shares
    assert [(row.kind, row.total) for row in database.rows if row.who == "edge"] == [("pooler", 2 * 10)]
    assert pooler.limit == 2 * 200
    assert pooler.shares == {"api": 400 // (13 * 2)}
    assert static_share(of, "api") == 15
    assert of.members("main") == 5 * 4 + 3


def test_side_pools_count_at_the_worst_moment() -> None:
    side = Service("web", "main", replicas=10, surge="25%", side_pools={"celery": SidePool("celery", 2, 2)})
    found = closed(budget([side], 100, reserved=3, headroom=5))
    assert found.usable == 100 - 3 - 5 - 13 * 2 * 2 == fleet_budget(budget([side], 100, reserved=3, headroom=5), "main")


def test_what_the_file_does_not_say_the_server_may() -> None:
    of = budget([Service("web", "main", surge=0)])
    silent = replace(of, databases={"main": Database("main")})
    assert account(silent, "main") is None
    assert fleet_budget(silent, "main") is None
    found = account(silent, "main", max_connections=20, reserved=7)
    assert found is not None
    assert (found.limit, found.usable) == (20, 20 - 7 - 3)
    declared = account(of, "main", max_connections=20)
    assert declared is not None
    assert declared.limit == 100


def test_a_share_that_cannot_be_given_is_an_error_that_says_why() -> None:
    crowd = Service("web", "main", replicas=200, surge=0)
    with pytest.raises(BudgetError, match=r"databases\.main: does not fit: 206 connections at the worst moment, 100"):
        static_share(budget([crowd]), "web")
    with pytest.raises(BudgetError, match=r"databases\.main\.max_connections: is missing"):
        static_share(replace(budget([crowd]), databases={"main": Database("main")}), "web")
    with pytest.raises(BudgetError, match="no service 'wep': did you mean web"):
        static_share(budget([crowd]), "wep")


def test_a_very_large_budget_is_not_counted_up_to(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = []
    held_at = sharing._held
    monkeypatch.setattr(sharing, "_held", lambda claims, level: levels.append(level) or held_at(claims, level))
    claims = [Service(f"s{n}", "main", weight=1 + n / 7, surge=0, max=None if n else 3) for n in range(50)]
    granted = share_out(262_143, claims)
    assert granted is not None
    assert 262_143 - 50 < held(claims, granted) <= 262_143
    assert len(levels) < 3 * len(claims)
