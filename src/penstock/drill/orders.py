"""What an instance of the service is told."""

from dataclasses import dataclass

from penstock.drill.arms.arm import Arm
from penstock.drill.shape import ClosedLoop, OpenLoop
from penstock.drill.work import Work


@dataclass(frozen=True, slots=True)
class Orders:
    """All that an instance needs to know. Times in seconds.

    `arrivals` has one entry for each of its clients, or for each of its requests if the loop is open; `first` is the
    number of the first of them.
    """

    arm: type[Arm]
    dsn: str
    pool_size: int
    work: Work
    shape: ClosedLoop | OpenLoop
    arrivals: tuple[float, ...]
    first: int
    seconds: float
    deadline: float
    patience: float
