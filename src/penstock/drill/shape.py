"""The shape of a load: a closed loop of clients, an open loop of arrivals, or processes that come and go."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from penstock.drill.api import Behaviour

SEED = 2
API = Behaviour(latency=0.02, failing=100, limited=20_000, hanging=5_000, hangs_first=170)


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """Clients that ask, think for `think` (half to one and a half of it), and ask again: whoever waits does not ask.

    A share `early` of them is there from the beginning, the others come at `spike` (a share of the time).
    """

    clients: int = 60
    early: float = 1.0
    spike: float = 0.0
    think: float = 0.1

    def arrivals(self, seconds: float) -> list[float]:
        """Return when each client comes."""
        early = round(self.clients * self.early)
        return [0.0 if number < early else self.spike * seconds for number in range(self.clients)]


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Requests that arrive by chance (a Poisson process), whether or not those before them have been answered.

    They come at the rate `normal`, from `begin` to `end` (shares of the time) at the rate `overload`, and then at
    `normal` again. The rates are multiples of the capacity. An instance serves its requests in `workers` threads, and
    those that find no thread free wait in its backlog, which is not limited.
    """

    normal: float = 0.7
    overload: float = 3.0
    begin: float = 0.25
    end: float = 0.6
    workers: int = 40  # what anyio gives to a process, and so Starlette and FastAPI

    def spike(self, seconds: float) -> tuple[float, float]:
        """Return when the spike begins and ends."""
        return self.begin * seconds, self.end * seconds

    def arrivals(self, seconds: float, capacity: float) -> list[float]:
        """Return when each request comes; the same ones for every arm. `capacity` in requests a second."""
        begin, end = self.spike(seconds)
        dice = random.Random(SEED)
        return [
            *_poisson(dice, 0.0, begin, self.normal * capacity),
            *_poisson(dice, begin, end, self.overload * capacity),
            *_poisson(dice, end, seconds, self.normal * capacity),
        ]


@dataclass(frozen=True, slots=True)
class ScaleOut:
    """Processes that come and go, from 1 to `processes` and back, and clients who never pause.

    The budget has `each` connections for each process: little more than one, which is the hardest to share out. It has
    `least` in all: a fleet keeps two for who is to join, which must not be much of it. For each of those connections
    there are `clients`, shared out evenly among the processes that are ready, as a load balancer does. After each
    change all is left alone for `settle` seconds, and then looked at.
    """

    processes: int = 50
    settle: float = 10.0
    each: float = 1.2
    least: int = 24
    clients: int = 3

    @property
    def surge(self) -> int:
        """How many more there are at most during a deploy."""
        return math.ceil(self.processes / 10)

    @property
    def members(self) -> int:
        """How many there are at most."""
        return self.processes + self.surge

    @property
    def budget(self) -> int:
        """Connections for all of them."""
        return max(self.least, math.ceil(self.each * self.processes))

    @property
    def fixed(self) -> int:
        """The size of pool that was right when there were a fifth as many of them."""
        return max(1, 5 * self.budget // self.processes)

    @property
    def max_connections(self) -> int:
        """Of a server that has others to serve too, and so would not hold the budget's line by itself."""
        return max(20, math.ceil(1.7 * self.budget))


@dataclass(frozen=True, slots=True)
class Batch:
    """A job over `items` users: an API is asked about each, and the answer saved.

    The job is killed, and started again, once each of the shares `kills` of the items are saved. One that is not judged
    is once `killed_at` items are, and is not run to its end: it ends when it has stood still for `patience` seconds, or
    its time has gone by. `api` is how the API behaves.
    """

    items: int = 50_000
    kills: tuple[float, ...] = (0.35, 0.7)
    killed_at: int = 60
    patience: float = 5.0
    api: Behaviour = API


Shape = ClosedLoop | OpenLoop | ScaleOut | Batch


def _poisson(dice: random.Random, begin: float, end: float, rate: float) -> Iterator[float]:
    # Memoryless, so that each stretch may be drawn for itself.
    at = begin + dice.expovariate(rate)
    while at < end:
        yield at
        at += dice.expovariate(rate)
