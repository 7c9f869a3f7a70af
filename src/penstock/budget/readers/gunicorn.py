"""A gunicorn configuration file: `workers`, `threads`, `worker_class`, `worker_connections`, `preload_app`."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

from .facts import Fact, Place
from .source import Module, Unknown, literal


@dataclass(frozen=True, slots=True)
class Config:
    """What a gunicorn.conf.py sets; None is "nothing".

    :ivar worker: the worker class; "?" when it is set and not known.
    :ivar preload: the line of ``preload_app = True``: connections opened before the fork are shared by every worker.
    """

    workers: Fact | None = None
    threads: Fact | None = None
    worker: str | None = None
    connections: Fact | None = None
    preload: Place | None = None


def read(module: Module) -> Config:
    """What *module*, a gunicorn.conf.py, sets."""
    place, worker = _last(module, "worker_class")
    preload, value = _last(module, "preload_app")
    return Config(
        _figure(module, "workers"),
        _figure(module, "threads"),
        None if place is None else worker if isinstance(worker, str) else "?",
        _figure(module, "worker_connections"),
        preload if value is True else None,
    )


def _last(module: Module, name: str) -> tuple[Place | None, Any]:
    """Where *name* is set, and to what; set more than once, it is not known which counts."""
    values: list[ast.expr] = module.assignments(name)
    if not values:
        return None, None
    value = module.value(values[0]) if len(values) == 1 else Unknown(f"{name} is assigned more than once")
    return module.place(values[-1]), value


def _figure(module: Module, name: str) -> Fact | None:
    place, value = _last(module, name)
    if place is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return Fact(value, place, f"{name} = {value}")
    return Fact(None, place, f"{name}: {value.why if isinstance(value, Unknown) else literal(value)}")
