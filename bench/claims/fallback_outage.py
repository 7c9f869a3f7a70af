"""The database stops under load, and reads go through `penstock.fallback`: is everybody told something at once?

Nine reads in ten are of keys that have been read before, one is of a key that nobody has ever read. Whatever is
answered is compared with what the database would have said. The time of a read counts from when it was to come, and
those until the end of the run count: that the database is back must not make anybody wait either.
"""

import asyncio
import random
import time
from collections.abc import Callable
from threading import Thread
from time import perf_counter
from typing import Any, NamedTuple

import penstock
from bench.context import Context
from bench.openloop import ANSWERED, Load, Outcome, offer, offer_in_threads, poisson
from bench.overload_rounds import told
from bench.report import Line, Result, duration, figure
from penstock.drill.postgres import EmbeddedPostgres
from penstock.fallback import AsyncFallback, Fallback, Unavailable

CLAIM = "database stopped for 20 s under load, reads through penstock.fallback"
BAR = "100 % answered or refused within 50 ms, first real answer <= 1 s after it is back"

SECONDS, QUICK_SECONDS = 20.0, 5.0
BEFORE, AFTERWARDS = 2.0, 4.0
RATE = 200.0  # reads a second
WARM_KEYS = 50
FRESH = 0.5
WITHIN = 0.05
WORKERS = 32
SQL = "SELECT 'value of ' || %s::text"


class Outage(NamedTuple):
    """What became of the reads. Times in seconds."""

    load: Load
    stopped: float  # since the load began
    first_real: float  # answer of the database, after it was back


class Diary:
    """When the database was there, by itself and by its answers."""

    def __init__(self) -> None:
        self.began = perf_counter() + 0.2
        self.stopped = self.gone = self.back = float("inf")
        self.real: list[float] = []

    def outage(self, load: Load) -> Outage:
        """Everything there is to know about it."""
        assert not [at for at in self.real if self.gone + WITHIN < at < self.back - 1], "answers without a database"
        first = min((at for at in self.real if at > self.gone + WITHIN), default=float("inf"))
        return Outage(load, self.stopped - self.began, max(0.0, first - self.back))


def run(ctx: Context) -> Result:
    seconds = QUICK_SECONDS if ctx.quick else SECONDS
    ctx.say(f"{2 * (BEFORE + seconds + AFTERWARDS):.0f} s")
    schedule = poisson(RATE, BEFORE + seconds + AFTERWARDS, seed=1)
    outages = {"threads": _in_threads(schedule, seconds), "asyncio": asyncio.run(_in_tasks(schedule, seconds))}
    for shell, outage in outages.items():
        ctx.say(f"{shell}: {told(outage.load)}")
    return [line for shell, outage in outages.items() for line in _lines(shell, seconds, outage)]


def _lines(shell: str, seconds: float, outage: Outage) -> Result:
    reads = [one for one in outage.load.outcomes if one.at >= outage.stopped]
    within = sum(one.took <= WITHIN for one in reads)
    late = max(one.lag for one in reads)  # where the loop is blocked, or the machine is busy
    then = max(one.took - one.lag for one in reads)
    what = f"database stopped {seconds:g} s, {shell}"
    return [
        Line(
            f"{what}: {len(reads):,} reads answered or refused within 50 ms",
            f"{100 * within / len(reads):.4g} %, worst {duration(max(one.took for one in reads))};"
            f" sent late by up to {duration(late)}, worst from then {duration(then)}",
            "",
            "",
            "100 %",
            within == len(reads),
        ),
        Line(
            f"{what}: reads of known keys, of unknown ones, while it was away",
            "; ".join(_fates(outage, seconds, cold) for cold in (False, True)),
            "",
            "",
            "",
            None,
        ),
        Line(
            f"{what}: first real answer after it is back",
            duration(outage.first_real),
            "",
            "",
            "<= 1 s",
            outage.first_real <= 1.0,
        ),
    ]


def _fates(outage: Outage, seconds: float, cold: bool) -> str:
    """Of those that came well after it was gone and before it was back."""
    since, until = outage.stopped + 1.0, outage.stopped + seconds
    came = [one for one in outage.load.outcomes if since <= one.at < until and _is_cold(one.number) is cold]
    return f"{figure(100 * _answered(came) / len(came))} % of {len(came):,} answered"


def _answered(outcomes: list[Outcome]) -> int:
    return sum(one.fate == ANSWERED for one in outcomes)


def _is_cold(number: int) -> bool:
    return random.Random(f"temperature of {number}").random() < 0.1


def _key(number: int) -> str:
    return f"cold:{number}" if _is_cold(number) else f"warm:{number % WARM_KEYS}"


def _stop_and_start(server: EmbeddedPostgres, diary: Diary, seconds: float) -> None:
    time.sleep(max(0.0, diary.began + BEFORE - perf_counter()))
    diary.stopped = perf_counter()
    server.stop()
    diary.gone = perf_counter()
    time.sleep(max(0.0, diary.stopped + seconds - perf_counter()))
    server.start()
    diary.back = perf_counter()


def _in_threads(schedule: list[float], seconds: float) -> Outage:
    with (
        EmbeddedPostgres(max_connections=20) as server,
        penstock.Pool(server.dsn, min_size=4, max_size=4) as pool,
    ):
        pool.wait()
        fallback = Fallback(fresh=FRESH)
        diary = Diary()

        def load(key: str) -> Callable[[], str]:
            def loader() -> str:
                with pool.connection() as connection:
                    value = _value(connection.execute(SQL, (key,)).fetchone())
                diary.real.append(perf_counter())
                return value

            return loader

        def ask(number: int, left: float) -> int:
            key = _key(number)
            assert fallback.get(key, load(key)).value == f"value of {key}", "a wrong answer"
            return number

        for number in range(WARM_KEYS):
            fallback.get(f"warm:{number}", load(f"warm:{number}"))
        diary = Diary()
        master = Thread(target=_stop_and_start, args=(server, diary, seconds), daemon=True)
        master.start()
        offered = offer_in_threads(schedule, ask, (Unavailable,), WITHIN, WORKERS, diary.began)
        master.join()
        return diary.outage(offered)


async def _in_tasks(schedule: list[float], seconds: float) -> Outage:
    with EmbeddedPostgres(max_connections=20) as server:
        async with penstock.AsyncPool(server.dsn, min_size=4, max_size=4, open=False) as pool:
            await pool.wait()
            fallback = AsyncFallback(fresh=FRESH)
            diary = Diary()

            def load(key: str) -> Callable[[], Any]:
                async def loader() -> str:
                    async with pool.connection() as connection:
                        value = _value(await (await connection.execute(SQL, (key,))).fetchone())
                    diary.real.append(perf_counter())
                    return value

                return loader

            async def ask(number: int, left: float) -> int:
                key = _key(number)
                answer = await fallback.get(key, load(key))
                assert answer.value == f"value of {key}", "a wrong answer"
                return number

            for number in range(WARM_KEYS):
                await fallback.get(f"warm:{number}", load(f"warm:{number}"))
            diary = Diary()
            master = asyncio.create_task(asyncio.to_thread(_stop_and_start, server, diary, seconds))
            offered = await offer(schedule, ask, (Unavailable,), WITHIN, diary.began)
            await master
            return diary.outage(offered)


def _value(row: tuple[Any, ...] | None) -> str:
    assert row is not None
    return str(row[0])
