"""When to try again, and when not to: arithmetic alone. No clock, no waiting.

Waits are drawn from the whole range up to a limit that doubles ("full jitter"), so that those who failed together do
not come back together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from ..core.settings import check_count, check_seconds
from ..errors import PoolError

# What a server says of itself and of the moment, not of the request (RFC 9110, RFC 6585).
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})

APART = 1.0  # seconds over which those come back who were held back together


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, and for how long, an item is tried. Times in seconds.

    What is tried again: requests that got no answer, answers 408, 425, 429, 500, 502, 503 and 504, a pool that had no
    connection, and what `on` names. Everything else fails at once. A ``Retry-After`` is obeyed, by all workers.

    :ivar attempts: at most, the first one included. 1 for work that must not be done twice.
    :ivar seconds: since the first began, after which no other one begins.
    :ivar first: the longest wait after the first; it doubles with each.
    :ivar longest: beyond which it does not grow.
    :ivar on: exceptions of the work's own that another try may mend.
    :raises ValueError: (or TypeError) naming the field, what was found and what it may be.
    """

    attempts: int = 5
    seconds: float = 120.0
    first: float = 0.5
    longest: float = 20.0
    on: tuple[type[Exception], ...] = ()

    def __post_init__(self) -> None:
        check_count("attempts", self.attempts, at_least=1)
        for name in ("seconds", "first", "longest"):
            check_seconds(name, getattr(self, name))
        if not math.isfinite(self.seconds):
            raise ValueError("seconds must be finite: a job that never gives an item up never ends")
        if not isinstance(self.on, tuple) or not all(isinstance(k, type) and issubclass(k, Exception) for k in self.on):
            raise TypeError(f"on must be a tuple of exception classes, not {self.on!r}")

    def pause(self, tries: int, elapsed: float, asked: float | None, dice: Callable[[], float]) -> float | None:
        """Seconds to wait before the next try; None to give up.

        :param tries: made so far.
        :param elapsed: seconds since the first began.
        :param asked: what the other side asks for, at least.
        :param dice: a number from 0 to 1, by chance.
        """
        if tries >= self.attempts:
            return None
        limit = min(self.longest, self.first * 2.0 ** min(tries - 1, 60))
        wait = max(dice() * limit, asked or 0.0)
        return wait if elapsed + wait <= self.seconds else None


@dataclass(frozen=True, slots=True)
class Rate:
    """How often the work is begun, tries included.

    :ivar per_second: on average.
    :ivar burst: that may begin at once, after a pause.
    :raises ValueError: (or TypeError) naming the field, what was found and what it may be.
    """

    per_second: float
    burst: int = 1

    def __post_init__(self) -> None:
        number = self.per_second
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise TypeError(f"per_second must be a number, not {number!r}")
        if not 0 < number < math.inf:
            raise ValueError(f"per_second must be more than 0, and finite, not {number!r}")
        check_count("burst", self.burst, at_least=1)


class Gate:
    """Who may begin, and when: a rate, and pauses that the other side has asked for. For one caller at a time."""

    def __init__(self, rate: Rate | None) -> None:
        self._each = 0.0 if rate is None else 1 / rate.per_second
        self._slack = 0.0 if rate is None else (rate.burst - 1) * self._each
        self._next = -math.inf
        self._shut_until = -math.inf

    def reserve(self, now: float) -> float:
        """Take the next place. Seconds until it comes up."""
        at = max(now - self._slack, self._next)
        self._next = at + self._each
        return max(0.0, at - now)

    def shut(self, until: float) -> None:
        """Nobody begins before then; who has a place before then must take another one."""
        self._shut_until = max(self._shut_until, until)
        self._next = max(self._next, until)

    def reopens(self, now: float, dice: Callable[[], float]) -> float:
        """For who has a place that has come up: 0 if it may begin, else seconds until another place that it has now.

        Without a rate nothing else keeps apart those who were held back, so that chance does.
        """
        if not self.closed_for(now):
            return 0.0
        return self.reserve(now) + (0.0 if self._each else dice() * APART)

    def closed_for(self, now: float) -> float:
        """Seconds for which nobody may begin."""
        return max(0.0, self._shut_until - now)


def may_pass(error: Exception, on: tuple[type[Exception], ...]) -> bool:
    """Whether another try may go better."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in PASSING or isinstance(error, on)
    # TimeoutError: of the attempt's own limit. ConnectionError: of a client other than httpx.
    return isinstance(error, (httpx.TransportError, TimeoutError, ConnectionError, PoolError, *on))


def asked(error: Exception, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float | None:
    """Seconds that the other side asks to wait: ``Retry-After`` of 429 and 503, or a pool's own word."""
    if isinstance(error, httpx.HTTPStatusError):
        return retry_after(error.response, now)
    return _seconds(getattr(error, "retry_after", None))


def retry_after(response: httpx.Response, now: Callable[[], datetime]) -> float | None:
    """In seconds or as a date, as RFC 9110 has both; None if there is none that can be read."""
    if response.status_code not in (429, 503):
        return None
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now()).total_seconds())


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value < math.inf else None
