"""What the claims on multiplexing share: the table that is asked, the contestants, and the loop that asks."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from itertools import cycle, islice
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import uvloop

from bench.context import Context
from bench.pools import AUTOCOMMIT, asyncpg_pool, ours_async, psycopg_pool_async

T = TypeVar("T")

ACCOUNTS = 100_000  # what `pgbench` has at scale 1
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

Ask = Callable[..., Coroutine[Any, Any, Any]]
"""Takes a statement's parameters, gives the first value of its first row."""


class Statement(NamedTuple):
    """One statement, in the words of either driver."""

    psycopg: str
    asyncpg: str


POINT = Statement(
    "SELECT abalance FROM pgbench_accounts WHERE aid = %s", "SELECT abalance FROM pgbench_accounts WHERE aid = $1"
)


def balance(account: int) -> int:
    """What is in an account: known here without asking, and unlike the account's number."""
    return account * 7919 % 100_003


@contextmanager
def accounts(ctx: Context) -> Iterator[None]:
    """The tables that `pgbench -S` reads, with balances that tell whose they are, for the length of a block."""
    with ctx.server.admin() as admin:
        admin.execute("DROP TABLE IF EXISTS pgbench_accounts, pgbench_branches")
        admin.execute("CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88))")
        admin.execute("CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84))")
        admin.execute("INSERT INTO pgbench_branches VALUES (1, 0, '')")  # pgbench counts them: one is scale 1
        admin.execute(
            "INSERT INTO pgbench_accounts SELECT aid, 1, aid::bigint * 7919 % 100003, ''"
            f" FROM generate_series(1, {ACCOUNTS}) AS aid"
        )
        admin.execute("GRANT ALL ON pgbench_accounts, pgbench_branches TO app")
        admin.execute("VACUUM (ANALYZE) pgbench_accounts, pgbench_branches")
    try:
        yield
    finally:
        with ctx.server.admin() as admin:
            admin.execute("DROP TABLE pgbench_accounts, pgbench_branches")


def by_fetch(pool: Any, statement: Statement) -> Ask:
    """Multiplexed; the whole row is loaded, as a cursor would."""

    async def ask(*params: Any) -> Any:
        return (await pool.fetchrow(statement.psycopg, params))[0]

    return ask


def by_lease(pool: Any, statement: Statement) -> Ask:
    """A connection borrowed for one statement: ours, or psycopg_pool's."""

    async def ask(*params: Any) -> Any:
        async with pool.connection() as connection:
            return (await (await connection.execute(statement.psycopg, params)).fetchone())[0]

    return ask


def by_fetchval(pool: Any, statement: Statement) -> Ask:
    """The shortcut of asyncpg's pool, which borrows a connection and resets it."""

    async def ask(*params: Any) -> Any:
        return await pool.fetchval(statement.asyncpg, *params)

    return ask


class Contestant(NamedTuple):
    """How a pool is opened, with a DSN and a number of connections, and how it is asked."""

    opened: Callable[[str, int], AbstractAsyncContextManager[Any]]
    asks: Callable[[Any, Statement], Ask]


OURS = Contestant(ours_async, by_fetch)
LEASED = Contestant(partial(ours_async, kwargs=AUTOCOMMIT), by_lease)
PSYCOPG_POOL = Contestant(partial(psycopg_pool_async, kwargs=AUTOCOMMIT), by_lease)
ASYNCPG = Contestant(asyncpg_pool, by_fetchval)


_WANTED = [(account, balance(account)) for account in random.Random(1).choices(range(1, ACCOUNTS + 1), k=10_007)]


def numbers(first: int = 0) -> Iterator[tuple[int, int]]:
    """Accounts to ask for and what they hold, without end and always the same, from the *first* on."""
    return islice(cycle(_WANTED), first * 31, None)


async def per_second(ask: Ask, tasks: int, seconds: float) -> float:
    """Right answers a second, where so many tasks ask `POINT` for one account after the other."""
    wanted = numbers()
    over = False
    answered = 0

    def stop() -> None:
        nonlocal over
        over = True

    async def client() -> None:
        nonlocal answered
        while not over:
            account, held = next(wanted)
            assert await ask(account) == held, "a wrong answer"
            answered += 1

    asyncio.get_running_loop().call_later(seconds, stop)
    started = perf_counter()
    await asyncio.gather(*(client() for _ in range(tasks)))
    return answered / (perf_counter() - started)


def on_loop(name: str, main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a new event loop of that kind."""
    with asyncio.Runner(loop_factory=LOOPS[name]) as runner:
        return runner.run(main)
