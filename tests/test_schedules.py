"""Random schedules: whatever may happen happens, in any order, and after every step the invariants hold.

PENSTOCK_SCHEDULES says how many (25,000 otherwise). A schedule that fails prints its seed;
``PENSTOCK_SEED=core:123`` (or ``asyncio:123``) replays exactly that one.
"""

import logging
import os
import secrets
import warnings
from collections.abc import Callable, Iterator
from random import Random

import pytest

from penstock.core import Overload, Priority, Reason, Settings, Slot
from support import borrowers
from support.shell import Shell

SCHEDULES = int(os.environ.get("PENSTOCK_SCHEDULES", "25000"))
SHARE_OF_CORE = 0.8
REPLAY = os.environ.get("PENSTOCK_SEED", "")
STEPS = 60


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A hundred thousand warnings that all is as bad as it was made tell nobody anything."""
    caplog.set_level(logging.CRITICAL, "penstock")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield


def test_core_keeps_its_invariants_in_random_schedules(capsys: pytest.CaptureFixture[str]) -> None:
    """Invariants 1 to 3 after each event, and nothing lost at the end, whatever the outside world does."""
    run_many("core", core_schedule, round(SCHEDULES * SHARE_OF_CORE), capsys)


def test_asyncio_keeps_its_invariants_in_random_schedules(capsys: pytest.CaptureFixture[str]) -> None:
    """The same of the asyncio shell, with tasks cancelled wherever they stand; and no acquire is late."""
    run_many("asyncio", borrowers.schedule, round(SCHEDULES * (1 - SHARE_OF_CORE)), capsys)


def run_many(kind: str, schedule: Callable[[int], object], count: int, capsys: pytest.CaptureFixture[str]) -> None:
    if REPLAY:
        which, _, number = REPLAY.partition(":")
        if which != kind:
            pytest.skip(f"PENSTOCK_SEED={REPLAY} is not for this one")
        schedule(int(number))
        return
    first = secrets.randbits(32)
    for seed in range(first, first + count):
        try:
            schedule(seed)
        except BaseException:
            with capsys.disabled():
                print(f"\nreplay with: PENSTOCK_SEED={kind}:{seed}")
            raise
    with capsys.disabled():
        print(f"\n{kind}: {count} random schedules, seeds from {first}")


def core_schedule(seed: int) -> None:
    random = Random(seed)
    minimum = random.randrange(4)
    reserve = random.choice((0, 0, 0, 1))
    maximum = max(1 + reserve, minimum + random.randrange(4))
    shell = Shell(
        Settings(
            min_size=minimum,
            max_size=maximum,
            max_waiting=random.choice((0, 0, 3)),
            max_lifetime=random.choice((3.0, 3600.0)),
            max_idle=random.choice((1.0, 600.0)),
            reconnect_timeout=random.choice((0.0, 1.0, 300.0)),
            connect_timeout=random.choice((0.5, 5.0)),
            overload=random.choice((None, None, Overload(), Overload(target=0.01, interval=0.1))),
            reserve=reserve,
            max_per_key=random.choice((None, None, None, 1, 2)),
        ),
        random.random,
    )
    if random.random() < 0.98:
        shell.event(shell.core.open)
    deeds = DEEDS if random.random() < 0.2 else DEEDS_OF_AN_OPEN_POOL
    for _ in range(random.randrange(5, STEPS)):
        random.choice(deeds)(shell, random)
    shell.come_to_rest(stuck=shell.to_open[: random.randrange(3)])
    assert shell.core.requests == shell.asked


def one_of(shell: Shell, random: Random) -> int:
    """An owner; few, so that one often asks for a second connection."""
    return random.randrange(8)


def take(shell: Shell, random: Random) -> None:
    shell.take(one_of(shell, random))


def acquire(shell: Shell, random: Random) -> None:
    shell.acquire(one_of(shell, random), random.choice((0.0, 0.01, 1.0, 1000.0)))


def wish(shell: Shell, random: Random) -> None:
    """To be served before or after others, in time, as one of a few."""
    shell.acquire(
        one_of(shell, random),
        random.choice((0.0, 0.01, 1.0, 1000.0)),
        priority=random.choice(list(Priority)),
        declared=random.random() < 0.5,
        key=random.choice((None, "a", "a", "b")),
    )


def collect(shell: Shell, random: Random) -> None:
    if shell.served:
        shell.collect(random.choice(shell.served))


def cancel(shell: Shell, random: Random) -> None:
    if waiters := shell.queue + shell.served:
        shell.cancel(random.choice(waiters))


def give(shell: Shell, random: Random) -> None:
    if slot := held(shell, random):
        shell.give(slot)


def discard(shell: Shell, random: Random) -> None:
    if slot := held(shell, random):
        reason = random.choice((Reason.BROKEN, Reason.UNCLEAN, Reason.DROPPED, Reason.BUSY, Reason.READ_ONLY))
        lost = reason is Reason.BROKEN and random.random() < 0.7
        shell.discard(slot, reason, ConnectionResetError("lost") if lost else None)


def reject(shell: Shell, random: Random) -> None:
    if slot := held(shell, random):
        if random.random() < 0.5:
            shell.reject(slot, Reason.DEAD)
        else:
            shell.reject(slot, Reason.CHECK_FAILED, random.choice((None, ValueError("bad"))))


def held(shell: Shell, random: Random) -> Slot | None:
    return random.choice(list(shell.held)) if shell.held else None


def opened(shell: Shell, random: Random) -> None:
    if shell.to_open:
        shell.opened(random.choice(shell.to_open))


def failed(shell: Shell, random: Random) -> None:
    if shell.to_open:
        shell.failed(random.choice(shell.to_open), hung=random.random() < 0.3)


def closed(shell: Shell, random: Random) -> None:
    if shell.to_close:
        shell.closed(random.choice(shell.to_close))


def answer(shell: Shell, random: Random) -> None:
    if shell.suspects:
        random.choice((shell.absolve, shell.convict))(random.choice(shell.suspects))


def pass_time(shell: Shell, random: Random) -> None:
    shell.pass_time(random.choice((0.0, 0.001, 0.03, 0.3, 2.0, 10.0)))


def resize(shell: Shell, random: Random) -> None:
    minimum = random.randrange(4)
    shell.event(shell.core.resize, minimum, max(1 + shell.core.reserve, minimum + random.randrange(4)))


def drain(shell: Shell, random: Random) -> None:
    shell.event(shell.core.drain)


def pause(shell: Shell, random: Random) -> None:
    shell.core.pause()
    shell.check()


def resume(shell: Shell, random: Random) -> None:
    shell.event(shell.core.resume)


def fill(shell: Shell, random: Random) -> None:
    shell.fill()


def close(shell: Shell, random: Random) -> None:
    shell.close()


# Each as often as it stands here.
DEEDS_OF_AN_OPEN_POOL: list[Callable[[Shell, Random], None]] = [
    *[take, take, take, acquire, acquire, acquire, wish, wish, collect, collect, collect],
    *[give, give, give, give, give, discard, discard, reject, cancel, cancel],
    *[opened, opened, opened, opened, failed, closed, closed, answer, answer, pass_time, pass_time, pass_time],
    *[resize, drain, pause, resume, resume, fill],
]
DEEDS = [*DEEDS_OF_AN_OPEN_POOL, close]
