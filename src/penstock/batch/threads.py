"""The job with threads."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from inspect import iscoroutine
from queue import Full, Queue
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeVar

from ..pool.steps import run
from ..pool.sync import Pool
from .job import BaseJob, Entry, Settled
from .outcome import BatchInterrupted, Report
from .retry import Rate, Retry
from .settings import Settings, check

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger("penstock.batch")

TICK = 0.2  # seconds between two looks whether the job is to stop


def for_each(
    items: Iterable[T],
    work: Callable[[T, httpx.Client], R],
    *,
    pool: Pool[Any],
    job: str,
    save: Callable[[Any, T, R], object] | None = None,
    key: Callable[[T], Any] | None = None,
    concurrency: int = 16,
    http: Mapping[str, Any] | httpx.Client | None = None,
    rate: Rate | float | None = None,
    retry: Retry | None = None,
    timeout: float = 30.0,
    retry_failed: bool = False,
    stop_after: int = 50,
    grace: float = 30.0,
    total: int | None = None,
    progress: bool = True,
) -> Report:
    """Call *work* for each item, and save each result once, however often the job is ended and started again.

    *work* calls the API and is given no connection; *save* is given one, inside a short transaction that the word
    "done" is part of, and does nothing but save. Which items are done is kept in the table ``penstock_batch`` of the
    pool's database, which is made if there is none.

    Ctrl-C ends the job in order: what is in flight is finished. A second one ends it at once.

    :param items: of any number; they are read as they are needed, in the caller's thread.
    :param work: called with an item and a `httpx.Client`; returns what is to be saved. Answers 408, 425, 429, 500,
        502, 503 and 504 are raised there as `httpx.HTTPStatusError`; others are its own to judge.
    :param pool: whose connections save. Of as many as it has, few are used while saving is quick.
    :param job: by what this job is known, when it is started again.
    :param save: called with a connection, the item and the result; None if there is nothing to save but that the item
        is done. Whatever it raises, but for what a database does by itself, is the item's failure.
    :param key: by what an item is known: a str, an int or a UUID; by default the item itself.
    :param concurrency: items in flight at once; as many threads.
    :param http: arguments for `httpx.Client` (``base_url``, ``headers``, ...), or a client. Ours, one for each eight
        threads, wait 5 s to connect and 15 s to read.
    :param rate: how often *work* is called a second, in all; a `Rate` has a burst, too. None for no limit.
    :param retry: how often, for how long, and upon what an item is tried again; so is a transaction.
    :param timeout: seconds for one try of *work*: its requests end by then, whatever they ask for themselves. And for
        one transaction, as `penstock.deadline` bounds it.
    :param retry_failed: whether items that have failed in an earlier run are tried again.
    :param stop_after: so many failures in a row end the job, rather than all items.
    :param grace: seconds for what is in flight when the job is to stop.
    :param total: how many items there are, for the progress; by default the length of a sequence, set or mapping.
    :param progress: whether to show how far it is: a bar on a terminal, else a line of the logger ``penstock.batch``
        (INFO) every ten seconds.
    :raises BatchStopped: when the job has ended itself: the database is not to be had, or too many items fail.
    :raises BatchInterrupted: (a KeyboardInterrupt) after Ctrl-C.
    :raises ValueError: (or TypeError) naming the argument, what was found and what it may be.
    """
    settings = check(
        items,
        is_async=False,
        work=work,
        save=save,
        pool=pool,
        job=job,
        key=key,
        concurrency=concurrency,
        http=http,
        rate=rate,
        retry=Retry() if retry is None else retry,
        timeout=timeout,
        retry_failed=retry_failed,
        stop_after=stop_after,
        grace=grace,
        total=total,
        progress=progress,
    )
    return _Job(settings).run(items)


class _Job(BaseJob):
    _is_async = False

    def __init__(self, settings: Settings) -> None:
        self._given: Queue[Settled | None] = Queue(settings.concurrency)
        self._interrupts = 0
        self._halted_at = 0.0
        self._threads = [
            threading.Thread(target=self._labourer, args=(number,), name=f"{settings.job}-{number}", daemon=True)
            for number in range(settings.concurrency)
        ]
        super().__init__(settings)

    def run(self, items: Iterable[Any]) -> Report:
        try:
            with _interruptible(self._interrupt), self._progress:
                run(self._prepare())
                for thread in self._threads:
                    thread.start()
                try:
                    run(self._feed(items))
                except BaseException:
                    self._halt()
                    raise
                finally:
                    self._finish()
        finally:
            if not any(thread.is_alive() for thread in self._threads):
                run(self._clients.close())
        report = run(self._report())
        if self._interrupts:
            raise BatchInterrupted(report)
        self._complain(report)
        logger.info("%s", report)
        return report

    def _labourer(self, number: int) -> None:
        run(self._labour(number))

    def _finish(self) -> None:
        """Wait for the workers; once the job is to stop, for no longer than the grace."""
        for _ in self._threads:
            while not self._is_over():
                try:
                    self._given.put(None, timeout=TICK)
                    break
                except Full:
                    pass
        for thread in self._threads:
            while thread.is_alive() and not self._is_over():
                thread.join(TICK)

    def _is_over(self) -> bool:
        """Whether those that still work are not waited for any more."""
        return self._interrupts > 1 or (self._stopping and monotonic() >= self._halted_at + self._settings.grace)

    def _interrupt(self) -> None:
        """By a signal's handler, which must take no lock: the thread that it interrupts may have it."""
        self._interrupts += 1
        self._halt()
        if self._interrupts > 1:
            raise KeyboardInterrupt

    def _halt(self) -> None:
        if not self._stopping:
            self._halted_at = monotonic()
        super()._halt()

    # ------------------------------------------------------------------------------------------ what the job needs

    def _clock(self) -> float:
        return monotonic()

    def _holds(self) -> bool:
        me = threading.get_ident()
        return any(slot.owner == me for slot in self._pool._core.leases())

    async def _items(self, items: Any) -> AsyncIterator[Any]:
        for item in items:
            yield item

    async def _put(self, what: Settled) -> None:
        while not self._stopping:
            try:
                return self._given.put(what, timeout=TICK)
            except Full:
                pass
        return None

    async def _take(self) -> Settled | None:
        return self._given.get()

    async def _sleep(self, seconds: float) -> None:
        end = monotonic() + seconds
        while not self._stopping and (left := end - monotonic()) > 0:
            sleep(min(left, TICK))  # noqa: ASYNC251 - blocks where it stands, as all of it does here

    def _wake(self) -> None:
        pass  # nobody sleeps for long

    async def _work(self, client: Any, item: Any) -> Any:
        return _plain("work", self._settings.work(item, client))

    async def _save(self, conn: Any, entry: Entry) -> None:
        if self._settings.save is not None:
            _plain("save", self._settings.save(conn, entry.item, entry.result))

    @asynccontextmanager
    async def _lent(self, transaction: bool, limit: float | None = None) -> AsyncIterator[Any]:
        pool, limit = self._pool, self._settings.timeout if limit is None else limit
        with pool.transaction(deadline=limit) if transaction else pool.connection(deadline=limit) as conn:
            yield conn

    def _future(self) -> Any:
        return Future()

    async def _settled(self, future: Any) -> None:
        future.result()


def _plain(name: str, result: T) -> T:
    if iscoroutine(result):
        result.close()
        raise TypeError(f"{name} is a coroutine function: use penstock.batch.aio.for_each and an AsyncPool")
    return result


@contextmanager
def _interruptible(stop: Callable[[], None]) -> Iterator[None]:
    """In the block Ctrl-C calls *stop*, where it would have raised KeyboardInterrupt."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
