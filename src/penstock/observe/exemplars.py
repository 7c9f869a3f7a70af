"""Which trace had to wait, or held a connection for long: one example for each bucket of a histogram.

Only of those that had to wait, and of those held for more than a second, which a pool tells of without slowing any
other (`Waited`, `HeldLong`). They are told in the thread or task concerned, where the current span is theirs.
"""

from __future__ import annotations

import sys
import time
from bisect import bisect_left
from collections.abc import Callable
from functools import partial
from typing import NamedTuple
from weakref import WeakKeyDictionary

from ..core import BOUNDS
from ..events import HeldLong, Waited
from .metrics import USE_TIME, WAIT_TIME, Metric
from .sources import Source, each


class Seen(NamedTuple):
    """The last of its bucket. *at* in seconds of the epoch."""

    trace_id: str
    span_id: str
    seconds: float
    at: float


Buckets = dict[tuple[Metric, int], Seen]


class Exemplars:
    """Of every pool there is, and will be."""

    def __init__(self) -> None:
        self._seen: WeakKeyDictionary[Source, Buckets] = WeakKeyDictionary()
        self._stops: WeakKeyDictionary[Source, Callable[[], None]] = WeakKeyDictionary()
        self._stop: Callable[[], None] | None = None

    def listen(self) -> None:
        """From now on, if this program traces at all. To be called now and then."""
        if self._stop is None and "opentelemetry.trace" in sys.modules:
            self._stop = each(self._listen)

    def _listen(self, source: Source) -> None:
        seen = self._seen[source] = {}
        self._stops[source] = source.listen(partial(_note, seen), Waited, HeldLong)

    def close(self) -> None:
        """Listen no more."""
        if self._stop is not None:
            self._stop()
        for stop in list(self._stops.values()):
            stop()

    def by_pool(self) -> dict[str, Buckets]:
        """The last one seen of each bucket, by the pool's name."""
        return {source.name: seen for source, seen in list(self._seen.items()) if seen}


def _note(seen: Buckets, event: Waited | HeldLong) -> None:
    span = sys.modules["opentelemetry.trace"].get_current_span().get_span_context()
    if not (span.is_valid and span.trace_flags.sampled):
        return
    metric, seconds = (WAIT_TIME, event.waited) if isinstance(event, Waited) else (USE_TIME, event.held)
    key = metric, bisect_left(BOUNDS, seconds)
    seen[key] = Seen(f"{span.trace_id:032x}", f"{span.span_id:016x}", seconds, time.time())
