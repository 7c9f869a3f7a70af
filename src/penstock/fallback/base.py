"""What `Fallback` and `AsyncFallback` have in common: all but how to wait and how to do something beside the reader.

A read is a coroutine. For threads nothing in it ever suspends, as in `penstock.pool.steps`.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from inspect import isawaitable
from time import monotonic
from typing import Any, ClassVar, TypeVar
from weakref import WeakSet

from ..core.settings import check_count, check_seconds
from ..errors import PoolTimeout
from ..pool.base import drop_frames
from ..pool.terms import declared, reading
from .flight import Flight, Outcome, Ticket
from .memory import Memory
from .policy import PAUSE, Answer, Do, Entry, Health, Limits, decide
from .redis import Redis
from .snapshot import Snapshot
from .trouble import Trouble, Unavailable, retry_after, trouble

T = TypeVar("T")
Load = Callable[[], Awaitable[T] | T]
Fly = Callable[[], Coroutine[Any, Any, None]]

logger = logging.getLogger("penstock.fallback")

TRIES = 8  # loads beside their readers at once: as many threads or tasks, and connections, at most
_LOG_SECONDS = 10.0


class BaseFallback:
    """See `penstock.fallback.Fallback` and `penstock.fallback.AsyncFallback`."""

    _is_async: ClassVar[bool]
    _clock = staticmethod(monotonic)

    def __init__(
        self,
        fresh: float = 5.0,
        stale: float = 3600.0,
        *,
        store: Redis | None = None,
        maxsize: int = 10_000,
        patience: float = 0.025,
        name: str = "fallback",
    ) -> None:
        """See the class.

        :raises ValueError: (or TypeError) naming the argument, what was found and what it may be.
        """
        check_count("maxsize", maxsize, at_least=1)
        check_seconds("patience", patience)
        if store is not None and store.is_async is not self._is_async:
            kind, client = ("AsyncFallback", "redis.asyncio.Redis") if self._is_async else ("Fallback", "redis.Redis")
            raise TypeError(f"the store of {kind} must be made with a {client}")
        self.name = name
        self._limits = Limits(fresh, stale)
        self._patience = patience
        self._store = store
        self._memory = Memory(maxsize)
        self._health = Health()
        self._slow: dict[str, float] = {}  # keys whose query took too long, and until when nobody tries it again
        self._logged_at = -math.inf
        self._start_anew()
        _fallbacks.add(self)

    def snapshot(self) -> Snapshot:
        """Every figure at this moment."""
        with self._lock:
            oldest = self._memory.oldest()
            return Snapshot(
                name=self.name,
                hits=self._hits,
                loaded=self._loaded,
                stood_in=self._stood_in,
                unavailable=self._unavailable,
                loads=self._loads,
                failed=self._failed,
                shared=self._shared,
                store_failures=self._store.failures if self._store is not None else 0,
                loading=len(self._flights),
                entries=len(self._memory),
                oldest=None if oldest is None else self._clock() - oldest,
                down=self._health.down,
            )

    # ------------------------------------------------------------------------------------------ for the shells

    def _start_anew(self) -> None:
        """Also in a forked child, where nobody goes on with the loads of the parent."""
        # Guards memory, health, flights and counts. Nothing that waits, logs or calls the user's code runs under it;
        # but a value may have a `__del__`, which runs wherever it is forgotten. Hence one that its thread may retake.
        self._lock = threading.RLock()
        self._flights: dict[str, Flight] = {}
        self._beside: set[Flight] = set()
        self._writing: dict[Flight, str] = {}  # landed, and on the way to the store
        self._hits = self._loaded = self._stood_in = self._unavailable = 0
        self._loads = self._failed = self._shared = 0
        if self._store is not None:
            self._store.start_anew()

    async def _launch(self, flight: Flight, fly: Fly) -> None:
        """Begin a load. One that is not beside the reader may be over when this returns."""
        raise NotImplementedError

    def _runner(self) -> object:
        """The thread or task that this is."""
        raise NotImplementedError

    async def _wait(self, flight: Flight, seconds: float | None) -> Outcome | None:
        """Of the load; None when it takes longer."""
        raise NotImplementedError

    def _hit(self, key: str, limits: Limits) -> Answer[Any] | None:
        """The short way: a value that is fresh."""
        if not isinstance(key, str):
            raise TypeError(f"a key must be a str, not {key!r}")
        with self._lock:
            entry, now = self._memory.get(key), self._clock()
            return self._answer(entry, limits, now) if entry is not None and now - entry.at < limits.fresh else None

    async def _read(self, key: str, load: Load[Any], limits: Limits) -> Answer[Any]:
        """The long way."""
        if self._store is not None and not self._can_stand_in(key, limits):
            await self._look_in_store(key, limits)
        while True:
            ticket = self._board(key, limits)
            if isinstance(ticket, Answer):
                return ticket
            if ticket.leads:
                await self._begin(key, ticket.flight, load, limits)
            elif ticket.flight.runner is self._runner():
                raise RuntimeError(f"{self.name}: the load of {key!r} reads {key!r} itself, and would wait for ever")
            outcome = await self._wait(ticket.flight, ticket.patience)
            if outcome is None or outcome.trouble is not None:
                return self._stand_in(key, limits, ticket.entry, outcome.error if outcome is not None else None)
            if outcome.entry is not None:
                return self._take(outcome.entry)
            if outcome.error is not None and (ticket.leads or isinstance(outcome.error, Exception)):
                raise outcome.error.with_traceback(outcome.traceback)

    async def _forget(self, key: str) -> None:
        self._drop(key)
        if self._store is not None:
            await self._store.forget(key)
            self._drop(key)  # what was found there meanwhile

    def _drop(self, key: str) -> None:
        with self._lock:
            self._memory.forget(key)
            self._flights.pop(key, None)  # what is being loaded may have been read before the change
            for flight in [flight for flight, written in self._writing.items() if written == key]:
                del self._writing[flight]

    # ------------------------------------------------------------------------------------------ a reader

    def _board(self, key: str, limits: Limits) -> Answer[Any] | Ticket:
        """The answer, or the load to wait for.

        :raises Unavailable: at once, while the database is down and nothing can stand in.
        """
        with self._lock:
            now = self._clock()
            entry, flight = self._memory.get(key), self._flights.get(key)
            age = None if entry is None else now - entry.at
            crowded = flight is None and len(self._beside) >= TRIES
            resting = crowded or self._health.resting(now) or now < self._slow.get(key, now)
            do = decide(age, limits, down=self._health.down, resting=resting)
            if do is Do.ANSWER and entry is not None:
                return self._answer(entry, limits, now)
            if do is Do.REFUSE:
                raise self._refusal(self._health.error)
            leads = flight is None
            if flight is None:
                flight = self._flights[key] = Flight(now, beside=do is Do.TRY)
            if do is Do.LOAD:
                return Ticket(flight, leads, _left(now), None)
            if leads:
                self._beside.add(flight)
                self._health.trying(now)
            return Ticket(flight, leads, max(0.0, flight.started + self._patience - now), entry)

    def _can_stand_in(self, key: str, limits: Limits) -> bool:
        with self._lock:
            entry = self._memory.get(key)
            return entry is not None and self._clock() - entry.at <= limits.stale

    def _stand_in(self, key: str, limits: Limits, entry: Entry | None, error: BaseException | None) -> Answer[Any]:
        """The last good value: that in memory, or *entry*, which was there when the reader came.

        :raises Unavailable: when there is none, or it is too old.
        """
        with self._lock:
            entry, now = self._memory.get(key) or entry, self._clock()
            if entry is not None and now - entry.at <= limits.stale:
                return self._answer(entry, limits, now)
            raise self._refusal(error or self._health.error)

    def _answer(self, entry: Entry, limits: Limits, now: float) -> Answer[Any]:
        """Under the lock."""
        age = now - entry.at
        stood_in = age >= limits.fresh
        self._stood_in += stood_in
        self._hits += not stood_in
        return Answer(entry.value, age, stood_in)

    def _refusal(self, cause: BaseException | None) -> Unavailable:
        """Under the lock."""
        self._unavailable += 1
        error = Unavailable(retry_after(cause))
        error.__cause__ = cause or PoolTimeout(f"{self.name}: the deadline passed before the value was loaded")
        return error

    def _take(self, entry: Entry) -> Answer[Any]:
        with self._lock:
            self._loaded += 1
            return Answer(entry.value, self._clock() - entry.at, stood_in=False)

    # ------------------------------------------------------------------------------------------ a load

    async def _begin(self, key: str, flight: Flight, load: Load[Any], limits: Limits) -> None:
        try:
            await self._launch(flight, partial(self._fly, key, flight, load, limits))
        except RuntimeError as error:  # no thread can be had; the load itself raises nothing of the kind
            self._land(key, flight, Outcome(None, error, Trouble.BUSY))
        except BaseException:  # the reader was interrupted, maybe before there was a load to land
            if not flight.future.done():
                self._land(key, flight, Outcome())
            raise

    async def _fly(self, key: str, flight: Flight, load: Load[Any], limits: Limits) -> None:
        """Load, and tell all who wait."""
        outcome, encoded = Outcome(), b""
        try:
            if flight.beside and await self._look_in_store(key, limits):
                return
            value = await self._load(load)
            if self._store is not None:
                encoded = self._store.encode(value)
            outcome = Outcome(Entry(value, self._clock()))
        except Exception as error:
            outcome = await self._explain(key, flight, error)
        except BaseException as error:  # whoever loads was told to stop, which is no word of the database
            outcome = Outcome(None, error)
            raise
        finally:
            current = self._land(key, flight, outcome)
        if self._store is not None and current and outcome.entry is not None:
            await self._store.write(key, encoded, limits.stale)
            with self._lock:
                forgotten = self._writing.pop(flight, None) is None
            if forgotten:  # while it was on its way
                await self._store.forget(key)

    async def _look_in_store(self, key: str, limits: Limits) -> bool:
        """Take over what other processes have. Whether it is fresh."""
        found = await self._store.read(key) if self._store is not None else None
        if found is None:
            return False
        value, age = found
        with self._lock:
            self._shared += 1
            self._memory.put(key, Entry(value, self._clock() - age))
        return age < limits.fresh

    async def _load(self, load: Load[Any]) -> Any:
        with self._lock:
            self._loads += 1
        with reading():  # a write whose failure an older value would hide fails here, whatever the database does
            value = load()
            if not isawaitable(value):
                return value
            if self._is_async:
                return await value
        if isinstance(value, Coroutine):
            value.close()
        raise TypeError(f"a Fallback loads with plain functions, not {load!r}: AsyncFallback takes both")

    async def _explain(self, key: str, flight: Flight, error: Exception) -> Outcome:
        what = trouble(error)
        if what is not None:
            return Outcome(None, error, what)
        if flight.beside:  # who asked may have been answered; no older value is to hide it from those who come next
            logger.warning("%s: a load failed of its own accord: %s", self.name, type(error).__name__, exc_info=error)
            await self._forget(key)
        return Outcome(None, error, None, error.__traceback__)

    def _land(self, key: str, flight: Flight, outcome: Outcome) -> bool:
        """Whether what was loaded still counts: not if it was to be forgotten meanwhile."""
        with self._lock:
            self._beside.discard(flight)
            current = self._flights.get(key) is flight
            if current:
                del self._flights[key]
            if current and outcome.entry is not None:
                self._memory.put(key, outcome.entry)
                if self._store is not None:
                    self._writing[flight] = key
            to_be_logged = self._learn(key, outcome)
        flight.future.set_result(outcome)
        if to_be_logged:
            kind = type(outcome.error).__name__
            logger.warning("%s: loads fail, the last good values stand in: %s", self.name, kind)
        return current

    def _learn(self, key: str, outcome: Outcome) -> bool:
        """Under the lock. Whether to log it: now and then, as the pool says more, and the figures say how often."""
        if outcome.error is None or outcome.trouble is None:
            if outcome.entry is not None or isinstance(outcome.error, Exception):
                self._health.worked()
            return False
        now = self._clock()
        drop_frames(outcome.error)  # it is kept for as long as the trouble lasts
        if outcome.trouble is Trouble.SLOW:
            self._slow = {other: until for other, until in self._slow.items() if until > now} | {key: now + PAUSE}
        else:
            self._health.failed(outcome.error, outcome.trouble, now)
        self._failed += 1
        due = now >= self._logged_at + _LOG_SECONDS
        if due:
            self._logged_at = now
        return due


def _left(now: float) -> float | None:
    """Seconds until the deadline that the reader has declared; None without one."""
    terms = declared()
    return None if terms is None or math.isinf(terms.until) else max(0.0, terms.until - now)


_fallbacks: WeakSet[BaseFallback] = WeakSet()


def fallbacks() -> list[BaseFallback]:
    """Every one of this process."""
    return list(_fallbacks)


def _after_fork_in_child() -> None:
    for fallback in list(_fallbacks):
        fallback._start_anew()


os.register_at_fork(after_in_child=_after_fork_in_child)
