"""SQLAlchemy's record of a connection, with a place in our pool, and what is known of the connection in it.

A record outlives its connections: SQLAlchemy closes and opens them in place. So what the kernel and the driver know is
looked at here, at each checkout, and the pool beneath sees places only.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from time import monotonic, time
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sqlalchemy import exc
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.pool.base import _ConnectionRecord

from ... import drivers
from ...core import Slot
from ...drivers.base import Activity, Driver, Status
from ...pool.terms import declared

if TYPE_CHECKING:
    from asyncio import Task

    from .lender import Lender
    from .pool import PenstockPool

# Our drivers, by the package of their connections, or by SQLAlchemy's name.
_OURS = {
    "psycopg": "psycopg",
    "psycopg2": "psycopg2",
    "asyncpg": "asyncpg",
    "pymysql": "pymysql",
    "aiomysql": "aiomysql",
    "MySQLdb": "mysqlclient",
    "sqlite3": "sqlite3",
    "pysqlite": "sqlite3",
}

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
    :ivar idle_is_clean: where *state* tells what it told when the connection was met, *baseline*, SQLAlchemy's reset
        would do nothing.
    :ivar bound: its transactions begin with the limits of this lease.
    :ivar rested: since when it was in nobody's hands, by the monotonic clock.
    :ivar under_way: what prepares it for its holder, where that is a task of its own.
    """

    __slots__ = (
        "_met",
        "_owner",
        "_probe",
        "baseline",
        "bound",
        "driver",
        "idle_is_clean",
        "lender",
        "opened",
        "real",
        "rested",
        "slot",
        "state",
        "under_way",
    )

    baseline: Any
    idle_is_clean: bool
    _met: Any
    _probe: Callable[[int], object]
    state: Callable[[Any], object]
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
        self.under_way: Task[Any] | None = None
        self._part()

    def get_connection(self) -> Any:
        """The connection, opened if there is none, or none that is alive."""
        conn, owner, made = self.dbapi_connection, self._owner, self.starttime
        if (
            conn is None
            or conn is not self._met
            or self._probe(0)
            or ((owner._pre_ping or self.rested <= owner._doubted) and self._must_be_asked())
            or made < owner._invalidate_time
            or made < self._soft_invalidate_time
            or (owner._recycle >= 0 and time() - made > owner._recycle)
        ):
            conn = owner._prepare(self)
        terms = declared()
        if terms is not None and (terms.reading or terms.until < math.inf):  # or it holds nothing for the database
            self._bind(terms.until, terms.reading)
        return conn

    def prepare(self) -> Any:
        """The same, by asking the server, or SQLAlchemy, which replaces it where it must."""
        conn = self.dbapi_connection
        if conn is not None and conn is self._met:
            if self._probe(0):
                self._look()
            elif self._must_be_asked():
                self._ask()
        conn = super().get_connection()
        if conn is not self._met:
            self._meet(conn)
        return conn

    def settled(self) -> None:
        """It comes back from whoever had it, after SQLAlchemy's own reset."""
        if self.dbapi_connection is None or self.dbapi_connection is not self._met:  # it was invalidated, or detached
            self._part()
        driver = self.driver
        if driver is None:
            return
        if self.bound:
            self.bound = False
            driver.unbind(self.real)
        if driver.state(self.real) != self.baseline and driver.status(self.real) is Status.IDLE:
            if (reason := driver.unfit(self.real)) is not None:
                self._owner._invalidate_time = time()  # as of one, so of all that were made before
                self.invalidate(exc.DisconnectionError(f"this connection {reason.value}"))
            else:
                self.baseline = driver.adopt(self.real)

    def _checkin_failed(self, err: BaseException, _fairy_was_created: bool = True) -> None:
        if self.lender.goes_on_without(self):
            return
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

    def made(self, conn: Any) -> None:
        """A new connection, before SQLAlchemy's `connect` events."""
        self.real = self._owner._dialect.get_driver_connection(conn)
        driver = _driver_of(type(self.real), self._owner._is_asyncio)  # type: ignore[arg-type]
        if driver is not None:
            with suppress(AttributeError, TypeError):  # not of the class that the driver takes note with, nor to be it
                driver.adopt(self.real)
                self.driver = driver

    def _meet(self, conn: Any) -> None:
        """The same connection after them: as it is now is how it is left behind by those who are done with it."""
        self.lender.connected(time() - self.starttime)
        self.opened = True
        self._met = conn
        if self.driver is not None:
            self.baseline = self.driver.adopt(self.real)
            self.state = self.driver.state
            self._probe = self.driver.probe(self.real)
            # Of asyncpg's transaction SQLAlchemy keeps an account of its own, which its rollback sets right.
            self.idle_is_clean = not hasattr(conn, "_started")

    def _part(self) -> None:
        """Keep nothing of a connection that is gone."""
        self._met = self.baseline = self.real = self.driver = None
        self._probe = bool  # of 0
        self.idle_is_clean = False
        self.bound = False

    def _look(self) -> None:
        """The kernel has something to tell: is it the end?"""
        assert self.driver is not None
        alive = self.driver.look(self.real)
        if alive is None:
            self._ask()
        elif not alive:
            self._found_dead()

    def _must_be_asked(self) -> bool:
        """What the kernel has nothing against is asked all the same where there is reason to; with a round trip."""
        owner = self._owner
        if self.driver is None or not (owner._pre_ping or self.rested <= owner._doubted):
            return False  # where the driver is not known, SQLAlchemy's own pre-ping asks, each time
        if self.rested > owner._doubted and monotonic() - self.rested < PING_AFTER:
            self.fresh = True  # which spares it that
            return False
        return True

    def _ask(self) -> None:
        dialect = self._owner._dialect
        if not isinstance(dialect, Dialect):
            return  # a pool without an engine: nobody knows how to ask
        if dialect._do_ping_w_event(self._met):
            self.fresh = True
        else:
            self._found_dead()

    def _found_dead(self) -> None:
        self._owner._doubted = monotonic()  # any other may be dead too, in ways that the kernel does not know of yet
        self.lender.lost()
        self.invalidate(exc.DisconnectionError("the server has closed the connection"))

    def _bind(self, until: float, reading: bool) -> None:
        if self.driver is not None and not self.bound:
            self.bound = True
            self.driver.bind(self.real, until, reading)


def note(dialect: Any, record: Any, args: list[Any], params: dict[str, Any]) -> None:
    """SQLAlchemy's `do_connect` event: let the driver's connection be of the class that takes note, where it is one."""
    driver = _driver_named(getattr(dialect, "driver", ""), dialect.is_async)
    noting = getattr(driver, "noting", None)
    stands_in = not dialect.is_async and not isinstance(dialect.dbapi, ModuleType)  # for the driver: as in a test
    if noting is not None and not stands_in and isinstance(record, Record):
        with suppress(TypeError):  # the user's own factory is a function
            noting(params)


def end_of(real: Any) -> int | None:
    """A descriptor that reads as ended once the server has let go of a blocking connection, where that is known."""
    if _driver_of(type(real), False) is None:  # type: ignore[arg-type]
        return None
    with suppress(Exception):  # it is closed already, or has no socket
        return os.dup(real.fileno())
    return None


@cache
def _driver_of(kind: type, is_async: bool) -> Driver | None:
    """Ours for connections of this class, or of one that it derives from."""
    found = (_driver_named(base.__module__.partition(".")[0], is_async) for base in kind.__mro__)
    return next((driver for driver in found if driver is not None), None)


@cache
def _driver_named(name: str, is_async: bool) -> Driver | None:
    """Ours that can take note of connections that SQLAlchemy makes: of all, or of those made with `noting`."""
    try:
        return drivers.load(_OURS[name], None, is_async)
    except (KeyError, ValueError, ImportError):
        return None
