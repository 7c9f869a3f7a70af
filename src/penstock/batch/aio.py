"""The job with asyncio."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ref

from ..drivers.base import settled
from ..pool.aio import AsyncPool
from .job import LOOK_SECONDS, BaseJob, Entry, Settled
from .outcome import Report
from .retry import Rate, Retry
from .settings import Settings, check

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger("penstock.batch")


async def for_each(
    items: Iterable[T] | AsyncIterable[T],
    work: Callable[[T, httpx.AsyncClient], Awaitable[R]],
    *,
    pool: AsyncPool[Any],
    job: str,
    save: Callable[[Any, T, R], object] | None = None,
    key: Callable[[T], Any] | None = None,
    concurrency: int = 32,
    http: Mapping[str, Any] | httpx.AsyncClient | None = None,
    rate: Rate | float | None = None,
    retry: Retry | None = None,
    timeout: float = 30.0,
    retry_failed: bool = False,
    stop_after: int = 50,
    grace: float = 30.0,
    total: int | None = None,
    progress: bool = True,
) -> Report:
    """As `penstock.batch.for_each`, with tasks: *work* is a coroutine function, *save* is one or is not.

    *timeout* ends a try of *work* wherever it waits. When the job is cancelled (Ctrl-C in `asyncio.run` does that),
    what is in flight is finished first, within *grace*; a second Ctrl-C ends it at once. Items may come from an async
    iterator; another one is read in the event loop, so it should not block.

    :raises BatchStopped: when the job has ended itself: the database is not to be had, or too many items fail.
    :raises ValueError: (or TypeError) naming the argument, what was found and what it may be.
    """
    settings = check(
        items,
        is_async=True,
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
    return await _Job(settings).run(items)


class _Job(BaseJob):
    _is_async = True

    def __init__(self, settings: Settings) -> None:
        self._loop = asyncio.get_running_loop()
        self._given: asyncio.Queue[Settled | None] = asyncio.Queue(settings.concurrency)
        self._stop_now = asyncio.Event()
        self._flushing = asyncio.Lock()
        super().__init__(settings)

    async def run(self, items: Any) -> Report:
        try:
            with self._progress:
                await self._prepare()
                workers = [asyncio.create_task(self._labour(each)) for each in range(self._settings.concurrency)]
                whole = asyncio.create_task(self._whole(items, workers))
                stopped = asyncio.create_task(self._stop_now.wait())
                try:
                    await asyncio.wait({whole, stopped}, return_when=asyncio.FIRST_COMPLETED)
                    if whole.done():
                        await whole
                    else:
                        await self._finish(whole, workers)
                except BaseException as error:
                    self._halt()
                    await self._finish(whole, workers)
                    if isinstance(error, asyncio.CancelledError):
                        logger.warning("stopped: %s. Start it again, and it goes on from here", await self._report())
                    raise
                finally:
                    for task in (*workers, whole, stopped):
                        task.cancel()
                    await asyncio.gather(*workers, whole, stopped, return_exceptions=True)
        finally:
            await self._clients.close()
        report = await self._report()
        self._complain(report)
        logger.info("%s", report)
        return report

    async def _whole(self, items: Any, workers: list[asyncio.Task[None]]) -> None:
        looking = asyncio.create_task(self._look_after())
        try:
            await self._feed(items)
        finally:
            looking.cancel()
        for _ in workers:
            await self._given.put(None)
        await asyncio.wait(workers)

    async def _look_after(self) -> None:
        """No item is kept back until the next one comes."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._is_due():
                await self._flush()

    async def _flush(self) -> None:
        async with self._flushing:
            await super()._flush()

    async def _finish(self, whole: asyncio.Task[None], workers: list[asyncio.Task[None]]) -> None:
        """Read no more, and wait for the end of those that do what is in flight, within the grace."""
        whole.cancel()

        async def see_out() -> None:
            for _ in workers:
                await self._given.put(None)

        telling = asyncio.create_task(see_out())
        try:
            await asyncio.wait({whole, *workers}, timeout=self._settings.grace)
        finally:
            telling.cancel()

    # ------------------------------------------------------------------------------------------ what the job needs

    def _clock(self) -> float:
        return self._loop.time()

    def _holds(self) -> bool:
        task = asyncio.current_task()
        return task is not None and any(slot.owner == ref(task) for slot in self._pool._core.leases())

    async def _items(self, items: Any) -> AsyncIterator[Any]:
        if hasattr(items, "__aiter__"):
            async for item in items:
                yield item
            return
        for item in items:
            yield item

    async def _put(self, what: Settled) -> None:
        await self._given.put(what)

    async def _take(self) -> Settled | None:
        return await self._given.get()

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop_now.wait()
        except TimeoutError:
            pass

    def _wake(self) -> None:
        self._stop_now.set()

    async def _work(self, client: Any, item: Any) -> Any:
        with _its_own_cancellation("work"):
            async with asyncio.timeout(self._settings.timeout):
                result = self._settings.work(item, client)
                if not isawaitable(result):
                    raise TypeError(
                        "work must be a coroutine function: use penstock.batch.for_each for one that blocks"
                    )
                return await result

    async def _save(self, conn: Any, entry: Entry) -> None:
        if self._settings.save is not None:
            with _its_own_cancellation("save"):
                await settled(self._settings.save(conn, entry.item, entry.result))

    def _lent(self, transaction: bool, limit: float | None = None) -> AbstractAsyncContextManager[Any]:
        lend = self._pool.transaction if transaction else self._pool.connection
        lent: AbstractAsyncContextManager[Any] = lend(deadline=self._settings.timeout if limit is None else limit)
        return lent

    def _future(self) -> Any:
        return self._loop.create_future()

    async def _settled(self, future: Any) -> None:
        await future


@contextmanager
def _its_own_cancellation(name: str) -> Iterator[None]:
    """In the block a cancellation that is not this task's is an error like any other."""
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise RuntimeError(f"what {name} waited for was cancelled") from error
