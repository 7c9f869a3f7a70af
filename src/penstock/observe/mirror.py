"""prometheus_client with several processes (gunicorn): each writes its figures into PROMETHEUS_MULTIPROC_DIR.

There, collectors of one's own do not work: whichever worker answers a scrape reads all workers' files, and nothing else
of them. So a thread in each process writes what its pools know into those files, once a second and at its end. What a
process that is gone has counted still counts; what it had in use goes with its `live` file (`mark_process_dead`).
"""

from __future__ import annotations

import atexit
import logging
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Any
from weakref import WeakSet

from prometheus_client import values

from ..core import NONE, Histogram
from .metrics import Kind, Labels, Metric, Value
from .prometheus import LE, labels_of, spelled
from .reading import Reader, Readings

logger = logging.getLogger("penstock.observe")

SECONDS = 1.0  # between two writes
SIZE = 2**16  # bytes, of a file without figures; prometheus_client makes it larger when it is full


class Mirror:
    """Writes what a `Reader` reads."""

    def __init__(self) -> None:
        if not getattr(values.ValueClass, "_multiprocess", False):
            raise RuntimeError("PROMETHEUS_MULTIPROC_DIR was set after prometheus_client was imported: set it before")
        self._reader = Reader()
        self._written: dict[tuple[Metric, Labels], Value] = {}
        self._values: dict[tuple[Metric, Labels], list[Any]] = {}
        # Held while files are written, and while the process forks: prometheus_client has a lock of its own, which a
        # child must not inherit locked.
        self.lock = Lock()
        self._ended = Event()
        self._failures = 0

    def start(self) -> Callable[[], None]:
        """Begin, in this process and whatever it forks; returns what ends that, here.

        :raises ValueError: when there is one already: two would count everything twice.
        """
        if _mirrors:
            raise ValueError("this process writes its pools' metrics already: call prometheus.register() once")
        _create_files()
        _mirrors.add(self)
        atexit.register(self.write)
        self._launch()
        return self._stop

    def _launch(self) -> None:
        Thread(target=self._run, name="penstock-metrics", daemon=True).start()

    def _stop(self) -> None:
        _mirrors.discard(self)
        atexit.unregister(self.write)
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(SECONDS):
            self.write()

    def write(self) -> None:
        """All that there is now."""
        try:
            with self.lock:
                self._write(self._reader.read())
        except Exception:  # a full disk, a folder that is gone: the next time may do
            self._failures += 1
            if self._failures & (self._failures - 1) == 0:  # the first, second, fourth, eighth ...
                what = "metrics could not be written into PROMETHEUS_MULTIPROC_DIR (%d times)"
                logger.warning(what, self._failures, exc_info=True)

    def _write(self, found: Readings) -> None:
        for metric, figures in found.items():
            for labels, value in figures.items():
                self._put(metric, labels, value)
        for metric, labels in self._values:
            if metric.kind is Kind.GAUGE and labels not in found[metric]:
                self._put(metric, labels, 0)  # its pool is gone

    def _put(self, metric: Metric, labels: Labels, value: Value) -> None:
        key = metric, labels
        slots = self._values.get(key)
        if slots is None:
            slots = self._values[key] = _slots(metric, labels)
        before = self._written.get(key)
        if value == before:
            return
        if isinstance(value, Histogram):
            old = before if isinstance(before, Histogram) else NONE
            for slot, count, had in zip(slots, (*value.counts, value.total), (*old.counts, old.total), strict=True):
                if count != had:
                    slot.inc(count - had)
        elif metric.kind is Kind.COUNTER:
            counted = before if isinstance(before, int | float) else 0
            slots[0].inc(value - counted)  # not set: it goes on where an earlier process of this number ended
        else:
            slots[0].set(float(value))
        self._written[key] = value

    def renew(self) -> None:
        """In a forked child, whose files are its own and whose counters begin at 0."""
        self._written.clear()
        with suppress(OSError):  # the folder is gone, which `write` says better
            _create_files()
        self._launch()


def _create_files() -> None:
    """Those that will be written, each whole from its first moment on.

    prometheus_client creates a file empty and then makes it larger; whoever reads it in between fails.
    """
    folder = os.environ["PROMETHEUS_MULTIPROC_DIR"]
    for kind in ("counter", "histogram", "gauge_livesum", "gauge_livemax"):
        with tempfile.NamedTemporaryFile(dir=folder) as whole:
            whole.truncate(SIZE)
            os.chmod(whole.name, 0o644)
            with suppress(OSError):  # it is there already, or this file system has no links
                os.link(whole.name, os.path.join(folder, f"{kind}_{os.getpid()}.db"))


def _slots(metric: Metric, labels: Labels) -> list[Any]:
    """What prometheus_client's own metrics are made of."""
    name, names, help = spelled(metric), labels_of(metric), metric.help
    make: Any = values.ValueClass
    match metric.kind:
        case Kind.COUNTER:
            return [make("counter", name, f"{name}_total", names, labels, help)]
        case Kind.GAUGE:
            mode = "livemax" if metric.most else "livesum"
            return [make("gauge", name, name, names, labels, help, multiprocess_mode=mode)]
        case Kind.HISTOGRAM:
            buckets = [make("histogram", name, f"{name}_bucket", (*names, "le"), (*labels, le), help) for le in LE]
            return [*buckets, make("histogram", name, f"{name}_sum", names, labels, help)]


_mirrors: WeakSet[Mirror] = WeakSet()
_forking: list[Mirror] = []


def _before_fork() -> None:
    for mirror in list(_mirrors):
        mirror.lock.acquire()
        _forking.append(mirror)


def _after_fork_in_parent() -> None:
    while _forking:
        _forking.pop().lock.release()


def _after_fork_in_child() -> None:
    forked = _forking.copy()
    _after_fork_in_parent()
    for mirror in forked:
        mirror.renew()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
