"""What this process knows of its connections, written where the one who sums all processes up finds it.

Once a second at most, and at most a hundredth of the time, by a thread that is there only while a connection is open;
and once more when the process ends. So a process that hangs, or was killed, is known of too.
"""

from __future__ import annotations

import _thread
import atexit
import json
import logging
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from time import monotonic, thread_time, time
from typing import Any

from . import ledger, requests
from .settings import folder
from .where import sites

logger = logging.getLogger("penstock.guard")

_EVERY = 1.0  # seconds, at least
_SHARE = 100  # what writing takes is at most one part in so many
_HOLDERS = 100  # that are named, the longest first


class Writer:
    """Of this process; a forked child has its own."""

    def __init__(self) -> None:
        self._news = False
        self._writing = threading.Lock()
        self._awake = threading.Lock()  # held by the thread for as long as it lives
        self._leave = threading.Event()

    def changed(self) -> None:
        """Something is to be told, soon."""
        self._news = True
        if not self._awake.locked() and self._awake.acquire(blocking=False):
            try:  # not one of `threading`'s, which the program would see among its own
                _thread.start_new_thread(self._keep_writing, ())
            except RuntimeError:  # the process ends, or may have no more: at its end it is written
                self._awake.release()

    def _keep_writing(self) -> None:
        try:
            state: Any = None
            while self._news or any(each.open for each in ledger.ledgers()):
                start = (
                    thread_time()
                )  # not of the clock: among many threads it waits for its turn, and costs them nothing
                self._news = False
                if (now := [each.state() for each in ledger.ledgers()]) != state:
                    state = now
                    self.write()
                if self._leave.wait(max(_EVERY, _SHARE * (thread_time() - start))):
                    return
        finally:
            self._awake.release()
        self._start_again()

    def _start_again(self) -> None:
        """If news came after it was looked for them, and before another thread could have been started."""
        if self._news:
            self.changed()

    def write(self) -> None:
        """Now."""
        where = folder()
        if where is None or not any(each.connects for each in ledger.ledgers()):
            return
        if not self._writing.acquire(timeout=_EVERY):
            return
        try:
            path, new = where / f"{os.getpid()}.json", where / f"{os.getpid()}.new"
            new.write_text(json.dumps(document()))
            new.replace(path)
        except OSError as error:  # whoever wanted to know is gone, or the disk is full
            logger.debug("%s: %s", where, error)
        finally:
            self._writing.release()

    def rest(self) -> None:
        """Before a fork: have no thread, of which Python would warn the program."""
        self._leave.set()
        if self._awake.acquire(timeout=_EVERY):
            self._awake.release()
        self._leave.clear()

    def go_on(self) -> None:
        if any(each.open for each in ledger.ledgers()):
            self.changed()


_writer = Writer()


def changed() -> None:
    """Something is to be told, soon."""
    _writer.changed()


def document() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "program": Path(sys.argv[0] if sys.argv else "").name or "python",
        "at": time(),
        "clock": monotonic(),
        "requests": requests.begun(),
        "databases": [_database(each) for each in ledger.ledgers() if each.connects],
    }


def _database(of: ledger.Ledger) -> dict[str, Any]:
    held = of.holders()[:_HOLDERS]
    with of._lock:
        now = monotonic()
        return {
            "name": of.name,
            "seconds": now - of.since,
            "connects": of.connects,
            "connect_seconds": of.connect_seconds,
            "errors": dict(of.errors),
            "most": of.most,
            "most_in_request": of.most_in_request,
            "open": of.open,
            "timeline": of.timeline.told(),
            "usage": of.usage.told(of.at_work(), now),
            "sites": [_site(site, now) for site in of.sites.values()],
            "holders": [
                {
                    "site": str(holder.site),
                    "owner": holder.owner,
                    "since": now - holder.held,
                    "idle_since": None if holder.idle is None else now - holder.idle,
                    "status": holder.status,
                    "statement": holder.statement,
                    "stack": [str(line) for line in holder.stack],
                }
                for holder in held
            ],
        }


def _site(site: ledger.Site, now: float) -> dict[str, Any]:
    live = list(site.open)
    return {
        "lines": [str(line) for line in sites(site.asked.lines)],
        "pool": site.asked.pool,
        "by_django": site.asked.by_django,
        "driver": site.driver,
        "opened": site.opened,
        "in_requests": site.in_requests,
        "requests": site.requests,
        "open": len(live),
        "most": site.most,
        "ended": {how.name.lower(): many for how, many in site.ended.items()},
        "dropped_in_requests": site.dropped_in_requests,
        "left": site.left,
        "outlived": sum(held.over == held.over for held in live),
        "reused": site.reused,
        "afterwards": site.afterwards,
        "errors": dict(site.errors),
        "connect_seconds": site.connect_seconds,
        "held": site.held + sum(now - held.since for held in live),
        "longest": max([site.longest, *(now - held.since for held in live)]),
        "ran": site.ran + sum(held.ran for held in live),
        "worked": site.worked + sum(held.worked + held.at_work_for(now) for held in live),
    }


# ---------------------------------------------------------------------------------------------- the process's end

_leave = os._exit


def _exit(status: int) -> None:
    """As multiprocessing's and Celery's children end, without `atexit`."""
    with suppress(Exception):
        _writer.write()
    _leave(status)


def _after_fork() -> None:
    global _writer
    _writer = Writer()


def install() -> None:
    """Have the process's end written."""
    atexit.register(lambda: _writer.write())
    os._exit = _exit  # type: ignore[assignment]
    os.register_at_fork(
        before=lambda: _writer.rest(), after_in_parent=lambda: _writer.go_on(), after_in_child=_after_fork
    )
