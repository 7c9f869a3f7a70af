"""How fast connections may be opened: a rate, a pause after failures that grows, a window that opens again slowly.

A database that comes back after an outage is met by every process of the fleet at once. So the number opened at
once is bounded (a token bucket), a failure closes the window to one attempt at a time with growing, jittered pauses,
and each success doubles the window again, as TCP's slow start does (RFC 5681, 3.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

BURST = 32  # connections that may be opened at once
RATE = 32.0  # and per second from then on
FIRST_PAUSE = 0.015  # seconds before the second try: one failure proves nothing yet
PAUSE = 0.1  # before the third, doubled from there on (`backoff`)
LONGEST_PAUSE = 2.0  # so that a database that has healed is found healthy within about two seconds
JITTER = 0.2  # share of a pause that is left to chance, so that processes drift apart
FRESH = 0.025  # a failure this recent is news enough: do not dial again to tell the next caller the same
PATIENCE = 1.0  # an attempt that takes longer no longer keeps others from being tried


def backoff(tries: int, random: Callable[[], float]) -> float:
    """Seconds before the next try when *tries* in a row have been in vain: doubled each time, up to a limit."""
    return min(LONGEST_PAUSE, PAUSE * 2.0 ** min(tries, 10)) * (1 - JITTER * random())


class Verdict(NamedTuple):
    """What is known of a database that connections cannot be had from."""

    error: BaseException | None
    since: float
    tried_at: float
    hung: bool
    unfit: bool
    lost: bool = False  # connections can be had, and are then ended in use


class Pace:
    """Decides when the next connection may be opened. Times are seconds of the shell's clock."""

    def __init__(self, reconnect_timeout: float, random: Callable[[], float]) -> None:
        self.reconnect_timeout = reconnect_timeout
        self.rate = RATE
        self._random = random
        self._tokens = float(BURST)
        self._refilled_at = -math.inf
        self._window: float = math.inf
        self._retry_at = -math.inf
        self._give_up_at = math.inf
        self.failures = 0  # in a row
        self.failed_at = -math.inf
        self.down_since = math.nan
        self.down = False  # known: two failures in a row, or one attempt that got no answer at all
        self.hung = False  # the last failure was no refusal but silence
        self.unfit = False  # the last failure was no refusal but a connection that failed its check
        self.gave_up = False
        self.error: BaseException | None = None
        self.mean_seconds = 0.0  # that a connect takes (moving average); 0 while unknown

    @property
    def patience(self) -> float:
        """After how many seconds an attempt counts as overdue."""
        return max(PATIENCE, 3 * self.mean_seconds)

    def next_at(self, now: float, under_way: int) -> float:
        """When one more attempt may start: *now*, later, or never (infinity: something must happen first)."""
        if self.gave_up or under_way >= self._window:
            return math.inf
        return max(now, self._retry_at, self._token_at(now))

    def started(self, now: float) -> None:
        self._tokens -= 1
        if self.failures:
            # While it fails, the next attempt waits for this one's answer, or for our patience to end.
            self._retry_at = max(self._retry_at, now + self.patience)

    def put_off(self, until: float) -> None:
        """The attempt was not made: there is no room for one before then."""
        self._tokens += 1
        self._retry_at = max(self._retry_at, until)

    def succeeded(self, seconds: float) -> None:
        self.mean_seconds += (seconds - self.mean_seconds) * (0.2 if self.mean_seconds else 1.0)
        self.failures = 0
        self.down = self.hung = self.unfit = self.gave_up = False
        self.error = None
        self._retry_at = -math.inf
        self._window = self._window * 2 if self._window < BURST else math.inf

    def failed(self, now: float, started: float, error: BaseException, hung: bool, unfit: bool) -> bool:
        """Take note of a failure; true when it is time to give up.

        Attempts that were under way together and fail together are one failure, not many. *hung*: there was no answer
        at all. *unfit*: there was a connection, which failed its check. Either is proof enough by itself.
        """
        news = started >= self.failed_at
        self.failed_at = now
        self.error = error
        self.hung = hung
        self.unfit = unfit
        self.down = self.down or hung or unfit or (news and self.failures > 0)
        if not news:
            return False
        if not self.failures:
            self.down_since = now
            self._give_up_at = now + self.reconnect_timeout
        self.failures += 1
        self._window = 1
        self._retry_at = min(now + self._pause(), max(now, self._give_up_at))
        gives_up = now >= self._give_up_at and not self.gave_up
        self.gave_up = self.gave_up or gives_up
        return gives_up

    def verdict(self) -> Verdict:
        """As it stands now: by the time that somebody reads it, the database may have healed."""
        return Verdict(self.error, self.down_since, self.failed_at, self.hung, self.unfit)

    def may_ask(self, now: float) -> bool:
        """Whether a caller may have the database tried at once, although it is known to be down."""
        return now - self.failed_at >= (LONGEST_PAUSE if self.hung else FRESH)

    def ask(self, now: float) -> None:
        """Somebody wants a connection: do not wait out the pause, and start again if we gave up."""
        if self.gave_up:
            self.gave_up = False
            self._give_up_at = now + self.reconnect_timeout
        if self.may_ask(now):
            self._retry_at = now

    def _pause(self) -> float:
        if self.failures == 1:
            return FIRST_PAUSE * (1 - JITTER * self._random())
        return backoff(self.failures - 2, self._random)

    def _token_at(self, now: float) -> float:
        if self._refilled_at < now:
            grown = (now - self._refilled_at) * self.rate
            self._tokens = min(float(BURST), self._tokens + grown)
            self._refilled_at = now
        return now if self._tokens >= 1 else now + (1 - self._tokens) / self.rate
