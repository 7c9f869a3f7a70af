"""The asyncio drivers under `--hold`, in this process, without the drivers' modules being changed for other tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import aiomysql  # type: ignore[import-untyped]
import asyncpg  # type: ignore[import-untyped]
import psycopg
import pytest
from psycopg._cursor_base import BaseCursor
from psycopg.conninfo import conninfo_to_dict

from penstock.core import State
from penstock.drivers.mysql import parse
from penstock.guard.holding import aio, pools, psycopg_async
from penstock.guard.holding import aiomysql as holding_aiomysql
from penstock.guard.holding import asyncpg as holding_asyncpg
from penstock.guard.settings import Mode, Settings

_CONNECT = psycopg.AsyncConnection.__dict__["connect"].__func__


@dataclass
class Program:
    """What an unmodified program does with its driver.

    :ivar connect: the driver's own, held; takes the driver's own arguments, with the server's filled in.
    :ivar closed: the driver's error for a connection that is closed.
    :ivar count: sessions of ordinary roles, as the server counts them.
    """

    name: str
    connect: Callable[..., Any]
    closed: type[Exception]
    pid: str = "SELECT pg_backend_pid()"
    count: Callable[[], int] = int

    async def value(self, conn: Any, sql: str) -> Any:
        if self.name == "asyncpg":
            return await conn.fetchval(sql)
        async with conn.cursor() as cursor:
            await cursor.execute(sql)
            row = await cursor.fetchone()
            return row and row[0]

    async def execute(self, conn: Any, sql: str) -> None:
        if self.name == "asyncpg":
            await conn.execute(sql)
            return
        async with conn.cursor() as cursor:
            await cursor.execute(sql)

    async def close(self, conn: Any) -> None:
        await (conn.ensure_closed() if self.name == "aiomysql" else conn.close())

    def is_closed(self, conn: Any) -> bool:
        return bool(conn.is_closed() if self.name == "asyncpg" else conn.closed)


def arguments(dsn: str, **more: Any) -> dict[str, Any]:
    """asyncpg's."""
    params = conninfo_to_dict(dsn)
    names = {"host": "host", "port": "port", "user": "user", "password": "password", "dbname": "database"}
    return {name: params[old] for old, name in names.items()} | more


@contextmanager
def held_asyncpg(dsn: str, max_size: int) -> Iterator[Program]:
    connect = holding_asyncpg._connecting(asyncpg.connect, Settings(Mode.HOLD, max_size))
    yield Program("asyncpg", lambda **more: connect(**arguments(dsn, **more)), asyncpg.InterfaceError)


@contextmanager
def held_psycopg(dsn: str, max_size: int) -> Iterator[Program]:
    settings = Settings(Mode.HOLD, max_size)

    def connect(conninfo: str = dsn, **kwargs: Any) -> Any:
        return psycopg_async._connect(
            _CONNECT, psycopg.AsyncConnection, conninfo, {"autocommit": True, **kwargs}, settings
        )

    with pytest.MonkeyPatch.context() as patch:
        for name in ("_pgconn", "_start_query"):
            patch.setattr(BaseCursor, name, BaseCursor.__dict__[name])
        psycopg_async._lead_cursors()
        yield Program("psycopg", connect, psycopg.OperationalError)


@contextmanager
def held_aiomysql(dsn: str, max_size: int) -> Iterator[Program]:
    params = parse(dsn)
    params["db"] = params.pop("database")
    connect = holding_aiomysql._connecting(aiomysql.connect, Settings(Mode.HOLD, max_size))
    given = {"autocommit": True, **params}
    yield Program(
        "aiomysql", lambda **more: connect(**{**given, **more}), aiomysql.InterfaceError, "SELECT connection_id()"
    )


@contextmanager
def own_lines() -> Iterator[None]:
    """Lines of this test's own: another one's of the same database may be of another size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pools, "_databases", {})
        yield


def out() -> int:
    """Connections that are lent, in all event loops."""
    return sum(pool._core.leased for mine in list(aio._loops.values()) for pool in mine.values())


def opened() -> int:
    """Connections that are open, or are being opened or closed, in all event loops."""
    return sum(len(pool._core.slots) for mine in list(aio._loops.values()) for pool in mine.values())


def admitted() -> int:
    """Connections that count against a line now, in all event loops and threads."""
    slots = [slot for database in list(pools._databases.values()) for slot in tuple(database._admitted)]
    return sum(slot.state is not State.GONE for slot in slots)
