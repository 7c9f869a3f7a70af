"""SQLAlchemy's engine on our pool, in threads: what its users expect of a QueuePool, and what they have beyond that."""

import gc
import logging
import os
import sqlite3
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

import penstock
from penstock.drill.postgres import EmbeddedPostgres
from penstock.events import Opened
from penstock.integrations.sqlalchemy import PenstockPool
from penstock.integrations.wsgi import PenstockMiddleware
from support.waiting import aside, eventually

Engine = Callable[..., sa.Engine]
DRIVERS = ("psycopg", "psycopg2")


def url(dsn: str, driver: str = "psycopg") -> str:
    return dsn.replace("postgresql://", f"postgresql+{driver}://")


@pytest.fixture
def engine(dsn: str) -> Iterator[Engine]:
    """Makes engines on our pool, and disposes of them."""
    made: list[sa.Engine] = []

    def make(driver: str = "psycopg", dsn: str = dsn, **options: Any) -> sa.Engine:
        made.append(sa.create_engine(url(dsn, driver), poolclass=PenstockPool, **options))
        return made[-1]

    yield make
    for each in made:
        each.dispose()


def pids(server: EmbeddedPostgres, name: str) -> set[int]:
    """The server's processes for connections that call themselves so."""
    with server.admin() as admin:
        found = admin.execute("SELECT pid FROM pg_stat_activity WHERE application_name = %s", (name,)).fetchall()
    return {pid for (pid,) in found}


def pid(connection: sa.Connection) -> int:
    return int(connection.scalar(sa.text("SELECT pg_backend_pid()")))


def here(mark: str) -> int:
    """The line of this file on which *mark* stands in a comment."""
    with open(__file__) as source:
        return next(number for number, line in enumerate(source, 1) if line.rstrip().endswith(f"# {mark}"))


# ------------------------------------------------------------------------------------------ as QueuePool


def test_options_mean_what_they_mean_to_queue_pool(engine: Engine) -> None:
    """pool_size is kept, max_overflow is closed on return, and status() says so in SQLAlchemy's words."""
    pool = engine(pool_size=2, max_overflow=1, pool_timeout=7.5, pool_use_lifo=True).pool
    assert isinstance(pool, QueuePool)
    assert (pool.size(), pool.timeout()) == (2, 7.5)
    connections = [pool.connect() for _ in range(3)]
    assert (pool.checkedout(), pool.checkedin(), pool.overflow()) == (3, 0, 1)
    for connection in connections:
        connection.close()
    assert pool.status() == (
        "Pool size: 2  Connections in pool: 2 Current Overflow: 0 Current Checked out connections: 0"
    )


def test_no_argument_needs_to_be_given(engine: Engine) -> None:
    pool = engine().pool
    assert isinstance(pool, PenstockPool)
    assert (pool.size(), pool._max_overflow, pool.timeout()) == (5, 10, 30.0)


@pytest.mark.parametrize(("use_lifo", "expected"), [(False, 0), (True, 1)])
def test_fifo_rotates_and_lifo_does_not(engine: Engine, use_lifo: bool, expected: int) -> None:
    pool = engine(pool_use_lifo=use_lifo).pool
    connections = [pool.connect() for _ in range(2)]
    driven = [connection.driver_connection for connection in connections]
    for connection in connections:
        connection.close()
    with pool.connect() as connection:
        assert connection.driver_connection is driven[expected]


def test_the_pool_of_an_unused_engine_starts_no_thread(engine: Engine) -> None:
    before = threading.active_count()
    unused = engine()
    assert unused.pool.status().startswith("Pool size: 5  Connections in pool: 0")
    assert threading.active_count() == before


def test_a_timeout_is_sqlalchemys_and_names_the_holder(engine: Engine) -> None:
    one = engine(pool_size=1, max_overflow=0, pool_timeout=0.05)
    with one.connect() as connection:  # held here
        connection.execute(sa.text("SELECT 'the holder''s'"))
        error = aside(one.connect).exception(5)
    assert isinstance(error, penstock.PoolExhausted)
    assert isinstance(error, sa.exc.TimeoutError)
    assert error.code == "3o7r"
    assert f"{__file__}:{here('held here')}" in str(error)


def test_no_timeout_waits_until_served(engine: Engine) -> None:
    one = engine(pool_size=1, max_overflow=0, pool_timeout=None)
    first = one.connect()
    second = aside(one.connect)
    eventually(lambda: one.pool.snapshot().waiting)
    first.close()
    second.result(5).close()


def test_a_timeout_of_nothing_still_opens_what_there_is_room_for(engine: Engine) -> None:
    one = engine(pool_size=1, max_overflow=0, pool_timeout=0)
    with one.connect():
        assert isinstance(aside(one.connect).exception(5), sa.exc.TimeoutError)


def test_what_connecting_raises_is_the_callers_at_once(engine: Engine) -> None:
    """As SQLAlchemy has it: its own error, with the driver's as `orig`, and the place is free again."""
    wrong = engine(dsn="postgresql://nobody:wrong@127.0.0.1:1/none", pool_size=1, max_overflow=0)
    for _ in range(3):
        with pytest.raises(sa.exc.OperationalError, match="connection"):
            wrong.connect()
    assert wrong.pool.checkedout() == 0
    assert wrong.pool.snapshot().connect_errors == 3


def test_events_come_in_the_thread_that_asks(engine: Engine) -> None:
    one = engine(pool_size=1, max_overflow=0)
    heard: list[str] = []
    for name in ("first_connect", "connect", "checkout", "reset", "checkin", "invalidate", "close", "detach"):
        event.listen(one, name, lambda *_, name=name: heard.append(f"{name} {threading.get_ident()}"))
    with one.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
    with one.connect() as connection:
        connection.invalidate()
    with one.connect() as connection:
        connection.detach()
    me = threading.get_ident()
    names = [entry.removesuffix(f" {me}") for entry in heard]
    assert names == [
        *("first_connect", "connect", "checkout", "reset", "checkin"),
        *("checkout", "invalidate", "close", "checkin"),
        *("connect", "checkout", "detach", "reset"),
    ]


def test_a_transaction_left_open_is_rolled_back(engine: Engine) -> None:
    one = engine(pool_size=1, max_overflow=0)
    with one.begin() as connection:
        connection.execute(sa.text("CREATE TABLE sa_left_open (n int)"))
    raw = one.raw_connection()
    raw.cursor().execute("INSERT INTO sa_left_open VALUES (1)")
    raw.close()
    with one.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM sa_left_open")) == 0


def test_reset_on_return_commit_and_none(engine: Engine) -> None:
    with engine().begin() as connection:
        connection.execute(sa.text("CREATE TABLE sa_reset (n int)"))
    for reset, expected in (("commit", "IDLE"), (None, "INTRANS")):
        one = engine(pool_size=1, max_overflow=0, pool_reset_on_return=reset)
        raw = one.raw_connection()
        raw.cursor().execute("INSERT INTO sa_reset VALUES (1)")
        raw.close()
        with one.pool.connect() as again:
            assert again.driver_connection.info.transaction_status.name == expected
    with engine().connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM sa_reset")) == 1


def test_savepoints_and_two_phase(own_postgres: Callable[..., EmbeddedPostgres], engine: Engine) -> None:
    server = own_postgres()
    with server.admin() as admin:
        admin.execute("ALTER SYSTEM SET max_prepared_transactions = 5")
    server.stop()
    server.start()
    one = engine(dsn=server.dsn, pool_size=1, max_overflow=0)
    with one.begin() as connection:
        connection.execute(sa.text("CREATE TABLE sa_nested (n int)"))
        with pytest.raises(sa.exc.ProgrammingError), connection.begin_nested():
            connection.execute(sa.text("SELECT nonsense"))
        connection.execute(sa.text("INSERT INTO sa_nested VALUES (1)"))
    with one.connect() as connection:
        two_phase = connection.begin_twophase("sa-two")
        connection.execute(sa.text("INSERT INTO sa_nested VALUES (2)"))
        two_phase.prepare()
        two_phase.commit()
    with one.connect() as connection:
        assert connection.scalar(sa.text("SELECT sum(n) FROM sa_nested")) == 3


def test_recycle_replaces_what_is_too_old(engine: Engine) -> None:
    one = engine(pool_size=1, max_overflow=0, pool_recycle=3600)
    with one.connect() as connection:
        first = pid(connection)
        connection.connection._connection_record.starttime -= 3601  # type: ignore[attr-defined]
    with one.connect() as connection:
        assert pid(connection) != first


def test_a_soft_invalidation_replaces_it_at_the_next_checkout(engine: Engine) -> None:
    one = engine(pool_size=1, max_overflow=0)
    with one.connect() as connection:
        first = pid(connection)
        connection.connection._connection_record.starttime -= 1  # type: ignore[attr-defined]
        connection.connection.invalidate(soft=True)
        assert pid(connection) == first
    with one.connect() as connection:
        assert pid(connection) != first


def test_a_dropped_connection_comes_back(engine: Engine) -> None:
    one = engine(pool_size=1, max_overflow=0, pool_timeout=5)
    one.raw_connection().cursor().execute("SELECT 1")
    gc.collect()
    with one.connect() as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1


def test_connections_in_garbage_come_back_while_the_pool_works_under_its_lock() -> None:
    """The garbage collector runs at any allocation, those of the pool itself included."""
    one = sa.create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(":memory:", check_same_thread=False),
        poolclass=PenstockPool,
        pool_size=300,
    )
    one.pool.listen(lambda told: None)  # type: ignore[attr-defined]  # so that each checkout takes the lock

    def use() -> None:
        for threshold in range(3, 60):  # one or the other has it run under the lock
            gc.set_threshold(threshold, 1, 1)
            for _ in range(4):
                circle: list[Any] = [one.raw_connection()]
                circle.append(circle)
                del circle
                one.raw_connection().close()

    before = gc.get_threshold()
    user = threading.Thread(target=use, daemon=True)
    try:
        user.start()
        user.join(20)
    finally:
        gc.set_threshold(*before)
    assert not user.is_alive()
    gc.collect()
    eventually(lambda: one.pool.checkedout() == 0)  # type: ignore[attr-defined]
    one.dispose()


def test_who_dropped_a_connection_waits_for_it_and_not_for_ever(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropped under the pool's lock it comes back by the keeper; until then it is not its holder's any more."""
    monkeypatch.setattr("penstock.integrations.sqlalchemy.lender._runs_event_loop", lambda frame: False)  # a test's
    one = sa.create_engine(url(dsn), poolclass=PenstockPool, pool_size=1, max_overflow=0, pool_timeout=5)
    lender = one.pool._lender  # type: ignore[attr-defined]
    one.pool.listen(lambda told: None)  # type: ignore[attr-defined]
    idle = threading.Event()

    def drop() -> None:
        lent = [one.raw_connection()]
        lender._tell(lambda: idle.wait(10))  # what the keeper is busy with
        with lender._lock:
            lent.clear()
            gc.collect()
        aside(lambda: (eventually(lambda: lender._core.waiters.size), idle.set()))
        with one.connect(), pytest.raises(penstock.PoolDeadlock):
            one.connect()

    aside(drop).result(20)
    one.dispose()


def test_ctrl_c_amidst_dispose_loses_no_place(engine: Engine) -> None:
    one = engine(pool_size=3, max_overflow=0, pool_timeout=1)
    for connection in [one.connect() for _ in range(3)]:
        connection.close()

    @event.listens_for(one, "close")
    def interrupt(*args: Any) -> None:
        event.remove(one, "close", interrupt)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one.dispose()
    assert len([one.connect() for _ in range(3)]) == 3


def test_listeners_and_name_outlive_dispose(engine: Engine) -> None:
    one = engine()
    heard: list[Any] = []
    stop = one.pool.listen(heard.append)  # type: ignore[attr-defined]
    name = one.pool.snapshot().name  # type: ignore[attr-defined]
    one.dispose()
    one.dispose()
    one.connect().close()
    assert {each.pool for each in heard} == {name}
    assert Opened in map(type, heard)
    stop()
    heard.clear()
    one.connect().close()
    assert not heard


def test_what_was_passed_to_another_thread_is_named_and_not_what_ran_it(engine: Engine) -> None:
    one = engine()
    with ThreadPoolExecutor(1) as executor:
        connection = executor.submit(one.connect).result()
    (holder,) = one.pool.holders()  # type: ignore[attr-defined]
    assert holder.site.function == "Engine.connect"
    connection.close()


def within(request: Callable[[], None]) -> str:
    """The status of a response to a *request* that is answered with 500, behind the middleware."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        request()
        start_response("500 Internal Server Error", [])
        return [b""]

    statuses: list[str] = []
    environ = {"PATH_INFO": "/here", "REQUEST_METHOD": "GET"}
    body = PenstockMiddleware(app)(environ, lambda status, headers, error=None: statuses.append(status))
    b"".join(body)
    getattr(body, "close", lambda: None)()
    return statuses[-1]


@pytest.mark.parametrize("plain", [True, False])
def test_a_connection_that_outlives_its_request_is_reported(
    engine: Engine, plain: bool, caplog: pytest.LogCaptureFixture
) -> None:
    one = engine()
    if not plain:
        one.pool.listen(lambda told: None)  # type: ignore[attr-defined]
    kept: list[sa.Connection] = []
    within(lambda: one.connect().close())
    assert not caplog.records
    within(lambda: kept.append(one.connect()))  # outlives
    (record,) = caplog.records
    assert "a connection outlives its request, GET /here" in record.message
    assert f"{__file__}:{here('outlives')}" in record.message
    kept[0].close()


def test_a_refusal_that_was_got_over_is_not_what_the_request_failed_of(engine: Engine) -> None:
    one = engine(pool_size=1, max_overflow=0, pool_timeout=0.05)

    def refused() -> None:
        holder = aside(one.connect)
        connection = holder.result()
        with pytest.raises(penstock.PoolExhausted):
            one.connect()
        connection.close()

    def got_over() -> None:
        refused()
        one.connect().close()

    assert within(refused).startswith("503")
    assert within(got_over).startswith("500")


def test_a_request_without_a_deadline_costs_a_connection_no_reset(engine: Engine) -> None:
    """Of a lease in a request, and with nothing declared for the database, SQLAlchemy's reset would do nothing."""
    one = engine(pool_size=1, max_overflow=0)
    one.connect().close()
    calls: list[str] = []

    def look() -> None:
        connection = one.raw_connection()
        calls.append(f"bound: {connection._connection_record.bound}")  # type: ignore[attr-defined]
        connection.close()

    within(look)
    with penstock.deadline(5):
        look()
    assert calls == ["bound: False", "bound: True"]


def test_dispose_closes_what_is_idle_now_and_what_is_lent_on_its_return(
    engine: Engine, postgres: EmbeddedPostgres
) -> None:
    one = engine(connect_args={"application_name": "sa_dispose"})
    lent, idle = one.connect(), one.connect()
    kept = pid(lent)
    idle.close()
    one.dispose()
    eventually(lambda: pids(postgres, "sa_dispose") == {kept})
    lent.close()
    eventually(lambda: not pids(postgres, "sa_dispose"))
    with one.connect() as connection:  # SQLAlchemy has made a new pool
        assert connection.scalar(sa.text("SELECT 1")) == 1


def test_never_more_connections_than_pool_size_and_overflow(engine: Engine, postgres: EmbeddedPostgres) -> None:
    one = engine(pool_size=2, max_overflow=1, connect_args={"application_name": "sa_limit"})
    seen: list[int] = []

    def use() -> None:
        for _ in range(10):
            with one.connect() as connection:
                query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sa_limit'"
                seen.append(connection.scalar(sa.text(query)))

    for done in [aside(use) for _ in range(8)]:
        done.result(20)
    assert max(seen) <= 3


# ------------------------------------------------------------------------------------------ beyond that


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_connection_that_the_server_has_ended_is_not_handed_out(
    engine: Engine, postgres: EmbeddedPostgres, driver: str
) -> None:
    """Without pre-ping, and without a round trip: the kernel knows. Its end is told by SQLAlchemy's event."""
    one = engine(driver, pool_size=3)
    ended: list[BaseException] = []
    event.listen(one, "invalidate", lambda conn, record, error: ended.append(error))
    connections = [one.connect() for _ in range(3)]
    doomed = [pid(connection) for connection in connections]
    for connection in connections:
        connection.close()
    with postgres.admin() as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s) AS pid", (doomed,))
    eventually(lambda: all(record._probe(0) for record in one.pool._pool.queue))  # type: ignore[attr-defined]
    for _ in range(3):
        with one.connect() as connection:
            assert connection.scalar(sa.text("SELECT 1")) == 1
    assert [str(error) for error in ended] == ["the server has closed the connection"] * 3


def count_pings(one: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    pings: list[int] = []
    do_ping = one.dialect.do_ping
    monkeypatch.setattr(one.dialect, "do_ping", lambda conn: pings.append(1) or do_ping(conn))
    return pings


def test_pre_ping_asks_only_what_has_rested_for_long(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    one = engine(pool_size=1, max_overflow=0, pool_pre_ping=True)
    one.connect().close()
    pings = count_pings(one, monkeypatch)
    one.connect().close()
    assert not pings
    one.pool._pool.queue[0].rested -= 3600  # type: ignore[attr-defined]
    one.connect().close()
    assert len(pings) == 1


def test_a_proven_death_makes_every_other_idle_connection_suspect(
    engine: Engine, postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = engine(pool_size=2, max_overflow=0)
    first, second = one.connect(), one.connect()
    killed = pid(first)
    first.close()
    second.close()
    pings = count_pings(one, monkeypatch)
    with postgres.admin() as admin:
        admin.execute("SELECT pg_terminate_backend(%s)", (killed,))
    eventually(lambda: one.pool._pool.queue[-1]._probe(0))  # type: ignore[attr-defined]
    with one.connect(), one.connect():
        assert len(pings) == 1  # of the other one, which lives
    with one.connect():
        assert len(pings) == 1


@pytest.mark.parametrize("driver", DRIVERS)
def test_holders_name_the_users_line_and_statement(engine: Engine, driver: str) -> None:
    one = engine(driver)
    with one.begin() as connection:  # begun here
        connection.execute(sa.text("SELECT 1 AS begun"))
        with Session(one) as session:
            session.scalar(sa.text("SELECT 2 AS orm"))  # executed here
            begun, executed = one.pool.holders()  # type: ignore[attr-defined]
    assert (begun.site.file, begun.site.line) == (__file__, here("begun here"))
    assert (executed.site.file, executed.site.line) == (__file__, here("executed here"))
    assert (begun.statement, executed.statement) == ("SELECT 1 AS begun", "SELECT 2 AS orm")
    assert begun.status == "INTRANS"
    assert not one.pool.holders()  # type: ignore[attr-defined]


def test_a_leak_is_reported_with_its_line(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    one = engine(leak_after=0.05)
    caplog.set_level(logging.WARNING, "penstock.pool")
    with one.connect():  # leaked here
        eventually(lambda: any("is this a leak?" in record.getMessage() for record in caplog.records))
    assert f"{__file__}:{here('leaked here')}" in caplog.text


def test_a_reclaimed_connection_serves_the_next_and_not_its_holder(engine: Engine) -> None:
    one = engine(pool_size=1, max_overflow=0, pool_timeout=5, leak_after=0.05, leak_reclaim=True)
    with one.connect() as kept:
        with aside(one.connect).result(5) as next_one:
            assert next_one.scalar(sa.text("SELECT 1")) == 1
        with pytest.raises(sa.exc.OperationalError):
            kept.execute(sa.text("SELECT 1"))
    with one.connect() as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1


def test_a_wait_for_oneself_is_told_at_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who holds every connection and asks for one more would wait for ever; but not where an event loop runs."""
    monkeypatch.setattr("penstock.integrations.sqlalchemy.lender._runs_event_loop", lambda frame: False)  # a test's
    one = engine(pool_size=1, max_overflow=0, pool_timeout=30)
    with one.connect(), pytest.raises(penstock.PoolDeadlock) as caught:
        one.connect()
    assert isinstance(caught.value, sa.exc.TimeoutError)


def test_nested_checkouts_can_be_forbidden(engine: Engine) -> None:
    one = engine(nested="raise")
    with one.connect(), pytest.raises(penstock.NestedCheckout):
        one.connect()


def test_requests_are_served_in_the_order_of_coming(engine: Engine) -> None:
    one = engine(pool_size=1, max_overflow=0)
    first, served = one.connect(), []

    def ask(number: int) -> None:
        with one.connect():
            served.append(number)

    asked = []
    for number in range(5):
        asked.append(aside(lambda number=number: ask(number)))
        eventually(lambda number=number: one.pool.snapshot().waiting == number + 1)  # type: ignore[attr-defined, misc]
    first.close()
    for each in asked:
        each.result(5)
    assert served == [0, 1, 2, 3, 4]


def test_max_waiting_refuses_the_next(engine: Engine) -> None:
    one = engine(pool_size=1, max_overflow=0, max_waiting=1)
    first = one.connect()
    waiting = aside(one.connect)
    eventually(lambda: one.pool.snapshot().waiting)  # type: ignore[attr-defined]
    with pytest.raises(sa.exc.TimeoutError) as caught:
        aside(one.connect).result(5)
    assert isinstance(caught.value, penstock.TooManyRequests)
    first.close()
    waiting.result(5).close()


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_declared_deadline_bounds_the_wait_and_the_statement(engine: Engine, driver: str) -> None:
    one = engine(driver, pool_size=1, max_overflow=0)
    with one.connect(), pytest.raises(penstock.Overloaded):
        aside(lambda: _within(0.05, one)).result(5)
    started = time.monotonic()
    with pytest.raises(sa.exc.OperationalError, match="statement timeout"):
        _within(0.1, one)
    assert time.monotonic() - started < 5
    with one.connect() as connection:
        assert connection.scalar(sa.text("SHOW statement_timeout")) == "0"


def _within(seconds: float, one: sa.Engine) -> None:
    with penstock.deadline(seconds), one.connect() as connection:
        connection.execute(sa.text("SELECT pg_sleep(30)"))


def test_unused_connections_are_closed_after_max_idle(engine: Engine) -> None:
    one = engine(max_idle=0.05)
    one.connect().close()
    assert one.pool.checkedin() == 1
    eventually(lambda: one.pool.checkedin() == 0)


def test_a_wrong_option_says_what_it_may_be(engine: Engine) -> None:
    for given, error, words in [
        ({"nested": "never"}, ValueError, "nested must be 'allow', 'warn' or 'raise'"),
        ({"pool_size": "5"}, TypeError, "pool_size must be a whole number, not '5'"),
        ({"pool_size": None}, TypeError, "pool_size must be a whole number, not None"),
        ({"pool_size": -1}, ValueError, "pool_size must be 0 or more, not -1"),
        ({"max_overflow": -5}, ValueError, "max_overflow must be -1 or more, not -5"),
        ({"max_overflow": "10"}, TypeError, "max_overflow must be a whole number, not '10'"),
        ({"pool_timeout": "5"}, TypeError, "pool_timeout must be a number of seconds, not '5'"),
    ]:
        with pytest.raises(error, match=words):
            engine(**given)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_has_connections_of_its_own(engine: Engine) -> None:
    one = engine(pool_size=1, max_overflow=0)
    with one.connect() as connection:
        parents = pid(connection)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with one.connect() as connection:
                os.write(write, str(pid(connection)).encode())
        except BaseException:
            os.write(write, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    told = os.read(read, 65536).decode()
    assert told.isdigit(), told
    assert int(told) != parents
    with one.connect() as connection:
        assert pid(connection) == parents
    os.close(read)
    os.close(write)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("sizes", [(2, 0), (1, 1)])
@pytest.mark.parametrize("driver", DRIVERS)
def test_what_was_held_across_a_fork_gives_the_child_no_place(
    engine: Engine, driver: str, sizes: tuple[int, int]
) -> None:
    """Of two held by the parent, one in a transaction, the child has neither after it closed them: and its own two."""
    one = engine(driver, pool_size=sizes[0], max_overflow=sizes[1], pool_timeout=0.1)
    idle, busy = one.connect(), one.connect()
    parents = {pid(idle), pid(busy)}
    idle.rollback()
    read, write = os.pipe()
    told: list[object] = []
    child = os.fork()
    if child == 0:
        try:
            idle.close()
            with pytest.raises(sa.exc.DBAPIError):
                busy.close()  # whose transaction is the parent's to end
            told = [one.pool.checkedout(), one.pool.checkedin()]  # type: ignore[attr-defined]
            own = [one.connect(), one.connect()]
            told.append(parents.isdisjoint(map(pid, own)))
            with pytest.raises(sa.exc.TimeoutError):
                one.connect()
            told.append(one.pool.checkedout())  # type: ignore[attr-defined]
            for connection in own:
                connection.close()
            told.append(one.pool.checkedout())  # type: ignore[attr-defined]
        except BaseException as error:
            told = [error]
        finally:
            os.write(write, repr(told).encode())
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    assert os.read(read, 1000).decode() == "[0, 0, True, 2, 0]"
    os.close(read)
    assert {pid(idle), pid(busy)} == parents
    idle.close()
    busy.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Engine]:
    """Makes engines on one SQLite file, which has a table ``things``, and disposes of them."""
    made: list[sa.Engine] = []

    def make(**options: Any) -> sa.Engine:
        options = {"poolclass": PenstockPool, "pool_size": 1, "max_overflow": 0, **options}
        made.append(sa.create_engine(f"sqlite:///{tmp_path / 'db'}", **options))
        return made[-1]

    with make().begin() as connection:
        connection.execute(sa.text("CREATE TABLE things (n int)"))
    yield make
    for each in made:
        each.dispose()


def test_sqlite_is_seen(sqlite: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    one = sqlite(pool_pre_ping=True)
    one.connect().close()
    pings = count_pings(one, monkeypatch)
    with one.begin() as connection:  # of sqlite
        connection.execute(sa.text("INSERT INTO things VALUES (1)"))
        (holder,) = one.pool.holders()  # type: ignore[attr-defined]
    assert (holder.site.line, holder.statement) == (here("of sqlite"), "INSERT INTO things VALUES (1)")
    assert holder.status == "INTRANS"
    assert not pings


def test_sqlite_is_connected_to_while_its_file_is_locked(sqlite: Engine, tmp_path: Path) -> None:
    """As without us: to connect reads nothing."""
    with closing(sqlite3.connect(tmp_path / "db")) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        sqlite(connect_args={"timeout": 0}).connect().close()


def test_a_transaction_left_open_in_sqlite_is_rolled_back(sqlite: Engine) -> None:
    one = sqlite()
    raw = one.raw_connection()
    raw.cursor().execute("INSERT INTO things VALUES (1)")
    raw.close()
    with one.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM things")) == 0


def test_a_declared_deadline_bounds_a_statement_of_sqlite_and_no_other(sqlite: Engine) -> None:
    one = sqlite()
    count = "WITH RECURSIVE up(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM up LIMIT {}) SELECT count(*) FROM up"
    with (
        penstock.deadline(0.05),
        one.connect() as connection,
        pytest.raises(sa.exc.OperationalError, match="interrupt"),
    ):
        connection.execute(sa.text(count.format(10**10)))
    with one.connect() as connection:
        assert connection.scalar(sa.text(count.format(10**5))) == 10**5


def test_a_connection_of_a_driver_that_is_not_known_is_lent_as_it_is(sqlite: Engine, tmp_path: Path) -> None:
    """SQLAlchemy's own pre-ping asks, and its statements are not seen: sqlite3's own class cannot show them."""
    one = sqlite(creator=lambda: sqlite3.connect(tmp_path / "db"), pool_pre_ping=True)
    with one.begin() as connection:
        connection.execute(sa.text("INSERT INTO things VALUES (1)"))
        (holder,) = one.pool.holders()  # type: ignore[attr-defined]
    assert (holder.statement, holder.idle >= 0) == (None, True)
    with one.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM things")) == 1


def test_a_factory_that_is_a_function_is_called(sqlite: Engine) -> None:
    one = sqlite(connect_args={"factory": lambda *args, **kwargs: sqlite3.Connection(*args, **kwargs)})
    with one.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM things")) == 0


def test_a_connection_of_a_creator_that_the_driver_cannot_take_note_of_is_lent(dsn: str) -> None:
    one = sa.create_engine("postgresql+psycopg2://", creator=lambda: psycopg2.connect(dsn), poolclass=PenstockPool)
    for _ in range(2):
        with one.connect() as connection:
            assert connection.scalar(sa.text("SELECT 1")) == 1
    one.dispose()
