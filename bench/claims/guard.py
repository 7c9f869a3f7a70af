"""A Flask application that connects for each request, and leaks: alone, and under `penstock run --hold`."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.claims.fastapi import SCRIPT
from bench.context import Context
from bench.measure import turns
from bench.multiplexed import accounts
from bench.report import Line, Result, figure
from penstock.drill.postgres import EmbeddedPostgres

CLAIM = "A leaking Flask application with psycopg2, 300 clients, max_connections 50"
BAR = "alone: too many clients; --hold --max 10: no errors, <= 10 connections a worker at every look, >= 1.5x answers"

CLIENTS = 300
MAX = 10
SLOTS = 50
FASTER = 1.5
LOOK_SECONDS = 0.002
COMING = 1  # seconds for which all clients connect and none asks (wrk.lua)
ROOT = Path(__file__).parents[2]
HOLD = ["run", "--hold", "--max", str(MAX), "--"]
# How the application is served: the command, and how many processes that makes.
_GUNICORN = ["-m", "gunicorn", "bench.naive_app:app", "--worker-class", "gthread", "--log-level", "critical"]
SERVERS = {
    "gunicorn, 1 worker of 100 threads": ([*_GUNICORN, "--workers", "1", "--threads", "100", "--bind"], 1),
    "gunicorn, 2 workers of 50 threads": ([*_GUNICORN, "--workers", "2", "--threads", "50", "--bind"], 2),
    "Flask's own server, threaded": (["-m", "bench.naive_app"], 1),
}
ALONE, HELD, TIDY = "alone", "--hold", "alone, without its leaks"


class Turn(NamedTuple):
    """One round. *errors*: answers that the application could not give, and requests that were not answered."""

    per_second: float
    errors: int
    connections: int  # the most at any look
    looks: int
    said: str  # what the driver said most often when there was no connection


def run(ctx: Context) -> Result:
    rounds, seconds = (1, 4) if ctx.quick else (3, 6)
    lines: Result = []
    with EmbeddedPostgres(max_connections=SLOTS) as server:
        own = Context(server, ctx.quick, ctx.say)
        with accounts(own):
            for title, (command, workers) in SERVERS.items():
                found: dict[str, list[Turn]] = {ALONE: [], HELD: [], TIDY: []}
                for name in turns(list(found), rounds):
                    turn = _turn(server, command, name, seconds)
                    found[name].append(turn)
                    ctx.say(
                        f"{title}, {name}: {figure(turn.per_second)} answers/s, {turn.errors} errors,"
                        f" at most {turn.connections} connections ({turn.looks} looks) {turn.said}"
                    )
                lines += _lines(title, workers, found)
    return lines


def _lines(title: str, workers: int, found: dict[str, list[Turn]]) -> Result:
    rates = {name: median(turn.per_second for turn in each) for name, each in found.items()}
    held, alone = found[HELD], found[ALONE]
    errors, most = sum(turn.errors for turn in held), max(turn.connections for turn in held)
    looks = sum(turn.looks for turn in held)
    said = alone[0].said or "nothing"
    ratio = rates[HELD] / max(rates[ALONE], 0.1)
    peers = f"alone {figure(rates[ALONE])} /s, and without leaks {figure(rates[TIDY])} /s"
    return [
        Line(f"{title}: alone", f"{sum(turn.errors for turn in alone)} errors", said, "", "too many clients",
             all("too many clients" in turn.said or "remaining connection slots" in turn.said for turn in alone)),
        Line(f"{title}: errors", str(errors), "", "", "0", errors == 0),
        Line(f"{title}: most connections", f"{most} ({looks} looks)", "", "", f"<= {MAX * workers}",
             most <= MAX * workers),
        Line(f"{title}: good answers", f"{figure(rates[HELD])} /s", peers, f"{ratio:.1f}x", f">= {FASTER:g}x",
             ratio >= FASTER),
    ]  # fmt: skip


def _turn(server: EmbeddedPostgres, command: Sequence[str], name: str, seconds: int) -> Turn:
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        errors = Path(folder, "errors")
        with _served(server.dsn, command, name, errors) as url:
            _wrk(url, 1, 4)
            errors.unlink(missing_ok=True)
            with _looking(server) as counts:
                answered, took, failed = _wrk(url, seconds, CLIENTS)
        assert counts, "bug: nobody looked"
        said = Counter(errors.read_text().splitlines() if errors.exists() else []).most_common(1)
        return Turn(max(0.0, answered - failed) / took, failed, max(counts), len(counts), said[0][0] if said else "")


def _wrk(url: str, seconds: int, clients: int) -> tuple[float, float, int]:
    """Requests answered, seconds that took, errors."""
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds + COMING}s", "-s", str(SCRIPT), url]
    output = subprocess.run(
        [*command, "--", "account", str(clients)], check=True, capture_output=True, text=True
    ).stdout
    line = next(line for line in output.splitlines() if line.startswith("FIGURES "))
    requests, took, _, errors = map(float, line.split()[1:])
    return requests, took - COMING, int(errors)


@contextlib.contextmanager
def _served(dsn: str, command: Sequence[str], name: str, errors: Path) -> Iterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    guard = [str(Path(sys.executable).with_name("penstock")), *HOLD] if name == HELD else []
    where = f"127.0.0.1:{port}" if command[-1] == "--bind" else str(port)
    leaks = "no" if name == TIDY else "yes"
    process = subprocess.Popen(
        [*guard, sys.executable, *command, where],
        cwd=ROOT,
        env={
            **os.environ,
            "PENSTOCK_BENCH_DSN": dsn,
            "PENSTOCK_BENCH_ERRORS": str(errors),
            "PENSTOCK_BENCH_LEAKS": leaks,
        },
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _await(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError("the server has ended")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.05)
    raise RuntimeError("the server did not listen within 20 s")


@contextlib.contextmanager
def _looking(server: EmbeddedPostgres) -> Iterator[list[int]]:
    """How many connections the server has for the application, every 2 ms."""
    counts: list[int] = []
    done = threading.Event()

    def look() -> None:
        with server.admin() as admin:
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
