"""Every pool of this process, for the moments that concern them all: a fork, and the interpreter's exit."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

if TYPE_CHECKING:
    from .base import BasePool

T = TypeVar("T")

_pools: WeakSet[BasePool[Any]] = WeakSet()
_watchers: tuple[Callable[[Any], object], ...] = ()
_ends = threading.local()
_leaving: set[int] = set()  # the kernel's numbers of threads of ours that have done their work, and may not be gone yet

logger = logging.getLogger("penstock.pool")

_GONE_SECONDS = 0.2  # for which a fork waits for them
_MANY = 64  # of them, after which those that are gone are forgotten


def register(pool: BasePool[Any]) -> None:
    _pools.add(pool)


def pools() -> list[BasePool[Any]]:
    return alive(_pools)


def alive(members: WeakSet[T]) -> list[T]:
    """Those there are. From any thread: to go through the set itself fails when another one adds to it meanwhile."""
    references = list(members.data)  # type: ignore[attr-defined]
    return [member for known in references if (member := known()) is not None]


def watch_with(watcher: Callable[[Any], object]) -> Callable[[], None]:
    """Have *watcher* called with each pool that opens, until what is returned is called. It stands above."""
    global _watchers
    _watchers = (*_watchers, watcher)
    return lambda: _watch_without(watcher)


def _watch_without(watcher: Callable[[Any], object]) -> None:
    global _watchers
    _watchers = tuple(other for other in _watchers if other is not watcher)


def opened(pool: object) -> None:
    """Nothing that watches can keep a pool from opening."""
    for watcher in _watchers:
        try:
            watcher(pool)
        except Exception:
            logger.exception("%r opens unwatched", pool)


def _after_fork_in_child() -> None:
    for pool in list(_pools):
        pool._after_fork()


def _at_exit() -> None:
    """Tell the server goodbye, so that it does not log a lost client. Nothing is waited for."""
    for pool in list(_pools):
        pool._at_exit()


def run(job: Callable[..., object], *args: Any) -> None:
    """What a thread of a pool's does."""
    try:
        job(*args)
    finally:
        if len(_leaving) > _MANY:
            _leaving.difference_update([number for number in list(_leaving) if not _exists(number)])
        _leaving.add(threading.get_native_id())


def _before_fork() -> None:
    """Let threads that have done their work be gone.

    As a thread ends, OpenSSL (in libpq) takes a lock of the whole process. A child that is forked at that moment has it
    locked for ever, and hangs in its first connect.
    """
    until = monotonic() + _GONE_SECONDS
    while _leaving and monotonic() < until:
        number = next(iter(_leaving))
        if _exists(number):
            sleep(0.0005)
        else:
            _leaving.discard(number)


def _exists(number: int) -> bool:
    return os.path.exists(f"/proc/self/task/{number}")


os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
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
