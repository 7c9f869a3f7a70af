"""Four pools of one process, each with a trouble of its own, at once and with every default."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from bench.context import Context
from bench.report import Line, Result, at_most
from penstock import AsyncPool, Pool, PoolError
from penstock.drill.postgres import EmbeddedPostgres
from penstock.observe import alerts
from penstock.observe.alerts import Alert, Kind

CLAIM = "a leak, saturation, a starving event loop and a dead database at once: which alerts are raised, and when"
BAR = "each its own and no other within 15 s; cleared when it is over"

SIZE = 4
TROUBLE_SECONDS = 25.0  # for which each lasts, so that what is no root has time to be raised
LATEST = 15.0
CLEAR_SECONDS = 40.0  # for which clearing is waited for

EXPECTED = {
    "leak": Kind.LEAK,
    "saturation": Kind.UTILISATION,
    "starving": Kind.LOOP_STARVING,
    "dead": Kind.DATABASE_DOWN,
    "well": None,
}


def run(ctx: Context) -> Result:
    told: list[tuple[float, Alert]] = []
    over = threading.Event()
    with ExitStack() as stack, EmbeddedPostgres(max_connections=20) as other:
        pools = {
            name: stack.enter_context(_pool(other.dsn if name == "dead" else ctx.dsn, name))
            for name in EXPECTED
            if name != "starving"
        }
        loop = stack.enter_context(_starving(ctx.dsn))
        stack.callback(over.set)
        for name in ("dead", "well"):
            _threads(2, over, lambda name=name: _use(pools[name], 0.01))
        alerts.start(lambda alert: told.append((time.monotonic(), alert)))
        stack.callback(alerts.stop)
        time.sleep(3)
        ctx.say("all is well; now the troubles")
        began = time.monotonic()
        kept = [pools["leak"].getconn() for _ in range(SIZE)]
        loaded = threading.Event()
        _threads(3 * SIZE, loaded, lambda: _use(pools["saturation"], 0.05))
        _threads(12, loaded, lambda: _use(pools["leak"], 0.01))
        loop.blocks.set()
        other.stop()
        time.sleep(TROUBLE_SECONDS)
        ctx.say("over")
        ended = time.monotonic()
        for conn in kept:
            pools["leak"].putconn(conn)
        loaded.set()
        loop.blocks.clear()
        other.start()
        _until(lambda: _all_cleared(told), CLEAR_SECONDS)
    return [_line(name, kind, told, began, ended) for name, kind in EXPECTED.items()] + [
        at_most("the latest of them after its trouble began", _latest(told, began), LATEST, "s")
    ]


def _line(name: str, kind: Kind | None, told: list[tuple[float, Alert]], began: float, ended: float) -> Line:
    mine = [(at, alert) for at, alert in told if alert.pool == name]
    raised = [alert.kind for _, alert in mine if alert.cleared is None]
    cleared = [at - ended for at, alert in mine if alert.cleared is not None]
    found = ", ".join(each.value for each in raised) or "none"
    when = f" after {mine[0][0] - began:.1f} s, cleared {cleared[-1]:.1f} s after its end" if mine and cleared else ""
    met = raised == ([] if kind is None else [kind]) and len(cleared) == len(raised)
    return Line(f"alerts of the pool with {name}", found + when, "", "", kind.value if kind else "none", met)


def _latest(told: list[tuple[float, Alert]], began: float) -> float:
    return max((at - began for at, alert in told if alert.cleared is None), default=float("inf"))


def _all_cleared(told: list[tuple[float, Alert]]) -> bool:
    open_ = {(alert.pool, alert.kind) for _, alert in told}
    return all(any(a.cleared and (a.pool, a.kind) == one for _, a in told) for one in open_)


def _pool(dsn: str, name: str) -> Pool[Any]:
    pool = Pool(dsn, min_size=SIZE, name=name, timeout=2, open=True)
    pool.wait()
    return pool


def _use(pool: Pool[Any], seconds: float) -> None:
    try:
        with pool.connection() as conn:
            conn.execute("SELECT pg_sleep(%s)", [seconds])
    except PoolError:
        pass
    except Exception:
        time.sleep(0.05)  # the connection was lost


def _threads(count: int, over: threading.Event, job: Callable[[], None]) -> None:
    def work() -> None:
        while not over.wait(0.01):
            job()

    for _ in range(count):
        threading.Thread(target=work, daemon=True).start()


class _Loop:
    def __init__(self) -> None:
        self.blocks = threading.Event()
        self.over = threading.Event()


@contextmanager
def _starving(dsn: str) -> Iterator[_Loop]:
    """An event loop with a pool in light use, which somebody blocks for 0.3 s at a time while told to."""
    state, ready = _Loop(), threading.Event()

    async def main() -> None:
        async with AsyncPool(dsn, min_size=SIZE, name="starving", timeout=2, open=False) as pool:
            await pool.wait()
            ready.set()
            await asyncio.gather(_work(pool), _block())

    async def _work(pool: AsyncPool[Any]) -> None:
        while not state.over.is_set():
            try:
                async with pool.connection() as conn:
                    await conn.execute("SELECT 1")
            except PoolError:
                pass
            await asyncio.sleep(0.02)

    async def _block() -> None:
        while not state.over.is_set():
            if state.blocks.is_set():
                time.sleep(0.3)  # the mistake that this is about
            await asyncio.sleep(0.01)

    thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
    thread.start()
    ready.wait(20)
    try:
        yield state
    finally:
        state.over.set()
        thread.join(20)


def _until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
