"""When a job tries again: arithmetic, with a clock of its own."""

from datetime import UTC, datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.batch.outcome import told
from penstock.batch.retry import Gate, Rate, Retry, asked, may_pass
from penstock.errors import Overloaded

REQUEST = httpx.Request("GET", "http://api.test/1")


def status(code: int, **headers: str) -> httpx.HTTPStatusError:
    return httpx.HTTPStatusError("no", request=REQUEST, response=httpx.Response(code, headers=headers, request=REQUEST))


def test_waits_are_drawn_from_a_range_that_doubles_up_to_a_limit() -> None:
    retry = Retry(attempts=10, first=0.5, longest=3.0)
    assert [retry.pause(tries, 0.0, None, lambda: 1.0) for tries in range(1, 6)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert retry.pause(1, 0.0, None, lambda: 0.0) == 0.0


def test_it_gives_up_after_so_many_tries_or_so_long() -> None:
    retry = Retry(attempts=3, seconds=10.0, first=1.0)
    assert retry.pause(3, 0.0, None, lambda: 0.0) is None
    assert retry.pause(1, 9.5, None, lambda: 1.0) is None
    assert retry.pause(1, 9.0, None, lambda: 1.0) == 1.0


def test_what_is_asked_for_is_waited_at_least_and_given_up_when_it_is_too_long() -> None:
    retry = Retry(seconds=10.0, first=0.5)
    assert retry.pause(1, 0.0, 7.0, lambda: 0.5) == 7.0
    assert retry.pause(1, 4.0, 7.0, lambda: 0.5) is None


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (httpx.ConnectError("no"), True),
        (httpx.ReadTimeout("no"), True),
        (TimeoutError(), True),
        (Overloaded(), True),
        (status(429), True),
        (status(503), True),
        (status(404), False),
        (status(501), False),
        (ValueError("a bug"), False),
        (httpx.InvalidURL("no"), False),
    ],
)
def test_what_may_pass_is_tried_again_and_nothing_else(error: Exception, again: bool) -> None:
    assert may_pass(error, ()) is again
    assert may_pass(error, (type(error),))


def test_retry_after_is_read_in_seconds_and_as_a_date() -> None:
    now = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
    assert asked(status(429, **{"Retry-After": "7"})) == 7.0
    assert asked(status(503, **{"Retry-After": "Thu, 01 Jan 2026 12:00:30 GMT"}), lambda: now) == 30.0
    assert asked(status(503, **{"Retry-After": "Thu, 01 Jan 2026 11:00:00 GMT"}), lambda: now) == 0.0
    assert asked(status(500, **{"Retry-After": "7"})) is None
    for unreadable in ("soon", "-1", "1e999", "9" * 400, ""):
        value = asked(status(429, **{"Retry-After": unreadable}))
        assert value is None or value < 1e10
    assert asked(Overloaded(retry_after=2.5)) == 2.5


@given(
    per_second=st.floats(0.5, 500),
    burst=st.integers(1, 20),
    gaps=st.lists(st.floats(0, 2), min_size=1, max_size=80),
)
def test_no_window_of_time_has_more_than_the_rate_and_the_burst(
    per_second: float, burst: int, gaps: list[float]
) -> None:
    gate, now, begins = Gate(Rate(per_second, burst)), 100.0, []
    for gap in gaps:
        now += gap
        begins.append(now + gate.reserve(now))
    for first, start in enumerate(begins):
        for number, at in enumerate(begins[first:], start=1):
            assert number <= burst + per_second * (at - start) + 1e-6 * number


def test_who_comes_late_finds_the_rate_as_it_was_and_no_more() -> None:
    gate = Gate(Rate(10))
    assert [round(gate.reserve(0.0), 6) for _ in range(3)] == [0.0, 0.1, 0.2]
    assert [round(gate.reserve(60.0), 6) for _ in range(3)] == [0.0, 0.1, 0.2]


def test_a_gate_that_was_shut_stays_so_until_the_latest_time_asked_for() -> None:
    gate = Gate(None)
    assert gate.closed_for(5.0) == 0.0
    gate.shut(9.0)
    gate.shut(7.0)
    assert gate.closed_for(5.0) == 4.0
    assert gate.closed_for(9.0) == 0.0


def test_who_was_held_back_comes_at_the_rate_after_the_gate_reopens() -> None:
    """Whether its place came up meanwhile or it asks for the first time then."""
    gate = Gate(Rate(10))
    places = [gate.reserve(0.0) for _ in range(20)]
    gate.shut(4.0)
    again = [place + gate.reopens(place, lambda: 1.0) for place in places]
    again += [4.0 + gate.reserve(4.0)]
    assert sorted(round(at, 6) for at in again) == [round(4 + number / 10, 6) for number in range(21)]
    assert gate.reopens(4.0, lambda: 1.0) == 0.0


def test_without_a_rate_those_held_back_come_apart_by_chance() -> None:
    gate = Gate(None)
    gate.shut(4.0)
    assert [gate.reopens(1.0, lambda chance=chance: chance) for chance in (0.0, 0.5, 1.0)] == [3.0, 3.5, 4.0]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("postgresql://u:p@hunter2@host/db", "postgresql://host/db"),
        ("https://u:a/hunter2@h/p", "https://h/p"),
        ("Authorization: Token hunter2", "Authorization: ***"),
        ("Authorization: ApiKey id=7, hunter2", "Authorization: ***"),
        ("headers {'Authorization': 'Digest hunter2', 'accept': 'x'}", "headers {'Authorization': ***, 'accept': 'x'}"),
        ("x-api-key: hunter2", "x-api-key: ***"),
        ("access_key=hunter2 secret_key=hunter2", "access_key=*** secret_key=***"),
        ("private_key: hunter2, sig=hunter2", "private_key: ***, sig=***"),
        ("X-Amz-Signature=hunter2", "X-Amz-Signature=***"),
        ("no row of id=7: https://h/u/joe@x", "no row of id=7: https://h/u/joe@x"),
        ("KeyError: 7, TokenError: expired", "KeyError: 7, TokenError: expired"),
    ],
)
def test_what_is_secret_in_an_error_is_left_out(text: str, kept: str) -> None:
    assert told(ValueError(text)) == f"ValueError: {kept}"


def test_an_error_is_told_in_a_line_without_what_is_secret() -> None:
    error = RuntimeError(
        "cannot reach https://me:hunter2@api.test/v1/users?token=hunter2&x=1#hunter2 with password='hunter2',"
        " Authorization: Bearer hunter2\nDETAIL: hunter2"
    )
    assert told(error) == ("RuntimeError: cannot reach https://api.test/v1/users with password=***, Authorization: ***")
    assert len(told(RuntimeError("x" * 10_000))) == 300
    assert told(KeyError()) == "KeyError"
