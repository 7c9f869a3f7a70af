"""What it costs an application to be watched, and whether its leaks are named: `penstock run --watch`."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.request import urlopen

from bench.context import Context
from bench.measure import turns
from bench.multiplexed import accounts
from bench.report import Line, Result, duration, figure

CLAIM = "Flask, psycopg2, a connection a request, under penstock run --watch"
BAR = ">= 0.95x of the requests that it answers alone; every leaking line named, and no other"

SHARE = 0.95
CLIENTS = 8
THREADS = 8
ROOT = Path(__file__).parents[2]
APP = ROOT / "bench" / "flask_app.py"
SCRIPT = ROOT / "bench" / "wrk.lua"
COMING = 1  # seconds for which all clients connect and none asks (wrk.lua)
ASKED = 20  # requests of each page that leaks, half of which fail where that is what leaks


class Turn(NamedTuple):
    per_second: float
    p99: float
    processor: float  # of the worker, a request


def run(ctx: Context) -> Result:
    if shutil.which("wrk") is None:
        return [Line(CLAIM, "not measured: no wrk", "", "", "(scripts/wrk.sh installs it)", None)]
    rounds, seconds = (2, 2) if ctx.quick else (12, 3)
    with accounts(ctx), tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        found: dict[str, list[Turn]] = {"alone": [], "watched": []}
        with _serving(ctx, []) as alone, _serving(ctx, _watch(report)) as watched:
            servers = {"alone": alone, "watched": watched}
            for url, _ in servers.values():
                _wrk(url, 1)  # warm
            for name in turns(list(servers), rounds):
                url, worker = servers[name]
                turn = _turn(url, worker, seconds)
                found[name].append(turn)
                ctx.say(f"{name}: {figure(turn.per_second)}/s, {turn.processor * 1e6:.0f} us of processor each")
            for page in ("forgotten", "unclosed"):
                for account in range(ASKED):
                    with contextlib.suppress(HTTPError):
                        urlopen(f"{watched[0]}/{page}/{account}", timeout=30).read()
        named = {
            int(site["lines"][0].rpartition(" in ")[0].rpartition(":")[2])
            for database in json.loads(report.read_text())["databases"]
            for site in database["sites"]
            if site["leaks"]
        }
    return [*_lines(found), _leaks(named)]


def _lines(found: dict[str, list[Turn]]) -> Result:
    alone, watched = (median(turn.per_second for turn in found[name]) for name in ("alone", "watched"))
    lines = [
        Line(
            CLAIM,
            f"{figure(watched)} /s",
            f"alone {figure(alone)} /s",
            f"{watched / alone:.3f}x",
            f">= {SHARE}x",
            watched >= SHARE * alone,
        )
    ]
    alone, watched = (median(turn.processor for turn in found[name]) * 1e6 for name in ("alone", "watched"))
    told = f"alone {figure(alone)} us"
    ratio = f"{watched / alone:.3f}x"
    lines.append(Line(f"{CLAIM}: processor time a request", f"{figure(watched)} us", told, ratio, "", None))
    alone, watched = (median(turn.p99 for turn in found[name]) for name in ("alone", "watched"))
    lines.append(Line(f"{CLAIM}: p99", duration(watched), f"alone {duration(alone)}", "", "", None))
    return lines


def _leaks(named: set[int]) -> Line:
    leaking = {number for number, line in enumerate(APP.read_text().splitlines(), 1) if line.endswith("# leak")}
    told = f"{len(named & leaking)} of {len(leaking)} named, {len(named - leaking)} others"
    return Line(f"{CLAIM}: leaking lines", told, "", "", "all, and no other", named == leaking)


def _turn(url: str, worker: int, seconds: int) -> Turn:
    spent = _processor(worker)
    requests, took, p99 = _wrk(url, seconds)
    return Turn(requests / took, p99 / 1e6, (_processor(worker) - spent) / requests)


def _wrk(url: str, seconds: int) -> tuple[float, float, float]:
    """Requests answered, seconds that took, microseconds at p99.

    :raises RuntimeError: when one failed: then it is no measurement.
    """
    command = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{seconds + COMING}s", "-s", str(SCRIPT), url]
    words = [*command, "--", "one", str(CLIENTS)]
    output = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    line = next(line for line in output.splitlines() if line.startswith("FIGURES "))
    requests, took, p99, errors = map(float, line.split()[1:])
    if errors:
        raise RuntimeError(f"{errors:.0f} requests failed")
    return requests, took - COMING, p99


def _processor(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _watch(report: Path) -> list[str]:
    return [sys.executable, "-m", "penstock.cli", "run", "--watch", "--report", str(report), "--"]


@contextlib.contextmanager
def _serving(ctx: Context, run: list[str]) -> Iterator[tuple[str, int]]:
    """Where it is served, and the process that does the work."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    gunicorn = [sys.executable, "-m", "gunicorn", "-w", "1", "--threads", str(THREADS), "-b", f"127.0.0.1:{port}"]
    process = subprocess.Popen(
        [*run, *gunicorn, "--log-level", "critical", "bench.flask_app:app"],
        cwd=ROOT,
        env={**os.environ, "PENSTOCK_BENCH_DSN": ctx.dsn},
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        _await(f"{url}/one/1", process)
        yield url, _innermost(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _innermost(pid: int) -> int:
    """The child's child's child: gunicorn's worker."""
    while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        pid = int(children[0])
    return pid


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError("gunicorn has ended")
        with contextlib.suppress(OSError):
            urlopen(url, timeout=5).read()
            return
        time.sleep(0.05)
    raise RuntimeError("gunicorn did not answer within 30 s")
