"""Asks a PostgreSQL server who is connected to it now."""

from __future__ import annotations

from dataclasses import dataclass

from .limits import connection

# Of other roles' sessions an ordinary role sees neither state nor times: what is unknown is NULL, and said to be.
_ASK = """
SELECT usename, datname, coalesce(application_name, ''), count(*)::int,
       count(*) FILTER (WHERE state = 'active')::int,
       count(*) FILTER (WHERE state LIKE 'idle in transaction%')::int,
       count(*) FILTER (WHERE state IS NULL)::int,
       extract(epoch FROM max(clock_timestamp() - xact_start))::float
FROM pg_stat_activity
WHERE datid IS NOT NULL AND usesysid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend'
  AND pid <> pg_backend_pid()
GROUP BY 1, 2, 3
ORDER BY 4 DESC, 1, 2, 3
"""


@dataclass(frozen=True, slots=True)
class Clients:
    """The connections of one role to one database under one name.

    :ivar unknown: of how many the state cannot be seen, for want of `pg_monitor`.
    :ivar oldest: seconds since the oldest transaction among them began; None if there is none, or it cannot be seen.
    """

    role: str
    database: str
    application: str
    count: int
    active: int
    idle_in_transaction: int
    unknown: int
    oldest: float | None


def clients(dsn: str) -> list[Clients]:
    """Who is connected to the server behind *dsn*, the many first, over one connection that is closed at once.

    :raises LimitsUnknown: as `limits.ask` does.
    """
    with connection(dsn) as conn:
        return [Clients(*row) for row in conn.execute(_ASK).fetchall()]
