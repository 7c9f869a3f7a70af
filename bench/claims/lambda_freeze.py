"""200 processes of a function and 50 slots: all invoked at once, frozen past the server's timeouts, thawed at once.

The server ends what is idle for a second (idle_session_timeout), and the freeze is longer. Then 120 are thawed while
the others stay frozen. Each event has ten seconds; one that has no answer by then, or an error for one, is an error.
Connections are counted by the server, every 10 ms as far as the machine lets it.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bench.context import Context
from bench.environments import WORK, Answer, Platform
from bench.measure import interleave
from bench.report import Line, Result, figure, listed
from penstock.drill.postgres import EmbeddedPostgres

CLAIM = "200 frozen and thawed processes of a function, 50 slots"
BAR = "0 errors after a thaw, <= 50 connections"

PROCESSES, SLOTS = 200, 50
SECONDS = 10.0  # that each event may take
FROZEN_SECONDS = 1.5  # past the server's second
ROUNDS, QUICK_ROUNDS = 3, 1
OURS = "penstock"
PEERS = ("connection outside", "connection inside", "psycopg_pool")
_COUNT = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'"


@dataclass(slots=True)
class Play:
    """What became of it."""

    cold: list[Answer] = field(default_factory=list)
    thawed: list[Answer] = field(default_factory=list)
    peak: int = 0
    frozen: int = 0  # connections that frozen processes had, at most

    def errors(self) -> int:
        return sum(answer.error is not None for answer in self.thawed)

    def cold_errors(self) -> int:
        return sum(answer.error is not None for answer in self.cold)

    def middle(self) -> float:
        """Seconds that the median event took, among those that were answered."""
        return median([answer.seconds for answer in self.thawed if answer.error is None] or [float("nan")])


def run(ctx: Context) -> Result:
    kinds = (OURS, "penstock keep=0", *PEERS)
    plays = interleave({kind: lambda kind=kind: play(kind) for kind in kinds}, QUICK_ROUNDS if ctx.quick else ROUNDS)
    for kind, some in plays.items():
        said = Counter(answer.error[:70] for one in some for answer in one.cold + one.thawed if answer.error)
        ctx.say(f"{kind}: {[one.errors() for one in some]} errors, {dict(said.most_common(3))}")

    def worst(kind: str, what: Any) -> int:
        return max(what(one) for one in plays[kind])

    thawed = len(plays[OURS][0].thawed)
    return [
        Line(
            f"errors among {thawed} events after a thaw",
            f"{worst(OURS, Play.errors)}",
            listed({kind: worst(kind, Play.errors) for kind in PEERS}),
            "",
            "0",
            worst(OURS, Play.errors) == 0,
        ),
        Line(
            f"errors among {PROCESSES} events at a cold start, all at once",
            f"{worst(OURS, Play.cold_errors)}",
            listed({kind: worst(kind, Play.cold_errors) for kind in PEERS}),
            "",
            "0",
            worst(OURS, Play.cold_errors) == 0,
        ),
        Line(
            f"the most connections, looked at every 10 ms; of {SLOTS}",
            f"{worst(OURS, lambda one: one.peak)}",
            listed({kind: worst(kind, lambda one: one.peak) for kind in PEERS}),
            "",
            f"<= {SLOTS}",
            worst(OURS, lambda one: one.peak) <= SLOTS,
        ),
        Line(
            f"connections of frozen processes, at most (keep=0.5 of {SLOTS})",
            f"{worst(OURS, lambda one: one.frozen)}",
            listed({kind: worst(kind, lambda one: one.frozen) for kind in PEERS}),
            "",
            f"<= {SLOTS // 2}",
            worst(OURS, lambda one: one.frozen) <= SLOTS // 2,
        ),
        Line(
            "an event after a thaw, the median of those answered (keep=0: "
            f"{figure(median(one.middle() for one in plays['penstock keep=0']))} s)",
            f"{figure(median(one.middle() for one in plays[OURS]))} s",
            listed({kind: median(one.middle() for one in plays[kind]) for kind in PEERS}, "s"),
            "",
            "",
            None,
        ),
    ]


def play(kind: str) -> Play:
    with EmbeddedPostgres(max_connections=SLOTS + 5) as server, server.admin() as admin:
        admin.execute("ALTER ROLE app SET idle_session_timeout = '1s'")
        admin.execute("ALTER ROLE app SET idle_in_transaction_session_timeout = '1s'")
        admin.execute(f"ALTER ROLE app CONNECTION LIMIT {SLOTS}")
        found = Play()
        with Platform(kind, server.dsn, PROCESSES) as platform, _looked_at(server, found):
            everybody = platform.environments
            found.cold = platform.invoke(WORK, SECONDS)
            for some in (everybody, everybody[: PROCESSES * 3 // 5]):
                [(held,)] = admin.execute(_COUNT).fetchall()
                found.frozen = max(found.frozen, held)
                time.sleep(FROZEN_SECONDS)
                found.thawed += platform.invoke(WORK, SECONDS, some)
        return found


@contextmanager
def _looked_at(server: EmbeddedPostgres, found: Play) -> Iterator[None]:
    over = threading.Event()

    def look() -> None:
        with server.admin() as admin:
            while not over.wait(0.01):
                [(held,)] = admin.execute(_COUNT).fetchall()
                found.peak = max(found.peak, held)

    looker = threading.Thread(target=look)
    looker.start()
    try:
        yield
    finally:
        over.set()
        looker.join()
