"""Penstock keeps a service's database connections below the line: plan it, hold it, watch it, explain it, prove it."""

from typing import Any

from .core import Multiplex, Overload, Priority
from .errors import (
    BudgetError,
    ConnectionLost,
    DatabaseUnavailable,
    NestedCheckout,
    NotStandalone,
    Overloaded,
    PoolClosed,
    PoolDeadlock,
    PoolError,
    PoolExhausted,
    PoolTimeout,
    ResultTooLarge,
    StatementTimeout,
    TooManyRequests,
    WrongEventLoop,
)
from .fleet import Fleet
from .multiplex.aio import AsyncPool
from .pool import registry
from .pool.holders import CallSite, Holder
from .pool.snapshot import Snapshot
from .pool.sync import Pool
from .pool.terms import deadline

__version__ = "0.1.0"


def _watch(pool: Any) -> None:
    """What observes is loaded when the first pool opens: it stands above the pools, and they know nothing of it."""
    from .observe import watch

    watch(pool)


registry.watch_with(_watch)

__all__ = [
    "AsyncPool",
    "BudgetError",
    "CallSite",
    "ConnectionLost",
    "DatabaseUnavailable",
    "Fleet",
    "Holder",
    "Multiplex",
    "NestedCheckout",
    "NotStandalone",
    "Overload",
    "Overloaded",
    "Pool",
    "PoolClosed",
    "PoolDeadlock",
    "PoolError",
    "PoolExhausted",
    "PoolTimeout",
    "Priority",
    "ResultTooLarge",
    "Snapshot",
    "StatementTimeout",
    "TooManyRequests",
    "WrongEventLoop",
    "deadline",
]
