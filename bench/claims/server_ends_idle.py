"""The server ends every idle connection, as a restart or a failover does. What does the application notice?

Also what that safety costs while all is well: round trips a checkout adds, counted on the wire.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import psycopg
from psycopg_pool import ConnectionPool

from bench.context import Context
from bench.measure import interleave
from bench.pools import AUTOCOMMIT, ours, psycopg_pool_sync, sqlalchemy_engine
from bench.report import Result, at_most, figure, listed
from bench.wire import Wire

CLAIM = "the server ends all 8 idle connections"
BAR = "next good connection <= 50 ms, 0 errors in 100 requests, 0 round trips added in the steady state"

SIZE = 8
REQUESTS = 100
CHECKOUTS = 200
ROUNDS = 3

Borrow = Callable[[], AbstractContextManager[Any]]
Opened = Callable[[str], AbstractContextManager[Borrow]]


class Aftermath(NamedTuple):
    """What the application notices."""

    good_after_ms: float
    errors: int


def run(ctx: Context) -> Result:
    fast = {"ours": _ours, "SQLAlchemy with pre-ping": _sqlalchemy, "psycopg_pool": _psycopg_pool}
    found = interleave({name: _turn(ctx, opened) for name, opened in fast.items()}, ROUNDS)
    ctx.say("psycopg_pool with check: up to its timeout of 30 s")
    found["psycopg_pool with check"] = [aftermath(ctx, _checked)]
    good = {name: median(turn.good_after_ms for turn in turns) for name, turns in found.items()}
    errors = {name: max(turn.errors for turn in turns) for name, turns in found.items()}
    added = {
        name: _round_trips(ctx, opened) - 1
        for name, opened in {"ours": _ours, "psycopg_pool": _psycopg_pool, "psycopg_pool with check": _checked}.items()
    }
    return [
        at_most("8 connections ended: next good one", good.pop("ours"), 50, "ms", peers=listed(good, "ms")),
        at_most("8 connections ended: errors in 100 requests", errors.pop("ours"), 0, "", peers=listed(errors)),
        at_most(
            "round trips added to a checkout with one query",
            added.pop("ours"),
            0,
            "",
            peers=", ".join(f"{name} {figure(value)}" for name, value in added.items()),
        ),
    ]


@contextmanager
def _ours(dsn: str) -> Iterator[Borrow]:
    with ours(dsn, SIZE, kwargs=AUTOCOMMIT) as pool:
        yield pool.connection


@contextmanager
def _psycopg_pool(dsn: str) -> Iterator[Borrow]:
    with psycopg_pool_sync(dsn, SIZE, kwargs=AUTOCOMMIT) as pool:
        yield pool.connection


@contextmanager
def _checked(dsn: str) -> Iterator[Borrow]:
    with psycopg_pool_sync(dsn, SIZE, kwargs=AUTOCOMMIT, check=ConnectionPool.check_connection) as pool:
        yield pool.connection


@contextmanager
def _sqlalchemy(dsn: str) -> Iterator[Borrow]:
    with sqlalchemy_engine(dsn, SIZE, pool_pre_ping=True) as engine:
        yield lambda: closing(engine.raw_connection())


def _turn(ctx: Context, opened: Opened) -> Callable[[], Aftermath]:
    return lambda: aftermath(ctx, opened)


def aftermath(ctx: Context, opened: Opened) -> Aftermath:
    """Open a pool, end its connections, ask 100 times."""
    with opened(ctx.dsn) as borrow:
        _ask(borrow)
        end_all(ctx)
        started = perf_counter()
        good_after = float("inf")
        errors = 0
        for _ in range(REQUESTS):
            try:
                _ask(borrow)
            except psycopg.Error:
                errors += 1
            else:
                good_after = min(good_after, perf_counter() - started)
        return Aftermath(good_after * 1e3, errors)


def end_all(ctx: Context) -> None:
    """End every client's backend, and wait until these are gone; a pool may be opening new ones already."""
    clients = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    with ctx.server.admin() as admin:
        pids = [pid for pid, _ in admin.execute(f"SELECT pid, pg_terminate_backend(pid) {clients}")]
        while admin.execute(f"SELECT 1 {clients} AND pid = ANY(%s)", [pids]).fetchone():
            time.sleep(0.002)


def _ask(borrow: Borrow) -> None:
    with borrow() as connection:
        connection.cursor().execute("SELECT 1")


def _round_trips(ctx: Context, opened: Opened) -> float:
    """Round trips of one checkout with one query in it, once everything is warm."""
    with Wire(ctx.server.host, ctx.server.port) as wire, opened(wire.through(ctx.dsn)) as borrow:
        for _ in range(50):
            _ask(borrow)
        before = wire.round_trips
        for _ in range(CHECKOUTS):
            _ask(borrow)
        return (wire.round_trips - before) / CHECKOUTS
