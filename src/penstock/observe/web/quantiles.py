"""Percentiles of what happened lately, estimated from buckets as Prometheus' `histogram_quantile` does."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.durations import BOUNDS


def quantile(counts: Sequence[float], share: float) -> float | None:
    """Seconds that *share* of all were not above; None where there were none.

    Within a bucket all are taken to be spread evenly. Not in the first, where nearly all took next to no time: it is
    known by its bound, and so is the last.
    """
    total = sum(counts)
    if total <= 0:
        return None
    rank, below = share * total, 0.0
    for number, count in enumerate(counts):
        if below + count >= rank and count:
            if number in (0, len(BOUNDS)):
                return BOUNDS[min(number, len(BOUNDS) - 1)]
            lower = BOUNDS[number - 1]
            return lower + (BOUNDS[number] - lower) * (rank - below) / count
        below += count
    return BOUNDS[-1]


def gained(now: Sequence[float], before: Sequence[float]) -> list[float]:
    """What each bucket has more; nothing where the counts began anew."""
    return [max(0.0, new - old) for new, old in zip(now, before, strict=True)]
