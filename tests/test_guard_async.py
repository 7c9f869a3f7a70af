"""An unmodified asyncio program's connections, held: no more than there may be, and each as a fresh one would be."""

import asyncio
import gc
import os
import random
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import psycopg
import pytest

from penstock import errors
from penstock.drill.postgres import EmbeddedPostgres
from penstock.guard.holding import pools
from penstock.guard.requests import Request, begin, leave
from support.guard_async import (
    Program,
    admitted,
    arguments,
    held_aiomysql,
    held_asyncpg,
    held_psycopg,
    opened,
    out,
    own_lines,
)
from support.waiting import eventually, soon

SRC = Path(__file__).parents[1] / "src"
PENSTOCK = Path(sys.executable).with_name("penstock")
MAX = 3


@pytest.fixture(params=["asyncpg", "psycopg", "aiomysql"])
def program(request: pytest.FixtureRequest) -> Iterator[Program]:
    held: Any = {"asyncpg": held_asyncpg, "psycopg": held_psycopg, "aiomysql": held_aiomysql}[request.param]
    server = request.getfixturevalue("mariadb" if request.param == "aiomysql" else "postgres")
    with own_lines(), held(server.dsn, MAX) as program:
        program.count = (lambda: len(server.threads())) if request.param == "aiomysql" else lambda: sessions(server)
        yield program


@pytest.fixture(params=[held_asyncpg, held_psycopg], ids=["asyncpg", "psycopg"])
def on_postgres(request: pytest.FixtureRequest, dsn: str) -> Iterator[Program]:
    with own_lines(), request.param(dsn, 1) as program:
        yield program


@pytest.fixture
def apg(dsn: str) -> Iterator[Program]:
    with own_lines(), held_asyncpg(dsn, MAX) as program:
        yield program


def sessions(postgres: EmbeddedPostgres) -> int:
    with psycopg.connect(postgres.admin_dsn, autocommit=True) as admin:
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename <> current_user"
        )
        return int(admin.execute(query).fetchone()[0])  # type: ignore[index]


def drop(box: list[Any]) -> None:
    box.clear()
    gc.collect()


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(bounded())


# ---------------------------------------------------------------------------------------------- how many


def test_ways_to_connect_that_were_used_once_are_forgotten(on_postgres: Program, monkeypatch: Any) -> None:
    monkeypatch.setattr(pools, "_POOLS", 3)
    monkeypatch.setattr(pools, "_JUST_NOW", 0.0)

    async def scenario() -> None:
        for number in range(10):
            name = f"job-{number}"
            named = {"application_name": name} if on_postgres.name == "psycopg" else {"server_settings": {"jit": "off"}}
            conn = await on_postgres.connect(**named, **({} if "jit" not in str(named) else {"timeout": 20 + number}))
            assert await on_postgres.value(conn, "SELECT 1") == 1
            await on_postgres.close(conn)
        (database,) = pools._databases.values()
        assert 1 <= len(database.pools) <= 4  # the newest, and those that have a connection still

    run(scenario)


def test_a_password_that_a_function_gives_is_said_and_not_held(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    password = arguments(dsn)["password"]

    async def scenario() -> None:
        conn = await apg.connect(password=lambda: password)
        assert type(conn) is asyncpg.Connection
        await conn.close()
        assert not pools._databases

    with own_lines(), held_asyncpg(dsn, 1) as apg, caplog.at_level("INFO", "penstock.guard"):
        run(scenario)
    assert "whose password is asked for" in caplog.text


def test_more_tasks_than_connections_take_turns(program: Program) -> None:
    async def scenario() -> None:
        most = 0

        async def once() -> Any:
            nonlocal most
            conn = await program.connect()
            try:
                most = max(most, opened())
                return await program.value(conn, program.pid)
            finally:
                await program.close(conn)

        pids = set(await asyncio.gather(*[once() for _ in range(40)]))
        assert most <= MAX
        assert 1 <= len(pids) <= MAX

    run(scenario)


def test_connections_that_are_kept_and_idle_keep_nobody_waiting(program: Program) -> None:
    async def scenario() -> None:
        kept = [await program.connect() for _ in range(4 * MAX)]
        for _ in range(2):
            for conn in kept:
                assert await program.value(conn, "SELECT 1") == 1
        assert await asyncio.gather(*[program.value(conn, "SELECT 1") for conn in kept]) == [1] * len(kept)
        assert not any(map(program.is_closed, kept))
        assert opened() <= MAX
        for conn in kept:
            await program.close(conn)
        assert out() == 0

    run(scenario)


def test_who_waits_in_vain_hears_who_holds(on_postgres: Program) -> None:
    async def scenario() -> None:
        conn = await on_postgres.connect()
        await on_postgres.execute(conn, "BEGIN")
        wait = {"connect_timeout": 1} if on_postgres.name == "psycopg" else {"timeout": 1}
        other = asyncio.create_task(on_postgres.connect(**wait))
        with pytest.raises(errors.PoolTimeout, match=r"--max 1.*\n.*1 held by .*test_guard_async") as caught:
            await other
        assert isinstance(caught.value, TimeoutError if on_postgres.name == "asyncpg" else psycopg.OperationalError)
        await on_postgres.close(conn)

    run(scenario)


def test_a_database_that_is_not_there_is_reported_as_the_driver_does(apg: Program) -> None:
    async def scenario() -> None:
        with pytest.raises(asyncpg.InvalidCatalogNameError):
            await apg.connect(database="nowhere")
        with pytest.raises(TypeError, match="unknown"):
            await apg.connect(unknown=1)

    run(scenario)


# ---------------------------------------------------------------------------------------------- what is left behind

LEFT = {
    "setting": ("SET application_name = 'left'", "SELECT current_setting('application_name') <> 'left'"),
    "temporary table": ("CREATE TEMP TABLE guard_left (a int)", "SELECT to_regclass('pg_temp.guard_left') IS NULL"),
    "advisory lock": (
        "SELECT pg_advisory_lock(7501)",
        "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 7501)",
    ),
    "transaction": ("BEGIN; CREATE TABLE guard_open (a int)", "SELECT to_regclass('guard_open') IS NULL"),
    "failed transaction": ("BEGIN", "SELECT true"),
    "role": ("SET ROLE pg_read_all_data", "SELECT current_role = session_user"),
    "listen": ("LISTEN guard_left", "SELECT NOT EXISTS (SELECT FROM pg_listening_channels())"),
    "prepared": (
        "PREPARE guard_left AS SELECT 1",
        "SELECT NOT EXISTS (SELECT FROM pg_prepared_statements WHERE name = 'guard_left')",
    ),
    "cursor": (
        "DECLARE guard_left CURSOR WITH HOLD FOR SELECT 1",
        "SELECT NOT EXISTS (SELECT FROM pg_cursors WHERE name = 'guard_left')",
    ),
}


@pytest.mark.parametrize("drops", [False, True], ids=["closed", "dropped"])
@pytest.mark.parametrize("left", LEFT)
def test_what_one_user_leaves_behind_the_next_does_not_see(on_postgres: Program, left: str, drops: bool) -> None:
    leave_behind, is_gone = LEFT[left]

    async def scenario() -> None:
        conn = await on_postgres.connect()
        with suppress(psycopg.errors.InsufficientPrivilege, asyncpg.InsufficientPrivilegeError):
            await on_postgres.execute(conn, leave_behind)
        if left == "failed transaction":
            with suppress(psycopg.Error, asyncpg.PostgresError):
                await on_postgres.execute(conn, "SELECT 1 / 0")
        if drops:
            await asyncio.sleep(0)  # until then the event loop refers to the error, and that to everything
            box = [conn]
            del conn
            with pytest.warns(ResourceWarning):
                drop(box)
        else:
            await on_postgres.close(conn)
        conn = await on_postgres.connect()
        assert await on_postgres.value(conn, is_gone) is True
        await on_postgres.close(conn)

    run(scenario)


def test_a_type_codec_is_its_users_alone(dsn: str) -> None:
    async def scenario() -> None:
        conn = await program.connect()
        await conn.set_type_codec("int4", schema="pg_catalog", encoder=str, decoder=lambda text: f"<{text}>")
        assert await conn.fetchval("SELECT 1") == "<1>"
        await conn.close()
        conn = await program.connect()
        assert await conn.fetchval("SELECT 1") == 1
        await conn.close()

    with own_lines(), held_asyncpg(dsn, 1) as program:
        run(scenario)


def test_notifications_reach_who_listens_and_nobody_after(dsn: str) -> None:
    async def scenario() -> None:
        heard: list[Any] = []
        conn = await program.connect()
        await conn.add_listener("guard_heard", lambda *given: heard.append(given))
        await conn.execute("NOTIFY guard_heard, 'one'")
        await soon(lambda: heard)
        assert heard[0][0] is conn
        await conn.close()
        other = await program.connect()
        await other.execute("NOTIFY guard_heard, 'two'")
        await other.fetchval("SELECT 1")
        assert len(heard) == 1
        await other.close()

    with own_lines(), held_asyncpg(dsn, 1) as program:
        run(scenario)


def test_attributes_and_factories_are_their_connections_own(dsn: str) -> None:
    async def scenario() -> None:
        one = await program.connect(row_factory=psycopg.rows.dict_row, autocommit=False)
        other = await program.connect()
        cursor = await one.execute("SELECT 1 AS a")
        assert await cursor.fetchone() == {"a": 1}
        assert one.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
        await one.rollback()
        cursor = await other.execute("SELECT 1 AS a")
        assert await cursor.fetchone() == (1,)
        assert other.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert await (await one.execute("SELECT 2 AS a")).fetchone() == {"a": 2}
        await one.close()
        await other.close()

    with own_lines(), held_psycopg(dsn, 1) as program:
        run(scenario)


def test_a_mysql_session_is_as_a_fresh_one(mariadb: Any) -> None:
    async def scenario() -> None:
        conn = await program.connect()
        await program.execute(conn, "SET @left = 5, sql_mode = 'ANSI'")
        await program.execute(conn, "CREATE TEMPORARY TABLE guard_left (a int)")
        await program.execute(conn, "SELECT GET_LOCK('guard_left', 1)")
        await conn.autocommit(False)
        await conn.begin()
        conn.close()
        conn = await program.connect()
        assert await program.value(conn, "SELECT @left IS NULL AND @@sql_mode <> 'ANSI' AND @@autocommit") == 1
        assert await program.value(conn, "SELECT IS_FREE_LOCK('guard_left')") == 1
        await program.execute(conn, "CREATE TEMPORARY TABLE guard_left (a int)")
        await conn.ensure_closed()

    with own_lines(), held_aiomysql(mariadb.dsn, 1) as program:
        run(scenario)


# ---------------------------------------------------------------------------------------------- the end of one


def test_a_closed_connection_stays_closed(program: Program) -> None:
    async def scenario() -> None:
        conn = await program.connect()
        await program.close(conn)
        other = await program.connect()
        assert program.is_closed(conn)
        with pytest.raises(program.closed, match=r"closed|Not connected"):
            await program.value(conn, "SELECT 1")
        await program.close(conn)
        assert await program.value(other, "SELECT 1") == 1
        await program.close(other)

    run(scenario)


def test_what_was_made_with_a_connection_ends_with_it(apg: Program) -> None:
    async def scenario() -> None:
        conn = await apg.connect()
        statement = await conn.prepare("SELECT 1")
        transaction = conn.transaction()
        await transaction.start()
        cursor = await conn.cursor("SELECT generate_series(1, 9)")
        await conn.close()
        for use in (statement.fetchval, transaction.commit, lambda: cursor.fetch(1)):
            with pytest.raises(asyncpg.InterfaceError):
                await use()
        assert out() == 0

    run(scenario)


def test_a_statements_name_is_free_for_the_next_user(dsn: str) -> None:
    async def scenario() -> None:
        for number in range(3):
            conn = await apg.connect()
            statement = await conn.prepare(f"SELECT {number}", name="mine")
            assert await statement.fetchval() == number
            await conn.close()

    with own_lines(), held_asyncpg(dsn, 1) as apg:
        run(scenario)


def test_what_is_dropped_in_a_circle_of_references_keeps_nobody_waiting(dsn: str) -> None:
    async def forgets() -> None:
        conn = await apg.connect(timeout=10)
        await conn.transaction().start()  # which it refers to, and is referred to by

    async def scenario() -> None:
        for _ in range(2):
            await asyncio.create_task(forgets())

    gc.disable()
    try:
        with own_lines(), held_asyncpg(dsn, 1) as apg, pytest.warns(ResourceWarning):
            run(scenario)
    finally:
        gc.enable()


def test_a_task_that_has_dropped_one_in_a_circle_waits_for_nothing_of_its_own(dsn: str) -> None:
    async def scenario() -> None:
        for _ in range(2):
            conn = await apg.connect(timeout=10)
            await conn.transaction().start()
            del conn

    gc.disable()
    try:
        with own_lines(), held_asyncpg(dsn, 1) as apg, pytest.warns(ResourceWarning):
            run(scenario)
    finally:
        gc.enable()


def test_who_waits_gets_what_its_holder_needs_no_more_without_a_word_of_his(on_postgres: Program) -> None:
    async def scenario() -> None:
        kept = await on_postgres.connect()
        handle = kept._handle
        handle.pinned += 1
        wait = {"connect_timeout": 5} if on_postgres.name == "psycopg" else {"timeout": 5}
        other = asyncio.create_task(on_postgres.connect(**wait))
        await soon(lambda: handle.pool.database.waited_for)
        handle.pinned -= 1  # as when a result was read to its end, of which nobody tells
        await on_postgres.close(await other)
        await on_postgres.close(kept)

    run(scenario)


def test_a_dropped_connection_is_given_back(program: Program) -> None:
    async def scenario() -> None:
        for _ in range(3 * MAX):
            box = [await program.connect()]
            assert await program.value(box[0], "SELECT 1") == 1
            with pytest.warns(ResourceWarning, match=r"(?i)unclosed|still open"):
                drop(box)
        await soon(lambda: out() == 0)
        assert opened() <= MAX

    run(scenario)


def test_a_connection_that_the_server_ends_is_closed_and_the_next_is_not(
    apg: Program, postgres: EmbeddedPostgres
) -> None:
    async def scenario() -> None:
        conn, other = await apg.connect(), await apg.connect()
        pid = await conn.fetchval("SELECT pg_backend_pid()")
        with psycopg.connect(postgres.admin_dsn, autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s)", [pid])
        with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.AdminShutdownError)):
            await conn.fetchval("SELECT 1")
        await soon(conn.is_closed)
        assert await other.fetchval("SELECT 1") == 1
        await other.close()
        await conn.close()
        await soon(lambda: out() == 0)

    run(scenario)


def test_terminate_ends_it_at_once(apg: Program) -> None:
    async def scenario() -> None:
        conn = await apg.connect()
        await conn.execute("BEGIN")
        conn.terminate()
        assert conn.is_closed()
        await soon(lambda: opened() == 0)
        conn = await apg.connect()
        assert await conn.fetchval("SELECT 1") == 1
        await conn.close()

    run(scenario)


def test_cancelled_anywhere_nothing_is_lost(program: Program) -> None:
    async def scenario() -> None:
        chance = random.Random(8)

        async def work() -> None:
            conn = await program.connect()
            try:
                await program.execute(conn, "BEGIN")
                await program.value(conn, "SELECT 1")
            finally:
                await program.close(conn)

        for _ in range(15):
            tasks = [asyncio.create_task(work()) for _ in range(8)]
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
            for task in chance.sample(tasks, 4):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert opened() <= MAX
        await soon(lambda: out() == 0)
        conn = await program.connect()
        assert await program.value(conn, "SELECT 1") == 1
        await program.close(conn)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # who is cancelled while connecting has nothing to close
        run(scenario)


# ---------------------------------------------------------------------------------------------- requests


async def in_request(work: Coroutine[Any, Any, Any]) -> Any:
    """*work* done for a web request, which then ends."""
    request = Request(lambda: "GET /")
    token = begin(request)
    try:
        return await work
    finally:
        leave(token)
        request.end()


def test_a_transaction_left_open_ends_with_its_request(on_postgres: Program) -> None:
    kept: list[Any] = []

    async def leaks() -> None:
        conn = await on_postgres.connect()
        kept.append(conn)
        await on_postgres.execute(conn, "BEGIN; CREATE TABLE guard_request (a int)")

    async def scenario() -> None:
        await in_request(leaks())
        other = await on_postgres.connect()
        assert await on_postgres.value(other, "SELECT to_regclass('guard_request') IS NULL") is True
        error = asyncpg.PostgresConnectionError if on_postgres.name == "asyncpg" else psycopg.OperationalError
        with pytest.raises(error, match="the request that opened it has ended"):
            await on_postgres.value(kept[0], "SELECT 1")
        await on_postgres.close(other)
        await on_postgres.close(kept[0])

    run(scenario)


def test_a_connection_that_is_kept_for_the_next_request_serves_it(program: Program) -> None:
    kept: list[Any] = []

    async def keeps() -> None:
        kept.append(await program.connect())
        await program.value(kept[0], "SELECT 1")

    async def uses() -> Any:
        return await program.value(kept[0], "SELECT 2")

    async def scenario() -> None:
        await in_request(keeps())
        async with asyncio.timeout(20):
            while out():  # until its session has been reset
                await asyncio.sleep(0.001)
        assert await in_request(uses()) == 2
        await program.close(kept[0])

    run(scenario)


def test_work_that_outlives_its_request_keeps_its_connection(on_postgres: Program) -> None:
    go_on = asyncio.Event()

    async def background() -> Any:
        conn = await on_postgres.connect()
        await on_postgres.execute(conn, "BEGIN")
        await on_postgres.execute(conn, "CREATE TEMP TABLE guard_background (a int)")
        began.set()
        await go_on.wait()
        try:
            return await on_postgres.value(conn, "SELECT count(*) FROM guard_background")
        finally:
            await on_postgres.close(conn)

    async def starts() -> Any:
        task = asyncio.create_task(background())
        await began.wait()
        return task

    async def scenario() -> None:
        task = await in_request(starts())
        go_on.set()
        assert await task == 0

    began = asyncio.Event()
    run(scenario)


def test_a_connection_of_two_requests_is_not_taken_from_the_second(on_postgres: Program) -> None:
    shared: list[Any] = []
    second_is_in, first_is_over = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        shared.append(await on_postgres.connect())
        await second_is_in.wait()

    async def second() -> Any:
        await on_postgres.execute(shared[0], "BEGIN")
        await on_postgres.execute(shared[0], "CREATE TEMP TABLE guard_second (a int)")
        second_is_in.set()
        await first_is_over.wait()
        return await on_postgres.value(shared[0], "SELECT count(*) FROM guard_second")

    async def scenario() -> None:
        one = asyncio.create_task(in_request(first()))
        await soon(lambda: shared)
        other = asyncio.create_task(in_request(second()))
        await one
        first_is_over.set()
        assert await other == 0
        await on_postgres.close(shared[0])

    run(scenario)


# ---------------------------------------------------------------------------------------------- event loops


def test_loops_one_after_another_leave_nothing_behind(program: Program, recwarn: pytest.WarningsRecorder) -> None:
    kept: list[Any] = []

    async def scenario() -> None:
        kept.append(await program.connect())
        await program.value(kept[-1], "SELECT 1")

    gc.collect()  # what others have left
    recwarn.clear()
    for _ in range(2 * MAX):
        run(scenario)
        assert opened() == 0
    assert all(map(program.is_closed, kept))
    with pytest.raises(program.closed):
        asyncio.run(program.value(kept[0], "SELECT 1"))
    kept.clear()
    gc.collect()
    assert not recwarn.list


def test_loops_in_threads_share_the_line(program: Program) -> None:
    most = counted = 0
    eventually(lambda: program.count() == 0)
    failed: list[BaseException] = []

    async def scenario() -> None:
        for _ in range(10):
            conn = await program.connect()
            await program.value(conn, "SELECT 1")
            await program.close(conn)

    def loop() -> None:
        try:
            run(scenario)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=loop) for _ in range(2 * MAX)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        most = max(most, admitted())
        counted = max(counted, program.count())
    assert not failed
    assert 1 <= most <= MAX
    assert counted <= MAX


# ---------------------------------------------------------------------------------------------- asyncpg's own pool


def test_a_pool_of_the_programs_own_is_bounded_and_keeps_nobody_waiting(
    apg: Program, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        connect = {"connect": lambda *args, **kwargs: apg.connect(**kwargs)}
        async with asyncpg.create_pool(**arguments(dsn), min_size=8, max_size=8, **connect) as pool:
            assert await asyncio.gather(*[pool.fetchval("SELECT 1") for _ in range(30)]) == [1] * 30
            assert opened() <= MAX
            conn = await apg.connect()
            assert await conn.fetchval("SELECT 2") == 2
            await conn.close()
            async with pool.acquire() as conn, conn.transaction():
                assert await conn.fetchval("SELECT 3") == 3
        await soon(lambda: out() == 0)

    run(scenario)


# ---------------------------------------------------------------------------------------------- all at once


def test_nobody_ever_sees_what_is_anothers(program: Program) -> None:
    """Tasks with connections of their own, doing at random what programs do."""
    marks = {"aiomysql": ("SET @mark = {}", "SELECT @mark", None)}
    setting, asking, fresh = marks.get(
        program.name, ("SET application_name = 'm{}'", "SELECT current_setting('application_name')", "")
    )
    chance = random.Random(11)

    async def user(number: int) -> None:
        for _ in range(4):
            conn = await program.connect()
            marked = False
            for _ in range(chance.randrange(1, 6)):
                match chance.randrange(4):
                    case 0 if not marked:
                        await program.execute(conn, setting.format(number))
                        marked = True
                    case 1:
                        assert await program.value(conn, f"SELECT {number}") == number
                    case 2 if marked:
                        found = await program.value(conn, asking)
                        assert str(found) in (str(number), f"m{number}")
                    case _:
                        await asyncio.sleep(0)
            if not marked:
                assert await program.value(conn, asking) == fresh
            await program.close(conn)

    async def scenario() -> None:
        await asyncio.gather(*[user(number) for number in range(12)])
        assert opened() <= MAX

    run(scenario)


# ---------------------------------------------------------------------------------------------- the whole way

PROGRAM = """
    import asyncio, os, sys

    import asyncpg, psycopg

    DSN = os.environ["DSN"]
    ARGUMENTS = eval(os.environ["ARGUMENTS"])
    COUNT = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'guard-whole'"

    async def by_asyncpg():
        conn = await asyncpg.connect(**ARGUMENTS, server_settings={"application_name": "guard-whole"})
        try:
            await conn.execute("SELECT pg_sleep(0.005)")
            return await conn.fetchval(COUNT)
        finally:
            await conn.close()

    async def by_psycopg():
        async with await psycopg.AsyncConnection.connect(DSN, application_name="guard-whole") as conn:
            cursor = await conn.execute(COUNT)
            return (await cursor.fetchone())[0]

    async def main(once):
        return max(await asyncio.gather(*[once() for _ in range(50)]))

    print(asyncio.run(main(by_asyncpg)), asyncio.run(main(by_psycopg)))

    async def forks():
        conn = await asyncpg.connect(**ARGUMENTS)
        child = os.fork()
        if not child:
            os._exit(0 if conn.is_closed() else 1)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        answer = await conn.fetchval("SELECT 1")
        await conn.close()
        return ended, answer

    print(asyncio.run(forks()))
"""


@pytest.mark.parametrize("off", [False, True], ids=["held", "off"])
def test_an_unmodified_program_is_held(dsn: str, off: bool) -> None:
    done = subprocess.run(
        [PENSTOCK, "run", "--hold", "--max", "3", "--", sys.executable, "-c", textwrap.dedent(PROGRAM)],
        env={
            **os.environ,
            "PYTHONPATH": str(SRC),
            "DSN": dsn,
            "ARGUMENTS": repr(arguments(dsn)),
            "PYTHONWARNINGS": "error",
            **({"PENSTOCK": "off"} if off else {}),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    counted, forked = done.stdout.splitlines()
    if off:
        assert max(map(int, counted.split())) > 3
        assert forked == "(1, 1)"
    else:
        assert max(map(int, counted.split())) <= 3
        assert forked == "(0, 1)"
