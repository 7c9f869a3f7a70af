"""What connections are held for is found by looking now and then, and told without anything they were held with."""

import asyncio
import logging
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from penstock import AsyncPool, CallSite, Pool
from penstock.observe import profile as profiles
from penstock.observe.early import AGAIN, Early
from penstock.observe.fingerprint import LONGEST, fingerprint
from penstock.observe.profile import MINUTE, MINUTES, OTHER, TOP, Tally
from penstock.pool.holders import Holder
from penstock.pool.profile import Profile, SiteTime
from support.waiting import aside, eventually, soon

HERE = CallSite("app.py", 1, "view")


class Shown:
    """A source whose holders are as the test has them."""

    name = "shown"

    def __init__(self, dialect: str = "") -> None:
        self.dialect = dialect
        self.out: list[tuple[CallSite, bool, str | None]] = []

    def holders(self) -> list[Holder]:
        return [Holder(site, 1.0, 0.5 if idle else None, text, "INTRANS", "me", ()) for site, idle, text in self.out]


def site(number: int) -> CallSite:
    return CallSite("app.py", number, "view")


# ---------------------------------------------------------------------------------------------- fingerprints


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("select * from t where a = 'x''y' and c=$1 -- hi", "select * from t where a = ? and c=?"),
        ("SELECT  1.5e3,\n -7, 0x1F /* trace='abc' */", "SELECT ?, -?, ?"),
        ("select t1.c2 from t1 where x in (1, 2,3)", "select t1.c2 from t1 where x in (?, ...)"),
        ("select * from t where id IN (%s)", "select * from t where id IN (?, ...)"),
        ("insert into t values (%s, %s),(%s,%s), (%s, %s)", "insert into t values (?, ...), ..."),
        ("select :name, %(name)s, a::text, ?", "select ?, ?, a::text, ?"),
        ("select E'it\\'s', U&'d', x'ff', $$a'b$$, $tag$a$$b$tag$", "select ?, ?, ?, ?, ?"),
        ('select "a ""b""" from "t"', 'select "a ""b""" from "t"'),
        ("select 'cut off", "select ..."),
        (r"select 'two \' readings', x", "select ..."),
        ("select /* a /* nested */ comment */ 1", "select ..."),
        (b"select 'bytes'", "select ?"),
        ("select 0b101, 1_000, 0o17, 1_0.5_0e1_0, 0xFF_FF, a_1", "select ?, ?, ?, ?, ?, a_1"),
        ("SET app.key TO secret, words", "SET app.key TO ?"),
        ("select 1; set local role_name = secret", "select ?; set local role_name = ?"),
        ("update t set a = b where c = 1", "update t set a = b where c = ?"),
        (sql.SQL("select {} = {}").format(sql.Identifier("a"), sql.Literal("value")), 'select "a" = ?'),
        (object(), "<object>"),
        ("", ""),
        (None, None),
    ],
)
def test_a_fingerprint_is_the_statement_without_its_values(statement: Any, told: str | None) -> None:
    assert fingerprint(statement) == told


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        (r"select 'it\'s', ''", "select ?, ?"),
        ('select "text", `name` from `t` # said', "select ?, `name` from `t`"),
        ("select /*! 1 */ 'a'", "select /*! ? */ ?"),
    ],
)
def test_mysql_s_values_are_in_double_quotes_too(statement: str, told: str) -> None:
    assert fingerprint(statement, "mysql") == told


def test_a_fingerprint_is_short_and_quickly_made() -> None:
    """Whatever the statement's length: the time grows with it no faster than it does."""
    long = "select " + ", ".join(f"column_{number}" for number in range(100_000))
    assert len(fingerprint(long) or "") == LONGEST
    assert len(fingerprint("select '" + "\\" * 50_000) or "") < LONGEST


SECRET = "s3cret"
PIECES = st.sampled_from(
    ["'", '"', "`", "\\", "$$", "$a$", "/*", "*/", "--", "\n", "#", "E'", "''", " ", "x", ",", "(", ")", "1", "%s"]
)


@given(before=st.lists(PIECES, max_size=12), after=st.lists(PIECES, max_size=12), mysql=st.booleans())
def test_no_value_shows_through_whatever_stands_round_it(before: list[str], after: list[str], mysql: bool) -> None:
    """A literal that the server reads as one, in a statement that it takes, is never told."""
    text = "".join(before)
    if not _is_whole(text, mysql):
        return  # the secret would be in the midst of something else
    assert SECRET not in (fingerprint(f"{text} '{SECRET}'{''.join(after)}", "mysql" if mysql else "") or "")


def _is_whole(text: str, mysql: bool) -> bool:
    """As a server with its default settings reads it: nothing is left open at its end."""
    at = 0
    while at < len(text):
        two, one = text[at : at + 2], text[at]
        if two == "/*":
            depth, at = 1, at + 2
            while depth:
                if at >= len(text):
                    return False
                if text.startswith("*/", at):
                    depth, at = depth - 1, at + 2
                elif text.startswith("/*", at) and not mysql:
                    depth, at = depth + 1, at + 2
                else:
                    at += 1
        elif (two == "--" and not mysql) or (mysql and (one == "#" or text.startswith(("-- ", "--\n"), at))):
            end = text.find("\n", at)
            if end < 0:
                return False
            at = end + 1
        elif one == "$" and not mysql:
            tag = "$$" if two == "$$" else "$a$" if text.startswith("$a$", at) else None
            if tag is None or (at and (text[at - 1].isalnum() or text[at - 1] in "_$")):
                return False  # part of a name: leave such oddities out
            end = text.find(tag, at + len(tag))
            if end < 0:
                return False
            at = end + len(tag)
        elif one in ("'", '"', "`") and not (one == "`" and not mysql):
            escapes = (mysql and one != "`") or (one == "'" and at > 0 and text[at - 1] in "eE" and not mysql)
            at += 1
            while True:
                if at >= len(text):
                    return False
                if (text[at] == "\\" and escapes) or text.startswith(one * 2, at):
                    at += 2
                elif text[at] == one:
                    at += 1
                    break
                else:
                    at += 1
        else:
            at += 1
    return at == len(text)


# ---------------------------------------------------------------------------------------------- looking


def test_time_is_counted_by_line_and_by_statement() -> None:
    """Of what is out at a look, the seconds since the look before."""
    shown, tally = Shown(), Tally(0.0)
    shown.out = [(site(1), True, "select 1"), (site(1), False, "select 2"), (site(2), False, "select 'x'")]
    assert tally.look(shown, 2.0)  # type: ignore[arg-type]
    shown.out = [(site(2), True, None)]
    assert tally.look(shown, 2.5)  # type: ignore[arg-type]
    shown.out = []
    assert not tally.look(shown, 3.0)  # type: ignore[arg-type]
    found = tally.profile()
    assert (found.seconds, found.held, found.idle) == (3.0, 6.5, 2.5)
    assert found.sites == (SiteTime(site(1), 4.0, 2.0), SiteTime(site(2), 2.5, 0.5))
    assert found.idle_sites == (SiteTime(site(1), 4.0, 2.0), SiteTime(site(2), 2.5, 0.5))
    assert {each.statement: each.ran for each in found.statements} == {"select ?": 4.0}


def test_what_is_short_is_counted_right_on_average() -> None:
    """Held for 30 % of the time, in pieces far shorter than the time between two looks."""
    chance, shown, tally, now = random.Random(7), Shown(), Tally(0.0), 0.0
    while now < 250:
        now += chance.uniform(0.05, 0.15)
        shown.out = [(HERE, False, "select 1")] if now % 0.01 < 0.003 else []
        tally.look(shown, now)  # type: ignore[arg-type]
    found = tally.profile()
    assert found.held / found.seconds == pytest.approx(0.3, abs=0.04)


def test_it_goes_back_five_minutes_and_no_further() -> None:
    shown, tally = Shown(), Tally(0.0)
    shown.out = [(site(1), False, "select 1")]
    tally.look(shown, 30.0)  # type: ignore[arg-type]
    shown.out = [(site(2), False, "select 2")]
    for minute in range(1, 20):
        tally.look(shown, minute * MINUTE)  # type: ignore[arg-type]
    found = tally.profile()
    assert [each.site for each in found.sites] == [site(2)]
    assert found.seconds <= MINUTES * MINUTE


def test_lines_and_statements_beyond_a_bound_are_one() -> None:
    """A program that makes up its statements takes no more memory, and no second is lost."""
    shown, tally = Shown(), Tally(0.0)
    for number in range(1000):
        shown.out = [(site(number), True, None), (site(number), False, f"select column_{number}")]
        tally.look(shown, (number + 1) / 100)  # type: ignore[arg-type]
    (minute,) = tally._minutes
    assert len(minute.held) == len(minute.ran) == profiles._MOST + 1
    found = tally.profile()
    assert found.held == pytest.approx(20.0)
    assert found.sites[0].site.file == found.statements[0].statement == OTHER
    assert len(found.sites) == len(found.statements) == TOP


def test_it_is_asked_for_while_somebody_looks() -> None:
    """From two threads: nothing is missed, nothing raises."""
    shown, tally, over = Shown(), Tally(0.0), threading.Event()

    def look() -> None:
        for number in range(3000):
            shown.out = [(site(number % 150), True, None)]
            tally.look(shown, number / 50)  # type: ignore[arg-type]
        over.set()

    looking = aside(look)
    while not over.is_set():
        tally.profile()
    looking.result(20)
    assert tally.profile().held == pytest.approx(2999 / 50)


# ---------------------------------------------------------------------------------------------- pools


@contextmanager
def in_hand(pool: Pool[Any]) -> Iterator[Any]:
    with pool.connection() as conn:
        yield conn


def test_a_pool_s_snapshot_tells_what_its_connections_are_held_for(dsn: str) -> None:
    """Held idle in hand, and running: by the line that took it, and by the statement without its values."""
    with Pool(dsn, min_size=2, open=True, name="profiled") as pool:
        pool.wait()
        with in_hand(pool) as conn:
            conn.execute("SELECT 'first'")
            eventually(lambda: pool.snapshot().profile.idle > 0.05, 15)
            running = aside(lambda: conn.execute("SELECT pg_sleep(0.7), 'second'"))
            eventually(lambda: pool.snapshot().profile.statements, 15)
            running.result(10)
        found = pool.snapshot().profile
    assert [each.statement for each in found.statements] == ["SELECT pg_sleep(?), ?"]
    assert found.idle_sites[0].site.function == "in_hand"
    assert found.held >= found.idle > 0
    assert found.held == pytest.approx(found.sites[0].held)


def test_statements_that_share_a_connection_are_told_by_their_own_lines(dsn: str) -> None:
    async def share() -> Profile:
        async with AsyncPool(dsn, min_size=1, max_size=1, open=False, name="sharing") as pool:
            asking = asyncio.create_task(pool.fetch("SELECT pg_sleep(1.5), 'value'"))
            await soon(lambda: pool.snapshot().profile.statements, 15)
            found = pool.snapshot().profile
            await asking
            return found

    found = asyncio.run(share())
    assert [each.statement for each in found.statements] == ["SELECT pg_sleep(?), ?"]
    assert found.sites[0].site.function.endswith("share")
    assert found.idle < found.held


# ---------------------------------------------------------------------------------------------- the log


def idle_profile(seconds: float, idle: float) -> Profile:
    return Profile(seconds, idle, idle, (), (SiteTime(HERE, idle, idle),), ())


def test_connections_held_for_nothing_are_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """While there are still others, once in a while, with the line of code that holds them."""
    early = Early()
    with caplog.at_level(logging.WARNING):
        early.look("web", 10, idle_profile(30, 30 * 5), 0)  # too early to tell
        early.look("web", 10, idle_profile(100, 100 * 2.4), 100)  # less than a quarter
        early.look("web", 10, idle_profile(100, 100 * 2.6), 200)
        early.look("web", 10, idle_profile(100, 100 * 9.0), 200 + AGAIN - 1)
        early.look("web", 10, idle_profile(100, 100 * 9.0), 200 + AGAIN)
    assert caplog.messages == [
        "web: 2.6 of 10 connections are in hand with nothing to do, on average over the last 100 s:"
        " 2.6 taken at app.py:1 in view",
        "web: 9.0 of 10 connections are in hand with nothing to do, on average over the last 100 s:"
        " 9.0 taken at app.py:1 in view",
    ]
