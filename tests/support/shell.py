"""A shell that does nothing of its own accord: it books what the core asks for, and the test says what happens when.

It knows who owns what from the outside, by what it was told, and holds the core to it: no slot owned twice, nobody
served before who came first.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

from penstock.core import Close, Core, Doubt, Empty, Full, Open, Reason, Settings, Slot, State, Waiter, Wake

from .invariants import Broken, Invariants, check_at_rest

REFUSED = ConnectionRefusedError("connection refused")


MOST_TURNS = 10_000  # until it is at rest: far more than any schedule needs


class Shell:
    """Each method is one event. After each, the effects are booked and the invariants checked.

    :ivar queue: who waits, in the order in which those alike in what they ask for must be served.
    :ivar served: waiters that own a slot and have not been told of it yet.
    :ivar held: who holds which slot.
    """

    def __init__(self, settings: Settings, random: Callable[[], float] = lambda: 0.5) -> None:
        self.core = Core(settings, random)
        self.now = 0.0
        self.wake_at = math.inf
        self.to_open: list[Slot] = []
        self.to_close: list[Slot] = []
        self.suspects: list[Slot] = []
        self.held: dict[Slot, Any] = {}
        self.queue: list[Waiter] = []
        self.served: list[Waiter] = []
        self.asked = 0
        self.filling = False
        self.full = False
        self.empty = False
        self._doubts = False
        self._stuck: list[Slot] = []
        self._wakes_now = 0
        self._invariants = Invariants(self.core)

    def event(self, event: Callable[..., Any], *args: Any, **options: Any) -> None:
        event(*args, now=self.now, **options)
        self.book()

    # ------------------------------------------------------------------------------------------ borrowers

    def take(self, owner: Any) -> Slot | None:
        self.asked += 1
        slot = self.core.take(owner, None, -1, self.now)
        if slot is None:
            self.asked -= 1
            return None
        if self.queue:
            raise Broken(f"3: {owner} was served before {len(self.queue)} who wait")
        self.own(slot, owner)
        self.book()
        return slot

    def acquire(self, owner: Any, patience: float = math.inf, **wish: Any) -> Waiter:
        """*wish*: priority, declared, key."""
        self.asked += 1
        declared = wish.pop("declared", False)
        until = self.now + patience if declared else math.inf
        waiter = Waiter(owner, None, -1, self.now, self.now + patience, until=until, **wish)
        self.queue.append(waiter)
        self.event(self.core.acquire, waiter)
        return waiter

    def collect(self, waiter: Waiter) -> Slot:
        """The waiter wakes and finds what it was served."""
        self.served.remove(waiter)
        assert waiter.slot is not None
        self.own(waiter.slot, waiter.owner)
        return waiter.slot

    def cancel(self, waiter: Waiter) -> None:
        """The waiter goes away, served or not."""
        if waiter in self.served:
            self.served.remove(waiter)
        else:
            self.queue.remove(waiter)
        self.event(self.core.cancel, waiter)

    def expire_due(self) -> None:
        for waiter in [waiter for waiter in self.queue if waiter.deadline <= self.now]:
            self.event(self.core.expire, waiter)

    def give(self, slot: Slot) -> None:
        del self.held[slot]
        if not self.core.give(slot, self.now):
            self.core.requite(slot, now=self.now)
        self.book()

    def discard(self, slot: Slot, reason: Reason, error: BaseException | None = None) -> None:
        del self.held[slot]
        self.event(self.core.discard, slot, reason, error=error)

    def reject(self, slot: Slot, reason: Reason, error: BaseException | None = None) -> None:
        """What was handed out turned out to be no good: its borrower comes again, before all others."""
        owner = self.held.pop(slot)
        self.event(self.core.reject, slot, reason, error=error)
        waiter = Waiter(owner, None, -1, self.now, math.inf)
        self.queue.insert(0, waiter)
        self.event(self.core.acquire, waiter, again=True)

    # ------------------------------------------------------------------------------------------ connections

    def opened(self, slot: Slot) -> None:
        self.to_open.remove(slot)
        self.event(self.core.opened_slot, slot)

    def failed(self, slot: Slot, hung: bool = False) -> None:
        self.to_open.remove(slot)
        self.event(self.core.failed, slot, TimeoutError("silence") if hung else REFUSED, hung=hung)

    def closed(self, slot: Slot) -> None:
        self.to_close.remove(slot)
        self.event(self.core.closed_slot, slot)

    def absolve(self, slot: Slot) -> None:
        """A suspect has answered."""
        self.suspects.remove(slot)
        self.event(self.core.requite, slot)

    def convict(self, slot: Slot) -> None:
        self.suspects.remove(slot)
        self.event(self.core.reject, slot, Reason.DEAD)

    # ------------------------------------------------------------------------------------------ time

    def pass_time(self, seconds: float) -> None:
        """Time passes; whatever the core wanted to be woken for happens on its way."""
        end = self.now + seconds
        while self.wake_at <= end:
            self.wake()
        self.now = end
        self.expire_due()

    def wake(self) -> None:
        """Jump to the time that the core has asked to be woken at."""
        self._wakes_now = self._wakes_now + 1 if self.wake_at <= self.now else 0
        if self._wakes_now > 100:
            raise Broken(f"the core has itself woken at {self.now} again and again")
        self.now = max(self.now, self.wake_at)
        self.wake_at = math.inf
        self.expire_due()
        due = self.core.tick(self.now)
        self.book()
        self.wake_at = min(self.wake_at, due)

    def close(self) -> None:
        self.event(self.core.close)

    def fill(self) -> None:
        """Somebody waits until the pool is full."""
        self.filling, self.full = True, self.core.fill()
        self.check()

    # ------------------------------------------------------------------------------------------ books

    def own(self, slot: Slot, owner: Any) -> None:
        if slot in self.held:
            raise Broken(f"2: {slot!r} is lent to {owner} while {self.held[slot]} holds it")
        self.held[slot] = owner

    def book(self) -> None:
        self.note_effects()
        self.check()

    def note_effects(self) -> None:
        for effect in self.core.effects():
            if isinstance(effect, Waiter):
                self._settled(effect)
            elif isinstance(effect, Open):
                self.to_open.append(effect.slot)
            elif isinstance(effect, Close):
                self.to_close.append(effect.slot)
            elif isinstance(effect, Wake):
                self.wake_at = min(self.wake_at, effect.at)
            elif isinstance(effect, Doubt):
                self._doubts = True
            elif isinstance(effect, Full):
                self.full = True
            elif isinstance(effect, Empty):
                self.empty = True
        if self._doubts:
            self._doubts = False
            self.suspects.extend(self.core.doubt())

    def _settled(self, waiter: Waiter) -> None:
        if waiter.slot is not None:
            first = next(other for other in self.queue if _alike(other, waiter))
            # Of those with deadlines the newest comes first, while a backlog is worked off.
            if first is not waiter and not waiter.declared:
                raise Broken(f"3: {waiter.owner} was served, {first.owner} came first")
            self.served.append(waiter)
        elif waiter.refusal is None:
            raise Broken("a waiter was woken for nothing")
        self.queue.remove(waiter)

    def check(self) -> None:
        self._invariants.check()
        if len(self.core.waiters) != len(self.queue) or set(self.core.waiters) != set(self.queue):
            raise Broken(f"3: {len(self.core.waiters)} wait in the core, {len(self.queue)} outside")
        leased = {slot for slot in self.core.slots.values() if slot.state is State.LEASED}
        owned = [*self.held, *self.suspects, *(waiter.slot for waiter in self.served)]
        if len(owned) != len(leased) or set(owned) != leased:
            raise Broken(f"2: {leased} are leased, {owned} are held")
        if set(self.to_open) != set(self.core.opening.values()):
            raise Broken(f"2: {self.core.opening} are opening, {self.to_open} were asked for")
        if len(self.to_close) != self.core.closing:
            raise Broken(f"2: {self.core.closing} are closing, {self.to_close} were asked for")

    # ------------------------------------------------------------------------------------------ the end

    def come_to_rest(self, stuck: Iterable[Slot] = ()) -> None:
        """Everybody gives back, the database is well, time passes: whoever waits is served, and nothing was lost.

        *stuck*: attempts to connect that hang, and must keep nobody from being served, or refused, without them.
        """
        core = self.core
        if core.paused:
            self.event(core.resume)
        if not core.closed:
            self.event(core.refill if core.opened else core.open)
        self.pass_time(0.0)
        self._stuck = [*stuck]
        if len(self._stuck) < core.max_size:
            self._settle()
        self._stuck.clear()
        self._settle()
        check_at_rest(core)
        if core.closed and not self.empty:
            raise Broken("a closed pool has not said that all has come back")
        if self.filling and not self.full and not core.closed:
            raise Broken("a full pool has not said so to who waits for that")

    def _settle(self) -> None:
        start, turns = self.now, 0
        while self._let_all_happen() or self.queue or self._below_minimum():
            turns += 1
            if turns > MOST_TURNS:
                raise Broken("it does not come to rest")
            if not self._under_way():
                self._jump(start + 30.0 + 2 * self.core.pace.patience)

    def _jump(self, patience: float) -> None:
        """To the next moment at which anything happens by itself."""
        if not self.queue and not self._below_minimum():
            return
        deadline = min((waiter.deadline for waiter in self.queue), default=math.inf)
        if min(self.wake_at, deadline) > patience:
            raise Broken(f"nothing lost: {len(self.queue)} wait for ever, {len(self.core.slots)} connections")
        if self.wake_at <= deadline:
            self.wake()
        else:
            self.now = deadline
            self.expire_due()

    def _under_way(self) -> bool:
        return bool(self._ready_to_open() or self.to_close or self.suspects or self.served or self.held)

    def _ready_to_open(self) -> list[Slot]:
        return [slot for slot in self.to_open if slot not in self._stuck]

    def _let_all_happen(self) -> bool:
        happened = self._under_way()
        for slot in self._ready_to_open():
            self.opened(slot)
        for slot in list(self.to_close):
            self.closed(slot)
        for slot in list(self.suspects):
            self.absolve(slot)
        for waiter in list(self.served):
            self.collect(waiter)
        for slot in list(self.held):
            self.give(slot)
        return happened

    def _below_minimum(self) -> bool:
        core = self.core
        if self._stuck and core.pace.gave_up:  # nobody asks, and nothing has answered
            return False
        return core.opened and not core.closed and len(core.slots) < core.min_size


def _alike(one: Waiter, other: Waiter) -> bool:
    """Whether who comes first of the two is to be served first."""
    return (one.priority, one.declared, one.key) == (other.priority, other.declared, other.key)
