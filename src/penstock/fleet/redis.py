"""The fleet as its members tell it to a Redis: for pools behind a transaction pooler, where connections have no names.

A hash for each fleet has one row for each member: what it claims, how many connections it has, and until when that
counts. One script says, drops what is out of date and returns the rest: one round trip, atomic, by Redis's own clock.

Redis cannot see a connection end. So a claim is a *lease*: it counts for `LEASE` after it was last made, whatever
becomes of its member. Everything else follows from that, and from a member's own clock, which counts from before it
asked, so that it is never behind Redis's idea of the same lease:

====== ================================================================================================================
0 s    The claim is made.
2 s    It is made again (`LONGEST`), and after a failure every second. So a lease survives one lost answer, or two.
4 s    Not made again: no connection is opened any more (`Redis.fresh`).
6 s    It is tried a last time, for a second at most, and then what is idle is closed (`Redis.lost`); 7 s at the latest.
8 s    The lease ends. Its share is another's, who notices within 2 s: a killed member's share is in use within 10 s.
====== ================================================================================================================

A connection that is in use at the end is not taken out of anybody's hands. Those in use by members that have lost touch
with a Redis that others reach are the only excess there can be. The member says so in the log, and stays with them.

What Redis has lost is not known to be free. A hash that is new, whose Redis has another run than before (restarted,
failed over to a replica) or that has lost what a member was told it had, *settles* for one lease: everybody says what
he has, and nobody gets more. A member that says nothing in that time has given up its own by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from inspect import iscoroutinefunction
from threading import Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from . import tag
from .clock import clock
from .shares import View, view
from .tag import Said

if TYPE_CHECKING:
    from .settings import Fleet

LEASE = 8.0  # seconds for which a claim counts
ASK_SECONDS = 1.0  # for an answer, whatever it takes: looking up a name, dialling, logging in
DRIFT = 1.0  # seconds that Redis's clock may gain on ours in a lease; more, and what is missing counts as lost
KEPT = 30 * 86400  # seconds for which it is known of a fleet without members that it has none

_SCHEMES = ("redis", "rediss", "unix")

# Rows: "<until, ms> <number> <connections> <tag>". Besides them: since when everything that was said is known, and of
# which run of the server. INFO may be forbidden to this user; then a restart that keeps old rows is not noticed.
# What comes late, after a newer one of the same member, is not written. A clock that was set back prolongs no lease.
_SAY = """
local key, me, number, told = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local lease, body = tonumber(ARGV[4]), ARGV[5]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local info = redis.pcall('INFO', 'server')
local all, since, before, mine, rows = redis.call('HGETALL', key), nil, nil, 0, {}
for i = 1, #all, 2 do
    local field, value = all[i], all[i + 1]
    if field == 'since' then
        since = tonumber(value)
    elseif field == 'run' then
        before = value
    else
        local till, nth, rest = string.match(value, '^(%d+) (%d+) (.+)$')
        if not till then
            return redis.error_reply('ERR field ' .. field .. ' is no claim of a fleet')
        end
        till, nth = tonumber(till), tonumber(nth)
        if field == me then
            mine = nth
        elseif till <= now then
            redis.call('HDEL', key, field)
        else
            if till > now + lease then
                redis.call('HSET', key, field, string.format('%.0f %.0f %s', now + lease, nth, rest))
            end
            rows[#rows + 1] = rest
        end
    end
end
local run = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or before or 'unknown'
if not since or since > now or before ~= run or mine < told then
    since = now
    redis.call('HSET', key, 'since', string.format('%.0f', since), 'run', run)
end
if number > mine then
    if body == '' then
        redis.call('HDEL', key, me)
    else
        redis.call('HSET', key, me, string.format('%.0f %.0f %s', now + lease, number, body))
    end
end
redis.call('EXPIRE', key, ARGV[6])
rows[#rows + 1] = body
return {math.max(0, since + lease - now), rows}
"""


def check(redis: Any) -> None:
    """:raises ValueError: (or TypeError) when it is no URL and no client. A URL is not shown: it may be secret."""
    if not isinstance(redis, str):
        if not callable(getattr(redis, "execute_command", None)):
            found = type(redis).__name__
            raise TypeError(f"redis must be a URL, a redis.Redis or a redis.asyncio.Redis, not a {found}")
        return
    try:
        url = urlsplit(redis)
        fits = url.scheme in _SCHEMES and (url.port is None or url.port > 0)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            "redis is no URL of a Redis: it must look like redis://user:password@host:6379/0, rediss://... (TLS) or"
            " unix:///path, and whatever is special in its password must be percent-encoded"
        )


class Redis:
    """Satisfies `ledger.Ledger`."""

    settings: Mapping[str, str] = {}
    asks_on_one = False
    takes_places = False
    fresh = 4.0
    lost = 6.0
    longest = 1.9  # 2 s, with what is left to chance

    def __init__(self, fleet: Fleet, member: str, is_async: bool) -> None:
        self._fleet = fleet
        self._member = member
        self._is_async = is_async
        self._client, self._ours = _client(fleet.redis, is_async)
        self._key = f"penstock:fleet:{fleet.name}"
        self._told = (0, -LEASE)  # the number of the last claim that Redis has confirmed, and when it was made
        self._asking = Lock()  # held while Redis is asked from a thread: one at a time, in order

    def arguments(self) -> Mapping[str, Any]:
        return {}

    async def take(self, conn: Any) -> None:
        pass

    async def say(self, conn: Any, said: Said, count: int) -> tuple[View, Callable[[], bool]]:
        """:raises ConnectionError: when Redis does not do it, for whatever reason."""
        fleet, at = self._fleet, clock()
        name = tag.write(fleet.name, self._member, fleet.service, said)
        settling, rows = await self._run(said.number, f"{count} {name}")
        self._told = (said.number, at)
        names = [(name, int(connections)) for connections, _, name in (_text(row).partition(" ") for row in rows)]
        seen = view(fleet.name, names, fleet.budget, fleet.members)
        return replace(seen, asked_on_one=False, settling=settling / 1000), lambda: True

    def speaker(self) -> None:
        return None  # each is as good as another

    async def leave(self, number: int) -> None:
        """:raises ConnectionError: when Redis does not do it, for whatever reason."""
        await self._run(number, "")
        self._told = (0, -LEASE)

    async def close(self) -> None:
        if self._ours:
            await self._client.aclose() if self._is_async else self._client.close()

    async def _run(self, number: int, body: str) -> Any:
        told, at = self._told
        valid = clock() - at < LEASE - DRIFT
        args = (_SAY, 1, self._key, self._member, number, told if valid else 0, int(LEASE * 1000), body, KEPT)
        try:
            if not self._is_async:
                return self._run_aside(args)
            async with asyncio.timeout(ASK_SECONDS):
                return await self._client.eval(*args)
        except TimeoutError:
            raise ConnectionError(f"Redis does not answer within {ASK_SECONDS:g} s") from None
        except Exception as error:
            what = " ".join(str(error).split()) or type(error).__name__
            if what.startswith("WRONGTYPE") or "is no claim of a fleet" in what:
                what = f"what is under {self._key} is not a fleet's: delete it, or give the fleet another name ({what})"
            raise ConnectionError(f"Redis: {what}") from error

    def _run_aside(self, args: tuple[Any, ...]) -> Any:
        """In a thread of its own: nothing else bounds the look-up of a name, or a client that tries again."""
        until = monotonic() + ASK_SECONDS
        if not self._asking.acquire(timeout=ASK_SECONDS):
            raise TimeoutError
        answer: Future[Any] = Future()

        def ask() -> None:
            try:
                answer.set_result(self._client.eval(*args))
            except BaseException as error:
                answer.set_exception(error)
            finally:
                self._asking.release()

        try:
            Thread(target=ask, name="penstock-fleet-redis", daemon=True).start()
        except BaseException:  # no thread could be had
            self._asking.release()
            raise
        return answer.result(max(0.0, until - monotonic()))


def _client(redis: Any, is_async: bool) -> tuple[Any, bool]:
    """A client for *redis*, and whether we made it."""
    if isinstance(redis, str):
        try:
            if is_async:
                from redis.asyncio import Redis as Client
            else:
                from redis import Redis as Client  # type: ignore[assignment]
        except ImportError:
            raise ImportError("Fleet(redis=...) needs the package redis: pip install 'penstock[redis]'") from None
        bounds: dict[str, Any] = {"socket_timeout": ASK_SECONDS, "socket_connect_timeout": ASK_SECONDS, "retry": None}
        return Client.from_url(redis, **bounds), True
    if iscoroutinefunction(redis.execute_command) is not is_async:
        pool, needed = ("an AsyncPool", "redis.asyncio.Redis") if is_async else ("a Pool", "redis.Redis")
        raise TypeError(f"the redis of {pool}'s fleet must be a URL or a {needed}, not a {type(redis).__module__} one")
    return redis, False


def _text(value: str | bytes) -> str:
    """Whether the client decodes is its maker's choice."""
    return value if isinstance(value, str) else value.decode()
