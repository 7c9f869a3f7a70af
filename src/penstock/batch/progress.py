"""How far a job is: a bar on a terminal, a log line every ten seconds elsewhere."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .job import BaseJob
    from .settings import Settings

logger = logging.getLogger("penstock.batch")

LOG_SECONDS = 10.0
DRAW_SECONDS = 0.2
PACE_SECONDS = 30.0  # over which the pace is taken


class Progress:
    """For the length of a `with` block."""

    def __init__(self, job: BaseJob, settings: Settings, clock: Callable[[], float]) -> None:
        self._job = job
        self._name = settings.job
        self._total = settings.total
        self._wanted = settings.progress
        self._clock = clock
        self._bar: Any = None
        self._task: Any = None
        self._due = 0.0
        self._looks: deque[tuple[float, int]] = deque()

    def __enter__(self) -> None:
        now = self._clock()
        self._looks.append((now, 0))
        self._bar = self._made() if self._wanted and sys.stderr is not None and sys.stderr.isatty() else None
        self._due = now + (DRAW_SECONDS if self._bar is not None else LOG_SECONDS)
        if self._bar is not None:
            self._task = self._bar.add_task("", total=self._total)
            self._bar.start()

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._draw(self._clock())
            self._bar.stop()

    def look(self) -> None:
        """After each item, from any thread: draw or log, if it is time to."""
        now = self._clock()
        if not self._wanted or now < self._due:
            return
        self._due = now + (DRAW_SECONDS if self._bar is not None else LOG_SECONDS)
        if self._bar is not None:
            self._draw(now)
        else:
            logger.info("%s: %s", self._name, self.text(now))

    def text(self, now: float) -> str:
        """Where it stands, and how long it will take."""
        job = self._job
        behind = job.done + job.skipped + job.elsewhere + job.failed + job.failed_before
        pace = self._pace(now, job.done + job.failed)
        of = f"{behind:,}" if self._total is None else f"{behind:,} of {self._total:,}"
        text = f"{of}, {job.failed:,} failed, {pace:,.0f}/s"
        if self._total is None or not pace:
            return text
        return f"{text}, {_span(max(0, self._total - behind) / pace)} left"

    def _pace(self, now: float, worked: int) -> float:
        """Items a second, of late; those that were only skipped do not count."""
        looks = self._looks
        looks.append((now, worked))
        while len(looks) > 2 and now - looks[1][0] >= PACE_SECONDS:
            looks.popleft()
        since, before = looks[0]
        return (worked - before) / (now - since) if now > since else 0.0

    def _made(self) -> Any:
        with suppress(ImportError):
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            bar = BarColumn(bar_width=None if self._total is not None else 20)
            text = TextColumn("{task.description}", markup=False)
            return Bar(TextColumn(self._name, markup=False), bar, text, console=Console(stderr=True), expand=True)
        return None

    def _draw(self, now: float) -> None:
        job = self._job
        behind = job.done + job.skipped + job.elsewhere + job.failed + job.failed_before
        self._bar.update(self._task, completed=behind, description=self.text(now))


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {seconds:02d} s"
