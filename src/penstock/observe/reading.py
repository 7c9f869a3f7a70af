"""All figures of this process at one moment, fit for a monitoring system.

Such a system takes a counter that has gone down for one that began anew, and its rate is wrong by all that was counted
before. Here a counter goes down for three reasons, and none of them may show:

* Pools count without a lock, so that one who looks from another thread may see a figure that is short of a connection
  which is just being closed. What was seen once is not taken back.
* A pool begins anew (`Snapshot.since`). What it counted before counts on.
* Of two pools with one name, whose figures are one, one goes. Likewise.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from threading import Lock
from typing import Any
from weakref import WeakSet, ref

from ..core import Histogram
from .metrics import METRICS, Figure, Kind, Labels, Metric, Value, of_fallbacks, of_source
from .sources import Source, sources

logger = logging.getLogger("penstock.observe")

Readings = dict[Metric, dict[Labels, Value]]
_Counts = dict[tuple[Metric, Labels], Value]


class _Known:
    """What was seen of one source."""

    def __init__(self, name: str, since: float) -> None:
        self.name = name
        self.since = since
        self.counts: _Counts = {}


class Reader:
    """Remembers, of each source there is, what its counters were.

    :param among: what to read.
    """

    def __init__(self, among: Callable[[], Iterable[Source]] = sources) -> None:
        self._among = among
        self._start_anew()
        _readers.add(self)

    def _start_anew(self) -> None:
        """Also in a forked child, where all counters are 0."""
        self._lock = Lock()
        self._known: dict[ref[Source], _Known] = {}
        self._gone: dict[str, _Counts] = {}  # by name; of what is no more, while there is another of that name

    def read(self) -> Readings:
        """As of now. From any thread."""
        found: Readings = {metric: {} for metric in METRICS}
        with self._lock:
            for source in self._among():
                self._read_one(source, found)
            self._forget_the_dead()
            for counts in self._gone.values():
                for (metric, labels), value in counts.items():
                    _put(found, metric, labels, value)
        for metric, labels, value in of_fallbacks():
            _put(found, metric, labels, value)
        return found

    def _read_one(self, source: Source, found: Readings) -> None:
        try:
            now = source.snapshot()
            figures = list(of_source(source, now))
        except Exception:  # looked at in the midst of a change: the others are wanted all the same
            logger.debug("a pool could not be read this time", exc_info=True)
            return
        key = ref(source)
        known = self._known.get(key)
        if known is not None and known.since != now.since:
            self._bury(known)
            known = None
        if known is None:
            known = self._known[key] = _Known(now.name, now.since)
        for metric, labels, value in self._steady(known, figures):
            _put(found, metric, labels, value)

    @staticmethod
    def _steady(known: _Known, figures: Iterable[Figure]) -> Iterator[Figure]:
        counts = known.counts
        for metric, labels, value in figures:
            if metric.kind is Kind.GAUGE:
                yield metric, labels, value
                continue
            key = metric, labels
            value = counts[key] = _at_least(value, counts.get(key))
            yield metric, labels, value

    def _forget_the_dead(self) -> None:
        for key in [key for key in self._known if key() is None]:
            self._bury(self._known.pop(key))
        names = {known.name for known in self._known.values()}
        for name in self._gone.keys() - names:
            del self._gone[name]

    def _bury(self, known: _Known) -> None:
        gone = self._gone.setdefault(known.name, {})
        for key, value in known.counts.items():
            gone[key] = _sum(gone[key], value) if key in gone else value


def _put(found: Readings, metric: Metric, labels: Labels, value: Value) -> None:
    values = found[metric]
    other = values.get(labels)
    if other is None:
        values[labels] = value
    elif metric.most and not isinstance(other, Histogram) and not isinstance(value, Histogram):
        values[labels] = max(other, value)
    else:
        values[labels] = _sum(other, value)


def _sum(one: Any, other: Any) -> Any:
    if isinstance(one, Histogram):
        counts = tuple(a + b for a, b in zip(one.counts, other.counts, strict=True))
        return Histogram(counts, one.total + other.total)
    return one + other


def _at_least(value: Any, seen: Any) -> Any:
    if seen is None:
        return value
    if isinstance(value, Histogram):
        counts = tuple(map(max, value.counts, seen.counts))
        return Histogram(counts, max(value.total, seen.total))
    return max(value, seen)


_readers: WeakSet[Reader] = WeakSet()


def _after_fork_in_child() -> None:
    for reader in list(_readers):
        reader._start_anew()


os.register_at_fork(after_in_child=_after_fork_in_child)
