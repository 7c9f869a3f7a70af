"""A pool that is never given back."""

import threading
from typing import Any, ClassVar

import psycopg

from penstock.drill.arms.arm import Arm
from penstock.drill.work import Request


class PoolError(Exception):
    """The pool has no connection to give."""


class SimplePool:
    """A pool as people write it, and as older drivers shipped it: a list, a limit, and no waiting."""

    def __init__(self, dsn: str, most: int) -> None:
        self._dsn = dsn
        self._most = most
        self._lock = threading.Lock()
        self._free: list[psycopg.Connection[Any]] = []
        self._used: list[psycopg.Connection[Any]] = []

    def getconn(self) -> psycopg.Connection[Any]:
        """Take a free connection or open one. Raises PoolError at the limit."""
        with self._lock:
            if not self._free and len(self._used) >= self._most:
                raise PoolError("connection pool exhausted")
            connection = self._free.pop() if self._free else psycopg.connect(self._dsn)
            self._used.append(connection)
            return connection

    def putconn(self, connection: psycopg.Connection[Any]) -> None:
        """Give a connection back."""
        with self._lock:
            self._used.remove(connection)
            self._free.append(connection)


class NeverReturned(Arm):
    """`getconn()` without `putconn()`: closing the cursor looks like enough, and the first requests are fast."""

    name: ClassVar[str] = "never-returned"
    title: ClassVar[str] = "a pool that is never given back"

    def __init__(self, dsn: str, pool_size: int) -> None:
        self._pool = SimplePool(dsn, most=20)  # the number in the tutorial

    def request(self, work: Request) -> None:
        connection = self._pool.getconn()
        with connection.cursor() as cursor:
            work(cursor.execute)
        connection.commit()
