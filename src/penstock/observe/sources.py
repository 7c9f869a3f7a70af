"""What there is to observe in this process: every pool of ours, and whatever else tells of itself in the same words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakSet

from ..events import Event
from ..pool import registry
from ..pool.holders import Holder
from ..pool.snapshot import Snapshot


class Source(Protocol):
    """A pool as those see it who observe it; `penstock.Pool` and `penstock.AsyncPool` are such."""

    @property
    def name(self) -> str: ...

    def snapshot(self) -> Snapshot: ...

    def holders(self) -> list[Holder]: ...

    def listen(self, callback: Callable[[Any], object], *kinds: type[Event]) -> Callable[[], None]: ...


_others: WeakSet[Source] = WeakSet()


def add(source: Source) -> None:
    """From now on *source* is observed too, for as long as it lives."""
    _others.add(source)
    registry.opened(source)


def remove(source: Source) -> None:
    """It is observed no more."""
    _others.discard(source)


def each(callback: Callable[[Source], object]) -> Callable[[], None]:
    """Call *callback* with every source there is, and with each that comes; returns what ends that."""
    told: WeakSet[Source] = WeakSet()

    def tell(source: Source) -> None:
        if source not in told:
            told.add(source)
            callback(source)

    stop = registry.watch_with(tell)
    for source in sources():
        tell(source)
    return stop


def sources() -> list[Source]:
    """All of them, by name."""
    return sorted([*registry.pools(), *registry.alive(_others)], key=lambda source: source.name)
