"""The checkpoint through each driver: items saved once, failures kept, what is claimed by one left alone by others."""

import asyncio
import re
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from penstock import AsyncPool, Pool
from penstock.batch import BatchStopped, Report, aio, for_each
from penstock.drivers.generic import DBAPIModule
from support.batch import QUICK, Api, user, work_of
from support.either import Kind, settled

CASES = [
    ("psycopg", Pool),
    ("psycopg", AsyncPool),
    ("psycopg2", Pool),
    ("psycopg2", AsyncPool),
    ("asyncpg", AsyncPool),
    ("pymysql", Pool),
    ("pymysql", AsyncPool),
    ("mysqlclient", Pool),
    ("aiomysql", AsyncPool),
    ("sqlite3", Pool),
    ("sqlite3", AsyncPool),
]


class Place:
    """A database of one driver's, with a table that has no key."""

    def __init__(self, driver: str, kind: Kind, request: pytest.FixtureRequest, folder: Path) -> None:
        self.driver, self.kind = driver, kind
        self.table = self.job = f"batch_{uuid4().hex[:12]}"
        self.ask: Callable[[str], list[Any]]
        if driver in ("psycopg", "psycopg2", "asyncpg"):
            self.conninfo = dsn = str(request.getfixturevalue("dsn"))
            self.ask = lambda statement: self._postgres(dsn, statement)
        elif driver == "sqlite3":
            self.conninfo = str(folder / "batch.sqlite")
            self.ask = self._sqlite
        else:
            pytest.importorskip({"mysqlclient": "MySQLdb"}.get(driver, driver))
            server = request.getfixturevalue("mariadb")
            self.conninfo = server.dsn
            self.ask = lambda statement: server.ask(
                re.sub(r" (batch|penstock_batch)", rf" {server_database(server)}.\1", statement)
            )
        self.ask(f"CREATE TABLE {self.table} (id bigint, name varchar(50), CHECK (id <> 13))")

    def _sqlite(self, statement: str) -> list[Any]:
        conn = sqlite3.connect(self.conninfo, isolation_level=None)
        try:
            return conn.execute(statement).fetchall()
        finally:
            conn.close()

    @staticmethod
    def _postgres(dsn: str, statement: str) -> list[Any]:
        with psycopg.connect(dsn, autocommit=True) as conn:
            cursor = conn.execute(statement)
            return cursor.fetchall() if cursor.description else []

    @property
    def saved(self) -> list[int]:
        return [number for (number,) in self.ask(f"SELECT id FROM {self.table} ORDER BY id")]

    async def save_async(self, conn: Any, number: int, name: str) -> None:
        if self.driver == "asyncpg":
            await conn.execute(f"INSERT INTO {self.table} VALUES ($1, $2)", number, name)
            return
        cursor = await settled(conn.cursor())
        await cursor.execute(self.insert, (number, name))

    def save(self, conn: Any, number: int, name: str) -> None:
        conn.cursor().execute(self.insert, (number, name))

    @property
    def insert(self) -> str:
        mark = "?" if self.driver == "sqlite3" else "%s"
        return f"INSERT INTO {self.table} VALUES ({mark}, {mark})"

    def carry_out(self, items: Any, **given: Any) -> Report:
        options = {"job": self.job, "concurrency": 8, "retry": QUICK, "http": Api().http, **given}
        options.setdefault("work", work_of(self.kind))
        pool = {"driver": self.driver, "min_size": 1, "max_size": options.pop("max_size", 3)}
        if self.kind is Pool:
            with Pool(self.conninfo, **pool) as threads:  # type: ignore[arg-type]
                return for_each(items, options.pop("work"), pool=threads, save=self.save, **options)

        async def job() -> Report:
            async with AsyncPool(self.conninfo, **pool) as tasks:  # type: ignore[arg-type]
                return await aio.for_each(items, options.pop("work"), pool=tasks, save=self.save_async, **options)

        return asyncio.run(job())


def server_database(server: Any) -> str:
    return str(server.dsn.rpartition("/")[2])


@pytest.fixture(params=CASES, ids=[f"{driver}-{kind.__name__}" for driver, kind in CASES])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(*request.param, request, tmp_path)


def test_each_item_is_saved_once_failures_are_kept_and_the_next_run_goes_on(place: Place) -> None:
    report = place.carry_out(range(60))
    assert (report.done, report.failed, report.failures_in_all) == (59, 1, 1)
    assert report.failures[0].key == "13"
    assert report.failures[0].error
    again = place.carry_out(range(70))
    assert (again.done, again.skipped, again.failed_before) == (10, 59, 1)
    tried = place.carry_out(range(70), retry_failed=True)
    assert (tried.done, tried.skipped, tried.failed, tried.failures_in_all) == (0, 69, 1, 1)
    assert place.saved == [number for number in range(70) if number != 13]
    place.ask(f"DELETE FROM {place.table} WHERE id = 12")
    mended = place.carry_out([13], retry_failed=True, key=lambda number: 13, http=Api().http)
    assert mended.failed == 1


def test_two_runs_at_once_save_each_item_once(place: Place) -> None:
    together, reports = threading.Barrier(2, timeout=20), []

    def answer(number: int, times: int) -> Any:
        if number == 20:
            together.wait()
        return user(number)

    def run() -> None:
        reports.append(place.carry_out(range(20, 120), http=Api(answer).http, concurrency=2))

    other = threading.Thread(target=run)
    other.start()
    run()
    other.join()
    assert place.saved == list(range(20, 120))
    assert sum(report.done for report in reports) == 100
    assert sum(report.failed for report in reports) == 0


def test_keys_that_a_collation_takes_for_one_are_two(place: Place) -> None:
    """MySQL's would: capitals, accents, spaces at the end."""
    keys = ["a", "A", "a ", "á", "ß", "ss"]
    report = place.carry_out(range(30, 36), key=lambda number: keys[number - 30])
    assert report.done == 6
    assert place.carry_out(range(30, 36), key=lambda number: keys[number - 30]).skipped == 6


def test_a_save_that_rolls_back_fails_its_item_and_leaves_nothing(place: Place) -> None:
    """Whatever the driver tells, or does not, of a transaction that goes on as another one."""
    if place.driver == "asyncpg":
        pytest.skip("asyncpg has no method for it")
    plain, plain_async = place.save, place.save_async

    def save(conn: Any, number: int, name: str) -> None:
        conn.cursor().execute("ROLLBACK") if place.driver == "psycopg" else conn.rollback()
        plain(conn, number, name)

    async def save_async(conn: Any, number: int, name: str) -> None:
        await (conn.execute("ROLLBACK") if place.driver == "psycopg" else settled(conn.rollback()))
        await plain_async(conn, number, name)

    place.save, place.save_async = save, save_async  # type: ignore[method-assign]
    report = place.carry_out([1])
    assert report.failed == 1
    assert "save() must neither commit" in report.failures[0].error
    assert place.saved == []


def one_transaction(place: Place, monkeypatch: pytest.MonkeyPatch, *then: str) -> tuple[BatchStopped, list[int]]:
    """13 items. The first is saved alone, and meanwhile the others come to be saved together; the fourth of these
    executes *then*. How the job has ended, and the order in which `save` was called.
    """
    monkeypatch.setattr("penstock.batch.job.BaseJob._room", lambda job: 32)
    ready, order = threading.Semaphore(0), list[int]()

    def save(conn: Any, number: int, name: str) -> None:
        others_are_ready(number)
        Place.save(place, conn, number, name)
        for statement in then if len(order) == 5 else ():
            conn.cursor().execute(statement)

    async def save_async(conn: Any, number: int, name: str) -> None:
        await asyncio.to_thread(others_are_ready, number)
        await Place.save_async(place, conn, number, name)
        for statement in then if len(order) == 5 else ():
            if place.driver == "asyncpg":
                await conn.execute(statement)
            else:
                await (await settled(conn.cursor())).execute(statement)

    def others_are_ready(number: int) -> None:
        order.append(number)
        if len(order) == 1:
            for _ in range(13):
                assert ready.acquire(timeout=10)

    def work(number: int, http: Any) -> str:
        ready.release()
        return ""

    async def work_async(number: int, http: Any) -> str:
        return work(number, http)

    given = {"work": work if place.kind is Pool else work_async, "concurrency": 13, "max_size": 1}
    with monkeypatch.context() as patch, pytest.raises(BatchStopped) as stopped:
        patch.setattr(place, "save", save)
        patch.setattr(place, "save_async", save_async)
        place.carry_out(range(20, 33), **given)
    return stopped.value, order


def states(place: Place) -> dict[int, str]:
    item = "CAST(item AS char)" if place.driver in ("pymysql", "mysqlclient", "aiomysql") else "item"
    rows = place.ask(f"SELECT {item}, state FROM penstock_batch WHERE job = '{place.job}'")
    return {int(key): state for key, state in rows}


def test_a_save_that_commits_ends_the_job_and_neither_loses_nor_repeats_its_neighbours(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped, order = one_transaction(place, monkeypatch, "COMMIT")
    first, *begun = order
    assert len(begun) == 4, "they were not saved together, so this test shows nothing"
    assert f"save() of item {begun[-1]} (or of " in str(stopped)
    assert "has committed. save() must neither commit nor roll back" in str(stopped)
    assert {number for number, state in states(place).items() if state == "done"} == {first}
    assert stopped.report.failed == 4
    unsure = place.carry_out([]).failures
    assert {int(failure.key) for failure in unsure} == set(begun)
    assert all("not known whether this item is saved" in failure.error for failure in unsure)
    again = place.carry_out(range(20, 33))
    assert (again.done, again.skipped, again.failed_before) == (8, 1, 4)
    assert place.saved == list(range(20, 33))


def test_who_is_killed_after_a_save_has_committed_leaves_nothing_done_that_is_not_saved(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def killed(*_: Any) -> bool:
        raise OSError("nothing more comes from here")

    monkeypatch.setattr("penstock.batch.job.BaseJob._committed_early", killed)
    stopped, (first, *begun) = one_transaction(place, monkeypatch, "COMMIT")
    assert len(begun) == 4
    assert "nothing more comes from here" in str(stopped)
    monkeypatch.undo()
    again = place.carry_out(range(20, 33))
    assert (again.done, again.skipped, again.failed_before) == (0, 1, 12)
    assert "not known whether this item is saved" in again.failures[0].error
    assert place.saved == sorted([first, *begun])


def test_a_save_that_commits_and_begins_anew_is_seen_at_the_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """All is saved then, and all is done."""
    mysql = place.driver in ("pymysql", "mysqlclient", "aiomysql")
    stopped, order = one_transaction(place, monkeypatch, "COMMIT", "START TRANSACTION" if mysql else "BEGIN")
    assert len(order) == 13
    assert f"save() of item {order[-1]} (or of " in str(stopped)
    assert (stopped.report.done, stopped.report.failed) == (13, 0)
    assert place.saved == sorted(states(place)) == list(range(20, 33))
    assert set(states(place).values()) == {"done"}


@pytest.mark.parametrize("place", [("pymysql", Pool), ("aiomysql", AsyncPool)], indirect=True, ids=["threads", "tasks"])
def test_a_statement_that_commits_by_itself_is_seen(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped, order = one_transaction(place, monkeypatch, f"CREATE TABLE {place.table}_more (id int)")
    assert len(order) == 5
    assert "has committed" in str(stopped)
    assert place.carry_out(range(20, 33)).done == 8
    assert place.saved == list(range(20, 33))


def test_a_driver_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    pool: Pool[Any] = Pool(str(tmp_path / "x"), driver=DBAPIModule(sqlite3), min_size=1, open=False)
    with pytest.raises(ValueError, match=r"a driver \(generic\) that no checkpoint can be kept with"):
        for_each([1], work_of(Pool), pool=pool, job="x")
