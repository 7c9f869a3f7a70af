"""Whoever is told of alerts hangs: a callback that never returns, a webhook that accepts and never answers."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from bench.context import Context
from bench.measure import interleave, quantile
from bench.pools import ours
from bench.report import Line, Result
from penstock.observe import alerts
from penstock.observe.alerts import Alert, Kind, _watch

CLAIM = "a checkout while a hundred alerts a second go to a callback that hangs and a webhook that hangs"
BAR = "p99 <= 1.25x that with nobody told"

ROUNDS = 7
SECONDS = 1.0  # of each turn
SIZE = 4
MOST = 1.25
BETWEEN = 0.01  # seconds from one alert to the next


def run(ctx: Context) -> Result:
    with ours(ctx.dsn, SIZE) as pool:
        found = interleave(
            {
                "nobody told": lambda: _p99(pool, _nobody),
                "a callback that returns": lambda: _p99(pool, _willing),
                "ours": lambda: _p99(pool, _hanging),
            },
            3 if ctx.quick else ROUNDS,
        )
    figures = {name: median(turns) * 1e6 for name, turns in found.items()}
    ratio = figures["ours"] / figures["nobody told"]
    peers = ", ".join(f"{name} {figure:.2f}" for name, figure in figures.items() if name != "ours")
    ours_ = f"{figures['ours']:.2f} us"
    return [
        Line("p99 of a checkout while alerts hang", ours_, f"{peers} us", f"{ratio:.2f}x", "<= 1.25x", ratio <= 1.25)
    ]


def _p99(pool: Any, told: Callable[[], Any]) -> float:
    with told():
        taken = []
        until = time.perf_counter() + SECONDS
        while (began := time.perf_counter()) < until:
            with pool.connection():
                pass
            taken.append(time.perf_counter() - began)
    return quantile(taken, 0.99)


@contextmanager
def _nobody() -> Iterator[None]:
    yield


@contextmanager
def _willing() -> Iterator[None]:
    with _telling(lambda _: None, None):
        yield


@contextmanager
def _hanging() -> Iterator[None]:
    never = threading.Event()
    with socket.create_server(("127.0.0.1", 0), backlog=8) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/hook"
        with _telling(lambda _: never.wait(), url):
            yield
        never.set()


@contextmanager
def _telling(callback: Callable[[Alert], object], webhook: str | None) -> Iterator[None]:
    """Far more than a judge would ever raise."""
    alerts.start(callback, webhook=webhook)
    over = threading.Event()

    def tell() -> None:
        while not over.wait(BETWEEN):
            _watch._tell([Alert("bench", Kind.LEAK, time.time(), "made up", 1, 1, SIZE, 0)])

    thread = threading.Thread(target=tell)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        alerts.stop()
