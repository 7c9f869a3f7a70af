"""The server that a drill runs against: one of our own, or a given one."""

import ipaddress
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from penstock.budget import Plan, plan
from penstock.drill.failure import CannotStart
from penstock.drill.measure import CLIENTS, look
from penstock.drill.postgres import EmbeddedPostgres
from penstock.drivers.limits import LimitsUnknown, ask

# One connection looks at the server all the while. It counts against max_connections, so the budget reserves it.
LOOKING = 1

# The role's own sessions in this database are nobody's "others" to the limits, but they were there before the drill.
_PRESENT = """
SELECT pg_has_role(session_user, 'pg_read_all_stats', 'USAGE'),
       (SELECT count(*) FROM pg_stat_activity
        WHERE usename = session_user AND datname = current_database() AND pid <> pg_backend_pid())::int
"""


@dataclass(frozen=True, slots=True)
class Server:
    """Where the clients connect, who may look, and where the line is."""

    dsn: str
    admin_dsn: str
    embedded: bool
    max_connections: int
    reserved: int  # what the clients cannot have: the server's own reserves, whoever is there already, and who looks
    version: str

    def __repr__(self) -> str:  # the DSNs hold passwords
        return f"<Server {self.version}, line {self.line}>"

    @property
    def line(self) -> int:
        """Connections that the drill's clients can have in all."""
        return self.max_connections - self.reserved

    def share(self, instances: int) -> Plan:
        """Share the line out. Raises CannotStart when there are more instances than connections."""
        shared = plan(self.max_connections, reserved=self.reserved, instances=instances)
        if not shared.fits:
            raise CannotStart(f"{shared} Raise max_connections or start fewer instances")
        return shared

    def terminate_clients(self) -> None:
        """End the drill's own connections, and nobody else's."""
        with look(self.admin_dsn) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", (CLIENTS,)
            )


@contextmanager
def embedded(max_connections: int) -> Iterator[Server]:
    """Start a server of our own for the drill. Raises CannotStart."""
    if max_connections < 8:
        raise CannotStart(
            f"--max-connections is {max_connections}; PostgreSQL and the drill itself keep 4, so use 8 or more"
        )
    with EmbeddedPostgres(max_connections=max_connections) as postgres:
        yield _inspect(postgres.dsn, postgres.admin_dsn, embedded=True)


class Servers:
    """Where each scenario is played: on the server that was given, or on one of our own, started when it is needed.

    A context manager, at whose end ours end. `max_connections` is asked of ours in place of what a scenario needs.
    """

    def __init__(self, there: Server | None = None, max_connections: int | None = None) -> None:
        self._there = there
        self._max_connections = max_connections
        self._started: dict[int, Server] = {}

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def place(self, needed: int) -> Server:
        """Return the server for a scenario that needs so many connections. Raises CannotStart."""
        if self._there is not None:
            return self._there
        number = needed if self._max_connections is None else self._max_connections
        if number not in self._started:
            self._started[number] = self._stack.enter_context(embedded(number))
        return self._started[number]


def given(dsn: str, *, anywhere: bool = False) -> Server:
    """Look at the server behind `dsn`, which must be on this machine unless `anywhere`. Raises CannotStart."""
    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:  # its message quotes the DSN, and there may be a password in it
        raise CannotStart("--dsn does not parse: use postgresql://user:password@host:port/dbname") from None
    if "://" in dsn and any("@" in str(parts.get(part, "")) for part in ("host", "port", "dbname")):
        # libpq took a part of the password for the host, which must not be shown.
        raise CannotStart("the password in --dsn has characters that a URL reserves: write %40 for @, %2F for /")
    if not anywhere and not _loopback(parts):
        raise CannotStart(
            f"the server at {parts.get('host') or parts.get('hostaddr')} is not on this machine, and a drill takes "
            "every connection it can get: whoever uses that server would be refused. If it is yours to break, add --yes"
        )
    return _inspect(dsn, dsn, embedded=False)


def _loopback(parts: dict[str, Any]) -> bool:
    hosts = str(parts.get("hostaddr") or parts.get("host") or "").split(",")
    return all(not host or host.startswith(("/", "@")) or host == "localhost" or _is_loopback(host) for host in hosts)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _inspect(dsn: str, admin_dsn: str, *, embedded: bool) -> Server:
    try:
        limit = ask(dsn).limits()[0]
    except LimitsUnknown as error:
        raise CannotStart(str(error)) from None
    with look(admin_dsn) as connection:
        row = connection.execute(_PRESENT).fetchone()
        version = connection.info.server_version
    assert row is not None  # it has no FROM
    may_look, present = row
    if not may_look:
        raise CannotStart(
            "the role in --dsn may not see other sessions, so nothing could be measured: "
            "GRANT pg_monitor TO it, or use a superuser"
        )
    return Server(
        dsn=make_conninfo(dsn, application_name=CLIENTS),
        admin_dsn=admin_dsn,
        embedded=embedded,
        max_connections=limit.connections,
        reserved=limit.reserved + limit.in_use + (0 if embedded else present) + LOOKING,
        version=f"PostgreSQL {version // 10000}.{version % 10000}",
    )
