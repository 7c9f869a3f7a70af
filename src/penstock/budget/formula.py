"""The formula: how large a pool may be so that all pools together stay below the line.

    pool size = floor((max_connections - reserved) / processes)
    processes = (instances + surge) * workers

A connection limit is never passed on average, it is passed at the worst moment, so the formula counts that moment: a
rolling deploy, when old and new instances are alive together and every pool of every worker process is full.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """What the formula gives. The first five fields are what went in, with `surge` as a count of instances."""

    max_connections: int
    reserved: int
    instances: int
    workers: int
    surge: int

    @property
    def usable(self) -> int:
        """Connections that the service's pools may hold in all."""
        return max(0, self.max_connections - self.reserved)

    @property
    def processes(self) -> int:
        """Processes alive at the worst moment, each with a pool of its own."""
        return (self.instances + self.surge) * self.workers

    @property
    def pool_size(self) -> int:
        """Connections each process's pool may open at most; 0 when the plan does not fit."""
        return self.usable // self.processes

    @property
    def leftover(self) -> int:
        """Usable connections that no pool gets, because every pool has the same whole number."""
        return self.usable - self.pool_size * self.processes

    @property
    def fits(self) -> bool:
        """Whether every process can have at least one connection."""
        return self.pool_size >= 1

    @property
    def too_many(self) -> int:
        """Processes for which no connection is left; 0 when the plan fits."""
        return max(0, self.processes - self.usable)

    @property
    def remedies(self) -> tuple[str, ...]:
        """What makes a plan fit that does not, each with its figure; empty when it fits."""
        return () if self.fits else tuple(_remedies(self))

    def __str__(self) -> str:
        asked = (
            f"{count(self.max_connections, 'connection')} less {self.reserved} reserved leave {self.usable} for "
            f"{count(self.processes, 'process', 'processes')} "
            f"({_instances(self)} with {count(self.workers, 'worker')} each)"
        )
        if self.fits:
            return f"{asked}: at most {self.pool_size} in each process's pool, {self.leftover} left over."
        return f"{asked}: it does not fit, {count(self.too_many, 'process', 'processes')} too many."


def plan(max_connections: int, *, reserved: int = 0, instances: int, workers: int = 1, surge: int | str = 0) -> Plan:
    """Share `max_connections` out among the pools of a service.

    `reserved` is what the service must leave alone: the server's own `superuser_reserved_connections` and
    `reserved_connections`, headroom for operators, other programs. `instances` are machines, containers or pods;
    `workers` the processes with a pool in each of them. `surge` is how many more instances live during a rolling
    deploy: a count, or a percentage of `instances` such as "25%" (see `extra_instances`).

    Source of the formula: PostgreSQL's manual, "Connection Settings", for what a service may not use; the Kubernetes
    API reference, `RollingUpdateDeployment`, for `maxSurge`.

    A plan that does not fit is an answer (`Plan.fits`), not an error. Raises ValueError for an argument that no
    service can have, TypeError for one that is no whole number.
    """
    _whole("max_connections", max_connections, at_least=1)
    _whole("reserved", reserved, at_least=0)
    _whole("instances", instances, at_least=1)
    _whole("workers", workers, at_least=1)
    return Plan(max_connections, reserved, instances, workers, extra_instances(surge, instances))


def extra_instances(surge: int | str, instances: int) -> int:
    """Instances alive beyond `instances` while a deploy rolls; a percentage rounds up, as Kubernetes' maxSurge does.

    Raises ValueError when `surge` is neither a count of 0 or more nor a percentage such as "25%".
    """
    if not isinstance(surge, str):
        _whole("surge", surge, at_least=0)
        return surge
    number = surge.strip().removesuffix("%")
    if not (number.isascii() and number.isdigit()):
        raise ValueError(f'surge must be a count such as 1 or a percentage such as "25%", got {surge!r}')
    # Whole numbers only: 0.07 * 100 is 7.000000000000001, which would round up to 8.
    return -(-instances * int(number) // 100) if surge.strip().endswith("%") else int(number)


def most_instances(alive: int, surge: int | str) -> int:
    """The most instances for which no more than `alive` live while a deploy rolls; less than 0 when there are none."""
    if isinstance(surge, str) and surge.strip().endswith("%"):
        return alive * 100 // (100 + extra_instances(surge, 100))
    return alive - extra_instances(surge, 0)


@dataclass(frozen=True, slots=True)
class WaysOut:
    """The most of each that would make one service fit, all else unchanged; None when there is no such figure."""

    workers: int | None
    surge: int | None
    instances: int | None
    each: int | None


def ways_out(room: int, instances: int, surge: int | str, workers: int, each: int = 1, beside: int = 0) -> WaysOut:
    """What a service that does not fit could change.

    It may hold `room` connections. Each instance alive holds `each` for each of its `workers`, and `beside` more.
    """
    alive = instances + extra_instances(surge, instances)
    in_instance = workers * each + beside
    fewer_workers = (room // alive - beside) // each
    fewer_each = (room // alive - beside) // workers
    alive_at_most = room // in_instance
    fewer_instances = most_instances(alive_at_most, surge)
    return WaysOut(
        workers=fewer_workers if 1 <= fewer_workers < workers else None,
        surge=alive_at_most - instances if instances <= alive_at_most < alive else None,
        instances=fewer_instances if 1 <= fewer_instances < instances else None,
        each=fewer_each if 1 <= fewer_each < each else None,
    )


def _remedies(plan: Plan) -> list[str]:
    """The ways out, cheapest first; one that no figure could satisfy is left out."""
    found = []
    ways = ways_out(plan.usable, plan.instances, plan.surge, plan.workers)
    if ways.workers is not None:
        found.append(f"run at most {count(ways.workers, 'worker')} in each instance")
    if ways.surge is not None:
        found.append(f"let a deploy start at most {count(ways.surge, 'extra instance')} at a time")
    if ways.instances is not None:
        found.append(f"run at most {count(ways.instances, 'instance')}")
    found.append("put a pooler in transaction mode (PgBouncer) between the service and the server")
    found.append(
        f"raise the limit from {plan.max_connections} to at least {plan.reserved + plan.processes}, "
        "if the server has the memory for it"
    )
    return found


def _instances(plan: Plan) -> str:
    standing = count(plan.instances, "instance")
    return f"{standing} and {plan.surge} more during a deploy," if plan.surge else standing


def count(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: "1 process", "2 processes"."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def _whole(name: str, value: object, *, at_least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {value}")
