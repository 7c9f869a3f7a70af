"""What the multiplexer decides by, one by one and without a server: where to send, what is slow, what to prepare."""

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import AsyncPool, Multiplex, Pool
from penstock.multiplex.history import MOST_TEXTS, UNKNOWN, History, Record
from penstock.multiplex.prepared import Key, Prepared, Route
from penstock.multiplex.pulse import Pulse
from penstock.multiplex.schedule import FILL, choose
from support import virtual
from support.virtual import VirtualLoop

TARGET = 0.008
FULL = math.inf
HARDLY = FILL * TARGET

WAITS = st.lists(st.one_of(st.floats(0, 4 * TARGET), st.just(FULL)), max_size=6)


class Open:
    """A connection that makes who comes now wait for so long."""

    def __init__(self, wait: float) -> None:
        self._wait = wait

    def wait(self, now: float) -> float:
        return self._wait


def chosen(waits: list[float], *, idle: bool = False) -> int | None:
    """Which of the connections with these waits, by its place."""
    pipelines = [Open(wait) for wait in waits]
    choice = choose(pipelines, TARGET, idle, now=1.0)
    return None if choice is None else pipelines.index(choice)


# ---------------------------------------------------------------------------------------------- schedule


@pytest.mark.parametrize(
    ("waits", "idle", "expected"),
    [
        ([], True, None),
        ([], False, None),
        ([0.0, 0.0], True, 0),
        ([HARDLY, 0.0], True, 0),
        ([HARDLY * 1.01, HARDLY], True, 1),
        ([HARDLY * 1.01], True, None),
        ([HARDLY * 1.01], False, 0),
        ([TARGET, HARDLY * 1.5, HARDLY * 2], False, 1),
        ([TARGET], False, 0),
        ([TARGET * 1.01], False, None),
        ([FULL, FULL], False, None),
        ([FULL, TARGET], False, 1),
    ],
)
def test_one_is_filled_before_the_next_and_an_idle_one_comes_before_waiting(
    waits: list[float], idle: bool, expected: int | None
) -> None:
    """Batches are what pays, as long as nobody waits for long."""
    assert chosen(waits, idle=idle) == expected


@given(waits=WAITS, idle=st.booleans())
def test_nobody_is_made_to_wait_beyond_the_target(waits: list[float], idle: bool) -> None:
    """Nor beside an idle connection; and whoever could be sent in time, with none idle, is."""
    place = chosen(waits, idle=idle)
    if place is not None:
        assert waits[place] <= (HARDLY if idle else TARGET)
    else:
        assert idle or all(wait > TARGET for wait in waits)


@given(waits=WAITS, idle=st.booleans())
def test_the_first_that_is_as_good_as_free_is_taken(waits: list[float], idle: bool) -> None:
    """Whatever comes after it stays empty, so that it can be given back."""
    good = [place for place, wait in enumerate(waits) if wait <= HARDLY]
    assert not good or chosen(waits, idle=idle) == good[0]


# ---------------------------------------------------------------------------------------------- history


def test_the_mean_of_all_at_first_and_of_the_newest_in_the_end() -> None:
    """The first say what they say; later ones are averaged, and old ones forgotten."""
    record = Record(TARGET)
    for seconds in (0.001, 0.003, 0.005):
        record.note(seconds)
    assert record.expected == pytest.approx(0.003)
    for _ in range(1000):
        record.note(0.002)
    assert record.expected == pytest.approx(0.002, rel=0.01)


def test_several_at_once_are_several() -> None:
    """Answers that come together are noted together, as if one by one."""
    together, apart = Record(TARGET), Record(TARGET)
    together.note(0.001, 5)
    together.note(0.004, 5)
    for seconds in [0.001] * 5 + [0.004] * 5:
        apart.note(seconds)
    assert together.expected == pytest.approx(apart.expected) == pytest.approx(0.0025)


def test_more_at_once_than_are_remembered_overshoot_nothing() -> None:
    """The share of the newest is never more than all."""
    record = Record(TARGET)
    record.note(0.001)
    for _ in range(200):
        record.note(0.001)
    record.note(0.003, 5000)
    assert 0.001 <= record.expected <= 0.003


def test_what_is_unknown_is_expected_to_take_a_while() -> None:
    """Not so long that nobody is sent behind it, nor so short that many are."""
    record = History(TARGET).of("SELECT 1")
    assert record.expected == UNKNOWN * TARGET
    assert record.expected <= TARGET, "it need not be alone before anything is known"
    assert not record.slow


def test_what_has_become_quick_is_forgiven() -> None:
    """An index was made: nobody holds the past against the text for ever."""
    record = Record(TARGET)
    record.note(10 * TARGET, 100)
    assert record.slow
    for _ in range(3000):
        record.note(TARGET / 100)
    assert record.expected < TARGET / 10


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 300)), max_size=50))
def test_whatever_is_noted_the_mean_lies_between(notes: list[tuple[float, int]]) -> None:
    record = Record(TARGET)
    for seconds, count in notes:
        record.note(seconds, count)
    most = max((seconds for seconds, _ in notes), default=UNKNOWN * TARGET)
    assert -1e-9 <= record.expected <= most + 1e-9


def test_a_text_is_known_again() -> None:
    """By its own words, not by those of another."""
    history = History(TARGET)
    history.of("SELECT 1").note(0.5)
    assert history.of("SELECT 1").expected == 0.5
    assert history.of("SELECT 2").expected == UNKNOWN * TARGET


def test_texts_are_not_kept_without_bound() -> None:
    """The oldest go. A record in somebody's hand can be noted all the same."""
    history = History(TARGET)
    first = history.of("SELECT 0")
    for number in range(1, 3 * MOST_TEXTS):
        history.of(f"SELECT {number}")
    assert len(history._records) == MOST_TEXTS
    first.note(0.1)
    assert history.of("SELECT 0") is not first


# ---------------------------------------------------------------------------------------------- prepared


def key(number: int) -> Key:
    return (b"SELECT %d" % number, ())


def able(threshold: int | None = 0, most: int | None = 3) -> Prepared:
    prepared = Prepared(threshold, most, Route())
    prepared.route = Route(known=True, direct=True, able=True)
    return prepared


def prepare(prepared: Prepared, number: int) -> bytes | None:
    """Returns which name was given up for it."""
    prepared.begin(key(number))
    return prepared.succeeded(key(number))


def test_it_is_prepared_once_it_was_used_so_often() -> None:
    """psycopg's rule: with a threshold of 2 the third use prepares."""
    prepared = able(threshold=2)
    assert [prepared.is_due(key(1)) for _ in range(3)] == [False, False, True]
    assert not prepared.is_due(key(2)), "each is counted for itself"


@pytest.mark.parametrize(
    "prepared",
    [Prepared(0, 3, Route()), able(threshold=None), able(most=0)],
    ids=["not known to be able", "switched off", "none may be kept"],
)
def test_nothing_is_prepared_where_it_may_not(prepared: Prepared) -> None:
    assert not any(prepared.is_due(key(1)) for _ in range(10))


def test_nobody_uses_a_name_before_it_is_known_to_stand() -> None:
    """Meanwhile nobody prepares it a second time either; if it fails it is due again, under another name."""
    prepared = able()
    first = prepared.begin(key(1))
    assert prepared.name(key(1)) is None
    assert not prepared.is_due(key(1))
    prepared.failed(key(1))
    assert prepared.is_due(key(1))
    second = prepared.begin(key(1))
    assert prepared.succeeded(key(1)) is None
    assert prepared.name(key(1)) == second != first


def test_the_one_not_used_for_longest_makes_room() -> None:
    """The name that is to be deallocated is told; what is used stays."""
    prepared = able(most=2)
    prepare(prepared, 1)
    second = prepared.begin(key(2))
    prepared.succeeded(key(2))
    assert prepared.name(key(1)) is not None
    assert prepare(prepared, 3) == second
    assert prepared.name(key(2)) is None
    assert prepared.name(key(1)) is not None


def test_none_is_given_up_where_any_number_may_be_kept() -> None:
    prepared = able(most=None)
    assert [prepare(prepared, number) for number in range(1000)] == [None] * 1000


def test_what_was_forgotten_is_forgotten_under_that_name_only() -> None:
    """Of many under way under an old name, the first to fail has it prepared anew; the others leave the new one be."""
    prepared = able()
    old = prepared.begin(key(1))
    prepared.succeeded(key(1))
    assert prepared.forget(key(1), old)
    assert prepared.is_due(key(1))
    new = prepared.begin(key(1))
    prepared.succeeded(key(1))
    assert not prepared.forget(key(1), old)
    assert prepared.name(key(1)) == new


def test_uses_are_not_counted_without_bound() -> None:
    """As few as may be prepared are remembered."""
    prepared = able(threshold=5, most=3)
    for number in range(1000):
        prepared.is_due(key(number))
    assert len(prepared._uses) == 3


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["use", "fails", "is forgotten"])), max_size=60))
def test_the_account_agrees_with_the_session(steps: list[tuple[int, str]]) -> None:
    """Whatever happens, each name that is used stands in the session, and never more than may."""
    prepared, session = able(threshold=1, most=2), set()
    for number, step in steps:
        name = prepared.name(key(number))
        assert name is None or name in session
        if name is not None and step == "is forgotten":
            prepared.forget(key(number), name)
            session.discard(name)
        elif name is None and prepared.is_due(key(number)):
            name = prepared.begin(key(number))
            assert name not in session
            if step == "fails":
                prepared.failed(key(number))
            else:
                session.add(name)
                session.discard(prepared.succeeded(key(number)) or b"")
        assert len(session) <= 2


# ---------------------------------------------------------------------------------------------- pulse


class Clock:
    """Told the time by the test: a callback that works for long takes time, which a virtual loop's do not."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def in_rounds(*rounds: Callable[[], object]) -> None:
    """Run each in a round of the event loop of its own."""

    async def main(_: VirtualLoop) -> None:
        for each in rounds:
            each()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    virtual.run(main)


def test_it_had_looked_before_the_round_that_runs() -> None:
    """What is read in this round may have come at any time since the look before, and not earlier."""
    clock, looks = Clock(), []
    beating: list[Pulse] = []

    def begin() -> None:
        beating.append(Pulse(asyncio.get_running_loop(), clock))

    def busy_round() -> None:
        looks.append((clock.now, beating[0].looked))
        beating[0].beat()
        beating[0].beat()  # twice in a round is once
        clock.now += 1.0

    in_rounds(begin, *[busy_round] * 4)
    assert [now for now, _ in looks] == [100.0, 101.0, 102.0, 103.0]
    for now, looked in looks:
        assert looked <= now, "it says nothing of what is to come"
    assert looks[-1][1] == 102.0, "the look before the last round began, when that before it had ended"


def test_who_has_not_beaten_claims_nothing_new() -> None:
    """Without a beat it may have looked more often than it knows; earlier is the safe side."""
    clock = Clock()
    found: list[float] = []

    async def main(loop: VirtualLoop) -> None:
        pulse = Pulse(loop, clock)
        for _ in range(5):
            clock.now += 1.0
            await asyncio.sleep(0)
        found.append(pulse.looked)

    virtual.run(main)
    assert found == [100.0]


# ---------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("option", "value", "kind", "words"),
    [
        ("target", "5ms", TypeError, "target must be a number of seconds, not '5ms'"),
        ("target", True, TypeError, "target must be a number of seconds, not True"),
        ("target", -1, ValueError, "target must be 0 seconds or more, not -1"),
        ("target", math.nan, ValueError, "target must be 0 seconds or more, not nan"),
        ("target", 0, ValueError, r"target must be 0\.0001 to 60 seconds, not 0"),
        ("target", math.inf, ValueError, r"target must be 0\.0001 to 60 seconds, not inf"),
        ("max_in_flight", 0, ValueError, "max_in_flight must be 1 or more, not 0"),
        ("max_in_flight", 1.5, TypeError, r"max_in_flight must be a whole number, not 1\.5"),
        ("max_result", 65_535, ValueError, "max_result must be 65536 or more, not 65535"),
        ("max_result", "16MB", TypeError, "max_result must be a whole number, not '16MB'"),
    ],
)
def test_a_setting_that_cannot_be_is_named(option: str, value: Any, kind: type[Exception], words: str) -> None:
    """The argument, what was found and what it may be."""
    options: dict[str, Any] = {option: value}
    with pytest.raises(kind, match=words):
        Multiplex(**options)


@pytest.mark.parametrize("kind", [Pool, AsyncPool])
@pytest.mark.parametrize("value", [True, 256, {"target": 0.005}, Multiplex])
def test_a_pool_takes_no_other_settings(kind: Any, value: Any) -> None:
    with pytest.raises(TypeError, match=r"multiplex must be a penstock\.Multiplex, not"):
        kind("", open=False, multiplex=value)


def test_the_defaults_are_those_of_the_docs() -> None:
    """5 ms, 256 statements, 16 MiB; and they cannot be changed behind a pool's back."""
    settings: Any = Multiplex()
    assert (settings.target, settings.max_in_flight, settings.max_result) == (0.005, 256, 16 * 2**20)
    with pytest.raises(AttributeError):
        settings.target = 1.0
