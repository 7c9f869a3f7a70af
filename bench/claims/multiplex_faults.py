"""100,000 statements, while some fail, some are cancelled, some run out of time, and connections are ended under them.

Every answer can be told from every other one, and so can every error that a statement brings upon itself. Those that
write leave a token, which is counted at the end: once if it was reported done, never if it was refused or failed, and
once at most where nobody can know.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import psycopg

import penstock
from bench.context import Context
from bench.multiplexed import ACCOUNTS, accounts, balance
from bench.pools import ours_async
from bench.report import Line, Result

CLAIM = "100,000 statements on 4 connections with errors, cancels, deadlines and killed connections"
BAR = "no wrong answer, no statement run twice, no connection lost"

SIZE = 4
STATEMENTS, QUICK_STATEMENTS = 100_000, 20_000
TASKS = 64
PATIENT = 30.0  # seconds to wait for a connection while they are being killed
LIMIT = 55.0  # seconds for everything: who never gets an answer would wait for ever
SETTLED = 5.0  # seconds in which everything has to be as it was
BETWEEN_KILLS = 0.02
PAUSE = 0.01  # after a refusal, so that a moment without connections does not use up the statements
NAME = "multiplex-faults"  # by which the server knows the pool's connections


class Kind(NamedTuple):
    """A kind of statement: how often it comes, and its right answer; None where it has to fail."""

    weight: int
    query: str
    params: Callable[[int], tuple[Any, ...]]
    right: Callable[[int], tuple[Any, ...]] | None
    writes: bool = False
    idempotent: bool = False


def _account(number: int) -> tuple[int, int]:
    account = number % ACCOUNTS + 1
    return account, balance(account)


READ = "SELECT aid, abalance FROM pgbench_accounts WHERE aid = %s"
KINDS = (
    Kind(55, READ, lambda number: _account(number)[:1], _account),
    Kind(15, READ, lambda number: _account(number)[:1], _account, idempotent=True),
    Kind(
        20,
        "INSERT INTO multiplexed_tokens VALUES (%s) RETURNING token, token * 3 + 1",
        lambda number: (number,),
        lambda number: (number, number * 3 + 1),
        writes=True,
    ),
    Kind(
        1,
        "INSERT INTO multiplexed_tokens SELECT %s FROM pg_sleep(0.005) RETURNING token, token * 5 + 1",
        lambda number: (number,),
        lambda number: (number, number * 5 + 1),
        writes=True,
    ),
    Kind(5, "SELECT %s::text::int", lambda number: (_not_a_number(number),), None),
    Kind(
        4,
        "INSERT INTO multiplexed_tokens VALUES (%s), (%s::text::int)",
        lambda number: (number, _not_a_number(number)),
        None,
        writes=True,
    ),
)


def _not_a_number(number: int) -> str:
    return f"<{number}>"  # the server's error quotes it


@dataclass(slots=True)
class Ledger:
    """What became of the statements."""

    fates: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    done: set[int] = field(default_factory=set)  # numbers of those that write, and were reported done
    unknown: set[int] = field(default_factory=set)  # those that may have run
    kills: int = 0

    def ended(self, fate: str, kind: Kind, number: int, *, unknown: bool = False) -> None:
        """One statement is over."""
        self.fates[fate] += 1
        if kind.writes and unknown:
            self.unknown.add(number)

    def is_wrong(self, number: int, what: str) -> None:
        """One statement was told something that is not so."""
        self.wrong.append(f"statement {number}: {what}")


def run(ctx: Context) -> Result:
    total = QUICK_STATEMENTS if ctx.quick else STATEMENTS
    with accounts(ctx), _tokens(ctx):
        ledger, lost = asyncio.run(_measure(ctx, total))
        found = _found(ctx)
    twice = [number for number, times in found.items() if times > 1]
    missing = ledger.done - found.keys()
    uncalled = found.keys() - ledger.done - ledger.unknown
    for trouble in ledger.wrong[:5]:
        ctx.say(trouble)
    fates = ", ".join(f"{count:,} {fate}" for fate, count in ledger.fates.most_common())
    ctx.say(f"{fates}; {ledger.kills:,} connections killed")
    what = f"{total:,} statements, {ledger.kills:,} connections killed"
    return [
        _none(f"{what}: answers and errors that were another's, or should not be", len(ledger.wrong)),
        _none(f"{what}: statements run twice", len(twice)),
        _none(f"{what}: statements done that are not there, or there and refused", len(missing) + len(uncalled)),
        _none(f"{what}: connections lost", lost),
        Line(f"{what}: what became of them", fates, "", "", "", None),
    ]


def _none(what: str, count: int) -> Line:
    return Line(what, f"{count:,}", "", "", "0", count == 0)


@contextmanager
def _tokens(ctx: Context) -> Iterator[None]:
    """Where statements that write leave their number: nothing there keeps out a second one."""
    with ctx.server.admin() as admin:
        admin.execute("DROP TABLE IF EXISTS multiplexed_tokens")
        admin.execute("CREATE TABLE multiplexed_tokens (token bigint)")
        admin.execute("GRANT ALL ON multiplexed_tokens TO app")
    try:
        yield
    finally:
        with ctx.server.admin() as admin:
            admin.execute("DROP TABLE multiplexed_tokens")


def _found(ctx: Context) -> Counter[int]:
    with ctx.server.admin() as admin:
        return Counter(number for (number,) in admin.execute("SELECT token FROM multiplexed_tokens"))


async def _measure(ctx: Context, total: int) -> tuple[Ledger, int]:
    """What became of the statements, and how many connections the pool is short of afterwards."""
    ledger = Ledger()
    draw = random.Random(4)
    kinds = draw.choices(KINDS, weights=[kind.weight for kind in KINDS], k=total)
    questions = enumerate(kinds)
    async with asyncio.timeout(LIMIT), ours_async(ctx.dsn, SIZE, kwargs={"application_name": NAME}) as pool:

        async def client() -> None:
            for number, kind in questions:
                await _trouble(_ask(pool, kind, number, ledger), draw.random(), draw.random() / 200)
                if draw.random() < 0.005:
                    await _borrow(pool, number, ledger)

        async with _killing(ctx, ledger):
            await asyncio.gather(*(client() for _ in range(TASKS)))
        return ledger, await _missing(ctx, pool)


async def _trouble(asking: Any, chance: float, seconds: float) -> None:
    """One in twenty is cancelled after that time, one in twenty has no more than that."""
    if chance < 0.05:
        task = asyncio.create_task(asking)
        await asyncio.wait([task], timeout=seconds)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
    elif chance < 0.1:
        with penstock.deadline(seconds):
            await asking
    else:
        await asking


async def _ask(pool: Any, kind: Kind, number: int, ledger: Ledger) -> None:
    try:
        row = await pool.fetchrow(kind.query, kind.params(number), idempotent=kind.idempotent, timeout=PATIENT)
    except psycopg.errors.InvalidTextRepresentation as error:
        ledger.ended("failed", kind, number)
        if kind.right is not None or f'"{_not_a_number(number)}"' not in str(error):
            ledger.is_wrong(number, f"has the error {error}")
    except penstock.ConnectionLost:
        ledger.ended("lost again and again" if kind.idempotent else "lost", kind, number, unknown=True)
    except penstock.StatementTimeout:
        ledger.ended("out of time", kind, number, unknown=True)
    except penstock.PoolError as error:
        ledger.ended(type(error).__name__, kind, number)
        await asyncio.sleep(PAUSE)
    except asyncio.CancelledError:
        ledger.ended("cancelled", kind, number, unknown=True)
        raise
    except Exception as error:
        ledger.ended(type(error).__name__, kind, number, unknown=True)
        ledger.is_wrong(number, f"has the error {type(error).__name__}: {error}")
    else:
        ledger.ended("answered", kind, number)
        if kind.right is None or row != kind.right(number):
            ledger.is_wrong(number, f"was answered {row}")
        if kind.writes:
            ledger.done.add(number)


async def _borrow(pool: Any, number: int, ledger: Ledger) -> None:
    """Connections are borrowed from the same pool meanwhile."""
    account, held = _account(number)
    try:
        async with pool.connection(timeout=PATIENT) as connection:
            row = await (await connection.execute(READ, (account,))).fetchone()
    except psycopg.OperationalError:
        ledger.fates["borrowed in vain"] += 1
    else:
        ledger.fates["answered, borrowed"] += 1
        if row != (account, held):
            ledger.is_wrong(number, f"was answered {row} on a connection of its own")


@asynccontextmanager
async def _killing(ctx: Context, ledger: Ledger) -> AsyncIterator[None]:
    """End one of the pool's connections after the other, whichever chance picks, for the length of a block."""

    async def kill() -> None:
        async with await psycopg.AsyncConnection.connect(ctx.server.admin_dsn, autocommit=True) as admin:
            while True:
                await asyncio.sleep(BETWEEN_KILLS)
                ended = await admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM"
                    " (SELECT pid FROM pg_stat_activity WHERE application_name = %s AND state IN ('idle', 'active')"
                    " ORDER BY random() LIMIT 1) AS one",  # none that is not let in yet: that is another failure
                    (NAME,),
                )
                ledger.kills += ended.rowcount

    killer = asyncio.create_task(kill())
    try:
        yield
    finally:
        killer.cancel()
        await asyncio.wait([killer])
        if not killer.cancelled():
            killer.result()


async def _missing(ctx: Context, pool: Any) -> int:
    """How many connections fewer than its size the pool lends at once, or the server knows of."""
    lent = 0
    async with AsyncExitStack() as leases:
        try:
            async with asyncio.timeout(SETTLED):
                for lent in range(SIZE):  # noqa: B007  # how many it was when the time was over
                    connection = await leases.enter_async_context(pool.connection(timeout=SETTLED))
                    await connection.execute("SELECT 1")
                lent = SIZE
        except (penstock.PoolTimeout, TimeoutError):
            pass
    return SIZE - lent + abs(SIZE - await _seen(ctx))


async def _seen(ctx: Context) -> int:
    """How many connections of the pool the server knows of, once those that were ended are gone."""
    seen = -1
    with ctx.server.admin() as admin:
        for _ in range(100):
            row = admin.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", (NAME,)).fetchone()
            seen = row[0] if row else -1
            if seen == SIZE:
                break
            await asyncio.sleep(SETTLED / 100)
    return seen
