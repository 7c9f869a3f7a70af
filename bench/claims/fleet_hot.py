"""Eight services share 24 connections, and one of them has as much to do as all others together.

Requests come at random at 0.81 of what 24 connections can do (the skew of the simulation that the design rests on), to
each service in a process of its own, and are of use for a second. With an equal split each has a pool of three. The
best possible is one process with one pool of 24 that is asked all of it. Everybody has the same pool, with its
deadlines and shedding, so the split is all that differs. Counted are useful answers a second, once shares have had time
to follow.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from statistics import median

import penstock
from bench.context import Context
from bench.measure import interleave
from bench.openloop import Load, poisson
from bench.report import Line, Result, figure
from bench.services import Service, capacity, offered
from penstock.drill.server import embedded

CLAIM = "one hot service of eight that share 24 connections"
BAR = ">= 1.15x of an equal split, >= 0.97 of the best possible"

SERVICES, BUDGET = 8, 24
OFFERED, HOT = 0.81, 0.5  # of the capacity; and of that, to one service
WORK, DEADLINE = 0.03, 1.0
FOLLOW, SECONDS = 25.0, 20.0  # until shares have followed, and that are counted then
ROUNDS, QUICK_ROUNDS = 3, 1
OVER_EQUAL, OF_BEST = 1.15, 0.97


def run(ctx: Context) -> Result:
    with embedded(BUDGET + 30) as server:
        alone = Service(server.dsn, BUDGET, None, (), DEADLINE, WORK)
        per_second = capacity(alone, 4.0)
        ctx.say(f"{BUDGET} connections do {per_second:.0f} requests a second")
        schedules = _schedules(OFFERED * per_second)
        fleet = penstock.Fleet(BUDGET, members=SERVICES)
        contestants = {
            "fleet": [Service(server.dsn, BUDGET, fleet, one, DEADLINE, WORK) for one in schedules],
            "equal": [Service(server.dsn, BUDGET // SERVICES, None, one, DEADLINE, WORK) for one in schedules],
            "best": [Service(server.dsn, BUDGET, None, sorted(chain(*schedules)), DEADLINE, WORK)],
        }
        rounds = QUICK_ROUNDS if ctx.quick else ROUNDS
        found = interleave({name: _turn(services) for name, services in contestants.items()}, rounds)
    useful = {name: median(figures) for name, figures in found.items()}
    for name, figures in found.items():
        ctx.say(f"{name}: {', '.join(f'{one:.1f}' for one in figures)} useful answers/s")
    return [
        _line("an equal split", useful["fleet"], useful["equal"], OVER_EQUAL),
        _line("the best possible", useful["fleet"], useful["best"], OF_BEST),
    ]


def _schedules(rate: float) -> list[list[float]]:
    """When requests come to each; to the first one more."""
    rates = [HOT * rate] + [(1 - HOT) * rate / (SERVICES - 1)] * (SERVICES - 1)
    return [poisson(one, FOLLOW + SECONDS, seed) for seed, one in enumerate(rates, 1)]


def _turn(services: Sequence[Service]) -> Callable[[], float]:
    return lambda: _useful(offered(services))


def _useful(loads: list[Load]) -> float:
    """Answers a second that came in time, of all services."""
    return sum(load.useful_work(lambda number: 1.0, FOLLOW, FOLLOW + SECONDS) for load in loads)


def _line(what: str, ours: float, theirs: float, bar: float) -> Line:
    ratio = ours / theirs
    claim = f"one hot service of {SERVICES}, {BUDGET} connections: useful answers / {what}"
    return Line(claim, f"{figure(ours)} /s", f"{figure(theirs)} /s", f"{ratio:.3f}x", f">= {bar:g}x", ratio >= bar)
