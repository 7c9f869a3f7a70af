"""The names of the package psycopg_pool, for whatever imports that: its four classes and three exceptions.

``import penstock.compat.psycopg_pool as psycopg_pool``, or, for a framework that imports psycopg_pool itself, `install`
before it does. What differs is told in docs/compat.md.
"""

from __future__ import annotations

import sys

from . import abc, errors, pool, pool_async
from .errors import PoolClosed, PoolTimeout, TooManyRequests
from .pool import ConnectionPool, NullConnectionPool
from .pool_async import AsyncConnectionPool, AsyncNullConnectionPool

__all__ = [
    "AsyncConnectionPool",
    "AsyncNullConnectionPool",
    "ConnectionPool",
    "NullConnectionPool",
    "PoolClosed",
    "PoolTimeout",
    "TooManyRequests",
]

__version__ = "3.3.3"  # the release of psycopg_pool that this is shaped like


def install() -> None:
    """Have ``import psycopg_pool`` find this module from now on, in the whole process.

    :raises RuntimeError: when psycopg_pool is imported already: whoever did that has its classes.
    """
    ours = {
        "": sys.modules[__name__],
        ".abc": abc,
        ".errors": errors,
        ".pool": pool,
        ".null_pool": pool,
        ".pool_async": pool_async,
        ".null_pool_async": pool_async,
    }
    if sys.modules.get("psycopg_pool") not in (None, ours[""]):
        raise RuntimeError("psycopg_pool is imported already: call penstock.compat.psycopg_pool.install() before that")
    sys.modules.update({f"psycopg_pool{name}": module for name, module in ours.items()})
