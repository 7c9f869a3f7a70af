"""One thread takes a connection with `engine.connect()` and gives it back, and does nothing with it.

What is beneath differs: SQLAlchemy's QueuePool, asking each connection with pre-ping or not looking at all, and ours,
which looks at each and notes who holds it. Within a request it also notes there what was lent. SQLAlchemy's own share,
the Connection and its proxy, is in all of them.
"""

from contextlib import ExitStack
from typing import Any

from bench.context import Context
from bench.measure import Cycles, microseconds
from bench.pools import sqlalchemy_engine
from bench.report import Line, Result, listed, times
from penstock.integrations.sqlalchemy import PenstockPool
from penstock.pool.terms import Origin, begin, end, of_request

CLAIM = "SQLAlchemy's `engine.connect()`, every connection looked at (ours: the kernel's word), one thread"
BAR = ">= 8x QueuePool with pre-ping, with ours asked to pre-ping too"

SIZE = 4


def run(ctx: Context) -> Result:
    with ExitStack() as engines:

        def engine(**options: Any) -> Any:
            return engines.enter_context(sqlalchemy_engine(ctx.dsn, SIZE, **options))

        ours = engine(poolclass=PenstockPool)
        with ours.connect():
            assert len(ours.pool.holders()) == 1, "holders are off"
        found = microseconds(
            {
                "ours": _connect(ours),
                "QueuePool with pre-ping": _connect(engine(pool_pre_ping=True)),
                "QueuePool": _connect(engine()),
                "ours with pre-ping": _connect(engine(poolclass=PenstockPool, pool_pre_ping=True)),
                "ours within a request": _within_request(_connect(engine(poolclass=PenstockPool))),
            }
        )
    asked = "QueuePool with pre-ping"
    return [
        *times("engine.connect()", found["ours"], found, {asked: 8}, "us"),
        *times("engine.connect() with pool_pre_ping=True", found["ours with pre-ping"], found, {asked: 8}, "us"),
        *times("engine.connect() within a request", found["ours within a request"], found, {asked: 4}, "us"),
        Line(
            "engine.connect(), neither asking nor looking",
            "",
            listed({"QueuePool": found["QueuePool"]}, "us"),
            "",
            "",
            None,
        ),
    ]


def _connect(engine: Any) -> Cycles:
    def cycles(count: int) -> None:
        for _ in range(count):
            engine.connect().close()

    return cycles


def _within_request(cycles: Cycles) -> Cycles:
    def within(count: int) -> None:
        token = begin(of_request(Origin(), None, 0.0))
        try:
            cycles(count)
        finally:
            end(token)

    return within
