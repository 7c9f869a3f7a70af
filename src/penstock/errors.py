"""Every exception a user can meet.

Those of a pool derive from `PoolError`. A pool raises them as subclasses that also derive from its driver's own
``OperationalError`` (see `under`), so that ``except psycopg.OperationalError`` in existing retry code catches them too.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar, cast

E = TypeVar("E", bound="PoolError")


class Problem(NamedTuple):
    """One thing that is wrong in a file that Penstock reads.

    :ivar path: the file, as it was named or found.
    :ivar line: where in it, from 1; 0 when it is about the file as a whole.
    :ivar key: the dotted key; empty when it is about none.
    :ivar what: what was found, and what it may be.
    """

    path: str
    line: int
    key: str
    what: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else self.path
        return ": ".join(part for part in (place, self.key, self.what) if part)


class _Problems(ValueError):
    """Several at once, so that they can be mended at once. One line a problem, by file, line and key."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class BudgetError(_Problems):
    """The budget file cannot be used, or does not say what is asked of it. One line a problem, by file, line and key.

    :ivar problems: all that were found, those nearest the top of the file first.
    """


class NoBudget(BudgetError):
    """There is no budget file, neither named nor found."""


class AuditError(_Problems):
    """The audit cannot be made as it is asked for: its settings, its baseline, or what it is to read.

    :ivar problems: all that were found.
    """


class PoolError(Exception):
    """Base of everything that a pool raises of its own accord."""


class PoolClosed(PoolError):
    """The pool is not open yet, or is closed already."""


class PoolTimeout(PoolError):
    """No connection could be had before the deadline."""


class PoolExhausted(PoolTimeout):
    """The deadline passed while every connection was in somebody's hands; the message says whose."""


class DatabaseUnavailable(PoolTimeout):
    """The database refuses connections or does not answer; the driver's error is the ``__cause__``."""


class TooManyRequests(PoolError):
    """`max_waiting` callers are waiting for a connection already."""


class Overloaded(PoolError):
    """More is asked than can be done, and this request would have waited in vain: it was refused at once.

    Times in seconds. The message is made when somebody reads it: under overload most are only counted.

    :ivar pool: its name.
    :ivar retry_after: when to try again, at the earliest.
    :ivar expected_wait: how long the request would have waited for a connection.
    :ivar waited: how long it had waited already: for the pool, or since its deadline was declared.
    :ivar deadline: what it had left until its deadline (or timeout); less than 0 when that had passed.
    :ivar stands: whether it was a standing queue that had to be kept short, or this request's deadline alone.
    :ivar waiting: how many requests waited before it.
    :ivar connections: how many connections served them.
    :ivar hold: how long a connection is held, on average, of late.
    :ivar hint: what else is known, in words: that connecting fails, or who has held one for much longer than usual.
    """

    def __init__(
        self,
        pool: str = "",
        retry_after: float = 1.0,
        expected_wait: float = 0.0,
        waited: float = 0.0,
        deadline: float = 0.0,
        stands: bool = False,
        waiting: int = 0,
        connections: int = 0,
        hold: float = 0.0,
        hint: str | None = None,
    ) -> None:
        args = (pool, retry_after, expected_wait, waited, deadline, stands, waiting, connections, hold, hint)
        super().__init__(*args)
        self.pool = pool
        self.retry_after = retry_after
        self.expected_wait = expected_wait
        self.waited = waited
        self.deadline = deadline
        self.stands = stands
        self.waiting = waiting
        self.connections = connections
        self.hold = hold
        self.hint = hint

    def __str__(self) -> str:
        held = f"{self.connections}, held for {self.hold:.3f} s each"
        queue = f" (requests before it: {self.waiting}, connections: {held})"
        left = f"has {self.deadline:.3f} s left until its deadline"
        if self.deadline <= 0:
            left = f"its deadline passed {-self.deadline:.3f} s ago"
        if not self.connections:
            why = f"this request came {self.waited:.3f} s after its deadline was declared, and {left}"
            why += ": requests queue before the pool" if self.stands else ""
            why += " (work that outlives its request: `with penstock.deadline(None):`)" if self.deadline <= 0 else ""
        elif self.waited:
            why = f"this request has waited {self.waited:.3f} s, and {left}{queue}"
        else:
            standing = "there is a standing queue, and " if self.stands else ""
            why = f"{standing}this request would wait {self.expected_wait:.3f} s, and {left}{queue}"
        hint = f". {self.hint}" if self.hint else ""
        return f"{self.pool}: overloaded: {why}. Try again in {self.retry_after:.1f} s{hint}"


class PoolDeadlock(PoolTimeout):
    """The caller would wait for ever: every connection is held by a thread or task that waits for another one.

    Raised at once, and a `PoolTimeout` all the same: that is what would have become of it.
    """


class NestedCheckout(PoolError):
    """A thread or task that holds a connection asked for a second one, and the pool was told ``nested="raise"``."""


class NotStandalone(PoolError):
    """A statement that needs a connection of its own was to share one: it was refused, and not sent."""


class ConnectionLost(PoolError):
    """The connection was lost after a statement was sent and before its answer came: it may have run, or not."""


class StatementTimeout(PoolError):
    """A statement's declared deadline passed after it was sent; the message says whether it may have run."""


class ResultTooLarge(PoolError):
    """A statement's result is larger than `Multiplex.max_result`; what had come of it was thrown away."""


class WrongEventLoop(PoolError):
    """An `AsyncPool` was used from an event loop other than the one that it was opened in."""


_families: dict[tuple[Any, Any], Any] = {}


def under(kind: type[E], base: type[Exception]) -> type[E]:
    """*kind* as a subclass of *base* too: ``under(PoolTimeout, psycopg.OperationalError)``. The same one each time.

    What derives from *kind* does so there as well: ``under(PoolExhausted, base)`` is an ``under(PoolTimeout, base)``.
    """
    family = _families.get((kind, base))
    if family is None:
        above = base if kind is PoolError else under(cast("type[PoolError]", kind.__base__), base)
        body = {"__module__": kind.__module__, "__doc__": kind.__doc__, "__reduce__": _reduce, "_made_of": (kind, base)}
        family = _families[kind, base] = type(kind.__name__, (kind, above), body)
    return cast("type[E]", family)


def _reduce(error: Any) -> tuple[Any, ...]:
    """How such an error is pickled: its class cannot be found by name."""
    return _revive, (*error._made_of, error.args)


def _revive(kind: type[PoolError], base: type[Exception], args: tuple[Any, ...]) -> PoolError:
    return under(kind, base)(*args)
