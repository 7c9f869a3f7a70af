"""A budget with some figures changed: what if web had 20 replicas?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from .model import Budget
from .schema import SIDE_POOL, TOP, Check, nearest, reference, url

# What may be changed: figures, not who is connected to what.
_FIGURES: dict[str, dict[str, Check]] = {
    plural: {key: each.check for key, each in kind.keys.items() if each.check not in (reference, url)}
    for plural, kind in TOP.items()
}
_SIDE_FIGURES: dict[str, Check] = {key: each.check for key, each in SIDE_POOL.keys.items()}

Path = tuple[str, ...]  # a table of the file: ("services", "web"), ("services", "web", "side_pools", "celery")


def what_if(budget: Budget, changes: Iterable[str]) -> Budget:
    """*budget* with each of *changes*, such as ``web.replicas=20``, or ``replicas=20`` when only one thing has it.

    A side pool's are ``web.celery.size`` and ``web.celery.processes``.

    :raises ValueError: naming the change, when it does not say which figure, or the figure cannot be.
    """
    for change in changes:
        budget = _changed(budget, change)
    return budget


def _changed(budget: Budget, change: str) -> Budget:
    target, equals, text = (part.strip() for part in change.partition("="))
    name, dot, key = target.rpartition(".")
    if not equals or not key or not text:
        raise ValueError(f"what-if {change!r}: say which figure is what, such as web.replicas=20")
    known = sorted({key for figures in (*_FIGURES.values(), _SIDE_FIGURES) for key in figures})
    if key not in known:
        raise ValueError(f"what-if {change!r}: no figure {key!r}: {nearest(key, known)}")
    path, value = _whose(budget, name if dot else None, key, change), _value(text)
    figures = _FIGURES[path[0]] if len(path) == 2 else _SIDE_FIGURES
    if wrong := figures[key](value):
        raise ValueError(f"what-if {change!r}: {key} {wrong}")
    changed = _with(budget, path, {key: value})
    for each in changed.services.values():
        if each.max is not None and each.max < each.min:
            raise ValueError(f"what-if {change!r}: max is {each.max}, and min is {each.min}: max must be no less")
    return changed


def _whose(budget: Budget, name: str | None, key: str, change: str) -> Path:
    """The table that is called *name* and has *key*; without a name, the only one that has it."""
    # `processes` without more is a service's, as long as a service has it: a side pool is the lesser thing.
    kinds = [list(_tables(budget, key)), list(_side_pools(budget, key))]
    meant = next(filter(None, ([path for path in kind if name is None or name in _names(path)] for kind in kinds)), [])
    if not meant:
        if name is None:
            raise ValueError(f"what-if {change!r}: nothing in {budget.path} has {key}")
        choice = nearest(name, [_names(path)[0] for kind in kinds for path in kind])
        raise ValueError(f"what-if {change!r}: nothing called {name!r} has {key}: {choice}")
    if len(meant) > 1:
        choice = ", ".join(".".join((*path, key)) for path in meant)
        raise ValueError(f"what-if {change!r}: whose? One of {choice}")
    return meant[0]


def _with(budget: Budget, path: Path, new: dict[str, Any]) -> Budget:
    """*budget* with *new* figures in the table at *path*."""
    tables = getattr(budget, path[0])
    if len(path) == 2:
        changed = replace(tables[path[1]], **new)
    else:
        sides = tables[path[1]].side_pools
        changed = replace(tables[path[1]], side_pools={**sides, path[3]: replace(sides[path[3]], **new)})
    all_of_them: dict[str, Any] = {path[0]: {**tables, path[1]: changed}}
    return replace(budget, **all_of_them)


def _tables(budget: Budget, key: str) -> Iterator[Path]:
    for plural, figures in _FIGURES.items():
        if key in figures:
            yield from ((plural, each) for each in getattr(budget, plural))


def _side_pools(budget: Budget, key: str) -> Iterator[Path]:
    if key in _SIDE_FIGURES:
        for service in budget.services.values():
            yield from (("services", service.name, "side_pools", each) for each in service.side_pools)


def _names(path: Path) -> list[str]:
    """What a table may be called, the shortest that is certain first."""
    if len(path) == 2:
        return [path[1], ".".join(path)]
    service, side = path[1], path[3]
    return [f"{service}.{side}", side, f"{service}/{side}", f"{service}.side_pools.{side}", ".".join(path)]


def _value(text: str) -> object:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            pass
    return {"true": True, "false": False}.get(text, text)
