"""SQLite: `sqlite3.Connection`, and what derives from it.

There is no server and no socket, so nothing is asked before a connection is lent. What a pool gives all the same: no
more connections than declared, which bounds who contends for the one lock that writers have; each returned clean.
"""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, lru_cache, wraps
from operator import attrgetter
from threading import Thread
from time import monotonic, sleep
from typing import Any
from urllib.parse import parse_qs

from .base import Status
from .dbapi import DBAPIDriver, end, lendable, tracked
from .session import LONGEST_REMEMBERED, Touched

# What a user can set on a connection and the next one would find there. The last came with Python 3.12.
_ATTRIBUTES = [
    "isolation_level",
    "row_factory",
    "text_factory",
    *(["autocommit"] if hasattr(sqlite3, "LEGACY_TRANSACTION_CONTROL") else []),
]
_LEGACY = getattr(sqlite3, "LEGACY_TRANSACTION_CONTROL", -1)
_state = attrgetter("in_transaction", "_running", "_used", "_touched", *_ATTRIBUTES)
_CLOSED = None

# The settings that belong to a connection and not to its file, and that tell what they are set to.
_PRAGMAS = (
    "analysis_limit",
    "automatic_index",
    "busy_timeout",
    "cache_size",
    "cache_spill",
    "cell_size_check",
    "checkpoint_fullfsync",
    "count_changes",
    "defer_foreign_keys",
    "empty_result_callbacks",
    "foreign_keys",
    "full_column_names",
    "fullfsync",
    "ignore_check_constraints",
    "journal_size_limit",
    "legacy_alter_table",
    "locking_mode",
    "max_page_count",
    "mmap_size",
    "query_only",
    "read_uncommitted",
    "recursive_triggers",
    "reverse_unordered_selects",
    "secure_delete",
    "short_column_names",
    "synchronous",
    "temp_store",
    "threads",
    "trusted_schema",
    "wal_autocheckpoint",
    "writable_schema",
)
# Those that set nothing of a connection's own: what is asked, what is done, what is written in the file.
_PASSING = (
    "application_id",
    "auto_vacuum",
    "collation_list",
    "compile_options",
    "data_version",
    "database_list",
    "encoding",
    "foreign_key_check",
    "foreign_key_list",
    "freelist_count",
    "function_list",
    "incremental_vacuum",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "module_list",
    "optimize",
    "page_count",
    "page_size",
    "pragma_list",
    "quick_check",
    "schema_version",
    "shrink_memory",
    "stats",
    "table_info",
    "table_list",
    "table_xinfo",
    "user_version",
    "wal_checkpoint",
)
# What each PRAGMA names, and whether it is given anything; nothing where comments hide it.
_PRAGMA = re.compile(r"\bpragma\b(?:\s+(?:(?:\w+|\"\w+\"|\[\w+\])\s*\.\s*)?(\w+)\s*([=(])?)?", re.IGNORECASE)
_PATTERNS = {
    Touched.SETTINGS: r"\bpragma\b",
    Touched.TEMPORARY: r"\btemp(?:orary)?\b",  # CREATE TEMP, or a name in "temp"; a look too many costs little
    Touched.DATABASES: r"\b(?:attach|detach)\b",
    Touched.BEYOND_RESET: r"\b(?:load_extension|case_sensitive_like)\b",
}
_COMPILED = {kind: re.compile(pattern, re.IGNORECASE) for kind, pattern in _PATTERNS.items()}

# What a connection is given through these stays until it is closed: SQLite does not tell what it was before.
_LASTING = (
    "create_aggregate",
    "create_collation",
    "create_function",
    "create_window_function",
    "enable_load_extension",
    "load_extension",
    "set_authorizer",
    "set_trace_callback",
    "setconfig",
    "setlimit",
)
# Instructions of SQLite's machine after which a deadline is looked at: a tenth of a millisecond. Each look waits for
# the GIL, so that a statement beside a busy thread would crawl if there were many.
_BETWEEN_LOOKS = 10_000
_BETWEEN_INTERRUPTS = 0.001
_ABORT_SECONDS = 5.0
_CLOSE_SECONDS = 1.0


class Sqlite3Driver(DBAPIDriver):
    """Satisfies `penstock.drivers.base.Driver`, but for asyncio: `threaded` does that."""

    name = "sqlite3"

    def __init__(self, connection_class: Any, is_async: bool) -> None:
        super().__init__(sqlite3)
        self.connection_class = connection_class or sqlite3.Connection
        if not (isinstance(self.connection_class, type) and issubclass(self.connection_class, sqlite3.Connection)):
            raise TypeError(f"connection_class must be sqlite3.Connection or derive from it, not {connection_class!r}")
        self._anchors: dict[str, sqlite3.Connection] = {}

    def __del__(self) -> None:
        for anchor in getattr(self, "_anchors", {}).values():
            anchor.close()

    def plain_cursor(self, conn: Any) -> Any:
        cursor = sqlite3.Connection.cursor(conn)
        cursor.row_factory = None
        return cursor

    # ------------------------------------------------------------------------------------------ connecting

    def check_conninfo(self, conninfo: str) -> None:
        if conninfo:  # or the file is in `kwargs`
            _check_file(conninfo)

    async def connect(
        self, conninfo: str, kwargs: Mapping[str, Any], *, timeout: float, settings: Mapping[str, str]
    ) -> Any:
        params = {"check_same_thread": False, **kwargs}
        if params["check_same_thread"]:
            raise ValueError(
                "kwargs has check_same_thread=True, but a pool lends a connection to one thread after another: leave it"
                " out. No two use it at once"
            )
        database = params.pop("database", conninfo)
        text = database.decode(errors="replace") if isinstance(database, bytes) else str(database)
        _check_file(text)
        params.setdefault("uri", text.startswith("file:"))
        if _is_memory(text) and text not in self._anchors:
            # A database in memory is gone with its last connection; this one stays for as long as the pool does.
            self._anchors[text] = sqlite3.connect(database, uri=params["uri"], check_same_thread=False)
        self.noting(params)
        conn = sqlite3.connect(database, **params)
        conn._pragmas = {}
        return conn

    def noting(self, params: dict[str, Any]) -> None:
        """Have sqlite3's own ``connect``, given these arguments, make a connection that can be adopted."""
        params["factory"] = lendable(params.get("factory") or self.connection_class, _Noting)

    def adopt(self, conn: Any) -> Any:
        conn._used = False
        if conn._pragmas is not None:
            conn._pragmas = self._settings(conn)
        return super().adopt(conn)

    # ------------------------------------------------------------------------------------------ what is known

    def probe(self, conn: Any) -> Callable[[int], object]:
        return _never

    @staticmethod
    def state(conn: Any) -> object:
        try:
            return _state(conn)
        except sqlite3.ProgrammingError:
            return _CLOSED

    def status(self, conn: Any) -> Status:
        try:
            open_ = conn.in_transaction
        except sqlite3.ProgrammingError:
            return Status.BROKEN
        if conn._running:
            return Status.ACTIVE
        if _always_in_transaction(conn):
            open_ = conn._used
        return Status.INTRANS if open_ else Status.IDLE

    def touched(self, conn: Any, baseline: Any) -> bool:
        return bool(conn._touched & (Touched.SETTINGS | Touched.TEMPORARY | Touched.DATABASES))

    # To touch SQLite's own handle takes its mutex, with the GIL held; a statement that runs in another thread has that
    # mutex, and may want the GIL. So both only note what `_ready` does in the thread that is about to use the handle.

    def bind(self, conn: Any, until: float, reading: bool) -> None:
        conn._touched = Touched.BOUND
        conn._deadline.until = until
        conn._reading = reading
        conn._is_ready = False

    def unbind(self, conn: Any) -> None:
        conn._touched &= ~Touched.BOUND
        conn._deadline.until = math.inf
        if conn._reading:
            conn._reading = conn._is_ready = False

    # ------------------------------------------------------------------------------------------ what is done

    @contextmanager
    def transaction(self, conn: Any) -> Iterator[Any]:
        _ready(conn)
        if not conn.in_transaction:
            self.plain_cursor(conn).execute(f"BEGIN {conn.isolation_level or ''}")
        try:
            yield conn
        except BaseException:
            with suppress(sqlite3.Error):  # what the block raised says more
                self._end(conn, commit=False)
            raise
        self._end(conn, commit=True)

    async def settle(self, conn: Any, commit: bool) -> None:
        self._end(conn, commit)

    def _end(self, conn: Any, commit: bool) -> None:
        """With a statement: the methods do nothing in an autocommit that has had its BEGIN."""
        if _always_in_transaction(conn):
            (conn.commit if commit else conn.rollback)()
            conn._used = False
        elif conn.in_transaction:
            self.plain_cursor(conn).execute("COMMIT" if commit else "ROLLBACK")

    async def reset(self, conn: Any, baseline: Any) -> bool:
        touched = conn._touched
        if touched & Touched.BEYOND_RESET:
            return False
        _ready(conn)
        for name, value in zip(_ATTRIBUTES, baseline[4:], strict=True):
            if getattr(conn, name) != value:  # to set isolation_level to None is to commit
                setattr(conn, name, value)
        execute = self.plain_cursor(conn).execute
        if touched & Touched.TEMPORARY:
            for kind, name in execute(  # triggers first: one may be on a table of the file, and stay
                "SELECT type, name FROM sqlite_temp_master WHERE type IN ('trigger', 'table', 'view')"
                " ORDER BY type = 'trigger' DESC"
            ).fetchall():
                execute(f"DROP {kind} IF EXISTS temp.{_quoted(name)}")
        if touched & Touched.DATABASES:
            attached = {row[1] for row in execute("PRAGMA database_list").fetchall()} - {"main", "temp"}
            for name in attached:
                execute(f"DETACH {_quoted(name)}")
        if touched & Touched.SETTINGS:
            for name, now in self._settings(conn).items():
                if now != conn._pragmas[name]:
                    execute(f"PRAGMA {name} = {conn._pragmas[name]}")
        conn._touched = Touched.NOTHING
        conn._used = False
        return True

    def _settings(self, conn: Any) -> dict[str, Any]:
        execute = self.plain_cursor(conn).execute
        rows = {name: execute(f"PRAGMA {name}").fetchone() for name in _PRAGMAS}
        return {name: row[0] for name, row in rows.items() if row is not None}  # None: not in this build of SQLite

    async def cancel(self, conn: Any, timeout: float) -> None:
        _interrupt(conn, timeout)

    async def close(self, conn: Any) -> int | None:
        _interrupt(conn, _CLOSE_SECONDS)
        if conn._running:  # to close it then would end the process
            raise sqlite3.OperationalError("a statement still runs in another thread, at whose end it is closed")
        conn.close()
        return None

    def abort(self, conn: Any) -> None:
        Thread(target=_interrupt, args=(conn, _ABORT_SECONDS), name="penstock-abort", daemon=True).start()

    def abandon(self, conn: Any) -> int | None:
        if conn._running:  # in another thread, which may take until it has noticed
            Thread(target=_let_go, args=(conn,), name="penstock-abort", daemon=True).start()
        else:
            _let_go(conn)
        return None

    # In a forked child (`silence`): SQLite's locks are the process's, and to close the parent's handle there, even as
    # garbage, would be to roll the parent's transaction back in its file. It has no fileno, so it is kept for ever.


class _Noting(sqlite3.Connection):
    """Its cursors' classes take note of what they are given, whatever classes they are."""

    _pragmas: dict[str, Any] | None = None  # to set back; None, and not read as that may wait for a lock: nobody will
    _used = False  # where a transaction is always open: whether this one may have anything in it
    _touched = Touched.NOTHING
    _progress: tuple[Any, int] = (None, 0)  # as `configure` may have set it
    _reading = False  # whether the lease is to read only,
    _reads_only = False  # and whether the handle has been told so
    _watches = False  # whether the handle asks about the deadline; once it does, for good
    _is_ready = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline = _Deadline()

    def cursor(self, factory: Any = sqlite3.Cursor) -> Any:
        self._used = _always_in_transaction(self)
        _ready(self)
        if not isinstance(factory, type):  # a function, whose cursor is not seen
            self._touched |= Touched.SETTINGS | Touched.TEMPORARY | Touched.DATABASES
            return super().cursor(factory)
        return super().cursor(_tracked(factory))

    def set_progress_handler(self, handler: Any, n: int) -> None:
        self._touched |= Touched.BEYOND_RESET
        self._progress = (handler, n)
        if self._watches:
            _watch(self)
        else:
            super().set_progress_handler(handler, n)

    if hasattr(sqlite3.Connection, "blobopen"):  # since Python 3.11

        def blobopen(self, *args: Any, **kwargs: Any) -> Any:
            _ready(self)
            return super().blobopen(*args, **kwargs)

    # The class beneath makes a cursor of its own for these.

    def execute(self, *args: Any) -> Any:
        return self.cursor().execute(*args)

    def executemany(self, *args: Any) -> Any:
        return self.cursor().executemany(*args)

    def executescript(self, *args: Any) -> Any:
        return self.cursor().executescript(*args)


class _Deadline:
    """A thing of its own, so that the handle that asks it does not keep the connection."""

    __slots__ = ("until",)

    def __init__(self) -> None:
        self.until = math.inf

    def has_passed(self) -> bool:
        return monotonic() > self.until


def _ready(conn: Any) -> None:
    """Make the handle what `bind` and `unbind` have noted, in the thread that is about to use it."""
    if conn._is_ready:
        return
    if conn._deadline.until < math.inf and not conn._watches:
        _watch(conn)
        conn._watches = True
    if conn._reading is not conn._reads_only:
        wanted = 1 if conn._reading else (conn._pragmas or {}).get("query_only", 0)
        sqlite3.Connection.cursor(conn).execute(f"PRAGMA query_only = {wanted}")
        conn._reads_only = conn._reading
    conn._is_ready = True


def _watch(conn: Any) -> None:
    """Have the handle ask about the deadline as it works, and whatever it was told to call besides."""
    deadline, (handler, n) = conn._deadline, conn._progress
    if handler is None or n < 1:
        sqlite3.Connection.set_progress_handler(conn, deadline.has_passed, _BETWEEN_LOOKS)
    else:
        sqlite3.Connection.set_progress_handler(conn, lambda: deadline.has_passed() or handler(), n)


@cache
def _tracked(cursor_class: Any) -> Any:
    """A statement of SQLite's runs while its rows are fetched, too: each is made when it is asked for."""
    noting = tracked(cursor_class, _touches, sqlite3.Error, ("execute", "executemany", "executescript"))
    if noting is cursor_class:
        return noting
    for name in ("fetchone", "fetchmany", "fetchall", "__next__"):
        setattr(noting, name, _fetching(getattr(cursor_class, name)))
    return noting


def _fetching(method: Any) -> Any:
    @wraps(method)
    def fetching(self: Any, *args: Any, **kwargs: Any) -> Any:
        conn = self.connection
        conn._running = True
        try:
            return method(self, *args, **kwargs)
        except sqlite3.Error as error:
            conn._driver.failed(conn, error)
            raise
        finally:
            end(conn)

    return fetching


def _lasting(name: str) -> Any:
    method = getattr(sqlite3.Connection, name)

    def lasting(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._touched |= Touched.BEYOND_RESET
        return method(self, *args, **kwargs)

    return lasting


for _name in _LASTING:
    if hasattr(sqlite3.Connection, _name):
        setattr(_Noting, _name, _lasting(_name))


def _touches(statement: Any) -> Touched:
    if type(statement) is not str:
        return Touched.NOTHING  # it is the driver's to say what is wrong
    return _remembered(statement) if len(statement) <= LONGEST_REMEMBERED else _found(statement)


def _found(statement: str) -> Touched:
    found = Touched.NOTHING
    for kind, pattern in _COMPILED.items():
        if pattern.search(statement):
            found |= kind
    if found & Touched.SETTINGS and not all(map(_is_known, _PRAGMA.finditer(statement))):
        found |= Touched.BEYOND_RESET
    return found


def _is_known(pragma: re.Match[str]) -> bool:
    """Whether it can be set back, or does not have to be."""
    name, given = pragma[1], pragma[2]
    return name is not None and (given is None or name.lower() in _PRAGMAS or name.lower() in _PASSING)


_remembered = lru_cache(maxsize=1024)(_found)


def _interrupt(conn: Any, seconds: float) -> None:
    """End whatever runs on the connection, within *seconds*."""
    until = monotonic() + seconds
    with suppress(sqlite3.ProgrammingError):  # closed
        conn.interrupt()
        while conn._running and monotonic() < until:
            sleep(_BETWEEN_INTERRUPTS)
            conn.interrupt()  # a statement that was about to begin when it was called first


def _let_go(conn: Any) -> None:
    """Give up the locks that it has on its file, and let nothing more begin on it.

    It is not closed: its holder, if there is one, may just begin a statement, and that would end the process. Who
    has nothing of it but locks has no use for its place in the file, and the garbage collector ends the rest.
    """
    _interrupt(conn, _ABORT_SECONDS)
    with suppress(sqlite3.Error):  # closed, or in no transaction
        if conn.in_transaction:
            sqlite3.Cursor(conn).execute("ROLLBACK")
    with suppress(sqlite3.ProgrammingError):
        sqlite3.Connection.set_progress_handler(conn, lambda: True, 1)


def _never(milliseconds: int) -> bool:
    return False


def _always_in_transaction(conn: Any) -> bool:
    """PEP 249's own way, which Python 3.12 has brought: commit and rollback open the next one."""
    return getattr(conn, "autocommit", _LEGACY) is False


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _is_memory(file: str) -> bool:
    return file.startswith("file:") and (":memory:" in file or "memory" in _query(file).get("mode", []))


def _query(file: str) -> dict[str, list[str]]:
    return parse_qs(file.partition("?")[2])


def _check_file(file: str) -> None:
    """:raises ValueError: when each connection would have a database of its own."""
    if file == "":
        raise ValueError("sqlite3 needs a file: Pool('/path/to/file.db', driver='sqlite3')")
    if file == ":memory:" or (_is_memory(file) and "shared" not in _query(file).get("cache", [])):
        raise ValueError(
            f"with {file!r} each connection has a database of its own, empty at first:"
            " use 'file:name?mode=memory&cache=shared', or a file"
        )
