"""What can be done about a pool of this process from its page."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from ...pool.base import BasePool
from ...pool.holders import CallSite
from ..sources import sources

logger = logging.getLogger("penstock.web")

TIMES = 10  # as large as it was made, that a pool may be made by the page
ANSWERS = 5.0  # seconds that another event loop has for it

_configured: WeakKeyDictionary[Any, int] = WeakKeyDictionary()  # sizes, as they were before the page first changed them


class Impossible(Exception):
    """The message may be shown."""


async def act(order: Mapping[str, Any]) -> str:
    """Do what *order* says: ``{"pool": ..., "do": "drain" | "resize" | "reclaim", ...}``. What was done, in words.

    Of several pools of that name in the process, each does it that can.

    :raises Impossible: when nothing has been changed.
    """
    name, what = order.get("pool"), order.get("do")
    pools = [each for each in sources() if each.name == name and isinstance(each, BasePool) and not each.closed]
    if not pools:
        raise Impossible("There is no such pool in this process.")
    if not isinstance(what, str) or what not in _DEEDS:
        raise Impossible(f"What can be done is {', '.join(_DEEDS)}.")
    done, why = None, None
    for pool in pools:
        try:
            done = await _DEEDS[what](pool, order)
        except Impossible as error:
            why = error
            continue
        logger.warning("%s: %s, by the page", pool.name, done)
    if done is None:
        raise why or Impossible("Nothing was done.")
    return done


async def _drain(pool: Any, order: Mapping[str, Any]) -> str:
    await _in_its_own_place(pool, pool.drain)
    return "drained: idle connections are replaced now, the others when they come back"


async def _resize(pool: Any, order: Mapping[str, Any]) -> str:
    size = order.get("max_size")
    if type(size) is not int or size < 1:
        raise Impossible("max_size must be a whole number, 1 or more.")
    most, why = _most(pool)
    if size > most:
        raise Impossible(f"max_size must be {most} or less, {why}. More than that is for the code to say.")
    before = pool._sizes[1]
    try:
        await _in_its_own_place(pool, pool.resize, min(pool.min_size, size), size)
    except (ValueError, TypeError) as error:
        raise Impossible(str(error)) from None
    return f"resized from at most {before} to at most {size}"


def _most(pool: Any) -> tuple[int, str]:
    """What a slip of the finger may not pass: it would take the connections of others."""
    fleet = pool.fleet()
    if fleet is not None:
        return fleet.budget, "the fleet's budget"
    configured = _configured.setdefault(pool, pool._sizes[1])
    return TIMES * configured, f"{TIMES} times what it was made with"


async def _reclaim(pool: Any, order: Mapping[str, Any]) -> str:
    site = order.get("site")
    if not isinstance(site, Mapping) or set(site) != set(CallSite._fields):
        raise Impossible("site must have file, line and function.")
    taken = CallSite(**site)
    suspects = sum(holder.suspected and holder.site == taken for holder in pool.holders())
    if not suspects:
        raise Impossible("No suspected leak of that line is out.")
    pool.reclaim(taken)
    leaks = "a suspected leak" if suspects == 1 else f"{suspects} suspected leaks"
    return f"takes back {leaks} of {taken}"


_DEEDS: dict[str, Callable[[Any, Mapping[str, Any]], Awaitable[str]]] = {
    "drain": _drain,
    "resize": _resize,
    "reclaim": _reclaim,
}


async def _in_its_own_place(pool: Any, method: Callable[..., Any], *args: Any) -> None:
    """A pool of asyncio lives in its event loop, which need not be ours; one of threads may take its time."""
    if asyncio.iscoroutinefunction(method):
        loop = pool._loop
        if loop is None or loop.is_closed():
            raise Impossible("The pool's event loop is over.")
        if not loop.is_running():
            raise Impossible("The pool's event loop does not run at the moment.")
        future = asyncio.run_coroutine_threadsafe(method(*args), loop)
        try:
            await asyncio.wait_for(asyncio.wrap_future(future), ANSWERS)
        except TimeoutError:
            raise Impossible(f"The pool's event loop did not answer within {ANSWERS:g} s.") from None
    else:
        await asyncio.to_thread(method, *args)
