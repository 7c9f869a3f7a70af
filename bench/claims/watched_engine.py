"""One thread takes a connection with `engine.connect()`, asks `SELECT 1`, and gives it back.

The engine is SQLAlchemy's own, over psycopg and a server on loopback; one of two is watched by `penstock.watch`, which
notes who holds each connection and what is done with it. Two that are not watched differ by what this machine makes of
it; so that a few percent can be told at all, turns are short and many. psycopg_pool likewise, for information.
"""

from collections.abc import Callable
from contextlib import ExitStack
from statistics import median
from time import perf_counter
from typing import Any

import sqlalchemy
from psycopg_pool import ConnectionPool

import penstock
from bench.context import Context
from bench.measure import Cycles, interleave
from bench.pools import sqlalchemy_engine
from bench.report import Line, Result, figure

CLAIM = "`penstock.watch(engine)`: what it adds to `engine.connect()` and `SELECT 1`"
BAR = "<= 5 %"

SIZE = 4
ASK = sqlalchemy.text("SELECT 1")
ROUNDS, QUICK_ROUNDS = 101, 31
CYCLES = 100  # of a turn


def run(ctx: Context) -> Result:
    with ExitStack() as engines:
        plain, other, watched = (engines.enter_context(sqlalchemy_engine(ctx.dsn, SIZE)) for _ in range(3))
        telling = penstock.watch(watched, name="watched")
        with watched.connect() as conn:
            conn.execute(ASK)
            [holder] = telling.holders()
            assert holder.statement == "SELECT 1", "statements are off"
        found = _microseconds(ctx, {"plain": _asking(plain), "other": _asking(other), "watched": _asking(watched)})
    pools = [ConnectionPool(ctx.dsn, min_size=SIZE, open=True) for _ in range(2)]
    penstock.watch(pools[1], name="watched")
    try:
        psycopg = _microseconds(ctx, {"plain": _borrowing(pools[0]), "watched": _borrowing(pools[1])})
    finally:
        for pool in pools:
            pool.close()
    added = 100 * (found["watched"] / found["plain"] - 1)
    differ = 100 * abs(found["other"] / found["plain"] - 1)
    return [
        Line(
            "engine.connect() and SELECT 1, watched",
            f"{figure(found['watched'])} us",
            f"not watched {figure(found['plain'])}, another such {figure(found['other'])} us ({differ:.1f} % apart)",
            f"+{added:.1f} %",
            BAR,
            added <= 5,
        ),
        _known("pool.connection() of psycopg_pool and SELECT 1, watched", psycopg),
    ]


def _microseconds(ctx: Context, contestants: dict[str, Cycles]) -> dict[str, float]:
    turns = {name: _turn(cycles) for name, cycles in contestants.items()}
    found = interleave(turns, QUICK_ROUNDS if ctx.quick else ROUNDS)
    return {name: median(figures) * 1e6 for name, figures in found.items()}


def _turn(cycles: Cycles) -> Callable[[], float]:
    def turn() -> float:
        began = perf_counter()
        cycles(CYCLES)
        return (perf_counter() - began) / CYCLES

    return turn


def _known(claim: str, found: dict[str, float]) -> Line:
    added = f"{100 * (found['watched'] / found['plain'] - 1):+.1f} %"
    plain = f"not watched {figure(found['plain'])} us"
    return Line(claim, f"{figure(found['watched'])} us", plain, added, "", None)


def _asking(engine: Any) -> Cycles:
    def cycles(count: int) -> None:
        for _ in range(count):
            with engine.connect() as conn:
                conn.execute(ASK)

    return cycles


def _borrowing(pool: Any) -> Cycles:
    def cycles(count: int) -> None:
        for _ in range(count):
            with pool.connection() as conn:
                conn.execute("SELECT 1")

    return cycles
