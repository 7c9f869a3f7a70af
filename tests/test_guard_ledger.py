"""The ledger of connections that are not our pool's: its accounts, its memory, and what pools would have done."""

import asyncio
import math
import sys
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import events
from penstock.guard import account, timeline, verdict
from penstock.guard.ledger import MOST_SITES, Ledger
from penstock.guard.requests import Request, begin, leave
from penstock.guard.timeline import Timeline
from penstock.guard.usage import SIZES, Usage, quantile
from penstock.guard.where import Asked, asked, own
from penstock.pool.holders import CallSite

Intervals = list[tuple[float, float]]


class Conn:
    """All that a ledger asks of a connection."""

    status = "IDLE"


def status(conn: Conn) -> str:
    return conn.status


def here() -> Asked:
    found = asked(sys._getframe(1))
    assert found is not None
    return found


def opened(ledger: Ledger, where: Asked, conn: Conn | None = None) -> Any:
    """A connection in the program's hands, and what is known of it."""
    conn = conn or Conn()
    ledger.connecting()
    return conn, ledger.connected(where, "fake", conn, status, 0.001)


def work(held: Any, conn: Conn) -> None:
    held.began("SELECT 1")
    held.done(conn)


# ---------------------------------------------------------------------------------------------- what pools would do


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=60),
    st.integers(1, 5),
)
def test_a_pool_s_waits_are_those_of_a_queue(pairs: list[tuple[int, int]], size: int) -> None:
    """Against the plainest simulation there is: each takes the connection that is free first, in order of arrival."""
    intervals = [(float(start), float(start + seconds)) for start, seconds in pairs]
    usage = Usage((size,))
    for interval in sorted(intervals, key=lambda each: each[1]):  # as they end
        usage.add(*interval)
    told = usage.told([], math.inf)["pools"][0]
    free, waits = [0.0] * size, []
    for start, end in sorted(intervals):
        first = min(range(size), key=free.__getitem__)
        waits.append(max(0.0, free[first] - start))
        free[first] = max(start, free[first]) + end - start
    assert told["waits"] == sum(wait > 0 for wait in waits)
    assert told["waited"] == pytest.approx(sum(waits))
    assert told["longest"] == pytest.approx(max(waits, default=0.0))


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)), max_size=40), st.integers(1, 10))
def test_how_many_were_at_work_is_known_though_it_is_figured_bit_by_bit(
    pairs: list[tuple[int, int]], every: int
) -> None:
    intervals = sorted(((float(start), float(start + seconds)) for start, seconds in pairs), key=lambda each: each[1])
    usage = Usage()
    for number, (start, end) in enumerate(intervals):
        usage.add(start, end)
        if number % every == 0:
            usage.digest(min((begun for begun, _ in intervals[number + 1 :]), default=math.inf))
    usage.told([], math.inf)  # which changes nothing
    usage.digest()
    moments = {start for start, _ in intervals}
    assert usage.most == max((sum(a <= moment < b for a, b in intervals) for moment in moments), default=0)
    end = max((end for _, end in intervals), default=0.0)
    usage._pass(end)
    seconds = {
        many: sum(sum(a <= moment < b for a, b in intervals) == many for moment in range(int(end)))
        for many in usage.levels
    }
    assert usage.levels == pytest.approx(seconds)


def test_what_is_at_work_still_counts_as_if_it_ended_now() -> None:
    usage = Usage((1,))
    usage.add(1.0, 2.0)
    told = usage.told([0.0, 0.5], 3.0)
    assert (told["count"], told["most"], told["pools"][0]["waits"]) == (3, 3, 2)
    assert usage.told([], 3.0)["count"] == 1


def test_most_of_the_time_few_were_enough() -> None:
    assert quantile({1: 98.0, 2: 1.0, 50: 1.0}, 0.99) == 2
    assert quantile({}, 0.99) == 0


def test_several_processes_are_summed_second_by_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never less than there were at once; and not the sum of peaks that came one after the other."""
    clock = [1000.0]
    monkeypatch.setattr(timeline, "time", lambda: clock[0])
    one, other = Timeline(), Timeline()
    for now, level in ((1000, 5), (1003, 0)):
        clock[0] = now
        one.at(level)
    for now, level in ((1001, 2), (1010, 5)):
        clock[0] = now
        other.at(level)
    assert timeline.most([one.told(), other.told()]) == 7
    for second in range(2000):  # what is kept has a bound, and its spans a longer length
        clock[0] = 1020 + second
        other.at(5 + second % 2)
    assert len(other.spans) <= 600
    assert other.width == 4
    assert timeline.most([one.told(), other.told()]) == 7


# ---------------------------------------------------------------------------------------------- accounts


def test_a_ledger_tells_of_itself_as_a_pool_does() -> None:
    ledger = Ledger("orders at db:5432")
    told: list[events.Event] = []
    stop = ledger.listen(told.append)
    where = here()
    conn, held = opened(ledger, where)
    conn.status = "INTRANS"
    work(held, conn)
    (holder,) = ledger.holders()
    assert holder.site.file == __file__
    assert (holder.statement, holder.status, holder.owner) == ("SELECT 1", "INTRANS", "thread MainThread")
    found = ledger.snapshot()
    assert (found.name, found.leased, found.open, found.connects, found.uses) == ("orders at db:5432", 1, 1, 1, 0)
    held.closed()
    held.closed()  # no effect a second time
    del conn
    ledger.connecting()
    ledger.connect_failed(where, "fake", OSError("FATAL:  sorry, too many clients already"), 0.5)
    found = ledger.snapshot()
    assert (found.leased, found.opening, found.uses, found.connect_errors) == (0, 0, 1, 1)
    assert found.last_error == "OSError: too many clients"
    assert found.closes == {}
    assert [type(event) for event in told] == [events.Opened, events.Acquired, events.Returned, events.ConnectFailed]
    stop()
    opened(ledger, where)
    assert len(told) == 4


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError("connection to 10.0.0.1 failed: FATAL:  sorry, too many clients already"), "too many clients"),
        (
            psycopg.OperationalError('connection failed: FATAL:  database "x" does not exist'),
            'database "x" does not exist',
        ),
        (ConnectionRefusedError(111, "Connection refused"), "[Errno 111] Connection refused"),
        (psycopg.ProgrammingError('missing "=" after "hunter2"'), "ProgrammingError"),
        (ValueError("invalid literal for int() with base 10: 'hunter2'"), "ValueError"),
    ],
)
def test_why_there_was_no_connection_is_told_without_what_may_be_a_secret(error: Exception, told: str) -> None:
    ledger = Ledger("orders")
    ledger.connecting()
    ledger.connect_failed(here(), "fake", error, 0.1)
    assert dict(ledger.errors) == {told: 1}
    assert "hunter2" not in str(ledger.snapshot().last_error)


def test_a_listener_that_fails_is_told_no_more_and_breaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger("orders")

    def fail(event: events.Event) -> None:
        raise ValueError("mine")

    ledger.listen(fail)
    conn, held = opened(ledger, here())
    held.closed()
    assert caplog.text.count("a listener failed") == 1
    del conn


def test_a_connection_lost_is_no_leak() -> None:
    ledger, where = Ledger("orders"), here()
    conn, held = opened(ledger, where)
    conn.status = "BAD"
    work(held, conn)
    del conn
    assert ledger.snapshot().lost == 1
    (site,) = ledger.sites.values()
    assert site.ended.total() == 1
    assert not site.left


def test_what_a_thread_kept_for_itself_ends_with_it() -> None:
    ledger, where, local = Ledger("orders"), here(), threading.local()

    def keep() -> None:
        local.conn, _ = opened(ledger, where)

    thread = threading.Thread(target=keep)
    thread.start()
    thread.join()
    assert {reason.name: many for reason, many in ledger.snapshot().closes.items()} == {"ABANDONED": 1}


def test_what_outlives_its_request_is_a_leak_when_the_line_opens_another_and_none_once_it_is_used_again() -> None:
    ledger, where = Ledger("orders"), here()
    told: list[events.Event] = []
    ledger.listen(told.append, events.OutlivedRequest, events.CameBack)
    kept = []

    def serve() -> None:
        request = Request(lambda: "GET /orders")
        token = begin(request)
        conn, held = opened(ledger, where)
        work(held, conn)
        kept.append((conn, held))
        leave(token)
        request.end()

    serve()
    (site,) = ledger.sites.values()
    assert site.left == 0
    assert told == []  # it may be kept on purpose
    serve()
    assert site.left == 1
    assert [event.request for event in told if isinstance(event, events.OutlivedRequest)] == ["GET /orders"]
    conn, held = kept[0]
    work(held, conn)
    assert site.left == 0
    assert isinstance(told[-1], events.CameBack)


def test_requests_are_counted_where_they_open_connections_however_they_mix() -> None:
    ledger, where = Ledger("orders"), here()
    running = [Request(lambda: "GET /") for _ in range(2)]
    for request in running * 3:
        token = begin(request)
        _, held = opened(ledger, where)
        held.closed()
        leave(token)
    (site,) = ledger.sites.values()
    assert (site.requests, site.in_requests) == (2, 6)
    for request in running:
        request.end()
    assert ledger._requests == {}


def test_garbage_that_is_found_under_the_ledger_s_own_lock_stops_nothing() -> None:
    ledger = Ledger("orders")
    conn, _ = opened(ledger, here())
    with ledger._lock:
        del conn
    assert ledger.snapshot().leased == 0


# ---------------------------------------------------------------------------------------------- memory


def _line(number: int) -> Callable[[Ledger], None]:
    """A function of one line of its own, as of a program that makes its code."""
    namespace: dict[str, Any] = {"opened": opened, "asked": asked, "sys": sys}
    source = "\n" * number + "def use(ledger): opened(ledger, asked(sys._getframe()))[1].closed()"
    exec(compile(source, "made.py", "exec"), namespace)
    return namespace["use"]  # type: ignore[no-any-return]


def test_what_is_kept_has_a_bound_whatever_the_program_does() -> None:
    """Many connections of one line, many lines, and one request that goes on and on."""
    ledger, where = Ledger("orders"), here()
    request = Request(lambda: "task import")
    token = begin(request)

    def use(times: int) -> None:
        for _ in range(times):
            conn, held = opened(ledger, where)
            work(held, conn)
            held.closed()

    use(2000)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    use(5000)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    leave(token)
    assert after - before < 100_000
    for number in range(MOST_SITES + 200):
        _line(number)(ledger)
    assert len(ledger.sites) <= MOST_SITES + 1
    assert ledger.connects == 7000 + MOST_SITES + 200
    assert sum(site.opened for site in ledger.sites.values()) == ledger.connects


# ---------------------------------------------------------------------------------------------- the verdict


def site(**more: Any) -> dict[str, Any]:
    none = {"pool": None, "opened": 10, "in_requests": 0, "dropped_in_requests": 0, "left": 0, "reused": 0}
    return {**none, "outlived": 0, "open": 0, "ended": {}, **more}


@pytest.mark.parametrize(
    ("known", "leaks"),
    [
        (site(ended={"closed": 10}), {}),
        (site(ended={"closed": 9, "dropped": 1}), {"dropped": 1}),
        (site(ended={"dropped": 1}, opened=1), {}),  # once, by a script that ends
        (site(ended={"dropped": 1}, opened=1, in_requests=1, dropped_in_requests=1), {"dropped": 1}),
        (site(ended={"thread": 10}), {}),
        (site(ended={"lost": 10}), {}),
        (site(left=3, open=4), {"left": 4}),  # the last of them nobody has opened another after
        (site(left=3, open=10, reused=50), {}),  # a pool of the program's own
        (site(left=9, outlived=10, open=10, in_requests=10), {"left": 10}),
        (site(open=8, outlived=8, in_requests=10), {}),  # one a thread, each in its first request
        (site(ended={"dropped": 9}, left=9, pool="SQLAlchemy's pool"), {}),
    ],
)
def test_which_lines_leak(known: dict[str, Any], leaks: dict[str, int]) -> None:
    assert verdict.leaks(known) == leaks


def test_news_that_come_as_the_writer_leaves_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(account._thread, "start_new_thread", lambda *call: started.append(call))
    writer = account.Writer()

    class Awake:
        def locked(self) -> bool:
            return not started and leaving

        def acquire(self, blocking: bool = True) -> bool:
            return True

        def release(self) -> None:
            nonlocal leaving
            writer.changed()  # by another thread: this one is still there, and will not look again
            leaving = False

    leaving = True
    writer._awake = Awake()  # type: ignore[assignment]
    writer._keep_writing()
    assert len(started) == 1


def use(driver: str, opened: int, **more: Any) -> dict[str, Any]:
    return {"driver": driver, "by_django": False, "pool": None, "errors": {}, "lines": [f"{driver}.py:1"]} | {
        "opened": opened,
        **more,
    }


def test_what_to_write_is_told_for_each_driver_and_not_for_what_never_connected() -> None:
    used = {"usage": {"enough": 3}, "most_in_request": 1}
    databases = [
        {**used, "sites": [use("psycopg2", 5), use("asyncpg", 4), use("psycopg2", 2, lines=["more.py:2"])]},
        {**used, "sites": [use("pymysql", 0, errors={"refused": 9})]},
    ]
    told = "\n".join(verdict._advice(databases, ["app.py"]))
    assert "penstock.Pool(DSN, driver='psycopg2', max_size=3)\n    at psycopg2.py:1:  with pool" in told
    assert "at more.py:2:  with pool" in told
    assert "penstock.AsyncPool(DSN, driver='asyncpg', max_size=3)\n    at asyncpg.py:1:  async with pool" in told
    assert "pymysql" not in told


def test_lines_beyond_those_that_are_named_are_counted_where_one_was_had() -> None:
    sites = [use("psycopg2", 1, requests=0) for _ in range(9)] + [use("psycopg2", 0, requests=0) for _ in range(5)]
    assert list(verdict._lines(sites))[-1] == "    1 at 1 more line"


def test_a_holder_stands_in_the_program_and_not_in_what_runs_it() -> None:
    runs = CallSite(asyncio.runners.__file__, 118, "run")
    waits, mine = CallSite(threading.__file__, 320, "wait"), CallSite("/srv/app.py", 7, "main")
    assert own((waits, mine, runs)) == (mine,)
    assert own((waits,)) == (waits,)
    assert own((runs,)) == ()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["gunicorn", "-b", ":80", "app:app"], "gunicorn -b :80 app:app"),
        (["app.py", "postgresql://me:hunter2@db:5432/x?a=1"], "app.py 'postgresql://me:***@db:5432/x?a=1'"),
        (["app.py", "postgresql://me:hunt@er2@db/x"], "app.py 'postgresql://me:***@db/x'"),
        (["app.py", "host=db password=hunter2 user=me"], "app.py 'host=db password=*** user=me'"),
        (["app.py", "--dsn=host=db password='hunter 2'"], "app.py '--dsn=host=db password=***'"),
        (["app.py", "postgresql://db/x?user=me&password=hunter2"], "app.py 'postgresql://db/x?user=me&password=***'"),
    ],
)
def test_a_command_is_shown_without_the_passwords_in_it(words: list[str], told: str) -> None:
    assert verdict.shown(words) == told


def test_all_sizes_are_reckoned_with() -> None:
    assert [pool["size"] for pool in Usage().told([], 0.0)["pools"]] == list(SIZES)
