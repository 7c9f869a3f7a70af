"""The clients that the work calls the API with: pooled, and never without a limit.

httpx's pool looks at each of its connections for each request, so one client with 64 of them does a fifth of what eight
with eight do. Each eight workers have a client of their own.

What holds for a request that the work makes is seen to by hooks, on a client that was handed in as well: it is sent
only while its caller holds no connection, ends with the attempt that it belongs to, and an answer that will pass (429,
503) is raised, so that nobody saves it as a result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import httpx

from .outcome import HeldOverCall
from .retry import PASSING

EACH = 8  # workers that share a client
CONNECT_SECONDS = 5.0
READ_SECONDS = 15.0  # and to write; between two pieces of an answer, too

# Until when the attempt under way may last, by the job's clock. None where no attempt is.
until: ContextVar[float | None] = ContextVar("penstock.batch.until", default=None)


class Clients:
    """All clients of a job.

    :param given: a client to use, or what to make ours with (``base_url``, ``headers``, ``auth`` and the like).
    :param holds: whether whoever calls it now holds a connection.
    """

    def __init__(
        self,
        given: Any,
        workers: int,
        *,
        is_async: bool,
        clock: Callable[[], float],
        holds: Callable[[], bool],
    ) -> None:
        self._is_async = is_async
        self._clock = clock
        self._holds = holds
        self._hooks: Mapping[str, Callable[..., Any]] = {
            "request": self._sending_async if is_async else self._sending,
            "response": self._answered_async if is_async else self._answered,
        }
        self._own = given is None or isinstance(given, Mapping)
        self._all = [_client(given or {}, is_async) for _ in range(-(-workers // EACH))] if self._own else [given]
        for client in self._all:
            # The last to see a request, and the first to see its answer.
            request, response = self._hooks["request"], self._hooks["response"]
            hooks = client.event_hooks
            client.event_hooks = {
                "request": [*hooks["request"], request],
                "response": [response, *hooks["response"]],
            }

    def of(self, worker: int) -> Any:
        """The client of that worker, from 0."""
        return self._all[worker // EACH if self._own else 0]

    async def close(self) -> None:
        """Ours are closed; one that was handed in is as it was."""
        for client in self._all:
            if not self._own:
                kept = {
                    name: [hook for hook in hooks if hook != self._hooks.get(name)]
                    for name, hooks in client.event_hooks.items()
                }
                client.event_hooks = kept
            elif self._is_async:
                await client.aclose()
            else:
                client.close()

    def _sending(self, request: httpx.Request) -> None:
        end = until.get()
        if end is None:
            return  # not the job's own request
        if self._holds():
            raise HeldOverCall(
                f"a connection is held while {request.method} {request.url.copy_with(query=None)} is called: let work"
                " call the API, and save what it returns in save(), which is given the connection"
            )
        left = max(0.001, end - self._clock())
        limits = request.extensions.get("timeout") or {}
        bounded = {name: min(limits.get(name) or left, left) for name in ("connect", "read", "write", "pool")}
        request.extensions = {**request.extensions, "timeout": bounded}

    async def _sending_async(self, request: httpx.Request) -> None:
        self._sending(request)

    def _answered(self, response: httpx.Response) -> None:
        if (end := until.get()) is None:
            return
        response.stream = _Bounded(response.stream, end, self._clock)
        if response.status_code in PASSING:
            response.read()
            response.raise_for_status()

    async def _answered_async(self, response: httpx.Response) -> None:
        if until.get() is not None and response.status_code in PASSING:  # the attempt's own end is the task's
            await response.aread()
            response.raise_for_status()


def _client(given: Mapping[str, Any], is_async: bool) -> Any:
    limits = httpx.Limits(max_connections=EACH, max_keepalive_connections=EACH)
    timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
    return (httpx.AsyncClient if is_async else httpx.Client)(**{"limits": limits, "timeout": timeout, **given})


class _Bounded(httpx.SyncByteStream):
    """An answer that has to be here by the end of the attempt: one that trickles would meet no other limit."""

    def __init__(self, stream: Any, end: float, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._end = end
        self._clock = clock

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            yield piece
            if self._clock() >= self._end:
                raise httpx.ReadTimeout("the answer was not complete by the end of the attempt")

    def close(self) -> None:
        self._stream.close()


@contextmanager
def attempt(end: float) -> Iterator[None]:
    """In the block requests are the job's own, and end by then."""
    token = until.set(end)
    try:
        yield
    finally:
        until.reset(token)
