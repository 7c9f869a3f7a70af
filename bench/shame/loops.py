"""Uses an asyncio pool in one event loop and then in another. Run by `process.second_event_loop`, on its own.

    DSN=... python -m bench.shame.loops contestant

Prints what borrowers of one connection meet in the second loop. In bold what they cannot learn the reason from.
"""

import asyncio
import logging
import os
import sys
import warnings
from collections.abc import Coroutine
from typing import Any, TypeVar

from bench.handoff import CONTESTANTS, HELD, Pool

T = TypeVar("T")

left_open: list[object] = []
PATIENCE = 4.0  # seconds; what a borrower does not know by then it does not learn


async def first(name: str, dsn: str) -> Pool:
    """Open the pool and use it once; leave it open, as a test suite or a serverless handler does."""
    context = CONTESTANTS[name](dsn)
    left_open.append(context)
    pool = await context.__aenter__()
    await pool.give(await pool.take())
    return pool


async def second(pool: Pool) -> str:
    """Two borrowers at once; then the connection ends in a borrower's hands and the next one needs a new one."""
    borrowers = [[borrow(pool), borrow(pool)], [spoil(pool)], [borrow(pool)]]
    for together in borrowers:
        tries = (asyncio.wait_for(borrower, PATIENCE) for borrower in together)
        for told in await asyncio.gather(*tries, return_exceptions=True):
            if isinstance(told, BaseException):
                return _shown(told)
    return "works"


async def borrow(pool: Pool) -> None:
    connection = await pool.take()
    await asyncio.sleep(HELD)
    await pool.give(connection)


async def spoil(pool: Pool) -> None:
    connection = await pool.take()
    await pool.spoil(connection)
    await pool.give(connection)


def _shown(error: BaseException) -> str:
    kind = type(error).__name__
    return f"{kind}, says why" if "loop" in str(error) else f"**{kind}**"


def run(work: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run, which ends its loop and what is left of its tasks; but here the pool stays open."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(_and_end_the_rest(work))
    finally:
        loop.close()


async def _and_end_the_rest(work: Coroutine[Any, Any, T]) -> T:
    done = await work
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    return done


if __name__ == "__main__":
    logging.getLogger().addHandler(logging.NullHandler())
    warnings.simplefilter("ignore")
    used = run(first(sys.argv[1], os.environ["DSN"]))
    print(run(second(used)), flush=True)
    os._exit(0)  # what belongs to a dead loop cannot be closed
