"""Fleets that are agreed through a Redis, in a seventh of the time that they take in earnest."""

import threading
from collections.abc import Callable
from time import sleep
from types import TracebackType
from typing import Any, Self
from weakref import WeakKeyDictionary

from penstock import Fleet
from penstock.fleet import member, redis
from penstock.fleet.shares import View, view
from support.redis import RedisServer

HASTE = 0.15
LEASE = redis.LEASE * HASTE
NOTICED = LEASE + redis.Redis.longest * HASTE * 1.1  # a share whose member has gone is another's by then


def hasten(set_: Callable[[Any, str, Any], object] = setattr) -> None:
    """Every length of time. *set_*: monkeypatch's, where that is to end."""
    for owner, names in {
        redis: ("LEASE", "DRIFT"),
        redis.Redis: ("fresh", "lost", "longest"),
        member: ("LOOK_TIMEOUT", "JOIN_SECONDS", "JOIN_SECONDS_MOST"),
    }.items():
        for name in names:
            set_(owner, name, getattr(owner, name) * HASTE)
    set_(redis, "ASK_SECONDS", 0.2)  # a busy machine must not count as a Redis that is gone


def url(server: Any) -> str:
    """Of a `RedisServer`, or of a proxy before one."""
    return f"redis://127.0.0.1:{server.port}/0"


def fleet(server: Any, budget: int, **options: Any) -> Fleet:
    return Fleet(budget, redis=url(server), period=0.2, **options)


_clients: WeakKeyDictionary[RedisServer, Any] = WeakKeyDictionary()


def client(server: RedisServer) -> Any:
    """The one to look with, which has patience."""
    return _clients.setdefault(server, server.client(socket_timeout=5, socket_connect_timeout=5))


def known(server: RedisServer, name: str = "main") -> None:
    """The fleet has been there for long, and has no members at the moment."""
    run = client(server).info("server")["run_id"]
    client(server).hset(f"penstock:fleet:{name}", mapping={"since": 1, "run": run})


def seen(server: RedisServer, name: str = "main") -> View:
    """What is said of the fleet, and counts at this moment."""
    pipe = client(server).pipeline()
    rows, (seconds, micros) = pipe.hgetall(f"penstock:fleet:{name}").time().execute()
    names = []
    for field, row in rows.items():
        if field not in (b"since", b"run"):
            till, _, count, text = row.decode().split(" ", 3)
            if int(till) > seconds * 1000 + micros // 1000:
                names.append((text, int(count)))
    return view(name, names, 10**6)


class Sampled:
    """The most that *count* has given, and the last; it is asked all the time until the end of the block."""

    def __init__(self, count: Callable[[], int]) -> None:
        self.most = self.last = 0
        self.samples = 0
        self._count = count
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._error: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _sample(self) -> None:
        try:
            while not self._over.is_set():
                self.last = self._count()
                self.most = max(self.most, self.last)
                self.samples += 1
                sleep(0.003)
        except Exception as error:
            self._error = error
