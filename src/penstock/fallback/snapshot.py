"""Every figure of a fallback at one moment, in one immutable object."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Snapshot:
    """Counts of reads and loads only go up; those of `entries` and `loading` are of this moment."""

    name: str
    hits: int  # reads answered with a value that was fresh, here or in the shared store
    loaded: int  # reads answered with a value that was loaded for them; several may share one load
    stood_in: int  # reads answered with an older value, for want of a connection or of patience
    unavailable: int  # reads refused with `Unavailable`
    loads: int  # begun
    failed: int  # loads that failed for want of a connection
    shared: int  # values taken over from the shared store
    store_failures: int  # requests to the shared store that failed
    loading: int  # loads under way
    entries: int  # values in memory
    oldest: float | None  # seconds since the oldest of those was loaded
    down: bool  # the database is known to be down
