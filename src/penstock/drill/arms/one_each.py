"""A connection for each thread, opened once: as fast as the work can be done with that many."""

import threading
from typing import Any, ClassVar

import psycopg

from penstock.drill.arms.arm import Arm
from penstock.drill.work import Request


class OneEach(Arm):
    """What the capacity is measured with: no pool, as many clients as connections, and nobody ever waits for one."""

    name: ClassVar[str] = "capacity"
    title: ClassVar[str] = "the capacity, measured first"

    def __init__(self, dsn: str, pool_size: int) -> None:
        self._dsn = dsn

    def start(self) -> None:
        self._mine = threading.local()
        self._all: list[psycopg.Connection[Any]] = []

    def request(self, work: Request) -> None:
        with self._connection().transaction():
            work(self._connection().execute)

    def stop(self) -> None:
        for connection in self._all:
            connection.close()

    def _connection(self) -> psycopg.Connection[Any]:
        if not hasattr(self._mine, "connection"):
            self._mine.connection = psycopg.connect(self._dsn)
            self._all.append(self._mine.connection)
        mine: psycopg.Connection[Any] = self._mine.connection
        return mine
