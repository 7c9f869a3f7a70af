"""What is declared for everything under way: until when an answer is wanted, that it only reads, for whom it is done.

Both are carried in a context variable, so that whoever takes a request in (a web middleware) says so once, and every
pool that the request meets knows; in threads and in asyncio alike, and per task.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core import Priority, Slot, State
from ..core.settings import check_seconds

if TYPE_CHECKING:
    from typing import Self

    from ..errors import PoolError
    from .base import BasePool


class Origin:
    """Whom work is done for: a web request. Pools note on it what they lent, and what they refused.

    :ivar lent: connections by their slots, with the number of the use that was lent, and who lent it.
    :ivar refusal: the last one; None if there was none, or something was lent since.
    """

    __slots__ = ("lent", "refusal")

    def __init__(self) -> None:
        self.lent: dict[Slot, tuple[int, BasePool[Any]]] = {}
        self.refusal: PoolError | None = None

    def was_lent(self, slot: Slot, pool: BasePool[Any]) -> None:
        self.lent[slot] = slot.uses, pool
        self.refusal = None

    def kept(self) -> list[tuple[BasePool[Any], Slot]]:
        """What it was lent and still has, and by whom."""
        lent = self.lent.items()
        return [(pool, slot) for slot, (uses, pool) in lent if slot.uses == uses and slot.state is State.LEASED]

    def end(self, name: Callable[[], str]) -> None:
        """It is over: what it still has is reported, under its *name*. What it refers to is let go."""
        self.refusal = None
        kept = self.kept()
        self.lent.clear()
        for pool, slot in kept:
            pool._outlived(slot, name())


@dataclass(slots=True)
class Terms:
    """*since*, *until*: by the monotonic clock, in seconds; infinity for no deadline.

    Those of a request are one object for all of its tasks and threads, and are changed when its answer is on its way.
    """

    since: float = -math.inf
    until: float = math.inf
    reading: bool = False
    origin: Origin | None = None


class Wish(NamedTuple):
    """What one request for a connection asks beyond that."""

    timeout: float | None
    since: float
    until: float
    priority: Priority
    key: Hashable


_terms: ContextVar[Terms | None] = ContextVar("penstock.terms", default=None)
declared = _terms.get


class deadline:  # named as what it is used as: with penstock.deadline(0.5):
    """Until when an answer is wanted, for everything done in the `with` block: ``with penstock.deadline(0.5):``.

    Every connection asked for in the block is had by then or not at all, a request that cannot be served by then is
    refused at once with `Overloaded`, and the server ends a statement that takes longer than what was left when its
    transaction began (``statement_timeout``, sent with BEGIN: not in autocommit, not in pipeline mode). Within another
    deadline the earlier one counts. In threads and in asyncio alike: a task started in the block has the deadline too;
    a thread started in it only if it is given the context, as `asyncio.to_thread` does.

    :param seconds: from the beginning of the block; None for no deadline, whatever was declared outside: for work that
        was started by a request and outlives it.
    :raises ValueError: (or TypeError) when that is no length of time.
    """

    __slots__ = ("_token", "_until", "seconds")

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None:
            check_seconds("seconds", seconds)
        self.seconds = seconds
        self._token: Token[Terms | None] | None = None
        self._until = math.inf

    def __enter__(self) -> Self:
        if self._token is not None:
            raise RuntimeError("this deadline is in use already: make one for each block, `with deadline(seconds):`")
        outer, now = declared() or Terms(), monotonic()
        inner = outer
        if self.seconds is None:
            inner = Terms(reading=outer.reading)
        elif now + self.seconds < outer.until:
            inner = Terms(now, now + self.seconds, outer.reading, outer.origin)
        self._until = inner.until
        self._token = _terms.set(inner)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        token, self._token = self._token, None
        if token is not None:
            with suppress(ValueError):  # ended in another context, as generators may be: there it was never declared
                _terms.reset(token)

    @property
    def left(self) -> float:
        """Seconds from now; less than 0 once it has passed, infinity if there is none."""
        return self._until - monotonic()


def forget() -> None:
    """From now on nothing is declared in this context: for work that goes on after the answer."""
    _terms.set(None)


def of_request(origin: Origin, seconds: float | None, waited: float) -> Terms:
    """What is done is done for *origin*, and the answer is wanted within *seconds* (None: at any time).

    *waited*: how much of them have passed already.
    """
    if seconds is None:
        return Terms(origin=origin)
    since = monotonic() - waited
    return Terms(since, since + seconds, origin=origin)


def answering(terms: Terms) -> None:
    """The answer is on its way: there is no deadline any more."""
    terms.since, terms.until = -math.inf, math.inf


def answered(terms: Terms) -> None:
    """What is done from now on is not for the request any more."""
    terms.origin = None


def begin(terms: Terms) -> Token[Terms | None]:
    """They count from now on, whatever was declared before; until `end`, in the same task or thread."""
    return _terms.set(terms)


end = _terms.reset


@contextmanager
def instead(seconds: float) -> Iterator[None]:
    """In the block this deadline counts, be it later than the one declared outside. For whom it is done stays."""
    now = monotonic()
    token = _terms.set(replace(declared() or Terms(), since=now, until=now + seconds))
    try:
        yield
    finally:
        with suppress(ValueError):  # as in `deadline`
            _terms.reset(token)


@contextmanager
def reading() -> Iterator[None]:
    """Every transaction begun in the block on a connection that was borrowed in it is READ ONLY (sent with BEGIN)."""
    token = _terms.set(replace(declared() or Terms(), reading=True))
    try:
        yield
    finally:
        _terms.reset(token)
