"""One thread takes a connection and gives it back, and does nothing with it: what the pool itself costs.

Ours looks at every connection before it hands it out, and notes who holds it. Peers that validate pay a round trip;
those that do not validate do not look at all.
"""

from contextlib import ExitStack
from typing import Any

from psycopg_pool import ConnectionPool

from bench.context import Context
from bench.measure import Cycles, microseconds
from bench.pools import ours, psycopg_pool_sync, sqlalchemy_engine
from bench.report import Result, times

CLAIM = "sync `with pool.connection()`, validated on every checkout, holders on, one thread"
BAR = ">= 35x psycopg_pool with check, >= 40x SQLAlchemy with pre-ping, >= 1.8x psycopg_pool unvalidated"

SIZE = 4


def run(ctx: Context) -> Result:
    with ExitStack() as pools:
        pool = pools.enter_context(ours(ctx.dsn, SIZE))
        with pool.connection():
            assert len(pool.holders()) == 1, "holders are off"
        checked = psycopg_pool_sync(ctx.dsn, SIZE, check=ConnectionPool.check_connection)
        found = microseconds(
            {
                "ours": _with_connection(pool),
                "psycopg_pool with check": _with_connection(pools.enter_context(checked)),
                "SQLAlchemy with pre-ping": _raw_connection(
                    pools.enter_context(sqlalchemy_engine(ctx.dsn, SIZE, pool_pre_ping=True))
                ),
                "psycopg_pool": _with_connection(pools.enter_context(psycopg_pool_sync(ctx.dsn, SIZE))),
                "SQLAlchemy": _raw_connection(pools.enter_context(sqlalchemy_engine(ctx.dsn, SIZE))),
            }
        )
    bars = {"psycopg_pool with check": 35, "SQLAlchemy with pre-ping": 40, "psycopg_pool": 1.8}
    return times("sync checkout", found.pop("ours"), found, bars, "us")


def _with_connection(pool: Any) -> Cycles:
    def cycles(count: int) -> None:
        for _ in range(count):
            with pool.connection():
                pass

    return cycles


def _raw_connection(engine: Any) -> Cycles:
    """The least that SQLAlchemy can do: `engine.connect()` costs half as much again."""

    def cycles(count: int) -> None:
        for _ in range(count):
            engine.raw_connection().close()

    return cycles
