"""Random schedules: whatever may happen happens, in any order, and after every step the invariants hold.

PENSTOCK_SCHEDULES says how many (25,000 otherwise). A schedule that fails prints its seed;
``PENSTOCK_SEED=core:123`` (or ``sharing:123``, ``asyncio:123``) replays exactly that one.
"""

import logging
import math
import os
import secrets
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from random import Random
from typing import Any

import pytest

from penstock.core import SLOW, Overload, Priority, Reason, Settings, Slot, Waiter
from support import borrowers
from support.invariants import Broken
from support.shell import Shell

SCHEDULES = int(os.environ.get("PENSTOCK_SCHEDULES", "25000"))
PARTS = {"core": 0.4, "sharing": 0.4, "asyncio": 0.2}
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
    run_many("core", core_schedule, capsys)


def test_core_keeps_its_invariants_while_connections_are_shared(capsys: pytest.CaptureFixture[str]) -> None:
    """The same across those who want a connection for themselves and those who share one.

    Who wants one is not overtaken by who shares, and no key ends with a share that nobody holds.
    """
    run_many("sharing", sharing_schedule, capsys)


def test_asyncio_keeps_its_invariants_in_random_schedules(capsys: pytest.CaptureFixture[str]) -> None:
    """The same of the asyncio shell, with tasks cancelled wherever they stand; and no acquire is late."""
    run_many("asyncio", borrowers.schedule, capsys)


def run_many(kind: str, schedule: Callable[[int], object], capsys: pytest.CaptureFixture[str]) -> None:
    if REPLAY:
        which, _, number = REPLAY.partition(":")
        if which != kind:
            pytest.skip(f"PENSTOCK_SEED={REPLAY} is not for this one")
        schedule(int(number))
        return
    first, count = secrets.randbits(32), round(SCHEDULES * PARTS[kind])
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
    play(Shell(some_settings(random), random.random), random, DEEDS_OF_AN_OPEN_POOL)


def sharing_schedule(seed: int) -> None:
    """Of half of the deeds, so that one schedule loses many connections and another one none."""
    random = Random(seed)
    shell = SharingShell(some_settings(random), random.random)
    deeds = DEEDS_OF_AN_OPEN_POOL + DEEDS_OF_SHARING
    kinds = list(dict.fromkeys(deeds))
    some = {opened, ask_to_share, share, *random.sample(kinds, len(kinds) // 2)}
    play(shell, random, [deed for deed in deeds if deed in some], steps=3 * STEPS)


def some_settings(random: Random) -> Settings:
    minimum = random.randrange(4)
    reserve = random.choice((0, 0, 0, 1))
    return Settings(
        min_size=minimum,
        max_size=max(1 + reserve, minimum + random.randrange(4)),
        max_waiting=random.choice((0, 0, 3)),
        max_lifetime=random.choice((3.0, 3600.0)),
        max_idle=random.choice((0.0, 1.0, 600.0)),
        reconnect_timeout=random.choice((0.0, 1.0, 300.0)),
        connect_timeout=random.choice((0.5, 5.0)),
        overload=random.choice((None, None, Overload(), Overload(target=0.01, interval=0.1))),
        reserve=reserve,
        max_per_key=random.choice((None, None, None, 1, 2)),
        max_opening=random.choice((None, None, 1, 2)),
    )


def play(shell: Shell, random: Random, deeds: list[Callable[[Any, Random], None]], steps: int = STEPS) -> None:
    if random.random() < 0.98:
        shell.event(shell.core.open)
    if random.random() < 0.2:
        deeds = [*deeds, close]
    for _ in range(random.randrange(5, steps)):
        random.choice(deeds)(shell, random)
    shell.come_to_rest(stuck=shell.to_open[: random.randrange(3)])
    assert shell.core.requests == shell.asked


SHARERS = "those who share it"


class SharingShell(Shell):
    """Lends connections to several at once, as `penstock.multiplex` does, and each slow one to one alone.

    :ivar shared: who is on each of these, in order; None for those who never waited, or have gone meanwhile.
    :ivar leaving: who was answered, or lost, and has not said yet that it is done.
    """

    def __init__(self, settings: Settings, random: Callable[[], float] = lambda: 0.5) -> None:
        self.shared: dict[Slot, list[Waiter | None]] = {}
        self.leaving: list[Waiter] = []
        self._alone: set[Slot] = set()
        self._lent: dict[Slot, float] = {}
        self._random = random
        super().__init__(settings, random)

    def open_to_others(self) -> list[Slot]:
        return [slot for slot in self.shared if slot not in self._alone]

    # ------------------------------------------------------------------------------------------ coming

    def ask_to_share(self, owner: Any, patience: float = math.inf, **wish: Any) -> Waiter:
        """*wish*: priority, declared, key."""
        until = self.now + patience if wish.pop("declared", False) else math.inf
        waiter = Waiter(owner, None, -1, self.now, self.now + patience, until=until, **wish)
        waiter.shares = True
        self.asked += 1
        self.queue.append(waiter)
        if not any(self._share_at_once(waiter, slot) for slot in self.open_to_others()):
            self.event(self.core.acquire, waiter)
        return waiter

    def _share_at_once(self, waiter: Waiter, slot: Slot) -> bool:
        shares = self._random() < 0.5 and self.core.share_at_once(waiter, slot, self.now)
        self.note_effects()
        return shares

    def begin(self) -> None:
        """Somebody takes a connection without waiting, for others to join."""
        slot = self.take(SHARERS)
        if slot is not None:
            self._begin(slot, None)

    def join(self, slot: Slot) -> None:
        """Somebody shares a connection without asking the core, as is right while nobody waits."""
        if not self.core._rush:
            self.asked += 1
            self.shared[slot].append(None)

    def share(self, slot: Slot) -> bool:
        before = len(self.shared[slot])
        shared = self.core.share(slot, self.now)
        self.book()
        if len(self.shared[slot]) - before != shared:
            raise Broken(f"2: share said {shared}, and {self.shared[slot][before:]} came")
        if shared and (self.core.paused or self.core.closed or self.core.breaker.sick or self.now >= slot.expires):
            raise Broken(f"7: {slot!r} went on being shared, which should have come back")
        return shared

    def collect(self, waiter: Waiter) -> Slot:
        slot = super().collect(waiter)
        if waiter.shares or waiter.key is SLOW:
            self._begin(slot, waiter)
        return slot

    def find_unfit(self, waiter: Waiter, reason: Reason) -> None:
        """Who is to begin finds the connection no good."""
        slot = waiter.slot
        assert slot is not None
        self.served.remove(waiter)
        self.leaving.append(waiter)
        self.event(self.core.reject, slot, reason)
        self.leave(waiter)
        self.queue.insert(0, waiter)
        self.event(self.core.acquire, waiter, again=True)

    def cancel(self, waiter: Waiter) -> None:
        slot = waiter.slot
        if slot is None or not waiter.shares:
            super().cancel(waiter)
            return
        self.served.remove(waiter)
        self.held[slot] = SHARERS
        self.asked -= 1  # it was neither served nor refused
        self.event(self.core.parted, waiter)
        del self.held[slot]
        self.event(self.core.unused, slot)

    def _begin(self, slot: Slot, waiter: Waiter | None) -> None:
        self.held[slot] = slot.owner = SHARERS
        self.shared[slot] = [waiter]
        self._lent[slot] = slot.since
        if waiter is None or waiter.shares:
            self.core.lend_to_many(slot)
        else:
            self._alone.add(slot)

    # ------------------------------------------------------------------------------------------ going

    def answered(self, slot: Slot, count: int) -> None:
        """The first *count* are."""
        sharers = self.shared[slot]
        self.leaving += filter(None, sharers[:count])
        del sharers[:count]
        if slot not in self._alone:
            self.event(self.core.shared, slot, count, self._lent[slot])

    def leave(self, waiter: Waiter) -> None:
        self.leaving.remove(waiter)
        self.event(self.core.parted, waiter)

    def go(self, slot: Slot, place: int) -> None:
        """One goes away before the answer has come."""
        waiter, self.shared[slot][place] = self.shared[slot][place], None
        self.event(self.core.parted, waiter)

    def hold_up(self, slot: Slot) -> None:
        """The one that runs there takes its time, or does no more."""
        if slot.tenant is None:
            self.core.held_up(slot)
            self.check()
        else:
            self.event(self.core.goes_on, slot)

    def end(self, slot: Slot, reason: Reason | None = None) -> None:
        """Nobody shares it any more."""
        self._forget(slot)
        if reason is None:
            self.event(self.core.requite, slot)
        else:
            self.event(self.core.discard, slot, reason)

    def lose(self, slot: Slot, again: int) -> None:
        """It is lost with all who share it; *again*: so many of them come again, before all others."""
        if slot not in self._alone:
            self.asked -= len(self.shared[slot])  # they are neither served nor refused
        sharers = self._forget(slot)
        self.leaving += filter(None, sharers)
        self.event(self.core.discard, slot, Reason.BROKEN, error=ConnectionResetError("lost"))
        for waiter in filter(None, sharers[:again]):
            self.leave(waiter)
            anew = Waiter(None, None, -1, self.now, math.inf)
            anew.shares = True
            self.asked += 1
            self.queue.insert(0, anew)
            self.event(self.core.acquire, anew, again=True)

    def give(self, slot: Slot) -> None:
        if slot not in self.shared:
            super().give(slot)
            return
        if sharers := len(self.shared[slot]):
            self.answered(slot, sharers)
        self.end(slot)

    def _forget(self, slot: Slot) -> list[Waiter | None]:
        del self.held[slot]
        self._alone.discard(slot)
        del self._lent[slot]
        return self.shared.pop(slot)

    # ------------------------------------------------------------------------------------------ books

    def _settled(self, waiter: Waiter) -> None:
        earlier = self.queue[: self.queue.index(waiter)]
        if waiter.ticket == -1 and waiter.key is None:  # they come first, in any order
            self.queue.remove(waiter)
            self.queue.insert(0, waiter)
        super()._settled(waiter)
        slot = waiter.slot
        if slot is None:
            return
        self._check_turn(waiter, earlier)
        self._check_share(waiter)
        if slot in self.shared:
            if slot in self._alone:
                raise Broken(f"2: {slot!r} is shared, and one has it alone")
            self.served.remove(waiter)
            self.shared[slot].append(waiter)

    def _check_turn(self, waiter: Waiter, earlier: list[Waiter]) -> None:
        """Who came back because of a `max_per_key` may come first: it stood at the head before."""
        if waiter.declared or waiter.key not in (None, SLOW):
            return
        for other in earlier:
            ready = not other.aside and not other.declared and other.priority == waiter.priority
            again = other.ticket == -1
            if ready and not again and other.key is None and not (other.shares and waiter.shares):
                raise Broken(f"3: {waiter.owner} ({waiter.key}) was served, {other.owner} came first")

    def _check_share(self, waiter: Waiter) -> None:
        """Just served, it has no more than it may: a key's share, and the slow all but one."""
        core = self.core
        most = max(1, core.max_size - 1) if waiter.key is SLOW else core.max_per_key
        if waiter.key is not None and most is not None and core._tenants[waiter.key] > most:
            raise Broken(f"2: {waiter.key} has {core._tenants[waiter.key]} of {core.max_size} connections")

    def check(self) -> None:
        super().check()
        shares = Counter[Hashable](slot.tenant for slot in self.core.leases() if slot.tenant is not None)
        sharers = [*self.served, *self.leaving, *(one for some in self.shared.values() for one in some)]
        for waiter in filter(None, sharers):
            if waiter.shares and waiter.key is not None and self.core.share_of(waiter.key) is not None:
                shares[waiter.key] += 1
        if shares != self.core._tenants:
            raise Broken(f"2: keys have {dict(self.core._tenants)}, as counted, and {dict(shares)} in truth")

    # ------------------------------------------------------------------------------------------ the end

    def _under_way(self) -> bool:
        return bool(self.leaving) or super()._under_way()

    def _let_all_happen(self) -> bool:
        happened = bool(self.leaving)
        for waiter in list(self.leaving):
            self.leave(waiter)
        return super()._let_all_happen() or happened


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
    """One that somebody has for themselves."""
    slots = [slot for slot, owner in shell.held.items() if owner is not SHARERS]
    return random.choice(slots) if slots else None


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


def ask_to_share(shell: "SharingShell", random: Random) -> None:
    shell.ask_to_share(one_of(shell, random), random.choice((0.0, 0.01, 1.0, 1000.0)))


def wish_to_share(shell: "SharingShell", random: Random) -> None:
    shell.ask_to_share(
        one_of(shell, random),
        random.choice((0.0, 0.01, 1.0, 1000.0)),
        priority=random.choice(list(Priority)),
        declared=random.random() < 0.5,
        key=random.choice((None, "a", "a", "b")),
    )


def ask_slow(shell: "SharingShell", random: Random) -> None:
    shell.acquire(
        one_of(shell, random),
        random.choice((0.01, 1.0, 1000.0)),
        priority=random.choice((Priority.NORMAL, Priority.NORMAL, Priority.HIGH, Priority.LOW)),
        declared=random.random() < 0.2,
        key=SLOW,
    )


def begin(shell: "SharingShell", random: Random) -> None:
    shell.begin()


def join(shell: "SharingShell", random: Random) -> None:
    if slots := shell.open_to_others():
        slot = random.choice(slots)
        for _ in range(random.choice((1, 1, 12))):
            shell.join(slot)


def share(shell: "SharingShell", random: Random) -> None:
    if slots := shell.open_to_others():
        slot = random.choice(slots)
        while shell.share(slot) and random.random() < 0.7:
            pass


def answered(shell: "SharingShell", random: Random) -> None:
    if slots := [slot for slot, sharers in shell.shared.items() if sharers]:
        slot = random.choice(slots)
        shell.answered(slot, random.choice((1, 1, len(shell.shared[slot]))))


def leave(shell: "SharingShell", random: Random) -> None:
    if shell.leaving:
        shell.leave(random.choice(shell.leaving))


def go(shell: "SharingShell", random: Random) -> None:
    if places := [(slot, i) for slot, sharers in shell.shared.items() for i, one in enumerate(sharers) if one]:
        shell.go(*random.choice(places))


def end(shell: "SharingShell", random: Random) -> None:
    if slots := [slot for slot, sharers in shell.shared.items() if not sharers]:
        shell.end(random.choice(slots), random.choice((None, None, None, Reason.UNCLEAN, Reason.READ_ONLY)))


def hold_up(shell: "SharingShell", random: Random) -> None:
    if slots := shell.open_to_others():
        shell.hold_up(random.choice(slots))


def lose(shell: "SharingShell", random: Random) -> None:
    if shell.shared:
        shell.lose(random.choice(list(shell.shared)), again=random.choice((0, 0, 1, 3)))


def find_unfit(shell: "SharingShell", random: Random) -> None:
    if waiters := [waiter for waiter in shell.served if waiter.shares]:
        shell.find_unfit(random.choice(waiters), random.choice((Reason.DEAD, Reason.CHECK_FAILED)))


# Each as often as it stands here.
DEEDS_OF_AN_OPEN_POOL: list[Callable[[Any, Random], None]] = [
    *[take, take, take, acquire, acquire, acquire, wish, wish, collect, collect, collect],
    *[give, give, give, give, give, discard, discard, reject, cancel, cancel],
    *[opened, opened, opened, opened, failed, closed, closed, answer, answer, pass_time, pass_time, pass_time],
    *[resize, drain, pause, resume, resume, fill],
]
DEEDS_OF_SHARING: list[Callable[[Any, Random], None]] = [
    *[ask_to_share, ask_to_share, ask_to_share, ask_to_share, wish_to_share, wish_to_share, ask_slow, ask_slow],
    *[begin, begin, join, join, share, share, share, share, collect, collect],
    *[answered, answered, answered, answered, leave, leave, leave, end, end, end, end, give, give],
    *[go, go, lose, find_unfit, hold_up, hold_up],
]
