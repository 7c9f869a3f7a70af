"""mysqlclient: `MySQLdb.connections.Connection`, and what derives from it.

It does not tell whether a transaction is open, which its library knows. So that is gathered from the statements: out
of autocommit every one but COMMIT and ROLLBACK opens one, in autocommit those that may.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from time import monotonic
from typing import Any

import MySQLdb  # type: ignore[import-untyped]
from MySQLdb.connections import Connection  # type: ignore[import-untyped]
from MySQLdb.cursors import Cursor  # type: ignore[import-untyped]

from .dbapi import NEARLY, lendable
from .mysql import AUTOCOMMIT, DOUBT, IN_TRANS, RUNNING, START_READING, MySQLDriver, Session
from .mysql_cursors import tracked
from .mysql_session import ends, may_begin
from .session import Touched

_AFTER_THE_END = ~(IN_TRANS | DOUBT)  # of the flags, when a transaction has ended
_ATTRIBUTES = ("cursorclass", "encoders", "converter", "executemany_fallback", "_binary_prefix")
_FILES = {"read_default_file", "read_default_group"}


class MySQLClientDriver(MySQLDriver):
    """Satisfies `penstock.drivers.base.Driver`; for asyncio `threaded` does that."""

    name = "mysqlclient"
    attributes = _ATTRIBUTES
    cursor_class = Cursor
    socket_of = attrgetter("_wire")
    state = attrgetter("_wire", "_flags", "_touched", *_ATTRIBUTES)

    def __init__(self, connection_class: Any, is_async: bool) -> None:
        super().__init__(MySQLdb)
        self.connection_class = connection_class or Connection
        if not (isinstance(self.connection_class, type) and issubclass(self.connection_class, Connection)):
            raise TypeError(
                f"connection_class must be MySQLdb.connections.Connection or derive from it, not {connection_class!r}"
            )

    def fileno(self, conn: Any) -> int | None:
        return conn._wire  # type: ignore[no-any-return]

    @staticmethod
    def made_lendable(connection_class: Any) -> Any:
        return lendable(connection_class, _Noting)

    async def connect(
        self, conninfo: str, kwargs: Mapping[str, Any], *, timeout: float, settings: Mapping[str, str]
    ) -> Any:
        params = {"connect_timeout": max(1, round(timeout)), **self.given(conninfo, kwargs)}
        started = monotonic()
        try:
            conn = self.made_lendable(self.connection_class)(**params)
        except MySQLdb.OperationalError as error:
            # libmariadb says 115, "in progress", of a server that refuses and of one that does not answer.
            if "(115" in str(error) and monotonic() - started >= NEARLY * params["connect_timeout"]:
                raise error from TimeoutError()
            raise
        try:
            conn._connected()
            conn._login_charset = params.get("charset") or conn.character_set_name(), params.get("collation")
            await self.begin_session(conn, params, settings)
            self.keep_alive(conn)
        except BaseException:
            conn.close()
            raise
        return conn

    def renewable(self, conn: Any) -> bool:
        """What a file said, its password for one, the library tells nobody."""
        return bool(conn._given.get("user")) and not _FILES & conn._given.keys()

    async def renew(self, conn: Any) -> None:
        # It has no COM_RESET_CONNECTION. COM_CHANGE_USER does the same, and logs in again.
        given = conn._given
        Connection.change_user(conn, given["user"], given.get("password") or "", given.get("database") or "")
        conn.set_character_set(*conn._login_charset)
        conn._flags = AUTOCOMMIT if conn.get_autocommit() else 0

    def within(self, seconds: float) -> Mapping[str, Any]:
        return dict.fromkeys(super().within(seconds), max(1, round(seconds)))

    def backend(self, conn: Any) -> int:
        return conn._number  # type: ignore[no-any-return]

    async def close(self, conn: Any) -> int | None:
        if not conn._flags & RUNNING:
            return await super().close(conn)
        self.abort(conn)  # it lets no other thread close it while a statement runs
        return None


class _Noting(Session, Connection):  # type: ignore[misc]
    """Takes note of each statement, and of what it makes of the transaction."""

    _wire: int | None = None  # the socket
    _number = 0  # the server's, of the connection: the library tells it to no other thread while a statement runs

    def _connected(self) -> None:
        self._wire, self._number = self.fileno(), self.thread_id()
        self._flags = AUTOCOMMIT if self.get_autocommit() else 0

    def close(self) -> None:
        self._wire = None
        super().close()

    def cursor(self, cursorclass: Any = None) -> Any:
        return super().cursor(tracked(cursorclass or self.cursorclass, MySQLdb.Error))

    def query(self, query: Any) -> None:
        if self._must_begin(query):
            super().query(START_READING.encode())
            self._flags |= IN_TRANS
        here = self._note(query)
        try:
            super().query(self._bounded(query))
        except MySQLdb.Error as error:
            self._erred(error)
            raise
        finally:
            self._noted(here)
        self._left(bool(self.field_count()))
        if not self._ours and self._activity is not None:
            self._follow(query)

    def _follow(self, query: Any) -> None:
        autocommit = self.get_autocommit()
        self._flags = (self._flags | AUTOCOMMIT) if autocommit else (self._flags & ~AUTOCOMMIT)
        if ends(query):
            self._flags &= _AFTER_THE_END
        elif not autocommit or may_begin(query):
            self._flags |= IN_TRANS

    def _left(self, unread: bool) -> None:
        """An answer with rows must be fetched, and so must the other answers to one query: no more is taken before."""
        if unread or self.more_results():
            self._flags |= RUNNING
        else:
            self._flags &= ~RUNNING

    def store_result(self) -> Any:
        self._flags &= ~RUNNING  # as is so with an error, too, which is the last of all answers
        result = super().store_result()
        self._left(False)
        return result

    def use_result(self) -> Any:
        self._flags &= ~RUNNING
        self._touched |= Touched.CURSORS  # whether all its rows have been read cannot be seen
        result = super().use_result()
        self._left(False)
        return result

    def next_result(self) -> int:
        self._flags &= ~RUNNING
        found: int = super().next_result()
        self._left(found == 0 and bool(self.field_count()))
        return found

    def discard_result(self) -> None:
        self._flags &= ~RUNNING
        super().discard_result()
        self._left(False)

    def begin(self) -> None:
        super().begin()
        self._flags |= IN_TRANS

    def commit(self) -> None:
        super().commit()
        self._flags &= _AFTER_THE_END

    def rollback(self) -> None:
        super().rollback()
        self._flags &= _AFTER_THE_END

    def autocommit(self, on: bool) -> None:
        super().autocommit(on)
        self._flags = AUTOCOMMIT if on else 0

    def select_db(self, db: Any) -> None:
        super().select_db(db)
        self._touched |= Touched.SETTINGS

    def set_character_set(self, charset: Any, collation: Any = None) -> None:
        super().set_character_set(charset, collation)
        self._touched |= Touched.SETTINGS

    def change_user(self, *args: Any, **kwargs: Any) -> None:
        self._touched |= Touched.BEYOND_RESET
        super().change_user(*args, **kwargs)
        self._flags = AUTOCOMMIT if self.get_autocommit() else 0

    def set_server_option(self, option: Any) -> Any:
        self._touched |= Touched.BEYOND_RESET
        return super().set_server_option(option)

    def send_query(self, query: Any) -> None:
        self._touched |= Touched.BEYOND_RESET  # what it does is not followed
        super().send_query(query)
