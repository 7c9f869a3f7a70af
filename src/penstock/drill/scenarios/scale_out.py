"""Processes that come and go, and one budget for all of them."""

from penstock.drill.scenario import Scenario
from penstock.drill.shape import ScaleOut
from penstock.drill.work import Work

SCENARIO = Scenario(
    name="scale-out",
    title="Scale-out",
    story="A service goes from 1 process to 50 and back, under the same load all the while. A third of the processes "
    "are killed, some are cut off for a few seconds, and a rolling deploy replaces them all. Whatever is configured "
    "for each process was right for some other number of them.",
    # Long enough that the connections are what is scarce, and not the processors of the machine that drills.
    work=Work(elsewhere=0.0, failing=0.0, slow=1.0, slow_seconds=0.25),
    shape=ScaleOut(),
    seconds=90.0,
    deadline=5.0,
    arms=("psycopg_pool", "penstock"),
)
