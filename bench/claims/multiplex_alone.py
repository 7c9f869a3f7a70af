"""One task asks one thing after the other: nothing to batch, so it shows what a statement costs besides its trip."""

from contextlib import AsyncExitStack

from bench.context import Context
from bench.measure import AsyncCycles, microseconds_async
from bench.multiplexed import (
    ASYNCPG,
    LEASED,
    LOOPS,
    OURS,
    POINT,
    PSYCOPG_POOL,
    Ask,
    accounts,
    numbers,
    on_loop,
)
from bench.report import Line, Result, figure, listed

CLAIM = "point query, one task, one statement after the other"
BAR = ">= 1.3x asyncpg's pool"

SIZE = 4
CONTESTANTS = {"ours": OURS, "asyncpg": ASYNCPG, "psycopg_pool": PSYCOPG_POOL, "our connection()": LEASED}


def run(ctx: Context) -> Result:
    with accounts(ctx):
        return [_line(loop, on_loop(loop, _measure(ctx.dsn))) for loop in LOOPS]


def _line(loop: str, found: dict[str, float]) -> Line:
    mine = found.pop("ours")
    ratio = found["asyncpg"] / mine
    return Line(
        f"point query, one task, {loop} / asyncpg",
        f"{figure(mine)} us",
        listed(found, "us"),
        f"{ratio:.2f}x",
        ">= 1.3x",
        ratio >= 1.3,
    )


async def _measure(dsn: str) -> dict[str, float]:
    async with AsyncExitStack() as pools:
        cycles = {}
        for name, contestant in CONTESTANTS.items():
            pool = await pools.enter_async_context(contestant.opened(dsn, SIZE))
            cycles[name] = _cycles(contestant.asks(pool, POINT))
        return await microseconds_async(cycles)


def _cycles(ask: Ask) -> AsyncCycles:
    wanted = numbers()

    async def cycles(count: int) -> None:
        for _ in range(count):
            account, held = next(wanted)
            assert await ask(account) == held, "a wrong answer"

    return cycles
