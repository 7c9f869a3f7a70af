"""A random soak against the real server: whatever callers, operators and the server may do, in any order, for seconds.

Every answer is derived from its question, so one that went astray is noticed; every write carries a token of its own,
so one that was run twice, or reported and not there, is noticed. PENSTOCK_SOAK says for how many seconds a loop is
soaked (4 otherwise); ``PENSTOCK_SEED=soak:123`` draws the same again, but what comes of it is the server's affair too.
"""

import asyncio
import logging
import os
import secrets
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from random import Random
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

import penstock
from penstock import AsyncPool, Multiplex, PoolError, Priority
from penstock.drill.postgres import EmbeddedPostgres
from penstock.pool.terms import reading
from support.waiting import soon

SECONDS = float(os.environ.get("PENSTOCK_SOAK", "4"))
REPLAY = os.environ.get("PENSTOCK_SEED", "")
TASKS = 200
SIZE = 5
TIMEOUT = 5.0
HANG = 30.0  # seconds after which whoever still waits is stuck
MAX_RESULT = 64 * 1024

_SCHEMA = """
    CREATE TABLE token (token bigint);
    CREATE FUNCTION blame(word text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'blame %', word; END $$;
    CREATE FUNCTION sneak() RETURNS text LANGUAGE sql AS $$ SELECT set_config('TimeZone', 'Asia/Kathmandu', false) $$;
"""
_DROP = "DROP FUNCTION IF EXISTS blame(text), sneak(); DROP TABLE IF EXISTS token"

Deed = Callable[["Soak"], Awaitable[object]]


class Astray(AssertionError):
    """An answer that does not belong to its question."""


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Thousands of warnings that all is as bad as it was made tell nobody anything."""
    caplog.set_level(logging.CRITICAL, "penstock")
    caplog.set_level(logging.CRITICAL, "psycopg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_soak(postgres: EmbeddedPostgres, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every answer belongs to its question, nothing is run twice or lost, and the pool is as good as new afterwards."""
    loop = pytest.importorskip("uvloop").Loop if kind == "uvloop" else asyncio.SelectorEventLoop
    new_loop: Any = type("WatchfulLoop", (Watchful, loop), {})
    seed = int(REPLAY.removeprefix("soak:")) if REPLAY.startswith("soak:") else secrets.randbits(32)
    soak = Soak(postgres, seed)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        try:
            runner.run(soak.run())
        finally:
            with capsys.disabled():
                print(f"\n{kind}: replay with PENSTOCK_SEED=soak:{seed}; {soak.told()}")


class Watchful:
    """What an event loop watches at the request of others: uvloop does not tell."""

    def __init__(self) -> None:
        super().__init__()
        self.watched: set[int] = set()

    def add_reader(self, fd: int, *args: Any) -> None:
        self.watched.add(fd)
        super().add_reader(fd, *args)  # type: ignore[misc]

    def add_writer(self, fd: int, *args: Any) -> None:
        self.watched.add(-fd)
        super().add_writer(fd, *args)  # type: ignore[misc]

    def remove_reader(self, fd: int) -> object:
        self.watched.discard(fd)
        return super().remove_reader(fd)  # type: ignore[misc]

    def remove_writer(self, fd: int) -> object:
        self.watched.discard(-fd)
        return super().remove_writer(fd)  # type: ignore[misc]


class Soak:
    """:ivar done: tokens of writes that were reported done.

    :ivar failed: tokens of writes that the server has refused.
    :ivar ends: how many ended how.
    """

    def __init__(self, postgres: EmbeddedPostgres, seed: int) -> None:
        self.random = Random(seed)
        self.ends: Counter[str] = Counter()
        self.done: set[int] = set()
        self.failed: set[int] = set()
        self.pool: AsyncPool[Any]
        self._postgres = postgres
        self._name = f"soak-{seed}"
        self._tokens = count(1)
        self._over = False
        self._wrong: list[BaseException] = []

    def told(self) -> str:
        return ", ".join(f"{number} {what}" for what, number in self.ends.most_common())

    def token(self) -> int:
        return next(self._tokens)

    def stuck(self) -> str:
        """Where everything stands, for whoever looks into it."""
        return f"{self.pool!r}, held by {[str(holder) for holder in self.pool.holders()]}"

    async def run(self) -> None:
        loop: Any = asyncio.get_running_loop()
        loop.set_exception_handler(
            lambda _, context: self._wrong.append(context.get("exception") or _as_error(context))
        )
        with self._postgres.admin() as admin:
            admin.execute(_DROP)
            admin.execute(_SCHEMA)
            admin.execute("GRANT ALL ON token TO app")
        settings: dict[str, Any] = {
            "min_size": 2,
            "max_size": SIZE,
            "timeout": TIMEOUT,
            "kwargs": {"application_name": self._name, "prepare_threshold": self.random.choice((None, 0, 2, 5))},
            "multiplex": Multiplex(max_in_flight=self.random.choice((1, 8, 256)), max_result=MAX_RESULT),
            "max_per_key": self.random.choice((None, None, None, 3)),
            "reserve": self.random.choice((0, 0, 0, 1)),
            "check": self.random.choice((None, None, None, AsyncPool.check_connection)),
        }
        async with AsyncPool(self._postgres.dsn, open=False, **settings) as self.pool:
            await self._all_at_once()
            await self._as_good_as_new()
        await soon(lambda: not self._server_connections())
        assert not loop.watched, "a connection is still watched after close"
        self._check_tokens()
        if self._wrong:
            raise self._wrong[0]

    async def _all_at_once(self) -> None:
        tasks = [asyncio.create_task(self._caller()) for _ in range(TASKS)]
        tasks += [asyncio.create_task(self._server()), asyncio.create_task(self._operator())]
        done, _ = await asyncio.wait(tasks, timeout=SECONDS, return_when=asyncio.FIRST_EXCEPTION)
        self._over = True
        done, stuck = await asyncio.wait(tasks, timeout=HANG + 10)
        assert not stuck, f"{len(stuck)} tasks never end"
        for task in done:
            task.result()

    # ------------------------------------------------------------------------------------------ callers

    async def _caller(self) -> None:
        random = self.random
        while not self._over:
            deed = random.choice(DEEDS)
            async with asyncio.timeout(HANG) as patience:
                try:
                    await self._some_way(deed)
                except Astray:
                    raise
                except (PoolError, psycopg.Error, TimeoutError, asyncio.CancelledError) as error:
                    self.ends[type(error).__name__] += 1
                else:
                    self.ends["well"] += 1
            if patience.expired():
                raise AssertionError(f"{deed.__name__} hangs: {self.stuck()}")
            if random.random() < 0.2:
                await asyncio.sleep(random.choice((0.0, 0.001, 0.02)))

    async def _some_way(self, deed: Deed) -> None:
        """Mostly to its end; now and then it is cancelled, or has a deadline."""
        seconds = self.random.choice((0.0, 0.0005, 0.002, 0.01, 0.03))
        match self.random.randrange(20):
            case 0:
                task = asyncio.ensure_future(deed(self))
                await asyncio.sleep(seconds)
                task.cancel()
                await task
            case 1:
                async with asyncio.timeout(seconds):
                    await deed(self)
            case 2:
                with penstock.deadline(seconds + 0.001):
                    await deed(self)
            case 3:
                await asyncio.gather(*(deed(self) for _ in range(self.random.randrange(2, 40))))
            case _:
                await deed(self)

    def wish(self, idempotent: bool = True) -> dict[str, Any]:
        """What a statement asks beside its answer: mostly nothing. *idempotent*: whether it may be run twice."""
        wishes: dict[str, tuple[Any, ...]] = {
            "priority": tuple(Priority),
            "timeout": (0.001, 0.1, 2.0),
            "deadline": (0.002, 0.05, 1.0),
            "key": ("a", "b"),
            "idempotent": (idempotent,),
        }
        return {name: self.random.choice(values) for name, values in wishes.items() if self.random.random() < 0.08}

    async def writing(self, token: int, write: Coroutine[Any, Any, Any]) -> Any:
        """Take note of what is said to have become of a write."""
        try:
            answer = await write
        except psycopg.errors.ReadOnlySqlTransaction:
            self.failed.add(token)
            raise
        except psycopg.Error as error:
            if error.sqlstate is not None and error.diag.severity_nonlocalized == "ERROR":
                self.failed.add(token)
            raise
        self.done.add(token)
        return answer

    # ------------------------------------------------------------------------------------------ the world

    async def _server(self) -> None:
        """Ends backends."""
        query = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
            " ORDER BY random() LIMIT %s"
        )
        with self._postgres.admin() as admin:
            while not self._over:
                await asyncio.sleep(self.random.choice((0.02, 0.2, 0.5, 1.0)))
                count = self.random.choice((1, 1, 1, SIZE))
                ended = await asyncio.to_thread(admin.execute, query, (self._name, count))
                self.ends["backends ended"] += ended.rowcount

    async def _operator(self) -> None:
        pool, random = self.pool, self.random
        while not self._over:
            await asyncio.sleep(random.choice((0.1, 0.3, 0.6)))
            match random.randrange(5):
                case 0:
                    await pool.resize(random.randrange(3), random.randint(2, SIZE))
                case 1:
                    await pool.drain()
                case 2:
                    pool.pause()
                    await asyncio.sleep(0.02)
                    pool.resume()
                case 3:
                    with suppress(PoolError):
                        await pool.check()
                case _:
                    assert all(str(holder) for holder in pool.holders())
                    pool.snapshot()

    # ------------------------------------------------------------------------------------------ afterwards

    async def _as_good_as_new(self) -> None:
        pool = self.pool
        await pool.resize(2, SIZE)
        await soon(lambda: not pool._core.waiters, 10)
        await self._heal()
        async with _all_connections(pool) as conns:
            pids = {conn.info.backend_pid for conn in conns}
            assert len(pids) == SIZE
            assert pool.snapshot().leased == SIZE
        assert await asyncio.gather(*(pool.fetchval("SELECT %s::int", (i,)) for i in range(1000))) == [*range(1000)]
        await soon(lambda: not pool.snapshot().leased)
        now = pool.snapshot()
        assert (now.in_flight, now.multiplexed, now.waiting, now.leased) == (0, 0, 0, 0)
        assert not pool._core._tenants, "a key has a share that nobody holds"
        await soon(lambda: self._server_connections() == pool.snapshot().open)
        loop: Any = asyncio.get_running_loop()
        assert not loop.watched, "a connection is watched that nobody uses"
        self.ends["statements"] = now.statements

    async def _heal(self) -> None:
        """Whoever comes first may still hear of the outage."""
        while self.pool.snapshot().sick:
            with suppress(PoolError):
                await self.pool.fetchval("SELECT 1")
            await asyncio.sleep(0.01)

    def _server_connections(self) -> int:
        with self._postgres.admin() as admin:
            count = admin.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", (self._name,))
            return int(count.fetchall()[0][0])

    def _check_tokens(self) -> None:
        with self._postgres.admin() as admin:
            there = Counter(token for (token,) in admin.execute("SELECT token FROM token"))
        twice = [token for token, times in there.items() if times > 1]
        assert not twice, f"run twice: {twice}"
        assert not self.done - there.keys(), "reported done, and not there"
        assert not self.failed & there.keys(), "reported failed, and there all the same"
        self.ends["writes"] = len(self.done)


# ---------------------------------------------------------------------------------------------- deeds


async def number(soak: Soak) -> None:
    a, b = soak.random.randrange(1000), soak.random.randrange(1000)
    same(await soak.pool.fetchval("SELECT %s::int * 3 + %s::int", (a, b), **soak.wish()), a * 3 + b)


async def text(soak: Soak) -> None:
    word = soak.random.choice(("", "ä", "x" * 30_000, "%s", "\n'\"")) + str(soak.random.random())
    same(await soak.pool.fetchval("SELECT %(word)s || 'ß'", {"word": word}, **soak.wish()), word + "ß")


async def rows(soak: Soak) -> None:
    factor, most = soak.random.randrange(1000), soak.random.choice((0, 1, 3, 63, 64, 65, 200))
    query = "SELECT i, i * %s FROM generate_series(1, %s) AS i"
    same(await soak.pool.fetch(query, (factor, most), **soak.wish()), [(i, i * factor) for i in range(1, most + 1)])


async def row(soak: Soak) -> None:
    a = soak.random.random()
    query = "SELECT i, %s::float AS a FROM generate_series(7, %s) AS i"
    many = soak.random.choice((6, 7, 300))
    found = await soak.pool.fetchrow(query, (a, many), row_factory=dict_row, **soak.wish())
    same(found, None if many == 6 else {"i": 7, "a": a})


async def tag(soak: Soak) -> None:
    many = soak.random.randrange(100)
    same(await soak.pool.execute("SELECT generate_series(1, %s)", (many,), **soak.wish()), f"SELECT {many}")


async def literal(soak: Soak) -> None:
    """A text that is never met again."""
    a = soak.random.randrange(10**9)
    same(await soak.pool.fetchval(f"SELECT {a}", **soak.wish()), a)


async def blame(soak: Soak) -> None:
    """An error that says whose it is."""
    word = str(soak.random.random())
    with pytest.raises(psycopg.errors.RaiseException, match=f"blame {word}"):
        await soak.pool.fetchval("SELECT blame(%s)", (word,), **soak.wish())
    soak.ends["own errors"] += 1


async def missing(soak: Soak) -> None:
    """One that fails before it runs, and when it is prepared."""
    name = f"nowhere_{soak.random.randrange(20)}"
    with pytest.raises(psycopg.errors.UndefinedTable, match=name):
        await soak.pool.fetch(f"SELECT %s FROM {name}", (1,), **soak.wish())
    soak.ends["own errors"] += 1


async def misuse(soak: Soak) -> None:
    """What is wrong with it is known before it is sent."""
    with pytest.raises(penstock.NotStandalone):
        await soak.pool.execute(soak.random.choice(("BEGIN", "SET search_path TO nowhere", "LISTEN me")))
    with pytest.raises(psycopg.ProgrammingError):
        await soak.pool.fetch("SELECT %s, %s", (1,), **soak.wish())


async def large(soak: Soak) -> None:
    with pytest.raises(penstock.ResultTooLarge):
        await soak.pool.fetch("SELECT repeat('x', 1000), %s FROM generate_series(1, 400)", (1,), **soak.wish())
    soak.ends["too large"] += 1


async def slow(soak: Soak) -> None:
    a = soak.random.randrange(1000)
    same(await soak.pool.fetchval("SELECT %s::int FROM pg_sleep(0.02)", (a,), **soak.wish()), a)


async def seldom_slow(soak: Soak) -> None:
    a, seconds = soak.random.randrange(1000), 0.02 if soak.random.random() < 0.05 else 0.0
    same(await soak.pool.fetchval("SELECT %s::int FROM pg_sleep(%s)", (a, seconds), **soak.wish()), a)


async def insert(soak: Soak) -> None:
    token = soak.token()
    write = soak.pool.execute("INSERT INTO token VALUES (%s)", (token,), **soak.wish(idempotent=False))
    same(await soak.writing(token, write), "INSERT 0 1")


async def insert_returning(soak: Soak) -> None:
    token = soak.token()
    query = "INSERT INTO token VALUES (%s) RETURNING token"
    same(await soak.writing(token, soak.pool.fetchval(query, (token,), **soak.wish(idempotent=False))), token)


async def insert_wrongly(soak: Soak) -> None:
    token = soak.token()
    query = "WITH new AS (INSERT INTO token VALUES (%s) RETURNING token) SELECT 1 / (token - token) FROM new"
    with pytest.raises(psycopg.errors.DivisionByZero):
        await soak.writing(token, soak.pool.fetchval(query, (token,), **soak.wish(idempotent=False)))


async def insert_while_reading(soak: Soak) -> None:
    token = soak.token()
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), reading():
        await soak.writing(token, soak.pool.execute("INSERT INTO token VALUES (%s)", (token,)))


async def transaction(soak: Soak) -> None:
    token, broken = soak.token(), soak.random.random() < 0.3
    async with soak.pool.transaction(timeout=2.0) as conn:
        await conn.execute("INSERT INTO token VALUES (%s)", (token,))
        if broken:
            soak.failed.add(token)
            raise psycopg.errors.Error("the block's own")
    soak.done.add(token)


async def lease(soak: Soak) -> None:
    """One that leaves something behind for the pool to clean."""
    a = soak.random.randrange(1000)
    async with soak.pool.connection(timeout=2.0) as conn:
        await conn.execute("SET TimeZone TO 'Asia/Tokyo'")
        await conn.execute("CREATE TEMP TABLE mine (a int)")
        await conn.execute("INSERT INTO mine VALUES (%s)", (a,))
        await asyncio.sleep(soak.random.choice((0.0, 0.005, 0.02)))
        cursor = await conn.execute("SELECT a FROM mine")
        same(await cursor.fetchall(), [(a,)])


async def sneak(soak: Soak) -> None:
    """What changes the session, and cannot be seen to."""
    same(await soak.pool.fetchval("SELECT sneak()", **soak.wish()), "Asia/Kathmandu")


# Each as often as it stands here.
DEEDS: list[Deed] = [
    *[number, number, number, number, text, text, rows, rows, row, row, tag, literal],
    *[blame, blame, missing, misuse, large, slow, slow, seldom_slow, seldom_slow, sneak],
    *[insert, insert, insert, insert_returning, insert_wrongly, insert_while_reading, transaction, lease],
]


def same(found: object, expected: object) -> None:
    if found != expected:
        raise Astray(f"asked for {str(expected)[:200]!r}, got {str(found)[:200]!r}")


# ---------------------------------------------------------------------------------------------- looking


@asynccontextmanager
async def _all_connections(pool: AsyncPool[Any]) -> AsyncIterator[list[Any]]:
    """As many at once as there may be."""
    conns = await asyncio.gather(*(pool.getconn(10, priority=Priority.HIGH) for _ in range(pool.max_size)))
    try:
        yield conns
    finally:
        for conn in conns:
            await pool.putconn(conn)


def _as_error(context: dict[str, Any]) -> Exception:
    return RuntimeError(str(context))
