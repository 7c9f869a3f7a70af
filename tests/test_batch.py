"""A job over an API and a database: each item saved once, none lost, nothing held or waited for without a limit."""

import asyncio
import logging
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from penstock import AsyncPool, Pool
from penstock.batch import BatchInterrupted, BatchStopped, HeldOverCall, Rate, Retry, aio, for_each
from penstock.batch.checkpoint import Checkpoint, Claim
from penstock.batch.job import LOOKED_UP
from penstock.drill.postgres import EmbeddedPostgres
from penstock.drill.proxy import ChaosProxy
from support.batch import QUICK, Api, Users, carry_out, user, work_of
from support.either import Kind, both
from support.waiting import eventually, soon

IMPATIENT = Retry(attempts=3, first=0.0)  # of a database that stays away


@pytest.fixture
def users(dsn: str) -> Users:
    return Users(dsn, f"batch_{uuid4().hex[:12]}")


# ------------------------------------------------------------------------------------------ each item once


@both
def test_each_result_is_saved_once_and_not_again_by_the_next_run(users: Users, kind: Kind) -> None:
    api = Api()
    report = carry_out(kind, range(100), users, http=api.http)
    assert (report.done, report.skipped, report.failed, report.elsewhere) == (100, 0, 0, 0)
    again = carry_out(kind, range(120), users, http=api.http)
    assert (again.done, again.skipped) == (20, 100)
    assert users.saved == list(range(120))
    assert set(api.asked.values()) == {1}
    assert set(users.states.values()) == {"done"}


@both
def test_an_item_that_comes_twice_is_saved_once(users: Users, kind: Kind) -> None:
    report = carry_out(kind, [number % 40 for number in range(1200)], users, http=Api().http)
    assert (report.done, report.skipped) == (40, 1160)
    assert users.saved == list(range(40))


@both
def test_two_runs_at_once_save_each_item_once_and_one_says_so(
    users: Users, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "penstock.batch")
    together, reports = threading.Barrier(2, timeout=20), []

    def answer(number: int, times: int) -> httpx.Response:
        if number == 0:
            together.wait()  # both have looked at what is done, and found nothing
        return user(number)

    def run() -> None:
        reports.append(carry_out(kind, range(200), users, http=Api(answer).http, concurrency=1))

    other = threading.Thread(target=run)
    other.start()
    run()
    other.join()
    assert users.saved == list(range(200))
    assert sum(report.done for report in reports) == 200
    assert sum(report.elsewhere for report in reports) > 0
    assert "another run of this job is under way" in caplog.text


@both
def test_what_another_run_has_saved_meanwhile_has_not_failed(users: Users, kind: Kind) -> None:
    """Though this one could not do it."""

    def answer(number: int, times: int) -> httpx.Response:
        if number == 3:
            users.ask("INSERT INTO penstock_batch VALUES (%s, '3', 'done', 1, NULL, 'other')", users.job)
        return httpx.Response(404) if number in (3, 4) else user(number)

    report = carry_out(kind, range(10), users, http=Api(answer).http)
    assert (report.done, report.failed, report.elsewhere) == (8, 1, 1)
    assert [failure.key for failure in report.failures] == ["4"]


@both
def test_a_commit_whose_answer_is_lost_is_looked_for_and_not_made_twice(
    users: Users, proxy: ChaosProxy, dsn: str, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is told the connection's end before it sends COMMIT, and the server gets that all the same."""
    cut, done = iter([True]), Checkpoint.done

    async def and_cut(checkpoint: Checkpoint, conn: Any, claim: Claim) -> tuple[bool, bool]:
        result = await done(checkpoint, conn, claim)
        if next(cut, False):
            await asyncio.to_thread(proxy.half_close) if kind is AsyncPool else proxy.half_close()
        return result

    monkeypatch.setattr(Checkpoint, "done", and_cut)
    report = carry_out(kind, range(5), users, dsn=proxy.through(dsn), http=Api().http, concurrency=1)
    assert (report.done, report.failed) == (5, 0)
    assert users.saved == list(range(5))
    [(run,)] = users.ask("SELECT run FROM penstock_batch WHERE job = %s AND item = '0'", users.job)
    assert run.endswith(":1"), "the first COMMIT has not come through, so this test has shown nothing"


@both
def test_a_connection_lost_before_its_commit_saves_nothing_and_the_next_does(
    users: Users, proxy: ChaosProxy, dsn: str, kind: Kind
) -> None:
    cut = iter([True])

    def save(conn: Any, number: int, name: str) -> Any:
        if next(cut, False):
            proxy.reset()
        return users.save(conn, number, name)

    report = carry_out(kind, range(5), users, dsn=proxy.through(dsn), http=Api().http, save=save, concurrency=1)
    assert (report.done, report.failed) == (5, 0)
    assert users.saved == list(range(5))


@both
def test_a_transaction_that_cannot_be_serialized_is_tried_again_as_a_whole(users: Users, kind: Kind) -> None:
    refused = iter([True])

    def save(conn: Any, number: int, name: str) -> Any:
        result = users.save(conn, number, name)
        if next(refused, False):
            if kind is AsyncPool:
                result.close()
            raise psycopg.errors.SerializationFailure("could not serialize access")
        return result

    report = carry_out(kind, range(10), users, http=Api().http, save=save)
    assert (report.done, report.failed) == (10, 0)
    assert users.saved == list(range(10))


@both
def test_work_that_is_done_once_is_not_lost_to_a_transaction_that_fails_once(users: Users, kind: Kind) -> None:
    """What was paid for at the API is saved, though `retry` says that the API is called once."""
    api, refused = Api(), iter([True])

    def save(conn: Any, number: int, name: str) -> Any:
        if next(refused, False):
            raise psycopg.errors.SerializationFailure("could not serialize access")
        return users.save(conn, number, name)

    report = carry_out(kind, range(5), users, http=api.http, save=save, retry=Retry(attempts=1))
    assert (report.done, report.failed) == (5, 0)
    assert set(api.asked.values()) == {1}


# ------------------------------------------------------------------------------------------ what fails


@both
def test_what_fails_is_kept_and_listed_and_tried_again_when_asked(users: Users, kind: Kind) -> None:
    well = False

    def answer(number: int, times: int) -> httpx.Response:
        return httpx.Response(404) if number % 10 == 3 and not well else user(number)

    report = carry_out(kind, range(50), users, http=Api(answer).http)
    assert (report.done, report.failed, report.failures_in_all) == (45, 5, 5)
    assert [failure.key for failure in report.failures] == ["13", "23", "3", "33", "43"]
    assert all(failure.tries == 1 and "404" in failure.error for failure in report.failures)
    assert "retry_failed=True" in str(report)
    well = True
    left = carry_out(kind, range(50), users, http=Api(answer).http)
    assert (left.done, left.skipped, left.failed_before, left.failures_in_all) == (0, 45, 5, 5)
    mended = carry_out(kind, range(50), users, http=Api(answer).http, retry_failed=True)
    assert (mended.done, mended.skipped, mended.failures_in_all) == (5, 45, 0)
    assert users.saved == list(range(50))


@both
def test_an_answer_that_will_pass_is_asked_for_again_and_never_saved(users: Users, kind: Kind) -> None:
    """Also where the work does not look at the status."""

    def answer(number: int, times: int) -> httpx.Response | Exception:
        if number % 5 == 1 and times < 3:
            return httpx.Response(503, json={"name": "an apology"})
        return httpx.ConnectTimeout("too slow") if number % 5 == 2 and times == 1 else user(number)

    def careless(number: int, http: Any) -> Any:
        if kind is Pool:
            return http.get(f"/users/{number}").json()["name"]

        async def ask() -> Any:
            return (await http.get(f"/users/{number}")).json()["name"]

        return ask()

    report = carry_out(kind, range(20), users, http=Api(answer).http, work=careless)
    assert (report.done, report.failed) == (20, 0)
    assert users.ask(f"SELECT count(*) FROM {users.table} WHERE name LIKE 'user %'") == [(20,)]


@both
def test_who_fails_each_time_is_given_up_after_so_many_tries(users: Users, kind: Kind) -> None:
    api = Api(lambda number, times: httpx.Response(500) if number == 4 else user(number))
    report = carry_out(kind, range(8), users, http=api.http)
    assert (report.done, report.failed) == (7, 1)
    assert report.failures[0].tries == api.asked[4] == QUICK.attempts


@both
def test_one_that_cannot_be_saved_fails_alone(users: Users, kind: Kind) -> None:
    """Though others are saved in the same transaction."""
    users.ask(f"ALTER TABLE {users.table} ADD CHECK (id % 17 <> 5)")
    report = carry_out(kind, range(200), users, http=Api().http, pool={"max_size": 1}, concurrency=32)
    assert (report.done, report.failed) == (188, 12)
    assert users.saved == [number for number in range(200) if number % 17 != 5]
    assert all("CheckViolation" in failure.error for failure in report.failures)


@both
def test_a_constraint_that_is_looked_at_with_commit_fails_its_own_item(users: Users, kind: Kind) -> None:
    users.ask(f"CREATE TABLE {users.table}_known (id bigint PRIMARY KEY)")
    users.ask(f"INSERT INTO {users.table}_known SELECT generate_series(0, 18)")
    users.ask(
        f"ALTER TABLE {users.table} ADD FOREIGN KEY (id) REFERENCES {users.table}_known DEFERRABLE INITIALLY DEFERRED"
    )
    report = carry_out(kind, range(20), users, http=Api().http)
    assert (report.done, report.failed) == (19, 1)
    assert report.failures[0].key == "19"


@both
def test_many_failures_in_a_row_end_the_job_and_not_all_items(users: Users, kind: Kind) -> None:
    api = Api(lambda number, times: httpx.Response(403) if number >= 50 else user(number))
    with pytest.raises(BatchStopped, match="10 items in a row have failed, the last with HTTPStatusError") as stopped:
        carry_out(kind, range(10_000), users, http=api.http, stop_after=10, concurrency=4)
    assert stopped.value.report.done >= 40
    assert 10 <= stopped.value.report.failed < 20
    assert users.saved == list(range(len(users.saved)))


@both
def test_no_secret_of_a_url_is_kept_with_an_error(users: Users, kind: Kind) -> None:
    api = Api(lambda number, times: httpx.Response(401))
    http = api.http | {"params": {"api_key": "s3cret"}, "base_url": "http://me:s3cret@api.test"}
    carry_out(kind, range(3), users, http=http)
    [(error,)] = users.ask("SELECT DISTINCT error FROM penstock_batch WHERE job = %s AND item = '1'", users.job)
    assert "http://api.test/users/1" in error
    assert "s3cret" not in error


# ------------------------------------------------------------------------------------------ no connection is held


@both
def test_no_connection_is_held_while_the_work_waits(users: Users, kind: Kind) -> None:
    pools: list[Any] = []
    leased: list[int] = []

    def answer(number: int, times: int) -> httpx.Response:
        leased.append(pools[0].snapshot().leased)
        return user(number)

    def hear(pool: Any) -> None:
        pools.append(pool)

    run_with_pool(kind, users, hear, range(20), http=Api(answer).http, concurrency=1)
    assert leased == [0] * 20


@both
@pytest.mark.parametrize("where", ["work", "save"])
def test_who_calls_the_api_while_holding_a_connection_is_stopped_before_the_request(
    users: Users, kind: Kind, where: str
) -> None:
    pools: list[Any] = []
    clients: list[Any] = []
    api = Api()

    def work(number: int, http: Any) -> Any:
        clients.append(http)
        if where == "save":
            return number
        with pools[0].connection():
            return http.get("/users/1")

    def save(conn: Any, number: int, result: Any) -> None:
        clients[0].get("/users/1")

    async def work_async(number: int, http: Any) -> Any:
        clients.append(http)
        if where == "save":
            return number
        async with pools[0].connection():
            return await http.get("/users/1")

    async def save_async(conn: Any, number: int, result: Any) -> None:
        await clients[0].get("/users/1")

    both_of = (work, save) if kind is Pool else (work_async, save_async)
    with pytest.raises(BatchStopped, match=r"a connection is held while GET http://api\.test/users/1") as stopped:
        run_with_pool(kind, users, pools.append, range(20), http=api.http, work=both_of[0], save=both_of[1])
    assert isinstance(stopped.value.__cause__, HeldOverCall)
    assert not api.asked
    assert not users.states


@both
def test_save_may_neither_commit_nor_hide_a_failed_statement(users: Users, kind: Kind) -> None:
    def save(conn: Any, number: int, name: str) -> None:
        with pytest.raises(psycopg.errors.DivisionByZero):
            conn.execute("SELECT 1 / 0")

    async def save_async(conn: Any, number: int, name: str) -> None:
        with pytest.raises(psycopg.errors.DivisionByZero):
            await conn.execute("SELECT 1 / 0")

    report = carry_out(kind, range(2), users, http=Api().http, save=save if kind is Pool else save_async)
    assert report.failed == 2
    assert "save() must neither commit nor roll back" in report.failures[0].error
    report = carry_out(kind, range(2, 4), users, http=Api().http, save=lambda conn, number, name: conn.commit())
    assert report.failed == 2
    assert users.saved == []


def run_with_pool(kind: Kind, users: Users, hear: Any, items: Any, **given: Any) -> Any:
    options = {"save": users.save, "job": users.job, "concurrency": 4, "retry": QUICK, "work": work_of(kind), **given}
    work = options.pop("work")
    if kind is Pool:
        with Pool(users.dsn, min_size=1, max_size=4) as pool:
            hear(pool)
            return for_each(items, work, pool=pool, **options)

    async def job() -> Any:
        async with AsyncPool(users.dsn, min_size=1, max_size=4) as pool:
            hear(pool)
            return await aio.for_each(items, work, pool=pool, **options)

    return asyncio.run(job())


# ------------------------------------------------------------------------------------------ bounds


@both
def test_items_are_read_as_they_are_needed(users: Users, kind: Kind) -> None:
    """An iterator of ten million, of which the job is stopped after a few hundred."""
    read = 0

    def items() -> Iterator[int]:
        nonlocal read
        for number in range(10_000_000):
            read += 1
            yield number

    api = Api(lambda number, times: httpx.Response(403) if number >= 600 else user(number))
    with pytest.raises(BatchStopped):
        carry_out(kind, items(), users, http=api.http, stop_after=1)
    assert 600 <= read <= 600 + 2 * LOOKED_UP


@both
def test_no_more_is_in_flight_than_was_asked_for(users: Users, kind: Kind) -> None:
    lock, now, most = threading.Lock(), 0, 0

    def entered() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)

    def left() -> None:
        nonlocal now
        with lock:
            now -= 1

    def work(number: int, http: Any) -> str:
        entered()
        threading.Event().wait(0.002)
        left()
        return ""

    async def work_async(number: int, http: Any) -> str:
        entered()
        await asyncio.sleep(0.002)
        left()
        return ""

    carry_out(kind, range(100), users, work=work if kind is Pool else work_async, concurrency=5)
    assert most == 5


@both
def test_a_retry_after_holds_back_everybody(users: Users, kind: Kind) -> None:
    told, after = 0.0, []

    def answer(number: int, times: int) -> httpx.Response:
        nonlocal told
        if number == 30 and times == 1:
            told = time.monotonic()
            return httpx.Response(429, headers={"Retry-After": "1"})
        if told:
            after.append(time.monotonic() - told)
        return user(number)

    report = carry_out(kind, range(60), users, http=Api(answer).http, concurrency=4, retry=Retry(first=0.01))
    assert (report.done, report.failed) == (60, 0)
    # What was under way when the answer came had been sent before: at most three.
    assert sum(seconds < 0.95 for seconds in after) <= 3
    assert len(after) >= 25


@both
def test_a_rate_is_kept(users: Users, kind: Kind) -> None:
    began: list[float] = []

    def answer(number: int, times: int) -> httpx.Response:
        began.append(time.monotonic())
        return user(number)

    carry_out(kind, range(30), users, http=Api(answer).http, rate=Rate(100, burst=5))
    began.sort()
    assert all(later - earlier >= 0.23 for earlier, later in zip(began, began[29:], strict=False))
    assert began[-1] - began[0] >= 0.24


@both
@pytest.mark.parametrize("given", [False, True])
def test_an_answer_that_trickles_or_never_comes_ends_with_its_try(users: Users, kind: Kind, given: bool) -> None:
    """Also through a client that was handed in and knows no limit, and a request that asks for none."""
    with trickling() as url:
        options: dict[str, Any] = {"base_url": url} | ({"timeout": None} if given else {})

        def work(number: int, http: Any) -> Any:
            if kind is Pool:
                return http.get(f"/{number}", timeout=None).text

            async def ask() -> Any:
                return (await http.get(f"/{number}", timeout=None)).text

            return ask()

        http: Any = options
        if given:
            http = httpx.Client(**options) if kind is Pool else httpx.AsyncClient(**options)
        began = time.monotonic()
        once = Retry(attempts=1)
        report = carry_out(kind, range(2), users, work=work, http=http, timeout=0.3, retry=once)
        assert time.monotonic() - began < 5
        assert report.failed == 2
        if given:
            assert not http.event_hooks["request"], "a client that was handed in is as it was"
            assert not http.is_closed
            http.close() if kind is Pool else asyncio.run(http.aclose())


class trickling:  # named as what it is used as
    """A server that sends a byte now and then to who asks for an even path, and nothing to others."""

    def __enter__(self) -> str:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._listener.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._trickle, args=(client,), daemon=True).start()

    def _trickle(self, client: socket.socket) -> None:
        with client:
            path = client.recv(65536).split(b" ")[1]
            try:
                if path == b"/0":
                    client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
                while not self._over.wait(0.02):
                    if path == b"/0":
                        client.sendall(b".")
            except OSError:
                return


@both
def test_who_holds_the_row_of_an_item_for_ever_ends_the_job_and_does_not_stall_it(
    users: Users, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run, say, that has stopped in the midst of a transaction."""
    monkeypatch.setattr("penstock.batch.job.DATABASE", IMPATIENT)
    carry_out(kind, [1], users, http=Api().http)  # so that there is the table
    with psycopg.connect(users.dsn) as other:
        other.execute("INSERT INTO penstock_batch VALUES (%s, '5', 'done', 1, NULL, 'other')", (users.job,))
        with pytest.raises(BatchStopped, match="statement timeout") as stopped:
            carry_out(kind, range(10), users, http=Api().http, timeout=0.4, concurrency=1)
        assert stopped.value.report.failed == 0
        other.rollback()
    again = carry_out(kind, range(10), users, http=Api().http)
    assert again.failed == 0
    assert users.saved == list(range(10))


# ------------------------------------------------------------------------------------------ stopping


def test_ctrl_c_finishes_what_is_in_flight_and_says_how_far_it_is(users: Users) -> None:
    def items() -> Iterator[int]:
        for number in range(5000):
            if number == 1200:
                signal.raise_signal(signal.SIGINT)
            yield number

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(BatchInterrupted) as interrupted:
        carry_out(Pool, items(), users, http=Api().http)
    report = interrupted.value.report
    assert 500 <= report.done <= 1200
    assert report.failed == 0
    assert f"{report.done:,} done" in str(interrupted.value)
    assert "goes on from here" in str(interrupted.value)
    assert len(users.saved) == report.done
    assert signal.getsignal(signal.SIGINT) is before
    again = carry_out(Pool, range(1300), users, http=Api().http)
    assert again.done + report.done == 1300
    assert users.saved == list(range(1300))


def test_a_second_ctrl_c_ends_at_once(users: Users) -> None:
    begun, over = threading.Event(), threading.Event()

    def work(number: int, http: Any) -> None:
        begun.set()
        over.wait(30)

    def items() -> Iterator[int]:
        yield from range(LOOKED_UP)
        assert begun.wait(10)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt) as ended:
        carry_out(Pool, items(), users, http=Api().http, work=work, concurrency=LOOKED_UP + 1)
    over.set()
    assert not isinstance(ended.value, BatchInterrupted)
    assert time.monotonic() - began < 10


def test_who_hangs_in_flight_is_waited_for_no_longer_than_the_grace(users: Users) -> None:
    begun, over = threading.Event(), threading.Event()

    def work(number: int, http: Any) -> None:
        begun.set()
        over.wait(30)

    def items() -> Iterator[int]:
        yield from range(LOOKED_UP)
        assert begun.wait(10)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(BatchInterrupted):
        carry_out(Pool, items(), users, http=Api().http, work=work, concurrency=LOOKED_UP + 1, grace=0.2)
    over.set()
    assert users.saved == []


async def under_way(users: Users, pool: Any, begun: asyncio.Event, over: asyncio.Event, **given: Any) -> Any:
    async def work(number: int, http: Any) -> str:
        begun.set()
        await over.wait()
        return f"user {number}"

    job = aio.for_each(range(100), work, save=users.save, pool=pool, job=users.job, concurrency=4, **given)
    task = asyncio.create_task(job)
    await asyncio.wait_for(begun.wait(), 10)
    return task


def test_a_job_that_is_cancelled_finishes_what_is_in_flight(users: Users, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        begun, over = asyncio.Event(), asyncio.Event()
        async with AsyncPool(users.dsn, min_size=1) as pool:
            task = await under_way(users, pool, begun, over)
            task.cancel()
            await asyncio.sleep(0)
            over.set()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert 1 <= len(users.saved) <= 4
    assert f"{len(users.saved)} done" in caplog.text


def test_a_job_that_is_cancelled_twice_ends_at_once(users: Users) -> None:
    async def main() -> None:
        begun, over = asyncio.Event(), asyncio.Event()
        async with AsyncPool(users.dsn, min_size=1) as pool:
            task = await under_way(users, pool, begun, over)
            task.cancel()
            await asyncio.sleep(0.01)
            assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 10)
            await soon(lambda: pool.snapshot().leased == 0)

    asyncio.run(main())
    assert users.saved == []


@both
def test_a_database_that_is_gone_ends_the_job_and_fails_no_item(
    own_postgres: Any, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.batch.job.DATABASE", IMPATIENT)
    server: EmbeddedPostgres = own_postgres(max_connections=20)
    users = Users(server.dsn, "batch_gone")

    def answer(number: int, times: int) -> httpx.Response:
        if number == 40:
            server.stop()
        return user(number)

    with pytest.raises(BatchStopped) as stopped:
        carry_out(kind, range(1000), users, http=Api(answer).http, pool={"timeout": 0.5}, concurrency=2)
    assert stopped.value.report.failed == 0
    server.start()
    assert set(users.states.values()) <= {"done"}
    assert sorted(users.saved) == sorted(int(key) for key in users.states)
    before = len(users.saved)
    again = carry_out(kind, range(1000), users, http=Api().http)
    assert (again.done, again.failed) == (1000 - before, 0)
    assert users.saved == list(range(1000))


@both
def test_an_iterator_that_raises_ends_the_job_after_what_is_in_flight(users: Users, kind: Kind) -> None:
    def items() -> Iterator[int]:
        yield from range(LOOKED_UP)
        raise LookupError("the file has ended in the midst of a line")

    with pytest.raises(LookupError, match="in the midst"):
        carry_out(kind, items(), users, http=Api().http)
    assert sorted(users.saved) == sorted(int(key) for key in users.states)


# ------------------------------------------------------------------------------------------ what is asked and said


def test_items_may_come_from_an_async_iterator(users: Users) -> None:
    async def items() -> Any:
        for number in range(30):
            await asyncio.sleep(0)
            yield number

    assert carry_out(AsyncPool, items(), users, http=Api().http).done == 30  # type: ignore[arg-type]


@both
def test_a_connection_in_autocommit_saves_in_a_transaction_all_the_same(users: Users, kind: Kind) -> None:
    users.ask(f"ALTER TABLE {users.table} ADD CHECK (id <> 7)")
    report = carry_out(kind, range(20), users, http=Api().http, pool={"kwargs": {"autocommit": True}})
    assert (report.done, report.failed) == (19, 1)
    assert users.states["7"] == "failed"
    assert len(users.saved) == 19


def test_a_role_that_may_create_no_table_is_told_which_to_create(postgres: EmbeddedPostgres, dsn: str) -> None:
    with postgres.admin() as admin:
        admin.execute("CREATE SCHEMA batch_closed")
        admin.execute("GRANT USAGE ON SCHEMA batch_closed TO app")
    pool = Pool(dsn, min_size=1, kwargs={"options": "-c search_path=batch_closed"}, open=True)
    with pool, pytest.raises(psycopg.errors.InsufficientPrivilege) as refused:
        for_each([1], work_of(Pool), pool=pool, job="closed")
    assert "CREATE TABLE IF NOT EXISTS penstock_batch" in "".join(refused.value.__notes__)


def test_progress_goes_to_the_log_where_there_is_no_terminal(
    users: Users, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.batch.progress.LOG_SECONDS", 0.0)
    caplog.set_level(logging.INFO, "penstock.batch")
    carry_out(Pool, range(300), users, http=Api().http)
    lines = [record.getMessage() for record in caplog.records if " of 300, " in record.getMessage()]
    assert any("left" in line and "/s" in line for line in lines)
    assert f"{users.job}: 300 done in" in caplog.records[-1].getMessage()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"items": "abc"}, "items must be an iterable of items, not one str"),
        ({"items": 5}, "items must be an iterable"),
        ({"work": None}, "work must be a function"),
        ({"job": ""}, "job must be a name of 1 to 190 characters"),
        ({"concurrency": 0}, "concurrency must be 1 or more"),
        ({"timeout": float("inf")}, "timeout must be a number of seconds that ends"),
        ({"http": {"timeout": None}}, "http has timeout=None, which is no limit"),
        ({"http": {"limits": httpx.Limits()}}, "http has limits=.*which is no limit"),
        ({"http": httpx.AsyncClient()}, "http must be arguments for httpx.Client"),
        ({"rate": 0}, "per_second must be more than 0"),
        ({"retry": 3}, "retry must be a penstock.batch.Retry"),
        ({"pool": None}, "pool must be a penstock.Pool"),
    ],
)
def test_a_wrong_argument_is_named_with_what_it_may_be(wrong: dict[str, Any], message: str) -> None:
    pool = Pool("", open=False)
    given: dict[str, Any] = {"items": [1], "work": work_of(Pool), "pool": pool, "job": "wrong", **wrong}
    with pytest.raises((TypeError, ValueError), match=message):
        for_each(given.pop("items"), given.pop("work"), **given)


@pytest.mark.parametrize("item", [1.5, True, {"id": 1}, "x" * 256, "a\0b"])
def test_an_item_without_a_fit_key_is_refused(users: Users, item: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="item"):
        carry_out(Pool, [item], users, http=Api().http)


def test_functions_of_the_other_kind_are_refused(users: Users) -> None:
    with pytest.raises(BatchStopped, match=r"work is a coroutine function: use penstock\.batch\.aio"):
        carry_out(Pool, [1], users, http=Api().http, work=work_of(AsyncPool), stop_after=1)
    with pytest.raises(BatchStopped, match="work must be a coroutine function"):
        carry_out(AsyncPool, [2], users, http=Api().http, work=lambda number, http: 1, stop_after=1)


def test_threads_of_a_job_end_with_it(users: Users) -> None:
    carry_out(Pool, range(10), users, http=Api().http)
    eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith(users.job)])
