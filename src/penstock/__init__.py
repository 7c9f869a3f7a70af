"""Penstock keeps a service's database connections below the line: plan it, hold it, watch it, explain it, prove it."""

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from .guard.foreign import Watched

__version__ = "0.1.0"


def watch(pool: Any, *, name: str | None = None, leak_after: float | None = 60.0) -> "Watched":
    """Observe a pool that is not ours, without replacing anything: its holders, leaks, figures and events.

    From now on it is in the metrics, alerts, page and telemetry, as a `Pool` is. One that is watched already is not
    watched twice: there is one answer for all who ask.

    :param pool: an Engine, AsyncEngine or Pool of SQLAlchemy's; a pool of psycopg_pool's, asyncpg's, psycopg2's or
        DBUtils' (PooledDB); ``django.db.connections``.
    :param name: for logs, events and metrics; by default the pool's own, or the database's.
    :param leak_after: idle in hand for so many seconds, a holder is reported, once; None for never.
    :raises TypeError: when it is none of these. A pool of ours tells of itself, and needs no watching.
    :raises ValueError: naming the argument, what was found and what it may be.
    """
    from .guard import foreign  # here, because most programs have none to watch

    return foreign.watch(pool, name=name, leak_after=leak_after)


def _watch(pool: Any) -> None:
    """What observes is loaded when the first pool opens: it stands above the pools, and they know nothing of it."""
    from .observe import begin

    begin(pool)


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
    "watch",
]
