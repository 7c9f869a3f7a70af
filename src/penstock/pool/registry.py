"""Every pool of this process, for the moments that concern them all: a fork, and the interpreter's exit."""

from __future__ import annotations

import atexit
import os
import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

if TYPE_CHECKING:
    from .base import BasePool

_pools: WeakSet[BasePool[Any]] = WeakSet()
_ends = threading.local()


def register(pool: BasePool[Any]) -> None:
    _pools.add(pool)


def _after_fork_in_child() -> None:
    for pool in list(_pools):
        pool._after_fork()


def _at_exit() -> None:
    """Tell the server goodbye, so that it does not log a lost client. Nothing is waited for."""
    for pool in list(_pools):
        pool._at_exit()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)


class Token:
    """Stands for a thread, whose ident may be another thread's a moment after its end."""

    def __init__(self) -> None:
        self.ended = False


class ThreadEnd:
    """Lives in a thread's locals and dies with the thread, which is how its pools learn of its end at once."""

    def __init__(self) -> None:
        self.token = Token()
        self.known: set[int] = set()  # the pools' numbers: to look one up in a WeakSet takes half a microsecond
        self.pools: WeakSet[BasePool[Any]] = WeakSet()

    def __del__(self) -> None:
        self.token.ended = True
        for pool in self.pools:
            pool._holder_ended(self.token)


def tell_of_end(pool: BasePool[Any]) -> Token:
    """From now on *pool* is told when the calling thread ends. Returns the token that it will be told."""
    try:
        end: ThreadEnd = _ends.end
    except AttributeError:
        end = _ends.end = ThreadEnd()
    if pool._number not in end.known:
        end.known.add(pool._number)
        end.pools.add(pool)
    return end.token
