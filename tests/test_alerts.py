"""Alerts: each trouble raises its own and no other, keeps still while it lasts, and clears; no sink is in the way."""

import http.server
import json
import logging
import os
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from penstock import CallSite, Holder, Pool, Snapshot
from penstock.core import Reason, Refusal
from penstock.observe import alerts
from penstock.observe.alerts import Alert, Kind, Thresholds, sinks, webhook
from penstock.observe.alerts import watch as watching_alerts
from penstock.observe.alerts.judge import Figures, Judge
from penstock.observe.alerts.sinks import QUEUE, Sink, Undelivered
from penstock.observe.alerts.watch import Watch
from penstock.observe.alerts.webhook import Webhook
from penstock.pool.membership import FleetState
from support.waiting import eventually

SIZE = 10
ALERT = Alert("shop", Kind.LEAK, 1.0, "held by <module> & co", 1, 3, 4, 0)


class Simulated:
    """A pool whose figures the test makes up, looked at once a second of no real time."""

    def __init__(self, **thresholds: Any) -> None:
        self.now = 1000.0
        self.judge = Judge("shop", Thresholds(**thresholds))
        self.told: list[tuple[float, Alert]] = []
        self.leased = self.waiting = self.opening = self.multiplexed = self.uses = self.timeouts = self.broken = 0
        self.down = self.sick = False
        self.holders: list[Holder] = []
        self.fleet: FleetState | None = None
        self.lag: float | None = None
        self.pass_by(20)

    def snapshot(self) -> Snapshot:
        return Snapshot(
            name="shop", min_size=0, max_size=SIZE, idle=SIZE - self.leased, leased=self.leased, opening=self.opening,
            closing=0, waiting=self.waiting, paused=False, closed=False, overloaded=False, would_shed=0, hold=0.0,
            sick=self.sick, database_down=self.down, last_error="OperationalError: refused" if self.down else None,
            requests=0, queued=0, waited=0.0, held=0.0, uses=self.uses, connects=0, connect_errors=0,
            connect_seconds=0.0, lost=0, refusals={Refusal.TIMEOUT: self.timeouts},
            closes={Reason.BROKEN: self.broken}, multiplexed=self.multiplexed,
            suspects=sum(holder.suspected for holder in self.holders),
        )  # fmt: skip

    def pass_by(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1
            self.uses += 5
            pool = self.snapshot()
            holders = self.holders if self.judge.wants_holders(pool) else []
            figures = Figures(self.now, pool, holders, self.fleet, self.lag)
            self.told += [(self.now, alert) for alert in self.judge.look(figures, self.now)]

    def leak(self, count: int, idle: float = 0.0, suspected: bool = False) -> None:
        site = CallSite("app.py", 12, "handler")
        self.holders = [Holder(site, idle, idle, None, "INTRANS", "thread a", (), suspected)] * count
        self.leased = count

    def raised(self) -> list[Kind]:
        return [alert.kind for _, alert in self.told if alert.cleared is None]

    def active(self) -> list[Kind]:
        return [alert.kind for alert in self.judge.active]

    def why(self) -> str:
        [alert] = self.judge.active
        return alert.why


@pytest.fixture
def pool() -> Simulated:
    return Simulated()


# ------------------------------------------------------------------------------------------ each its own, no other


def test_a_quiet_pool_raises_nothing(pool: Simulated) -> None:
    """Eight of ten in use, ten waiting: at the thresholds, not past them."""
    pool.leased, pool.waiting = 8, 10
    pool.pass_by(120)
    assert pool.told == []


def test_saturation_raises_utilisation_alone_and_clears(pool: Simulated) -> None:
    """With its waiters and timeouts, within 15 s."""
    pool.leased, pool.waiting = SIZE, 40
    for _ in range(14):
        pool.timeouts += 3
        pool.pass_by(1)
    assert pool.raised() == pool.active() == [Kind.UTILISATION]
    pool.pass_by(60)
    pool.leased, pool.waiting = 2, 0
    pool.pass_by(60)
    assert pool.raised() == [Kind.UTILISATION]
    assert pool.active() == []
    assert pool.told[-1][1].cleared == pool.told[-1][0]


def test_a_short_burst_is_no_alert(pool: Simulated) -> None:
    """Nor what it leaves in the average."""
    pool.leased, pool.waiting = SIZE, 9
    pool.pass_by(7)
    pool.leased, pool.waiting = 1, 0
    pool.pass_by(60)
    assert pool.told == []


def test_use_that_comes_and_goes_around_the_line_is_one_alert(pool: Simulated) -> None:
    """Hysteresis: nine in use and seven in turn, 80 % on average, above and below it for minutes."""
    for turn in range(60):
        pool.leased = 9 if turn % 6 < 4 else 7
        pool.pass_by(2)
    assert pool.raised() == pool.active() == [Kind.UTILISATION]


def test_a_leak_that_fills_the_pool_is_a_leak(pool: Simulated) -> None:
    """Though the pool's own `leak_after` is a minute: who holds and does nothing is no load. The line is named."""
    pool.leak(SIZE)
    pool.waiting = 30
    for second in range(14):
        pool.leak(SIZE, idle=float(second + 1))
        pool.timeouts += 1
        pool.pass_by(1)
    assert pool.raised() == pool.active() == [Kind.LEAK]
    assert "app.py:12 in handler (10)" in pool.why()
    pool.leak(0)
    pool.waiting = 0
    pool.pass_by(30)
    assert pool.raised() == [Kind.LEAK]
    assert pool.active() == []


def test_a_suspected_leak_is_told_at_once_and_hides_no_saturation(pool: Simulated) -> None:
    """One of ten is leaked; the others are in use for work."""
    pool.leak(1, idle=60.0, suspected=True)
    pool.pass_by(1)
    assert pool.raised() == [Kind.LEAK]
    pool.leased, pool.waiting = SIZE, 40
    pool.pass_by(30)
    assert pool.active() == [Kind.LEAK, Kind.UTILISATION]


def test_a_dead_database_is_that_and_nothing_else(pool: Simulated) -> None:
    """Broken connections, a breaker, waiters, timeouts, and all of that again while it recovers."""
    pool.sick, pool.broken, pool.leased, pool.waiting = True, 3, SIZE, 50
    pool.pass_by(1)
    pool.down = True
    for _ in range(60):
        pool.timeouts += 5
        pool.pass_by(1)
    assert pool.raised() == pool.active() == [Kind.DATABASE_DOWN]
    assert "refused" in pool.why()
    pool.down = False
    pool.pass_by(4)
    pool.sick, pool.leased, pool.waiting = False, 3, 0
    pool.pass_by(40)
    assert pool.raised() == [Kind.DATABASE_DOWN]
    assert pool.active() == []


def test_a_restart_of_a_second_is_no_alert(pool: Simulated) -> None:
    """It is down for less than two looks."""
    pool.down = True
    pool.pass_by(2)
    pool.down = False
    pool.pass_by(30)
    assert pool.told == []


def test_an_open_breaker(pool: Simulated) -> None:
    """As long as somebody meets it. One that nobody has met for half a minute alarms nobody."""
    pool.sick = True
    for _ in range(10):
        pool.broken += 1
        pool.pass_by(1)
    assert pool.raised() == pool.active() == [Kind.BREAKER_OPEN]
    pool.pass_by(50)
    assert pool.active() == []


def test_a_starving_loop_is_no_exhaustion(pool: Simulated) -> None:
    """It says so, though connections are idle or because of it none is."""
    pool.lag, pool.leased = 0.6, 3
    pool.pass_by(15)
    assert pool.raised() == pool.active() == [Kind.LOOP_STARVING]
    assert "although 7 connections are idle: this is not exhaustion" in pool.why()
    pool.leak(SIZE, idle=9.0, suspected=True)
    pool.waiting = 100
    pool.timeouts += 100
    pool.pass_by(30)
    assert pool.raised() == pool.active() == [Kind.LOOP_STARVING]
    pool.lag = 0.001
    pool.leak(1)
    pool.waiting = 0
    pool.pass_by(30)
    assert pool.raised() == [Kind.LOOP_STARVING]
    assert pool.active() == []


def test_one_long_callback_is_no_starvation(pool: Simulated) -> None:
    pool.lag = 1.5
    pool.pass_by(2)
    pool.lag = 0.0
    pool.pass_by(30)
    assert pool.told == []


def test_waiters_without_use_are_told_as_such(pool: Simulated) -> None:
    """Connecting is slow: nobody has a connection."""
    pool.waiting, pool.opening = 25, 4
    pool.pass_by(30)
    assert pool.raised() == [Kind.WAITERS]
    assert "4 are being opened" in pool.why()


def test_a_single_timeout_is_told_though_the_pool_is_not_full(pool: Simulated) -> None:
    pool.timeouts += 1
    pool.pass_by(15)
    assert pool.raised() == [Kind.TIMEOUTS]
    pool.pass_by(30)
    assert pool.active() == []


def test_a_timeout_before_the_trouble_was_known_is_explained_by_it(pool: Simulated) -> None:
    pool.timeouts += 1
    pool.leased = SIZE
    pool.pass_by(60)
    pool.leased = 0
    pool.pass_by(60)
    assert pool.raised() == [Kind.UTILISATION]


def test_an_alert_whose_root_comes_to_light_is_cleared_for_it(pool: Simulated) -> None:
    """The database hangs: at first all that is seen is a full pool."""
    pool.leased, pool.waiting = SIZE, 3
    pool.pass_by(12)
    assert pool.active() == [Kind.UTILISATION]
    pool.down = True
    pool.pass_by(5)
    assert pool.active() == [Kind.DATABASE_DOWN]
    assert [alert.why for _, alert in pool.told if alert.cleared] == ["explained by: database down"]


def test_a_share_in_use_at_the_fleet_s_line_is_the_line(pool: Simulated) -> None:
    """There is nothing wrong with this pool's size."""
    pool.fleet = FleetState("main", "a", budget=60, share=SIZE, members=6, claimed=57, age=1.0, hint=None)
    pool.pass_by(30)
    assert pool.told == []  # shares are given out to those who do not need them, too
    pool.leased = SIZE
    pool.pass_by(15)
    assert pool.raised() == [Kind.FLEET_LINE]
    assert "57 of the 60" in pool.why()


def test_connections_that_statements_share_are_full_when_somebody_waits(pool: Simulated) -> None:
    pool.leased = pool.multiplexed = SIZE
    pool.pass_by(30)
    assert pool.told == []
    pool.waiting = 1
    pool.pass_by(15)
    assert pool.raised() == [Kind.UTILISATION]


def test_nothing_coming_back_is_told_apart_from_too_much_work(pool: Simulated) -> None:
    pool.leased = SIZE
    for _ in range(15):
        pool.uses -= 5
        pool.pass_by(1)
    assert "none has come back for 10 s" in pool.why()


def test_thresholds_can_be_changed() -> None:
    pool = Simulated(utilisation=0.5, waiters=100)
    pool.leased, pool.waiting = 6, 50
    pool.pass_by(15)
    assert pool.raised() == [Kind.UTILISATION]


def test_what_a_leak_leaves_behind_is_no_second_alert(pool: Simulated) -> None:
    """The last request to time out is seen only after the leak was given back."""
    pool.leak(SIZE, idle=20.0, suspected=True)
    pool.waiting = 6
    for _ in range(30):
        pool.timeouts += 1
        pool.pass_by(1)
    pool.leak(0)
    pool.timeouts += 1
    pool.waiting = 0
    pool.pass_by(60)
    assert pool.raised()[0] is Kind.LEAK
    assert set(pool.raised()) == {Kind.LEAK}


@pytest.mark.parametrize("how", ["full", "timeouts"])
def test_a_leak_that_comes_to_hold_up_requests_is_told_once_more(pool: Simulated, how: str) -> None:
    """It was told when it was one connection; now nobody gets any. Once, and it is one alert still."""
    pool.leak(1, idle=60.0, suspected=True)
    pool.pass_by(20)
    pool.leak(SIZE, idle=60.0, suspected=True)
    pool.waiting, pool.timeouts = 5, pool.timeouts + (how == "timeouts")
    pool.pass_by(2 if how == "timeouts" else 15)
    pool.pass_by(60)
    assert [alert.state for _, alert in pool.told] == ["raised", "worse"]
    assert pool.told[-1][1].in_use == SIZE
    assert pool.active() == [Kind.LEAK]
    pool.leak(0)
    pool.waiting = 0
    pool.pass_by(30)
    assert pool.told[-1][1].state == "cleared"


def test_a_cleared_alert_has_the_figures_of_the_end(pool: Simulated) -> None:
    """Not those of when it was at its worst."""
    pool.leased, pool.waiting = SIZE, 40
    pool.pass_by(20)
    pool.leased, pool.waiting = 2, 0
    pool.pass_by(60)
    cleared = pool.told[-1][1]
    assert (cleared.state, cleared.in_use, cleared.idle, cleared.waiting) == ("cleared", 2, SIZE - 2, 0)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [({"utilisation": 80}, "utilisation"), ({"fleet": 0}, "fleet"), ({"waiters": -1}, "waiters"),
     ({"loop_lag": "1"}, "loop_lag")],
)  # fmt: skip
def test_a_wrong_threshold_is_named(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises((ValueError, TypeError), match=told):
        Thresholds(**wrong)


# ------------------------------------------------------------------------------------------ in a process


@pytest.fixture
def told() -> Iterator[list[Alert]]:
    """What a callback is told; nobody is, in the end."""
    yield []
    alerts.stop()


def test_an_alert_is_one_line_the_pool_first_why_last(told: list[Alert], caplog: pytest.LogCaptureFixture) -> None:
    """In the log, with its parts for who logs JSON."""
    caplog.set_level(logging.INFO, "penstock.alerts")
    alert = Alert("shop", Kind.LEAK, 1.0, "1 connection is held", 1, 3, 4, 0)
    sinks.log(alert)
    [record] = caplog.records
    assert record.getMessage() == (
        'shop: alert="leak suspected" state=raised in_use=1 idle=3 max=4 waiting=0 why="1 connection is held"'
    )
    assert record.levelno == logging.WARNING
    assert json.loads(json.dumps(vars(record)["alert"]))["kind"] == "leak suspected"


def test_a_real_leak_is_told_to_a_callback_and_cleared_when_the_pool_closes(dsn: str, told: list[Alert]) -> None:
    """With the line that took it."""
    with Pool(dsn, min_size=2, open=False, leak_after=0.1) as pool:
        alerts.start(told.append)
        conn = pool.getconn()
        eventually(lambda: told, 10)
        pool.putconn(conn)
    eventually(lambda: len(told) == 2, 10)
    assert [(alert.kind, alert.cleared is None) for alert in told] == [(Kind.LEAK, True), (Kind.LEAK, False)]
    assert f"{__file__}:" in told[0].why


def test_a_callback_that_hangs_or_raises_holds_up_nobody() -> None:
    """What does not fit its queue is dropped and counted."""
    never = threading.Event()
    hangs = Sink("the callback", lambda _: never.wait())
    alert = Alert("shop", Kind.LEAK, 1.0, "", 1, 3, 4, 0)
    began = time.monotonic()
    for _ in range(QUEUE + 10):
        hangs.offer(alert)
    assert time.monotonic() - began < 1
    assert hangs.dropped >= 9
    never.set()
    hangs.end()


def test_a_callback_that_always_raises_is_given_up_and_one_that_stumbles_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A pager's hiccup must not silence it. Each failure counts, and so does what comes after the last."""
    calls: list[Alert] = []

    def raises(alert: Alert) -> None:
        calls.append(alert)
        if len(calls) != sinks.PATIENCE:
            raise KeyError("mine")

    sink = Sink("the callback", raises)
    for _ in range(2 * sinks.PATIENCE):
        sink.offer(ALERT)
    eventually(lambda: sink._thread is not None and not sink._thread.is_alive())
    assert len(calls) == 2 * sinks.PATIENCE
    assert sink.dropped == 2 * sinks.PATIENCE - 1
    sink.offer(ALERT)
    assert sink.dropped == 2 * sinks.PATIENCE
    said = [record.getMessage() for record in caplog.records]
    assert len([line for line in said if "not delivered: it raised KeyError" in line]) == 6  # 1, 2, 4, 8, 16, 32
    assert len([line for line in said if "gets no more alerts" in line]) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_looks_for_alerts_outlives_its_own_stumbling(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And begins again when it has ended all the same."""
    monkeypatch.setattr(watching_alerts, "EVERY", 0.01)
    turns: list[int] = []
    watch = Watch(lambda _: None)
    watch.sinks = (Sink("nobody", lambda _: None),)

    def look() -> None:
        turns.append(1)
        if len(turns) < 4:
            raise KeyError
        raise SystemExit  # as nothing that is caught

    watch.look = look  # type: ignore[method-assign]
    watch.start()
    eventually(lambda: watch._thread is not None and not watch._thread.is_alive())
    assert len(turns) == 4
    assert len([record for record in caplog.records if "has stumbled" in record.getMessage()]) == 1
    first = watch._thread
    watch.start()
    assert watch._thread is not first
    eventually(lambda: watch._thread is not None and not watch._thread.is_alive())


def test_judges_that_are_replaced_meanwhile_are_no_trouble() -> None:
    """`start()` is called again while those of pools that are gone are told."""
    watch = Watch(lambda _: None)
    for _ in range(2):
        gone = Simulated()
        watch._judges[weakref.ref(gone)] = gone.judge  # type: ignore[index]
        del gone
    tell = watch._tell

    def told(changes: Any) -> None:
        watch.judge_by(Thresholds())
        tell(changes)

    watch._tell = told  # type: ignore[method-assign]
    watch.look()
    assert watch._judges == {}


def test_nobody_looks_when_nobody_is_told_and_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One look of `penstock top` costs no process a thread for ever."""
    monkeypatch.setattr(watching_alerts, "EVERY", 0.01)
    watch = Watch(lambda _: None)
    watch.start()
    thread = watch._thread
    monkeypatch.setattr(watching_alerts, "LINGER", 0.0)
    eventually(lambda: thread is not None and not thread.is_alive())
    assert watch._thread is None


@contextmanager
def receiver(*statuses: int) -> Iterator[tuple[str, list[Any]]]:
    """A server that answers with *statuses* one after the other, and what it was sent."""
    got: list[Any] = []
    answers = list(statuses)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            got.append((self.headers["Content-Type"], json.loads(self.rfile.read(length))))
            self.send_response(answers.pop(0) if answers else 200)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/services/T0/SECRET", got
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_webhook_gets_what_slack_takes() -> None:
    """`text`, with what means something to Slack escaped."""
    with receiver() as (url, got):
        Webhook(url)(ALERT)
    assert got == [
        ("application/json", {"text": "ALERT: shop: leak suspected: held by &lt;module&gt; &amp; co"}),
    ]


def test_a_webhook_that_fails_is_tried_again_and_one_that_refuses_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does anybody follow it elsewhere. The URL is in no message."""
    monkeypatch.setattr(webhook, "PAUSES", (0.0, 0.0))
    with receiver(503, 429) as (url, got):
        Webhook(url)(ALERT)
        assert len(got) == 3
    for status in (404, 302):
        with receiver(status) as (url, got):
            with pytest.raises(Undelivered, match=f"^the webhook answered {status}$"):
                Webhook(url)(ALERT)
            assert len(got) == 1
    with pytest.raises(Undelivered) as caught:  # nobody listens there any more
        Webhook(url)(ALERT)
    assert "SECRET" not in str(caught.value)
    assert "cannot be reached" in str(caught.value)


def test_a_webhook_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then is in time for each step; for all of them there is a deadline."""
    monkeypatch.setattr(webhook, "DEADLINE", 0.3)
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            conn, _ = server.accept()
            with conn, suppress(OSError):
                while not over.wait(0.02):
                    conn.send(b"H")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            with pytest.raises(Undelivered, match=r"did not answer within 0\.3 s"):
                Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/")(ALERT)
        finally:
            over.set()
            dripping.join()


def test_a_webhook_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts, and says nothing."""
    monkeypatch.setattr(webhook, "PAUSES", ())
    monkeypatch.setattr(webhook, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises(Undelivered, match="did not answer within"):
            Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/SECRET")(ALERT)


@pytest.mark.parametrize("url", ["ftp://SECRET", "SECRET", "", "http://", "https://host/SECRET\n", "http://[SECRET"])
def test_a_webhook_s_wrong_url_is_not_shown(url: str) -> None:
    with pytest.raises(ValueError, match="webhook must be a URL") as caught:
        alerts.start(webhook=url)
    assert "SECRET" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # which is what is tested
def test_a_forked_child_has_alerts_of_its_own(dsn: str, told: list[Alert]) -> None:
    """Threads do not outlive a fork: the child begins anew."""
    readable, writable = os.pipe()
    with Pool(dsn, min_size=1, open=False, leak_after=0.1) as pool:
        alerts.start(lambda alert: os.write(writable, f"{os.getpid()} {alert.kind.name}\n".encode()))
        child = os.fork()
        if not child:
            conn = pool.getconn()
            threading.Event().wait(30)
            os._exit(conn is None)
        with os.fdopen(readable) as lines:
            assert lines.readline() == f"{child} LEAK\n"
        os.kill(child, 9)
        os.waitpid(child, 0)
    os.close(writable)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # which is what is tested
def test_a_forked_child_that_uses_no_pool_has_no_thread(told: list[Alert]) -> None:
    """Nor what its parent was told."""
    alerts.start(told.append)
    alerts._watch.recent.append(ALERT)
    child = os.fork()
    if not child:
        names = [thread.name for thread in threading.enumerate()]
        os._exit("penstock-alerts" in names or bool(alerts._watch.recent))
    assert os.waitpid(child, 0)[1] == 0
