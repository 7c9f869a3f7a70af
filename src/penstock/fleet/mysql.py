"""The fleet as MySQL and MariaDB let it be seen: by named locks (`GET_LOCK`), which end with their connection.

A server of this kind shows nobody another's connections, and they bear no names. But everybody may ask of any lock
whether it is held. So a budget of 60 is 60 numbered *places*, and for each there are locks that say so:

* ``penstock:<fleet>:<n>`` claims the place. It is held by the connection that a member asked on; a member claims as
  many places as its share.
* ``penstock:<fleet>:<n>:c`` is held by the connection that has the place, from when it is open until it ends.
* ``penstock:<fleet>:<n>:<bit>``, held by the connection with place *n*, are the bits of what its member says of itself.

A place is free when nobody claims it and nobody has it. Whoever claims one makes sure of the second after the first,
and whoever takes one that its member claims makes sure of the first after the second; locks are taken one by one by a
single server, so no place is ever two members'. So the sum does not rest on what members say: that is only for the
shares. What is read half written has the wrong check digits, and counts as not said.

A connection's lock goes with COM_RESET_CONNECTION, too: one in a fleet whose session was changed is closed instead.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import ref

from ..drivers import sockets
from ..drivers.base import Driver, Status
from ..pool.membership import NotNow
from .ledger import Elsewhere
from .shares import Member, View
from .tag import Said

if TYPE_CHECKING:
    from .settings import Fleet

MOST = 1023  # places: a share is said in ten bits
STALE_SECONDS = 0.1  # until a place is tried for again that there was no claim for
_ROUNDS = 4  # of claiming places that look free, before somebody else has
_RANDOM = random.Random()  # not the module's own: whoever seeds that must not have it drawn from

# What a member says, from the lowest bit: the first is always set. So much of each that the whole has 64.
_FIELDS = (("flag", 1), ("member", 16), ("number", 9), ("share", 10), ("least", 5), ("most", 10), ("demand", 8))
_CHECKED = sum(width for _, width in _FIELDS)
_CHECK = 31  # what is left of five bits
_BITS = _CHECKED + 5
_STEPS = 255 / math.log2(1 + 100 * MOST)  # of the demand: each is five percent more than the last

_EIGHT = " UNION ALL ".join(["SELECT 0 AS i", *(f"SELECT {i}" for i in range(1, 8))])
_PLACES = (
    "SELECT CONNECTION_ID(), p.n, IS_USED_LOCK(CONCAT({0}, p.n)), IS_USED_LOCK(CONCAT({0}, p.n, ':c')),"
    " IS_USED_LOCK(CONCAT({0}, p.n, ':0'))"
    f" FROM (SELECT a.i + 8 * b.i + 64 * c.i + 512 * d.i AS n FROM ({_EIGHT}) a, ({_EIGHT}) b, ({_EIGHT}) c,"
    " (SELECT 0 AS i UNION ALL SELECT 1) d) p WHERE p.n < {1} AND (IS_USED_LOCK(CONCAT({0}, p.n)) IS NOT NULL"
    " OR IS_USED_LOCK(CONCAT({0}, p.n, ':c')) IS NOT NULL OR p.n = {2})"
)
_WORDS = (
    "SELECT p.n, BIT_OR((IS_USED_LOCK(CONCAT({0}, p.n, ':', b.i)) IS NOT NULL) << b.i) FROM ({1}) p,"
    f" (SELECT x.i + 8 * y.i AS i FROM ({_EIGHT}) x, ({_EIGHT}) y) b GROUP BY p.n"
)

_PROXY = (
    "a proxy stands between this process and the server, whose sessions are not its own: connect straight, or have the"
    " processes see one another through a Redis: Fleet(redis=...)"
)


@dataclass(slots=True, eq=False)
class Held:
    """What one connection holds.

    :ivar place: the one that it has; None before it has one.
    :ivar claims: those that it claims, for itself and for others of the pool.
    :ivar bits: of what the member says, those that are set; None when it is not known, as to set them has failed.
    """

    conn: ref[Any]
    thread: int
    place: int | None = None
    claims: set[int] = field(default_factory=set)
    bits: set[int] | None = field(default_factory=set)


class MySQL:
    """Satisfies `ledger.Ledger`. A claim stands while all connections live that hold a part of it."""

    settings: Mapping[str, str] = {}
    asks_on_one = True
    takes_places = True
    fresh = 10.0
    lost = longest = math.inf

    def __init__(self, driver: Driver, fleet: Fleet, member: str) -> None:
        if fleet.budget > MOST:
            raise ValueError(f"budget ({fleet.budget}) of a fleet on MySQL must be {MOST} at most")
        self._driver = driver
        self._fleet = fleet
        self._member = member
        self._lock = Lock()  # guards the two below
        self._all: list[Held] = []
        self._taking: set[int] = set()  # places that a connection is about to have
        self._prefix = f"penstock:{fleet.name}:"

    def arguments(self) -> Mapping[str, Any]:
        return {}

    async def take(self, conn: Any) -> None:
        """Give *conn*, which has just been opened, one of the places that are claimed for it.

        :raises NotNow: when there is none any more.
        """
        held = self._held(conn)
        with self._lock:
            claims = {place: other for other in self._live() for place in other.claims}
            mine = {other.place for other in self._live()}
            free = [place for place in claims if place not in mine and place not in self._taking]
            if not free:
                raise NotNow("the claim has to be made again first", STALE_SECONDS)
            place = min(free)
            self._taking.add(place)
        try:
            calls = [_get(self._name(place, "c")), f"IS_USED_LOCK({self._name(place)})"]
            taken, claimed_by = await self._ask(conn, calls)
            if taken != 1 or claimed_by != claims[place].thread:
                raise NotNow("the claim has ended meanwhile", STALE_SECONDS)
            held.place = place
        finally:
            with self._lock:
                self._taking.discard(place)

    async def say(self, conn: Any, said: Said, count: int) -> tuple[View, Callable[[], bool]]:
        """Claim as many places as are said, as far as they are free, say so, and then see what all say.

        :raises Elsewhere: when there is a proxy between.
        """
        held = self._held(conn)
        if held.place is None:
            await self._sit_down(conn, held)
        if held.place is not None:
            await self._claim(conn, held, said.share)
            await self._publish(conn, held, said)
        used = await self._look(conn)
        with self._lock:
            live = self._live()
        parts = [other.conn for other in live if other.claims or other is held]
        view = await self._view(conn, used, said, _places(live), seated=held.place is not None)
        return view, lambda: all(self._lives(part()) for part in parts)

    def speaker(self) -> Any:
        """The connection that holds most of what is claimed and not in use: the only one that can give it up."""
        with self._lock:
            live = self._live()
        places = {held.place for held in live}
        best = max(live, key=lambda held: len(held.claims - places), default=None)
        return None if best is None or not best.claims - places else best.conn()

    async def leave(self, number: int) -> None:
        pass  # what it held has gone with its connections

    async def close(self) -> None:
        pass

    # ------------------------------------------------------------------------------------------ places

    async def _sit_down(self, conn: Any, held: Held) -> None:
        """A place for who has come with none. Tried in any order, so that two who come together seldom meet."""
        for place in self._free(await self._look(conn)):
            claimed, has = await self._ask(conn, [_get(self._name(place)), _get(self._name(place, "c"))])
            if claimed == has == 1:
                with self._lock:
                    held.place = place
                    held.claims.add(place)
                return
            got = [name for name, one in ((self._name(place), claimed), (self._name(place, "c"), has)) if one == 1]
            await self._release(conn, got)

    async def _claim(self, conn: Any, held: Held, share: int) -> None:
        """Have the pool claim *share* places, those that its connections have included."""
        for _ in range(_ROUNDS):
            with self._lock:
                missing = share - len(_places(self._live()))
            free = self._free(await self._look(conn))[:missing] if missing > 0 else []
            if not free:
                break
            calls = [each for n in free for each in (_get(self._name(n)), f"IS_FREE_LOCK({self._name(n, 'c')})")]
            answers = await self._ask(conn, calls)
            claimed = [n for n, got in zip(free, answers[::2], strict=True) if got == 1]
            empty = {n for n, is_free in zip(free, answers[1::2], strict=True) if is_free == 1}
            await self._release(conn, [self._name(n) for n in claimed if n not in empty])
            with self._lock:
                held.claims.update(empty.intersection(claimed))
        if missing < 0:
            await self._give_up(conn, held, -missing)

    async def _give_up(self, conn: Any, held: Held, count: int) -> None:
        """So many of the claims that this connection holds, as far as nobody of the pool has the place."""
        with self._lock:
            taken = {other.place for other in self._live()} | self._taking
            given = sorted(held.claims - taken, reverse=True)[:count]
            held.claims.difference_update(given)  # first: from now on none of them is taken
        await self._release(conn, [self._name(place) for place in given])

    async def _release(self, conn: Any, names: list[str]) -> None:
        if names:
            await self._ask(conn, [f"RELEASE_LOCK({name})" for name in names])

    def _free(self, used: Mapping[int, bool]) -> list[int]:
        free = [place for place in range(self._fleet.budget) if place not in used]
        _RANDOM.shuffle(free)
        return free

    # ------------------------------------------------------------------------------------------ saying and looking

    async def _publish(self, conn: Any, held: Held, said: Said) -> None:
        """One statement: what is set no more is let go, what is newly set is taken."""
        word = encode(int(self._member[:4], 16), said)
        bits = {bit for bit in range(_BITS) if word >> bit & 1}
        known, held.bits = held.bits, None
        cleared = sorted((set(range(_BITS)) if known is None else known) - bits)
        kept = bits & (known or set())
        newly = sorted(bits - kept)
        calls = [f"RELEASE_LOCK({self._name(held.place, bit)})" for bit in cleared]
        calls += [_get_once(self._name(held.place, bit)) for bit in newly]
        answers = await self._ask(conn, calls) if calls else ()
        # One that somebody else holds is tried for again with the next word; until then the check digits are wrong.
        held.bits = kept | {bit for bit, got in zip(newly, answers[len(cleared) :], strict=True) if got == 1}

    async def _look(self, conn: Any) -> dict[int, bool]:
        """The places that are not free, and of each whether its connection says something of its member.

        :raises Elsewhere: when there is a proxy between.
        """
        mine = conn._held.place  # so that there is a row at least
        rows = await self._driver.ask(
            conn, _PLACES.format(f"'{self._prefix}'", self._fleet.budget, 0 if mine is None else mine), ()
        )
        if any(session != self._driver.backend(conn) for session, *_ in rows):
            raise Elsewhere(_PROXY)
        return {n: word is not None for _, n, claimed, has, word in rows if claimed is not None or has is not None}

    async def _view(self, conn: Any, used: Mapping[int, bool], said: Said, mine: set[int], seated: bool) -> View:
        speaking = [n for n, speaks in used.items() if speaks]
        found: dict[int, Said] = {}
        if speaking:
            numbers = " UNION ALL ".join(f"SELECT {n} AS n" for n in speaking)
            for _, word in await self._driver.ask(conn, _WORDS.format(f"'{self._prefix}'", numbers), ()):
                if (read := decode(int(word))) is not None and _is_newer(read[1], found.get(read[0])):
                    found[read[0]] = read[1]
        found.pop(int(self._member[:4], 16), None)
        members = {f"{member:04x}": Member(f"{member:04x}", 0, what) for member, what in found.items()}
        members[self._member] = Member(self._member, len(mine) if seated else 1, said)
        silent = len(used) + (not seated) - sum(member.claim for member in members.values())
        if silent > 0:  # of members that have just come, or lost the connection that said so
            members["?"] = Member("?", silent, None)
        return View(self._fleet.budget, self._fleet.members, members, 0)

    # ------------------------------------------------------------------------------------------ connections

    def _held(self, conn: Any) -> Held:
        held: Held | None = getattr(conn, "_held", None)
        if held is None:
            held = conn._held = Held(ref(conn), self._driver.backend(conn))
            getattr(conn, "raw", conn)._in_fleet = True  # from now on its session is not reset
            with self._lock:
                self._all = [other for other in self._all if other.conn() is not None] + [held]
        return held

    def _live(self) -> list[Held]:
        return [held for held in self._all if self._lives(held.conn())]

    def _lives(self, conn: Any) -> bool:
        """As far as is known without asking. From any thread."""
        try:
            if conn is None or self._driver.status(conn) is Status.BROKEN:
                return False
            stirred = self._driver.probe(conn)(0)
            # While a statement runs, input is its answer; at any other time it is most likely the server's goodbye.
            return not (sockets.has_ended(stirred) if self._driver.status(conn) is Status.ACTIVE else stirred)
        except Exception:  # whatever a driver raises for a connection that is closed
            return False

    def _name(self, place: int | None, part: object = None) -> str:
        return f"'{self._prefix}{place}'" if part is None else f"'{self._prefix}{place}:{part}'"

    async def _ask(self, conn: Any, calls: list[str]) -> tuple[Any, ...]:
        """The answers to these calls, which are made from left to right."""
        return (await self._driver.ask(conn, f"SELECT {', '.join(calls)}", ()))[0]


def _get(name: str) -> str:
    return f"GET_LOCK({name}, 0)"


def _get_once(name: str) -> str:
    """Of a lock that may be held already: to get it twice would need two releases."""
    return f"IF(IS_USED_LOCK({name}) = CONNECTION_ID(), 1, {_get(name)})"


def _places(all_held: Iterable[Held]) -> set[int]:
    places: set[int] = set()
    for held in all_held:
        places |= held.claims
        if held.place is not None:
            places.add(held.place)
    return places


def encode(member: int, said: Said) -> int:
    """What is said, as a number of 64 bits; *demand* to five percent, *least* up to 31."""
    demand = min(255, round(math.log2(1 + 100 * max(0.0, said.demand)) * _STEPS))
    parts = {
        "flag": 1,
        "member": member,
        "number": said.number,
        "share": said.share,
        "least": min(31, said.least),
        "most": min(MOST, said.most),
        "demand": demand,
    }
    word = at = 0
    for name, width in _FIELDS:
        word |= (parts[name] % (1 << width)) << at
        at += width
    return word | (word % _CHECK) << _CHECKED


def decode(word: int) -> tuple[int, Said] | None:
    """The member, and what it says; None for what was read while it was being written."""
    body, check = word & ((1 << _CHECKED) - 1), word >> _CHECKED
    if not word & 1 or body % _CHECK != check:
        return None
    parts = {}
    for name, width in _FIELDS:
        parts[name] = body & ((1 << width) - 1)
        body >>= width
    demand = (2 ** (parts["demand"] / _STEPS) - 1) / 100
    return parts["member"], Said(parts["number"], parts["share"], parts["least"], parts["most"], demand)


def _is_newer(said: Said, than: Said | None) -> bool:
    """Numbers begin again after 511."""
    return than is None or 0 < (said.number - than.number) % 512 < 256
