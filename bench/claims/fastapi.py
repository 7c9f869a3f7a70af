"""One FastAPI application, one uvicorn process, 300 clients at once, 10 database connections: whose pool does most?"""

import contextlib
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
from bench.fastapi_app import CONNECTIONS, OURS, PEERS
from bench.measure import turns
from bench.multiplexed import accounts
from bench.report import Line, Result, duration, figure, listed

CLAIM = "FastAPI under wrk, 300 clients, 10 database connections"
BAR = (
    "requests a second and p99: the best peer's at least, with fetchrow 1.5x; no errors; never more than 10 connections"
)

CLIENTS = 300
ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parents[1] / "wrk.lua"
LOOK_SECONDS = 0.02  # between two looks at the server


class Turn(NamedTuple):
    """What wrk has seen of one contestant in one round; times in seconds."""

    per_second: float
    p50: float
    p99: float
    errors: int
    connections: int  # the most at any look
    looks: int


def run(ctx: Context) -> Result:
    if shutil.which("wrk") is None:
        return [Line(CLAIM, "not measured: no wrk", "", "", "(scripts/wrk.sh installs it)", None)]
    rounds, seconds = (1, 3) if ctx.quick else (5, 6)
    names = [*OURS, *PEERS]
    found: dict[str, list[Turn]] = {name: [] for name in names}
    with accounts(ctx):
        for name in turns(names, rounds):
            turn = _turn(ctx, name, seconds)
            found[name].append(turn)
            ctx.say(
                f"{name}: {figure(turn.per_second)}/s, p50 {duration(turn.p50)}, p99 {duration(turn.p99)},"
                f" {turn.errors} errors, at most {turn.connections} connections ({turn.looks} looks)"
            )
    return _lines(found)


def _lines(found: dict[str, list[Turn]]) -> Result:
    rates = {name: median(turn.per_second for turn in each) for name, each in found.items()}
    lasts = {name: median(turn.p99 for turn in each) for name, each in found.items()}
    best, least = max(rates[name] for name in PEERS), min(lasts[name] for name in PEERS)
    lines = []
    for name in OURS:
        bar = 1.5 if name == "ours, fetchrow" else 1.0
        ratio = rates[name] / best
        peers = listed({peer: rates[peer] for peer in PEERS}, "/s")
        lines.append(
            Line(f"FastAPI, {name}", f"{figure(rates[name])} /s", peers, f"{ratio:.2f}x", f">= {bar:g}x", ratio >= bar)
        )
        tails = ", ".join(f"{peer} {duration(lasts[peer])}" for peer in PEERS)
        met = lasts[name] <= least
        lines.append(
            Line(f"FastAPI, {name}: p99", duration(lasts[name]), tails, f"{least / lasts[name]:.2f}x", ">= 1x", met)
        )
    mine = [turn for name in OURS for turn in found[name]]
    errors, most, looks = sum(turn.errors for turn in mine), max(turn.connections for turn in mine), len(mine)
    lines.append(Line("FastAPI, ours: errors", str(errors), "", "", "0", errors == 0))
    seen = f"{most} ({sum(turn.looks for turn in mine)} looks in {looks} turns)"
    lines.append(
        Line("FastAPI, ours: most connections at any look", seen, "", "", f"<= {CONNECTIONS}", most <= CONNECTIONS)
    )
    return lines


def _turn(ctx: Context, name: str, seconds: int) -> Turn:
    with _uvicorn(ctx.dsn, name) as url:
        # Statements are prepared, connections open, code warm. By few clients: those who come to a busy loop are let in
        # one by one, and would be what is measured.
        _wrk(url, 1, CONNECTIONS)
        with _looking(ctx) as counts:
            requests, took, p50, p99, errors = _wrk(url, seconds)
    assert counts, "bug: nobody looked"
    return Turn(requests / took, p50 / 1e6, p99 / 1e6, int(errors), max(counts), len(counts))


def _wrk(url: str, seconds: int, clients: int = CLIENTS) -> list[float]:
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "-s", str(SCRIPT), url]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    line = next(line for line in output.splitlines() if line.startswith("FIGURES "))
    return [float(word) for word in line.split()[1:]]


@contextlib.contextmanager
def _uvicorn(dsn: str, name: str) -> Iterator[str]:
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
        yield f"http://127.0.0.1:{port}"
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
