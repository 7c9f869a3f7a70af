"""The names of dbutils.pooled_db: `PooledDB`, whose connections `close` gives back.

What differs is told in docs/compat.md: above all, a request waits, `blocking` or not, and for 30 seconds at most.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from sys import _getframe
from types import ModuleType, TracebackType
from typing import Any, Self

from .. import errors
from ..pool.sync import Pool

__all__ = ["InvalidConnectionError", "PooledDB", "PooledDBConnection", "PooledDBError", "TooManyConnectionsError"]

PooledDBError = errors.PoolError
TooManyConnectionsError = errors.PoolTimeout

_DRIVERS = ("psycopg2", "sqlite3", "oracledb")  # what a driver of ours knows more of than PEP 249 tells


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
        if driver == "psycopg2" and "dsn" in kwargs:  # connect()'s first argument has a name there
            args = (kwargs.pop("dsn"),)
        self._pool = Pool[Any](
            args[0] if args else "",
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

    def __getattr__(self, name: str) -> Any:
        if self._con is None:
            raise InvalidConnectionError("this connection was given back already: take another one from the pool")
        return getattr(self._con, name)

    def begin(self) -> None:
        """Accepted, and means nothing: a statement opens a transaction, unless the connection is in autocommit."""

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
    name = getattr(module, "__name__", "")
    if name in _DRIVERS:
        return name
    from ..drivers.generic import DBAPIModule

    return DBAPIModule(module)


def _prepare(conn: Any, statements: tuple[str, ...]) -> None:
    cursor = conn.cursor()
    for statement in statements:
        cursor.execute(statement)
    cursor.close()
    conn.commit()
