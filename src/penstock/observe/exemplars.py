"""Which trace had to wait, or held a connection for long: one example for each bucket of a histogram.

Only of those that had to wait, and of those held for more than a second, which a pool tells of without slowing any
other (`Waited`, `HeldLong`). They are told in the thread or task concerned, where the current span is theirs.
"""

from __future__ import annotations

import sys
import time
from bisect import bisect_left
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from ..core import BOUNDS
from ..events import HeldLong, Waited
from .metrics import USE_TIME, WAIT_TIME, Metric
from .sources import Source, sources


class Seen(NamedTuple):
    """The last of its bucket. *at* in seconds of the epoch."""

    trace_id: str
    span_id: str
    seconds: float
    at: float


class Exemplars:
    """Listens to every pool that there is when `listen` is called."""

    def __init__(self) -> None:
        self._seen: WeakKeyDictionary[Source, dict[tuple[Metric, int], Seen]] = WeakKeyDictionary()
        self._by_name: dict[str, dict[tuple[Metric, int], Seen]] = {}
        self._stops: WeakKeyDictionary[Source, Any] = WeakKeyDictionary()

    def listen(self) -> None:
        """To those that are not listened to yet; there is nothing to listen for where nobody traces."""
        if "opentelemetry.trace" not in sys.modules:
            return
        for source in sources():
            if source not in self._stops:
                seen = self._seen[source] = {}
                self._stops[source] = source.listen(partial(_note, seen), Waited, HeldLong)
        self._by_name = {source.name: seen for source, seen in list(self._seen.items())}

    def close(self) -> None:
        """Listen no more."""
        for stop in list(self._stops.values()):
            stop()

    def of(self, metric: Metric, pool: str, bucket: int) -> Seen | None:
        """The last one seen of a bucket of *pool*'s."""
        seen = self._by_name.get(pool)
        return seen.get((metric, bucket)) if seen else None


def _note(seen: dict[tuple[Metric, int], Seen], event: Waited | HeldLong) -> None:
    span = sys.modules["opentelemetry.trace"].get_current_span().get_span_context()
    if not (span.is_valid and span.trace_flags.sampled):
        return
    metric, seconds = (WAIT_TIME, event.waited) if isinstance(event, Waited) else (USE_TIME, event.held)
    key = metric, bisect_left(BOUNDS, seconds)
    seen[key] = Seen(f"{span.trace_id:032x}", f"{span.span_id:016x}", seconds, time.time())
