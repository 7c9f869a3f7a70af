"""One FastAPI application, one uvicorn process, 300 clients at once, 10 database connections: whose pool does most?"""

import contextlib
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.context import Context
from bench.fastapi_app import BESIDE, CONNECTIONS, MANY, MIDDLEWARE, OURS, PEERS
from bench.measure import turns
from bench.multiplexed import accounts
from bench.report import Line, Result, duration, figure, listed

CLAIM = "FastAPI under wrk, 300 clients, 10 database connections"
BAR = (
    ">= the best of SQLAlchemy's and psycopg_pool's, with fetchrow >= 1.5x; no errors; <= 10 connections at every look"
)

CLIENTS = 300
PAGES = {"one": "one statement a page", "many": f"{MANY} statements a page"}
FETCH_BAR = 1.5
JUDGED = (
    "psycopg_pool",
    "SQLAlchemy, psycopg",
    "SQLAlchemy, asyncpg",
)  # whom the bar names; asyncpg's own stands beside
ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parents[1] / "wrk.lua"
COMING = 1  # seconds for which all clients connect and none asks (wrk.lua)
LOOK_SECONDS = 0.02  # between two looks at the server


class Turn(NamedTuple):
    """What wrk has seen of one contestant's page in one round; times in seconds."""

    per_second: float
    p99: float
    processor: float  # of the one process that serves, a request
    errors: int
    connections: int  # the most at any look
    looks: int


Found = dict[tuple[str, str], list[Turn]]  # by contestant and page


def run(ctx: Context) -> Result:
    if shutil.which("wrk") is None:
        return [Line(CLAIM, "not measured: no wrk", "", "", "(scripts/wrk.sh installs it)", None)]
    rounds, seconds = (1, 3) if ctx.quick else (3, 4)
    names = [*OURS, *PEERS, *BESIDE, MIDDLEWARE]
    found: Found = {(name, page): [] for name in names for page in PAGES}
    with accounts(ctx):
        for name in turns(names, rounds):
            for page, turn in _turn(ctx, name, seconds).items():
                found[name, page].append(turn)
                ctx.say(
                    f"{name}, {page}: {figure(turn.per_second)}/s, p99 {duration(turn.p99)}, {turn.errors} errors,"
                    f" {turn.processor * 1e6:.0f} us of processor each, {turn.connections} connections"
                )
    return [line for page in PAGES for line in _lines(found, page)] + _beside(found) + _limits(found)


def _lines(found: Found, page: str) -> Result:
    rates = {name: median(turn.per_second for turn in found[name, page]) for name in (*OURS, *PEERS)}
    tails = {name: median(turn.p99 for turn in found[name, page]) for name in (*OURS, *PEERS)}
    costs = {name: median(turn.processor for turn in found[name, page]) * 1e6 for name in (*OURS, *PEERS)}
    best, least = max(rates[peer] for peer in JUDGED), min(tails[peer] for peer in JUDGED)
    lines = []
    for name in OURS:
        bar = FETCH_BAR if name == "ours, fetchrow" else 1.0
        ratio = rates[name] / best
        title = f"FastAPI, {PAGES[page]}, {name}"
        peers = listed({peer: rates[peer] for peer in PEERS}, "/s")
        beside = f"{ratio:.2f}x (asyncpg's own pool: {rates[name] / rates['asyncpg']:.2f}x)"
        lines.append(Line(title, f"{figure(rates[name])} /s", peers, beside, *_bar(bar, ratio)))
        peers = ", ".join(f"{peer} {duration(tails[peer])}" for peer in PEERS)
        gain = least / tails[name]
        beside = f"{gain:.2f}x (asyncpg's own pool: {tails['asyncpg'] / tails[name]:.2f}x)"
        lines.append(Line(f"{title}: p99", duration(tails[name]), peers, beside, *_bar(1, gain)))
        peers = listed({peer: costs[peer] for peer in PEERS}, "us")
        lines.append(Line(f"{title}: processor time a request", f"{figure(costs[name])} us", peers, "", "", None))
    return lines


def _bar(bar: float, ratio: float) -> tuple[str, bool]:
    return f">= {bar:g}x", ratio >= bar


def _beside(found: Found) -> Result:
    rates = {name: median(turn.per_second for turn in found[name, "one"]) for name in (*BESIDE, MIDDLEWARE)}
    return [Line("FastAPI, one statement a page, beside", listed(rates, "/s"), "", "", "", None)]


def _limits(found: Found) -> Result:
    mine = [turn for (name, _), each in found.items() if name in OURS for turn in each]
    errors, most = sum(turn.errors for turn in mine), max(turn.connections for turn in mine)
    looks = f"{most} ({sum(turn.looks for turn in mine)} looks)"
    return [
        Line("FastAPI, ours: errors", str(errors), "", "", "0", errors == 0),
        Line("FastAPI, ours: most connections", looks, "", "", f"<= {CONNECTIONS}", most <= CONNECTIONS),
    ]


def _turn(ctx: Context, name: str, seconds: int) -> dict[str, Turn]:
    turn = {}
    with _uvicorn(ctx.dsn, name) as (process, url):
        for page in PAGES:
            _wrk(url, page, 1, CONNECTIONS)  # statements are prepared, connections open, code warm
            with _looking(ctx) as counts:
                spent = _processor(process)
                requests, took, p99, errors = _wrk(url, page, seconds, CLIENTS)
                spent = _processor(process) - spent
            assert counts, "bug: nobody looked"
            if requests:
                each = (requests / took, p99 / 1e6, spent / requests, errors)
            else:  # on a machine so busy that nobody was answered
                each = (0.0, math.inf, math.nan, errors)
            turn[page] = Turn(*each, max(counts), len(counts))
    return turn


def _wrk(url: str, page: str, seconds: int, clients: int) -> tuple[float, float, float, int]:
    """Requests answered, seconds that took, microseconds at p99, errors."""
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds + COMING}s", "-s", str(SCRIPT), url, "--", page, str(clients)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    line = next(line for line in output.splitlines() if line.startswith("FIGURES "))
    requests, took, p99, errors = map(float, line.split()[1:])
    return requests, took - COMING, p99, int(errors)


def _processor(process: subprocess.Popen[bytes]) -> float:
    """Seconds of processor time that it has used."""
    user, system = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def _uvicorn(dsn: str, name: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "--factory", "bench.fastapi_app:application", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--no-access-log", "--log-level", "error", "--backlog", "2048"],
        cwd=ROOT,
        env={**os.environ, "PENSTOCK_BENCH_POOL": name, "PENSTOCK_BENCH_DSN": dsn},
    )
    try:
        _await(port, process)
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError("uvicorn has ended")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.05)
    raise RuntimeError("uvicorn did not listen within 20 s")


@contextlib.contextmanager
def _looking(ctx: Context) -> Iterator[list[int]]:
    """How many connections the server has for the application, again and again."""
    counts: list[int] = []
    done = threading.Event()

    def look() -> None:
        with ctx.server.admin() as admin:
            while not done.wait(LOOK_SECONDS):
                row = admin.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename = 'app'"
                ).fetchone()
                assert row is not None
                counts.append(row[0])

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield counts
    finally:
        done.set()
        thread.join()
