"""Clients of the telemetry socket that hang, and one that reads as often as it can, beside a pool at work.

The clients are another process, so that what they take of this one's interpreter is what it gives them. Rounds take
turns: nobody looks, many hang, one reads without pause.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench.context import Context
from bench.measure import interleave, quantile
from bench.report import Line, Result, figure
from penstock import Pool
from penstock.observe import watching
from penstock.observe.telemetry import reader

CLAIM = "a client of the telemetry socket that hangs, while 4 threads share 2 connections"
BAR = "no effect on the pool's p99: <= 1.1x, or <= 0.2 ms more; who asks properly is told meanwhile"

ROUNDS, SECONDS = 7, 1.5
THREADS, SIZE = 4, 2
HANGING = 64
RATIO, SLACK = 1.1, 0.0002

# Half of them say nothing, half ask and never read; each that is cut off comes again after a second.
_HANG = """
import select, socket, sys, time
path, count = sys.argv[1], int(sys.argv[2])
poll, there, gone = select.poll(), {}, []
def come(number):
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    if number % 2:
        client.send(b"GET / HTTP/1.0\\r\\n\\r\\n")
    there[client.fileno()] = (number, client)
    poll.register(client, select.POLLHUP)
for number in range(count):
    come(number)
print("there", flush=True)
while True:
    for descriptor, _ in poll.poll(100):
        number, client = there.pop(descriptor)
        poll.unregister(descriptor)
        client.close()
        gone.append((time.monotonic() + 1, number))
    while gone and gone[0][0] <= time.monotonic():
        come(gone.pop(0)[1])
"""
_READ = """
import sys
from pathlib import Path
from penstock.observe.telemetry import reader
paths = [Path(sys.argv[1])]
reader.read(5, paths)
print("there", flush=True)
while True:
    reader.read(5, paths)
"""


def run(ctx: Context) -> Result:
    seconds = 0.5 if ctx.quick else SECONDS
    with Pool(ctx.dsn, min_size=SIZE, open=True, kwargs={"autocommit": True}) as pool:
        pool.wait()
        assert watching._watching is not None, "nothing is watched"
        path = watching._watching.server.path
        assert path is not None, "there is no socket"
        told = []

        def hanging() -> list[float]:
            with _beside(_HANG, path, HANGING):
                found = _acquires(pool, seconds)
                told.append(_asked(path))
                return found

        def read() -> list[float]:
            with _beside(_READ, path):
                return _acquires(pool, seconds)

        contestants: dict[str, Callable[[], list[float]]] = {
            "nobody": lambda: _acquires(pool, seconds),
            "hanging": hanging,
            "reading": read,
        }
        found = interleave(contestants, 2 if ctx.quick else ROUNDS)
    p99 = {name: median(quantile(each, 0.99) for each in rounds) for name, rounds in found.items()}
    return [
        _line(f"{HANGING} clients that hang", p99["hanging"], p99["nobody"], bar=True),
        _line("one that reads without pause", p99["reading"], p99["nobody"], bar=False),
        Line(
            "telemetry_hang: who asks properly is told, at the latest, after",
            f"{max(told):.1f} s",
            "",
            "",
            "<= 3 s",
            max(told) <= 3,
        ),
    ]


def _line(what: str, ours: float, alone: float, bar: bool) -> Line:
    met = ours <= alone * RATIO or ours - alone <= SLACK
    return Line(
        f"telemetry_hang: p99 of an acquire, {what}",
        f"{figure(ours * 1e3)} ms",
        f"nobody {figure(alone * 1e3)} ms",
        f"{ours / alone:.2f}x",
        f"<= {RATIO:g}x, or {SLACK * 1e3:g} ms more" if bar else "",
        met if bar else None,
    )


def _acquires(pool: Pool, seconds: float) -> list[float]:
    """How long each took to have a connection, of threads that ask `SELECT 1` on it."""
    until = time.perf_counter() + seconds
    waits: list[list[float]] = [[] for _ in range(THREADS)]

    def work(mine: list[float]) -> None:
        while (asked := time.perf_counter()) < until:
            with pool.connection() as conn:
                mine.append(time.perf_counter() - asked)
                conn.execute("SELECT 1")

    threads = [threading.Thread(target=work, args=(mine,)) for mine in waits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [wait for mine in waits for wait in mine]


@contextmanager
def _beside(script: str, path: Path, *words: object) -> Iterator[None]:
    """A process that does so for the length of the block."""
    running = subprocess.Popen(
        [sys.executable, "-c", script, str(path), *map(str, words)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == "there\n", "it did not begin"
        yield
    finally:
        running.kill()
        running.communicate()


def _asked(path: Path) -> float:
    """Seconds until who asks properly has the document."""
    began = time.perf_counter()
    found = reader.read(20, [path])
    assert found.documents, json.dumps([silent.why for silent in found.silent])
    return time.perf_counter() - began
