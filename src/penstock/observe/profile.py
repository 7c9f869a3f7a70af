"""Who holds connections, and what for: found by looking at what is out every now and then.

To note it at each checkout would cost every checkout. Who looks at moments that have nothing to do with what is looked
at, and counts what is found as having lasted since the look before, is right on average; and what lasts for longer than
the time between two looks is certain to be seen.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Iterator
from heapq import nlargest
from types import CodeType
from typing import Any, TypeVar

from ..pool.holders import CallSite, call_site
from ..pool.profile import Profile, SiteTime, StatementTime
from .fingerprint import dialect, fingerprint
from .sources import Source

MINUTE = 60.0
MINUTES = 5  # that a profile goes back
TOP = 10  # entries of each of its lists
OTHER = "other"
_MOST = 200  # lines of code, and statements, of a minute that are told apart; those beyond are `OTHER`
_OTHER_SITE = CallSite(OTHER, 0, OTHER)

Place = CallSite | tuple[CodeType | None, int]  # a code object and its instruction: the line is found when it is shown
K = TypeVar("K", bound=Hashable)


class _Minute:
    """What was found within a minute, in seconds."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.held: defaultdict[Place, float] = defaultdict(float)
        self.idle: defaultdict[Place, float] = defaultdict(float)
        self.ran: defaultdict[str, float] = defaultdict(float)

    def add(self, seconds: float, place: Place, idle: bool, statement: str | None) -> None:
        place = _known(place, self.held, _OTHER_SITE)
        self.held[place] += seconds
        if idle:
            self.idle[place] += seconds
        elif statement is not None:
            self.ran[_known(statement, self.ran, OTHER)] += seconds


class Tally:
    """What was found at one source over the last minutes. One thread looks; any may ask for the profile."""

    def __init__(self, now: float) -> None:
        self._minutes: deque[_Minute] = deque([_Minute(now)], maxlen=MINUTES)
        self._looked = now
        self._made: tuple[float, Profile] | None = None

    def look(self, source: Source, now: float) -> bool:
        """Count what is out as having been so since the last look. Returns whether anything is."""
        seconds, self._looked = now - self._looked, now
        if now - self._minutes[-1].began >= MINUTE:
            self._minutes.append(_Minute(now))
        found = list(_out(source))
        for place, idle, statement in found:
            self._minutes[-1].add(seconds, place, idle, statement)
        return bool(found)

    def profile(self) -> Profile:
        """As of the last look."""
        looked, made = self._looked, self._made
        if made is None or made[0] != looked:
            made = self._made = (looked, _profile(list(self._minutes), looked))
        return made[1]


def _out(source: Any) -> Iterator[tuple[Place, bool, str | None]]:
    """What is out of *source* now. A pool of ours is asked for less than `holders` tells, which is quicker."""
    spoken = dialect(source)
    if hasattr(source, "_glances"):
        for code, lasti, idle, statement in source._glances():
            yield (code, lasti), idle, None if idle else fingerprint(statement, spoken)
    else:
        for holder in source.holders():
            idle = holder.idle is not None
            yield holder.site, idle, None if idle else fingerprint(holder.statement, spoken)


def _profile(minutes: list[_Minute], now: float) -> Profile:
    held = _sum([minute.held for minute in minutes])
    idle = _sum([minute.idle for minute in minutes])
    ran = _sum([minute.ran for minute in minutes])
    return Profile(
        seconds=now - minutes[0].began,
        held=sum(held.values()),
        idle=sum(idle.values()),
        sites=tuple(SiteTime(_site(place), held[place], idle.get(place, 0.0)) for place in _top(held)),
        idle_sites=tuple(SiteTime(_site(place), held[place], idle[place]) for place in _top(idle)),
        statements=tuple(StatementTime(statement, ran[statement]) for statement in _top(ran)),
    )


def _sum(parts: list[defaultdict[K, float]]) -> dict[K, float]:
    total: dict[K, float] = {}
    for part in parts:
        for key, seconds in list(part.items()):  # at once: it may grow meanwhile
            total[key] = total.get(key, 0.0) + seconds
    return total


def _top(seconds: dict[K, float]) -> list[K]:
    return nlargest(TOP, seconds, key=seconds.__getitem__)


def _known(key: K, known: dict[K, float], other: K) -> K:
    return key if key in known or len(known) < _MOST else other


def _site(place: Place) -> CallSite:
    return place if isinstance(place, CallSite) else call_site(*place)
