"""max_size="auto": a whole fleet's size, found by the work that gets done, within the budget."""

import logging
import random
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

import pytest

from penstock import AsyncPool, Fleet, Pool
from penstock.fleet import climb, tag
from penstock.fleet.climb import Climber, Figures, Step
from penstock.fleet.line import GRACE, Line, Totals, work_of
from penstock.fleet.shares import View, view
from penstock.fleet.tag import Mark, Said, Work
from support.waiting import eventually

PERIOD = 5.0
BUDGET = 80
MEMBERS = 8


def done_by(connections: float) -> float:
    """Per second, by a database after the universal scalability law: 10 ms alone, 861/s at its best, with 22."""
    contention = 0.02996
    crosstalk = (1 - contention) / 22**2
    return 100 * connections / (1 + contention * (connections - 1) + crosstalk * connections * (connections - 1))


BEST = done_by(22)


# ---------------------------------------------------------------------------------------------- the climber alone


def figures(at: float, rate: float, **but: Any) -> Figures:
    usual = {"known": 1.0, "full": 1.0, "troubled": 0.0, "least": MEMBERS, "most": BUDGET}
    return Figures(at=at, rate=rate, **usual | but)


@dataclass
class Climbed:
    """A climber before a database, overloaded all the time; what it did at each look."""

    start: int = BUDGET
    model: Callable[[float, float], float] = lambda line, at: done_by(line)
    but: dict[str, Any] = field(default_factory=dict)
    at: float = 0.0
    steps: list[Step] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.climber = Climber(self.start, self.at)
        self._unknown = 0  # looks until all have worked under a new line

    def run(self, seconds: float, **but: Any) -> "Climbed":
        end = self.at + seconds
        while self.at < end:
            self.at += PERIOD
            self._unknown = max(0, self._unknown - 1)
            rate = self.model(self.climber.line, self.at)
            known = {"known": 0.2} if self._unknown else {}
            step = self.climber.look(figures(self.at, rate, **self.but | known | but))
            self.lines.append(self.climber.line)
            self.rates.append(rate)
            if step is not None:
                self.steps.append(step)
                self._unknown = 3
        return self


def test_from_a_line_far_too_high_the_best_is_found_and_kept() -> None:
    """80 connections do 58 % of what 22 do."""
    run = Climbed().run(300)
    assert any(18 <= line <= 28 for line in run.lines)
    run.run(3600)
    later = run.lines[60:]
    assert 18 <= mean(later) <= 28
    assert min(later) >= 15
    assert mean(map(done_by, later)) >= 0.93 * BEST


def test_from_a_line_far_too_low_too() -> None:
    """The way up is the same rule."""
    run = Climbed(start=8).run(600)
    assert 15 <= run.lines[-1] <= 28
    assert mean(map(done_by, run.run(1800).lines[120:])) >= 0.93 * BEST


@pytest.mark.parametrize("seed", range(5))
def test_noise_does_not_walk_it_away(seed: int) -> None:
    """Each look's figure is up to 5 % off, for four hours."""
    chance = random.Random(seed)
    run = Climbed(model=lambda line, at: done_by(line) * chance.uniform(0.95, 1.05)).run(600).run(4 * 3600)
    settled = run.lines[120:]
    assert mean(map(done_by, settled)) >= 0.93 * BEST
    assert 18 <= mean(settled) <= 28
    assert max(settled) <= 40


def test_a_database_at_half_its_strength_and_back() -> None:
    """Fewer completions are no news of the line, after a try or two."""
    run = Climbed(start=22, model=lambda line, at: done_by(line) * (0.5 if 600 < at <= 1200 else 1)).run(600)
    start = len(run.lines)
    run.run(600)
    assert mean(map(done_by, run.lines[start:])) >= 0.93 * BEST
    start = len(run.lines)
    run.run(600)
    assert mean(map(done_by, run.lines[start:])) >= 0.93 * BEST


def test_while_the_line_is_not_in_the_way_nothing_is_tried() -> None:
    """A light load says nothing of how many would be best."""
    run = Climbed().run(3600, full=0.4)
    assert run.steps == []
    assert run.lines[-1] == BUDGET


def test_while_the_fleet_is_in_trouble_it_stands_still() -> None:
    """What gets done while connecting fails is no measure; and no step is judged by what came before the trouble."""
    run = Climbed().run(60)
    line = run.climber.line
    assert line < BUDGET
    run.run(600, troubled=0.1)
    assert run.climber.line == line
    before = len(run.steps)
    run.run(60)
    assert "before" not in run.steps[before].why


def test_what_makes_no_difference_goes_down_but_not_below_what_is_guaranteed() -> None:
    """One lock that everything waits for: each connection above the least only waits too."""
    run = Climbed(model=lambda line, at: 400.0).run(1800)
    assert min(run.lines) == MEMBERS
    assert set(run.lines[200:]) <= {MEMBERS, MEMBERS + 1}  # a try now and then


def test_small_losses_add_up() -> None:
    """Two steps that each cost 0.7 %, which is no difference, are taken back to where they are one of 1.4 %."""
    run = Climbed(model=lambda line, at: 500 + line / 2).run(120)
    assert [step.line for step in run.steps[:3]] == [72, 65, 72]
    assert run.steps[2].why.endswith("less, so back")


def test_a_line_that_was_gone_back_to_is_rested_on_longer_each_time() -> None:
    """Each try costs work, and a line in the log."""
    run = Climbed().run(4 * 3600)
    homes = [index for index, step in enumerate(run.steps) if step.why.endswith("back")]
    assert len(homes) > 20
    last_hour = run.lines[-720:]
    assert sum(line == 19 for line in last_hour) > 0.9 * len(last_hour)


def test_where_the_budget_is_the_best_it_is_left_for_a_try_now_and_then() -> None:
    """And not passed."""
    run = Climbed(start=20, model=lambda line, at: 40.0 * line, but={"most": 20}).run(3600)
    assert max(run.lines) == 20
    assert mean(run.lines) >= 19


def test_a_change_in_what_gets_done_ends_the_rest() -> None:
    """A larger machine, with its best at 60: found although the old line had been confirmed for hours."""
    change = 4 * 3600
    run = Climbed(model=lambda line, at: done_by(line if at <= change else line * 22 / 60)).run(change)
    before = len(run.steps)
    run.run(15)
    assert len(run.steps) == before + 1
    run.run(900)
    assert 45 <= run.lines[-1] <= 75


def test_few_completions_are_waited_for() -> None:
    """20 a second for two looks could be any number between 170 and 230."""
    run = Climbed(model=lambda line, at: 20.0).run(120)
    assert run.steps == []
    assert len(run.run(10).steps) == 1


def test_a_line_that_nothing_confirms_goes_back_to_the_budget() -> None:
    """After an hour or so; and not at all in the first minutes, when the load may come back."""
    run = Climbed(start=22).run(290, full=0.0)
    assert run.lines[-1] == 22
    run.run(20, full=0.0)
    assert run.lines[-1] == 24
    run.run(2 * 3600, full=0.0)
    assert run.lines[-1] == BUDGET
    assert all("not in the way" in step.why for step in run.steps)


def test_a_budget_that_shrinks_and_comes_back_is_no_decision() -> None:
    """Strangers on the database take of the budget while they last; the line that was found stays found."""
    climber = Climber(60, 0.0)
    assert climber.look(figures(5.0, 500.0, full=0.0, most=40)) is None
    assert climber.line == 60


# ---------------------------------------------------------------------------------------------- members, simulated


class Process:
    """One of a fleet, without a pool: it looks, follows and takes its share as `fleet.member.Member` does."""

    def __init__(self, name: str, at: float, demand: float, climbs: bool = True) -> None:
        self.name, self.at, self.demand = name, at, demand
        self.share = 1
        self.line = Line(climbs, BUDGET)
        self.number = 0
        self.done = self.used = self.waited = 0.0

    def named(self) -> tuple[str, int]:
        self.number += 1
        said = Said(self.number, self.share, 1, BUDGET, self.demand, self.line.says)
        return tag.write("main", self.name, "web", said), self.share


class FleetModel:
    """Processes with clients without end, before a database after the law; looks are spread out."""

    def __init__(self, seed: int, hot: float = 1.0) -> None:
        self.chance = random.Random(seed)
        self.now = 0.0
        self.strength = 1.0
        self.processes = {
            name: Process(name, PERIOD * self.chance.random(), hot if not index else 1.0)
            for index, name in enumerate(f"{index:08x}" for index in range(MEMBERS))
        }
        self.names = {name: process.named() for name, process in self.processes.items()}
        self.history: list[tuple[float, int, float]] = []  # at, connections, done per second
        self.highest = 0

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while (process := min(self.processes.values(), key=lambda process: process.at)).at < end:
            self._work(process.at - self.now)
            self.now = process.at
            process.at += PERIOD * self.chance.uniform(0.95, 1.05)
            self._look(process)

    def kill(self, name: str) -> None:
        del self.processes[name], self.names[name]

    @property
    def decider(self) -> str:
        seen = self._seen()
        assert seen.decider is not None
        return seen.decider.name

    def _work(self, seconds: float) -> None:
        connections = sum(process.share for process in self.processes.values())
        rate = self.strength * done_by(connections)
        for process in self.processes.values():
            process.done += rate * seconds * process.share / connections
            process.used += seconds * process.share
            process.waited += seconds * 5
        self.history.append((self.now, connections, rate))
        self.highest = max(self.highest, connections)

    def _look(self, process: Process) -> None:
        totals = Totals(self.now, round(process.done), process.used, process.waited, 0, 0)
        process.line.measure(totals, process.share)
        seen = self._say(process)
        if process.line.decide(seen, process.name, self.now) is not None:
            seen = self._say(process)
        want = seen.shares()[process.name]
        process.share = min(want, process.share + max(0, seen.capacity - seen.claimed))
        self._say(process)

    def _seen(self) -> View:
        return view("main", self.names.values(), BUDGET, MEMBERS)

    def _say(self, process: Process) -> View:
        self.names[process.name] = process.named()
        return process.line.follow(self._seen(), self.now)

    def since(self, at: float) -> list[tuple[float, int, float]]:
        return [entry for entry in self.history if entry[0] >= at]


@pytest.mark.parametrize("hot", [1.0, 40.0])
def test_eight_members_find_the_best_together(hot: float) -> None:
    """Each looks on its own time, one may need much more than the others; the budget is 80, the best 22."""
    fleet = FleetModel(seed=1, hot=hot)
    fleet.run(900)
    found = fleet.since(600)
    assert 18 <= mean(connections for _, connections, _ in found) <= 28
    fleet.run(3600)
    assert mean(rate for _, _, rate in fleet.since(900)) >= 0.93 * BEST
    assert fleet.highest <= BUDGET


def test_eight_members_while_the_database_is_at_half_its_strength() -> None:
    """For ten minutes; and afterwards."""
    fleet = FleetModel(seed=2)
    fleet.run(900)
    fleet.strength = 0.5
    fleet.run(600)
    fleet.strength = 1.0
    fleet.run(900)
    assert mean(rate for at, _, rate in fleet.since(900) if at < 1500) >= 0.93 * BEST / 2
    assert mean(rate for _, _, rate in fleet.since(1500)) >= 0.93 * BEST


def test_when_the_member_that_decides_is_killed_another_goes_on_from_its_line() -> None:
    """The others do not return to the budget in between."""
    fleet = FleetModel(seed=3)
    fleet.run(900)
    for _ in range(3):
        connections = fleet.history[-1][1]
        fleet.kill(fleet.decider)
        since = fleet.now
        fleet.run(GRACE + 60)
        assert max(taken for _, taken, _ in fleet.since(since)) <= 1.25 * connections
    assert mean(rate for _, _, rate in fleet.since(900)) >= 0.93 * BEST


def names(*said: tuple[str, Work | None]) -> View:
    found = [(tag.write("main", name, "web", Said(1, 2, 1, 9, 1.0, work)), 2) for name, work in said]
    return view("main", found, BUDGET)


def test_of_several_who_decide_the_first_by_name_counts_for_all() -> None:
    """And the others leave it to that one."""
    both = names(("aaaaaaaa", Work(1.0, Mark.DECIDES, 30)), ("bbbbbbbb", Work(1.0, Mark.DECIDES, 40)))
    assert both.decider == ("aaaaaaaa", 30)
    second = Line(True, BUDGET)
    nobody = names(("bbbbbbbb", None))
    assert second.decide(second.follow(nobody, 1.0), "bbbbbbbb", 1.0) is not None
    assert second.says == Work(0.0, Mark.DECIDES, BUDGET)
    assert second.decide(second.follow(both, 2.0), "bbbbbbbb", 2.0) is None
    assert second.says is None


def test_who_does_not_climb_follows_the_line_and_never_decides() -> None:
    """A fleet may have pools with a fixed size among others; with nobody left to decide, the budget counts again."""
    line = Line(False, BUDGET)
    led = names(("aaaaaaaa", Work(1.0, Mark.DECIDES, 30)), ("bbbbbbbb", None))
    alone = names(("bbbbbbbb", None))
    assert line.follow(led, 1.0).capacity == 30
    assert line.decide(line.follow(alone, 2.0), "bbbbbbbb", 2.0) is None
    assert line.follow(alone, GRACE).capacity == 30
    assert line.follow(alone, GRACE + 2).line is None


def test_work_under_a_new_line_counts_from_the_second_look_on() -> None:
    """In between members take and give up what the line made of their shares."""
    line = Line(False, BUDGET)

    def look(at: float, of: int) -> Work | None:
        line.measure(Totals(at, round(at * 10), at * 2, at * 3, 0, 0), 2)
        line.follow(names(("aaaaaaaa", Work(1.0, Mark.DECIDES, of))), at)
        return line.says

    assert look(5, 30) is None
    assert look(10, 30) is None
    assert look(15, 30) == Work(10.0, Mark.FULL, 30)
    assert look(20, 27) == Work(10.0, Mark.FULL, 30)
    assert look(25, 27) == Work(10.0, Mark.FULL, 30)
    assert look(30, 27) == Work(10.0, Mark.FULL, 27)


@pytest.mark.parametrize(
    ("used", "waited", "errors", "lost", "mark"),
    [
        (4.0, 1.0, 0, 0, Mark.FULL),
        (4.0, 0.2, 0, 0, Mark.EASY),  # nobody waits
        (3.0, 1.0, 0, 0, Mark.EASY),  # some wait while connections are idle: not for want of any
        (4.0, 1.0, 1, 0, Mark.TROUBLED),
        (4.0, 1.0, 0, 60, Mark.TROUBLED),
    ],
)
def test_what_a_member_says_of_the_line(used: float, waited: float, errors: int, lost: int, mark: Mark) -> None:
    """Means over 10 s, of a share of 4."""
    work = work_of(Totals(0, 0, 0, 0, 0, 0), Totals(10, 1000, used * 10, waited * 10, errors, lost), 4, 30)
    assert work == Work(100.0, mark, 30)


# ---------------------------------------------------------------------------------------------- what is said


@pytest.mark.parametrize("budget", [1, 35, 1295, 46_655, 99_999])
def test_the_longest_name_that_is_allowed_holds_all_figures(budget: int) -> None:
    """Cut off, a figure would be read as another one, and a member as smaller than it is."""
    longest = tag.longest_fleet(budget, budget)
    assert longest >= 8
    name = "f" * min(16, longest)
    assert Fleet(budget, name=name, least=budget, redis="redis://localhost").name == name  # which keeps no room
    for mark in Mark:
        work = Work(tag.LARGEST_RATE, mark, budget)
        said = Said(tag.NUMBERS - 1, budget, budget, budget, tag.LARGEST_DEMAND, work)
        assert tag.read(name, tag.write(name, "0123abcd", "a-long-service", said)) == ("0123abcd", said)


def test_a_name_too_long_for_its_budget_is_refused() -> None:
    """With what would do."""
    with pytest.raises(ValueError, match="name must be 14 letters at most where budget is 5000, not 'fif"):
        Fleet(5000, name="fifteen-letters")


def test_what_does_not_fit_is_never_said() -> None:
    """After so many looks that the number has grown out of it, say."""
    said = Said(36**8 - 1, 99_999, 99_999, 99_999, tag.LARGEST_DEMAND, Work(tag.LARGEST_RATE, Mark.FULL, 99_999))
    with pytest.raises(OverflowError, match="longer than 63 bytes"):
        tag.write("f" * 16, "0123abcd", "web", said)


def test_more_than_can_be_said_is_said_as_the_most() -> None:
    """Demand and rate have an end; nobody is the worse for it."""
    name = tag.write("main", "0123abcd", "web", Said(1, 2, 1, 4, 1e9, Work(1e9, Mark.EASY, 4)))
    read = tag.read("main", name)
    assert read == ("0123abcd", Said(1, 2, 1, 4, tag.LARGEST_DEMAND, Work(tag.LARGEST_RATE, Mark.EASY, 4)))


# ---------------------------------------------------------------------------------------------- pools


@pytest.mark.parametrize("kind", [Pool, AsyncPool])
def test_without_a_fleet_it_is_refused(kind: Any) -> None:
    """A pool that looks for its own best size beside others takes the database down."""
    with pytest.raises(ValueError, match=r'max_size="auto" needs fleet=penstock.Fleet\(budget\)'):
        kind("", max_size="auto", open=False)


def test_another_word_is_refused() -> None:
    """With a fleet as without."""
    for fleet in (None, Fleet(4)):
        with pytest.raises(TypeError, match="max_size must be a whole number, not 'automatic'"):
            Pool("", max_size="automatic", fleet=fleet, open=False)  # type: ignore[arg-type]


# Takes longer the more run at once, so that the most gets done with about 4.
CROWDED = """
SELECT pg_sleep(0.004 * (1 + (count(*) - 1) * count(*) / 16.0)) FROM pg_stat_activity
WHERE state = 'active' AND application_name LIKE 'penstock:crowd:%'
"""


def test_two_pools_on_a_real_database_get_more_done_with_fewer(
    dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that does not climb follows; the one that does says each decision; without it the budget counts again."""
    monkeypatch.setattr(climb, "ENOUGH", 40)
    monkeypatch.setattr("penstock.fleet.line.GRACE", 1.0)
    monkeypatch.setattr("penstock.fleet.member.PER_SECOND", 100)
    caplog.set_level(logging.INFO, "penstock.pool")
    over = threading.Event()
    done = dict.fromkeys(("climbs", "follows"), 0)

    def serve(pool: Pool[Any]) -> None:
        while not over.is_set():
            with pool.connection() as conn:
                conn.execute(CROWDED)
            done[pool.name] += 1

    def line(pool: Pool[Any]) -> int | None:
        state = pool.fleet()
        assert state is not None
        return state.line

    fleet = Fleet(18, name="crowd", members=2, period=0.1)
    with ExitStack() as last:
        follows = last.enter_context(Pool(dsn, min_size=1, fleet=fleet, name="follows"))
        climbs = last.enter_context(Pool(dsn, min_size=1, max_size="auto", fleet=fleet, name="climbs"))
        clients = [threading.Thread(target=serve, args=(pool,)) for pool in (climbs, follows) for _ in range(12)]
        for client in clients:
            client.start()
        try:
            eventually(lambda: (line(climbs) or 99) <= 9 and line(follows) == line(climbs), 25)
            eventually(lambda: climbs.max_size + follows.max_size <= 9)
            state = follows.fleet()
            assert state is not None
            assert 'of its 18 connections (max_size="auto")' in str(state.hint)
        finally:
            over.set()
            for client in clients:
                client.join()
        climbs.close()
        eventually(lambda: line(follows) is None)
        eventually(lambda: follows.max_size > 9)
    decisions = [record.getMessage() for record in caplog.records if "fleet crowd: line" in record.getMessage()]
    assert decisions[0] == "climbs: fleet crowd: line 18: nobody decides: this process does from now on"
    assert all(decision.startswith("climbs: fleet crowd: line ") for decision in decisions)
    assert any("/s done, " in decision and decision.endswith("/s before: more") for decision in decisions)
    assert min(done.values()) > 0
