"""What a driver's connection knows of its transaction, whichever driver's it is, without asking the server."""

from __future__ import annotations

from typing import Any

_NAMES = ("IDLE", "ACTIVE", "INTRANS", "INERROR", "BAD")  # libpq's, in the order of its numbers


def status(conn: Any) -> str:
    """As `Holder.status` has it; IDLE where the driver does not know."""
    conn = getattr(conn, "driver_connection", conn)  # SQLAlchemy's, round one of asyncio's
    pgconn = getattr(conn, "pgconn", None)
    if pgconn is not None:  # psycopg
        return _NAMES[min(int(pgconn.transaction_status), 4)]
    if hasattr(conn, "is_in_transaction"):  # asyncpg
        return "BAD" if conn.is_closed() else "INTRANS" if conn.is_in_transaction() else "IDLE"
    if hasattr(conn, "get_transaction_status") and not hasattr(conn, "server_status"):  # psycopg2
        return _NAMES[min(int(conn.get_transaction_status()), 4)]
    if hasattr(conn, "server_status"):  # PyMySQL and aiomysql: SERVER_STATUS_IN_TRANS
        return "INTRANS" if conn.server_status & 1 else "IDLE"
    in_transaction = getattr(conn, "in_transaction", False)  # sqlite3, mysql.connector
    return "INTRANS" if in_transaction is True else "IDLE"
