"""Every stage of a connection's life goes well, fails, is slow or never ends, in every combination: 4^5 cases.

Whatever the database does, an acquire returns or raises in time; and when it does well again, nothing was lost.
"""

import asyncio
import logging
from contextlib import suppress
from itertools import product

import pytest

from penstock import PoolError
from support import virtual
from support.borrowers import OnTime, Pool, come_to_rest
from support.fake import STAGES, FakeDriver, FakeError, Outcome, virtual_pool
from support.invariants import Invariants
from support.virtual import VirtualLoop

CASES = list(product(Outcome, repeat=len(STAGES)))
TIMEOUTS = (0.05, 0.25, 1.0)  # less than slow, about slow, more


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "penstock")


@pytest.mark.parametrize("connect", Outcome, ids=lambda outcome: f"connect-{outcome.value}")
@pytest.mark.parametrize("min_size", [0, 2])
def test_every_stage_in_every_way(connect: Outcome, min_size: int) -> None:
    """No acquire is late, no invariant breaks, and nothing is lost, in each of 256 cases."""
    for case in CASES:
        if case[0] is connect:
            try:
                virtual.run(lambda loop, case=case: _main(loop, case, min_size))  # type: ignore[misc]
            except BaseException as error:
                named = ", ".join(f"{stage}={outcome.value}" for stage, outcome in zip(STAGES, case, strict=True))
                raise AssertionError(f"{named}: {error!r}") from error


async def _main(loop: VirtualLoop, case: tuple[Outcome, ...], min_size: int) -> None:
    driver = FakeDriver(True)
    pool = virtual_pool(
        loop,
        driver,
        min_size=min_size,
        max_size=2,
        connect_timeout=0.5,
        configure=driver.configure,
        check=driver.check_hook,
        reset=driver.reset_hook,
    )
    invariants = Invariants(pool._core)
    loop.on_step = invariants.check
    if min_size:  # the fault strikes a pool that was well; else one that has nothing yet
        await pool.open()
        await pool.wait()
    driver.outcomes.update(zip(STAGES, case, strict=True))
    await pool.open()
    await asyncio.gather(*[_borrow(loop, pool, timeout) for timeout in TIMEOUTS])
    await pool.drain()  # so that close is met, too
    await asyncio.gather(*[_borrow(loop, pool, timeout) for timeout in TIMEOUTS])
    await come_to_rest(loop, pool, driver)


async def _borrow(loop: VirtualLoop, pool: Pool, timeout: float) -> None:
    for number in range(2):
        checkout = pool.connection(timeout)
        try:
            with OnTime(loop, timeout):
                conn = await checkout.__aenter__()
        except PoolError:
            continue
        with suppress(FakeError):
            (conn.spoil if number else conn.end)()
        await checkout.__aexit__(None, None, None)


def test_a_healthy_database_serves_everybody() -> None:
    """The matrix above is worth something only if nobody is refused without cause."""

    async def main(loop: VirtualLoop) -> None:
        pool = virtual_pool(loop, FakeDriver(True), min_size=0, max_size=2)
        await pool.open()
        for _ in range(10):
            async with pool.connection(0.01) as conn:
                conn.use()
        assert pool.snapshot().connects == 1
        await pool.close()

    virtual.run(main)
