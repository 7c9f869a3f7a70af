"""What does the database pay for a fleet of 50? The processor time of all members' backends, as the kernel counts it.

Idle members do nothing but look at one another, so all of it is the fleet's. Of busy ones the looks are counted (each
raises the number that the member's name bears), and one costs what an idle one's did.
"""

import time
from pathlib import Path
from typing import NamedTuple

from bench.context import Context
from bench.fleets import Fleet, fleet
from bench.report import Line, Result, at_most, figure
from penstock.drill.measure import look
from penstock.fleet import tag

CLAIM = "the database's own cost for 50 members"
BAR = "<= 0.2 % of one core"

MEMBERS, BUDGET = 50, 60
SETTLE = 30.0  # until members that see no change look less often
SECONDS, QUICK_SECONDS = 60.0, 24.0
BAR_PERCENT = 0.2

_BACKENDS = """
SELECT pid, application_name FROM pg_stat_activity WHERE starts_with(application_name, 'penstock:drill:')
"""


class Cost(NamedTuple):
    """Of the looks in some seconds."""

    seconds: float
    processor: float  # seconds of all backends that were there at both ends
    looks: int

    @property
    def percent(self) -> float:
        """Of one core."""
        return 100 * self.processor / self.seconds

    @property
    def per_second(self) -> float:
        """Looks."""
        return self.looks / self.seconds


def run(ctx: Context) -> Result:
    seconds = QUICK_SECONDS if ctx.quick else SECONDS
    with fleet(BUDGET, MEMBERS, 0) as found:
        found.join(MEMBERS, 120.0)
        found.go_on(SETTLE)
        idle = _cost(found, seconds)
        found.replicas.clients = 3 * BUDGET
        found.replicas.share_out()
        found.go_on(SETTLE)
        busy = _cost(found, seconds)
    each = idle.processor / idle.looks
    ctx.say(f"{idle.looks} looks in {idle.seconds:.0f} s idle, {busy.looks} busy; one takes {1e6 * each:.0f} us")
    told = f"{figure(idle.per_second)} looks/s of {figure(1e6 * each)} us"
    return [
        at_most(f"{MEMBERS} idle members ({told}): the backends' time", idle.percent, BAR_PERCENT, "%"),
        Line(
            f"{MEMBERS} busy members ({figure(busy.per_second)} looks/s): the looks' time",
            f"{figure(100 * busy.per_second * each)} %",
            "",
            "",
            f"<= {BAR_PERCENT:g} %",
            100 * busy.per_second * each <= BAR_PERCENT,
        ),
    ]


def _cost(found: Fleet, seconds: float) -> Cost:
    before, spent, said = time.monotonic(), *_read(found)
    found.go_on(seconds)
    after, spent_now, said_now = time.monotonic(), *_read(found)
    processor = sum(spent_now[pid] - spent[pid] for pid in spent.keys() & spent_now.keys())
    looks = sum(said_now[member] - said[member] for member in said.keys() & said_now.keys())
    assert looks, "nobody looked"
    return Cost(after - before, processor, looks)


def _read(found: Fleet) -> tuple[dict[int, float], dict[str, int]]:
    """Seconds on a processor of each backend, and each member's number."""
    spent: dict[int, float] = {}
    said: dict[str, int] = {}
    with look(found.server.admin_dsn) as connection:
        rows = connection.execute(_BACKENDS).fetchall()
    for pid, name in rows:
        spent[pid] = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
        read = tag.read("drill", str(name))
        if read is not None and read[1] is not None:
            said[read[0]] = max(said.get(read[0], 0), read[1].number)
    return spent, said
