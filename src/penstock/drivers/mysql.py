"""What the drivers of MySQL and MariaDB have in common: how to name a server, what its errors and flags mean.

A server says with each answer whether a transaction is open (SERVER_STATUS_IN_TRANS). The drivers in Python keep that
for answers without rows only; here they keep it for all. An error says nothing of it: after one, a transaction counts
as open until the server says otherwise, wherever there may be one.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from copy import copy
from threading import Lock
from time import monotonic
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from ..core import Reason
from . import sockets
from .base import Activity, Status, settled
from .dbapi import NEARLY, DBAPIDriver, begin, end
from .mysql_session import LEFT_BEHIND, may_begin, touches
from .session import Touched

# Of the server's flags those that tell of the session, and our own beside them.
IN_TRANS, AUTOCOMMIT = 1, 2
KEPT = IN_TRANS | AUTOCOMMIT
DOUBT, RUNNING, GONE = 1 << 16, 1 << 17, 1 << 18

# The connection has ended, or is about to: gone away, lost, lost while asked, timed out idle, killed, shutting down.
_LOST = (2006, 2013, 2055, 4031, 1927, 1053)
# Of mysqlclient: an answer was not read to its end. For its user to mend, but not for the next.
_OUT_OF_SYNC = 2014
# --read-only or its like, and innodb_read_only. 1290 is told for other options, too.
_READ_ONLY_OPTION, _READ_ONLY_MODE = 1290, 1836
# Past a lease's deadline the server's own word is waited for no longer than this; then the connection is cut off.
GRACE_SECONDS = 0.5
_DEADLOCK = 1213
_TIMED_OUT = re.compile(r"timed out|\(110\b|error: 110\b")

COM_QUERY, COM_RESET_CONNECTION = 0x03, 0x1F
START_READING = "START TRANSACTION READ ONLY"
# What begins a transaction: BEGIN [WORK], START TRANSACTION with whatever it says. Not MariaDB's BEGIN NOT ATOMIC.
_BEGINS = re.compile(
    r"(?:\s|--[^\n]*+\n|\#[^\n]*+\n|(?>/\*(?!M?!).*?\*/))*+"
    r"(?:begin\b(?!\s+not\b)|start\s+transaction\b(?P<snapshot>\s+with\s+consistent\s+snapshot\b)?)[^;]*",
    re.IGNORECASE | re.DOTALL,
)
SCHEMES = ("mysql", "mariadb")
_SHAPE = "expected 'mysql://user:password@host:3306/database'"
# Of the parameters in a URL those that are no text.
_NUMBERS = {"port", "connect_timeout", "read_timeout", "write_timeout", "max_allowed_packet", "client_flag"}
_SWITCHES = {"autocommit", "local_infile", "use_unicode", "ssl_disabled", "ssl_verify_cert", "ssl_verify_identity"}
_TRUTH = {"1": True, "true": True, "on": True, "yes": True, "0": False, "false": False, "off": False, "no": False}

# With the statement, so it costs no round trip, and never above the session's own limit, where 0 means none. MariaDB.
_BOUNDED = (
    "SET STATEMENT max_statement_time=IF(@@max_statement_time=0, {0:.3f}, LEAST({0:.3f}, @@max_statement_time)) FOR "
)
# What may take long. Not what sets the limit itself: the server would set that back after the statement.
_BOUNDABLE = re.compile(
    r"(?:[\s(]++|--[^\n]*+\n|\#[^\n]*+\n|/\*(?!M?!)(?:[^*]++|\*(?!/))*+\*/|/\*M?!\d*+)*+"
    r"(?:(?:select|insert|update|delete|replace|with|call|do|values|analyze|load\s++data"
    r"|(?:create(?:\s++or\s++replace)?(?:\s++temporary)?|alter)\s++table)\b"
    r"|(?:begin\s++not\s++atomic|if|execute|set\s++@\w++)\b(?!.*max_statement_time))",
    re.IGNORECASE | re.DOTALL,
)


def parse(conninfo: str) -> dict[str, Any]:
    """What *conninfo*, a URL, says, by the names of PyMySQL's `connect`. Nothing for an empty one.

    :raises ValueError: when it does not parse; nothing of it is shown, as it may be the password.
    """
    if not conninfo:
        return {}
    try:
        url = urlsplit(conninfo)
        port = url.port
    except ValueError:
        url, port = None, None
    if url is None or url.scheme.partition("+")[0] not in SCHEMES:
        raise ValueError(f"conninfo does not parse: {_SHAPE} (mariadb:// and mysql+pymysql:// are the same)")
    if "/" in url.path[1:] or "@" in url.path:
        raise ValueError(
            "conninfo has a password with characters that a URL reserves: write %40 for @, %2F for /, %3A for :"
        )
    found = {"host": url.hostname, "port": port, "user": url.username, "password": url.password}
    given = {name: unquote(value) if isinstance(value, str) else value for name, value in found.items() if value}
    if database := unquote(url.path[1:]):
        given["database"] = database
    return given | {name: _typed(name, value) for name, value in parse_qsl(url.query, keep_blank_values=True)}


def _typed(name: str, value: str) -> Any:
    if name in _NUMBERS:
        if not value.isdigit():
            raise ValueError(f"conninfo: {name} must be a whole number")
        return int(value)
    if name in _SWITCHES:
        if value.lower() not in _TRUTH:
            raise ValueError(f"conninfo: {name} must be true or false")
        return _TRUTH[value.lower()]
    return value


class Session:
    """Comes before a driver's own connection class: what is known of its session on the server."""

    _driver: Any = None
    _activity: Activity | None = None  # not there before it is adopted
    _touched = Touched.NOTHING
    _running = False
    _flags = 0
    _loss: Exception | None = None
    _bounds: tuple[float, bool] | None = None
    _in_fleet = False  # it holds locks that a reset would give away
    _end: int | None = None  # of one closed here while a statement ran: reads as ended once the server has let go
    _ours = False  # what is being sent now is the pool's own, and nobody's statement
    _born_writable = True  # where the login did not ask

    def _connected(self) -> None:
        """The login is over: note how the session is."""
        raise NotImplementedError

    def _note(self, sql: Any) -> bool:
        """A statement is about to be sent. Whether it came past all cursors, so that it is to be noted here."""
        self._flags |= RUNNING
        if self._ours or self._activity is None or self._running:
            return False
        begin(self, sql, touches)
        return True

    def _noted(self, here: bool) -> None:
        self._flags &= ~RUNNING
        if here:
            end(self)

    def _erred(self, error: Exception) -> None:
        if self._activity is not None and not self._ours:
            self._driver.failed(self, error)

    def _bounded(self, sql: Any) -> Any:
        """*sql* with the lease's deadline before it, where the server and the statement take one.

        In a block that only reads, what begins a transaction begins one that is READ ONLY.
        """
        if self._bounds is None or self._ours:
            return sql
        if self._bounds[1] and (begins := _begins(sql)):
            sql = _start_reading(sql, begins)
        if self._bounds[0] == math.inf or not self._driver.is_mariadb(self):
            return sql
        left = max(0.001, self._bounds[0] - monotonic())
        if isinstance(sql, (bytes, bytearray)):
            text = sql.decode(errors="replace")
            return _BOUNDED.format(left).encode() + sql if _BOUNDABLE.match(text) else sql
        return _BOUNDED.format(left) + sql if _BOUNDABLE.match(sql) else sql

    def _patience(self) -> float:
        """How many seconds to wait for an answer: to the lease's deadline, and a little more. Or infinity."""
        if self._bounds is None or self._bounds[0] == math.inf:
            return math.inf
        return max(0.0, self._bounds[0] - monotonic()) + GRACE_SECONDS

    def _reads(self) -> bool:
        """Whether whoever has it now is to read only."""
        return self._bounds is not None and self._bounds[1] and not self._ours

    def _must_begin(self, sql: Any) -> bool:
        """Whether a READ ONLY transaction is to be begun first."""
        return self._reads() and not self._flags & IN_TRANS and not _begins(sql)


class Flagged(Session):
    """Of drivers in Python: whatever the server says of itself is kept."""

    _server_status = 0
    _result: Any
    _affected_rows: Any

    def _connected(self) -> None:
        self.server_status = vars(self).pop("server_status", self._server_status)

    @property
    def server_status(self) -> int:
        return self._server_status

    @server_status.setter
    def server_status(self, value: int) -> None:
        self._server_status = value
        self._flags = value & KEPT  # the answer has come: nothing runs, nothing is in doubt

    def _noted(self, here: bool) -> None:
        super()._noted(here)
        if self._result is not None and self._result.unbuffered_active:
            self._flags |= RUNNING  # until the last row has come

    def _keep(self, result: Any) -> Any:
        """The end of the original's `_read_query_result`."""
        self._result = result
        self._affected_rows = result.affected_rows
        if result.server_status is not None:
            self.server_status = result.server_status
        return result.affected_rows


class FlaggedResult:
    """Comes before a driver's own class of results: what ends the rows says how the session is, too."""

    connection: Any

    def _check_packet_is_eof(self, packet: Any) -> bool:
        if not super()._check_packet_is_eof(packet):  # type: ignore[misc]
            return False
        self.connection.server_status = int.from_bytes(packet.get_all_data()[3:5], "little")
        return True


class MySQLDriver(DBAPIDriver):
    """Satisfies `penstock.drivers.base.Driver` together with what a subclass adds."""

    dialect = "mysql"
    attributes: tuple[str, ...]  # that a user can set, and the next one would find; they end `state`
    name = "MySQL"

    # ------------------------------------------------------------------------------------------ for subclasses

    socket_of: Callable[[Any], Any]  # an object with a `fileno`; None once the connection is closed

    cursor_class: Any  # the driver's own, giving tuples

    @staticmethod
    def made_lendable(connection_class: Any) -> Any:
        """*connection_class* fit to be lent, by `dbapi.lendable`."""
        raise NotImplementedError

    async def renew(self, conn: Any) -> None:
        """Have the server reset the session, and set the character set again as `_login_charset` has it."""
        raise NotImplementedError

    def renewable(self, conn: Any) -> bool:
        """Whether enough is known of the login for that."""
        return True

    def within(self, seconds: float) -> Mapping[str, Any]:
        """The arguments of `connect` that bound everything done on a connection."""
        return {"connect_timeout": seconds, "read_timeout": seconds, "write_timeout": seconds}

    # ------------------------------------------------------------------------------------------ one KILL at a time

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self._killing = Lock()

    @asynccontextmanager
    async def alone(self, seconds: float) -> AsyncIterator[None]:
        """For the length of a block, nobody else is in one. Waits *seconds* for that: TimeoutError."""
        if not self._killing.acquire(timeout=seconds):
            raise TimeoutError
        try:
            yield
        finally:
            self._killing.release()

    async def see_off(self, conn: Any, seconds: float) -> None:
        """Close the connection, and wait, *seconds* at most, until the server has."""
        end = await self.close(conn)
        if end is not None:
            sockets.wait_for_end(end, seconds)

    async def cancel(self, conn: Any, timeout: float) -> None:
        """KILL QUERY, on a second connection: the server takes it on no other way.

        That one counts at the server too, so there is never more than one; waiting for one's turn is part of *timeout*.
        """
        until = monotonic() + timeout
        given = {name: value for name, value in conn._given.items() if name not in ("init_command", "sql_mode")}
        with suppress(self.error, OSError, TimeoutError):
            async with self.alone(timeout):
                left = max(0.1, until - monotonic())
                kwargs = {**given, **self.within(left), "autocommit": True}
                other = await self.connect("", kwargs, timeout=left, settings={})
                try:
                    await settled(other.query(f"KILL QUERY {self.backend(conn)}"))
                finally:
                    await self.see_off(other, max(0.1, until - monotonic()))

    def silence(self, conn: Any) -> None:
        self._killing = Lock()  # the parent may have held it at the fork
        super().silence(conn)

    # ------------------------------------------------------------------------------------------ connecting

    def check_conninfo(self, conninfo: str) -> None:
        parse(conninfo)

    def limits(self, statement: float | None, idle_in_transaction: float | None) -> Mapping[str, str]:
        """Seconds, by our own names: which settings those are depends on the server, which is not known yet.

        *statement*: MariaDB's `max_statement_time`, which counts for all statements; MySQL's `max_execution_time`,
        which counts for SELECT alone. *idle_in_transaction*: MariaDB's `idle_transaction_timeout`, in whole seconds.
        MySQL has none, and connecting says so.
        """
        given = {"statement": statement, "idle": idle_in_transaction}
        return {name: repr(float(seconds)) for name, seconds in given.items() if seconds is not None}

    def given(self, conninfo: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments to connect with, under one name each."""
        params = {**parse(conninfo), **kwargs}
        for name, old in (("database", "db"), ("password", "passwd")):
            if old in params:
                params[name] = params.pop(old)
        return params

    async def begin_session(self, conn: Any, given: Mapping[str, Any], settings: Mapping[str, str]) -> None:
        """After the login: what the driver itself does not set, and does not again after a reset.

        It costs a round trip to know whether the server can be written to, and one more if there are limits.
        """
        conn._given = dict(given)
        asked = await self.ask(conn, "SELECT @@global.read_only, @@global.innodb_read_only, DATABASE()", ())
        *read_only, database = asked[0]
        conn._born_writable = all(str(each) in ("0", "OFF") for each in read_only)
        # Asked, as a file that the driver reads may have named it.
        conn._database = database.decode() if isinstance(database, bytes) else database
        conn._limit = self._limit(conn, settings)
        if conn._limit:
            await self._send(conn, conn._limit)

    def _limit(self, conn: Any, settings: Mapping[str, str]) -> str:
        mariadb, wanted = self.is_mariadb(conn), []
        if "statement" in settings:
            seconds = float(settings["statement"])
            milliseconds = math.ceil(seconds * 1000)
            mine = f"max_statement_time={milliseconds / 1000}" if mariadb else f"max_execution_time={milliseconds}"
            wanted.append(f"SESSION {mine}")
        if "idle" in settings:
            conn._idle_limit = float(math.ceil(float(settings["idle"])))
            if not mariadb:
                raise self.operational_error(
                    f"idle_in_transaction_timeout ({float(settings['idle']):g}) cannot be had from MySQL, only from"
                    " MariaDB: leave it out; leak_reclaim=True takes back what is idle in hand"
                )
            wanted.append(f"SESSION idle_transaction_timeout={math.ceil(float(settings['idle']))}")
        return f"SET {', '.join(wanted)}" if wanted else ""

    def is_mariadb(self, conn: Any) -> bool:
        return "mariadb" in conn.get_server_info().lower()

    def adopt(self, conn: Any) -> Any:
        if not isinstance(conn, Session):  # somebody else has connected
            conn.__class__ = self.made_lendable(type(conn))
            conn._given = {}  # nobody knows
            conn._connected()
        conn._bounds = None
        # Of its tables of converters a copy: who changes one does so in place.
        return tuple(copy(part) if isinstance(part, dict) else part for part in super().adopt(conn))

    # ------------------------------------------------------------------------------------------ what is known

    def fileno(self, conn: Any) -> int | None:
        found = self.socket_of(conn)
        return None if found is None else int(found.fileno())

    def status(self, conn: Any) -> Status:
        flags = conn._flags
        if conn._end is not None:
            return Status.ACTIVE  # the server does not look whether anybody is left before the statement has ended
        if flags & GONE or self.socket_of(conn) is None:
            return Status.BROKEN
        if flags & RUNNING:
            return Status.ACTIVE
        return Status.INTRANS if flags & (IN_TRANS | DOUBT) else Status.IDLE

    def touched(self, conn: Any, baseline: Any) -> bool:
        return bool(conn._touched & (LEFT_BEHIND | Touched.BEYOND_RESET))

    def bind(self, conn: Any, until: float, reading: bool) -> None:
        """Each statement takes what is left along (MariaDB alone); with *reading* each transaction is begun first."""
        conn._bounds = (until, reading)
        conn._touched = Touched.BOUND

    def unbind(self, conn: Any) -> None:
        conn._bounds = None
        conn._touched &= ~Touched.BOUND

    def unfit(self, conn: Any) -> Reason | None:
        if not conn._touched & Touched.READ_ONLY:
            return None
        return Reason.READ_ONLY if conn._born_writable else Reason.STANDBY

    def failed(self, conn: Any, error: Exception) -> None:
        code, text = _code(error), str(error).lower()
        if code in _LOST:
            conn._flags |= GONE
        elif code == _OUT_OF_SYNC:
            conn._flags |= GONE
            conn._ended_here = True
        elif code == _READ_ONLY_MODE or (code == _READ_ONLY_OPTION and ("read-only" in text or "read_only" in text)):
            conn._touched |= Touched.READ_ONLY
        super().failed(conn, error)
        if code == _DEADLOCK:  # its transaction has been rolled back; a new one may be open all the same
            conn._flags = conn._flags & ~IN_TRANS | DOUBT
        elif not conn._flags & AUTOCOMMIT or may_begin(conn._activity.statement or ""):
            conn._flags |= DOUBT

    def was_in_transaction(self, conn: Any) -> bool:
        return bool(conn._flags & (IN_TRANS | DOUBT))  # as the server has said before

    def was_impatient(self, conn: Any, error: Exception) -> bool:
        # PyMySQL's own. The kernel's, of a peer that has vanished, has a number.
        if isinstance(error.__context__, TimeoutError) and error.__context__.errno is None:
            return True
        limit = conn._given.get("read_timeout")
        return limit is not None and conn._running and monotonic() - conn._activity.started >= NEARLY * limit

    def backend(self, conn: Any) -> int:
        return int(conn.thread_id())

    def is_timeout(self, error: BaseException) -> bool:
        causes = (error, error.__cause__, error.__context__, getattr(error, "original_exception", None))
        return any(isinstance(cause, TimeoutError) for cause in causes) or bool(_TIMED_OUT.search(str(error)))

    # ------------------------------------------------------------------------------------------ what is done

    @contextmanager
    def beginning(self, conn: Any) -> Iterator[None]:
        if conn._flags & AUTOCOMMIT:
            conn.begin()
        yield

    async def reset(self, conn: Any, baseline: Any) -> bool:
        if self.socket_of(conn) is not baseline[0]:
            return False  # it has been connected anew, past the pool
        if conn._touched & Touched.BEYOND_RESET:
            return False
        if conn._touched & LEFT_BEHIND and (conn._in_fleet or not self.renewable(conn)):
            return False
        for name, value in zip(self.attributes, baseline[-len(self.attributes) :], strict=True):
            if getattr(conn, name) != value:
                setattr(conn, name, copy(value) if isinstance(value, dict) else value)
        if conn._touched & LEFT_BEHIND:
            await self._reset_session(conn)
        if (conn._flags ^ baseline[1]) & AUTOCOMMIT:
            await settled(conn.autocommit(bool(baseline[1] & AUTOCOMMIT)))
        conn._touched = Touched.NOTHING
        return True

    async def _reset_session(self, conn: Any) -> None:
        """As after the login, whatever of it the server has kept and whatever not: that differs from one to another."""
        given = conn._given
        await self.renew(conn)
        if conn._database is not None:
            await settled(conn.select_db(conn._database))
        elif await self.ask(conn, "SELECT DATABASE()", ()) != [(None,)]:
            raise self.operational_error("a database was chosen with USE on a connection that had none")
        if (mode := given.get("sql_mode")) is not None:
            await self._send(conn, f"SET sql_mode='{mode}'")
        if first := given.get("init_command"):
            await self._send(conn, first)
        if conn._limit:
            await self._send(conn, conn._limit)

    async def ask(self, conn: Any, query: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        conn._ours = True
        try:
            cursor = self.cursor_class(conn)
            try:
                await settled(cursor.execute(query, tuple(params) or None))
                return list(await settled(cursor.fetchall()))
            finally:
                await settled(cursor.close())
        finally:
            conn._ours = False

    async def _send(self, conn: Any, statement: str) -> None:
        conn._ours = True
        try:
            await settled(conn.query(statement))
        finally:
            conn._ours = False

    async def check(self, conn: Any) -> None:
        """One round trip: COM_PING, which touches nothing."""
        await settled(conn.ping())

    def keep_alive(self, conn: Any) -> None:
        """Have the kernel notice a peer that has vanished. Not over a Unix socket."""
        fd = self.fileno(conn)
        if fd is None:
            return
        with suppress(OSError):
            sockets.notice_silence(fd)


@asynccontextmanager
async def transaction_of(conn: Any, error: type[Exception]) -> AsyncIterator[Any]:
    """Of an asyncio connection."""
    if conn._flags & AUTOCOMMIT:
        await conn.begin()
    try:
        yield conn
    except BaseException:
        with suppress(error):  # what the block raised says more
            await conn.rollback()
        raise
    await conn.commit()


def _begins(sql: Any) -> re.Match[str] | None:
    """What of *sql*, its start, begins a transaction."""
    start = sql[:2000]
    # Of bytes each is one character, so that what is found can be cut off.
    return _BEGINS.match(bytes(start).decode("latin-1") if isinstance(start, (bytes, bytearray)) else str(start))


def _start_reading(sql: Any, begins: re.Match[str]) -> Any:
    """*sql*, whose start *begins* a transaction, with one that is READ ONLY instead."""
    start = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY" if begins["snapshot"] else START_READING
    return (start if isinstance(sql, str) else start.encode()) + sql[begins.end() :]


def _code(error: Exception) -> int | None:
    return error.args[0] if error.args and isinstance(error.args[0], int) else None
