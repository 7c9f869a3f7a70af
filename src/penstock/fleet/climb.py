"""How many connections a whole fleet should have, found by trying: a hill-climber on the work that gets done.

It counts completions and nothing else. A latency says how long the others' queue is, and what is taken for the base of
it is learnt while that queue stands; completions have no base to be wrong about. And it moves the one figure of all,
the *line*: members that each looked for their own best would see one another's load as the database's, and never find
it.

* Only where the line is in the way: most of the connections below it in use all the time, and requests waiting.
* One step is a tenth. It goes on in the same direction while more gets done, and turns round when less does. When it
  makes no difference, fewer connections do the same work: downwards. On the way down what is done is held against the
  best of that way, so that many small losses are one loss.
* A line that was gone back to is rested on, longer each time: the next try from there is no news, and costs work.
* While connecting fails, or connections break, it stands still: what gets done then says nothing of the line.
* A line that nothing has confirmed for a while goes up by itself, a step at a time. So what was found on a bad day is
  forgotten in about an hour, and what was found a minute ago is still there when the load comes back.
"""

from __future__ import annotations

from dataclasses import dataclass

STEP = 0.1  # of the line; at least 1
BAND = 0.01  # of the work done, either way: less is no difference
KNOWN = 0.9  # of the fleet, counted in connections claimed: whose work must be known before it is judged
FULL = 0.5  # of the fleet: in whose way the line must be
TROUBLED = 0.05  # of the fleet: more in trouble than this, and nothing is judged
LOOKS = 2  # over which work is measured, at least
ENOUGH = 2500  # completions that it is measured by, at least: chance alone moves these by 2 %
REST, REST_MOST = 3, 24  # measurements for which a line that was gone back to is kept, doubled each time
NEWS = 0.1  # of the work done: a change by so much ends the rest
FORGET = 300.0  # seconds after which a line that nothing confirms goes up a step


@dataclass(slots=True, frozen=True)
class Figures:
    """A fleet since the last look.

    :ivar at: seconds, by any clock that only goes up.
    :ivar rate: requests done per second, by those members whose work was measured under the present line.
    :ivar known: what part of the fleet those are.
    :ivar full: what part has all its connections in use, and requests waiting.
    :ivar troubled: what part cannot connect, or loses connections in use.
    :ivar least: the line cannot be lower: what is guaranteed to the members.
    :ivar most: nor higher: what the budget leaves.
    """

    at: float
    rate: float
    known: float
    full: float
    troubled: float
    least: int
    most: int


@dataclass(slots=True, frozen=True)
class Step:
    """A decision: the line, before and now, and why."""

    before: int
    line: int
    why: str


class Climber:
    """Asked at each look of the member that decides.

    :ivar line: connections that the fleet should have. The budget itself stands for as many as there may be.
    """

    def __init__(self, line: int, now: float) -> None:
        self.line = line
        self._home = line  # where it goes back to
        self._best: float | None = None  # done per second at home, or on the way there; None: not known
        self._direction = -1
        self._rest = 0  # measurements left
        self._returns = 0  # to this home
        self._decided_at = self._looked_at = now
        self._begin_reading()

    def look(self, seen: Figures) -> Step | None:
        """What to do about the line, if anything. `line` is the new one already."""
        seconds, self._looked_at = seen.at - self._looked_at, seen.at
        if seen.troubled > TROUBLED:
            self._best = None
            self._begin_reading()
            return None
        if seen.known < KNOWN:
            return None
        if seen.full < FULL:
            self._best = None
            self._begin_reading()
            return self._forget(seen)
        self._looks += 1
        self._seconds += seconds
        self._done += seen.rate * seconds
        if self._looks < LOOKS or self._done < ENOUGH:
            return None
        rate = self._done / self._seconds
        self._begin_reading()
        self._decided_at = seen.at
        return self._judge(rate, seen)

    def _begin_reading(self) -> None:
        self._looks, self._seconds, self._done = 0, 0.0, 0.0

    def _judge(self, rate: float, seen: Figures) -> Step | None:
        best, change = self._best, f"{rate:.1f}/s done"
        if best is None:
            return self._try(rate, seen, f"{change}; to see what a step does")
        change += f", {best:.1f}/s before"
        if self.line == self._home:
            moved = abs(rate - best) > NEWS * best
            self._best = rate if moved else (best + rate) / 2
            self._rest = 0 if moved else self._rest - 1
            self._returns = 0 if moved else self._returns
            return None if self._rest > 0 else self._try(self._best, seen, f"{change}; to see what a step does")
        if rate > best * (1 + BAND):
            return self._try(rate, seen, f"{change}: more")
        if rate < best * (1 - BAND):
            return self._go_back(-self._direction, seen, f"{change}: less, so back")
        if self._direction > 0:
            return self._go_back(-1, seen, f"{change}: no more, so back")
        return self._try(max(best, rate), seen, f"{change}: no less, so fewer will do")

    def _try(self, best: float, seen: Figures, why: str) -> Step | None:
        """The line as it is will do; see whether the next does better."""
        if self.line != self._home:
            self._home, self._returns = self.line, 0
        self._best = best
        line = max(seen.least, min(self.line, seen.most))
        target = line + self._direction * max(1, round(line * STEP))
        if seen.least <= target <= seen.most:
            return self._move(target, seen, why)
        return self._go_back(-self._direction, seen, why)

    def _go_back(self, direction: int, seen: Figures, why: str) -> Step | None:
        self._direction, self._rest = direction, min(REST_MOST, REST * 2**self._returns)
        self._returns = min(self._returns + 1, 10)
        return self._move(self._home, seen, why)

    def _forget(self, seen: Figures) -> Step | None:
        if seen.at - self._decided_at < FORGET or self.line >= seen.most:
            return None
        self._decided_at = seen.at
        line = max(seen.least, self.line)
        why = f"not in the way for {FORGET:g} s"
        return self._move(min(seen.most, line + max(1, round(line * STEP))), seen, why)

    def _move(self, line: int, seen: Figures, why: str) -> Step | None:
        before, self.line = min(self.line, seen.most), line
        return None if line == before else Step(before, line, why)
