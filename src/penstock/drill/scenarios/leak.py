"""Requests that fail, and code that forgets its connection when they do."""

from penstock.drill.scenario import Scenario
from penstock.drill.shape import ClosedLoop
from penstock.drill.work import Work

SCENARIO = Scenario(
    name="leak",
    title="A leak on errors",
    story="Few clients, far below the line; but one request in ten raises an exception of the service's own. Whoever "
    "forgets a connection then has none left after a while.",
    shape=ClosedLoop(clients=12),
    work=Work(failing=0.1),
)
