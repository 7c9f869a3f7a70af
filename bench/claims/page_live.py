"""The live page in a real Chromium, without a window, while eight threads use the pool and connections are leaked."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import getsourcelines
from typing import Any

import uvicorn

from bench.browser import NoBrowser, browser, complaints
from bench.context import Context
from bench.report import Line, Result, at_most
from penstock import Pool
from penstock.observe import web

CLAIM = "the live page in headless Chromium, under load: a leak shows with its line, charts move"
BAR = "<= 2 s after it happens (the worst of all), no console errors"

LEAKS = 10
LEAK_AFTER = 0.2  # seconds
MOVES_SECONDS = 5
LATEST = 2.0


def run(ctx: Context) -> Result:
    with Pool(ctx.dsn, min_size=8, max_size=16, name="bench", leak_after=LEAK_AFTER, open=False) as pool:
        pool.wait()
        try:
            with _busy(pool), _served() as address, browser() as chromium:
                chromium.get(f"{address}/")
                _until(lambda: _text(chromium, "#status").endswith("Live"), 20)
                moves = _moves(chromium)
                took = [_leak_shows(pool, chromium) for _ in range(3 if ctx.quick else LEAKS)]
                said = complaints(chromium)
        except NoBrowser as error:
            return [Line("the live page", str(error), "", "", BAR, None)]
    return [
        at_most(
            f"a leak (leak_after={LEAK_AFTER:g}) shows with its line, the worst of {len(took)}", max(took), LATEST, "s"
        ),
        Line("charts drawn anew in a second", f"{moves:.1f}", "", "", "> 0.5", moves > 0.5),
        Line("what the console complains of", "; ".join(said) or "nothing", "", "", "nothing", not said),
    ]


def _leak(pool: Pool[Any]) -> Any:
    return pool.getconn()  # leaked here


_LINE = next(n for n, line in enumerate(getsourcelines(_leak)[0], getsourcelines(_leak)[1]) if "leaked here" in line)


def _leak_shows(pool: Pool[Any], chromium: Any) -> float:
    began = time.monotonic()
    conn = _leak(pool)
    _until(lambda: _shows(chromium, True), 20)
    took = time.monotonic() - began
    pool.putconn(conn)
    _until(lambda: _shows(chromium, False), 20)
    return took


def _shows(chromium: Any, leaked: bool) -> bool:
    text = _text(chromium, "#holders")
    return ("suspected leak" in text and f"page_live.py:{_LINE}" in text) is leaked


def _moves(chromium: Any) -> float:
    """How often the chart is another, in a second."""
    path = "return document.querySelector('#chart-connections path.in-use')?.getAttribute('d')"
    seen, until = set(), time.monotonic() + MOVES_SECONDS
    while time.monotonic() < until:
        seen.add(chromium.execute_script(path))
        time.sleep(0.05)
    return (len(seen) - 1) / MOVES_SECONDS


def _text(chromium: Any, selector: str) -> str:
    return str(chromium.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", selector))


@contextmanager
def _busy(pool: Pool[Any]) -> Iterator[None]:
    over = threading.Event()

    def use() -> None:
        while not over.wait(0.002):
            with pool.connection() as conn:
                conn.execute("SELECT pg_sleep(0.01)")

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


@contextmanager
def _served() -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(web.app(readers="local"), port=0, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    _until(lambda: server.started, 20)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


def _until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not so after {seconds:g} s")
        time.sleep(0.01)
