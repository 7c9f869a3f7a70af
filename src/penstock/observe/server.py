"""What a PostgreSQL server says of its connections: who has them, what they do, and how many there may be.

One connection, read-only, in autocommit, with every wait bounded. It reads views alone, and takes no lock that anybody
could wait for.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..drivers import conninfo
from .fingerprint import fingerprint

CONNECT_SECONDS = 3
_OLDEST = 8  # connections that are shown one by one
_SETTINGS = {"statement_timeout": "2s", "lock_timeout": "1s", "default_transaction_read_only": "on"}

_LIMITS = """
SELECT current_setting('max_connections')::int,
       current_setting('superuser_reserved_connections')::int,
       coalesce(current_setting('reserved_connections', true), '0')::int,
       pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') OR current_setting('is_superuser')::bool,
       current_setting('server_version'),
       pg_is_in_recovery()
"""
# A backend's type is one of those things that only its own role may see.
_ACTIVITY = """
SELECT pid,
       coalesce(usename::text, '') AS role,
       coalesce(datname::text, '') AS database,
       coalesce(application_name, '') AS application,
       host(client_addr) AS client,
       backend_type,
       state,
       wait_event_type,
       wait_event,
       extract(epoch FROM clock_timestamp() - state_change)::float AS state_seconds,
       extract(epoch FROM clock_timestamp() - xact_start)::float AS transaction_seconds,
       left(query, 2000) AS query
  FROM pg_stat_activity
 WHERE (backend_type = 'client backend' OR (backend_type IS NULL AND usesysid IS NOT NULL))
   AND pid <> pg_backend_pid()
"""
# Of a few alone: each holds up the server's locks for a moment.
_BLOCKERS = "SELECT pid, pg_blocking_pids(pid) FROM unnest(%s::int[]) AS asked(pid)"


@dataclass(slots=True, frozen=True)
class Group:
    """Connections of one application, role and client.

    :ivar states: how many are in which state; "not shown" for those that this role may not look at.
    :ivar oldest: seconds of the longest transaction; None if none is open, or none is shown.
    """

    application: str
    role: str
    database: str
    client: str
    count: int
    states: Mapping[str, int]
    oldest: float | None


@dataclass(slots=True, frozen=True)
class Session:
    """One connection worth looking at: in a transaction, or in a statement. Seconds.

    :ivar blocked_by: server processes that hold the lock it waits for.
    """

    pid: int
    application: str
    role: str
    state: str
    for_seconds: float
    transaction: float | None
    waits_for: str | None
    blocked_by: tuple[int, ...]
    statement: str | None


@dataclass(slots=True)
class Activity:
    """:ivar line: connections that the server accepts in all, and *reserved* of them for some roles alone.

    :ivar hidden: connections whose state this role may not see; pg_monitor may.
    """

    version: str
    standby: bool
    line: int
    reserved: int
    sees_all: bool
    count: int = 0
    states: Mapping[str, int] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)

    @property
    def open_to_all(self) -> int:
        """Connections that an ordinary role may have."""
        return self.line - self.reserved

    @property
    def hidden(self) -> int:
        return self.states.get(HIDDEN, 0)


HIDDEN = "not shown"
ORDER = ("idle in transaction (aborted)", "idle in transaction", "active", "fastpath function call", "idle", HIDDEN)


class Server:
    """A connection to a server, opened when it is first asked, and again when it was lost."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._conn: Any = None

    def read(self) -> Activity:
        """:raises psycopg.Error: (or ValueError) when the server cannot be asked; the message holds no password."""
        import psycopg
        from psycopg.rows import dict_row

        try:
            conn = self._conn or self._connect()
            limits = conn.execute(_LIMITS).fetchone()
            rows = conn.cursor(row_factory=dict_row).execute(_ACTIVITY).fetchall()
            busy = _busiest(rows)
            waiting = [row["pid"] for row in busy if row["wait_event_type"] == "Lock"]
            blockers = dict(conn.execute(_BLOCKERS, [waiting]).fetchall()) if waiting else {}
        except psycopg.Error:
            self.close()
            raise
        line, superusers, others, sees_all, version, standby = limits
        found = _activity(Activity(version, standby, line, superusers + others, sees_all), rows)
        found.sessions = [_session(row, tuple(blockers.get(row["pid"], ()))) for row in busy]
        return found

    def close(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()

    def _connect(self) -> Any:
        import psycopg

        given = conninfo.parse(self._dsn)
        params = {"application_name": "penstock top"} | conninfo.added(given, CONNECT_SECONDS, _SETTINGS)
        self._conn = psycopg.connect(self._dsn, autocommit=True, prepare_threshold=None, **params)
        return self._conn


def _activity(found: Activity, rows: Iterable[Mapping[str, Any]]) -> Activity:
    groups: defaultdict[tuple[str, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[(row["application"], row["role"], row["database"], row["client"] or "local")].append(row)
    found.groups = sorted((_group(key, each) for key, each in groups.items()), key=lambda group: -group.count)
    found.states = Counter(_state(row) for each in groups.values() for row in each)
    found.count = sum(found.states.values())
    return found


def _busiest(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    busy = [row for row in rows if _state(row) not in ("idle", HIDDEN)]
    return sorted(busy, key=lambda row: -(row["transaction_seconds"] or row["state_seconds"] or 0.0))[:_OLDEST]


def _group(key: tuple[str, ...], rows: list[Mapping[str, Any]]) -> Group:
    application, role, database, client = key
    oldest = max((row["transaction_seconds"] for row in rows if row["transaction_seconds"] is not None), default=None)
    return Group(application, role, database, client, len(rows), Counter(map(_state, rows)), oldest)


def _session(row: Mapping[str, Any], blocked_by: tuple[int, ...]) -> Session:
    waits = row["state"] == "active" and row["wait_event_type"]
    return Session(
        pid=row["pid"],
        application=row["application"],
        role=row["role"],
        state=row["state"],
        for_seconds=row["state_seconds"] or 0.0,
        transaction=row["transaction_seconds"],
        waits_for=f"{row['wait_event_type']}: {row['wait_event']}" if waits else None,
        blocked_by=blocked_by,
        statement=fingerprint(row["query"]),
    )


def _state(row: Mapping[str, Any]) -> str:
    return row["state"] or HIDDEN
