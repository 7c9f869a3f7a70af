"""Which service of the budget a deployed program is, by what the program is called and what it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .model import Budget

_WORKERS = ("celery", "rq", "dramatiq")  # what is declared as a side pool of a service more often than as one itself

Whose = tuple[str, str | None]  # a service, and the side pool of it if it is one


def whose(budget: Budget, names: Sequence[str], runner: str | None) -> Whose | None:
    """What in *budget* is called like one of *names*; None when nothing is, or more than one thing could be meant.

    A name that is the same goes before one that has it as a part (``shop-web`` is the service ``web``), an earlier name
    before a later one. A worker goes by what it runs too, and is a side pool of the service that it is called like.
    """
    works = runner in _WORKERS
    called = [each.lower().replace("_", "-") for each in names]
    if works and runner is not None:
        called.append(runner)
    services: list[tuple[str, Whose]] = [(name.replace("_", "-"), (name, None)) for name in budget.services]
    kinds = [services, list(_side_pools(budget))]
    for part in (False, True):
        for name in called:
            for kind in kinds:
                found = [which for known, which in kind if (known in name.split("-") if part else known == name)]
                if len(found) == 1:
                    return _beside(budget, found[0], called) if works else found[0]
    return None


def _beside(budget: Budget, found: Whose, called: Sequence[str]) -> Whose:
    """A worker that is called like a service is that service's side pool, if it has one of the worker's other names."""
    service, side_pool = found
    sides = {name.replace("_", "-"): name for name in budget.services[service].side_pools}
    return service, side_pool or next((sides[name] for name in called if name in sides), None)


def _side_pools(budget: Budget) -> Iterator[tuple[str, Whose]]:
    for service in budget.services.values():
        for name in service.side_pools:
            yield name.replace("_", "-"), (service.name, name)
