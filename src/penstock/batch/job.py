"""The job itself, written once for threads and asyncio: what differs is in `threads` and `aio`.

One reads the items and asks the checkpoint which are new; workers call the API with them, holding no connection;
whoever has a result puts it to the others that wait, and one or a few of the workers save all that wait in one
transaction.

Over blocking connections nothing in these coroutines ever suspends, as in `penstock.pool.steps`.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from secrets import token_hex
from threading import Lock
from typing import Any, TypeVar

from ..drivers.base import Status
from . import trouble
from .checkpoint import DONE, UNSURE, Checkpoint, Claim
from .http import Clients, attempt
from .outcome import BatchStopped, Failure, HeldOverCall, Report, told
from .progress import Progress
from .retry import Gate, Retry, asked, may_pass
from .settings import Settings, name_of

T = TypeVar("T")

logger = logging.getLogger("penstock.batch")

LOOKED_UP = 500  # keys that are asked for at once
LOOK_SECONDS = 0.1  # after which fewer are asked for, if items come slowly
MOST_AT_ONCE = 32  # items saved in one transaction,
SHORT = 0.05  # and so many seconds of their saving
LISTED = 20  # failures named in the report
# How long a transaction is tried again. None of `retry`: what was paid for at the API is not thrown away.
DATABASE = Retry(attempts=100, seconds=60.0, first=0.2, longest=5.0)
TRIES_AT_THE_END = 3  # once the job is to stop, as nobody sleeps then
ASKED_AT_MOST = 60.0  # seconds of a Retry-After that are obeyed

Settled = tuple[Any, str]  # an item and its key


@dataclass(slots=True, eq=False)
class Entry:
    """An item on its way into the database: its result, or that it has failed."""

    item: Any
    key: str
    tries: int
    result: Any = None
    failure: Failure | None = None
    settled: Any = None  # a future, set once it is in the database, or will not be


@dataclass(slots=True)
class _Stage:
    """Where a transaction was when it failed.

    :ivar user: whether in what the user's `save` does, or in the COMMIT of that.
    :ivar lost: whether the connection was lost there.
    :ivar claim: what it had claimed.
    :ivar begun: whose `save` was called, in that order.
    """

    user: bool = False
    lost: bool = False
    claim: Claim | None = None
    begun: list[Entry] = field(default_factory=list)


_ENDED = (
    "save() must neither commit nor roll back, nor go on after a statement has failed: the transaction is the job's"
)


class BaseJob:
    """One run of `for_each`."""

    _is_async: bool

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool = settings.pool
        self._driver = settings.pool._driver
        self._checkpoint = Checkpoint(self._driver, settings.job, token_hex(8))
        self._clients = Clients(
            settings.http, settings.concurrency, is_async=self._is_async, clock=self._clock, holds=self._holds
        )
        self._dice = random.Random().random
        # Guards all that follows. Nothing that waits, logs or calls the user's code runs under it.
        self._lock = Lock()
        self._gate = Gate(settings.rate)
        self._under_way: set[str] = set()
        self._pending: deque[Entry] = deque()
        self._savers = 0
        self._each = SHORT / 8  # seconds that saving one takes, on average of late
        self._failures: list[Failure] = []
        self._in_a_row = 0
        self._why: tuple[str, BaseException | None] | None = None
        self._stopping = False
        self._said_elsewhere = False
        self.done = self.skipped = self.elsewhere = self.failed = self.failed_before = 0
        self._began = self._clock()
        self._progress = Progress(self, settings, self._clock)

    # ------------------------------------------------------------------------------------------ for the shells

    def _clock(self) -> float:
        raise NotImplementedError

    def _holds(self) -> bool:
        """Whether the thread or task that this is holds a connection of the pool."""
        raise NotImplementedError

    def _items(self, items: Any) -> AsyncIterator[Any]:
        raise NotImplementedError

    async def _put(self, what: Settled) -> None:
        """For a worker to take; waits until there is room."""
        raise NotImplementedError

    async def _take(self) -> Settled | None:
        """None at the end."""
        raise NotImplementedError

    async def _sleep(self, seconds: float) -> None:
        """Shorter when the job is to stop."""
        raise NotImplementedError

    def _wake(self) -> None:
        """All who sleep."""
        raise NotImplementedError

    async def _work(self, client: Any, item: Any) -> Any:
        """What the user's `work` returns, within the attempt's time."""
        raise NotImplementedError

    async def _save(self, conn: Any, entry: Entry) -> None:
        """The user's `save`."""
        raise NotImplementedError

    def _lent(self, transaction: bool) -> AbstractAsyncContextManager[Any]:
        """A connection of the pool, inside a transaction or not."""
        raise NotImplementedError

    def _future(self) -> Any:
        raise NotImplementedError

    async def _settled(self, future: Any) -> None:
        """Wait for it."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------ from items to workers

    async def _prepare(self) -> None:
        async with self._lent(transaction=False) as conn:
            if await self._checkpoint.exists(conn):
                return
        try:
            async with self._lent(transaction=True) as conn:
                await self._checkpoint.create(conn)
            return
        except Exception as error:
            refused = error
        async with self._lent(transaction=False) as conn:  # another run may have made it at the same moment
            if not await self._checkpoint.exists(conn):
                refused.add_note(f"the job needs this table, which can be made beforehand:\n{self._checkpoint.ddl}")
                raise refused

    async def _feed(self, items: Any) -> None:
        """Give the workers what is not done yet."""
        chunk: dict[str, Any] = {}
        since = self._clock()
        async for item in self._items(items):
            if self._stopping:
                return
            key = name_of(item if self._settings.key is None else self._settings.key(item))
            if key in chunk:
                with self._lock:
                    self.skipped += 1
                continue
            chunk[key] = item
            now = self._clock()
            if len(chunk) >= LOOKED_UP or now - since >= LOOK_SECONDS:
                await self._sort(chunk)
                chunk, since = {}, self._clock()
        if chunk:
            await self._sort(chunk)

    async def _sort(self, chunk: dict[str, Any]) -> None:
        states = await self._states(list(chunk))
        for key, item in chunk.items():
            state = states.get(key)
            with self._lock:
                new = key not in self._under_way and (state is None or (state != DONE and self._settings.retry_failed))
                if new:
                    self._under_way.add(key)
                elif state is None or state == DONE or key in self._under_way:
                    self.skipped += 1
                else:
                    self.failed_before += 1
            if new:
                await self._put((item, key))
            if self._stopping:
                return
        self._progress.look()

    async def _states(self, keys: list[str]) -> dict[str, str]:
        try:
            return await self._persist(False, lambda conn: self._checkpoint.states(conn, keys))
        except Exception as error:
            self._stop(told(error), error)
            return {}

    # ------------------------------------------------------------------------------------------ a worker

    async def _labour(self, number: int) -> None:
        """Until there is nothing left to do."""
        client = self._clients.of(number)
        while (taken := await self._take()) is not None:
            item, key = taken
            try:
                if not self._stopping:
                    await self._one(client, item, key)
            except BaseException as error:
                self._stop(told(error), error)
                if not isinstance(error, Exception):
                    raise
            finally:
                with self._lock:
                    self._under_way.discard(key)

    async def _one(self, client: Any, item: Any, key: str) -> None:
        entry = await self._result(client, item, key)
        if entry is not None:
            await self._hand_in(entry)
            self._progress.look()

    async def _result(self, client: Any, item: Any, key: str) -> Entry | None:
        """What became of it; None when the job has stopped before that was known."""
        began, tries = self._clock(), 0
        while await self._admitted():
            tries += 1
            try:
                with attempt(self._clock() + self._settings.timeout):
                    return Entry(item, key, tries, await self._work(client, item))
            except HeldOverCall:
                raise
            except Exception as error:
                pause = self._pause(error, tries, began)
                if pause is None:
                    return Entry(item, key, tries, failure=Failure(key, tries, told(error)))
            await self._sleep(pause)
        return None

    def _pause(self, error: Exception, tries: int, began: float) -> float | None:
        """Seconds until the next try, of whatever has failed; None to give up."""
        retry = self._settings.retry
        if not may_pass(error, retry.on):
            return None
        wanted, now = asked(error), self._clock()
        wanted = None if wanted is None else min(wanted, ASKED_AT_MOST)
        if wanted:
            with self._lock:  # it is the client that is asked to wait, not this request
                self._gate.shut(now + wanted)
        return retry.pause(tries, now - began, wanted, self._dice)

    async def _admitted(self) -> bool:
        """Whether it is this worker's turn; not if the job stops before."""
        with self._lock:
            wait = self._gate.reserve(self._clock())
        while True:
            if wait:
                await self._sleep(wait)
            if self._stopping:
                return False
            with self._lock:
                wait = self._gate.closed_for(self._clock())
            if not wait:
                return True

    # ------------------------------------------------------------------------------------------ saving

    async def _hand_in(self, entry: Entry) -> None:
        """Have it saved, by this worker or another; wait for that.

        One more saves when as many wait as fit in a transaction. So there are few transactions while they are quick,
        and as many as the pool has connections when they are not.
        """
        entry.settled = self._future()
        with self._lock:
            self._pending.append(entry)
            lead = not self._savers or (len(self._pending) >= self._room() and self._savers < self._pool.max_size)
            self._savers += lead
        if lead:
            await self._lead()
        await self._settled(entry.settled)

    def _room(self) -> int:
        return max(1, min(MOST_AT_ONCE, int(SHORT / self._each)))

    def _next_group(self) -> list[Entry]:
        with self._lock:
            group = [self._pending.popleft() for _ in range(min(len(self._pending), self._room()))]
            self._savers -= not group
        return group

    async def _lead(self) -> None:
        """Save whatever waits, until nothing does."""
        ended: BaseException | None = None
        while group := self._next_group():
            try:
                if self._why is None or self._why[1] is None:  # or there is no sense in it any more
                    await self._commit(group)
            except BaseException as error:
                self._stop(told(error), error)
                ended = ended or (None if isinstance(error, Exception) else error)
            finally:
                for entry in group:
                    if not entry.settled.done():
                        entry.settled.set_result(None)
        if ended is not None:
            raise ended

    async def _commit(self, group: list[Entry], again: bool = False) -> None:
        """Save them, each with its word in the checkpoint, or put down that they have failed.

        :param again: whether this run may have saved some of them already.
        """
        began, tries = self._clock(), 0
        while True:
            at = _Stage()
            try:
                saved, others, ours = await self._transact(group, at)
            except Exception as error:
                if at.user and at.claim and await self._committed_early(at.claim, at.begun):
                    return None
                if isinstance(error, HeldOverCall):
                    raise
                tries, again = tries + 1, True
                pause = self._pause_of_database(error, at.lost, tries, began)
                if pause is not None:
                    await self._sleep(pause)
                elif not at.user or (self._stopping and trouble.passes(error, at.lost)):
                    raise  # no item's fault
                elif len(group) > 1:
                    break
                else:
                    group[0].failure = Failure(group[0].key, tries, told(error))
                    began, tries = self._clock(), 0
            else:
                return self._settle(saved, others, ours, again)
        for entry in group:  # to know whose fault it is
            await self._commit([entry], again=True)
        return None

    async def _transact(self, group: list[Entry], at: _Stage) -> tuple[list[Entry], list[Entry], set[str]]:
        """Who is saved or has failed, whom somebody has saved before, and whom of those this run has."""
        good = {entry.key: entry for entry in group if entry.failure is None}
        bad = {entry.key: entry for entry in group if entry.failure is not None}
        others: dict[str, Entry] = {}
        ours: set[str] = set()
        whole = same = True
        async with self._lent(transaction=True) as conn:
            began = self._clock()
            try:
                if good:
                    at.claim = await self._checkpoint.claim(conn, {key: entry.tries for key, entry in good.items()})
                    others = {key: entry for key, entry in good.items() if key not in at.claim.keys}
                if bad:
                    await self._checkpoint.fail(conn, [entry.failure for entry in bad.values() if entry.failure])
                    states = await self._checkpoint.states(conn, list(bad))
                    others |= {key: entry for key, entry in bad.items() if states.get(key) == DONE}
                if others:
                    ours = await self._checkpoint.ours(conn, others)
                if at.claim and at.claim.keys:
                    at.user = True
                    await self._save_all(conn, [entry for entry in group if entry.key in at.claim.keys], at)
                    whole, same = await self._checkpoint.done(conn, at.claim)
                    if not whole:
                        raise RuntimeError(_ENDED)
            except Exception:
                at.lost = self._driver.status(conn) is Status.BROKEN
                raise
        with self._lock:
            self._each += 0.2 * ((self._clock() - began) / len(group) - self._each)
        if not same:  # one of them has committed, and begun anew: all is saved, and all is done
            self._stop_for_commit(at.begun)
        return [entry for entry in group if entry.key not in others], list(others.values()), ours

    async def _save_all(self, conn: Any, claimed: list[Entry], at: _Stage) -> None:
        for entry in claimed:
            at.begun.append(entry)
            with attempt(self._clock() + self._settings.timeout):  # so that no request is made here
                await self._save(conn, entry)
            if self._driver.status(conn) is not Status.INTRANS:
                raise RuntimeError(_ENDED)

    async def _committed_early(self, claim: Claim, begun: list[Entry]) -> bool:
        """Whether some `save` of a transaction that has not come to its end has committed what was in it.

        If so, the job ends: the next of them would do the same. Those whose `save` was called may be saved or not, as
        it may have begun another transaction then, which is gone. They have failed, so that somebody looks.
        """
        rest = claim.keys - {entry.key for entry in begun}
        if not await self._persist(True, lambda conn: self._checkpoint.left(conn, claim, rest)):
            return False
        for entry in begun:
            entry.failure = Failure(entry.key, entry.tries, UNSURE)
        self._stop_for_commit(begun)
        self._settle(begun, [], set(), again=True)
        return True

    def _stop_for_commit(self, begun: list[Entry]) -> None:
        *before, last = (entry.key for entry in begun)
        whose = f"item {last}" + (f" (or of {', '.join(before)}, before it)" if before else "")
        self._stop(f"save() of {whose} has committed. {_ENDED}", None)

    async def _persist(self, transaction: bool, ask: Callable[[Any], Awaitable[T]]) -> T:
        """What the database answers, though it is away for a moment."""
        began, tries = self._clock(), 0
        while True:
            lost = False
            try:
                async with self._lent(transaction) as conn:
                    try:
                        return await ask(conn)
                    except Exception:
                        lost = self._driver.status(conn) is Status.BROKEN
                        raise
            except Exception as error:
                tries += 1
                pause = self._pause_of_database(error, lost, tries, began)
                if pause is None:
                    raise
            await self._sleep(pause)

    def _pause_of_database(self, error: Exception, lost: bool, tries: int, began: float) -> float | None:
        """Seconds until the transaction is tried again; None when that is of no use, or no longer."""
        if not trouble.passes(error, lost):
            return None
        if self._stopping and tries >= TRIES_AT_THE_END:
            return None
        pause = DATABASE.pause(tries, self._clock() - began, asked(error), self._dice)
        if pause is not None:
            logger.warning("%s: the database is tried again in %.1f s: %s", self._settings.job, pause, told(error))
        return pause

    # ------------------------------------------------------------------------------------------ what came of it

    def _settle(self, saved: list[Entry], others: list[Entry], ours: set[str], again: bool) -> None:
        """*again*: the transaction was tried before, so what this run has saved already it has saved then."""
        with self._lock:
            for entry in saved:
                if entry.failure is None:
                    self.done += 1
                    self._in_a_row = 0
                else:
                    self.failed += 1
                    self._in_a_row += 1
                    if len(self._failures) < LISTED:
                        self._failures.append(entry.failure)
            for entry in others:
                if entry.key not in ours:
                    self.elsewhere += 1
                elif again:
                    self.done += 1
                else:
                    self.skipped += 1
            in_a_row = self._in_a_row
            first = self.elsewhere and not self._said_elsewhere
            self._said_elsewhere = self._said_elsewhere or bool(first)
        if first:
            logger.warning(
                "%s: another run of this job is under way: each item is saved once all the same, but the API is called"
                " for some of them twice",
                self._settings.job,
            )
        if in_a_row >= self._settings.stop_after:
            last = next(entry.failure for entry in reversed(saved) if entry.failure is not None)
            self._stop(f"{in_a_row} items in a row have failed, the last with {last.error}", None)

    def _stop(self, why: str, error: BaseException | None) -> None:
        """Begin nothing any more. The first word counts."""
        with self._lock:
            self._why = self._why or (why, error)
        self._halt()

    def _halt(self) -> None:
        self._stopping = True
        self._wake()

    async def _report(self) -> Report:
        found: tuple[int | None, tuple[Failure, ...]] = (None, tuple(self._failures))
        if not self._stopping:
            try:
                async with self._lent(transaction=False) as conn:
                    found = await self._checkpoint.failures(conn, LISTED)
            except Exception as error:
                logger.warning("%s: the failures could not be listed: %s", self._settings.job, told(error))
        return Report(
            job=self._settings.job,
            done=self.done,
            skipped=self.skipped,
            elsewhere=self.elsewhere,
            failed=self.failed,
            failed_before=self.failed_before,
            failures=found[1],
            failures_in_all=found[0],
            seconds=self._clock() - self._began,
        )

    def _complain(self, report: Report) -> None:
        """:raises BatchStopped: when the job has ended itself."""
        if self._why is not None:
            why, error = self._why
            raise BatchStopped(why, report) from error
