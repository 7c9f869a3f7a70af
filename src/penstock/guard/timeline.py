"""How many at once, second by second, in so little memory that a program may run for ever; several can be summed."""

from __future__ import annotations

from collections.abc import Iterable
from time import time
from typing import Any

_MOST = 600  # spans that are kept; when there are more, two become one


class Timeline:
    """By the wall clock, which all processes of a machine share.

    :ivar width: of a span, in seconds.
    :ivar spans: of each that something happened in, by its number since 1970: the most, and how many at its end.
    """

    def __init__(self) -> None:
        self.width = 1
        self.spans: dict[int, tuple[int, int]] = {}
        self._level = 0

    def at(self, level: int) -> None:
        """So many from now on."""
        span = int(time()) // self.width
        most, _ = self.spans.get(span, (self._level, 0))
        self.spans[span] = max(most, level), level
        self._level = level
        if len(self.spans) > _MOST:
            self.width *= 2
            self.spans = _doubled(self.spans)

    def told(self) -> dict[str, Any]:
        return {"width": self.width, "spans": [[span, *levels] for span, levels in self.spans.items()]}


def most(told: Iterable[dict[str, Any]]) -> int:
    """Of several processes together: never less than there were at once, and more by what changed within one span."""
    lines = list(told)
    width = max((line["width"] for line in lines), default=1)
    peaks: list[dict[int, tuple[int, int]]] = []
    spans: set[int] = set()
    for line in lines:
        found = {span: (peak, last) for span, peak, last in line["spans"]}
        while line["width"] < width:
            found = _doubled(found)
            line = {**line, "width": line["width"] * 2}
        peaks.append(found)
        spans.update(found)
    levels, total = [0] * len(peaks), 0
    for span in sorted(spans):
        here = [found.get(span) for found in peaks]
        total = max(total, sum(level if at is None else at[0] for at, level in zip(here, levels, strict=True)))
        levels = [level if at is None else at[1] for at, level in zip(here, levels, strict=True)]
    return total


def _doubled(spans: dict[int, tuple[int, int]]) -> dict[int, tuple[int, int]]:
    doubled: dict[int, tuple[int, int]] = {}
    for span in sorted(spans):
        peak, last = spans[span]
        before, _ = doubled.get(span // 2, (peak, 0))
        doubled[span // 2] = max(before, peak), last
    return doubled
