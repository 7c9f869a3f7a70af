"""On which connection a statement is sent. One pure function decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

FILL = 0.25  # of the target, up to which one connection is filled before the next is used: batches are what pays


class Open(Protocol):
    """A connection on which statements are under way."""

    def wait(self, now: float) -> float:
        """Seconds until a statement sent now would begin; infinity if none may be sent."""


P = TypeVar("P", bound=Open)


def choose(pipelines: Sequence[P], target: float, idle: bool, now: float) -> P | None:
    """The connection to send one more statement on; None if it should rather have another than any of these.

    The first on which it would wait for hardly anybody; then, if there is no *idle* connection to be had, the one that
    will be free soonest, if that is within *target* seconds.
    """
    soonest, least = None, target
    for pipeline in pipelines:
        wait = pipeline.wait(now)
        if wait <= FILL * target:
            return pipeline
        if wait <= least:
            soonest, least = pipeline, wait
    return None if idle else soonest
