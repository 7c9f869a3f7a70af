"""Random tasks that borrow from an AsyncPool in virtual time, each as careless as the dice have it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

from penstock import AsyncPool, DatabaseUnavailable, Overload, PoolError, Priority
from penstock.core import Core

from . import virtual
from .fake import FakeConnection, FakeDriver, FakeError, Outcome, Stage, virtual_pool
from .invariants import Broken, Invariants, check_at_rest, lost
from .virtual import VirtualLoop

LATE = 0.010  # seconds after its deadline by which an acquire has returned or raised: invariant 4
HEALED = 5.0  # seconds after which a database that is well again serves everybody
REST = 30.0  # seconds after which a pool that nobody uses is at rest: closing is bounded, and so is every reset

Pool = AsyncPool[Any]


class OnTime:
    """Measures an acquire. :raises Broken: when it ends late, however it ends."""

    def __init__(self, loop: VirtualLoop, timeout: float) -> None:
        self.loop = loop
        self.deadline = loop.time() + timeout

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        late = self.loop.time() - self.deadline
        if late > LATE:
            raise Broken(f"4: an acquire ended {late:.3f} s after its deadline")


def schedule(seed: int) -> None:
    """One random schedule. :raises Broken: when an invariant does not hold at any step of it, or at its end."""
    virtual.run(lambda loop: _main(loop, Random(seed)), seed)


async def _main(loop: VirtualLoop, random: Random) -> None:
    driver = FakeDriver(True, connect_seconds=random.choice((0.0, 0.05)))
    minimum, reserve = random.randrange(3), random.choice((0, 0, 1))
    pool = virtual_pool(
        loop,
        driver,
        min_size=minimum,
        max_size=max(1 + reserve, minimum + random.randrange(3)),
        reserve=reserve,
        max_per_key=random.choice((None, None, 1)),
        overload=random.choice((None, None, Overload(interval=0.1))),
        max_waiting=random.choice((0, 0, 4)),
        max_lifetime=random.choice((2.0, 3600.0)),
        max_idle=random.choice((0.0, 1.0, 600.0)),
        connect_timeout=0.5,
        configure=random.choice((None, driver.configure)),
        check=random.choice((None, driver.check_hook)),
        reset=random.choice((None, driver.reset_hook)),
        leak_after=random.choice((None, 0.5)),
        leak_reclaim=random.random() < 0.3,
    )
    invariants = Invariants(pool._core)
    tasks: list[asyncio.Task[None]] = []

    def step() -> None:
        invariants.check()
        if len(driver.live) > len(pool._core.slots):
            raise Broken(f"1: {driver.live} are open, {pool._core.slots} are counted")
        if random.random() < 0.02:
            random.choice(tasks).cancel()

    await pool.open()
    tasks += [loop.create_task(_borrower(loop, pool, random)) for _ in range(random.randrange(2, 7))]
    tasks.append(loop.create_task(_world(pool, driver, random)))
    loop.on_step = step
    await asyncio.gather(*tasks, return_exceptions=True)
    loop.on_step = invariants.check
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
    tasks.clear()
    await come_to_rest(loop, pool, driver)


async def come_to_rest(loop: VirtualLoop, pool: Pool, driver: FakeDriver) -> None:
    """The faults are over and everybody has gone. :raises Broken: when the pool is not as good as new."""
    driver.heal()
    core = pool._core
    pool._leak_reclaim = False  # after an outage each of these may wait a second for the next
    if not core.closed:
        pool.resume()
        await pool.check()
    await _rest(core)
    if not core.closed:
        with OnTime(loop, HEALED):
            everything = [await _connection_of_a_healthy_database(pool) for _ in range(core.max_size)]
        for conn in everything:
            await pool.putconn(conn)
        everything.clear()
        await pool.close()
        await _rest(core)
    if driver.live:
        raise Broken(f"nothing lost: {driver.live} are still open after close")


async def _rest(core: Core) -> None:
    await asyncio.sleep(REST)
    for _ in range(20):  # one that has come of age may be on its way out
        if lost(core) is None:
            return
        await asyncio.sleep(0.01)
    check_at_rest(core)


async def _connection_of_a_healthy_database(pool: Pool) -> FakeConnection:
    while True:  # who comes first may still hear of the outage
        try:
            conn: FakeConnection = await pool.getconn(HEALED, priority=Priority.HIGH)
            return conn
        except DatabaseUnavailable:
            await asyncio.sleep(0.1)


async def _borrower(loop: VirtualLoop, pool: Pool, random: Random) -> None:
    for _ in range(random.randrange(1, 5)):
        await asyncio.sleep(random.choice((0.0, 0.0, 0.01, 0.2)))
        timeout = random.choice((0.0, 0.1, 1.0, 10.0))
        with suppress(PoolError, FakeError):
            await random.choice(WAYS)(loop, pool, random, timeout, **_wish(random))


def _wish(random: Random) -> dict[str, Any]:
    """What a request asks beside a connection: mostly nothing."""
    wishes: dict[str, tuple[Any, ...]] = {
        "priority": tuple(Priority),
        "deadline": (0.0, 0.05, 0.5, 5.0),
        "key": ("a", "a", "b"),
    }
    return {name: random.choice(values) for name, values in wishes.items() if random.random() < 0.3}


async def _use(conn: FakeConnection, random: Random) -> None:
    await asyncio.sleep(random.choice((0.0, 0.01, 0.1, 1.0)))
    deed = random.choice((conn.use, conn.use, conn.spoil, conn.begin, conn.end, None))
    if deed is None:
        raise FakeError("the block's own")
    deed()


async def _block(loop: VirtualLoop, pool: Pool, random: Random, timeout: float, **wish: Any) -> None:
    checkout = pool.connection(timeout, **wish)
    with OnTime(loop, min(timeout, wish.get("deadline", timeout))):
        conn = await checkout.__aenter__()
    try:
        await _use(conn, random)
    except BaseException as error:
        await checkout.__aexit__(type(error), error, None)
        raise
    await checkout.__aexit__(None, None, None)


async def _by_hand(loop: VirtualLoop, pool: Pool, random: Random, timeout: float, **wish: Any) -> None:
    with OnTime(loop, min(timeout, wish.get("deadline", timeout))):
        conn = await pool.getconn(timeout, **wish)
    try:
        await _use(conn, random)
    finally:
        with suppress(ValueError):  # taken back by the pool, for being held too long
            await pool.putconn(conn)


async def _dropped(loop: VirtualLoop, pool: Pool, random: Random, timeout: float, **wish: Any) -> None:
    with OnTime(loop, min(timeout, wish.get("deadline", timeout))):
        conn = await pool.getconn(timeout, **wish)
    await _use(conn, random)


WAYS: list[Callable[..., Any]] = [_block, _block, _block, _by_hand, _by_hand, _dropped]


async def _world(pool: Pool, driver: FakeDriver, random: Random) -> None:
    """What operators, servers and networks do meanwhile."""
    for _ in range(random.randrange(8)):
        await asyncio.sleep(random.choice((0.0, 0.02, 0.3)))
        match random.randrange(12):
            case 0:
                minimum = random.randrange(3)
                await pool.resize(minimum, max(1 + pool._core.reserve, minimum + random.randrange(3)))
            case 1:
                await pool.drain()
            case 2:
                pool.pause()
            case 3 | 4:
                pool.resume()
            case 5:
                await pool.check()
            case 6:
                for slot in pool._core.idle:
                    slot.conn.end()
            case 7:
                driver.heal()
            case 8 if random.random() < 0.2:
                await pool.close(1.0)
            case _:
                stages: tuple[Stage, ...] = ("connect", "alive", "configure", "reset", "close")
                driver.outcomes[random.choice(stages)] = random.choice(list(Outcome))
