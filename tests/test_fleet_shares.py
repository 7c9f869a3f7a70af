"""Shares of a fleet: arithmetic on what everybody sees. The sum keeps within the budget, everybody finds the same."""

import math
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock import Fleet
from penstock.core import Core, Settings, Waiter
from penstock.fleet import tag
from penstock.fleet.demand import Meter
from penstock.fleet.shares import View, share_out, view
from penstock.fleet.tag import Said

FLEETS = st.from_regex(tag.NAME, fullmatch=True)
MEMBERS = st.integers(0, 2**32 - 1).map("{:08x}".format)
BUDGETS = st.integers(2, 500)


@st.composite
def sayings(draw: st.DrawFn, budget: int, number: int) -> Said:
    share = draw(st.integers(1, budget))
    demand = draw(st.floats(0, 10 * budget))
    return Said(number, share, draw(st.integers(1, budget)), draw(st.integers(1, budget)), demand)


@st.composite
def fleets(draw: st.DrawFn) -> tuple[int, list[tuple[str, int]]]:
    """A budget, and the connections of a fleet as a server shows them: some plain, some saying more."""
    budget = draw(BUDGETS)
    rows: list[tuple[str, int]] = []
    for member in draw(st.lists(MEMBERS, max_size=8, unique=True)):
        if count := draw(st.integers(0, 5)):
            rows.append((tag.write("main", member, "web"), count))
        for number in range(draw(st.integers(0 if count else 1, 2))):
            said = draw(sayings(budget, number))
            rows.append((tag.write("main", member, "web", said), 1))
    return budget, rows


# ---------------------------------------------------------------------------------------------- sharing out


@st.composite
def problems(draw: st.DrawFn) -> tuple[int, list[int], list[int], list[float]]:
    many = draw(st.integers(1, 12))
    numbers = st.lists(st.integers(1, 40), min_size=many, max_size=many)
    weights = st.lists(st.floats(0.05, 1000), min_size=many, max_size=many)
    return draw(st.integers(-3, 200)), draw(numbers), draw(numbers), draw(weights)


@given(problems())
def test_all_is_given_away_and_no_more(problem: tuple[int, list[int], list[int], list[float]]) -> None:
    """The shares add up to what there is; to less only where nobody could use more, to more only where each has one."""
    total, least, most, weights = problem
    given = share_out(total, least, most, weights)
    assert all(1 <= share <= high for share, high in zip(given, most, strict=True))
    assert sum(given) == max(len(given), min(total, sum(most)))


@given(problems())
def test_everybody_has_its_least(problem: tuple[int, list[int], list[int], list[float]]) -> None:
    """Where the leasts fit."""
    total, least, most, weights = problem
    lows = [min(low, high) for low, high in zip(least, most, strict=True)]
    if sum(lows) <= total:
        given = share_out(total, least, most, weights)
        assert all(share >= low for share, low in zip(given, lows, strict=True))


@given(problems(), st.integers(0, 11))
def test_more_need_is_never_less_share(problem: tuple[int, list[int], list[int], list[float]], which: int) -> None:
    """Whoever needs more, all else alike, has no less."""
    total, least, most, weights = problem
    which %= len(weights)
    more = [weight * (2 if index == which else 1) for index, weight in enumerate(weights)]
    assert share_out(total, least, most, more)[which] >= share_out(total, least, most, weights)[which]


def test_beyond_the_leasts_shares_follow_the_need() -> None:
    """One who needs three times as much has three times as much of the rest."""
    assert share_out(42, [1, 1], [100, 100], [10.0, 30.0]) == [11, 31]
    assert share_out(10, [3, 1, 1], [3, 100, 100], [100.0, 1.0, 1.0]) == [3, 4, 3]


# ---------------------------------------------------------------------------------------------- what is seen


@given(fleets(), st.randoms(use_true_random=False), st.none() | st.integers(1, 12))
def test_everybody_finds_the_same(fleet: tuple[int, list[tuple[str, int]]], random: Random, expected: Any) -> None:
    """In whatever order the server tells of the connections."""
    budget, rows = fleet
    first = view("main", rows, budget, expected)
    random.shuffle(rows)
    again = view("main", rows, budget, expected)
    assert first == again
    assert first.shares() == again.shares()


@given(fleets(), st.none() | st.integers(1, 12))
def test_shares_and_room_are_within_the_budget(fleet: tuple[int, list[tuple[str, int]]], expected: Any) -> None:
    """As far as each of those there can have one; and somebody who comes can ask, unless nobody can come."""
    budget, rows = fleet
    seen = view("main", rows, budget, expected)
    if not seen.members or len(seen.members) >= budget:
        return
    assert sum(seen.shares().values()) + seen.room <= max(budget, len(seen.members) + seen.room)
    assert seen.room >= 1


@given(fleets())
def test_a_claim_is_never_less_than_what_is_open(fleet: tuple[int, list[tuple[str, int]]]) -> None:
    """All together they claim at least the connections that the server shows."""
    budget, rows = fleet
    seen = view("main", rows, budget)
    assert seen.claimed >= sum(count for _, count in rows)
    assert seen.members.keys() == {tag.read("main", name)[0] for name, _ in rows}  # type: ignore[index]


def test_the_last_saying_counts() -> None:
    """What was said on another connection before need not be taken back."""
    old, new = Said(35, 9, 1, 20, 8.0), Said(36, 2, 1, 20, 0.5)
    rows = [(tag.write("main", "0000000a", "web", said), 1) for said in (new, old)]
    member = view("main", rows, 30).members["0000000a"]
    assert (member.said, member.count, member.claim) == (new, 2, 2)


def test_strangers_count_beyond_those_declared() -> None:
    """Connections of the same role with other names; other fleets' among them."""
    rows = [("", 1), ("psql", 2), (tag.write("other", "0000000a", "web"), 1), (tag.write("main", "0000000b", "web"), 1)]
    assert view("main", rows, 20).strangers == 4
    assert view("main", rows, 20, declared=3).strangers == 1
    assert view("main", rows, 20, declared=9).strangers == 0
    assert view("main", rows, 20).taken == 5


def test_what_strangers_take_is_taken_off_the_shares() -> None:
    """Down to one connection for each member."""
    mine = (tag.write("main", "0000000a", "web", Said(1, 5, 1, 50, 50.0)), 1)
    assert view("main", [mine], 20).shares() == {"0000000a": 18}
    assert view("main", [mine, ("psql", 7)], 20).shares() == {"0000000a": 11}
    assert view("main", [mine, ("psql", 70)], 20).shares() == {"0000000a": 1}


def test_what_strangers_take_is_taken_off_once() -> None:
    """Who has what is left beside them has not too much."""
    name = tag.write("main", "0000000a", "web", Said(1, 11, 1, 50, 50.0))
    seen = view("main", [(name, 1), ("psql", 7)], 20)
    assert (seen.claimed, seen.capacity, seen.taken) == (11, 11, 18)


def fleet_of(members: int, budget: int, expected: int | None = None, share: int = 1) -> View:
    said = Said(1, share, 1, budget, 1.0)
    rows = [(tag.write("main", f"{number:08x}", "web", said), 1) for number in range(members)]
    return view("main", rows, budget, expected)


@pytest.mark.parametrize("budget", [2, 3, 5, 20, 60, 400])
def test_there_is_always_one_to_ask_on(budget: int) -> None:
    """As long as somebody may come: who comes opens a connection before it can know whether there is room."""
    joined = 0
    while fleet_of(joined + 1, budget).may_join and joined < budget + 5:
        joined += 1
    assert joined == budget - 1


def test_where_the_members_are_declared_each_has_a_place_and_one_is_left_to_ask_on() -> None:
    """Whether one too many comes, or one of them comes again before the server knows that it had gone."""
    for budget in (2, 3, 20):
        assert fleet_of(budget - 1, budget, expected=budget - 1).may_join
        assert not fleet_of(budget, budget, expected=budget - 1).may_join


def test_declared_members_leave_more_to_those_there() -> None:
    """Room for a twentieth of the budget is kept where nobody can tell how many will come; for one where all came."""
    assert fleet_of(4, 100).room == 5
    assert fleet_of(4, 100, expected=6).room == 3
    assert fleet_of(4, 100, expected=4).room == 1
    assert fleet_of(4, 10).room == 2


# ---------------------------------------------------------------------------------------------- names


@given(FLEETS, MEMBERS, FLEETS, st.data())
@example("f" * 16, "0" * 8, "s" * 16, None)
def test_what_is_said_is_what_is_read(fleet: str, member: str, service: str, data: Any) -> None:
    """In 63 bytes, whatever the figures; demand to a tenth at least."""
    figures = st.integers(1, 99_999)
    if data is None:
        said = Said(36**6 - 1, 99_999, 99_999, 99_999, 99_999.0)
    else:
        demand = data.draw(st.floats(0, 99_999))
        number = data.draw(st.integers(0, 36**6 - 1))
        said = Said(number, data.draw(figures), data.draw(figures), data.draw(figures), demand)
    name = tag.write(fleet, member, service, said)
    assert len(name.encode()) <= tag.LONGEST
    found = tag.read(fleet, name)
    assert found is not None
    assert found[0] == member
    assert found[1] is not None
    assert (found[1].number, found[1].share, found[1].least, found[1].most) == (
        said.number,
        said.share,
        said.least,
        said.most,
    )
    assert math.isclose(found[1].demand, min(said.demand, tag.LARGEST_DEMAND), abs_tol=0.1, rel_tol=0.01)


@given(FLEETS, MEMBERS, FLEETS)
def test_a_connection_that_says_nothing_is_read_as_such(fleet: str, member: str, service: str) -> None:
    """It is its member's all the same."""
    assert tag.read(fleet, tag.write(fleet, member, service)) == (member, None)


@given(FLEETS, FLEETS, MEMBERS)
def test_another_fleet_s_are_not_ours(fleet: str, other: str, member: str) -> None:
    """Also where one's name begins with the other's."""
    if fleet != other:
        assert tag.read(fleet, tag.write(other, member, "web", Said(1, 1, 1, 1, 1.0))) is None


@given(st.text(max_size=70) | st.text(max_size=50).map("penstock:main:".__add__))
@example("")
@example("penstock:main:")
@example("penstock:main:0000000a")
@example("penstock:main:0000000a:")
@example("penstock:main:0000000A:1:1:1:1:1:web")
@example("penstock:main:0000000a:1:1:1:1:1")
@example("penstock:main:0000000a:1:99999:1:1:1:web")
@example("penstock:main:0000000a:\u0661:\u0661:1:1:1:web")
@example("penstock:main:0000000a:1:-1:1:1:nan:web")
def test_nonsense_is_nobody_s_and_never_an_error(name: str) -> None:
    """Names are anybody's to choose."""
    found = tag.read("main", name)
    if found is not None and found[1] is not None:
        assert math.isfinite(found[1].demand)
        assert found[1].share >= 0
    assert view("main", [(name, 1)], 10).taken >= 1


# ---------------------------------------------------------------------------------------------- need


def core_of(leases: int, waiters: int, now: float) -> Core:
    core = Core(Settings(min_size=0, max_size=max(1, leases)), lambda: 0.5)
    core.open(now)
    for owner in range(leases + waiters):
        core.acquire(Waiter(owner, None, -1, now, math.inf), now)
    for slot in list(core.opening.values()):
        core.opened_slot(slot, now)
    assert (core.leased, len(core.waiters)) == (leases, waiters)
    return core


@pytest.mark.parametrize(("leases", "waiters", "need"), [(0, 0, 0.0), (3, 0, 3.0), (4, 10, 9.0)])
def test_need_is_connections_in_use_and_half_of_the_requests_that_wait(leases: int, waiters: int, need: float) -> None:
    """Found at once, and again from the seconds that went by (Little's law)."""
    core = core_of(leases, waiters, 100.0)
    meter = Meter()
    assert meter.read(core, 100.0) == need
    assert meter.read(core, 105.0) == pytest.approx(need)
    assert meter.read(core, 117.0) == pytest.approx(need)


def test_need_forgets_what_is_over() -> None:
    """Half of it at each look."""
    core = core_of(4, 0, 100.0)
    meter = Meter()
    meter.read(core, 100.0)
    assert meter.read(core, 105.0) == pytest.approx(4.0)
    for slot in core.leases():
        core.requite(slot, 105.0)
    assert meter.read(core, 110.0) == pytest.approx(2.0)
    assert meter.read(core, 115.0) == pytest.approx(1.0)


def test_short_uses_between_two_looks_are_all_counted() -> None:
    """Ten uses of a tenth of a second in ten seconds are a tenth of a connection, although no look sees one."""
    core = core_of(1, 0, 0.0)
    core.requite(core.leases()[0], 0.0)
    meter = Meter()
    meter.read(core, 0.0)
    for use in range(10):
        slot = core.take(1, None, -1, float(use))
        assert slot is not None
        core.requite(slot, use + 0.1)
    assert meter.read(core, 10.0) == pytest.approx(0.05)  # the half of it: smoothed


# ---------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("wrong", "kind", "words"),
    [
        ({"budget": 0}, ValueError, "budget must be 1 or more, not 0"),
        ({"budget": -1}, ValueError, "budget must be 1 or more, not -1"),
        ({"budget": 100_000}, ValueError, "budget must be 99999 at most, not 100000"),
        ({"budget": 20.0}, TypeError, "budget must be"),
        ({"budget": True}, TypeError, "budget must be"),
        ({"budget": "20"}, TypeError, "budget must be"),
        ({"name": ""}, ValueError, "name must be 1 to 16 letters"),
        ({"name": "Main"}, ValueError, "name must be 1 to 16 letters"),
        ({"name": "a" * 17}, ValueError, "name must be 1 to 16 letters"),
        ({"name": "a:b"}, ValueError, "name must be 1 to 16 letters"),
        ({"name": "a\n"}, ValueError, "name must be 1 to 16 letters"),
        ({"name": None}, ValueError, "name must be 1 to 16 letters"),
        ({"service": "my app"}, ValueError, "service must be 1 to 16 letters"),
        ({"members": 0}, ValueError, "members must be 1 or more, not 0"),
        ({"members": 21}, ValueError, "members (21) must be 19 at most where budget is 20"),
        ({"members": 1.5}, TypeError, "members must be"),
        ({"least": 0}, ValueError, "least must be 1 or more, not 0"),
        ({"least": 19}, ValueError, "least (19) cannot be guaranteed to 1 of them: budget is 20, and 2 kept"),
        ({"least": 5, "members": 4}, ValueError, "least (5) cannot be guaranteed to 4 of them: budget is 20, and 1"),
        ({"weight": 0}, ValueError, "weight must be more than 0, not 0"),
        ({"weight": math.nan}, ValueError, "weight must be more than 0, not nan"),
        ({"weight": "2"}, TypeError, "weight must be a number, not '2'"),
        ({"weight": True}, TypeError, "weight must be a number, not True"),
        ({"outside": -1}, ValueError, "outside must be 0 or more, not -1"),
        ({"period": 0}, ValueError, "period must be"),
        ({"period": 0.01}, ValueError, "period must be 0.05 seconds or more, not 0.01"),
        ({"period": math.inf}, ValueError, "period must be 0.05 seconds or more, not inf"),
        ({"period": math.nan}, ValueError, "period must be"),
        ({"period": "5"}, TypeError, "period must be"),
    ],
)
def test_a_wrong_argument_is_one_clear_error(wrong: dict[str, Any], kind: type[Exception], words: str) -> None:
    """It names the argument, what was found and what it may be."""
    with pytest.raises(kind) as raised:
        Fleet(**{"budget": 20, **wrong})
    assert words in str(raised.value)


def test_a_budget_of_one_is_no_fleet_s() -> None:
    """One connection is kept to ask on, which would leave none."""
    with pytest.raises(ValueError, match=r"budget \(1\) must be 2 or more"):
        Fleet(1)
