"""The values at hand: a dictionary that forgets the least recently used when it is full."""

from __future__ import annotations

from collections import OrderedDict

from .policy import Entry


class Memory:
    """Not locked: whoever has it guards it."""

    def __init__(self, maxsize: int) -> None:
        self._maxsize = maxsize
        self._entries: OrderedDict[str, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Entry | None:
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: str, entry: Entry) -> None:
        """Keep the newer one of *entry* and what is there."""
        known = self._entries.get(key)
        if known is None or known.at <= entry.at:
            self._entries[key] = entry
        self._entries.move_to_end(key)
        if len(self._entries) > self._maxsize:
            self._entries.popitem(last=False)

    def forget(self, key: str) -> None:
        self._entries.pop(key, None)

    def oldest(self) -> float | None:
        """When the oldest value was loaded."""
        return min((entry.at for entry in self._entries.values()), default=None)
