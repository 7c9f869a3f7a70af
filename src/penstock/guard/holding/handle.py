"""What the program takes for a connection, and the one of the pool's that it has while it needs it.

A handle that is in no transaction and has changed nothing about its session does not need its connection: when somebody
waits for one, it is given up, and another one taken at the next use. So what is kept for later (by a thread, by a
module, by a pool of the program's own) keeps nobody waiting.

The order matters in two places. Whoever waits is queued first, and looks then for a handle that can give up its
connection (`Database.make_room`). Whoever has used one puts it down first, and looks then whether somebody waits
(`Handle.leave`). Whichever comes second sees the other.
"""

from __future__ import annotations

import gc
import re
import threading
from collections.abc import Callable
from functools import partial
from sys import _getframe
from threading import Lock, get_ident
from time import monotonic
from types import CodeType
from typing import Any
from weakref import WeakSet, ref

from ... import errors
from ...drivers.base import Status
from ...drivers.session import ANYTHING, Touched
from .. import requests
from ..where import asked
from . import pools
from .functions import may_hide

_NOTHING = Touched.NOTHING
_CLIENT = Touched.CLIENT
_STICKY_SECONDS = 1.0
_FRESH_SECONDS = 0.02  # for which a connection stays with who has just connected, and is about to use it
_READS = re.compile(
    r"\s*\(?\s*(?:select|show|explain|describe|desc|values|table|fetch|commit|rollback)\b"
    r"(?!.*\b(?:nextval|sql_calc_found_rows|for\s+(?:no\s+key\s+)?(?:update|share|key))\b)",
    re.IGNORECASE | re.DOTALL,
)
_LAST = re.compile(
    r"\b(?:last_insert_id|row_count|found_rows|lastval|currval)\s*\(|@@(?:identity|last_insert_id)\b", re.I
)
_ends = threading.local()


def reads(statement: Any) -> bool:
    """Whether *statement* is a single one that only reads, by its first word."""
    text = _text(statement)
    return _READS.match(text) is not None and ";" not in text.rstrip("; \n\t")


def asks_for_last(statement: Any) -> bool:
    """Whether *statement* asks the session what the one before has done."""
    return _LAST.search(_text(statement)) is not None


def hides(statement: Any, mysql: bool) -> bool:
    """Whether *statement* may change its session without saying so."""
    text = _text(statement)
    return may_hide(text, mysql) if text else True


def _text(statement: Any) -> str:
    if isinstance(statement, (bytes, bytearray)):
        return statement.decode(errors="replace")
    if isinstance(statement, str):
        return statement
    try:
        return str(statement.as_string())  # psycopg's composed SQL
    except Exception:
        return ""  # it is the driver's to say what is wrong with it


class Handle:
    """One connection of the program's: closed, with a connection of the pool's, or able to take one.

    :ivar conn: the pool's connection; None while it has none.
    :ivar kept: what its owner has set on the connection object, to be set again on the next one.
    :ivar replay: statements that set up its session, to be repeated on the next connection.
    :ivar used: when it was last used, by the monotonic clock.
    :ivar shared: whether another thread than the one that opened it has used it.
    :ivar over: what its use raises; None while it can be used.
    :ivar wrote: whether a statement since the last commit or rollback may have written.
    :ivar unsure: whether something has run over this connection that may have changed its session unseen.
    :ivar used_it: whether anything has been done with this connection.
    :ivar moved: whether it has had several connections since one wrote: no session knows any more what was written.
    """

    def __init__(self, kind: Kind, pool: pools.HeldPool, timeout: float | None) -> None:
        self.kind = kind
        self.pool = pool
        self.conn: Any = None
        self.kept: dict[str, Any] = {}
        self.replay: dict[str, str] = {}
        self.used = monotonic()
        self.shared = False
        self.over: Callable[[], Exception] | None = None
        self.closed = False
        self.cursors: WeakSet[Any] = WeakSet()
        self.wrote = self.inserted = self.moved = False
        self.unsure = self.used_it = False
        self.leaving = False  # nobody refers to it any more, or what it was opened for has ended: it is about to part
        self.fresh = True  # it has not been used yet
        self._timeout = timeout
        self._thread = get_ident()
        self._start_anew()

    def _start_anew(self) -> None:
        self._lock = Lock()  # guards what follows, and `conn`
        self._busy = 0  # uses under way
        self.pinned = 0  # blocks that expect to find the same connection at their end

    def open(self, facade: Any) -> None:
        """The first connection, for the *facade* that the program gets. Raises what connecting raises."""
        database = self.pool.database
        self.fresh = True
        with self._lock:
            self._attach()
        self.used = monotonic()
        database.handles.add(self)
        self._ref = ref(facade, self._dropped)
        _tell_of_end(self)
        request = requests.current()
        if request is not None and not _is_of_a_pool():
            request.at_end(partial(_release, ref(self)))

    def reopen(self, facade: Any) -> None:
        """After it was closed, or has been lost: as new."""
        self.close()
        self.over, self.closed, self.kept, self.replay = None, False, {}, {}
        self.open(facade)

    # ------------------------------------------------------------------------------------------ using it

    def enter(self) -> Any:
        """The connection, which stays with this handle until `leave`. Raises when there is none to be had."""
        with self._lock:
            if self.conn is None:
                self._attach()
            self._busy += 1
            self.fresh = False
            self.used_it = True
            if not self.shared and get_ident() != self._thread:
                self.shared = True
            return self.conn

    def leave(self) -> None:
        self.used = monotonic()
        with self._lock:
            self._busy -= 1
        if self.pool.database.waited_for or self.kind.driver.status(self.conn) is Status.BROKEN:
            self.give_up()

    def states(self, statement: Any) -> None:
        """The program is about to execute *statement*."""
        if not reads(statement):
            self.wrote = self.inserted = True
            self.moved = False
        if not self.unsure and hides(statement, self.kind.mysql):
            self.unsure = True
        if asks_for_last(statement):
            self.pool.database.sticky = True
            if self.moved:
                raise self.kind.lost_error(
                    "the statement asks what its session has written last, and the connection has been given up since:"
                    " do both in one transaction. From now on it is kept for a second (`penstock run --hold`)"
                )

    def check(self) -> None:
        if self.over is not None:
            raise self.over()

    def _attach(self) -> None:
        self.check()
        code, lasti = pools.site()
        conn = self.kind.borrow(self, self._timeout, code, lasti)
        self.unsure = self.used_it = False
        try:
            if self.kept:
                self.kind.apply(conn, self.kept)
            for statement in self.replay.values():
                self.kind.repeat(conn, statement)
                self.used_it = True
        except BaseException:
            self._give_back(conn)
            raise
        self.wrote = False
        self.moved = self.inserted
        self.conn = conn

    # ------------------------------------------------------------------------------------------ giving it up

    def may_come_back(self) -> bool:
        """Whether this connection may be given back by somebody other than the thread that took it."""
        conn = self.conn
        return self.leaving or self.shared or conn is None or self.kind.is_clean(conn)

    def give_up(self, hard: bool = False) -> bool:
        """Give back the connection, if it is not needed now. Whether it was.

        *hard*: or else somebody would wait in vain, so that a transaction which has only read is not needed either.
        """
        if not self._lock.acquire(blocking=False):
            return False  # it is being taken up, or put down: who does that looks afterwards whether somebody waits
        try:
            conn = self.conn
            if conn is None or self._busy or (self.fresh and monotonic() - self.used < _FRESH_SECONDS):
                return False
            if self.kind.driver.status(conn) is Status.BROKEN:
                self._bury(conn)
            elif self._needs(conn, hard):
                return False
            else:
                self._part(conn)
        finally:
            self._lock.release()
        return True

    def _needs(self, conn: Any, hard: bool) -> bool:
        if self.pinned or self.unsure or self._may_be_asked():
            return True
        return not self.kind.is_spare(self, conn) and not (hard and self.kind.is_dispensable(self, conn))

    def _may_be_asked(self) -> bool:
        """Whether the next statement may ask the session what it has written last."""
        return self.pool.database.sticky and self.inserted and monotonic() - self.used < _STICKY_SECONDS

    def _bury(self, conn: Any) -> None:
        """The connection has ended, and so has the program's."""
        self.over = self.kind.ended_error
        self.conn = None
        self.pool.take_in(conn)

    def _part(self, conn: Any) -> None:
        if self.kind.driver.status(conn) is not Status.BROKEN:
            self.kept = self.kind.keep(conn)
        self.conn = None
        self._give_back(conn)

    def _give_back(self, conn: Any) -> None:
        """What was done with it may have changed its session in ways that nobody has seen."""
        if self.used_it:
            conn._touched |= self.kind.everything
        self.pool.take_in(conn)

    def close(self) -> bool:
        """For good. False if it was closed already."""
        with self._lock:
            if self.closed:
                return False
            self.closed = True
            self.over = self.kind.closed_error
            conn, self.conn = self.conn, None
        self.pool.database.handles.discard(self)
        if conn is not None:
            self.kind.forget_kept(conn)
            self._give_back(conn)
        return True

    def release(self, why: str) -> None:
        """What it was opened for is over, and most likely it is forgotten. What it was in the midst of is undone.

        It can be used again, unless that would be to go on with what is lost.
        """
        if self.shared or not self._lock.acquire(blocking=False):
            return
        self.leaving = False
        try:
            conn = self.conn
            if conn is None or self._busy or self.pinned:
                return
            lost = not self.kind.is_clean(conn) and not self.kind.undoes(self, conn)
            if lost and not self.closed:
                self.over = lambda: self.kind.lost_error(
                    f"{why}, and the connection was taken back; its transaction was rolled back, its session reset."
                    " Close it, and connect where the work is done (`penstock run --hold`; PENSTOCK=off leaves"
                    " connections alone)"
                )
            self._part(conn)
        finally:
            self._lock.release()

    def _dropped(self, _: object) -> None:
        # In the midst of anything: no lock, no I/O.
        self.leaving = True
        self.pool._tell(self._close_aside)

    def _close_aside(self) -> None:
        if not self.pool._spawn(self.close):
            self.close()

    def spare_aside(self) -> None:
        """The thread that opened it has ended, and somebody may go on with it: a pool of the program's, say."""
        self.pool._tell(lambda: self.pool._spawn(self._spare))

    def _spare(self) -> None:
        if not self.shared:
            self.give_up(hard=True)

    def after_fork(self) -> None:
        """In a child: the connection is the parent's."""
        self._start_anew()
        conn, self.conn = self.conn, None
        if conn is not None and not self.closed and not self.kind.is_clean(conn):
            self.over = lambda: self.kind.lost_error(
                "this connection was in use when the process was forked, and is the parent's: connect anew"
            )


def _is_of_a_pool() -> bool:
    """Whether a pool of a library's opens it, or Django: these keep it for later, and close it themselves."""
    found = asked(_getframe(2))
    return found is not None and (found.pool is not None or found.by_django)


def _release(weak: ref[Handle]) -> None:
    handle = weak()
    if handle is not None:
        handle.release("the request that opened it has ended")


class Kind:
    """What differs from driver to driver.

    :ivar driver: Penstock's own for these connections.
    :ivar everything: all that can be reset, and is when a connection comes back that was used.
    """

    mysql = False
    everything = ANYTHING

    def __init__(self, pool: pools.HeldPool) -> None:
        self.driver = pool._driver
        self.pool = pool

    def borrow(self, handle: Handle, timeout: float | None, code: CodeType, lasti: int) -> Any:
        """A connection of the pool's. Raises the driver's own error when none can be opened, or had in time."""
        try:
            try:
                return self.pool.lend(handle, timeout, code, lasti)
            except errors.PoolDeadlock:  # unless somebody has forgotten one, in a circle of references
                gc.collect()
                self.pool.database.make_room(hard=True)
                return self.pool.lend(handle, timeout, code, lasti)
        except errors.DatabaseUnavailable as error:
            pools.forget(self.pool)
            if error.__cause__ is None:
                raise
            raise error.__cause__.with_traceback(None) from None
        except errors.PoolDeadlock as error:
            why = "this thread would wait for ever, as those who hold all connections do, itself among them"
            raise type(error)(self.pool.database.exhausted(why)) from None
        except errors.PoolTimeout as error:
            seconds = self.pool.timeout if timeout is None else timeout
            raise type(error)(self.pool.database.exhausted(f"no connection within {seconds:g} s")) from error.__cause__

    def is_clean(self, conn: Any) -> bool:
        """Whether the session on the server is as a fresh one: in no transaction, nothing changed."""
        touched = conn._touched
        return (touched is _NOTHING or not touched & ~_CLIENT) and self.driver.status(conn) is Status.IDLE

    def is_spare(self, handle: Handle, conn: Any) -> bool:
        """Whether the handle can do without it for the time being."""
        return self.is_clean(conn)

    def undoes(self, handle: Handle, conn: Any) -> bool:
        """Whether nothing is lost by a rollback: the session is as it was but for a transaction that has only read."""
        touched = conn._touched
        if touched is not _NOTHING and touched & ~_CLIENT:
            return False
        status = self.driver.status(conn)
        return status is Status.INERROR or (status is Status.INTRANS and not handle.wrote)

    def is_dispensable(self, handle: Handle, conn: Any) -> bool:
        """Whether another connection does as well for the rest of the transaction, as nobody could tell them apart."""
        return False

    def keep(self, conn: Any) -> dict[str, Any]:
        """What the user has set on the connection object, by name."""
        return {}

    def forget_kept(self, conn: Any) -> None:
        """It comes back for good: undo what the pool does not."""

    def apply(self, conn: Any, kept: dict[str, Any]) -> None:
        for name, value in kept.items():
            setattr(conn, name, value)

    def repeat(self, conn: Any, statement: str) -> None:
        raise NotImplementedError

    def closed_error(self) -> Exception:
        raise NotImplementedError

    def ended_error(self) -> Exception:
        """What the driver says of a connection that has broken."""
        return self.closed_error()

    def lost_error(self, text: str) -> Exception:
        return self.driver.operational_error(text)


class _ThreadEnd:
    """Lives in a thread's locals, and dies with the thread."""

    def __init__(self) -> None:
        self.handles: WeakSet[Handle] = WeakSet()

    def __del__(self) -> None:
        for handle in self.handles:
            if handle.conn is not None and not handle.shared:
                handle.spare_aside()


def _tell_of_end(handle: Handle) -> None:
    try:
        end: _ThreadEnd = _ends.end
    except AttributeError:
        end = _ends.end = _ThreadEnd()
    end.handles.add(handle)
