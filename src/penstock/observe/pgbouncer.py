"""What a PgBouncer says of its pools, on its admin console. Columns are known by their names: versions differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..drivers import conninfo

CONNECT_SECONDS = 3
_ITSELF = "pgbouncer"  # its own database, which is the console


@dataclass(slots=True, frozen=True)
class BouncerPool:
    """One database and role. Connections of clients and to servers; seconds.

    :ivar size: server connections that it may have; None where that is not told.
    :ivar longest: for which the first client in the queue has waited.
    :ivar query: a query took on average, of late; None where there was none.
    :ivar wait: a client waited for a server on average, likewise.
    """

    database: str
    role: str
    mode: str
    clients: int
    waiting: int
    longest: float
    servers_active: int
    servers_idle: int
    servers_other: int  # being tested, logging in, or being cancelled
    size: int | None
    queries_a_second: float | None
    query: float | None
    wait: float | None

    @property
    def servers(self) -> int:
        return self.servers_active + self.servers_idle + self.servers_other


@dataclass(slots=True)
class Bouncer:
    """:ivar clients: connected, of *max_clients* that may be; None where that is not told."""

    version: str
    clients: int
    max_clients: int | None
    servers: int
    pools: list[BouncerPool] = field(default_factory=list)


class Console:
    """A connection to the admin console, opened when it is first asked, and again when it was lost."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._conn: Any = None

    def read(self) -> Bouncer:
        """:raises psycopg.Error: (or ValueError) when it cannot be asked; the message holds no password."""
        import psycopg

        try:
            return self._read()
        except psycopg.Error:
            self.close()
            raise

    def close(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()

    def _read(self) -> Bouncer:
        databases = {row["name"]: row for row in self._show("DATABASES")}
        stats = {row["database"]: row for row in self._show("STATS")}
        lists = {row["list"]: row["items"] for row in self._show("LISTS")}
        config = {row["key"]: row["value"] for row in self._show("CONFIG")}
        pools = [
            _pool(row, databases.get(row["database"], {}), stats.get(row["database"], {}))
            for row in self._show("POOLS")
            if row["database"] != _ITSELF
        ]
        pools.sort(key=lambda pool: (-pool.waiting, -pool.servers_active, pool.database, pool.role))
        version = next(iter(next(iter(self._show("VERSION")), {}).values()), "")
        return Bouncer(
            version=str(version).removeprefix("PgBouncer "),
            clients=_number(lists.get("used_clients")) or 0,
            max_clients=_number(config.get("max_client_conn")),
            servers=sum(pool.servers for pool in pools),
            pools=pools,
        )

    def _show(self, what: str) -> Iterable[Mapping[str, Any]]:
        import psycopg
        from psycopg.rows import dict_row

        if self._conn is None:
            bounds = conninfo.added(conninfo.parse(self._dsn), CONNECT_SECONDS, {})
            # It speaks the simple protocol only, and knows no transactions.
            self._conn = psycopg.connect(self._dsn, autocommit=True, cursor_factory=psycopg.ClientCursor, **bounds)
        return self._conn.cursor(row_factory=dict_row).execute(f"SHOW {what}").fetchall()  # type: ignore[no-any-return]


def _pool(row: Mapping[str, Any], database: Mapping[str, Any], stats: Mapping[str, Any]) -> BouncerPool:
    def count(*columns: str) -> int:
        return sum(_number(row.get(column)) or 0 for column in columns)

    seen = _number(stats.get("avg_query_count")) or 0
    return BouncerPool(
        database=row["database"],
        role=row["user"],
        mode=row.get("pool_mode") or "",
        clients=count("cl_active", "cl_waiting"),
        waiting=count("cl_waiting"),
        longest=count("maxwait") + count("maxwait_us") / 1e6,
        servers_active=count("sv_active"),
        servers_idle=count("sv_idle"),
        servers_other=count("sv_used", "sv_tested", "sv_login", "sv_active_cancel", "sv_being_canceled"),
        size=_number(database.get("pool_size")),
        queries_a_second=float(seen) if "avg_query_count" in stats else None,
        query=_micro(stats.get("avg_query_time")) if seen else None,
        wait=_micro(stats.get("avg_wait_time")) if seen else None,
    )


def _number(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _micro(value: Any) -> float | None:
    number = _number(value)
    return None if number is None else number / 1e6
