"""What SQLAlchemy's users hold: its own proxy of a connection, with a shorter way out and back."""

from __future__ import annotations

from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any
from weakref import ref

from sqlalchemy.pool.base import _ConnectionFairy, _finalize_fairy

if TYPE_CHECKING:
    from .pool import PenstockPool
    from .record import Record


class Lease(_ConnectionFairy):
    """A connection in somebody's hands.

    Where the protocol tells that it is idle, out of any transaction, SQLAlchemy's reset would do nothing: it is left
    out, unless somebody listens.
    """

    __slots__ = ()

    def __init__(self, pool: PenstockPool, conn: Any, record: Record, echo: Any) -> None:
        self._pool = pool
        self._counter = 0
        self.dbapi_connection = conn
        self._connection_record = record
        self._echo = echo
        watch = Watch(self, _dropped)
        watch.record = record
        self._finalizer = record.fairy_ref = watch  # type: ignore[assignment]
        record.slot.baseline = record  # or it would go with a lease that is dropped, and nothing would bring it back

    def _checkin(self, transaction_was_reset: bool = False) -> None:
        record: Any = self._connection_record
        if (
            record is None
            or not record.idle_is_clean
            or record.state(record.real) != record.baseline
            or self.dbapi_connection is None
            or record.finalize_callback
            or self._echo
            or self._pool.dispatch.reset
            or self._pool.dispatch.checkin
        ):
            super()._checkin(transaction_was_reset)
            return
        self._finalizer = _NOBODY  # type: ignore[assignment]
        self.dbapi_connection = self._connection_record = record.fairy_ref = None  # type: ignore[assignment]
        record.lender.rest(record)


class Watch(ref[Lease]):
    """Brings a connection back whose lease was dropped. SQLAlchemy's `weakref.finalize`, in a third of the time."""

    __slots__ = ("record",)

    record: Record | None

    def detach(self) -> None:
        self.record = None


class Nobody:
    """Stands where a lease had its watch."""

    def detach(self) -> None:
        pass


_NOBODY = Nobody()
_BY_REF = "ref" in signature(_finalize_fairy).parameters  # how SQLAlchemy 2.0 is told of a drop


def _dropped(watch: Any) -> None:
    """Called by the garbage collector in the midst of anything, our own work on the pool included."""
    record, watch.record = watch.record, None
    if record is not None:
        record.slot.dropped = True  # before anybody asks who holds it
        record.lender.take_up(partial(_bring_back, watch, record))


def _bring_back(watch: Any, record: Record) -> None:
    pool = record._owner
    told = {"ref": watch} if _BY_REF else {"is_gc_cleanup": True}
    _finalize_fairy(None, record, pool, echo=pool._should_log_debug(), **told)
