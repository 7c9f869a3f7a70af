"""Where alerts go. Each sink has a thread and a bounded queue of its own: none holds up another, or the pool."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import Full, Queue

from .kinds import Alert

logger = logging.getLogger("penstock.alerts")

QUEUE = 64  # alerts that wait for a sink; more are dropped, and counted

PATIENCE = 20  # times in a row that one may raise before it is called no more

Deliver = Callable[[Alert], object]


class Sink:
    """Delivers alerts one after the other, in a thread that begins with the first.

    :ivar dropped: alerts that found the queue full, or were given up.
    """

    def __init__(self, name: str, deliver: Deliver) -> None:
        self.name = name
        self.dropped = 0
        self._deliver = deliver
        self.begin_anew()

    def begin_anew(self) -> None:
        """With nothing in the queue; after a fork there is no thread either."""
        self._queue: Queue[Alert | None] = Queue(QUEUE)
        self._thread: threading.Thread | None = None
        self._over = False
        self._given_up = False

    def offer(self, alert: Alert) -> None:
        """Never waits."""
        if self._given_up:
            self.dropped += 1
        if self._over:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"penstock-alerts-{self.name}", daemon=True)
            self._thread.start()
        try:
            self._queue.put_nowait(alert)
        except Full:
            self._drop("it does not keep up")

    def end(self) -> None:
        """No more after those in the queue."""
        self._over = True
        try:
            self._queue.put_nowait(None)
        except Full:
            pass  # its thread looks at `_over` too

    def _run(self) -> None:
        failed = 0  # in a row
        while (alert := self._queue.get()) is not None:
            try:
                self._deliver(alert)
                failed = 0
            except Undelivered as error:
                self._drop(str(error))
            except (Exception, SystemExit) as error:
                failed += 1
                self._drop(f"it raised {type(error).__name__}", error)
                if failed == PATIENCE:
                    logger.error("penstock: %s raised %d times in a row and gets no more alerts", self.name, failed)
                    self._given_up = self._over = True
                    return
            if self._over and self._queue.empty():
                return

    def _drop(self, why: str, error: BaseException | None = None) -> None:
        self.dropped += 1
        if self.dropped & (self.dropped - 1) == 0:  # the first, second, fourth, eighth ...
            logger.warning("penstock: %s: %d alerts not delivered: %s", self.name, self.dropped, why, exc_info=error)


class Undelivered(Exception):
    """An alert was given up; the message may be shown."""


def log(alert: Alert) -> None:
    """A line in the log `penstock.alerts`; as *alert* it goes along for whoever logs JSON."""
    level = logging.WARNING if alert.cleared is None else logging.INFO
    logger.log(level, "%s", alert, extra={"alert": alert.as_dict()})
