"""The names of dbutils.pooled_db: `PooledDB`, whose connections `close` gives back.

What differs is told in docs/compat.md: above all, a request waits, `blocking` or not, and for 30 seconds at most.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import closing
from sys import _getframe
from types import ModuleType, TracebackType
from typing import Any, Self

from .. import errors
from ..pool.sync import Pool

__all__ = ["InvalidConnectionError", "PooledDB", "PooledDBConnection", "PooledDBError", "TooManyConnectionsError"]

PooledDBError = errors.PoolError
TooManyConnectionsError = errors.PoolTimeout

# The modules of which a driver of ours knows more than PEP 249 tells, by its name; and how each one's connect() names
# its first argument, where a driver of ours takes that by place.
_DRIVERS = {
    "psycopg": "psycopg",
    "psycopg2": "psycopg2",
    "pymysql": "pymysql",
    "MySQLdb": "mysqlclient",
    "sqlite3": "sqlite3",
    "oracledb": "oracledb",
}
_CONNINFO = {"psycopg": "conninfo", "psycopg2": "dsn", "oracledb": "dsn"}


class InvalidConnectionError(PooledDBError):
    """The connection was given back already."""


class PooledDB:
    """A pool of connections of any PEP 249 driver.

    :param creator: the driver's module.
    :param mincached: connections kept open.
    :param maxconnections: connections never exceeded; 0 or None for any number.
    :param setsession: statements that prepare each new connection.
    :param args: for the driver's ``connect``: one at most, where to connect; and by name, *kwargs*.

    The other parameters are accepted and mean nothing: connections are not shared, a dead one is not handed out, and
    one that comes back is rolled back if that has a use.
    """

    def __init__(
        self,
        creator: ModuleType,
        mincached: int | None = 0,
        maxcached: int | None = 0,
        maxshared: int | None = 0,
        maxconnections: int | None = 0,
        blocking: bool = False,
        maxusage: int | None = None,
        setsession: Iterable[str] | None = None,
        reset: bool | None = True,
        failures: Any = None,
        ping: Any = 1,
        isfatal: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        if not callable(getattr(creator, "connect", None)):
            raise TypeError(f"creator must be a driver's module, which has connect(), not {creator!r}")
        if len(args) > 1:
            raise TypeError(f"of connect()'s arguments all but the first go by name, and there are {len(args)} without")
        min_size = mincached or 0
        statements = tuple(setsession or ())
        driver = _driver(creator)
        conninfo = args[0] if args else ""
        if (name := _CONNINFO.get(driver)) and name in kwargs:
            conninfo = kwargs.pop(name)
        elif args and driver in ("pymysql", "mysqlclient"):  # ours take a URL there, and theirs the host
            conninfo, kwargs["host"] = "", args[0]
        self._pool = Pool[Any](
            conninfo,
            driver=driver,
            kwargs=kwargs,
            min_size=min_size,
            max_size=max(min_size, maxconnections) if maxconnections else sys.maxsize,
            configure=(lambda conn: _prepare(conn, statements)) if statements else None,
            open=True,
        )

    def connection(self, shareable: bool = True) -> PooledDBConnection:
        """A connection; its ``close()`` gives it back, and so does the end of a ``with`` block.

        :raises TooManyConnectionsError: when there was none within 30 seconds; it is the driver's own error, too.
        """
        frame = _getframe(1)
        return PooledDBConnection(self._pool, self._pool._getconn(None, frame.f_code, frame.f_lasti))

    dedicated_connection = connection

    def close(self) -> None:
        """Close the pool."""
        self._pool.close()


class PooledDBConnection:
    """Stands before a connection until `close` gives that back."""

    def __init__(self, pool: Pool[Any], conn: Any) -> None:
        self._pool = pool
        self._con = conn
        self._was_autocommit = False  # until `begin` turned that off

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lent(), name)

    def _lent(self) -> Any:
        if self._con is None:
            raise InvalidConnectionError("this connection was given back already: take another one from the pool")
        return self._con

    def begin(self, *args: Any, **kwargs: Any) -> None:
        """From now on to `commit`, `rollback` or `close` all is one transaction, in autocommit too.

        By the driver's own ``begin(*args, **kwargs)``, where it has one; else autocommit is turned off until then.
        """
        conn = self._lent()
        own = getattr(conn, "begin", None)
        if own is not None:
            own(*args, **kwargs)
        elif getattr(conn, "in_transaction", None) is False and conn.isolation_level is None:
            with closing(conn.cursor()) as cursor:  # sqlite3's older way to say autocommit
                cursor.execute("BEGIN")
        if getattr(conn, "autocommit", None) is True:  # oracledb's `begin` leaves it on
            conn.autocommit = False
            self._was_autocommit = True

    def commit(self) -> None:
        """End the transaction, and keep what it did."""
        self._lent().commit()
        self._ended()

    def rollback(self) -> None:
        """End the transaction, and undo what it did."""
        self._lent().rollback()
        self._ended()

    def _ended(self) -> None:
        if self._was_autocommit:
            self._con.autocommit = True
            self._was_autocommit = False

    def close(self) -> None:
        """Give the connection back. What was not committed is rolled back."""
        conn, self._con = self._con, None
        if conn is not None:
            self._pool.putconn(conn)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _driver(module: ModuleType) -> Any:
    name = _DRIVERS.get(getattr(module, "__name__", ""))
    if name is not None:
        return name
    from ..drivers.generic import DBAPIModule

    return DBAPIModule(module)


def _prepare(conn: Any, statements: tuple[str, ...]) -> None:
    cursor = conn.cursor()
    for statement in statements:
        cursor.execute(statement)
    cursor.close()
    conn.commit()
