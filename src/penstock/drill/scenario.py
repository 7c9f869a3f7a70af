"""What a scenario is: the clients, their work, and what happens meanwhile."""

from collections.abc import Callable
from dataclasses import dataclass, field

from penstock.drill.proxy import ChaosProxy
from penstock.drill.server import Server
from penstock.drill.work import Work


@dataclass(frozen=True, slots=True)
class Stage:
    """What an event can act on."""

    server: Server
    proxy: ChaosProxy | None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens at a share of the drill's time, and its label in the charts."""

    at: float
    label: str
    act: Callable[[Stage], None] = lambda stage: None
    heals: bool = False  # from here on, recovery is measured


@dataclass(frozen=True, slots=True)
class Scenario:
    """One outage to replay. Times in seconds.

    A share `early` of the clients is there from the beginning, the others come at `spike` (a share of the time).
    Each client asks, thinks for `think` (half to one and a half of it), and asks again. An answer is useful within
    `deadline`; who has none `patience` after the load's end is counted as having got none.
    """

    name: str
    title: str
    story: str
    work: Work = field(default_factory=Work)
    clients: int = 60
    instances: int = 3
    seconds: float = 6.0
    early: float = 1.0
    spike: float = 0.0
    think: float = 0.1
    deadline: float = 1.0
    patience: float = 2.0
    events: tuple[Event, ...] = ()
    through_proxy: bool = False

    def arrivals(self, clients: int, seconds: float) -> list[float]:
        """Return when each client comes."""
        early = round(clients * self.early)
        return [0.0 if number < early else self.spike * seconds for number in range(clients)]
