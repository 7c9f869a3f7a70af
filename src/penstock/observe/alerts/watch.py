"""Looks at every pool of the process once a second, and tells the sinks what is to be told."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic, time
from weakref import WeakSet, ref

from ...pool.membership import FleetState
from .. import sources
from ..sources import Source
from .judge import Figures, Judge
from .kinds import Alert, Thresholds
from .sinks import Sink

logger = logging.getLogger("penstock.alerts")

EVERY = 1.0  # seconds
LINGER = 60.0  # seconds since somebody asked, for which it looks though there is nobody to tell
RECENT = 50  # alerts, raised and cleared, that are kept to be shown


class Watch:
    """:param lag: seconds by which the event loop of a source is late; None where it has none."""

    def __init__(self, lag: Callable[[Source], float | None]) -> None:
        self.thresholds = Thresholds()
        self.sinks: tuple[Sink, ...] = ()
        self.recent: deque[Alert] = deque(maxlen=RECENT)
        self._lag = lag
        self.begin_anew()

    def begin_anew(self) -> None:
        """As if nothing had been looked at. For a forked child, which has no threads."""
        self._starting = threading.Lock()
        self._asked = monotonic()
        self._stumbled = False
        self.recent.clear()
        self._thread: threading.Thread | None = None
        self._judges: dict[ref[Source], Judge] = {}
        self._failed: WeakSet[Source] = WeakSet()
        for sink in self.sinks:
            sink.begin_anew()

    def start(self) -> None:
        """Unless it is at it. With nobody to tell it ends by itself, `LINGER` s after this was last called."""
        self._asked = monotonic()
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="penstock-alerts", daemon=True)
                self._thread.start()

    def judge_by(self, thresholds: Thresholds) -> None:
        """Anew: what was raised by others is not cleared."""
        self.thresholds, self._judges = thresholds, {}

    def active(self, source: Source) -> list[Alert]:
        judge = self._judges.get(ref(source))
        return [] if judge is None else judge.active

    def raised(self) -> list[Alert]:
        """By all of them."""
        return [alert for judge in list(self._judges.values()) for alert in judge.active]

    def look(self) -> None:
        """At all of them, once."""
        for source in sources.sources():
            try:
                self._tell(self._look_at(source))
            except Exception:
                if source not in self._failed:
                    self._failed.add(source)
                    logger.exception("%s: its alerts cannot be told", source.name)
        judges = self._judges  # which another thread may replace
        for gone in [known for known in list(judges) if known() is None]:
            judge = judges.pop(gone, None)
            if judge is not None:
                self._tell(judge.end(time()))

    def _look_at(self, source: Source) -> Sequence[Alert]:
        pool, known = source.snapshot(), ref(source)
        if pool.closed:
            judge = self._judges.pop(known, None)
            return [] if judge is None else judge.end(time(), pool)
        judge = self._judges.get(known)
        if judge is None:
            judge = self._judges[known] = Judge(source.name, self.thresholds)
        holders = source.holders() if judge.wants_holders(pool) else ()
        return judge.look(Figures(monotonic(), pool, holders, _fleet(source), self._lag(source)), time())

    def _tell(self, changes: Sequence[Alert]) -> None:
        for alert in changes:
            self.recent.append(alert)
            for sink in self.sinks:
                sink.offer(alert)

    def _run(self) -> None:
        pause = threading.Event()
        while self._is_wanted():
            pause.wait(EVERY)
            try:
                self.look()
            except Exception:
                if not self._stumbled:
                    logger.exception("bug: what looks for alerts has stumbled; it goes on")
                self._stumbled = True

    def _is_wanted(self) -> bool:
        with self._starting:
            if self.sinks or monotonic() - self._asked < LINGER:
                return True
            self._thread = None
            self._judges = {}  # what they know would be old when it begins again
            return False


def _fleet(source: Source) -> FleetState | None:
    state = getattr(source, "fleet", None)
    return None if state is None else state()
