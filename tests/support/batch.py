"""One job for both kinds of pool, and an API that answers as a test tells it to."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import httpx
import psycopg

from penstock import AsyncPool, Pool
from penstock.batch import Report, Retry, aio, for_each

from .either import Kind, settled

QUICK = Retry(attempts=3, first=0.001, longest=0.002)


class Api:
    """Answers ``/users/<number>``, without a network; *answer* is told how often it was asked about that one."""

    def __init__(self, answer: Callable[[int, int], httpx.Response | Exception] | None = None) -> None:
        self._answer = answer or (lambda number, times: user(number))
        self.asked: dict[int, int] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        number = int(request.url.path.rpartition("/")[2])
        self.asked[number] = self.asked.get(number, 0) + 1
        answer = self._answer(number, self.asked[number])
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def http(self) -> dict[str, Any]:
        return {"base_url": "http://api.test", "transport": httpx.MockTransport(self)}


def user(number: int) -> httpx.Response:
    return httpx.Response(200, json={"name": f"user {number}"})


class Users:
    """A table that a job saves into. It has no key: who is saved twice is there twice."""

    def __init__(self, dsn: str, table: str) -> None:
        self.dsn = dsn
        self.job = self.table = table
        self.ask(f"CREATE TABLE {table} (id bigint, name text)")

    def ask(self, statement: str, *params: Any) -> list[Any]:
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            cursor = conn.execute(statement, params or None)
            return cursor.fetchall() if cursor.description else []

    @property
    def saved(self) -> list[int]:
        return [number for (number,) in self.ask(f"SELECT id FROM {self.table} ORDER BY id")]

    @property
    def states(self) -> dict[str, str]:
        return dict(self.ask("SELECT item, state FROM penstock_batch WHERE job = %s", self.job))

    def save(self, conn: Any, number: int, name: str) -> Any:
        """For either kind."""
        return conn.execute(f"INSERT INTO {self.table} VALUES (%s, %s)", (number, name))


def work_of(kind: Kind) -> Any:
    def work(number: int, http: httpx.Client) -> str:
        answer = http.get(f"/users/{number}")
        answer.raise_for_status()
        return str(answer.json()["name"])

    async def work_async(number: int, http: httpx.AsyncClient) -> str:
        answer = await http.get(f"/users/{number}")
        answer.raise_for_status()
        return str(answer.json()["name"])

    return work if kind is Pool else work_async


def carry_out(kind: Kind, items: Iterable[Any], users: Users, *, dsn: str | None = None, **given: Any) -> Report:
    """Run a job to its end, with a pool of its own."""
    pool = {"min_size": 1, "max_size": 4, **given.pop("pool", {})}
    options = {"work": work_of(kind), "save": users.save, "job": users.job, "concurrency": 8, "retry": QUICK, **given}
    work = options.pop("work")
    if kind is Pool:
        with Pool(dsn or users.dsn, **pool) as threads:
            return for_each(items, work, pool=threads, **options)

    async def job() -> Report:
        async with AsyncPool(dsn or users.dsn, **pool) as tasks:
            return await aio.for_each(items, work, pool=tasks, **options)

    return asyncio.run(job())


__all__ = ["QUICK", "Api", "Users", "carry_out", "settled", "user", "work_of"]
