"""More clients than the server has connections."""

from penstock.drill.scenario import Event, Scenario
from penstock.drill.shape import ClosedLoop

SPIKE = 0.3

SCENARIO = Scenario(
    name="outage",
    title="A traffic spike",
    story="Traffic grows fourfold in one moment, and there are more clients now than the server has connections. The "
    "server has little to do: each request mostly waits for something else while it holds its connection.",
    shape=ClosedLoop(early=0.25, spike=SPIKE),
    events=(Event(SPIKE, "spike"),),
)
