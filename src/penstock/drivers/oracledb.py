"""python-oracledb: `oracledb.Connection`, and what derives from it. Thin mode above all, which is its default.

Thin mode tells of an open transaction without a round trip, and whether it has found the connection unhealthy, but not
its socket: a connection that has been idle for a second is pinged before it is lent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from operator import attrgetter
from threading import Thread
from time import monotonic
from typing import Any
from weakref import ref

import oracledb

from .base import Status
from .dbapi import DBAPIDriver, lendable, tracked, within
from .session import Touched

# What a user can set on a connection and the next one would find there.
_ATTRIBUTES = ("autocommit", "call_timeout", "inputtypehandler", "outputtypehandler")
_state = attrgetter("transaction_in_progress", "_running", "_touched", "_loss", *_ATTRIBUTES)
# What the server is told of with the next round trip, and cannot be asked for.
_TOLD = ("action", "client_identifier", "clientinfo", "dbop", "module")
_BEYOND_RESET = re.compile(
    r"\b(?:alter\s+session|set\s+role|dbms_(?:session|lock|alert|application_info))\b", re.IGNORECASE
)
_CHECK_AFTER = 1.0  # seconds


class OracledbDriver(DBAPIDriver):
    """Satisfies `penstock.drivers.base.Driver`, but for asyncio: `threaded` does that."""

    name = "oracledb"

    def __init__(self, connection_class: Any, is_async: bool) -> None:
        super().__init__(oracledb)
        self.connection_class = connection_class or oracledb.Connection
        if not (isinstance(self.connection_class, type) and issubclass(self.connection_class, oracledb.Connection)):
            raise TypeError(f"connection_class must be oracledb.Connection or derive from it, not {connection_class!r}")

    def plain_cursor(self, conn: Any) -> Any:
        return oracledb.Cursor(conn)

    @contextmanager
    def beginning(self, conn: Any) -> Iterator[None]:
        autocommit = conn.autocommit
        conn.autocommit = False  # the client's own affair: no round trip
        try:
            yield
        finally:
            with suppress(oracledb.Error):  # closed meanwhile
                conn.autocommit = autocommit

    in_autocommit = beginning  # a query opens no transaction

    # ------------------------------------------------------------------------------------------ connecting

    async def connect(
        self, conninfo: str, kwargs: Mapping[str, Any], *, timeout: float, settings: Mapping[str, str]
    ) -> Any:
        params = {"tcp_connect_timeout": timeout, "expire_time": 1, **kwargs}  # a probe of the network each minute
        params["conn_class"] = lendable(params.get("conn_class") or self.connection_class, _Noting)
        return oracledb.connect(conninfo or None, **params)

    def adopt(self, conn: Any) -> Any:
        conn._own_timeout = None
        conn._proven_at = monotonic()
        return super().adopt(conn)

    # ------------------------------------------------------------------------------------------ what is known

    def probe(self, conn: Any) -> Callable[[int], object]:
        weak = ref(conn)  # whoever asks must not keep the connection

        def probe(milliseconds: int) -> bool:
            conn = weak()
            if conn is None:
                return True
            seen_well = max(conn._proven_at, conn._activity.ended)
            return monotonic() - seen_well >= _CHECK_AFTER or not conn.is_healthy()

        return probe

    def look(self, conn: Any) -> bool | None:
        return None if conn.is_healthy() else False

    @staticmethod
    def state(conn: Any) -> object:
        try:
            return _state(conn)
        except oracledb.Error:  # closed
            return None

    def status(self, conn: Any) -> Status:
        if not conn.is_healthy():
            return Status.BROKEN
        if conn._running:
            return Status.ACTIVE
        return Status.INTRANS if conn.transaction_in_progress else Status.IDLE

    def touched(self, conn: Any, baseline: Any) -> bool:
        return False  # what is reset is reset for good, and `configure` has not set it: the server cannot tell

    def bind(self, conn: Any, until: float, reading: bool) -> None:
        """Each round trip of the lease is bounded by what is left at its beginning. Read only it cannot be made."""
        conn._own_timeout = conn.call_timeout
        if until < math.inf:
            left = max(1, math.ceil((until - monotonic()) * 1000))
            conn.call_timeout = min(left, conn._own_timeout or left)

    def unbind(self, conn: Any) -> None:
        with suppress(oracledb.Error):  # closed
            conn.call_timeout = conn._own_timeout

    # ------------------------------------------------------------------------------------------ what is done

    async def settle(self, conn: Any, commit: bool) -> None:
        await super().settle(conn, commit)
        conn._proven_at = monotonic()

    async def reset(self, conn: Any, baseline: Any) -> bool:
        if conn._touched & Touched.BEYOND_RESET:
            return False
        for name, value in zip(_ATTRIBUTES, baseline[4:], strict=True):
            setattr(conn, name, value)
        if conn._touched & Touched.CLIENT:
            for name in _TOLD:
                setattr(conn, name, None)
        conn._touched = Touched.NOTHING
        return True

    async def check(self, conn: Any) -> None:
        conn.ping()
        conn._proven_at = monotonic()

    async def cancel(self, conn: Any, timeout: float) -> None:
        within(timeout, conn.cancel, oracledb.Error)

    def abort(self, conn: Any) -> None:
        within(0, conn.cancel, oracledb.Error)

    def abandon(self, conn: Any) -> int | None:
        Thread(target=_close, args=(conn,), name="penstock-close", daemon=True).start()
        return None


class _Noting(oracledb.Connection):
    """Its cursors take note of what they are given; and it, of what is set on it."""

    _touched = Touched.NOTHING
    _loss: Exception | None = None

    def __del__(self) -> None:
        self._pool = None  # to give it back is too late, should `close` be told to
        super().__del__()  # type: ignore[no-untyped-call]

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in _TOLD:
            self._touched |= Touched.CLIENT
        elif name == "current_schema":
            self._touched |= Touched.BEYOND_RESET

    def cursor(self, scrollable: bool = False, handle: Any = None) -> Any:
        self._verify_connected()
        return _CURSOR(self, scrollable, handle=handle)


def _touches(statement: Any) -> Touched:
    if isinstance(statement, str) and _BEYOND_RESET.search(statement):
        return Touched.BEYOND_RESET
    return Touched.NOTHING


_CURSOR = tracked(oracledb.Cursor, _touches, oracledb.Error, ("execute", "executemany", "callproc", "callfunc"))


def _close(conn: Any) -> None:
    with suppress(oracledb.Error):
        conn.close()
