"""One process of a fleet: `python fleet_child.py DSN FLEET KIND WORKERS`, FLEET as keyword arguments in JSON.

It works until its standard input ends, or ends it. A line to its standard input is answered by one with its share; "on"
and "off" start and end the work, "fork" leaves a child behind that works too.
A DSN of MySQL's is served by its drivers.
"""

import asyncio
import json
import os
import sys
import threading
import time
from typing import Any

import psycopg
import pymysql

from penstock import AsyncPool, Fleet, Pool, PoolError

ERRORS = (PoolError, psycopg.Error, pymysql.Error)

work = threading.Event()


def main(dsn: str, fleet: str, kind: str, workers: str) -> None:
    declared = Fleet(**json.loads(fleet))
    work.set()
    if kind == "tasks":
        asyncio.run(tasks(dsn, declared, int(workers)))
    else:
        threads(dsn, declared, int(workers))


def threads(dsn: str, fleet: Fleet, workers: int) -> None:
    driver = "pymysql" if is_mysql(dsn) else "psycopg"
    pool: Pool[Any] = Pool(dsn, driver=driver, fleet=fleet, min_size=1, open=True, timeout=1.0, connect_timeout=2.0)
    start(pool, workers)
    for line in sys.stdin:
        if answer(line, pool) == "fork" and os.fork() == 0:
            os.close(0)
            start(pool, workers)
            threading.Event().wait()
    pool.close(1.0)


def start(pool: Pool[Any], workers: int) -> None:
    for _ in range(workers):
        threading.Thread(target=labour, args=(pool,), daemon=True).start()


def labour(pool: Pool[Any]) -> None:
    statement = slow(pool)
    while work.wait():
        try:
            with pool.connection() as conn, conn.cursor() as cursor:
                cursor.execute(statement)
        except ERRORS:
            time.sleep(0.001)


async def tasks(dsn: str, fleet: Fleet, workers: int) -> None:
    driver = "aiomysql" if is_mysql(dsn) else "psycopg"
    pool: AsyncPool[Any] = AsyncPool(
        dsn, driver=driver, fleet=fleet, min_size=1, open=False, timeout=1.0, connect_timeout=2.0
    )
    await pool.open()
    at_work = [asyncio.create_task(labour_task(pool)) for _ in range(workers)]
    while line := await asyncio.to_thread(sys.stdin.readline):
        answer(line, pool)
    for task in at_work:
        task.cancel()
    await pool.close(1.0)


async def labour_task(pool: AsyncPool[Any]) -> None:
    statement = slow(pool)
    while True:
        if not work.is_set():
            await asyncio.sleep(0.01)
            continue
        try:
            async with pool.connection() as conn, conn.cursor() as cursor:
                await cursor.execute(statement)
        except ERRORS:
            await asyncio.sleep(0.001)


def is_mysql(dsn: str) -> bool:
    return dsn.startswith("mysql:")


def slow(pool: Any) -> str:
    return "SELECT SLEEP(0.01)" if is_mysql(pool.conninfo) else "SELECT pg_sleep(0.01)"


def answer(line: str, pool: Any) -> str:
    order = line.strip()
    if order == "on":
        work.set()
    elif order == "off":
        work.clear()
    state = pool.fleet()
    print(json.dumps({"share": state.share, "members": state.members, "hint": state.hint}), flush=True)
    return order


if __name__ == "__main__":
    main(*sys.argv[1:])
