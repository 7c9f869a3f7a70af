"""What comes back, what does not, and who is told."""

from pathlib import Path
from threading import Thread
from time import perf_counter, sleep
from typing import Any

from bench.context import Context
from bench.report import duration
from bench.shame.bounded import at_once, within
from bench.shame.pools import Contestant, Options, opened
from penstock.drill.proxy import ChaosProxy

PATIENCE = 1.0
THREADS, CHECKOUTS, HOLD = 5, 20, 0.002


def lost_reference(name: str, ctx: Context) -> str:
    """A borrower drops its only reference: the slot is back after."""
    pool = opened(name, ctx.dsn, Options(1, timeout=PATIENCE))
    _forget(pool)
    started = perf_counter()
    try:
        within(PATIENCE + 1, lambda: _request(pool))
    except Exception:
        return "**lost**"
    else:
        return duration(perf_counter() - started)
    finally:
        pool.close()


def borrower_named(name: str, ctx: Context) -> str:
    """Every connection is out and the next borrower is refused: does the error say who has them?"""
    pool = opened(name, ctx.dsn, Options(1, timeout=0.1))
    held = _somebody_who_keeps_it(pool)
    try:
        within(1, pool.take)
    except Exception as error:
        told = str(error)
    pool.give(held)
    pool.close()
    return "yes" if Path(__file__).name in told or _somebody_who_keeps_it.__name__ in told else "**no**"


def returned_in_transaction(name: str, ctx: Context) -> str:
    """A connection comes back in an open transaction while somebody waits: what that one gets."""
    pool = opened(name, ctx.dsn, Options(1, timeout=PATIENCE))
    connection = pool.take()
    pool.begin(connection)
    told: list[str] = []
    waiter = Thread(target=lambda: told.append(_state_of_next(pool)), daemon=True)
    if pool.waits:
        waiter.start()
        sleep(0.05)  # it waits by now
        pool.give(connection)
    else:
        pool.give(connection)
        waiter.start()
    waiter.join(PATIENCE + 1)
    pool.close()
    return told[0] if told else "**never woken**"


def _state_of_next(pool: Contestant) -> str:
    try:
        connection = pool.take()
    except Exception as error:
        return f"**{type(error).__name__}**"
    state = "clean" if pool.clean(connection) else "**the transaction**"
    pool.give(connection)
    return state


def _request(pool: Contestant) -> None:
    pool.give(pool.take())


def _forget(pool: Contestant) -> None:
    pool.take()


def _somebody_who_keeps_it(pool: Contestant) -> Any:
    return pool.take()


def thrash(name: str, ctx: Context) -> str:
    """Keep 1, allow 10; 5 threads, 100 checkouts: connections opened."""
    with ChaosProxy(ctx.server.host, ctx.server.port) as proxy:
        pool = opened(name, proxy.through(ctx.dsn), Options(10, min_size=1))

        def client(_: int) -> None:
            for _ in range(CHECKOUTS):
                connection = pool.take()
                pool.ask(connection)
                sleep(HOLD)
                pool.give(connection)

        at_once(THREADS, client)
        pool.close()
        dialled = proxy.accepted
    return f"**{dialled}**" if dialled > 10 else str(dialled)
