"""What is remembered of each source beyond what it tells of itself: its last events, and its profile."""

from __future__ import annotations

import os
from threading import RLock
from time import monotonic
from weakref import WeakKeyDictionary

from ..pool.base import BasePool
from ..pool.profile import NOTHING, Profile
from .early import Early
from .profile import Tally
from .recent import KINDS, Recent
from .sources import Source


class Followed:
    """What is remembered of one."""

    def __init__(self, now: float) -> None:
        self.recent = Recent()
        self.tally = Tally(now)
        self.early = Early()
        self.told = now


_followed: WeakKeyDictionary[Source, Followed] = WeakKeyDictionary()
_lock = RLock()


def follow(source: Source) -> Followed:
    """What is remembered of *source*, from the first call on."""
    with _lock:
        found = _followed.get(source)
        if found is not None:
            return found
        found = _followed[source] = Followed(monotonic())
    source.listen(found.recent.note, *KINDS)  # outside of it: a source may have a lock of its own
    return found


def profile(source: Source) -> Profile:
    """What its connections were held for, over the last minutes; nothing where it is not followed."""
    found = _followed.get(source)
    return NOTHING if found is None else found.tally.profile()


BasePool._profile_of = profile  # for `snapshot()`


def _after_fork_in_child() -> None:
    """What the parent remembers is none of the child's."""
    global _lock
    _lock = RLock()
    for found in _followed.values():
        found.recent.clear()  # the pool goes on telling it
        found.tally = Tally(monotonic())


os.register_at_fork(after_in_child=_after_fork_in_child)
