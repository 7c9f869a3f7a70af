"""Which service of the budget a deployed program is, by what the program is called and what it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .model import Budget

_WORKERS = ("celery", "rq", "dramatiq")  # what is declared as a side pool of a service more often than as one itself

Whose = tuple[str, str | None]  # a service, and the side pool of it if it is one


def whose(budget: Budget, names: Sequence[str], runner: str | None) -> Whose | None:
    """What in *budget* is called like one of *names*; None when nothing is, or more than one thing could be meant.

    A name that is the same goes before one that has it as a part (``shop-web`` is the service ``web``), an earlier name
    before a later one. A worker that runs Celery is sought among the side pools first, by the name of what it runs too.
    """
    works = runner in _WORKERS
    called = [each.lower().replace("_", "-") for each in names]
    if works and runner is not None:
        called.append(runner)
    services: list[tuple[str, Whose]] = [(name.replace("_", "-"), (name, None)) for name in budget.services]
    sides = list(_side_pools(budget))
    kinds = [sides, services] if works else [services, sides]
    for part in (False, True):
        for name in called:
            for kind in kinds:
                found = [which for known, which in kind if (known in name.split("-") if part else known == name)]
                if len(found) == 1:
                    return found[0]
    return None


def _side_pools(budget: Budget) -> Iterator[tuple[str, Whose]]:
    for service in budget.services.values():
        for name in service.side_pools:
            yield name.replace("_", "-"), (service.name, name)
