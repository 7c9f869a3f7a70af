"""A connection per request: opened, used, closed."""

from typing import ClassVar

import psycopg

from penstock.drill.arms.arm import Arm
from penstock.drill.work import Request


class PerRequest(Arm):
    """What a service does that never heard of pools. Correct, and as many connections as there are requests."""

    name: ClassVar[str] = "per-request"
    title: ClassVar[str] = "a connection per request"

    def __init__(self, dsn: str, pool_size: int) -> None:
        self._dsn = dsn

    def request(self, work: Request) -> None:
        with psycopg.connect(self._dsn) as connection:
            work(connection.execute)
