"""One thread looks at all watched pools once a second, for as long as there are any."""

from __future__ import annotations

import os
import threading
from time import monotonic
from weakref import WeakSet

from .watched import Watched

PERIOD = 1.0  # seconds between two looks: by so much a leak may be reported late

_watched: WeakSet[Watched] = WeakSet()
_lock = threading.Lock()
_thread: threading.Thread | None = None
_stir = threading.Event()  # look now


def look_after(watched: Watched) -> None:
    global _thread
    with _lock:
        _watched.add(watched)
        if _thread is None:
            _thread = threading.Thread(target=_look, name="penstock-watch", daemon=True)
            _thread.start()


def forget(watched: Watched) -> None:
    with _lock:
        _watched.discard(watched)


def _look() -> None:
    global _thread
    while True:
        _stir.wait(PERIOD)
        _stir.clear()
        with _lock:
            found = list(_watched)
            if not found:
                _thread = None
                return
        for watched in found:
            watched.look(monotonic())
        del found
        watched = None  # type: ignore[assignment]  # or the last one would be kept


def _after_fork_in_child() -> None:
    """The parent's leases are none of the child's, and its thread is not there."""
    global _lock, _stir, _thread
    _lock, _stir = threading.Lock(), threading.Event()
    _thread = None
    for watched in list(_watched):
        watched._start_anew()
        look_after(watched)


os.register_at_fork(after_in_child=_after_fork_in_child)
