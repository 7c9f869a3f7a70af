"""The network swallows everything for a minute, then heals. Who is served first, and was anybody kept past a deadline?

Twice at the same time, because networks heal in two ways: what was sent meanwhile arrives after all, or whatever stood
between has forgotten the connections and resets them. Pools have their defaults; half of the callers wait for a
connection as long as the pool's default says (30 s), half of them for a second.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from threading import Event, Thread
from time import perf_counter
from typing import Any

import psycopg_pool

import penstock
from bench.context import Context
from bench.report import Line, Result, at_most, figure
from penstock.drill.proxy import ChaosProxy

CLAIM = "blackhole of 60 s, then healed"
BAR = "first success <= 5 s after healing, no acquire later than its deadline + 10 ms"

SECONDS, QUICK_SECONDS = 60.0, 10.0
WARM_UP = 1.0
AFTERWARDS = 15.0  # seconds in which everybody has to have recovered
CLIENTS = 8  # of each pool, which has 4 connections
DEFAULT, SHORT = 30.0, 1.0  # seconds that callers wait
PAUSE = 0.05  # between one client's requests


class Diary:
    """What the clients of one pool saw."""

    def __init__(self) -> None:
        self.successes: list[float] = []
        self.acquires = 0
        self.latest = 0.0  # seconds that an acquire ended after its deadline; infinity when one never ended

    def acquire(self, late: float) -> None:
        """An acquire has ended, well or not."""
        self.acquires += 1
        self.latest = max(self.latest, late)

    def first_success(self, since: float) -> float:
        """Seconds until somebody was served; infinity if nobody was."""
        return min((at - since for at in self.successes if at > since), default=float("inf"))


def run(ctx: Context) -> Result:
    seconds = QUICK_SECONDS if ctx.quick else SECONDS
    ctx.say(f"{WARM_UP + seconds + AFTERWARDS:.0f} s")
    with ExitStack() as stack:
        proxies = [stack.enter_context(ChaosProxy(ctx.server.host, ctx.server.port)) for _ in range(2)]
        diaries = [
            {name: stack.enter_context(clients(proxy.through(ctx.dsn))) for name, clients in CONTESTANTS.items()}
            for proxy in proxies
        ]
        time.sleep(WARM_UP)
        for proxy in proxies:
            proxy.silence()
        time.sleep(seconds)
        proxies[1].reset()
        healed = perf_counter()
        for proxy in proxies:
            proxy.heal()
        time.sleep(AFTERWARDS)
    what = f"blackhole {seconds:g} s"
    arrives, forgotten = diaries
    return [*_lines(f"{what}, healed", arrives, healed), *_lines(f"{what}, reset and healed", forgotten, healed)]


def _lines(what: str, diaries: dict[str, Diary], healed: float) -> Iterator[Line]:
    theirs = diaries.pop("psycopg_pool")
    first, latest = figure(theirs.first_success(healed)), figure(theirs.latest * 1e3)
    for name, mine in diaries.items():
        yield at_most(f"{what}: first success, {name}", mine.first_success(healed), 5, "s", f"psycopg_pool {first} s")
        yield at_most(
            f"{what}: latest of {mine.acquires:,} acquires past its deadline, {name}",
            mine.latest * 1e3,
            10,
            "ms",
            f"psycopg_pool {latest} ms",
        )


def _timeout(number: int) -> float:
    return DEFAULT if number % 2 else SHORT


@contextmanager
def _threads(open_pool: Callable[[str], Any], dsn: str) -> Iterator[Diary]:
    """Clients of a pool for threads, at work until the end of the block."""
    diary = Diary()
    stop = Event()

    def request(pool: Any, timeout: float) -> None:
        asked = perf_counter()
        ended = None
        try:
            with pool.connection(timeout=timeout) as connection:
                ended = perf_counter()
                connection.execute("SELECT 1")
            diary.successes.append(perf_counter())
        finally:
            diary.acquire((ended or perf_counter()) - asked - timeout)

    def client(pool: Any, timeout: float) -> None:
        while not stop.wait(PAUSE):
            with suppress(Exception):  # to be refused is no surprise in a blackhole
                request(pool, timeout)

    with open_pool(dsn) as pool:
        threads = [Thread(target=client, args=(pool, _timeout(number)), daemon=True) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        yield diary
        stop.set()
        _end(threads, diary)


@contextmanager
def _tasks(open_pool: Callable[[str], Any], dsn: str) -> Iterator[Diary]:
    """The same with a pool for asyncio, in an event loop of its own."""
    diary = Diary()
    stop = Event()

    async def request(pool: Any, timeout: float) -> None:
        asked = perf_counter()
        ended = None
        try:
            async with pool.connection(timeout=timeout) as connection:
                ended = perf_counter()
                await connection.execute("SELECT 1")
            diary.successes.append(perf_counter())
        finally:
            diary.acquire((ended or perf_counter()) - asked - timeout)

    async def client(pool: Any, timeout: float) -> None:
        while not stop.is_set():
            await asyncio.sleep(PAUSE)
            with suppress(Exception):
                await request(pool, timeout)

    async def clients() -> None:
        async with open_pool(dsn) as pool:
            await asyncio.gather(*(client(pool, _timeout(number)) for number in range(CLIENTS)))

    loop = Thread(target=lambda: asyncio.run(clients()), daemon=True)
    loop.start()
    yield diary
    stop.set()
    _end([loop], diary)


def _end(threads: list[Thread], diary: Diary) -> None:
    for thread in threads:
        thread.join(5)
    if any(thread.is_alive() for thread in threads):
        diary.latest = float("inf")


CONTESTANTS: dict[str, Callable[[str], AbstractContextManager[Diary]]] = {
    "threads": lambda dsn: _threads(penstock.Pool, dsn),
    "asyncio": lambda dsn: _tasks(lambda dsn: penstock.AsyncPool(dsn, open=False), dsn),
    "psycopg_pool": lambda dsn: _threads(lambda dsn: psycopg_pool.ConnectionPool(dsn, open=True), dsn),
}
