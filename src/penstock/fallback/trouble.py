"""Which errors mean that there was no connection to be had, and what the reader is told then."""

from __future__ import annotations

import math
from enum import Enum

from .. import errors

RETRY_AFTER = 1.0  # seconds, where the pool does not say


class Unavailable(errors.PoolError):
    """Nothing can be answered now: no connection, and no value to stand in. The pool's error is the ``__cause__``.

    The message is for an end user and tells nothing of the service.

    :ivar retry_after: seconds after which to try again.
    """

    status = 503

    def __init__(self, retry_after: float = RETRY_AFTER) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        """For the response: ``Retry-After``, in whole seconds as HTTP has it (RFC 9110, section 10.2.3)."""
        return {"Retry-After": str(self._seconds)}

    @property
    def _seconds(self) -> int:
        return max(1, math.ceil(self.retry_after))

    def __str__(self) -> str:
        return f"Temporarily unavailable. Please try again in {self._seconds} second{'s' * (self._seconds > 1)}."


class Trouble(Enum):
    """What a failed load says of the database."""

    BUSY = "no connection in time, or no room for one"
    SLOW = "a statement took too long, which says something of that one only"
    LOST = "the connection was lost"
    DOWN = "the database is known to be down"


# Bugs of the program: an answer in their place would hide them until the last good values are too old.
_BUGS = (
    errors.PoolClosed,
    errors.PoolDeadlock,
    errors.NestedCheckout,
    errors.WrongEventLoop,
    errors.NotStandalone,
    errors.ResultTooLarge,
)

_QUERY_CANCELED = "57014"  # a statement timeout


def trouble(error: BaseException) -> Trouble | None:
    """What *error* says of the database; None when it is the program's own, and nothing may stand in for it.

    SQLSTATE classes are those of PostgreSQL's documentation, appendix A.
    """
    if isinstance(error, _BUGS):
        return None
    if isinstance(error, errors.DatabaseUnavailable):
        return Trouble.DOWN
    if isinstance(error, errors.ConnectionLost):
        return Trouble.LOST
    if isinstance(error, errors.StatementTimeout):
        return Trouble.SLOW
    if isinstance(error, errors.PoolError):
        return Trouble.BUSY
    error = _unwrapped(error)
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if not isinstance(state, str):
        return Trouble.LOST if _is_operational(error) else None
    if state.startswith(("08", "57P")):  # connection exception; the server shuts down, crashed or starts
        return Trouble.LOST
    if state.startswith("53"):  # insufficient resources
        return Trouble.BUSY
    return Trouble.SLOW if state == _QUERY_CANCELED else None


def retry_after(error: BaseException | None) -> float:
    """Seconds after which the pool says to try again, or a small default."""
    seconds = getattr(error, "retry_after", None)
    told = isinstance(seconds, (int, float)) and math.isfinite(seconds) and seconds >= 0
    return float(seconds) if told and seconds is not None else RETRY_AFTER


def _unwrapped(error: BaseException) -> BaseException:
    """What the driver raised, where SQLAlchemy (in `orig`) or Django (as the cause) has wrapped it."""
    inner = getattr(error, "orig", None) or (type(error).__module__ == "django.db.utils" and error.__cause__)
    return inner if isinstance(inner, BaseException) else error


def _is_operational(error: BaseException) -> bool:
    # By name, as the driver need not be installed; of these two only: others say so of a missing column, too.
    return any(
        cls.__name__ == "OperationalError" and cls.__module__.partition(".")[0] in ("psycopg", "psycopg2")
        for cls in type(error).__mro__
    )
