"""A process that is frozen between two events holds nothing that others need, and trusts nothing that it has held."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
from bench.environments import WORK, Context, Platform

from penstock import AsyncPool, Overloaded, Pool, PoolClosed
from penstock.drill.postgres import EmbeddedPostgres
from penstock.drill.proxy import ChaosProxy
from penstock.drivers.full import is_full
from penstock.integrations import aws_lambda
from penstock.integrations.aws_lambda import shutdown
from support.mariadb import MariaDB
from support.pgbouncer import PgBouncer
from support.waiting import aside, eventually
from support.web import ROOT, left

WHO = "SELECT pg_backend_pid()"


class Server:
    """What the server knows of its ordinary role."""

    def __init__(self, postgres: EmbeddedPostgres, admin: psycopg.Connection[Any]) -> None:
        self.dsn = postgres.dsn
        self.admin = admin

    def states(self) -> list[str]:
        rows = self.admin.execute("SELECT state FROM pg_stat_activity WHERE usename = 'app'").fetchall()
        return [state for (state,) in rows]

    @property
    def connections(self) -> int:
        return len(self.states())

    def limit(self, **settings: str) -> None:
        for name, value in settings.items():
            self.admin.execute(f"ALTER ROLE app SET {name} = '{value}'")


@pytest.fixture
def server(postgres: EmbeddedPostgres) -> Iterator[Server]:
    """With eight connections for the ordinary role."""
    with postgres.admin() as admin:
        one = Server(postgres, admin)
        eventually(lambda: one.connections == 0)  # of tests before
        admin.execute("ALTER ROLE app CONNECTION LIMIT 8")
        yield one
        admin.execute("ALTER ROLE app CONNECTION LIMIT -1")
        admin.execute("ALTER ROLE app RESET ALL")


@pytest.fixture
def small(server: Server) -> Iterator[Pool[Any]]:
    with Pool[Any](server.dsn, min_size=0, max_size=1, name="small") as pool:
        yield pool


@pytest.fixture
def tasks(server: Server) -> Iterator[AsyncPool[Any]]:
    """One for tasks, in whatever event loop it is opened."""
    pool = AsyncPool[Any](server.dsn, min_size=0, max_size=1, open=False)
    yield pool
    if pool._loop is not None and not pool._loop.is_closed():
        pool._loop.run_until_complete(pool.close())
        pool._loop.close()


@pytest.fixture(autouse=True)
def _same_sigterm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def asks(pool: Pool[Any], **options: Any) -> Callable[..., int]:
    """A handler that tells by which process of the server's it was served."""

    @aws_lambda.handler(pool, **options)
    def handler(event: Any = None, context: Any = None) -> int:
        with pool.connection() as conn:
            pid: int = conn.execute(WHO).fetchone()[0]
            return pid

    return handler


# ------------------------------------------------------------------------------------------ frozen and thawed


def test_twenty_processes_that_come_and_go_share_eight_connections(server: Server) -> None:
    """All at once when cold, all at once after a freeze past the server's timeouts, then some of them."""
    server.limit(idle_session_timeout="1s", idle_in_transaction_session_timeout="1s")
    with Platform("penstock", server.dsn, 20) as platform:
        for some in (platform.environments, platform.environments, platform.environments[5:15]):
            answers = platform.invoke(WORK, 20.0, some)
            assert [answer.error for answer in answers if answer.error] == []
            assert server.connections <= 4, "frozen processes hold more than half of the line"
            eventually(lambda: server.connections == 0, 10)  # the server has ended what they held


def test_what_frozen_processes_hold_is_there_when_they_thaw(server: Server) -> None:
    """Those that may keep theirs do, and need not connect again."""
    with Platform("penstock", server.dsn, 3) as platform:
        before = {answer.result for answer in platform.invoke(WORK, 20.0)}
        assert {answer.result for answer in platform.invoke(WORK, 20.0)} == before


def test_a_connection_that_was_kept_is_ended_by_the_server_after_a_while(server: Server) -> None:
    with Pool[Any](server.dsn, min_size=0, max_size=1, open=True) as pool:
        handler = asks(pool, keep_for=0.5)
        first = handler()
        assert server.connections == 1
        eventually(lambda: server.connections == 0, 10)
        assert handler() != first


def test_the_server_s_own_limit_of_idling_is_left_as_it_is(server: Server, small: Pool[Any]) -> None:
    server.limit(idle_session_timeout="42s")

    @aws_lambda.handler(small)
    def handler() -> str:
        with small.connection() as conn:
            return str(conn.execute("SHOW idle_session_timeout").fetchone()[0])

    assert [handler(), handler()] == ["42s", "42s"]


def test_a_connection_that_the_network_has_forgotten_is_found_out_within_its_half_second(
    dsn: str, proxy: ChaosProxy
) -> None:
    with Pool[Any](proxy.through(dsn), min_size=0, max_size=1, open=True) as pool:
        handler = asks(pool, keep=1, check_after=0)
        first = handler()
        assert handler() == first
        proxy.forget()
        began = time.monotonic()
        assert handler() != first
        assert time.monotonic() - began < 5  # and not the quarter of an hour after which TCP gives up
        assert pool.snapshot().lost == 1


def test_without_a_pause_nothing_is_asked(dsn: str) -> None:
    """Events that follow each other closely cost no round trip for the check: the kernel's word is enough."""
    with Pool[Any](dsn, min_size=0, max_size=1, open=True) as pool:
        handler = asks(pool, keep=1, check_after=60)
        doubts = []
        doubt, pool._doubt = pool._doubt, doubts.append  # type: ignore[method-assign,assignment]
        handler()
        assert doubts == [0.5]  # how long it was frozen before its first event nobody knows
        handler()
        assert doubts == [0.5]
        pool._doubt = doubt  # type: ignore[method-assign]


# ------------------------------------------------------------------------------------------ what is given back


@pytest.mark.parametrize(("keep", "kept"), [(0, 0), (0.13, 1), (0.12, 0), (1, 1)])
def test_as_much_is_kept_as_was_said(server: Server, small: Pool[Any], keep: float, kept: int) -> None:
    """Of the role's eight connections one is 0.125."""
    asks(small, keep=keep)()
    assert server.connections == kept


def test_an_open_transaction_is_rolled_back_and_not_frozen(server: Server, small: Pool[Any]) -> None:
    held = []

    @aws_lambda.handler(small)
    def handler() -> None:
        held.append(small.getconn())
        held[0].execute("CREATE TABLE lambda_frozen ()")

    with pytest.warns(ResourceWarning, match="its holder ended without returning it"):
        handler()
    eventually(lambda: server.connections == 0)  # at once, but for what the server takes to roll back
    assert server.admin.execute("SELECT to_regclass('lambda_frozen')").fetchone() == (None,)


def test_what_was_raised_is_raised_and_the_connection_given_back(server: Server, small: Pool[Any]) -> None:
    @aws_lambda.handler(small, keep=0)
    def handler() -> None:
        with small.connection() as conn:
            conn.execute("SELECT 1")
            raise LookupError("no such order")

    with pytest.raises(LookupError, match="no such order"):
        handler()
    assert server.connections == 0


def test_a_connection_that_is_being_opened_is_not_frozen_in_its_login(dsn: str, proxy: ChaosProxy) -> None:
    proxy.delay(0.02)
    with Pool[Any](proxy.through(dsn), min_size=0, max_size=1, open=True) as pool:

        @aws_lambda.handler(pool, keep=0)
        def handler() -> None:
            with pytest.raises(Overloaded), pool.connection(deadline=0.01):
                pass

        handler()
        assert not pool._core.slots


def test_an_event_that_ends_leaves_another_s_connection_alone(server: Server) -> None:
    with Pool[Any](server.dsn, min_size=0, max_size=2, open=True) as pool:
        environment = aws_lambda.Environment(pool, keep=0)
        held, go_on = threading.Event(), threading.Event()

        def long_one() -> int:
            with environment.invocation(), pool.connection() as conn:
                held.set()
                go_on.wait(10)
                return int(conn.execute(WHO).fetchone()[0])

        long = aside(long_one)
        assert held.wait(10)
        with environment.invocation(), pool.connection() as conn:
            conn.execute(WHO)
        go_on.set()
        assert long.result(10)
        assert server.connections == 0


def test_of_two_events_that_end_at_once_one_is_the_last(server: Server) -> None:
    with Pool[Any](server.dsn, min_size=0, max_size=2, open=True) as pool:
        environment = aws_lambda.Environment(pool, keep=0)
        both, rest = threading.Barrier(2), environment._rest

        async def rest_together(*what: Any) -> None:
            both.wait(10)
            await rest(*what)

        environment._rest = rest_together  # type: ignore[method-assign]

        def event() -> None:
            with environment.invocation(), pool.connection() as conn:
                both.wait(10)
                conn.execute(WHO)

        for one in [aside(event), aside(event)]:
            one.result(10)
        eventually(lambda: server.connections == 0)
        assert not pool._core.slots


def test_an_event_that_cannot_begin_is_not_under_way(dsn: str) -> None:
    pool = Pool[Any](dsn, min_size=0, max_size=1, open=True)
    environment = aws_lambda.Environment(pool)
    pool.close()
    with pytest.raises(PoolClosed), environment.invocation():
        pass
    assert environment._running == 0


def test_an_event_that_is_cancelled_in_its_end_is_over(server: Server, tasks: AsyncPool[Any]) -> None:
    async def main() -> None:
        await tasks.open()
        environment = aws_lambda.Environment(tasks)
        ending = asyncio.Event()

        async def rest(*_: Any) -> None:
            ending.set()
            await asyncio.Event().wait()

        environment._rest = rest  # type: ignore[method-assign]

        async def event() -> None:
            async with environment.invocation():
                pass

        task = asyncio.create_task(event())
        await ending.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert environment._running == 0
        await tasks.close()

    asyncio.run(main())


def test_behind_a_pooler_a_connection_is_kept_and_nobody_else_s_session_changed(postgres: EmbeddedPostgres) -> None:
    with (
        PgBouncer(postgres, prepares=True, default_pool_size=1) as bouncer,
        Pool[Any](bouncer.dsn, min_size=0, max_size=1, open=True) as pool,
    ):
        asks(pool)()
        assert len(pool._core.idle) == 1
        with psycopg.connect(bouncer.dsn) as other:
            assert other.execute("SHOW idle_session_timeout").fetchone() == ("0",)


def test_mysql_is_asked_too(mariadb: MariaDB) -> None:
    with Pool[Any](mariadb.dsn, driver="pymysql", min_size=0, max_size=1, open=True) as pool:
        for keep, kept in ((0.9, 1), (0.001, 0)):
            environment = aws_lambda.Environment(pool, keep=keep, keep_for=17)
            with environment.invocation(), pool.connection() as conn, conn.cursor() as cursor:
                cursor.execute("SELECT 1")
            assert len(pool._core.idle) == kept
            if kept:
                with pool.connection() as conn, conn.cursor() as cursor:
                    cursor.execute("SELECT @@wait_timeout")
                    assert cursor.fetchone() == (17,)
            aws_lambda.environment._taken.discard(pool)


def test_a_server_that_cannot_be_asked_is_said_once_and_nothing_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    file = "file:lambda?mode=memory&cache=shared"
    with Pool[Any](file, driver="sqlite3", min_size=0, max_size=1, name="file") as pool:

        @aws_lambda.handler(pool)
        def handler() -> None:
            with pool.connection() as conn:
                conn.execute("SELECT 1")

        handler()
        handler()
        assert not pool._core.idle
    assert [record.getMessage()[:60] for record in caplog.records if record.name == "penstock.lambda"] == [
        "file: how full the server's line is cannot be asked, so each"
    ]


# ------------------------------------------------------------------------------------------ a full server


def test_a_full_server_is_waited_for(server: Server, small: Pool[Any]) -> None:
    handler = asks(small)
    others = [psycopg.connect(server.dsn) for _ in range(8)]
    answer = aside(lambda: handler(None, Context(20)))
    eventually(lambda: small.snapshot().last_error)
    others[0].close()
    assert answer.result(10)
    assert small.snapshot().last_error is None
    for other in others:
        other.close()


def test_who_waits_in_vain_is_told_why_before_the_platform_ends_it(server: Server, small: Pool[Any]) -> None:
    handler = asks(small)
    others = [psycopg.connect(server.dsn) for _ in range(8)]
    context = Context(1.0)
    with pytest.raises(Overloaded, match='too many connections for role "app"'):
        handler(None, context)
    assert context.get_remaining_time_in_millis() > 0
    for other in others:
        other.close()


def test_a_server_that_is_down_is_not_waited_for(small: Pool[Any]) -> None:
    small.conninfo = "host=127.0.0.1 port=1 user=app dbname=postgres"
    began = time.monotonic()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        asks(small)(None, Context(60))
    assert time.monotonic() - began < 10


def test_mysql_says_in_its_own_words_that_it_is_full(mariadb: MariaDB) -> None:
    with mariadb.admin() as admin, admin.cursor() as cursor:
        cursor.execute("CREATE USER lambda_one IDENTIFIED BY 'x' WITH MAX_USER_CONNECTIONS 1")
    where = {"host": mariadb.host, "port": mariadb.port, "user": "lambda_one"}
    first = pymysql.connect(**where, password="x")
    with pytest.raises(pymysql.err.OperationalError) as refused:
        pymysql.connect(**where, password="x")
    assert is_full(refused.value)
    with pytest.raises(pymysql.err.OperationalError) as denied:
        pymysql.connect(**where, password="y")
    assert not is_full(denied.value)
    first.close()


# ------------------------------------------------------------------------------------------ the handler


def test_a_deadline_is_declared_a_little_before_the_platform_s(small: Pool[Any]) -> None:
    @aws_lambda.handler(small, timeout=8)
    def handler(event: Any, context: Any) -> float | None:
        return left()

    told = handler(None, Context(3))
    assert told is not None
    assert 2.5 < told <= 2.75
    untold = handler(None, None)
    assert untold is not None
    assert 7.5 < untold <= 7.75
    assert left() is None


def test_a_coroutine_s_event_loop_and_connection_are_kept(server: Server, tasks: AsyncPool[Any]) -> None:
    @aws_lambda.handler(tasks)
    async def handler(event: Any, context: Any) -> int:
        async with tasks.connection() as conn:
            cursor = await conn.execute(WHO)
            return int((await cursor.fetchone())[0])

    def here() -> set[int]:
        return {handler(None, Context(10)) for _ in range(3)}

    assert len(here()) == 1
    assert server.connections == 1


def test_in_a_running_event_loop_it_is_awaited(server: Server, tasks: AsyncPool[Any]) -> None:
    @aws_lambda.handler(tasks, keep=0)
    async def handler(event: Any) -> int:
        async with tasks.connection() as conn:
            return int((await (await conn.execute(WHO)).fetchone())[0])

    async def platform() -> None:
        assert await handler(None)
        assert server.connections == 0

    asyncio.run(platform())


def test_a_function_that_runs_the_event_loop_itself_gives_back_too(server: Server, tasks: AsyncPool[Any]) -> None:
    """As Mangum does for an ASGI application."""
    loop = asyncio.new_event_loop()

    async def application() -> int:
        await tasks.open()
        async with tasks.connection() as conn:
            return int((await (await conn.execute(WHO)).fetchone())[0])

    handler = aws_lambda.handler(tasks, keep=0)(lambda event: loop.run_until_complete(application()))
    assert handler(None) != handler(None)
    assert server.connections == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_size": 1}, "min_size is 1, and must be 0 here"),
        ({"keep": 1.5}, "keep must be a share of the line, from 0"),
        ({"keep": True}, "keep must be a number from 0 to 1, not True"),
        ({"keep_for": -1}, "keep_for must be 0 seconds or more"),
        ({"timeout": "5"}, "timeout must be a number of seconds"),
    ],
)
def test_what_cannot_be_is_named(arguments: dict[str, Any], message: str) -> None:
    pool = Pool[Any]("", min_size=arguments.pop("min_size", 0), max_size=1, open=False)
    with pytest.raises((ValueError, TypeError), match=message):
        aws_lambda.handler(pool, **arguments)


def test_no_pool_a_strange_one_and_one_that_has_a_handler_already(small: Pool[Any]) -> None:
    with pytest.raises(TypeError, match="a pool is needed"):
        aws_lambda.handler()
    with pytest.raises(TypeError, match="pools must be penstock's, as in handler\\(pool\\), and not a str"):
        aws_lambda.handler("pool")  # type: ignore[arg-type]
    aws_lambda.handler(small)
    with pytest.raises(ValueError, match="small: this pool has a handler already"):
        aws_lambda.handler(small)


# ------------------------------------------------------------------------------------------ the last signal

SHUT_DOWN = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: print("heard", flush=True))
from penstock import Pool
from penstock.integrations import aws_lambda
pool = Pool(os.environ["DSN"], min_size=0, max_size=1, open=True)

@aws_lambda.handler(pool, keep=1)
def handler(event, context):
    with pool.connection() as conn:
        conn.execute("SELECT 1")

handler(None, None)
os.kill(os.getpid(), signal.SIGTERM)
print("closed" if pool.closed else "open", flush=True)
sys.stdin.read()
"""


def test_at_sigterm_connections_are_closed_and_whoever_else_listens_is_told(server: Server) -> None:
    command = [sys.executable, "-c", SHUT_DOWN]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env={**os.environ, "DSN": server.dsn}, cwd=ROOT, text=True, **pipes) as process:
        assert process.stdout is not None
        assert [process.stdout.readline(), process.stdout.readline()] == ["heard\n", "closed\n"]
        assert server.connections == 0  # while it lives
        process.communicate()


def test_at_sigterm_a_process_ends_as_it_would_have(server: Server) -> None:
    with Platform("penstock", server.dsn, 1) as platform:
        [one] = platform.environments
        platform.invoke(WORK, 20.0)
        assert server.connections == 1
        os.kill(one.pid, signal.SIGCONT)
        eventually(lambda: _sleeps(one.pid))  # or the kernel may give the signal to a thread that has no use for it
        os.kill(one.pid, signal.SIGTERM)
        assert one.lines.readline() == ""  # it has ended
        eventually(lambda: server.connections == 0)


def _sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def test_at_sigterm_the_event_loop_that_is_interrupted_is_not_waited_for(tasks: AsyncPool[Any]) -> None:
    heard: list[float] = []
    signal.signal(signal.SIGTERM, lambda *_: heard.append(time.monotonic()))

    async def main() -> None:
        await tasks.open()
        aws_lambda.Environment(tasks)
        began = time.monotonic()
        signal.raise_signal(signal.SIGTERM)
        assert heard[0] - began < shutdown.SECONDS
        await tasks.close()

    asyncio.run(main())
