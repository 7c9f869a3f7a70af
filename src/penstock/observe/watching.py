"""A process in which a pool has opened is watched from then on."""

from __future__ import annotations

from .following import follow
from .sources import Source


def watch(source: Source) -> None:
    follow(source)
