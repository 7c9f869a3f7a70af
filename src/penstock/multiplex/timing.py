"""When answers come on one connection: what of that was the server's time, and whether the next one is overdue.

What the network takes is known as the quickest answer so far; it may take as long again without anybody's fault, so
that much is never held against a statement.
"""

from __future__ import annotations

import math
from collections import Counter, deque

from .prepared import COLD, Prepared
from .pulse import Pulse, busy
from .schedule import FILL
from .statement import Sent

STALL = 0.001  # seconds without an answer that are not shared out among all that come then
STUCK = 4  # times the target by which an answer is late: it waits for a lock, say, and so will others of its text


class Timing:
    """One connection's. Times are seconds; *target*: that nobody should wait behind others for longer.

    :ivar moved: when the last answer came, and *due*: until when nobody wonders whether the next one is late.
    :ivar began: when something was last sent while nothing was under way.
    """

    __slots__ = ("_account", "_patience", "_pulse", "_target", "_worked", "began", "due", "moved")

    def __init__(self, account: Prepared, target: float, pulse: Pulse) -> None:
        self._account = account
        self._target = target
        self._patience = FILL * target
        self._pulse = pulse
        self._worked = busy()  # when the last answer came, or when something was sent after it
        self.moved = self.due = -math.inf
        self.began = 0.0

    def begins(self, now: float) -> None:
        """Something is sent, and nothing was under way."""
        self.began, self._worked = now, busy()

    def late(self, head: Sent, now: float) -> float:
        """Seconds by which the first of those under way is late, *due* being over; 0 if it may be anybody's fault."""
        rtt = self._account.rtt
        late = now - max(head.sent + rtt, self.moved) - head.expected
        return late if late > max(self._patience, rtt) else 0.0

    def is_stuck(self, late: float) -> bool:
        return late > STUCK * max(self._target, self._account.rtt)

    def answered(self, done: deque[Sent], now: float) -> None:
        """These were, in one go: take note of how long they took."""
        account, first = self._account, done[0]
        if first.sent > self.moved:
            rtt = now - first.sent
            account.rtt = min(rtt, account.rtt or rtt)
        took = self._took(first, now)
        self.moved, self.due = now, now + self._patience
        self._pulse.beat()
        if account.answers >= COLD or took >= self._target:
            _learn(done, took)
        account.answers += len(done)

    def _took(self, first: Sent, now: float) -> float:
        """Seconds that the server has certainly worked since it could begin with what is now answered first."""
        began = max(first.sent + 2 * self._account.rtt, self.moved)
        worked, self._worked = self._worked, busy()
        return max(0.0, self._pulse.looked - began, now - began - (self._worked - worked))


def _learn(done: deque[Sent], took: float) -> None:
    """Each is answered as soon as it is done: a long silence was the first one's, whose answer ended it."""
    stalled = took >= STALL
    if stalled:
        done[0].record.note(took)
    for record, count in Counter([entry.record for entry in done][stalled:]).items():
        record.note(0.0 if stalled else took / len(done), count)
