"""Which errors of a database another try may mend. A transaction is tried again as a whole, so each may be."""

from __future__ import annotations

import sqlite3

from ..fallback.trouble import trouble

# A serialization failure, a deadlock, a lock that could not be had (PostgreSQL's documentation, appendix A).
_SQLSTATES = frozenset({"40001", "40P01", "55P03"})
# Too many connections, a lock waited for too long, a deadlock, the server gone, lost or not reached, shutting down.
_MYSQL = frozenset({1040, 1053, 1203, 1205, 1213, 2002, 2003, 2006, 2013, 2055, 4031})


def passes(error: Exception, lost: bool) -> bool:
    """Whether another try may go better. *lost*: the connection was, when this was raised."""
    if lost or trouble(error) is not None or isinstance(error, (OSError, TimeoutError)):
        return True
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if state in _SQLSTATES:
        return True
    module = type(error).__module__.partition(".")[0]
    if module in ("pymysql", "MySQLdb"):  # aiomysql's are PyMySQL's
        return bool(error.args) and error.args[0] in _MYSQL
    if module == "asyncpg":  # what it says of a connection that has gone before a statement was sent
        return type(error).__name__ == "InterfaceError" and "closed" in str(error)
    return isinstance(error, sqlite3.OperationalError) and ("locked" in str(error) or "busy" in str(error))
