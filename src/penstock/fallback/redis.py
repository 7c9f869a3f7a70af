"""Values shared by all processes through Redis, behind each one's memory.

Nothing here can break a read: a Redis that is down, slow or full is a miss, and is left alone for a while. Ages are
counted by the wall clock, the only one that machines share, so they are as exact as their clocks agree.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from inspect import iscoroutinefunction
from threading import Lock
from time import monotonic, time
from typing import Any

from ..drivers.base import settled

logger = logging.getLogger("penstock.fallback")

PAUSE = 1.0  # seconds for which a command that failed is not tried again
LONGEST = 1.0  # seconds that a client may wait for Redis
_ADVICE = "make it with socket_timeout=0.02, socket_connect_timeout=0.02, retry=None"


class Redis:
    """A Redis that processes share values through: ``Fallback(store=Redis(client))``.

    :param client: a `redis.Redis`, or for an `AsyncFallback` a `redis.asyncio.Redis`. It has to be bounded: a read may
        wait as long for a Redis that hangs.
    :param prefix: of each key; one that no other `Fallback` uses, if their keys could be the same.
    :param dumps: makes str or bytes of a value; by default JSON, so tuples come back as lists.
    :param loads: makes the value of the bytes again.
    :raises ValueError: when the client may wait for longer than a second, or tries again on its own.
    """

    _clock = staticmethod(monotonic)
    _wall_clock = staticmethod(time)

    def __init__(
        self,
        client: Any,
        *,
        prefix: str = "penstock:",
        dumps: Callable[[Any], str | bytes] = json.dumps,
        loads: Callable[[bytes], Any] = json.loads,
    ) -> None:
        _check_bounded(client)
        self.is_async = iscoroutinefunction(client.execute_command)
        self.failures = 0
        self._client = client
        self._prefix = prefix
        self._dumps = dumps
        self._loads = loads
        self._retry_at: dict[str, float] = {}  # the commands that failed the last time: a full Redis still reads
        self.start_anew()

    def start_anew(self) -> None:
        """Also in a forked child, where whoever held the lock does not go on."""
        self._lock = Lock()  # guards `failures` and `_retry_at`

    def encode(self, value: Any) -> bytes:
        """What `write` takes: when it was loaded, and the value.

        :raises TypeError: (or whatever `dumps` raises) for a value that cannot be shared.
        """
        try:
            body = self._dumps(value)
        except Exception as error:
            error.add_note("A value that is shared through Redis must be made bytes of: give Redis(dumps=, loads=).")
            raise
        return b"%.3f " % self._wall_clock() + (body.encode() if isinstance(body, str) else body)

    async def read(self, key: str) -> tuple[Any, float] | None:
        """The value and its age in seconds, if there is one and it can be had now."""
        found = await self._ask("get", self._prefix + key)
        if found is None:
            return None
        try:
            at, body = (found.encode() if isinstance(found, str) else found).split(b" ", 1)
            return self._loads(body), max(0.0, self._wall_clock() - float(at))
        except Exception as error:  # not ours, or of another version of the program
            self._failed("decode", error)
            return None

    async def write(self, key: str, encoded: bytes, stale: float) -> None:
        """Keep a value until it is *stale* seconds old."""
        expiry = {} if math.isinf(stale) else {"px": max(1, math.ceil(stale * 1000))}
        await self._ask("set", self._prefix + key, encoded, **expiry)

    async def forget(self, key: str) -> None:
        await self._ask("delete", self._prefix + key)

    async def _ask(self, command: str, *args: Any, **kwargs: Any) -> Any:
        now = self._clock()
        with self._lock:
            if now < self._retry_at.get(command, -math.inf):
                return None
            if command in self._retry_at:
                self._retry_at[command] = now + PAUSE  # before it is tried: others are not to wait for it, too
        try:
            answer = await settled(getattr(self._client, command)(*args, **kwargs))
        except Exception as error:
            self._failed(command, error)
            return None
        if self._retry_at.pop(command, None) is not None:
            logger.warning("redis: %s works again", command)
        return answer

    def _failed(self, command: str, error: Exception) -> None:
        with self._lock:
            self.failures += 1
            known = command in self._retry_at
            self._retry_at[command] = self._clock() + PAUSE
        if not known:  # once, until it works again
            logger.warning("redis: %s fails, memory has to do: %s: %s", command, type(error).__name__, error)


def _check_bounded(client: Any) -> None:
    try:
        settings = client.get_connection_kwargs()
    except AttributeError:
        raise TypeError(f"client must be a redis.Redis or redis.asyncio.Redis, not {type(client).__name__}") from None
    timeouts = ["socket_timeout"] if "path" in settings else ["socket_timeout", "socket_connect_timeout"]
    for name in timeouts:
        seconds = settings.get(name)
        if seconds is None or not 0 < seconds <= LONGEST:
            found = "not set" if seconds is None else f"{seconds:g} s"
            raise ValueError(f"the client's {name} is {found}, and a read may have to wait as long: {_ADVICE}")
    retry = settings.get("retry")
    if settings.get("retry_on_error") or (retry is not None and retry.get_retries() != 0):
        raise ValueError(f"the client tries again when Redis fails, and a read would have to wait for it: {_ADVICE}")
