"""SQLAlchemy's record of a connection, with a place in our pool, and what is known of the connection in it.

A record outlives its connections: SQLAlchemy closes and opens them in place. So what the kernel and the driver know is
looked at here, at each checkout, and the pool beneath sees places only.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from time import monotonic, time
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import exc
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.pool.base import _ConnectionRecord

from ... import drivers
from ...core import Slot
from ...drivers.base import Activity, Driver, Status
from ...pool.terms import declared

if TYPE_CHECKING:
    from .lease import Lease
    from .lender import Lender
    from .pool import PenstockPool

# With pre_ping, a connection that was in use this many seconds ago is not asked: the kernel would know of its end. One
# that rested for longer is, as a firewall may have forgotten it without a word to either side.
PING_AFTER = 5.0


class Record(_ConnectionRecord):
    """One connection's place.

    :ivar lender: the pool beneath.
    :ivar slot: the place, as that counts it.
    :ivar driver: ours for connections of this kind; None if there is none, and then nothing is known of them.
    :ivar real: the driver's own connection, as *driver* takes it.
    :ivar opened: there was a connection in it at least once.
    :ivar bound: its transactions begin with the limits of this lease.
    :ivar rested: since when it was in nobody's hands, by the monotonic clock.
    """

    __slots__ = (
        "_baseline",
        "_met",
        "_owner",
        "_probe",
        "bound",
        "driver",
        "lender",
        "opened",
        "real",
        "rested",
        "slot",
    )

    _baseline: Any
    _met: Any
    _probe: Callable[[int], object]
    driver: Driver | None
    real: Any

    def __init__(self, owner: PenstockPool, lender: Lender, slot: Slot) -> None:
        super().__init__(owner, connect=False)
        self._owner = owner
        self.lender = lender
        self.slot = slot
        self.opened = False
        self.bound = False
        self.rested = 0.0
        self._part()

    def get_connection(self) -> Any:
        """The connection, opened if there is none, or none that is alive."""
        if self._met is not None and self.dbapi_connection is self._met:
            if self._probe(0) and not self._looks_alive():
                self._found_dead()
            elif self._owner._pre_ping or self.rested <= self._owner._doubted:
                self._trust()
        conn = super().get_connection()
        if conn is not self._met:
            self._meet(conn)
        if (terms := declared()) is not None:
            self._bind(terms.until, terms.reading)
        return conn

    def is_at_rest(self, lease: Lease) -> bool:
        """Whether it is known that there is nothing to be reset, and nobody wants to be told."""
        dispatch, watch = self._owner.dispatch, cast("Any", lease._finalizer)
        return (
            self.driver is not None
            and lease.dbapi_connection is self._met
            and self.driver.state(self.real) == self._baseline
            and self.fairy_ref is watch
            and not self.finalize_callback
            and not dispatch.reset
            and not dispatch.checkin
        )

    def settled(self) -> None:
        """It comes back from whoever had it, after SQLAlchemy's own reset."""
        if self.dbapi_connection is not self._met:  # it was invalidated, or detached
            self._part()
        driver = self.driver
        if driver is None:
            return
        if self.bound:
            self.bound = False
            driver.unbind(self.real)
        if driver.state(self.real) != self._baseline and driver.status(self.real) is Status.IDLE:
            if (reason := driver.unfit(self.real)) is not None:
                self.invalidate(exc.DisconnectionError(f"this connection {reason.value}"))
            else:
                self._baseline = driver.adopt(self.real)

    def _checkin_failed(self, err: BaseException, _fairy_was_created: bool = True) -> None:
        if self.dbapi_connection is None and not _fairy_was_created:
            self.lender.connect_failed(err, time() - self.starttime)
        super()._checkin_failed(err, _fairy_was_created)

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        super().invalidate(e, soft)
        if self.dbapi_connection is None:
            self._part()

    # ------------------------------------------------------------------------------------------ for the pool beneath

    def status(self) -> Status:
        return Status.IDLE if self.driver is None or self.dbapi_connection is None else self.driver.status(self.real)

    def activity(self) -> Activity | None:
        """None: the driver keeps no account of it."""
        return None if self.driver is None or self.dbapi_connection is None else self.driver.activity(self.real)

    # ------------------------------------------------------------------------------------------ what is known

    def _meet(self, conn: Any) -> None:
        """A new connection, after SQLAlchemy's `connect` events."""
        self.lender.connected(time() - self.starttime)
        self.opened = True
        self._met = conn
        self.real = self._owner._dialect.get_driver_connection(conn)
        self.driver = driver = _driver_of(type(self.real), self._owner._is_asyncio)  # type: ignore[arg-type]
        if driver is not None:
            self._baseline = driver.adopt(self.real)
            self._probe = driver.probe(self.real)

    def _part(self) -> None:
        """Keep nothing of a connection that is gone."""
        self._met = self._baseline = self.real = self.driver = None
        self._probe = bool  # of 0
        self.bound = False

    def _looks_alive(self) -> bool:
        return self.driver is not None and self.driver.look(self.real)

    def _found_dead(self) -> None:
        self._owner._found_dead()
        self.invalidate(exc.DisconnectionError("the server has closed the connection"))

    def _trust(self) -> None:
        """What the kernel has nothing against is asked all the same where there is reason to; with a round trip."""
        owner = self._owner
        if self.driver is None:
            return  # SQLAlchemy's own pre-ping asks, each time
        if self.rested > owner._doubted and monotonic() - self.rested < PING_AFTER:
            self.fresh = True  # which spares it that
            return
        dialect = owner._dialect
        if not isinstance(dialect, Dialect):
            return  # a pool without an engine: nobody knows how to ask
        if dialect._do_ping_w_event(self._met):
            self.fresh = True
        else:
            self._found_dead()

    def _bind(self, until: float, reading: bool) -> None:
        if self.driver is not None and not self.bound:
            self.bound = True
            self.driver.bind(self.real, until, reading)


@cache
def _driver_of(kind: type, is_async: bool) -> Driver | None:
    """Ours for connections of this class, or of one that it derives from."""
    for base in kind.__mro__:
        with suppress(ValueError, ImportError):
            return drivers.load(base.__module__.partition(".")[0], None, is_async)
    return None
