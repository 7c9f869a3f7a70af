"""The app, for its management command and its check."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig  # type: ignore[import-untyped]
from django.core import checks  # type: ignore[import-untyped]
from django.core.exceptions import ImproperlyConfigured  # type: ignore[import-untyped]


class PenstockConfig(AppConfig):  # type: ignore[misc]
    name = "penstock.integrations.django"
    label = "penstock"
    verbose_name = "Penstock"

    def ready(self) -> None:
        checks.register(check_pools)


def check_pools(**_: Any) -> list[checks.CheckMessage]:
    """What is wrong with the options of a pool, which nobody would hear of before the first query otherwise."""
    from django.db import connections  # type: ignore[import-untyped]  # here: its settings may be asked from now on

    from .pool import sizes
    from .wrapper import Pooled

    found = []
    for alias in connections:
        try:
            wrapper = connections[alias]
            if isinstance(wrapper, Pooled):
                sizes(wrapper)
        except ImproperlyConfigured as error:
            found.append(checks.Error(str(error), id="penstock.E001"))
    return found
