"""A process in which a pool has opened is watched from then on, by one thread that sleeps most of the time.

It looks at what is out (`profile`), asks event loops how late they are (`looplag`), says in the log what is held for
nothing (`early`), and answers on the telemetry socket. It waits for nobody, and takes no lock that a checkout takes.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
from random import Random
from time import monotonic, thread_time

from . import looplag
from .document import document
from .following import follow
from .sources import Source, sources
from .telemetry.server import Server

logger = logging.getLogger("penstock.observe")

OFF = ("off", "0", "false", "no")
BUSY = 0.1  # seconds between two looks while something is out, on average
QUIET = 1.0  # the most, when nothing has been for a while
EARLY = 10.0  # between two looks at whether there is something to say in the log
SHARE = 0.01  # of a processor, that looking may take: with a great many connections it looks less often

_chance = Random()  # not the module's own: whoever seeds that must not have it drawn from
_watching: Watching | None = None
_off = False
_lock = threading.Lock()


def watch(source: Source) -> None:
    """*source* is watched from now on, and the process has a telemetry socket; not with PENSTOCK_TELEMETRY=off."""
    global _watching
    if _off or os.environ.get("PENSTOCK_TELEMETRY", "").strip().lower() in OFF:
        return
    follow(source)
    if _watching is not None:
        return
    with _lock:
        if _watching is None:
            watching = Watching()
            if watching.start():
                _watching = watching


def unwatch() -> None:
    """End the watching, remove the socket, and begin neither again in this process."""
    global _off, _watching
    _off = True
    with _lock:
        watching, _watching = _watching, None
    if watching is not None:
        watching.stop()


class Watching:
    """The thread, and what it does."""

    def __init__(self) -> None:
        self.server = Server(lambda: json.dumps(document()).encode())
        self._thread = threading.Thread(target=self._run, name="penstock-telemetry", daemon=True)
        self._ends = False
        self._pause = BUSY
        self._stumbled = False

    def start(self) -> bool:
        """False: no thread could be had."""
        self.server.listen()
        try:
            self._thread.start()
        except RuntimeError as error:
            logger.warning("nothing watches this process's connections: %s", error)
            self.server.close()
            return False
        return True

    def stop(self) -> None:
        self._ends = True
        self.server.wake()
        self._thread.join(QUIET + 1)
        self.server.close()

    def forget(self) -> None:
        """In a forked child, where the thread is not."""
        self.server.forget()

    def remove(self) -> None:
        """At the process's end: the thread ends with it."""
        self.server.remove()

    def _run(self) -> None:
        while not self._ends:
            try:
                self.server.serve(self._look())
            except Exception:
                if not self._stumbled:
                    logger.exception("bug: what watches connections has stumbled; it goes on")
                self._stumbled = True
                threading.Event().wait(QUIET)

    def _look(self) -> float:
        """Look at everything once; in how many seconds to look again."""
        began, now = thread_time(), monotonic()
        found = sources()
        out = False
        for source in found:
            out = _look_at(source, now) or out
        looplag.ask(now, found)
        self._pause = BUSY if out else min(QUIET, self._pause * 1.5)
        # By chance, so that what happens every tenth of a second is not always met at the same point.
        return max(self._pause * _chance.uniform(0.5, 1.5), (thread_time() - began) / SHARE)


def _look_at(source: Source, now: float) -> bool:
    try:
        followed = follow(source)
        out = followed.tally.look(source, now)
        if out and now - followed.told >= EARLY:
            followed.told = now
            followed.early.look(source.name, source.snapshot().max_size, followed.tally.profile(), now)
    except Exception as error:  # looked at in the midst of a change: the next look will do
        logger.debug("%s: %r while it was looked at", source.name, error)
        return False
    return out


def _after_fork_in_child() -> None:
    global _watching, _lock
    _lock = threading.Lock()
    watching, _watching = _watching, None
    if watching is not None:
        watching.forget()


def _at_exit() -> None:
    if _watching is not None:
        _watching.remove()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
