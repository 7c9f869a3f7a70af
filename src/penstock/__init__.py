"""Penstock keeps a service's database connections below the line: plan it, hold it, watch it, explain it, prove it."""

from .core import Overload, Priority
from .errors import (
    DatabaseUnavailable,
    NestedCheckout,
    Overloaded,
    PoolClosed,
    PoolDeadlock,
    PoolError,
    PoolExhausted,
    PoolTimeout,
    TooManyRequests,
    WrongEventLoop,
)
from .pool.aio import AsyncPool
from .pool.holders import CallSite, Holder
from .pool.snapshot import Snapshot
from .pool.sync import Pool
from .pool.terms import deadline

__version__ = "0.1.0"

__all__ = [
    "AsyncPool",
    "CallSite",
    "DatabaseUnavailable",
    "Holder",
    "NestedCheckout",
    "Overload",
    "Overloaded",
    "Pool",
    "PoolClosed",
    "PoolDeadlock",
    "PoolError",
    "PoolExhausted",
    "PoolTimeout",
    "Priority",
    "Snapshot",
    "TooManyRequests",
    "WrongEventLoop",
    "deadline",
]
