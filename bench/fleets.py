"""Fleets of real processes: the drill's scale-out, played once for all claims that read it, and smaller ones."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from bench.context import Context
from penstock.drill.arms.penstock_pool import PenstockPool
from penstock.drill.conduct import conduct
from penstock.drill.measure import Sampler
from penstock.drill.replica import Posting
from penstock.drill.replicas import Replicas
from penstock.drill.scaleout import INTERVAL
from penstock.drill.scaleout_result import ScaleOutResult
from penstock.drill.scenarios import choose
from penstock.drill.server import Server, embedded
from penstock.drill.work import Work

ROUNDS, QUICK_ROUNDS = 2, 1
WORK = Work(elsewhere=0.0, failing=0.0, slow=1.0, slow_seconds=0.1)


@cache
def played(quick: bool, say: Callable[[str], None]) -> list[ScaleOutResult]:
    """What became of Penstock's arm in the drill's `scale-out`, each time on a server of its own."""
    [scenario] = choose("scale-out")
    results = []
    for _ in range(QUICK_ROUNDS if quick else ROUNDS):
        with embedded(scenario.max_connections) as server:
            [result] = conduct(scenario, [PenstockPool], server, lambda result, seconds: None).results
        assert isinstance(result, ScaleOutResult)
        results.append(result)
        shares = ", ".join(f"{change.label} {result.share_in(change):.3f}" for change in result.changes)
        say(f"{len(result.samples):,} looks, {result.peak} of {result.line} at most; in use after: {shares}")
        ready = f"{result.ready_after(0.5) or 0:.1f} s, {result.ready_after(1.0) or 0:.1f} s at most"
        say(f"ready after {ready}, {result.not_ready} not at all; {result.lost} of {result.requests:,} requests lost")
    return results


class Fleet:
    """Some members with a pool each, and a sampler.

    :ivar replicas: the processes; `replicas.clients` of them never pause.
    """

    def __init__(self, server: Server, replicas: Replicas, sampler: Sampler) -> None:
        self.server = server
        self.replicas = replicas
        self._sampler = sampler

    @property
    def held(self) -> int:
        """Connections that all of them have now."""
        return self._sampler.count()

    def until(self, done: Callable[[], bool], at_most: float) -> float:
        """Let time pass until it is *done*; return the seconds that it took, infinity when it was not."""
        began = time.monotonic()
        while not done():
            if time.monotonic() - began > at_most:
                return float("inf")
            self.replicas.collect(INTERVAL)
        return time.monotonic() - began

    def go_on(self, seconds: float) -> None:
        """Let *seconds* pass."""
        self.until(lambda: False, seconds)

    def join(self, number: int, at_most: float = 60.0) -> None:
        """Start so many, and wait until each has a connection."""
        coming = self.replicas.start(number)
        self.until(lambda: all(one.ready or one.why for one in coming), at_most)
        assert all(one.ready for one in coming), "some never got a connection"


@contextmanager
def fleet(budget: int, members: int, clients: int) -> Iterator[Fleet]:
    """A fleet with nobody in it yet, on a server of its own that would let in far more than *budget*."""
    with embedded(2 * budget + 10) as server:
        posting = Posting(0, PenstockPool, server.dsn, budget, budget, members, WORK, 5.0, time.monotonic())
        with Sampler(server.admin_dsn, alone=True) as sampler, Replicas(posting, server.dsn, clients) as replicas:
            yield Fleet(server, replicas, sampler)


def play(ctx: Context) -> list[ScaleOutResult]:
    """As `played`, for whoever has a context."""
    return played(ctx.quick, ctx.say)
