"""The network goes silent, then heals."""

from penstock.drill.scenario import Event, Scenario, Stage
from penstock.drill.shape import ClosedLoop


def silence(stage: Stage) -> None:
    """Drop everything between the clients and the server; nobody is told."""
    if stage.proxy:
        stage.proxy.silence()


def heal(stage: Stage) -> None:
    """Let everything pass again."""
    if stage.proxy:
        stage.proxy.heal()


SCENARIO = Scenario(
    name="blackhole",
    title="The network goes silent",
    story="For some seconds nothing passes between the service and the server, and no connection is closed. Then it "
    "heals, and everybody who waited comes at once.",
    shape=ClosedLoop(clients=36),
    deadline=1.0,
    events=(Event(0.3, "silent", silence), Event(0.6, "healed", heal, heals=True)),
    through_proxy=True,
)
