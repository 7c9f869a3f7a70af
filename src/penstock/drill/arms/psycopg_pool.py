"""psycopg_pool as people configure it: with a DSN."""

from typing import ClassVar

from penstock.drill.arms.arm import Arm
from penstock.drill.work import Request


class PsycopgPool(Arm):
    """`ConnectionPool(dsn)`: 4 connections in each instance, and who finds none free waits for 30 seconds."""

    name: ClassVar[str] = "psycopg_pool"
    title: ClassVar[str] = "psycopg_pool as people configure it"
    package: ClassVar[str] = "psycopg_pool"

    def __init__(self, dsn: str, pool_size: int) -> None:
        self._dsn = dsn

    def start(self) -> None:
        from psycopg_pool import ConnectionPool

        self._pool = ConnectionPool(self._dsn, open=True)
        self._pool.wait()

    def request(self, work: Request) -> None:
        with self._pool.connection() as connection:
            work(connection.execute)

    def stop(self) -> None:
        self._pool.close()
