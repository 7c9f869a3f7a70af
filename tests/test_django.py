"""Django's connections, lent by a pool: what comes back, when, as what, and what Django's users go on to rely on."""

import asyncio
import gc
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from io import StringIO
from itertools import count
from types import FrameType, SimpleNamespace
from typing import Any, cast

import django
import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import CommandError, SystemCheckError

import penstock
from penstock.core import Reason
from penstock.drill.postgres import EmbeddedPostgres
from penstock.pool import terms
from support.waiting import aside, eventually

if not settings.configured:
    settings.configure(INSTALLED_APPS=["penstock.integrations.django"])
    django.setup()

from django.db import DatabaseError, OperationalError, ProgrammingError, connections, transaction
from django.db.utils import ConnectionHandler

from penstock.integrations.caller import caller
from penstock.integrations.django import held, pools
from penstock.integrations.django.management.commands.penstock import Command
from penstock.integrations.django.pool import DjangoPool, connection_name

ENGINE = "penstock.integrations.django.postgresql"
Database = Callable[..., str]
_numbers = count(1)


@pytest.fixture
def database(postgres: EmbeddedPostgres) -> Iterator[Database]:
    """Adds a database to Django's settings, with a pool of these options; returns its alias."""
    added = []

    def add(pool: object = True, options: dict[str, Any] | None = None, **more: Any) -> str:
        alias = f"test_{next(_numbers)}"
        where = psycopg.conninfo.conninfo_to_dict(postgres.dsn)
        names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
        given = {key: str(where[name]) for key, name in names.items()}
        given |= {"ENGINE": ENGINE, "OPTIONS": {"pool": pool, **(options or {})}, **more}
        connections.settings[alias] = ConnectionHandler({"default": given}).settings["default"]
        added.append(alias)
        return alias

    yield add
    for alias in added:
        connections[alias].close()
        connections[alias].close_pool()
        del connections[alias], connections.settings[alias]


def ask(alias: str, statement: str = "SELECT pg_backend_pid()") -> Any:
    with connections[alias].cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0]


def in_thread(job: Callable[[], Any]) -> Any:
    """What *job* comes to, or raises, in a thread that has ended when this returns."""
    found: Future[Any] = Future()

    def run() -> None:
        try:
            found.set_result(job())
        except Exception as error:
            found.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found.result(0)


def pool_of(alias: str) -> DjangoPool:
    return pools()[alias]


def end_of_request(alias: str) -> None:
    """As `close_old_connections` does, which Django calls when a request begins and ends."""
    connections[alias].close_if_unusable_or_obsolete()


# ------------------------------------------------------------------------------------------ lent and given back


@pytest.mark.parametrize("age", [0, 60, None])
def test_a_connection_goes_back_at_the_end_of_the_request_whatever_its_age(database: Database, age: int | None) -> None:
    """CONN_MAX_AGE keeps nothing from request to request: the pool does, for all."""
    alias = database(CONN_MAX_AGE=age, CONN_HEALTH_CHECKS=True)
    session = ask(alias)
    assert pool_of(alias).snapshot().leased == 1
    end_of_request(alias)
    assert connections[alias].connection is None
    assert (pool_of(alias).snapshot().leased, pool_of(alias).snapshot().idle) == (0, 1)
    assert ask(alias) == session


def test_close_gives_back_and_the_next_query_borrows_again(database: Database) -> None:
    alias = database()
    session = ask(alias)
    connections[alias].close()
    assert pool_of(alias).snapshot().leased == 0
    assert ask(alias) == session


def test_connecting_anew_without_close_loses_no_connection(database: Database) -> None:
    alias = database({"max_size": 2, "timeout": 5})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for _ in range(4):
            connections[alias].connect()
            gc.collect()  # cursors of Django's keep the connection in cycles
            assert ask(alias)
        connections[alias].close()
        eventually(lambda: pool_of(alias).snapshot().leased == 0)


def test_a_request_has_one_session_until_its_end(database: Database) -> None:
    """What Django's users rely on: a SET, a temporary table, a lock hold from query to query."""
    alias = database({"max_size": 2})
    session = ask(alias)
    ask(alias, "SELECT set_config('work_mem', '7MB', false)")
    with connections[alias].cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE mine (x int)")
    assert ask(alias, "SELECT count(*) FROM mine") == 0
    assert ask(alias, "SHOW work_mem") == "7MB"
    assert ask(alias) == session


def test_the_next_request_finds_nothing_of_the_last_one(database: Database) -> None:
    alias = database({"max_size": 1}, TIME_ZONE="Asia/Tokyo")
    session = ask(alias)
    ask(alias, "SELECT set_config('work_mem', '7MB', false)")
    held = connections[alias].chunked_cursor()
    held.execute("SELECT generate_series(1, 9)")
    assert held.fetchone() == (1,)
    with connections[alias].cursor() as cursor:
        cursor.execute("SET TIME ZONE 'Europe/Paris'")
    end_of_request(alias)
    assert ask(alias, "SHOW work_mem") == "4MB"
    assert ask(alias, "SHOW TIME ZONE") == "Asia/Tokyo"
    assert ask(alias, "SELECT count(*) FROM pg_cursors") == 0
    assert ask(alias) == session
    with pytest.warns(ResourceWarning, match="deleted while still open"):  # psycopg's own
        del held


def test_an_untouched_connection_goes_back_without_a_round_trip(database: Database, postgres: EmbeddedPostgres) -> None:
    alias = database({"max_size": 1}, TIME_ZONE="Asia/Tokyo")
    session = ask(alias, "SELECT pg_backend_pid(), 'the last one'")
    end_of_request(alias)
    with transaction.atomic(using=alias):
        assert ask(alias) == session
    end_of_request(alias)
    with postgres.admin() as admin:
        asked = admin.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", [session]).fetchone()
    assert asked == ("COMMIT",)


def test_a_transaction_left_open_is_rolled_back(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    alias = database({"max_size": 1})
    connections[alias].set_autocommit(False)
    with connections[alias].cursor() as cursor:
        cursor.execute("CREATE TABLE django_left_open (x int)")
    end_of_request(alias)
    assert ask(alias, "SELECT count(*) FROM pg_class WHERE relname = 'django_left_open'") == 0
    assert connections[alias].get_autocommit()
    assert "rolling back a transaction left open" in caplog.text


def test_closed_within_atomic_no_other_connection_is_taken(database: Database) -> None:
    alias = database()
    with pytest.raises(ProgrammingError, match="Cannot open a new connection in an atomic block"):
        with transaction.atomic(using=alias):
            connections[alias].close()
            ask(alias)
    connections[alias].close()
    assert ask(alias)
    assert pool_of(alias).snapshot().leased == 1


def test_options_of_django_hold_for_each_that_borrows(database: Database) -> None:
    options = {"isolation_level": psycopg.IsolationLevel.SERIALIZABLE, "assume_role": "app"}
    alias = database({"max_size": 1}, options)
    for _ in range(2):
        with transaction.atomic(using=alias):
            assert ask(alias, "SHOW transaction_isolation") == "serializable"
        assert ask(alias, "SHOW role") == "app"
        end_of_request(alias)


def test_a_configure_of_the_user_s_comes_after_django_s(database: Database) -> None:
    zones = []
    alias = database(
        {"configure": lambda conn: zones.append(conn.info.parameter_status("TimeZone"))}, TIME_ZONE="Asia/Tokyo"
    )
    ask(alias)
    assert zones == ["Asia/Tokyo"]


def test_pool_false_is_django_s_own_way(database: Database) -> None:
    alias = database(False, CONN_MAX_AGE=None)
    session = ask(alias)
    assert connections[alias].pool is None
    assert alias not in pools()
    end_of_request(alias)
    assert ask(alias) == session


# ------------------------------------------------------------------------------------------ threads


def test_threads_that_end_leak_nothing(database: Database) -> None:
    """Each runs a query and ends; Django closes nothing. Two connections serve them all, and none is opened anew."""
    alias = database({"max_size": 2, "timeout": 5})
    for _ in range(5):
        served = [aside(lambda: ask(alias)) for _ in range(10)]
        assert len({each.result(10) for each in served}) <= 2
    eventually(lambda: pool_of(alias).snapshot().leased == 0)
    assert pool_of(alias).snapshot().connects <= 2
    assert not pool_of(alias).snapshot().closes


def test_workers_that_have_nothing_to_do_let_others_have_their_connections(database: Database) -> None:
    """An executor's threads go on for ever, and Django closes nothing in them."""
    alias = database({"max_size": 2, "timeout": 5})
    with ThreadPoolExecutor(4) as first, ThreadPoolExecutor(4) as second:
        for _ in range(3):
            for workers in (first, second):
                assert len(set(workers.map(lambda _: ask(alias), range(8)))) <= 2
            ask(alias)
    eventually(lambda: pool_of(alias).snapshot().leased == 1)
    assert pool_of(alias).snapshot().connects == 2


def in_deadline(seconds: float | None, job: Callable[[], Any]) -> Any:
    with penstock.deadline(seconds):
        return job()


def test_workers_that_worked_under_a_deadline_let_others_have_their_connections(database: Database) -> None:
    """Whether those wait, or would be refused rather than wait, and however long ago that deadline passed."""
    alias = database({"max_size": 2, "timeout": 5, "overload": penstock.Overload()})
    with ThreadPoolExecutor(4) as workers:
        list(workers.map(lambda _: in_deadline(30, lambda: ask(alias)), range(8)))
        ask(alias)
        connections[alias].close()
        list(workers.map(lambda _: in_deadline(30, lambda: ask(alias)), range(8)))
        in_deadline(0.5, lambda: ask(alias))
    assert pool_of(alias).snapshot().connects == 2
    assert not any(pool_of(alias).snapshot().refusals.values())


def test_a_request_that_would_be_refused_has_an_idle_worker_s_connection(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never waits, so nobody looks round for it: it looks itself before it is judged."""
    alias = database({"max_size": 1, "timeout": 5})
    with ThreadPoolExecutor(1) as worker:
        worker.submit(ask, alias).result(10)
        pool = pool_of(alias)
        leased = []
        late = pool._core.admission.comes_late
        monkeypatch.setattr(
            pool._core.admission, "comes_late", lambda *of: leased.append(pool._core.leased) or late(*of)
        )
        in_deadline(5, lambda: ask(alias))
    assert leased == [0]


def test_threads_that_end_under_a_deadline_give_back(database: Database) -> None:
    alias = database({"max_size": 2, "timeout": 5})
    for _ in range(6):
        in_thread(lambda: in_deadline(30, lambda: ask(alias)))
    eventually(lambda: pool_of(alias).snapshot().leased == 0)
    assert (pool_of(alias).snapshot().connects, pool_of(alias).snapshot().closes) == (1, {})


def test_a_deadline_is_not_a_later_transaction_s(database: Database) -> None:
    """A request keeps its connection beyond the block that it borrowed it in, and a worker's thread does for ever."""
    alias = database({"max_size": 1})
    for seconds in (0.01, 30):
        in_deadline(5, lambda: ask(alias))
        with penstock.deadline(seconds), transaction.atomic(using=alias):
            assert ask(alias, "SHOW statement_timeout") == "0"
        with terms.reading(), transaction.atomic(using=alias):
            assert ask(alias, "SHOW transaction_read_only") == "off"
        connections[alias].close()
    with terms.reading():
        ask(alias)
    with transaction.atomic(using=alias):
        assert ask(alias, "SHOW transaction_read_only") == "off"


def test_workers_keep_what_cannot_be_had_elsewhere(database: Database) -> None:
    """What a worker has set, or begun, is there for its next piece of work, although others wait in vain."""
    alias = database({"max_size": 1, "timeout": 0.2})
    with ThreadPoolExecutor(1) as worker:
        session = worker.submit(ask, alias).result(10)
        worker.submit(ask, alias, "SELECT set_config('work_mem', '7MB', false)").result(10)
        with pytest.raises(penstock.PoolExhausted):
            ask(alias)
        assert worker.submit(ask, alias, "SHOW work_mem").result(10) == "7MB"
        worker.submit(lambda: connections[alias].close()).result(10)
        assert ask(alias) == session


def test_a_worker_s_manual_transaction_is_its_own(database: Database) -> None:
    """Between `set_autocommit(False)` and the first query there is nothing on the server, and yet something begun."""
    alias = database({"max_size": 1, "timeout": 0.2})
    with ThreadPoolExecutor(1) as worker:
        worker.submit(transaction.set_autocommit, False, using=alias).result(10)
        with pytest.raises(penstock.PoolExhausted):
            ask(alias)
        assert worker.submit(transaction.get_autocommit, using=alias).result(10) is False
        worker.submit(lambda: connections[alias].close()).result(10)


def test_a_worker_in_the_midst_of_its_work_keeps_its_connection(database: Database) -> None:
    alias = database({"max_size": 1, "timeout": 0.2})
    asked, go_on = threading.Event(), threading.Event()

    def work() -> bool:
        session = ask(alias)
        asked.set()
        go_on.wait(10)
        return bool(ask(alias) == session and connections[alias].connection is not None)

    with ThreadPoolExecutor(1) as worker:
        done = worker.submit(work)
        asked.wait(10)
        with pytest.raises(penstock.PoolExhausted):
            ask(alias)
        go_on.set()
        assert done.result(10)


def test_a_thread_that_ends_in_a_transaction_loses_its_connection_and_is_named(database: Database) -> None:
    alias = database({"max_size": 1, "timeout": 5})

    def leave_open() -> Any:
        transaction.set_autocommit(False, using=alias)
        return ask(alias)

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        session = in_thread(leave_open)
        assert ask(alias) != session
    assert pool_of(alias).snapshot().closes == {Reason.ABANDONED: 1}
    assert any(__file__ in str(each.message) for each in warned)


def test_a_wrapper_that_is_shared_outlives_the_thread_that_borrowed_for_it(database: Database) -> None:
    """`inc_thread_sharing`: the connection is the wrapper's then, whichever thread was first to use it."""
    alias = database({"max_size": 1, "timeout": 0.2})
    shared = connections[alias]
    shared.inc_thread_sharing()

    def use() -> Any:
        with shared.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            return cursor.fetchone()[0]

    session = in_thread(use)
    with pytest.raises(penstock.PoolExhausted):
        in_thread(lambda: ask(alias))
    assert use() == session
    shared.dec_thread_sharing()
    shared.close()
    assert aside(lambda: ask(alias)).result(10) == session


def test_a_shared_wrapper_that_nobody_has_any_more_gives_back(database: Database) -> None:
    alias = database({"max_size": 1, "timeout": 5})

    def leave() -> None:
        connections[alias].inc_thread_sharing()
        ask(alias)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        in_thread(leave)
        gc.collect()
        assert ask(alias)


def test_what_another_thread_borrowed_by_mistake_is_not_taken_away_when_it_ends(database: Database) -> None:
    """Django connects first, and finds out then that the wrapper is not that thread's."""
    alias = database({"max_size": 1, "timeout": 5})
    mine = connections[alias]
    with pytest.raises(DatabaseError, match="can only be used in that same thread"):
        in_thread(mine.cursor)
    conn = mine.connection
    assert conn is not None
    assert ask(alias)
    assert mine.connection is conn


def test_what_was_reclaimed_is_borrowed_anew_where_nothing_was_lost(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """A thread that never ends, and is no executor's: with `leak_reclaim` it keeps nothing that it does not use."""
    alias = database({"max_size": 1, "leak_after": 0.1, "leak_reclaim": True, "timeout": 5})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        mine = ask(alias)
        other = aside(lambda: (ask(alias), connections[alias].close())).result(10)[0]  # waits until it is taken away
        assert other != mine
        assert ask(alias) == other
    assert "is this a leak?" in caplog.text


def test_what_was_reclaimed_in_a_transaction_is_not_taken_for_another(database: Database) -> None:
    alias = database({"max_size": 1, "leak_after": 0.1, "leak_reclaim": True, "timeout": 5})
    with warnings.catch_warnings(), pytest.raises(OperationalError):
        warnings.simplefilter("ignore", ResourceWarning)
        with transaction.atomic(using=alias):
            ask(alias)
            eventually(lambda: pool_of(alias).snapshot().closes)
            eventually(lambda: ask(alias) is None)  # it may take a moment to find out


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own(database: Database) -> None:
    """As after `gunicorn --preload`: what the parent holds stays the parent's, and works on."""
    alias = database({"max_size": 2, "timeout": 5})
    session = ask(alias)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            end_of_request(alias)
            os.write(writing, str(ask(alias)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as said:
        other = said.read()
    os.waitpid(child, 0)
    assert other
    assert int(other) != session
    assert ask(alias) == session


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_forked_within_atomic_does_not_go_on_with_it(database: Database) -> None:
    alias = database({"max_size": 2, "timeout": 5})
    with transaction.atomic(using=alias):
        ask(alias)
        child = os.fork()
        if child == 0:
            try:
                ask(alias)
            except ProgrammingError:  # Cannot open a new connection in an atomic block
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert ask(alias)


# ------------------------------------------------------------------------------------------ refused, and named


def test_exhausted_is_django_s_error_and_ours_and_names_the_user_s_line(database: Database) -> None:
    alias = database({"max_size": 1, "timeout": 0.05})
    let_go = threading.Event()
    holds = threading.Event()

    def hold() -> None:
        with transaction.atomic(using=alias):  # held here
            holds.set()
            let_go.wait(10)

    holder = aside(hold)
    holds.wait(10)
    with pytest.raises(OperationalError, match="all 1 are held") as refused:
        ask(alias)
    let_go.set()
    holder.result(10)
    assert isinstance(refused.value, penstock.PoolExhausted)
    assert f"{__file__}:{hold.__code__.co_firstlineno + 1} in " in str(refused.value)
    assert "django/db" not in str(refused.value)


def test_where_there_is_no_line_of_the_user_s_django_s_own_is_named() -> None:
    """A middleware's, say: what is nearest to the connection says nothing, nor does the server."""

    def site(*modules: str) -> str:
        frame = None
        for module in modules:  # from the outermost inwards
            code = SimpleNamespace(co_filename=module)
            frame = SimpleNamespace(f_globals={"__name__": module}, f_code=code, f_lasti=0, f_back=frame)
        return caller(cast("FrameType", frame))[0].co_filename

    middleware = "django.contrib.sessions.middleware"
    assert site("wsgiref.handlers", middleware, "django.utils.functional", "django.db.models.query") == middleware
    assert site("gunicorn.app", middleware, "shop.views", "contextlib", "django.db.transaction") == "shop.views"
    assert site("threading", "django.db.models.query") == "django.db.models.query"  # which was passed to the thread


@pytest.mark.parametrize("sensitive", [True, False])
def test_who_awaits_is_named_where_django_works_in_a_thread(database: Database, sensitive: bool) -> None:
    """Alone, gathered, and in a task of its own: the thread itself has no line of the user's."""
    alias = database({"max_size": 1})
    query = {"__name__": "django.db.models.query", "connections": connections}
    exec("def count(alias): connections[alias].ensure_connection()", query)

    def connect() -> Any:
        return sync_to_async(query["count"], thread_sensitive=sensitive)(alias)

    def named() -> str:
        [holder] = pool_of(alias).holders()
        return holder.site.function.split(".")[-1]

    async def my_view() -> None:
        await connect()

    async def my_gathering_view() -> None:
        await asyncio.gather(connect(), asyncio.sleep(0))

    async def my_task_view() -> None:
        await asyncio.create_task(connect())

    async def scenario() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        for view in (my_view, my_gathering_view, my_task_view):
            for _ in range(5):
                await view()
                assert named() == view.__name__
                await sync_to_async(lambda: connections[alias].close(), thread_sensitive=sensitive)()

    asyncio.run(scenario())


def test_a_declared_deadline_holds_for_queries(database: Database) -> None:
    """And what comes too late is `Overloaded`, with all that it says."""
    alias = database({"max_size": 1, "timeout": 5})
    ask(alias)

    def late() -> None:
        with penstock.deadline(0.05):
            ask(alias)

    with pytest.raises(OperationalError) as refused:
        aside(late).result(10)
    assert isinstance(refused.value, (penstock.Overloaded, penstock.PoolTimeout))


def test_overloaded_keeps_its_figures(database: Database) -> None:
    alias = database({"max_size": 1})
    with pytest.raises(penstock.Overloaded, match=f"django:{alias}: overloaded") as refused:
        with penstock.deadline(0):
            ask(alias)
    assert isinstance(refused.value, OperationalError)
    assert refused.value.retry_after > 0


def test_a_database_that_is_down_is_told_with_its_cause(database: Database) -> None:
    alias = database({"timeout": 0.5}, HOST="127.0.0.1", PORT="1")
    with pytest.raises(OperationalError, match="refuses connections") as refused:
        ask(alias)
    assert isinstance(refused.value, penstock.DatabaseUnavailable)
    assert isinstance(refused.value.__cause__, psycopg.OperationalError)


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        ({"max_size": 0}, "max_size must be 1 or more"),
        ({"max_sise": 3}, r"\]: penstock.Pool has no option 'max_sise': did you mean 'max_size'\?"),
        ({"colour": 3}, "has no option 'colour'$"),
        ({"kwargs": {}}, "cannot have 'kwargs'"),
        ("yes", "must be True, False, or a dictionary"),
    ],
)
def test_a_wrong_option_is_named_with_its_place(database: Database, pool: object, said: str) -> None:
    alias = database(pool)
    with pytest.raises(ImproperlyConfigured, match=said) as refused:
        ask(alias)
    assert f'DATABASES[\'{alias}\']["OPTIONS"]["pool"]' in str(refused.value)


# ------------------------------------------------------------------------------------------ settings that change


def test_a_wrong_option_is_found_by_manage_check(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by the first request."""
    right, wrong, none = database({"max_size": 3}), database({"max_sise": 3}), database(False)
    monkeypatch.setattr(type(connections), "__iter__", lambda _: iter([right, wrong, none]))
    with pytest.raises(SystemCheckError, match=rf"penstock.E001.*DATABASES\['{wrong}'\].*max_sise") as found:
        call_command("check")
    assert right not in str(found.value)
    monkeypatch.setattr(type(connections), "__iter__", lambda _: iter([right, none]))
    call_command("check", stderr=StringIO(), stdout=StringIO())


def test_another_database_name_is_another_pool(database: Database, postgres: EmbeddedPostgres) -> None:
    """As when tests begin: nothing that comes after goes to the database from before."""
    alias = database({"max_size": 2})
    ask(alias)
    end_of_request(alias)
    before = pool_of(alias)
    with postgres.admin() as admin:
        admin.execute("CREATE DATABASE django_other")
        connections[alias].settings_dict["NAME"] = "django_other"
        assert ask(alias, "SELECT current_database()") == "django_other"
        assert before.closed
        connections[alias].close()
        connections[alias].close_pool()
        admin.execute("DROP DATABASE django_other")  # nobody is connected any more


def test_what_was_lent_before_the_settings_changed_is_closed_when_it_comes_back(database: Database) -> None:
    alias = database({"max_size": 2})
    session = ask(alias)
    connections[alias].settings_dict["OPTIONS"]["pool"]["max_size"] = 3
    assert aside(lambda: ask(alias)).result(10) != session
    assert pool_of(alias).max_size == 3
    assert ask(alias) == session
    connections[alias].close()
    assert ask(alias) != session


def test_sizes_by_default_and_from_the_budget(database: Database, tmp_path: Any, monkeypatch: Any) -> None:
    alias = database()
    ask(alias)
    assert (pool_of(alias).min_size, pool_of(alias).max_size) == (0, 4)
    (tmp_path / "penstock.toml").write_text(
        '[databases.main]\nurl = "env:NOT_NEEDED"\nmax_connections = 40\nreserved = 3\nheadroom = 1\n'
        '[services.web]\ndatabase = "main"\nreplicas = 2\nsurge = 0\nprocesses = 3\n'
    )
    monkeypatch.setenv("PENSTOCK_TOML", str(tmp_path / "penstock.toml"))
    declared = database({"budget": "web"})
    ask(declared)
    assert pool_of(declared).max_size == 36 // 6


# ------------------------------------------------------------------------------------------ manage.py penstock


def shown(**options: Any) -> str:
    said = StringIO()
    Command(stdout=said).handle(**options)
    return said.getvalue()


def test_the_command_shows_what_each_process_has_and_does(database: Database) -> None:
    alias = database({"max_size": 3})
    with transaction.atomic(using=alias):
        ask(alias, "SELECT 'a secret'")  # taken here
        text = shown(database=alias)
    assert f"{alias}: app@127.0.0.1:" in text
    assert "each process: 0 to 3 connections" in text
    assert "of this project: 1 connection of 1 process" in text
    assert f"process {os.getpid()} on " in text
    assert ": 1 idle in transaction\n" in text
    assert "after SELECT '...'" in text
    assert "a secret" not in text
    assert f"1 held by {__file__}:" in text


@pytest.mark.parametrize(
    ("vendor", "statement"),
    [
        ("postgresql", "SELECT 'it''s secret', 'C:\\', 'secret' FROM t WHERE a = E'\\'secret\\\\'"),
        ("mysql", "SELECT 'it\\'s secret', \"a \\\"secret\\\"\", 'secret' FROM t WHERE a = 'secret\\\\'"),
    ],
)
def test_texts_in_statements_are_not_shown(vendor: str, statement: str) -> None:
    shown = "SELECT '...', '...', '...' FROM t WHERE a = '...'"
    assert held._shown(statement, vendor) == shown
    assert held._shown(statement[:-2], vendor) == shown


def test_the_command_tells_a_role_that_may_see_nothing_that_there_are_others(
    database: Database, postgres: EmbeddedPostgres
) -> None:
    with postgres.admin():
        text = shown(database=database())
    assert "postgres (no name)" in text
    assert "not shown to this role" in text


def test_the_command_says_so_when_the_server_cannot_be_asked(database: Database) -> None:
    alias = database(HOST="127.0.0.1", PORT="1")
    complaint = StringIO()
    with pytest.raises(CommandError, match=f"of {alias} nothing is known"):
        Command(stderr=complaint).handle(database=alias)
    assert "refused" in complaint.getvalue()


def test_the_command_names_what_has_a_pool(database: Database) -> None:
    alias = database()
    with pytest.raises(CommandError, match=f"these have it: {alias}"):
        shown(database="nowhere")


def test_the_server_knows_the_process_unless_it_is_named_otherwise(database: Database) -> None:
    alias = database()
    assert ask(alias, "SHOW application_name") == connection_name(alias)
    assert str(os.getpid()) in connection_name(alias)
    named = database(options={"application_name": "mine"})
    assert ask(named, "SHOW application_name") == "mine"


def test_holders_are_told_in_the_process_itself(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """For a page of one's own: `pools()`."""
    caplog.set_level(logging.CRITICAL)
    alias = database()
    with closing(connections[alias].cursor()) as cursor:
        cursor.execute("SELECT 1")
        [holder] = pools()[alias].holders()
    assert holder.site.file == __file__
    assert holder.statement == "SELECT 1"
