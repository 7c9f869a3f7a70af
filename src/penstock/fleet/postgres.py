"""The fleet as PostgreSQL shows it: every connection's `application_name`, which every role may see.

To say and to look is one statement, in this order: when two members claim the same room at the same moment, each of
them sees the other's claim, and at least one takes its own back. So no lock is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..drivers import sockets
from ..drivers.base import Driver, Status
from . import tag

# Without them the server would find out about a machine that has vanished after two hours, and about a killed client
# whose statement runs when that ends. Slower than `member.FRESH`: a member must know that it has lost touch before the
# server gives its connections up. Milliseconds or seconds, as PostgreSQL has them.
SETTINGS = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "3",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "15000",
    "client_connection_check_interval": "2000",
}

# The function behind pg_stat_activity: the view's joins cost more than it does. That it looks after the name is set is
# seen to by its argument, which is NULL (all connections), but not before `named` is there. A parallel worker is no
# connection, though it bears its leader's name; of other roles' it cannot be seen, and counts.
_SAY = """
WITH named AS MATERIALIZED (SELECT set_config('application_name', %s, false) AS name)
SELECT a.application_name, count(*), bool_or(a.pid = pg_backend_pid()), max(pg_backend_pid())
FROM named, LATERAL pg_stat_get_activity(CASE WHEN named.name IS NULL THEN 0 END) AS a
WHERE coalesce(a.backend_type, 'client backend') = 'client backend'
  AND (starts_with(a.application_name, %s)
       OR a.usesysid = session_user::regrole
          AND a.datid = (SELECT oid FROM pg_database WHERE datname = current_database()))
GROUP BY a.application_name
"""


class Elsewhere(Exception):
    """The session is not the client's own: something between hands it to others too."""


class Postgres:
    """Says and sees for one member."""

    settings: Mapping[str, str] = SETTINGS

    def __init__(self, driver: Driver, fleet: str) -> None:
        self._driver = driver
        self._fleet = fleet

    def arguments(self, name: str) -> Mapping[str, Any]:
        """For the driver's `connect`: what names a connection from its first moment."""
        return {"application_name": name}

    async def say(self, conn: Any, name: str) -> list[tuple[str, int]]:
        """Name this connection so, and then see all names, and how many connections have each.

        :raises Elsewhere: when there is a pooler between, where a name would be anybody's.
        """
        rows = await self._driver.ask(conn, _SAY, (name, tag.prefix(self._fleet)))
        if not any(mine for _, _, mine, _ in rows) or rows[0][3] != self._driver.backend(conn):
            raise Elsewhere(
                "a pooler stands between this process and the server, which a fleet cannot be seen through:"
                " connect straight, or let the pooler's own limits hold the line"
            )
        return [(seen, count) for seen, count, _, _ in rows]

    def still_says(self, conn: Any, name: str) -> bool:
        """Whether the connection lives and bears this name, as far as is known without asking. From any thread."""
        try:
            if self._driver.told(conn, "application_name") != name:
                return False
            stirred = self._driver.probe(conn)(0)
            # While a statement runs, input is its answer; at any other time it is most likely the server's goodbye.
            return not (sockets.has_ended(stirred) if self._driver.status(conn) is Status.ACTIVE else stirred)
        except Exception:  # whatever a driver raises for a connection that is closed
            return False
