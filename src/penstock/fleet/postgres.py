"""The fleet as PostgreSQL shows it: every connection's `application_name`, which every role may see.

To say and to look is one statement, in this order: when two members claim the same room at the same moment, each of
them sees the other's claim, and at least one takes its own back. So no lock is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from weakref import ref

from ..drivers import sockets
from ..drivers.base import Driver, Status
from ..pool.base import one_line
from . import tag
from .ledger import Elsewhere
from .shares import View, view
from .tag import Said

if TYPE_CHECKING:
    from .settings import Fleet

# Without them the server would find out about a machine that has vanished after two hours, and about a killed client
# whose statement runs when that ends. Slower than `Postgres.fresh`: a member must know that it has lost touch before
# the server gives its connections up. Milliseconds or seconds, as PostgreSQL has them.
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
       OR a.usesysid = (SELECT quote_ident(session_user)::regrole)
          AND a.datid = (SELECT oid FROM pg_database WHERE datname = current_database()))
GROUP BY a.application_name
"""


_POOLER = (
    "a pooler stands between this process and the server, which a fleet cannot be seen through:"
    " connect straight, or have the processes see one another through a Redis: Fleet(redis=...)"
)


def refused_by_a_pooler(error: Exception) -> Elsewhere | None:
    """PgBouncer lets no settings through that it does not keep itself, unless it is told to ignore them."""
    return Elsewhere(f"{_POOLER} ({one_line(error)})") if "unsupported startup parameter" in str(error) else None


class Postgres:
    """Satisfies `ledger.Ledger`. A claim stands while the connection that says it lives and bears that name."""

    settings: Mapping[str, str] = SETTINGS
    asks_on_one = True
    takes_places = False
    fresh = 10.0
    lost = longest = math.inf

    def __init__(self, driver: Driver, fleet: Fleet, member: str) -> None:
        self._driver = driver
        self._fleet = fleet
        self._member = member

    def arguments(self) -> Mapping[str, Any]:
        return {"application_name": tag.write(self._fleet.name, self._member, self._fleet.service)}

    async def take(self, conn: Any) -> None:
        pass  # it has its name since the login

    async def say(self, conn: Any, said: Said, count: int) -> tuple[View, Callable[[], bool]]:
        """Name *conn* after it, and then see all names. How many connections have each the server counts itself.

        :raises Elsewhere: when there is a pooler between, where a name would be anybody's.
        """
        fleet = self._fleet
        name = tag.write(fleet.name, self._member, fleet.service, said)
        weak = ref(conn)
        rows = await self._driver.ask(conn, _SAY, (name, tag.prefix(fleet.name)))
        if not any(mine for _, _, mine, _ in rows) or rows[0][3] != self._driver.backend(conn):
            raise Elsewhere(_POOLER)
        # To a client whose encoding is SQL_ASCII text is bytes.
        names = [(seen.decode() if isinstance(seen, bytes) else seen, count) for seen, count, _, _ in rows]
        return view(fleet.name, names, fleet.budget, fleet.members, fleet.outside), lambda: self._says(weak(), name)

    def speaker(self) -> None:
        return None  # each is as good as another

    async def leave(self, number: int) -> None:
        pass  # what it said has gone with its connections

    async def close(self) -> None:
        pass

    def _says(self, conn: Any, name: str) -> bool:
        """Whether the connection lives and bears this name, as far as is known without asking. From any thread."""
        try:
            if self._driver.told(conn, "application_name") != name:
                return False
            stirred = self._driver.probe(conn)(0)
            # While a statement runs, input is its answer; at any other time it is most likely the server's goodbye.
            return not (sockets.has_ended(stirred) if self._driver.status(conn) is Status.ACTIVE else stirred)
        except Exception:  # whatever a driver raises for a connection that is closed
            return False
