"""The pool's one state machine. Everything that is decided about a connection is decided here.

Events come in as method calls that carry the time; what is to be done about them goes out as effects. The caller holds
whatever lock the shell needs; nothing here waits, and nothing here raises for what the outside world may do. A broken
invariant of our own raises AssertionError with "bug:".

Two methods may be called without that lock, because every checkout passes through them: `take` and `give`. What makes
that safe is that the interpreter runs one thread at a time and that `list.pop` and `list.append` are each one step:

* A slot that was popped from `idle` belongs to who popped it, so each is taken once, by one thread. All other methods
  claim idle slots in the same way, and accept that one has just gone.
* `give` puts the slot among the idle ones and *then* looks whether somebody waits; `acquire` queues the waiter and
  *then* looks for an idle slot. Whichever comes second sees the other, so nobody waits beside an idle connection. From
  the moment that it is among the idle ones `give` has no right to the slot any more, unless it can claim it back.
* Both write to the slot that they own and to nothing else; totals are kept by slot and added up when asked for.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Hashable
from types import CodeType
from typing import Any

from .admission import LONG, Admission, Forecast
from .breaker import Breaker
from .durations import BOUNDS, BUCKETS, SHORT, Durations, Histogram
from .effects import Close, Doubt, Effect, Empty, Full, GaveUp, Open, Wake
from .pace import RATE, Pace, Verdict
from .queue import Priority, Queue
from .settings import Settings, check_reserve, check_sizes
from .slots import SLOW, Reason, Refusal, Slot, State, Waiter

IDLE, LEASED, OPENING, CLOSING, GONE = State.IDLE, State.LEASED, State.OPENING, State.CLOSING, State.GONE

WAITER_SLACK = 0.005  # seconds by which a deadline may be missed, so that thousands of them are not as many timers
SHARING_PATIENCE = 0.02  # seconds that who waits for room on a shared connection waits before another is opened
LIFETIME_JITTER = 0.1  # share of max_lifetime taken off at random, so that a fleet does not reconnect in one second


class Core:
    """A pool of slots and a queue of waiters.

    :ivar slots: every slot there is, by number: idle, opening, leased or closing. Never more than `max_size`, except
        that after a resize the surplus lives until it is given back.
    :ivar idle: the idle ones, the most recently used last. The most recent is handed out first, so that the rest age.
    :ivar waiters: who waits.
    """

    def __init__(
        self,
        settings: Settings,
        random: Callable[[], float],
        handed_on: Callable[[Collection[Slot]], bool] = lambda _: False,
    ) -> None:
        self._handed_on = handed_on  # whether one of these leases may be ended by somebody other than its owner
        self.min_size = settings.min_size
        self.max_size = settings.max_size
        self.max_waiting = settings.max_waiting
        self.max_lifetime = settings.max_lifetime
        self.connect_timeout = settings.connect_timeout
        self.overload = settings.overload
        self.reserve = settings.reserve
        self.max_per_key = settings.max_per_key
        self.admission = Admission(settings.overload, random)
        self.breaker = Breaker(random)
        self.max_opening = settings.max_opening
        self.pace = Pace(settings.reconnect_timeout, random)
        self._random = random

        self.slots: dict[int, Slot] = {}
        self.idle: list[Slot] = []
        self.waiters = Queue()
        self.opening: dict[int, Slot] = {}
        self.closing = 0
        self.may_grow = False  # its size is a share of something larger, so that no wait is known to be for ever
        self.kept: Slot | None = None  # whose connection goes last where one of several has to go
        self.opened = False
        self.closed = False
        self.paused = False

        # Whether `take` and `give` may not go their short way: somebody waits, or the pool is in an unusual state, that
        # is closed, paused, to be filled, above its size or sick, or has more to ask than whether one is idle, or keeps
        # none that is.
        self._rush = False
        self._unusual = False
        self._filling = False
        self._tenants: Counter[Hashable] = Counter()  # connections that each key has
        self._waiting_owners: dict[Any, int] = {}
        self._numbers = 0
        self._effects: list[Effect] = []

        # Totals since the beginning. Seconds and counts only go up.
        self.queued = 0
        self.waited = 0.0
        self._gone_uses = 0  # by slots that have gone
        self._gone_held = 0.0
        self._gone_lasted = [0] * BUCKETS
        self.waits = Durations()  # of those who had to wait, and were served
        self.creations = Durations()  # of connections
        self.cancelled = 0  # waiters that went away
        self.connects = 0
        self.connect_seconds = 0.0
        self.connect_errors = 0
        self.lost = 0  # found dead while idle
        self.refusals: Counter[Refusal] = Counter()
        self.closes: Counter[Reason] = Counter()
        self.keep_idle(settings.max_idle)

    def settings(self) -> Settings:
        """As they are now."""
        return Settings(
            min_size=self.min_size,
            max_size=self.max_size,
            max_waiting=self.max_waiting,
            max_lifetime=self.max_lifetime,
            max_idle=self.max_idle,
            reconnect_timeout=self.pace.reconnect_timeout,
            connect_timeout=self.connect_timeout,
            overload=self.overload,
            reserve=self.reserve,
            max_per_key=self.max_per_key,
            max_opening=self.max_opening,
        )

    def effects(self) -> list[Effect]:
        """What is to be done, in order; asked for once."""
        effects, self._effects = self._effects, []
        return effects

    @property
    def uses(self) -> int:
        """Leases that have ended."""
        return self._gone_uses + sum(slot.uses for slot in list(self.slots.values()))

    @property
    def held(self) -> float:
        """Seconds that they lasted, all together."""
        return self._gone_held + sum(slot.held for slot in list(self.slots.values()))

    @property
    def lasted(self) -> Histogram:
        """Leases that have ended, by how long they lasted."""
        slots = list(self.slots.values())
        counts = [sum(each) for each in zip(self._gone_lasted, *(slot.lasted for slot in slots), strict=True)]
        counts[0] = max(0, self._gone_uses + sum(slot.uses for slot in slots) - sum(counts))
        return Histogram(tuple(counts), self._gone_held + sum(slot.held for slot in slots))

    @property
    def served(self) -> int:
        """Connections lent, and statements that shared one, as far as they have ended."""
        return self.uses + sum(slot.owner is not None and not slot.shared for slot in self.leases())

    @property
    def requests(self) -> int:
        """Connections asked for, however that ended."""
        return self.served + len(self.waiters) + sum(self.refusals.values()) + self.cancelled

    @property
    def keeps_none(self) -> bool:
        """Whether a connection that comes back, and that nobody waits for, is closed."""
        return self.closed or self.max_idle == 0

    @property
    def leased(self) -> int:
        return len(self.slots) - len(self.idle) - len(self.opening) - self.closing

    def leases(self) -> list[Slot]:
        return [slot for slot in list(self.slots.values()) if slot.state is LEASED]

    # ------------------------------------------------------------------------------------------ taking

    def take(self, owner: Any, code: CodeType | None, lasti: int, now: float) -> Slot | None:
        """An idle connection for *owner*, at once or not at all. Needs no lock.

        Nobody is overtaken: while somebody waits, this serves nobody.
        """
        if self._rush:
            return None
        try:
            slot = self.idle.pop()
        except IndexError:
            return None
        slot.state = LEASED
        slot.owner = owner
        slot.code = code
        slot.lasti = lasti
        slot.since = now
        return slot

    def acquire(self, waiter: Waiter, now: float, again: bool = False) -> None:
        """Serve the waiter, queue it, or refuse it.

        *again*: the connection that it was served turned out to be no good, so it comes first.
        """
        if self.closed or not self.opened:
            return self._refuse(waiter, Refusal.CLOSED if self.closed else Refusal.NOT_OPEN)
        if self.max_waiting and len(self.waiters) >= self.max_waiting and not again:
            return self._refuse(waiter, Refusal.QUEUE_FULL)
        if again and waiter.deadline <= now:
            return self._refuse(waiter, Refusal.TIMEOUT)
        if again:
            waiter.since = now  # its first wait is counted
        if self.breaker.sick and self.breaker.is_open(now, self._trying()):
            return self._refuse(waiter, Refusal.UNAVAILABLE)
        if now >= self.admission.ends:
            self.admission.end_interval(now, list(self.slots.values()), self.waiters)
        self._enqueue(waiter, again, now)
        if self.idle:
            self._serve_idle(now)
            if waiter.settled:
                return None
        if waiter.deadline <= now:
            self._grow(now)  # while it still counts as waiting: what it cannot wait for serves the next
            return self._send_away(waiter, Refusal.TIMEOUT, now)
        if not again:
            easy = self.admission.has_time(waiter, self.waiters.ready, self.max_size, now)
            if not easy and self._is_shed(waiter, now):
                self._grow(now)
                return self._send_away(waiter, Refusal.OVERLOADED, now)
            # Where none is kept, one is opened for it as a matter of course, and it stands in no queue.
            waiter.queues = self.max_idle > 0 or len(self.slots) >= self.max_size
            self.queued += waiter.queues
        if self._deadlocks(waiter):
            return self._send_away(waiter, Refusal.DEADLOCK, now)
        if self.pace.down or self.pace.gave_up:
            self._ask_again(waiter, now)
        if len(self.slots) < self.max_size:
            self._grow(now)
        return None

    def turn_away(self, waiter: Waiter, now: float) -> None:
        """After `admission.comes_late`: the waiter does not join the queue, and nobody need be told."""
        waiter.refusal = Refusal.OVERLOADED
        self.refusals[Refusal.OVERLOADED] += 1

    def expire(self, waiter: Waiter, now: float) -> None:
        """The waiter's deadline has passed. One that was served at the last moment keeps its connection."""
        if waiter.settled:
            return
        overloaded = self.admission.overloaded and self.admission.sheds(waiter)
        if overloaded or waiter.deadline >= waiter.until:
            self._dequeue(waiter, now)
            self._refuse_late(waiter, now)
        else:
            self._send_away(waiter, Refusal.TIMEOUT, now)
        self._serve_idle(now)  # its key's share may serve another

    def cancel(self, waiter: Waiter, now: float) -> None:
        """The waiter has gone away. What it was served in that very moment serves the next."""
        if waiter.slot is not None:
            slot, waiter.slot = waiter.slot, None
            self.cancelled += 1
            self.unused(slot, now)
        elif waiter in self.waiters:
            self._dequeue(waiter, now)
            self.cancelled += 1
            self._serve_idle(now)

    # ------------------------------------------------------------------------------------------ giving back

    def give(self, slot: Slot, now: float) -> bool:
        """A clean connection comes back. Needs no lock. False: call `requite` under the lock, there is more to do."""
        rush, held = self._rush, now - slot.since
        if rush or held > LONG or now >= slot.expires or slot.state is not LEASED:
            return False
        slot.uses += 1
        slot.held += held
        if held > SHORT:
            slot.lasted[bisect_left(BOUNDS, held)] += 1
        slot.since = now
        slot.state = IDLE  # before it is seen among the idle ones, where anybody may take it
        self.idle.append(slot)
        # Who came to wait meanwhile may have looked too early. If somebody has taken the slot by now, that one sees the
        # rush when giving it back.
        if not self._rush or not self._claim_this(slot):
            return True
        slot.state = LEASED
        slot.uses -= 1  # its end is counted by `requite`
        return False

    def requite(self, slot: Slot, now: float) -> None:
        """A clean connection comes back: to the first waiter, to the idle ones, or to its end."""
        if slot.state is not LEASED:
            return  # it was taken back from its holder before
        self._end_lease(slot, now)
        unusual = self._unusual
        if unusual and self.breaker.watching and slot.owner is not None:
            self.breaker.used(slot.since)
            self._update_rush()
        if unusual or now >= slot.expires or not self._serve(slot, now):  # it does: the usual way under load
            self._place(slot, now)
            self._settle(now)

    def is_unwanted(self, slot: Slot) -> bool:
        """Whether a leased connection would be closed if it came back now, because nobody waits for it."""
        return self.max_idle == 0 and not self.waiters and not self._is_spared(slot)

    def unused(self, slot: Slot, now: float) -> None:
        """A connection comes back that was lent, but not used: nothing was learnt from it."""
        if slot.state is LEASED:
            slot.owner = None
            self.requite(slot, now)

    # ------------------------------------------------------------------------------------------ sharing

    def share(self, slot: Slot, now: float) -> bool:
        """Have the next waiter share a connection that is lent already; whether there was one who does.

        Only if it is the next one's turn: whoever wants a connection for itself is not overtaken.
        """
        if self.paused or self.breaker.sick or self._reason_to_close(slot, now) is not None:
            return False
        return self._serve(slot, now, sharing=True)

    def share_at_once(self, waiter: Waiter, slot: Slot, now: float) -> bool:
        """Have somebody who has just come share it, instead of `acquire`; only if nobody waits."""
        if self.waiters.ready or self.paused or self.breaker.sick or self._reason_to_close(slot, now) is not None:
            return False
        if waiter.key is not None and self.has_its_share(waiter.key):
            return False
        self._serve_with(slot, waiter)
        return True

    def shared(self, slot: Slot, uses: int, began: float, now: float) -> None:
        """So many who share a connection have been served since this was last said; the last of them began then."""
        self._note_uses(slot, uses, now)
        self.admission.came_back((now - slot.since) / uses, now)
        slot.since = now
        if self._unusual and self.breaker.watching:
            self.breaker.used(began)
            self._update_rush()
            self._serve_idle(now)

    def lend_to_many(self, slot: Slot) -> None:
        """Others may share this connection, until it comes back."""
        slot.shared = True
        slot.lent = slot.since

    def held_up(self, slot: Slot) -> None:
        """One of those who share it does not come to an end: until it does, the connection counts as a slow one's."""
        if slot.tenant is None:
            slot.tenant = SLOW
            self._tenants[SLOW] += 1

    def goes_on(self, slot: Slot, now: float) -> None:
        """After `held_up`: it has come to an end."""
        if slot.tenant is SLOW:
            slot.tenant = None
            self._give_up_share(SLOW)
            self._serve_idle(now)

    def parted(self, waiter: Waiter, now: float) -> None:
        """Somebody who shared a connection is done with it, or goes without: its key may have another."""
        slot, waiter.slot = waiter.slot, None
        if slot is not None and waiter.shares and waiter.key is not None and self.share_of(waiter.key) is not None:
            self._give_up_share(waiter.key)
            self._serve_idle(now)

    def _place(self, slot: Slot, now: float) -> None:
        reason = self._reason_to_close(slot, now)
        if reason is not None:
            self._close(slot, reason)
        elif not self._serve(slot, now):
            if self.max_idle == 0 and not self._is_spared(slot):
                self._close(slot, Reason.UNUSED)
            else:
                self._rest(slot, now)

    def _end_lease(self, slot: Slot, now: float) -> None:
        if slot.shared:  # its uses were counted one by one
            slot.shared = False
            slot.since = slot.lent
        elif slot.owner is not None:  # the pool's own leases, to verify a connection, are no use of it
            self._note_uses(slot, 1, now)
            self.admission.came_back(now - slot.since, now)
        if slot.tenant is not None:
            key, slot.tenant = slot.tenant, None
            self._give_up_share(key)

    def _note_uses(self, slot: Slot, uses: int, now: float) -> None:
        held = now - slot.since
        slot.uses += uses
        slot.held += held
        if held > SHORT * uses:
            slot.lasted[bisect_left(BOUNDS, held / uses)] += uses

    def _give_up_share(self, key: Hashable) -> None:
        self._tenants[key] -= 1
        if not self._tenants[key]:
            del self._tenants[key]
        self.waiters.call_back(key)

    def _settle(self, now: float) -> None:
        """Bring order into the idle connections after `give` and `acquire` may have missed each other."""
        if self.closed:
            self._close_idle(Reason.POOL_CLOSED)
        self._serve_idle(now)
        self._close_surplus()
        self._check_full()

    def _serve_idle(self, now: float) -> None:
        while self.waiters.ready and (slot := self._claim()):
            if not self._serve(slot, now):
                self._rest(slot, slot.since)
                return

    def _claim(self) -> Slot | None:
        """An idle slot for ourselves, if one is left."""
        if not self.idle:
            return None
        try:
            return self.idle.pop()
        except IndexError:
            return None

    def _claim_this(self, slot: Slot) -> bool:
        """This very slot, unless somebody has just taken it."""
        try:
            self.idle.remove(slot)
        except ValueError:
            return False
        return True

    def discard(self, slot: Slot, reason: Reason, now: float, error: BaseException | None = None) -> None:
        """A connection comes back that nobody may use again. *error*: the server ended it in use, saying so."""
        if slot.state is not LEASED:
            return  # it was taken back from its holder before
        self._end_lease(slot, now)
        self._close(slot, reason)
        if error is not None:
            self._note_loss(slot, error, now)
        if reason is Reason.READ_ONLY:
            self._retire(reason)
        if self.idle and reason in (Reason.DEAD, Reason.BROKEN):
            self._effects.append(Doubt())
        else:
            self._serve_idle(now)  # what was kept from somebody because this one was out

    def reject(self, slot: Slot, reason: Reason, now: float, error: BaseException | None = None) -> None:
        """A connection turned out to be no good before it was handed out.

        *error*: it failed its check before its first use, which is as good as a failed attempt to connect.
        """
        slot.owner = None
        self.lost += 1
        self.discard(slot, reason, now)
        if error is not None:
            self._note_failure(slot.started, error, now, unfit=True)

    def doubt(self) -> list[Slot]:
        """After `Doubt`: all idle connections, suspect until they have answered, and nobody's until then.

        What cannot answer would cost its next user the whole timeout. Each is to be told of with `requite` or `reject`.
        """
        suspects = []
        while slot := self._claim():
            slot.state = LEASED
            slot.owner = None
            suspects.append(slot)
        return suspects

    # ------------------------------------------------------------------------------------------ connections

    def opened_slot(self, slot: Slot, now: float, connected: bool = True) -> None:
        """The slot's connection is open. *connected*: or it is a place for one, which somebody else is to open."""
        assert slot.state is OPENING, f"bug: {slot!r} opened"
        del self.opening[slot.number]
        if connected:
            self.note_connect(now - slot.started)
        self.pace.succeeded(now - slot.started)
        if slot.retire is Reason.EXPIRED:  # and not marked to go while it was being opened
            slot.expires = now + self.max_lifetime * (1 - LIFETIME_JITTER * self._random())
        self._place(slot, now)
        self._settle(now)
        self._grow(now)
        # Not least for the attempts still under way: our patience with them may have grown.
        self._effects.append(Wake(min(slot.expires, now + self.max_idle, self._note_overdue(now))))

    def note_connect(self, seconds: float) -> None:
        """A connection was opened, within so many seconds."""
        self.connects += 1
        self.connect_seconds += seconds
        self.creations.note(seconds)

    def failed(self, slot: Slot, error: BaseException | None, now: float, hung: bool = False) -> None:
        """The slot's connection could not be opened. *hung*: the database did not refuse, it did not answer.

        *error*: None when the attempt was called off, which says nothing of the database.
        """
        assert slot.state is OPENING, f"bug: {slot!r} failed"
        del self.opening[slot.number]
        self._remove(slot)
        self.connects += 1
        self.connect_errors += 1
        self.connect_seconds += now - slot.started
        if error is not None:
            self._note_failure(slot.started, error, now, hung=hung)
            self._grow(now)

    def put_off(self, slot: Slot, seconds: float, now: float) -> None:
        """The slot's connection may not be opened for so long: somebody else has the room. Nobody is to blame."""
        assert slot.state is OPENING, f"bug: {slot!r} put off"
        del self.opening[slot.number]
        self._remove(slot)
        self.pace.put_off(now + seconds)
        self._grow(now)

    def closed_slot(self, slot: Slot, now: float) -> None:
        """The slot's connection is closed, as far as the server goes too: its place is free."""
        assert slot.state is CLOSING, f"bug: {slot!r} closed"
        self.closing -= 1
        self._remove(slot)
        self._grow(now)

    # ------------------------------------------------------------------------------------------ time

    def tick(self, now: float) -> float:
        """Do what is due, and say when something may be due again (infinity: not before another event)."""
        due = min(self._retire_idle(now), self._expire_waiters(now), self._note_overdue(now))
        if not self._on_time(now):
            self._refuse_if_down(now)
        if self.breaker.sick and self.waiters:
            self._serve_idle(now)
            if self.breaker.next_at() > now:
                due = min(due, self.breaker.next_at())
        self._grow(now)
        return due

    def _expire_waiters(self, now: float) -> float:
        due = math.inf
        for waiter in list(self.waiters):
            if waiter.deadline <= now:
                self.expire(waiter, now)
            else:
                due = min(due, waiter.deadline + WAITER_SLACK)
        return due

    def _retire_idle(self, now: float) -> float:
        # A leased one comes back unseen (`give`), perhaps just before its end; unused it is due no sooner than this.
        due = min((slot.expires for slot in self.slots.values() if slot.expires > now), default=math.inf)
        if len(self.slots) - self.closing > self.min_size:
            due = min(due, now + max(self.max_idle, 1.0))
        for slot in list(self.idle):
            unused_at = math.inf if self._is_spared(slot) else slot.since + self.max_idle
            if now >= slot.expires or now >= unused_at:
                if self._claim_this(slot):
                    self._close(slot, slot.retire if now >= slot.expires else Reason.UNUSED)
            else:
                due = min(due, slot.expires, unused_at)
        return due

    def _is_spared(self, slot: Slot) -> bool:
        """Whether the slot stays however long it is idle: it is one of `min_size`, or the one to go last of them."""
        return len(self.slots) - self.closing <= self.min_size or (slot is self.kept and self.min_size > 0)

    def _note_overdue(self, now: float) -> float:
        """An attempt past its deadline is as good as failed, although its place stays taken until it ends."""
        due = math.inf
        for slot in self.opening.values():
            patient_until, deadline = slot.started + self.pace.patience, slot.started + self.connect_timeout
            if not slot.overdue and now >= deadline:
                slot.overdue = True
                silence = TimeoutError(f"no answer to a connection attempt within {self.connect_timeout:g} s")
                self._note_failure(slot.started, silence, now, hung=True)
            due = min([due, *(at for at in (patient_until, deadline) if at > now)])
        return due

    # ------------------------------------------------------------------------------------------ the pool as a whole

    def open(self, now: float) -> None:
        self.opened = True
        self._grow(now)

    def close(self, now: float) -> None:
        """Refuse everybody from now on. Idle connections end now, leased ones when they come back."""
        self.closed = True
        self._update_rush()
        for waiter in list(self.waiters):
            self._send_away(waiter, Refusal.CLOSED, now)
        self._settle(now)
        self._check_empty()

    def drain(self, now: float) -> None:
        """Replace every connection there is: idle ones now, leased ones when they come back."""
        self._retire(Reason.DRAINED)
        self._grow(now)
        self._effects.append(Wake(now))  # one that was just being given back may have missed its mark

    def _retire(self, reason: Reason) -> None:
        for slot in self.slots.values():
            slot.expires = -math.inf
            slot.retire = reason
        self._close_idle(reason)

    def resize(self, min_size: int, max_size: int, now: float) -> None:
        """:raises ValueError: when no pool can have these sizes; nothing has changed then."""
        check_sizes(min_size, max_size)
        check_reserve(self.reserve, max_size)
        share = self.share_of(SLOW)
        self.min_size, self.max_size = min_size, max_size
        for _ in range((self.share_of(SLOW) or 0) - (share or 0)):
            if not self.waiters.call_back(SLOW):  # they may have more
                break
        self._update_rush()
        self._settle(now)  # of a smaller minimum it may be full already, and of a larger maximum less is kept back
        self._grow(now)

    def prefer_kept(self, now: float) -> None:
        """The kept connection is handed out next, if it is idle."""
        slot = self.kept
        if slot is not None and self._claim_this(slot):
            self.idle.append(slot)
            self._serve_idle(now)

    def keep_idle(self, seconds: float) -> None:
        """Close what is idle for so long, above `min_size`. 0: when it comes back, unless somebody waits for it."""
        self.max_idle = seconds
        self.pace.rate = RATE if seconds else math.inf  # to open one for each request is what is wanted then
        self._update_rush()

    def close_idle(self, reason: Reason, now: float) -> None:
        """Close what nobody uses, be it all."""
        self._serve_idle(now)
        self._close_idle(reason)

    def pause(self) -> None:
        """Hand out nothing until `resume`; waiters wait on, each until its own deadline."""
        self.paused = True
        self._update_rush()

    def resume(self, now: float) -> None:
        self.paused = False
        self._update_rush()
        self._settle(now)
        self._grow(now)

    def refill(self, now: float) -> None:
        """Try again at once, whatever failed before."""
        self.pace.ask(now)
        self._grow(now)

    def fill(self) -> bool:
        """Whether `min_size` connections are idle; if not, `Full` says when they are."""
        self._filling = len(self.idle) < self.min_size
        self._update_rush()
        return not self._filling

    # ------------------------------------------------------------------------------------------ decisions

    def _grow(self, now: float) -> None:
        """Open what is needed, as far as the limit and the pace allow."""
        if len(self.slots) >= self.max_size or self.closed or not self.opened:
            return
        while len(self.slots) < self.max_size and self._wants_more(now):
            under_way = self._on_time(now)
            at = math.inf if self._opens_enough(under_way) else self.pace.next_at(now, under_way)
            if at > now:
                if at < math.inf:
                    self._effects.append(Wake(at))
                return
            self._open(now)

    def _opens_enough(self, under_way: int) -> bool:
        """Whether as many are being opened as may be at once: one by one above `min_size`, if there is a bound."""
        if self.max_opening is None:
            return False
        return under_way >= (self.max_opening if len(self.slots) < self.min_size else 1)

    def _wants_more(self, now: float) -> bool:
        """Whether one more connection than those open and under way has a use."""
        if not self.waiters.ready or self.paused:
            return len(self.slots) - self.closing < self.min_size
        # Whoever waits comes first: to fill up at the same time would make their connection slower to come.
        under_way = self._on_time(now)
        sharing = self.waiters.sharing
        if sharing == self.waiters.ready and any(slot.shared for slot in self.slots.values()):
            # What they share may be slow to begin with, or short of the processor's time, where more would not help.
            return not under_way and self._share_in_vain(now)
        # One is always worth trying; more only for those whom neither it nor a return will have served by then. All who
        # share may find room on one.
        wanted = self.waiters.ready - sharing + (sharing > 0)
        return not under_way or wanted > under_way + self._returns_meanwhile(now)

    def _share_in_vain(self, now: float) -> bool:
        """Whether the first who waits to share a connection has waited for longer than opening one takes."""
        patience = max(SHARING_PATIENCE, self.pace.mean_seconds)
        at = min(head.since for head in self.waiters.heads()) + patience
        if now < at:
            self._effects.append(Wake(at))
        return now >= at

    def _returns_meanwhile(self, now: float) -> float:
        """How many connections will come back while one is opened: leases x seconds to connect / seconds held.

        Little's law on what was measured; a lease that lasts longer than usual counts with its age, so that one change
        of habit is seen at once. With nothing measured, none.
        """
        leases = self.leased
        uses = self.uses
        if not leases or not uses:
            return 0.0
        youngest = min((now - slot.since for slot in self.leases()), default=0.0)
        hold = max(self.held / uses, youngest, 1e-6)
        return leases * self.pace.mean_seconds / hold

    def _on_time(self, now: float) -> int:
        """Attempts under way that may still succeed soon; one that hangs must not keep others from being made."""
        patience = self.pace.patience
        return sum(now < slot.started + patience for slot in self.opening.values())

    def _open(self, now: float) -> None:
        self._numbers += 1
        slot = Slot(self._numbers, now)
        self.slots[slot.number] = self.opening[slot.number] = slot
        self.pace.started(now)
        self._effects.append(Open(slot))
        self._effects.append(Wake(now + min(self.pace.patience, self.connect_timeout)))

    def _reason_to_close(self, slot: Slot, now: float) -> Reason | None:
        if self.closed:
            return Reason.POOL_CLOSED
        if now >= slot.expires:
            return slot.retire
        if slot is not self.kept and len(self.slots) - self.closing > self.max_size:
            return Reason.SURPLUS
        return None

    def _deadlocks(self, waiter: Waiter) -> bool:
        """Whether the waiter would close a circle: it holds a connection, and so does everybody else who waits.

        Nothing is opening or closing, so only a holder could end the wait, and every holder waits.
        """
        if waiter.owner is None or self.paused or self.opening or self.closing or len(self.slots) < self.max_size:
            return False
        if self.may_grow:
            return False
        holds = False
        for slot in self.slots.values():
            if self.reserve and slot.state is IDLE and not self.breaker.sick:
                continue  # or the waiter would have it
            if slot.state is not LEASED or slot.dropped or slot.owner is None or not self._waits(slot.owner):
                return False
            holds = holds or slot.owner == waiter.owner
        return holds and not self._handed_on(self.slots.values())

    def _waits(self, owner: Any) -> bool:
        try:
            return owner in self._waiting_owners
        except TypeError:  # a weak reference has no hash once what it referred to is gone, which waits no more
            return False

    def _ask_again(self, waiter: Waiter, now: float) -> None:
        """A caller meets a database that is known to be down: have it tried again now, or tell the caller now."""
        if self.leased:
            return  # what comes back may serve
        on_time = self._on_time(now)
        # While it keeps silent, to wait for the attempt under way would be to wait in vain; a refusal comes at once.
        if not self.pace.may_ask(now) and (self.pace.hung or not on_time):
            self._send_away(waiter, Refusal.UNAVAILABLE, now)
        if on_time:
            return
        self.pace.ask(now)
        # Even a caller that was refused has the database tried: the attempt that it causes serves the next one.
        if len(self.slots) < self.max_size and self.pace.next_at(now, on_time) <= now:
            self._open(now)

    def _note_failure(
        self, started: float, error: BaseException, now: float, hung: bool = False, unfit: bool = False
    ) -> None:
        if self.pace.failed(now, started, error, hung, unfit):
            self._effects.append(GaveUp())
        if hung or not self._on_time(now):
            self._refuse_if_down(now)

    def _refuse_if_down(self, now: float) -> None:
        """Let nobody wait for a database that is known to be down, if nothing else can serve them either."""
        if not self.pace.down or self.leased:
            return
        for waiter in list(self.waiters):
            self._send_away(waiter, Refusal.UNAVAILABLE, now)

    # ------------------------------------------------------------------------------------------ overload

    def _serve(self, slot: Slot, now: float, sharing: bool = False) -> bool:
        """Hand a connection that is nobody's to the next waiter; false if there is none who may have it.

        *sharing*: it is lent to some who share it, and the next one joins them, if that one shares.
        """
        waiters, admission, only_high = self.waiters, self.admission, False
        if self._unusual and not sharing:
            if self.paused or (self.breaker.sick and not self.breaker.allows(now, self._trying(slot))):
                return False
            only_high = self.leased - 1 >= self.max_size - self.reserve
        if admission.overloaded:
            self._shed_late(now)
        while waiters.ready:
            if not admission.moved:
                admission.look(waiters, now)
            newest_first = admission.overloaded and admission.has_backlog(waiters.ready, self.max_size)
            waiter = waiters.next(newest_first, only_high, self._may_pass if sharing else None)
            if waiter is None:
                return False
            if waiter.key is not None and self.has_its_share(waiter.key):
                waiters.stand_aside(waiter)
                continue
            if now > waiter.since:
                admission.waited += 1
            self._end_wait(waiter, now)
            if not (admission.overloaded or waiter.declared) or not admission.is_late(waiter, now):
                if not sharing:
                    self._lease(slot, waiter, now)
                if waiter.waited:
                    self.waits.note(waiter.waited)
                self._serve_with(slot, waiter)
                return True
            self._refuse_late(waiter, now)
            self._leave_share(waiter)
        return False

    def _may_pass(self, waiter: Waiter) -> bool:
        """Whether a connection that is shared may go on being so, with this one next: it joins, or must stand aside."""
        return waiter.shares or (waiter.key is not None and self.has_its_share(waiter.key))

    def has_its_share(self, key: Hashable) -> bool:
        """Whether the key has as many connections as one may have."""
        share = self.share_of(key)
        return share is not None and self._tenants[key] >= share

    def share_of(self, key: Hashable) -> int | None:
        """How many connections the key may have at once; None for any number."""
        return max(1, self.max_size - 1) if key is SLOW else self.max_per_key

    def _is_shed(self, waiter: Waiter, now: float) -> bool:
        """Whether somebody who has just joined the queue is to leave it at once, because the wait would be in vain."""
        waiter.forecast = self._forecast(waiter, now)
        if waiter.forecast is None:
            if self.admission.overloaded:
                self._make_room(waiter, now)
            return False
        if not self.admission.sheds(waiter):
            self.admission.would_shed += 1
            return False
        self.admission.upstream.came_late()
        return True

    def _make_room(self, waiter: Waiter, now: float) -> None:
        """Who comes with a higher priority may leave no room for who came last with a lower one."""
        last = self.waiters.last_below(waiter.priority, self.admission.everybody)
        if last is not None:
            last.forecast = self._forecast(last, now)
            if last.forecast is not None:
                self._send_away(last, Refusal.OVERLOADED, now)

    def _forecast(self, waiter: Waiter, now: float) -> Forecast | None:
        """For the last of its priority."""
        connections = self.max_size
        if self.reserve and waiter.priority != Priority.HIGH:
            connections -= self.reserve
        if self.pace.failures and self.leased:  # what is open is all there is
            connections = min(connections, self.leased)
        if waiter.key is not None and self.has_its_share(waiter.key):
            connections = min(connections, self._tenants[waiter.key])
            return self.admission.judge(waiter, self.waiters.aside_for(waiter.key) - waiter.aside, connections, now)
        held = [now - slot.since for slot in self.leases() if slot.owner is not None]
        # A connection that nobody holds can be opened, is on its way, or is being verified: whom it serves waits for no
        # return.
        free = connections - len(held) - self.closing
        turning = max(1, connections - sum(map(self.admission.is_slow, held)))
        return self.admission.judge(waiter, self.waiters.ahead_of(waiter) - 1 - free, turning, now)

    def _shed_late(self, now: float) -> None:
        for head in self.waiters.heads():
            lane = head.lane
            while lane and self.admission.is_late(late := next(iter(lane)), now):
                self._dequeue(late, now)
                self._refuse_late(late, now)

    def _refuse_late(self, waiter: Waiter, now: float) -> None:
        waiter.forecast = self.admission.too_late(waiter, len(self.waiters), self.max_size, now)
        self._refuse(waiter, Refusal.OVERLOADED)

    def _note_loss(self, slot: Slot, error: BaseException, now: float) -> None:
        opens = self.breaker.lost(slot.since, error, now)
        self._update_rush()
        if opens:
            for waiter in list(self.waiters):
                self._send_away(waiter, Refusal.UNAVAILABLE, now)

    def _trying(self, beside: Slot | None = None) -> int:
        """How many were lent since the last loss, and are still out: they will tell whether the database is well."""
        since = self.breaker.lost_at
        return sum(slot.owner is not None and slot.since >= since for slot in self.leases() if slot is not beside)

    def verdict(self) -> Verdict:
        """What is known of the database, if no connection can be had because of it."""
        return self.breaker.verdict() if self.breaker.sick and not self.pace.down else self.pace.verdict()

    # ------------------------------------------------------------------------------------------ bookkeeping

    def _lease(self, slot: Slot, waiter: Waiter, now: float) -> None:
        slot.state = LEASED
        slot.owner = waiter.owner
        slot.code = waiter.code
        slot.lasti = waiter.lasti
        slot.since = now
        if self.breaker.sick:
            self.breaker.tried(now)
            self._effects.append(Wake(self.breaker.next_at()))

    def _serve_with(self, slot: Slot, waiter: Waiter) -> None:
        waiter.slot = slot
        self._effects.append(waiter)
        if waiter.key is not None and self.share_of(waiter.key) is not None:
            self._tenants[waiter.key] += 1
            if not waiter.shares:  # or it is given up by `parted`: others go on with the connection
                slot.tenant = waiter.key

    def _rest(self, slot: Slot, now: float) -> None:
        slot.since = now
        slot.state = IDLE  # first, as in `give`
        self.idle.append(slot)

    def _close(self, slot: Slot, reason: Reason) -> None:
        slot.state = CLOSING
        self.closing += 1
        self.closes[reason] += 1
        self._effects.append(Close(slot, reason))
        self._update_rush()

    def _close_idle(self, reason: Reason) -> None:
        while slot := self._claim():
            self._close(slot, reason)

    def _close_surplus(self) -> None:
        """Idle connections above the maximum go, the longest unused first."""
        while len(self.slots) - self.closing > self.max_size:
            slot = next((slot for slot in list(self.idle) if slot is not self.kept), None)
            if slot is None:
                return
            if self._claim_this(slot):
                self._close(slot, Reason.SURPLUS)

    def _remove(self, slot: Slot) -> None:
        slot.state = GONE
        del self.slots[slot.number]
        self._gone_uses += slot.uses
        self._gone_held += slot.held
        self._gone_lasted = [gone + more for gone, more in zip(self._gone_lasted, slot.lasted, strict=True)]
        self._update_rush()
        self._check_empty()

    def _check_empty(self) -> None:
        if self.closed and len(self.opening) == len(self.slots):
            self._effects.append(Empty())

    def _enqueue(self, waiter: Waiter, first: bool, now: float) -> None:
        if not self.waiters.size:
            self.admission.queue_began(max((slot.since for slot in self.leases()), default=now))
        self.waiters.push(waiter, first)
        self._waiting_owners[waiter.owner] = self._waiting_owners.get(waiter.owner, 0) + 1
        self._rush = True

    def _dequeue(self, waiter: Waiter, now: float) -> None:
        self.waiters.remove(waiter)
        self._end_wait(waiter, now)
        self._leave_share(waiter)

    def _leave_share(self, waiter: Waiter) -> None:
        """The waiter goes without the connection that it was called back for, if it was: the next of its key may."""
        if waiter.key is not None and not self.has_its_share(waiter.key):
            self.waiters.call_back(waiter.key)

    def _end_wait(self, waiter: Waiter, now: float) -> None:
        waiter.waited += now - waiter.since
        if waiter.queues:
            self.waited += now - waiter.since
        left = self._waiting_owners.pop(waiter.owner, 1) - 1
        if left:
            self._waiting_owners[waiter.owner] = left
        if not self.waiters.size:
            self._rush = self._unusual

    def _send_away(self, waiter: Waiter, refusal: Refusal, now: float) -> None:
        self._dequeue(waiter, now)
        self._refuse(waiter, refusal)

    def _refuse(self, waiter: Waiter, refusal: Refusal) -> None:
        waiter.refusal = refusal
        waiter.verdict = None if refusal is Refusal.OVERLOADED else self.verdict()
        self.refusals[refusal] += 1
        self._effects.append(waiter)

    def _check_full(self) -> None:
        if self._filling and len(self.idle) >= self.min_size:
            self._filling = False
            self._update_rush()
            self._effects.append(Full())

    def _update_rush(self) -> None:
        surplus = len(self.slots) - self.closing > self.max_size
        limited = self.reserve > 0 or self.max_per_key is not None or self.breaker.watching
        self._unusual = self.closed or self.paused or self._filling or surplus or limited or self.max_idle == 0
        self._rush = self._unusual or bool(self.waiters)
