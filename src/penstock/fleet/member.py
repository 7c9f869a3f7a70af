"""One pool's place in its fleet: what it may have open, and who says so.

It *claims* its share under a name that its connections bear, and is believed for as long as the connection that says so
lives and bears that name. So whatever ends that connection ends the claim, for the others and, as its own kernel tells
it without asking, for the member. Every claim is made first and checked then; one that turns out too large is taken
back before anything is opened under it. (Through Redis it is believed for a while: see `redis.py`.)

What it may do at any moment:

* It has a claim, and looked not long ago: it opens connections up to its share.
* It has none, or may have lost touch: it opens nothing, and looks again on a connection that it has.
* It has no connection at all: it joins, that is it opens one, which the budget keeps room for, and asks on that. If
  there is no room it closes it at once. (Through Redis it asks first.)
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import ref

from ..core import Reason
from ..drivers.base import settled
from ..errors import PoolTimeout
from ..pool.base import one_line
from ..pool.membership import FleetState, NotNow
from . import tag
from .clock import clock as _clock
from .demand import Meter
from .gate import gate
from .ledger import Elsewhere, Ledger
from .line import Line, totals_of
from .mysql import MySQL
from .postgres import Postgres, refused_by_a_pooler
from .redis import Redis
from .shares import View
from .tag import Said

if TYPE_CHECKING:
    from ..pool.base import BasePool
    from .settings import Fleet
    from .watch import Watch

logger = logging.getLogger("penstock.pool")

PER_SECOND = 1.25  # looks of a fleet in which nothing changes, at most: with 50 members each looks every 40 s
CALM = 3  # looks without a change after which a member looks less often
FIRST_LOOK = 1.0  # seconds from joining to the first look, about: by then those are there who came together
HUNGRY = 9.0  # seconds after which a member looks at least that has not all it could use
JITTER = 0.1  # share of a period that is left to chance, so that members spread out
SAY_SECONDS = 3.0  # for a look's answer; then its connection is cut off: nobody may hold the gate for longer
LOOK_TIMEOUT = 1.0  # seconds to wait for one of the pool's own connections to look on
GATE_SECONDS = 0.03  # until the gate is tried again
JOIN_SECONDS, JOIN_SECONDS_MOST = 0.2, 1.0  # until room is looked for again, doubled each time
ASKED_SECONDS = 0.02  # until what is asked without a connection has been answered, as a rule
STALE_SECONDS = 0.1  # until a connection is tried for again that there was no valid claim for

_chance = random.Random().random  # not the module's own: whoever seeds that must not have it drawn from


@dataclass(slots=True, frozen=True)
class Claim:
    """That it was said. *at*: seconds of `_clock`. *stands*: whether the ledger has it still, as far as is known."""

    at: float
    stands: Callable[[], bool]


class Member:
    """Satisfies `penstock.pool.membership.Membership`.

    :ivar share: connections that it may have open; 0 before it has joined.
    """

    def __init__(self, fleet: Fleet, pool: BasePool[Any], watch: Callable[[Member], Watch]) -> None:
        self.pool_name = pool.name
        self.share = 0
        self._fleet = fleet
        self._pool = ref(pool)
        self._kept_open = pool._sizes[0]  # where the share allows it
        self._most = min(pool._sizes[1], fleet.budget)
        self._name = tag.new_member()
        self._ledger = _ledger(fleet, pool, self._name)
        self.settings = self._ledger.settings
        self._claim: Claim | None = None
        self._number = 0
        self._meter = Meter()
        self._line = Line(pool._auto, fleet.budget)
        self._seen: View | None = None
        self._calm = 0  # looks in a row without a change
        self._to_shrink = False  # the last look said so
        self._refused = 0  # times in a row, for want of room
        self._looks_at = 0.0
        self._joins_at = 0.0
        self._trouble: str | None = None  # why it is out of touch
        self._not_now: str | None = None  # why the last connection could not be opened
        self._asks_beside = False  # all that are open are in use, for long: one more may be opened to ask on
        self._gave_up = False  # what was idle, since it is out of touch
        self._resize(pool, 1)
        self._watch = watch(self)

    # ------------------------------------------------------------------------------------------ for the pool

    def resize(self, min_size: int, max_size: int) -> None:
        pool = self._pool()
        self._kept_open, self._most = min_size, min(max_size, self._fleet.budget)
        if pool is not None:
            self._resize(pool, self.share)
        self._hurry()

    def begin(self) -> None:
        self._looks_at = _clock() + self._fleet.period * _chance()
        self._watch.begin()

    def end(self) -> None:
        self._watch.end()

    async def leave(self) -> None:
        pool = self._pool()
        try:
            try:
                if pool is not None and not pool._core.slots and self._trouble is None:
                    await self._leave(pool)
            finally:
                await self._ledger.close()
        except Exception as error:
            logger.info("%s: fleet %s: not left in order: %s", self.pool_name, self._fleet.name, one_line(error))

    def state(self) -> FleetState:
        seen, claim = self._seen, self._claim
        return FleetState(
            name=self._fleet.name,
            member=self._name,
            budget=self._fleet.budget,
            share=self.share,
            members=0 if seen is None else len(seen.members),
            claimed=0 if seen is None else seen.taken,
            age=math.inf if claim is None else _clock() - claim.at,
            hint=self._hint(),
            line=None if seen is None else seen.line,
        )

    def _hint(self) -> str | None:
        fleet, seen = self._fleet, self._seen
        if self._refused and seen is not None and seen.settling:
            return f"fleet {fleet.name!r} has no record of who has what; in {seen.settling:.1f} s all will have said so"
        if self._refused:
            others = "" if seen is None else f": {seen.taken} of {seen.budget} are claimed by {_whom(seen)}"
            return f"no room yet in fleet {fleet.name!r}{others}; asked {self._refused} times"
        if self._trouble is not None:
            kept = f"{self.share} connections are kept, no more are opened"
            return f"out of touch with fleet {fleet.name!r}: {kept}: {self._trouble}"
        if seen is not None and seen.strangers:
            return f"of the budget of fleet {fleet.name!r} ({fleet.budget}), {_strangers(seen.strangers)}"
        if seen is not None and seen.line is not None and seen.line < seen.usable:
            return f'fleet {fleet.name!r} is held at {seen.line} of its {fleet.budget} connections (max_size="auto")'
        if self._not_now is not None and not self.share:
            return f"joining fleet {fleet.name!r}: {self._not_now}"
        return None

    async def admit(self, dial: Callable[[Mapping[str, Any]], Awaitable[Any]]) -> Any:
        try:
            conn = await self._admit(dial)
        except NotNow as error:
            self._not_now = str(error)
            raise
        self._not_now = None
        return conn

    async def _admit(self, dial: Callable[[Mapping[str, Any]], Awaitable[Any]]) -> Any:
        pool = self._pool()
        if pool is None:
            raise NotNow("the pool is gone", STALE_SECONDS)
        core = pool._core
        if self._may_open() and len(core.slots) <= self.share:
            return await self._dial(pool, dial)
        if not self._ledger.asks_on_one:
            raise self._not_asked()
        beside = len(core.slots) > len(core.opening) + core.closing
        if beside and not self._asks_beside:
            self._hurry()
            raise NotNow("the claim has to be made again first", STALE_SECONDS)
        if (left := self._joins_at - _clock()) > 0:
            raise NotNow("others may join first", left)
        with gate(self._fleet.name) as passed:
            if not passed:
                raise NotNow("another process is asking", GATE_SECONDS * (0.5 + _chance()))
            return await (self._ask_beside(pool, dial) if beside else self._join(pool, dial))

    def _may_open(self) -> bool:
        claim = self._claim
        return claim is not None and _clock() - claim.at <= self._ledger.fresh and claim.stands()

    async def _dial(self, pool: BasePool[Any], dial: Callable[[Mapping[str, Any]], Awaitable[Any]]) -> Any:
        conn = await dial(self._ledger.arguments())
        try:
            if self._ledger.takes_places:
                with pool._cut_off(conn, pool._clock() + SAY_SECONDS):
                    await self._ledger.take(conn)
            if self._is_lost():
                raise NotNow("the claim has ended meanwhile", STALE_SECONDS)
        except BaseException:
            await self._part_with(pool, conn)
            raise
        return conn

    def _is_lost(self) -> bool:
        """Whether others may believe, now or soon, that this member has no claim to what was just opened."""
        if self._ledger.asks_on_one:
            return not self._may_open()
        return self._claim is not None and _clock() - self._claim.at >= self._ledger.lost

    def _not_asked(self) -> NotNow:
        """Where no connection is needed for it, one asks for all: whoever looks after the fleet."""
        if self._refused or self._trouble is not None:
            return NotNow("there is no room, or nobody to ask", self.seconds_left() + ASKED_SECONDS)
        self._hurry()
        return NotNow("the claim has to be made first", ASKED_SECONDS)

    async def _part_with(self, pool: BasePool[Any], conn: Any) -> None:
        """Close *conn*, and wait until the server has let go of it."""
        end = await pool._driver.close(conn)
        if end is not None:
            await self._watch.wait_for_end(pool, end)

    # ------------------------------------------------------------------------------------------ joining

    async def _join(self, pool: BasePool[Any], dial: Callable[[Mapping[str, Any]], Awaitable[Any]]) -> Any:
        """With no connection, and nothing claimed: take a place of those that are kept for it."""
        self._claim = None
        self._resize(pool, 1)
        began = _clock()
        try:
            conn = await dial(self._ledger.arguments())
        except Exception as error:
            self._joins_at = 2 * _clock() - began  # who had the gate in vain leaves it to others for as long
            if pooler := refused_by_a_pooler(error):
                raise pool._driver.operational_error(f"{self.pool_name}: {pooler}") from error
            raise
        try:
            self._meter.read(pool._core, pool._clock())
            seen, claim = await self._say(pool, conn, 1)
            if not seen.may_join:
                raise NotNow("the fleet's budget is used up", self._no_room())
            self._claim = claim
            self._resize(pool, 1)
            self._meter.assume(seen.mean_demand)
            self._joined()
            await self._raise(pool, conn, seen, coming=True, joining=True)
            self._looks_at = _clock() + FIRST_LOOK * (0.5 + _chance())
            self._watch.hurry()  # to see that it is earlier
        except BaseException as error:
            # The gate is kept until the server has let go of it: the next one to ask would be one too many.
            await self._part_with(pool, conn)
            if isinstance(error, Elsewhere):
                raise pool._driver.operational_error(f"{self.pool_name}: {error}") from None
            raise
        return conn

    async def _ask_beside(self, pool: BasePool[Any], dial: Callable[[Mapping[str, Any]], Awaitable[Any]]) -> Any:
        """All that are open are in use for so long that there is none to ask on: take a place as who joins does.

        Otherwise a member with long leases could never say that it needs more.
        """
        self._asks_beside = False
        core = pool._core
        conn = await dial(self._ledger.arguments())
        try:
            self._meter.read(core, pool._clock())
            seen, claim = await self._say(pool, conn, len(core.slots))
            if not seen.may_join:
                raise NotNow("the fleet's budget is used up", self.seconds_left() + STALE_SECONDS)
            self._claim, self._trouble = claim, None
            self._resize(pool, len(core.slots))
            await self._raise(pool, conn, seen, coming=False)
        except BaseException:
            self._resize(pool, self.share)
            await self._part_with(pool, conn)
            raise
        return conn

    def _joined(self) -> None:
        self._refused = 0
        logger.info("%s: joined fleet %s as %s", self.pool_name, self._fleet.name, self._name)

    def _no_room(self) -> float:
        """Seconds until room is to be looked for again."""
        self._refused += 1
        pause = min(JOIN_SECONDS_MOST, JOIN_SECONDS * 2.0 ** min(self._refused - 1, 10))
        return pause * (0.5 + _chance())

    # ------------------------------------------------------------------------------------------ looking

    def seconds_left(self) -> float:
        return max(0.0, self._looks_at - _clock())

    def _hurry(self) -> None:
        self._looks_at = 0.0
        self._watch.hurry()

    async def look(self) -> None:
        """If it is time: say what is needed, see what the others say, and take or give up accordingly. Never raises."""
        pool, now = self._pool(), _clock()
        if pool is None or now < self._looks_at:
            return
        self._looks_at = now + min(self._fleet.period, self._ledger.longest)
        if pool.closed:
            return
        try:
            if not self._ledger.asks_on_one:
                await self._look_or_leave(pool)
            elif len(pool._core.slots) > len(pool._core.opening) + pool._core.closing:
                await self._look_on_one(pool)
            else:
                return  # who has no connection joins, when somebody wants one
        except Exception as error:
            self._failed(pool, error)
        else:
            if self._trouble is not None:
                logger.info("%s: in touch again with fleet %s", self.pool_name, self._fleet.name)
            self._trouble, self._gave_up = None, False

    async def _look_on_one(self, pool: BasePool[Any]) -> None:
        if (speaker := self._ledger.speaker()) is not None:
            pool._core.kept = pool._slots_by_id.get(id(speaker))
            pool._event(pool._core.prefer_kept)
        conn = await settled(pool._borrow(LOOK_TIMEOUT))  # type: ignore[attr-defined]
        try:
            await self._look_on(pool, conn)
        finally:
            await settled(pool._hand_back(conn))  # type: ignore[attr-defined]

    async def _look_or_leave(self, pool: BasePool[Any]) -> None:
        core = pool._core
        if core.slots or core.waiters or core.min_size:
            await self._look_on(pool, None)
        else:
            await self._leave(pool)

    async def _leave(self, pool: BasePool[Any]) -> None:
        """Claim nothing, with nothing open."""
        if self._claim is None:
            return
        self._claim = None  # from now on nothing is opened, so what is not there now will not be
        if pool._core.slots:
            return
        self._resize(pool, 1)
        self._number += 1
        await self._ledger.leave(self._number)

    def _failed(self, pool: BasePool[Any], error: Exception) -> None:
        claim, now = self._claim, _clock()
        age = math.inf if claim is None else now - claim.at
        self._looks_at = now + min(LOOK_TIMEOUT, self._ledger.lost - age if age < self._ledger.lost else math.inf)
        busy = isinstance(error, PoolTimeout)
        if busy and self._ledger.asks_on_one and pool._core.waiters and self.share < self._most:
            self._asks_beside = True
            pool._event(pool._core.resize, min(self._kept_open, self.share), self.share + 1)
            return
        if age < self._ledger.fresh or pool.closed:
            return  # there is time
        # The pool's own refusal has this very hint in it.
        why = f"all {len(pool._core.slots)} are in use, and none to ask on came back" if busy else one_line(error)
        if self._trouble is None:
            logger.warning("%s: fleet %s: %s", self.pool_name, self._fleet.name, why)
        self._trouble, self._refused = why, 0
        if self._ledger.lost <= age < math.inf and not self._gave_up:
            self._give_up(pool, age)

    def _give_up(self, pool: BasePool[Any], age: float) -> None:
        """The others will soon take what this member has for free: what is idle goes before that."""
        self._gave_up = True
        pool._event(pool._core.close_idle, Reason.OUT_OF_TOUCH)
        self._resize(pool, pool._core.leased)
        logger.warning(
            "%s: fleet %s: out of touch for %.0f s: idle connections are closed; %d in use are kept, unknown to others",
            *(self.pool_name, self._fleet.name, age, self.share),
        )

    async def _look_on(self, pool: BasePool[Any], conn: Any) -> None:
        if self._asks_beside:  # there was one to ask on after all
            self._asks_beside = False
            self._resize(pool, self.share)
        self._meter.read(pool._core, pool._clock())
        before = set() if self._seen is None else self._seen.members.keys()
        had = self.share
        if not self._may_open():  # what was claimed may be another's by now: only what is open is certain
            self._resize(pool, max(self._least(), min(self.share, self._open(pool))))
        self._line.measure(totals_of(pool._core, pool._clock()), self.share)
        seen, self._claim = await self._say(pool, conn, self._held(pool))
        if self._decides(pool, seen):
            seen, self._claim = await self._say(pool, conn, self._held(pool))
        share = self.share
        want = seen.shares()[self._name]
        if not share:
            self._meter.assume(seen.mean_demand)
        changing = before != seen.members.keys()
        give_up = self._too_many(seen, want)
        if give_up:
            self._resize(pool, share - give_up)
            seen, self._claim = await self._say(pool, conn, self._held(pool))
        elif want > share:
            await self._raise(pool, conn, seen, coming=not seen.members.keys() <= before)
        self._calm = 0 if changing or self.share != had else self._calm + 1
        self._looks_at = _clock() + self._period(seen, want) * (1 + JITTER * (_chance() - 0.5))
        if not self.share:
            self._looks_at = _clock() + self._no_room()
        elif not share:
            self._joined()

    def _decides(self, pool: BasePool[Any], seen: View) -> bool:
        """Whether this member has just decided something about the fleet's line, which all are to know."""
        step = self._line.decide(seen, self._name, pool._clock())
        if step is not None:
            line = f"{step.before} -> {step.line}" if step.line != step.before else f"{step.line}"
            logger.info("%s: fleet %s: line %s: %s", self.pool_name, self._fleet.name, line, step.why)
        return step is not None

    def _too_many(self, seen: View, want: int) -> int:
        """Connections of the share to give up.

        By one only when the last look said so too: demand is never quite the same twice. Where the room for who joins
        is taken, whoever looks first gives up one, although others have more to give: who waits at the gate does so
        with nothing, and the others' looks will put it right.
        """
        share, over = self.share, seen.claimed - seen.capacity
        twice, self._to_shrink = self._to_shrink, want < share and over >= 0
        if over > 0:
            return max(0, share - want, min(1, share - max(1, self._fleet.least)))
        if want < share and over == 0 and (twice or want < share - 1 or seen.lacking):
            return share - want
        return 0

    def _period(self, seen: View, want: int) -> float:
        period = min(self._fleet.period, self._ledger.longest)
        if self._calm < CALM:
            return period
        calm = min(max(period, len(seen.members) / PER_SECOND), self._ledger.longest)
        return min(calm, max(period, HUNGRY)) if want > self.share else calm

    async def _raise(self, pool: BasePool[Any], conn: Any, seen: View, coming: bool, joining: bool = False) -> None:
        """Claim what this member should have, as far as it is free, and have it unless another claims it too.

        *coming*: members have. Half of what is free is left then, for those who may be at the gate unseen, where that
        can be. *joining*: its least is enough, or what it keeps open if it is alone; its first look is soon.
        Where many come at once, the first of them would take everything, and the others wait until it is given up.
        """
        if seen.settling:
            return
        share, free = self.share, seen.capacity - seen.claimed
        if coming and seen.to_come and seen.asked_on_one:
            free -= free // 2
        want = seen.shares()[self._name]
        if joining:
            want = min(want, max(self._fleet.least, self._kept_open if len(seen.members) == 1 else 0))
        target = min(want, share + free)
        if target <= share:
            return
        after, self._claim = await self._say(pool, conn, target)
        if after.claimed > after.capacity:
            _, self._claim = await self._say(pool, conn, self._held(pool))
        else:
            self._resize(pool, target)

    def _held(self, pool: BasePool[Any]) -> int:
        """Connections that may be open in a moment: the share, and those beyond it that are not back yet.

        Those that are open the server counts itself; those that are just being opened it does not see.
        """
        core = pool._core
        if not self._ledger.asks_on_one:
            return max(self.share, self._open(pool))
        return max(1, self.share, len(core.slots) if core.opening else 0)

    def _least(self) -> int:
        """What a member has that can ask."""
        return int(self._ledger.asks_on_one)

    def _open(self, pool: BasePool[Any]) -> int:
        """Connections that there are, or may be in a moment. Of who may open none, an attempt is refused."""
        core = pool._core
        may_open = self._ledger.asks_on_one or (self.share and self._may_open())
        return len(core.slots) - (0 if may_open else len(core.opening))

    async def _say(self, pool: BasePool[Any], conn: Any, share: int) -> tuple[View, Claim]:
        if pool.closed and not self._ledger.asks_on_one:
            raise ConnectionError("the pool is closed")  # it may have left already
        self._number += 1
        demand = self._fleet.weight * self._meter.demand
        said = Said(self._number, share, self._fleet.least, self._most, demand, self._line.says)
        at = _clock()
        with nullcontext() if conn is None else pool._cut_off(conn, pool._clock() + SAY_SECONDS):
            seen, stands = await self._ledger.say(conn, said, self._open(pool))
        pool._core.kept = pool._slots_by_id.get(id(conn))  # its end would be the claim's
        self._seen = seen = self._line.follow(seen, pool._clock())
        return seen, Claim(at, stands)

    def _resize(self, pool: BasePool[Any], share: int) -> None:
        share = min(share, self._most)  # which may have become less meanwhile
        self.share = share if self._claim is not None else 0
        share = max(1, share)  # a pool has no smaller size
        pool._core.may_grow = share < self._most
        pool._event(pool._core.resize, min(self._kept_open, share), share)


def _ledger(fleet: Fleet, pool: BasePool[Any], member: str) -> Ledger:
    if fleet.redis is not None:
        return Redis(fleet, member, pool._is_async)
    driver = pool._driver
    if getattr(getattr(driver, "driver", driver), "dialect", "") != "mysql":  # over threads, the one beneath
        return Postgres(driver, fleet, member)
    if pool._auto:
        raise ValueError(
            'max_size="auto" cannot be had in a fleet on MySQL: its members cannot tell one another what they get done.'
            " Give a number, or have them see one another through a Redis: Fleet(redis=...)"
        )
    return MySQL(driver, fleet, member)


def _whom(seen: View) -> str:
    count = len(seen.members)
    others = f", and {_strangers(seen.strangers)}" if seen.strangers else ""
    return f"{count} process{'es' * (count != 1)}{others}"


def _strangers(count: int) -> str:
    one = count == 1
    return (
        f"{count} connection{'s' * (not one)} of the same role to the same database {'is' if one else 'are'} no"
        " member's (psql, a migration, another fleet: `outside=` leaves room for those that belong)"
    )
