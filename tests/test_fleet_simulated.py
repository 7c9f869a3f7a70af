"""A whole fleet in virtual time, under whatever may strike it: the line is never crossed, and nearly all of it is used.

What is promised, and held to here: as long as no more ask to join at once than the room is kept for
(one a machine: `gate`), the server never has more connections than the budget, and what all members may open without
asking, or have, is never more than that either. See `fleet.shares`.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import pytest

from penstock import Fleet
from penstock.fleet.shares import most_room
from support import virtual
from support.fleet import World, simulated
from support.virtual import VirtualLoop

SEEDS = range(5)
CHANGE = 10.0  # seconds after a change until nearly all of the budget is in use


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "penstock")


def simulate(main: Callable[[World], Coroutine[Any, Any, None]], seed: int, fleet: Fleet, strict: bool = True) -> World:
    """Run *main* in a world of its own; the line is looked at with each change that the server sees."""

    async def scenario(loop: VirtualLoop) -> World:
        random = Random(seed)
        with simulated(loop, random):
            world = World(loop, random, fleet, strict)
            await main(world)
            world.check()
            if world.broken is not None:
                raise world.broken
            for process in world.alive:
                process.rest()
                process.heal()
                await process.pool.close(1.0)
            return world

    return virtual.run(scenario, seed)


async def settle(world: World, seconds: float = CHANGE) -> None:
    """After so long nearly all that the room for joiners leaves is in use, on average over a few seconds."""
    await asyncio.sleep(seconds)
    samples = []
    for _ in range(50):
        samples.append(world.in_use)
        await asyncio.sleep(0.1)
    left = world.fleet.budget - most_room(world.fleet.budget)
    assert sum(samples) / len(samples) >= 0.9 * left, (samples, world.server.rows(0))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_storm_of_joiners_never_crosses_the_line(seed: int) -> None:
    """Twenty processes of one machine at the same moment: in time each has a place, and all work."""

    async def main(world: World) -> None:
        for _ in range(20):
            await world.join(workers=6)
        await settle(world)
        assert all(process.member.share >= 1 for process in world.processes)

    world = simulate(main, seed, Fleet(40, members=20))
    assert world.server.peak <= 40


@pytest.mark.parametrize("seed", SEEDS)
def test_who_comes_to_a_full_fleet_waits_for_room(seed: int) -> None:
    """Many at once, when all of the budget is in use: each has its place in time, and the line is not crossed."""

    async def main(world: World) -> None:
        for _ in range(3):
            await world.join(workers=20)
        await settle(world)
        for _ in range(12):
            await world.join(workers=4)
        await settle(world, 3 * CHANGE)
        assert all(process.member.share >= 1 for process in world.processes)

    simulate(main, seed, Fleet(20, members=15))


@pytest.mark.parametrize("seed", range(20))
def test_all_reach_for_the_same_room_at_the_same_moment(seed: int) -> None:
    """Each says first and looks then: who sees that it is too much takes it back before it opens anything."""

    async def main(world: World) -> None:
        for _ in range(3):
            await world.join(workers=0)
        await asyncio.sleep(3 * CHANGE)
        world.processes[0].kill()
        for process in world.alive:
            process.work(30, seconds=0.05)
        await asyncio.sleep(0.3)
        for process in world.alive:  # each needs much, and neither knows that of the other yet
            process.member._hurry()
        await settle(world)

    simulate(main, seed, Fleet(40, members=3))


@pytest.mark.parametrize("seed", range(20))
def test_a_claim_that_was_lost_is_another_s_and_not_taken_up_again(seed: int) -> None:
    """Somebody says RESET ALL: until that member looks again, it has what it has, and others take the rest."""

    async def main(world: World) -> None:
        first = await world.join(workers=0)
        await asyncio.sleep(CHANGE)
        assert first.member.share >= 10
        first.reset_names()
        second = await world.join(workers=20)
        for _ in range(6):
            second.member._hurry()
            await asyncio.sleep(0.2)
        first.work(20, seconds=0.05)
        await asyncio.sleep(2 * CHANGE)
        assert first.member.share >= 4

    simulate(main, seed, Fleet(20, members=2))


@pytest.mark.parametrize("seed", range(12))
def test_members_come_and_go_and_the_line_holds(seed: int) -> None:
    """Kills, joins, sleeps and partitions of any length at any moment."""

    async def main(world: World) -> None:
        random = world.random
        for _ in range(6):
            await world.join(workers=8, seconds=0.1)
        await asyncio.sleep(3)
        for _ in range(15):
            await world_event(world, random)
            await asyncio.sleep(random.choice((0.0, 0.01, 0.3, 2.0, 7.0)))
        for process in world.alive:
            process.heal()
            process.rest()
            process.work(20, seconds=0.3)
        await settle(world)
        assert all(process.member.share >= 1 for process in world.alive)

    simulate(main, seed, Fleet(60))


async def world_event(world: World, random: Random) -> None:
    process = random.choice(world.alive)
    match random.randrange(7):
        case 0 | 1 if len(world.alive) < 12:
            await world.join(workers=8, seconds=0.1)
        case 2 if len(world.alive) > 3:
            process.kill()
        case 3:
            process.cut()
            world.loop.call_later(random.choice((0.5, 5.0, 11.0, 15.9, 17.0, 40.0)), process.heal)
        case 4:
            process.cut(asleep=True)
            world.loop.call_later(random.choice((0.5, 5.0, 11.0, 60.0)), process.heal)
        case 5:
            process.rest()
        case _:
            process.rest()
            process.work(random.choice((1, 8, 20)), seconds=0.1)
