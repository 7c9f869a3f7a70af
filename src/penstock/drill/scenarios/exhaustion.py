"""Slow queries take every connection."""

from penstock.drill.scenario import Scenario
from penstock.drill.shape import ClosedLoop
from penstock.drill.work import Work

SCENARIO = Scenario(
    name="exhaustion",
    title="Slow queries",
    story="One request in eight runs a slow statement, and keeps its connection fifteen times as long. There are "
    "soon more requests under way than connections.",
    work=Work(slow=0.12, slow_seconds=0.5, failing=0.02),
    shape=ClosedLoop(think=0.3),
    deadline=2.0,
)
