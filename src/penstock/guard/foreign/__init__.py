"""Pools that are not ours, told of as ours are: who holds what, since when, and what is never given back.

Nothing is replaced, and nobody waits for it. What the pool tells by itself is asked of it; what it does not is heard
from its own events, or from its methods. One file a kind of pool.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from threading import RLock
from typing import Any
from weakref import WeakValueDictionary

from ...core.settings import check_seconds
from ...observe import sources
from ...pool.base import BasePool
from . import looking
from .watched import Theirs, Watched, weakly

__all__ = ["Watched", "watch"]

# By the module that the class of a pool comes from, or one that it derives from.
_FILES = {
    "sqlalchemy": "sqlalchemy",
    "psycopg_pool": "psycopg_pool",
    "asyncpg": "asyncpg",
    "django": "django",
    "psycopg2": "psycopg2_pool",
    "dbutils": "dbutils",
}
_WHAT = (
    "an Engine, an AsyncEngine or a Pool of SQLAlchemy's, a pool of psycopg_pool's, asyncpg's, psycopg2's or DBUtils',"
    " or django.db.connections"
)
_known: WeakValueDictionary[int, Watched] = WeakValueDictionary()
_lock = RLock()  # guards it; a collection under it may call back


def watch(pool: Any, *, name: str | None, leak_after: float | None) -> Watched:
    """See `penstock.watch`."""
    if leak_after is not None:
        check_seconds("leak_after", leak_after)
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a text, not {name!r}")
    if isinstance(pool, BasePool):
        raise TypeError(f"{pool.name} is Penstock's own pool: it tells of itself by holders(), snapshot() and listen()")
    pool = getattr(pool, "sync_engine", pool)  # an AsyncEngine is a face of that
    with _lock:
        known = _known.get(id(pool))
        if known is not None and known.watches(pool):
            known.told_again(name, leak_after)
            return known
        watched = _attached(pool, name, leak_after)
        _known[id(pool)] = watched
        watched.on_stop = partial(_forget, weakly(watched))
    sources.add(watched)
    looking.look_after(watched)
    return watched


def _forget(weak: Any) -> None:
    watched: Watched = weak()
    looking.forget(watched)
    sources.remove(watched)
    for key in [key for key, known in _known.items() if known is watched]:
        del _known[key]


def _attached(pool: Any, name: str | None, leak_after: float | None) -> Watched:
    """:raises TypeError: when no file knows of such a pool."""
    for base in type(pool).__mro__:
        file = _FILES.get(base.__module__.partition(".")[0])
        if file is not None:
            kind: Theirs | None = import_module(f"{__name__}.{file}").known(pool)
            if kind is not None:
                return Watched(kind, pool, name, leak_after)
    raise TypeError(f"watch() takes {_WHAT}, and not a {type(pool).__module__}.{type(pool).__qualname__}")
