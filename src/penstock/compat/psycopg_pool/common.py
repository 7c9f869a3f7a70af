"""What psycopg_pool's pools have beyond ours, alike for threads and asyncio."""

from __future__ import annotations

import sys
from typing import Any

from ...pool.base import BasePool

PAUSE = 0.1  # seconds between two tries of `wait`, while the database is known to be down


class Workers(BasePool[Any]):
    """A pool that opens connections as psycopg's does, if `num_workers` is given: so many at once, and grows by one."""

    def __init__(self, conninfo: Any = "", *, num_workers: int | None = None, **options: Any) -> None:
        self._max_opening = num_workers
        super().__init__(conninfo, num_workers=3 if num_workers is None else num_workers, **options)


class Null(BasePool[Any]):
    """A pool that keeps no connection, and bounds them only if `max_size` is given."""

    max_idle: float = 600.0  # accepted and means nothing, as in psycopg's, and so does `num_workers`

    def __init__(
        self,
        conninfo: Any = "",
        *,
        min_size: int = 0,
        max_size: int | None = None,
        max_idle: float = 600.0,
        num_workers: int = 3,
        **options: Any,
    ) -> None:
        super().__init__(conninfo, min_size=_none(min_size), max_size=_limit(max_size), max_idle=0.0, **options)
        self.max_idle = max_idle
        self.num_workers = num_workers

    @property
    def max_size(self) -> int:
        """Connections never exceeded; 0 for any number."""
        return 0 if self._core.max_size == sys.maxsize else self._core.max_size

    def get_stats(self) -> dict[str, int]:
        """As every pool's."""
        return super().get_stats() | {"pool_max": self.max_size}

    def _change_sizes(self, min_size: int, max_size: int) -> None:
        super()._change_sizes(_none(min_size), _limit(max_size))


def _none(min_size: int) -> int:
    if min_size != 0:
        raise ValueError(f"min_size of a null pool must be 0, not {min_size!r}: it keeps no connection")
    return 0


def _limit(max_size: int | None) -> int:
    return max_size or sys.maxsize
