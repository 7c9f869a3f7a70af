"""Whose request runs now, in a program that knows nothing of us; and what is to be done when it ends.

The context variable is one of its own, beside `pool.terms`: what a program's own Penstock pools are told of requests
is its middleware's to say, and no checkout of theirs takes longer because there is a guard.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Callable
from contextvars import ContextVar, Token
from time import monotonic

logger = logging.getLogger("penstock.guard")

_numbers = itertools.count(1)
_begun = 0


class Request:
    """A web request, or a task of Celery's, from its begin to the end of its response.

    :ivar number: of those of this process, from 1.
    :ivar since: by the monotonic clock, in seconds.
    :ivar thread: the identity of the thread that it began in.
    :ivar over: whether it has ended. What goes on in its context after that is not done for it.
    """

    __slots__ = ("_at_end", "_name", "number", "over", "since", "thread")

    def __init__(self, name: Callable[[], str]) -> None:
        global _begun
        self.number = _begun = next(_numbers)
        self.since = monotonic()
        self.thread = threading.get_ident()
        self.over = False
        self._name = name
        self._at_end: list[Callable[[], object]] | None = None

    @property
    def name(self) -> str:
        """Its method and its route, as far as the framework tells of it, otherwise the path: ``GET /orders/{id}``."""
        try:
            return self._name()
        except Exception:  # what it is made of is the program's, and may be anything
            return "a request"

    def at_end(self, callback: Callable[[], object]) -> None:
        """Have *callback* called when the request is over; the last one first.

        It is called where the request ends, in a thread or an event loop of the program's, and must not block there.
        It is kept until then: refer weakly to what may be dropped before. What it raises is logged.
        """
        if self.over:
            self._call(callback)
        elif self._at_end is None:
            self._at_end = [callback]
        else:
            self._at_end.append(callback)

    def end(self) -> None:
        """No effect a second time."""
        self.over = True
        callbacks, self._at_end = self._at_end, None
        for callback in reversed(callbacks or ()):
            self._call(callback)

    def _call(self, callback: Callable[[], object]) -> None:
        try:
            callback()
        except Exception:
            logger.exception("at the end of %s", self.name)


_running: ContextVar[Request | None] = ContextVar("penstock.guard.request", default=None)


def current() -> Request | None:
    """The request that is being worked for here, in this thread or task; None where there is none, or it is over."""
    request = _running.get()
    return None if request is None or request.over else request


begin = _running.set  # it is worked for from now on, until `leave` in the same thread or task


def leave(token: Token[Request | None]) -> None:
    """It goes on elsewhere, or is over; the latter is `Request.end`'s to say."""
    try:
        _running.reset(token)
    except ValueError:  # entered in another context, as generators may be: here it never was
        pass


def begun() -> int:
    """Requests that have begun in this process so far; those within another one not counted."""
    return _begun


def _after_fork() -> None:
    global _begun, _numbers
    _begun, _numbers = 0, itertools.count(1)


os.register_at_fork(after_in_child=_after_fork)
