"""One member's part in finding the fleet's best size: what it gets done, whose line it follows, whether it decides.

One member decides: the first that found nobody else to do so, and of several the first by name. It publishes the line,
and all share that out instead of the budget, whether their own pool is ``max_size="auto"`` or not. Each publishes what
it got done under it, and the mark that goes with it (`tag.Mark`). When the member that decides has gone, another goes
on from the line that it saw last.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from ..core import Core, Reason
from .climb import Climber, Figures, Step
from .demand import totals
from .shares import View
from .tag import Mark, Work

IN_USE = 0.9  # of the share, on average, from which on all connections count as in use
WAITING = 0.5  # requests, on average, from which on some count as waiting
LOST = 0.05  # of the requests done: more lose their connection, and the work says nothing of the line
GRACE = 30.0  # seconds for which a line is kept that nobody decides: another takes over at its next look


class Totals(NamedTuple):
    """A pool's, since the beginning. *at*: seconds of the pool's clock."""

    at: float
    done: int
    used: float
    waited: float
    connect_errors: int
    lost: int


def totals_of(core: Core, now: float) -> Totals:
    used, waited = totals(core, now)
    return Totals(now, core.uses, used, waited, core.connect_errors, core.closes[Reason.BROKEN])


class Line:
    """A member's view of the line.

    :param climbs: whether this member may decide.
    :param budget: the line before anything is known.
    """

    def __init__(self, climbs: bool, budget: int) -> None:
        self._climbs = climbs
        self._budget = budget
        self._line: int | None = None  # in force
        self._decided_at = 0.0  # somebody was seen to decide
        self._settled = False  # whether there was time to take or give up what the line made of the share
        self._before: Totals | None = None
        self._work: Work | None = None
        self._climber: Climber | None = None

    @property
    def says(self) -> Work | None:
        """What to publish."""
        if self._climber is None:
            return self._work
        return Work(0.0 if self._work is None else self._work.rate, Mark.DECIDES, self._climber.line)

    def measure(self, now: Totals, share: int) -> None:
        """Before each look: what was done since the last, unless the line was new then."""
        before, self._before = self._before, now
        if self._line is None:
            self._work = None
        elif not self._settled:
            self._settled = True
        elif before is not None and now.at > before.at:
            self._work = work_of(before, now, share, self._line)

    def follow(self, seen: View, now: float) -> View:
        """Whatever is seen, with the line in force. That of a member that has just gone is kept for a while."""
        decider = seen.decider
        line = self._line
        if decider is not None:
            line, self._decided_at = decider.line, now
        elif now - self._decided_at > GRACE:
            line = None
        if line != self._line:
            self._line, self._settled = line, False
        return replace(seen, line=line)

    def decide(self, seen: View, name: str, now: float) -> Step | None:
        """The member's own decision, if it is the one to make it; to be said at once."""
        if not self._climbs or (seen.decider is not None and seen.decider.name != name):
            self._climber = None
            return None
        if self._climber is None:
            line = self._budget if self._line is None else self._line
            self._climber = Climber(line, now)
            return Step(line, line, "nobody decides: this process does from now on")
        return self._climber.look(self._figures(seen, name, now, self._climber.line))

    def _figures(self, seen: View, name: str, now: float, line: int) -> Figures:
        found = []
        for member in seen.members.values():
            work = self._work if member.name == name else member.work
            if work is not None and work.line == line:
                found.append((member.claim, work))
        known = sum(claim for claim, _ in found)
        return Figures(
            at=now,
            rate=sum(work.rate for _, work in found),
            known=known / max(1, seen.claimed),
            full=_part(found, Mark.FULL) / max(1, known),
            troubled=_part(found, Mark.TROUBLED) / max(1, known),
            least=seen.guaranteed,
            most=seen.usable,
        )


def _part(found: Iterable[tuple[int, Work]], mark: Mark) -> int:
    return sum(claim for claim, work in found if work.mark is mark)


def work_of(before: Totals, now: Totals, share: int, line: int) -> Work:
    """What a pool with this share got done from one moment to another."""
    seconds, done = now.at - before.at, now.done - before.done
    in_use = (now.used - before.used) / seconds >= IN_USE * share
    waiting = (now.waited - before.waited) / seconds >= WAITING
    troubled = now.connect_errors > before.connect_errors or now.lost - before.lost > LOST * done
    mark = Mark.TROUBLED if troubled else Mark.FULL if in_use and waiting else Mark.EASY
    return Work(done / seconds, mark, line)
