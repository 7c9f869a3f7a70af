"""The same, leaking on errors: closed on the happy path only."""

from typing import ClassVar

import psycopg

from penstock.drill.arms.arm import Arm
from penstock.drill.work import Request


class Leaking(Arm):
    """A connection per request that an exception jumps over the closing of.

    Python would close it with its last reference; but somebody always keeps the exception (an error reporter, a retry
    queue, a log record), its traceback keeps the frame, and the frame keeps the connection.
    """

    name: ClassVar[str] = "leaking"
    title: ClassVar[str] = "the same, leaking on errors"

    def __init__(self, dsn: str, pool_size: int) -> None:
        self._dsn = dsn
        self._reported: list[Exception] = []

    def request(self, work: Request) -> None:
        try:
            connection = psycopg.connect(self._dsn)
            work(connection.execute)
            connection.commit()
            connection.close()
        except Exception as error:
            self._reported.append(error)
            raise
