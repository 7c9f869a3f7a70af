"""Our own few statements, on whatever connection the pool's driver has, in the transaction that its user is in.

They go past the cursors that take note of statements, as they leave nothing behind in the session.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from ..drivers.base import settled
from ..pool.steps import run

Rows = list[tuple[Any, ...]]
Execute = Callable[[Any, str, Sequence[Any]], Coroutine[Any, Any, Rows]]

_FAMILIES = {
    "psycopg": "postgres",
    "psycopg2": "postgres",
    "asyncpg": "postgres",
    "pymysql": "mysql",
    "mysqlclient": "mysql",
    "aiomysql": "mysql",
    "sqlite3": "sqlite",
}


def executor(driver: Any) -> tuple[str, Execute]:
    """The family of the server behind *driver*, and how to execute a statement (parameters are ``%s``) on it.

    :raises ValueError: when there is no way to keep a checkpoint there.
    """
    beneath = getattr(driver, "driver", driver)  # of connections that block, lent to asyncio
    room, _, name = type(beneath).__module__.rpartition(".")
    family = _FAMILIES.get(name) if room == "penstock.drivers" else None
    if family is None:
        raise ValueError(f"pool has a driver ({name}) that no checkpoint can be kept with: use {', '.join(_FAMILIES)}")
    if name == "psycopg":
        return family, _psycopg
    if name in ("psycopg2", "sqlite3"):
        return family, _through(_in_order, beneath, driver)
    return family, _through(_asking, beneath, driver)


def _through(how: Callable[[Any], Execute], beneath: Any, driver: Any) -> Execute:
    execute = how(beneath)
    if beneath is driver:
        return execute

    async def in_its_thread(conn: Any, query: str, params: Sequence[Any]) -> Rows:
        rows: Rows = await conn.run(lambda raw: run(execute(raw, query, params)))
        return rows

    return in_its_thread


def _asking(driver: Any) -> Execute:
    """Of drivers whose `ask` does not mind a transaction."""

    async def execute(conn: Any, query: str, params: Sequence[Any]) -> Rows:
        rows: Rows = await driver.ask(conn, query, params)
        return rows

    return execute


def _in_order(driver: Any) -> Execute:
    async def execute(conn: Any, query: str, params: Sequence[Any]) -> Rows:
        cursor = driver.plain_cursor(conn)
        try:
            if driver.module.paramstyle == "qmark":
                cursor.execute(query.replace("%s", "?"), tuple(params))
            else:
                cursor.execute(query, tuple(params) or None)
            return [tuple(row) for row in cursor.fetchall()] if cursor.description is not None else []
        finally:
            cursor.close()

    return execute


async def _psycopg(conn: Any, query: str, params: Sequence[Any]) -> Rows:
    import psycopg
    from psycopg.rows import tuple_row

    plain: Any = psycopg.AsyncCursor if isinstance(conn, psycopg.AsyncConnection) else psycopg.Cursor
    cursor = plain(conn, row_factory=tuple_row)
    await settled(cursor.execute(query, params or None))
    rows: Rows = await settled(cursor.fetchall()) if cursor.description is not None else []
    return rows
