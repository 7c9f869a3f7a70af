"""What a scenario is: the load, its work, and what happens meanwhile."""

from collections.abc import Callable
from dataclasses import dataclass, field

from penstock.drill.proxy import ChaosProxy
from penstock.drill.server import Server
from penstock.drill.shape import ClosedLoop, ScaleOut, Shape
from penstock.drill.work import Work

MAX_CONNECTIONS = 20  # of an embedded server, where a scenario needs no more


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

    An answer is useful within `deadline`; who has none `patience` after the load's end is counted as having got none.
    `arms` are those that run if none is asked for.
    """

    name: str
    title: str
    story: str
    work: Work = field(default_factory=Work)
    shape: Shape = field(default_factory=ClosedLoop)
    instances: int = 3
    seconds: float = 6.0
    least_seconds: float = 0.5  # in which it can show what it is there for
    deadline: float = 1.0
    patience: float = 2.0
    events: tuple[Event, ...] = ()
    through_proxy: bool = False
    arms: tuple[str, ...] = ("per-request", "leaking", "never-returned", "sqlalchemy", "penstock")

    @property
    def max_connections(self) -> int:
        """What an embedded server needs for it."""
        return self.shape.max_connections if isinstance(self.shape, ScaleOut) else MAX_CONNECTIONS
