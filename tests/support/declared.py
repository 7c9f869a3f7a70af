"""Requests that declare something: what `either` has, with a deadline, a priority, a key."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from penstock import AsyncPool, PoolError

from .either import entered, settled

every_way = pytest.mark.parametrize("way", ["connection", "getconn", "transaction"])


@asynccontextmanager
async def lent(pool: Any, way: str = "connection", **wish: Any) -> AsyncIterator[Any]:
    """A connection for the length of the block, had in one of the three *ways*."""
    if way == "getconn":
        conn = await settled(pool.getconn(**wish))
        try:
            yield conn
        finally:
            await settled(pool.putconn(conn))
        return
    async with entered(getattr(pool, way)(**wish)) as conn:
        yield conn


async def refusal(asking: Awaitable[Any]) -> PoolError:
    """What a request is refused with."""
    with pytest.raises(PoolError) as caught:
        await asking
    return caught.value


async def hold_for(pool: AsyncPool[Any], seconds: float, **wish: Any) -> None:
    """One request, from its coming to its answer."""
    async with pool.connection(**wish):
        await asyncio.sleep(seconds)


async def learn(pool: AsyncPool[Any], hold: float) -> None:
    """Have the pool measure how long its connections are held, in virtual time, and come to rest."""

    async def again_and_again() -> None:
        for _ in range(round(3 * pool._core.admission.interval / hold) + 2):
            await hold_for(pool, hold, timeout=1000.0)

    await asyncio.gather(*[again_and_again() for _ in range(pool.max_size + 1)])
    assert pool.snapshot().hold == pytest.approx(hold)


async def take_all(pool: AsyncPool[Any], **wish: Any) -> list[Any]:
    """Every connection that the pool may open."""
    return [await pool.getconn(**wish) for _ in range(pool.max_size)]
