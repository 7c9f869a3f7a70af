"""To wait for one's turn: a server that has no connection left is asked again, and nothing is wrong with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from random import SystemRandom
from typing import TYPE_CHECKING, Any
from weakref import ref

from ...drivers.full import is_full
from ...pool.base import drop_frames, one_line
from ...pool.membership import NotNow

if TYPE_CHECKING:
    from ...pool.base import BasePool

FIRST_PAUSE = 0.02  # seconds before the second try, doubled from there on
LONGEST_PAUSE = 1.0  # each try costs the server a process: a hundred that wait cost it 130 of them a second

# Not a generator with a state: processes that are restored from one snapshot would all draw the same pauses.
_chance = SystemRandom().random


class Turn:
    """Satisfies `penstock.pool.membership.Door`. Tries again until whoever wants a connection wants it no more."""

    def __init__(self, pool: BasePool[Any]) -> None:
        self._pool = ref(pool)
        self._tries = 0  # in a row, in vain

    async def admit(self, dial: Callable[[Mapping[str, Any]], Awaitable[Any]]) -> Any:
        try:
            conn = await dial({})
        except Exception as error:
            if not is_full(error):
                raise
            raise self._later(error) from None
        self._tries = 0
        return conn

    def _later(self, error: Exception) -> NotNow:
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._tries, 10))
        self._tries += 1
        if (pool := self._pool()) is not None:
            drop_frames(error)
            pool._core.pace.error = error  # who has waited in vain is told
        return NotNow(one_line(error), longest * (0.5 + 0.5 * _chance()))
