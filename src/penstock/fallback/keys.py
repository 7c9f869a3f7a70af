"""A key for each call of a decorated function."""

from __future__ import annotations

import re
from collections.abc import Callable
from inspect import signature
from string import Formatter
from typing import Any


def maker(function: Callable[..., Any], key: str | Callable[..., str]) -> Callable[..., str]:
    """A function that takes the arguments of *function* and returns its key.

    :raises ValueError: when *key* is a template that leaves one of the parameters out: calls that differ in it only
        would share an answer.
    """
    if not isinstance(key, str):
        return key
    template, parameters = key, signature(function)
    fields = {re.split(r"[.\[]", name)[0] for _, name, _, _ in Formatter().parse(template) if name is not None}
    if unknown := fields - set(parameters.parameters):
        raise ValueError(f"key {template!r} names {_list(unknown)}, which {function.__qualname__} does not take")
    if left_out := set(parameters.parameters) - fields:
        raise ValueError(
            f"key {template!r} leaves out {_list(left_out)}: calls of {function.__qualname__} that differ in it would"
            " share an answer. Name it in the key, or give a function that returns the key"
        )

    def make(*args: Any, **kwargs: Any) -> str:
        bound = parameters.bind(*args, **kwargs)
        bound.apply_defaults()
        return template.format(**bound.arguments)

    return make


def _list(names: set[str]) -> str:
    return ", ".join(map(repr, sorted(names)))
