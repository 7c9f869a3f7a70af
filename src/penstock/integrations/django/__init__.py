"""Django's database backends with a pool of ours beneath: ``ENGINE = "penstock.integrations.django.postgresql"``.

`docs/django.md` has the settings. In INSTALLED_APPS, this module adds ``manage.py penstock``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .pool import DjangoPool


def pools() -> Mapping[str, DjangoPool]:
    """The pools of this process that are open, by their database alias: for a page or a metric of your own."""
    from .pool import opened  # here, as Django loads this module before its settings may be asked

    return opened()
