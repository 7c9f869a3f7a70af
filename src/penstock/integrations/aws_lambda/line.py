"""How full the server's line is, asked on a connection that may be kept while its process is frozen.

Who keeps one has seen it counted. Of all that are kept at some moment, the last that was decided upon saw the others:
they were open then, and are still. So never more are kept than the share of the line up to which that is allowed,
however many processes decide at the same time, and without a word between them.
"""

from __future__ import annotations

from typing import Any

from ...drivers.base import Driver

# Of the limits that the server holds (its own, the role's, the database's) the one that is nearest. Behind a pooler,
# where the process that answers is not the one that logged us in, there is no row, and nothing is set. The
# second column has the server end a session that stays idle for too long, unless it was told when already.
_POSTGRES = """
WITH me AS (
    SELECT r.oid AS role, r.rolconnlimit, d.oid AS db, d.datconnlimit
    FROM pg_roles r, pg_database d
    WHERE r.rolname = session_user AND d.datname = current_database()
), line AS (
    SELECT greatest(
        count(*)::float8 / (current_setting('max_connections')::int
            - current_setting('superuser_reserved_connections')::int
            - coalesce(current_setting('reserved_connections', true), '0')::int),
        CASE WHEN max(rolconnlimit) > 0 THEN count(*) FILTER (WHERE usesysid = role)::float8 / max(rolconnlimit) END,
        CASE WHEN max(datconnlimit) > 0 THEN count(*) FILTER (WHERE datid = db)::float8 / max(datconnlimit) END
    ) AS taken
    FROM pg_stat_get_activity(NULL), me
    WHERE datid > 0 AND usesysid > 0
)
SELECT taken, CASE WHEN current_setting('idle_session_timeout', true) = '0'
              THEN set_config('idle_session_timeout', %s, false) END
FROM line WHERE pg_backend_pid() = %s
"""


async def taken(driver: Driver, conn: Any, keep_for: float) -> float | None:
    """The share of the line that is taken; None where a pooler keeps it. *conn* is ended when idle for *keep_for* s.

    :raises Exception: the driver's own, also when the server is no PostgreSQL, MySQL or MariaDB.
    """
    if getattr(getattr(driver, "driver", driver), "dialect", "") == "mysql":  # over threads, the one beneath
        return await _mysql(driver, conn, keep_for)
    milliseconds = max(1, round(keep_for * 1000))
    rows = await driver.ask(conn, _POSTGRES, (f"{milliseconds}ms", driver.backend(conn)))
    return float(rows[0][0]) if rows else None


async def _mysql(driver: Driver, conn: Any, keep_for: float) -> float:
    seconds = max(1, round(keep_for))
    [(_, connected)] = await driver.ask(conn, "SHOW GLOBAL STATUS LIKE 'Threads_connected'", ())
    [(limit, idle)] = await driver.ask(conn, "SELECT @@max_connections, @@wait_timeout", ())
    if int(idle) > seconds:
        await driver.ask(conn, f"SET SESSION wait_timeout = {seconds}", ())
    return int(connected) / int(limit)
