"""Asks a PostgreSQL server how many connections one role may open in one database.

It stands among the drivers because this is the lowest floor that speaks to a server: `budget` does no I/O, and `cli`
only parses and prints. It asks with psycopg, which it imports when it is called, so that importing it costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import for_url
from .conninfo import parse

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

CONNECT_TIMEOUT = 5  # seconds; the DSN's own connect_timeout goes before it

# Limits bind the session's own role (session_user), whatever SET ROLE says. The rows of other roles are cut down for an
# unprivileged role, backend_type included, but datid and usesysid are always there: together they mean a client.
_ASK = """
WITH me AS (
    SELECT r.oid AS role, r.rolname, r.rolconnlimit, r.rolsuper, d.oid AS db, d.datname, d.datconnlimit
    FROM pg_roles r, pg_database d
    WHERE r.rolname = session_user AND d.datname = current_database()
), client AS (
    SELECT usesysid, datid FROM pg_stat_activity
    WHERE datid IS NOT NULL AND usesysid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend'
)
SELECT current_setting('max_connections')::int,
       current_setting('superuser_reserved_connections')::int,
       coalesce(current_setting('reserved_connections', true), '0')::int,
       rolname, rolconnlimit, rolsuper, datname, datconnlimit,
       (SELECT count(*) FROM client WHERE (usesysid, datid) IS DISTINCT FROM (role, db))::int,
       (SELECT count(*) FROM client WHERE usesysid = role AND datid <> db)::int,
       (SELECT count(*) FROM client WHERE datid = db AND usesysid <> role)::int
FROM me
"""


class LimitsUnknown(Exception):
    """The server could not be asked. Says why, and never shows the DSN's password."""


class UnreadableDsn(LimitsUnknown):
    """The DSN itself is wrong, so that nobody was asked."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit that the server enforces, and what of it the service cannot have."""

    name: str
    connections: int
    reserved: int
    in_use: int

    @property
    def room(self) -> int:
        """Connections that the service's pools may hold under this limit alone."""
        return max(0, self.connections - self.reserved - self.in_use)


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """A server's answer, for the role and database that asked. A limit of -1 means none.

    "Others" are client connections that are not this role's in this database: those of other programs. They are
    counted at one instant; ask at a busy hour.
    """

    max_connections: int
    superuser_reserved_connections: int
    reserved_connections: int
    role: str
    role_limit: int
    superuser: bool
    database: str
    database_limit: int
    others: int
    others_of_role: int
    others_in_database: int

    def limits(self, headroom: int = 0) -> list[Limit]:
        """Every limit that binds, the tightest first. `headroom` is kept besides the server's own reserve.

        Headroom is for operators, so it weighs on the server's limit only: the others do not bind a superuser.
        """
        kept = self.superuser_reserved_connections + self.reserved_connections + headroom
        found = [Limit("max_connections", self.max_connections, kept, self.others)]
        if self.role_limit >= 0:
            found.append(Limit(f"role {self.role}", self.role_limit, 0, self.others_of_role))
        if self.database_limit >= 0:
            found.append(Limit(f"database {self.database}", self.database_limit, 0, self.others_in_database))
        return sorted(found, key=lambda limit: limit.room)


def ask(dsn: str) -> ServerLimits:
    """Ask the server behind `dsn` for its limits, over one connection that is closed again at once.

    Before PostgreSQL 16 there is no `reserved_connections`; it counts as 0. Raises LimitsUnknown when psycopg is not
    installed, the DSN does not parse, or the server cannot be reached or asked.
    """
    with connection(dsn) as conn:
        row = conn.execute(_ASK).fetchone()
    assert row is not None, "bug: a session without a role or a database"
    return ServerLimits(*row)


@contextmanager
def connection(dsn: str) -> Iterator[Connection[TupleRow]]:
    """One connection to ask on, closed at the end. What goes wrong with it within the block is LimitsUnknown too."""
    if for_url(dsn, False) != "psycopg":
        raise LimitsUnknown("it is no PostgreSQL, and others are not asked: what is declared counts")
    try:
        import psycopg
    except ImportError:
        raise LimitsUnknown("asking a server needs psycopg: pip install 'penstock[postgres]'") from None
    try:
        params: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT, **parse(dsn)}
    except ValueError as error:
        raise UnreadableDsn(str(error)) from None
    try:
        with psycopg.connect(autocommit=True, **params) as conn:
            yield conn
    except (psycopg.Error, UnicodeError) as error:  # UnicodeError: a host that is no name at all
        raise LimitsUnknown(f"the server could not be asked: {error}") from error
