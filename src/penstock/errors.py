"""Every exception a user of the pool can meet.

They all derive from `PoolError`. A pool raises them as subclasses that also derive from its driver's own
``OperationalError`` (see `under`), so that ``except psycopg.OperationalError`` in existing retry code catches them too.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

E = TypeVar("E", bound="PoolError")


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


class PoolDeadlock(PoolTimeout):
    """The caller would wait for ever: every connection is held by a thread or task that waits for another one.

    Raised at once, and a `PoolTimeout` all the same: that is what would have become of it.
    """


class NestedCheckout(PoolError):
    """A thread or task that holds a connection asked for a second one, and the pool was told ``nested="raise"``."""


class WrongEventLoop(PoolError):
    """An `AsyncPool` was used from an event loop other than the one that it was opened in."""


_families: dict[tuple[Any, Any], Any] = {}


def under(kind: type[E], base: type[Exception]) -> type[E]:
    """*kind* as a subclass of *base* too: ``under(PoolTimeout, psycopg.OperationalError)``. The same one each time."""
    family = _families.get((kind, base))
    if family is None:
        body = {"__module__": kind.__module__, "__doc__": kind.__doc__, "__reduce__": _reduce}
        family = _families[kind, base] = type(kind.__name__, (kind, base), body)
    return cast("type[E]", family)


def _reduce(error: Exception) -> tuple[Any, ...]:
    """How such an error is pickled: its class cannot be found by name."""
    kind, base = type(error).__bases__
    return _revive, (kind, base, error.args)


def _revive(kind: type[PoolError], base: type[Exception], args: tuple[Any, ...]) -> PoolError:
    return under(kind, base)(*args)
