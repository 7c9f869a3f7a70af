"""The fallback for threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from functools import partial, wraps
from typing import ParamSpec, TypeVar

from ..pool.steps import run
from ..pool.terms import forget
from . import keys
from .base import BaseFallback, Fly
from .flight import Flight, Outcome
from .policy import Answer, Limits

P = ParamSpec("P")
T = TypeVar("T")


class Fallback(BaseFallback):
    """A read-through cache for threads, which answers when the database does not.

    Times are seconds. One `Fallback` stands before one database: what a failed load tells holds for all of its keys.

    :param fresh: up to this age a value is given out without asking the database.
    :param stale: up to this age it may stand in when no newer one can be had.
    :param store: where processes share values, behind each one's memory; by default nowhere.
    :param maxsize: values in memory; beyond it the least recently used are forgotten.
    :param patience: how long a reader waits for a newer value while an older one can stand in.
    :param name: for logs and metrics.
    :raises ValueError: (or TypeError) naming the argument, what was found and what it may be.
    """

    _is_async = False

    def get(
        self, key: str, load: Callable[[], T], *, fresh: float | None = None, stale: float | None = None
    ) -> Answer[T]:
        """The value for *key*: from memory while it is fresh, else from *load*, else the last good one.

        *load* only reads: every transaction on a connection that it borrows is READ ONLY. Many readers of a key share
        one load. While an older value can stand in, it runs in a thread of its own.

        :param fresh: for this read, instead of the fallback's own.
        :param stale: likewise.
        :raises Unavailable: when there is no connection to be had, and no value that is not too old.
        """
        return self._get(key, load, self._limits.but(fresh, stale))

    def read(
        self, key: str | Callable[P, str], *, fresh: float | None = None, stale: float | None = None
    ) -> Callable[[Callable[P, T]], Callable[P, T]]:
        """Decorate a function that reads: ``@prices.read(key="price:{id}")``. It returns the value, as before.

        :param key: a template that names every parameter, or a function of the same arguments that returns the key.
        :raises ValueError: when a template leaves a parameter out.
        """
        limits = self._limits.but(fresh, stale)

        def decorate(function: Callable[P, T]) -> Callable[P, T]:
            key_of = keys.maker(function, key)

            @wraps(function)
            def reader(*args: P.args, **kwargs: P.kwargs) -> T:
                return self._get(key_of(*args, **kwargs), partial(function, *args, **kwargs), limits).value

            return reader

        return decorate

    def forget(self, key: str) -> None:
        """Do not answer with the value of *key* again, nor with one that is being loaded: what it stood for changed."""
        run(self._forget(key))

    def _get(self, key: str, load: Callable[[], T], limits: Limits) -> Answer[T]:
        return self._hit(key, limits) or run(self._read(key, load, limits))

    async def _launch(self, flight: Flight, fly: Fly) -> None:
        if not flight.beside:  # in the reader's own thread, with all that belongs to it
            flight.runner = self._runner()
            return await fly()
        context = copy_context()
        context.run(forget)  # it goes on after the reader's deadline
        # No executor: its threads are waited for at exit, and a load may hang.
        thread = threading.Thread(target=context.run, args=(lambda: run(fly()),), name=f"{self.name}-load", daemon=True)
        flight.runner = thread
        thread.start()
        return None

    def _runner(self) -> object:
        return threading.current_thread()

    async def _wait(self, flight: Flight, seconds: float | None) -> Outcome | None:
        try:
            return flight.future.result(seconds)
        except TimeoutError:
            return None
