"""A budget with some figures changed: what if web had 20 replicas?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from .model import Budget
from .schema import TOP, Check, nearest, reference, url

# What may be changed: figures, not who is connected to what.
_FIGURES: dict[str, dict[str, Check]] = {
    plural: {key: each.check for key, each in kind.keys.items() if each.check not in (reference, url)}
    for plural, kind in TOP.items()
}


def what_if(budget: Budget, changes: Iterable[str]) -> Budget:
    """*budget* with each of *changes*, such as ``web.replicas=20``, or ``replicas=20`` when only one thing has it.

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
    known = sorted({key for figures in _FIGURES.values() for key in figures})
    if key not in known:
        raise ValueError(f"what-if {change!r}: no figure {key!r}: {nearest(key, known)}")
    all_with_key = {
        f"{plural}.{each}": (plural, each)
        for plural, figures in _FIGURES.items()
        if key in figures
        for each in getattr(budget, plural)
    }
    meant = [where for full, where in all_with_key.items() if not dot or name in (full, where[1])]
    if not meant:
        choice = nearest(name, [each for _, each in all_with_key.values()])
        raise ValueError(f"what-if {change!r}: nothing called {name!r} has {key}: {choice}")
    if len(meant) > 1:
        choice = ", ".join(f"{plural}.{each}.{key}" for plural, each in meant)
        raise ValueError(f"what-if {change!r}: whose? One of {choice}")
    plural, found = meant[0]
    value = _value(text)
    if wrong := _FIGURES[plural][key](value):
        raise ValueError(f"what-if {change!r}: {key} {wrong}")
    tables = getattr(budget, plural)
    changed: Any = replace(tables[found], **{key: value})
    if plural == "services" and changed.max is not None and changed.max < changed.min:
        raise ValueError(f"what-if {change!r}: max is {changed.max}, and min is {changed.min}: max must be no less")
    all_of_them: dict[str, Any] = {plural: {**tables, found: changed}}
    return replace(budget, **all_of_them)


def _value(text: str) -> object:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            pass
    return {"true": True, "false": False}.get(text, text)
