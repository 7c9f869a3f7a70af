"""An application that nobody rewrites tonight."""

from penstock.drill.scenario import Event, Scenario
from penstock.drill.shape import ClosedLoop
from penstock.drill.work import Work

SPIKE = 0.3

SCENARIO = Scenario(
    name="guard",
    title="No line changed",
    story="A web application opens a connection for each request, and forgets it when the request fails; then its "
    "traffic grows. The same application runs a second time under `penstock run --hold`, and not one line of it is "
    "changed. Its clients come over HTTP.",
    shape=ClosedLoop(early=0.25, spike=SPIKE),
    work=Work(failing=0.05),
    seconds=8.0,
    deadline=2.0,
    events=(Event(SPIKE, "spike"),),
    arms=("naive-app", "naive-app-held"),
)
