"""The server ends every connection in the middle of the load."""

from penstock.drill.scenario import Event, Scenario, Stage
from penstock.drill.shape import ClosedLoop


def end_all(stage: Stage) -> None:
    """Do to the clients what a failover or an operator's pg_terminate_backend does."""
    stage.server.terminate_clients()


SCENARIO = Scenario(
    name="restart",
    title="Every connection ended",
    story="In the middle of the load the server ends every connection, twice, as a failover does. A pool that does not "
    "notice hands out dead connections.",
    shape=ClosedLoop(clients=36),
    events=(Event(0.35, "all ended", end_all, heals=True), Event(0.7, "all ended", end_all, heals=True)),
)
