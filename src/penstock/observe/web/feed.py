"""Looks once a second while somebody watches, and tells all of them the same.

The looking is done in a thread: an event loop that is stuck is not asked.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from time import monotonic, time
from typing import Any, NamedTuple

from .frame import Document, Frames

logger = logging.getLogger("penstock.web")

EVERY = 1.0  # seconds
LINGER = 60.0  # seconds for which it goes on when the last one has gone, so that the charts have no gap
MOST_WATCHERS = 20
BEGINS = 10.0  # seconds for which a place is kept for who was let in and has not begun to read


class Reading(NamedTuple):
    """*troubles*: what could not be read, in words."""

    documents: Sequence[Document]
    troubles: Sequence[str] = ()


class TooMany(Exception):
    """So many watch already."""


class _Watcher:
    """One who watches, in an event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.news = asyncio.Event()

    def tell(self) -> None:
        """From any thread."""
        try:
            self._loop.call_soon_threadsafe(self.news.set)
        except RuntimeError:  # the loop is closed, and nobody watches there any more
            pass


class Feed:
    """:param read: what there is, asked for in a thread. :param extras: more parts of each frame, by name."""

    def __init__(
        self, read: Callable[[], Reading], about: dict[str, Any], extras: Callable[[], dict[str, Any]]
    ) -> None:
        self._read = read
        self._about = about
        self._extras = extras
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._watchers: set[_Watcher] = set()
        self._expected: dict[object, float] = {}  # who was let in, and when
        self._last_left = -LINGER
        self._thread: threading.Thread | None = None
        self._frames = Frames()
        self.latest: str | None = None

    def watch(self) -> AsyncIterator[dict[str, str]]:
        """Events as sse-starlette takes them: first the history, then each frame. Who is slow misses some.

        :raises TooMany: at once.
        """
        if self._pid != os.getpid():  # forked since: the thread is the parent's
            self._begin_anew()
        place, now = object(), monotonic()
        with self._lock:
            self._expected = {other: at for other, at in self._expected.items() if now - at < BEGINS}
            if len(self._watchers) + len(self._expected) >= MOST_WATCHERS:
                raise TooMany
            self._expected[place] = now
        return self._events(place)

    async def _events(self, place: object) -> AsyncIterator[dict[str, str]]:
        watcher = _Watcher()
        with self._lock:  # only now: what is never begun is never ended either
            self._expected.pop(place, None)
            self._watchers.add(watcher)
            if self._thread is None:
                self.latest = None  # that of long ago
                self._thread = threading.Thread(target=self._run, name="penstock-page", daemon=True)
                self._thread.start()
        try:
            yield {"event": "about", "data": json.dumps(self._about)}
            yield {"event": "history", "data": json.dumps(self._frames.history())}
            told = None
            while True:
                latest = self.latest
                if latest is not None and latest is not told:
                    told = latest
                    yield {"event": "frame", "data": latest}
                await watcher.news.wait()
                watcher.news.clear()
        finally:
            with self._lock:
                self._watchers.discard(watcher)
                self._last_left = monotonic()

    def _run(self) -> None:
        pause = threading.Event()
        while self._is_wanted():
            began = monotonic()
            self.latest = self._look()
            with self._lock:
                watchers = list(self._watchers)
            for watcher in watchers:
                watcher.tell()
            pause.wait(max(0.1, EVERY - (monotonic() - began)))

    def _is_wanted(self) -> bool:
        with self._lock:
            wanted = bool(self._watchers) or monotonic() - self._last_left < LINGER
            if not wanted:
                self._thread = None
            return wanted

    def _look(self) -> str:
        try:
            reading = self._read()
            frame = self._frames.frame(reading.documents, time())
            frame |= {"troubles": list(reading.troubles), **self._extras()}
            return json.dumps(frame, separators=(",", ":"))
        except Exception as error:  # told on the page; the next look may do
            logger.exception("penstock: the page cannot be told")
            return json.dumps({"now": time(), "error": type(error).__name__})
