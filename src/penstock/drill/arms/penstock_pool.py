"""Penstock: a pool in each instance, as large as the budget formula says."""

from typing import ClassVar

from penstock import Pool
from penstock.drill.arms.arm import Arm, Request


class PenstockPool(Arm):
    """The instances' pools together stay below the line; who finds no connection free waits for one."""

    name: ClassVar[str] = "penstock"
    title: ClassVar[str] = "Penstock"
    judged: ClassVar[bool] = True

    def __init__(self, dsn: str, pool_size: int) -> None:
        self._dsn = dsn
        self._pool_size = pool_size

    def start(self) -> None:
        self._pool = Pool(self._dsn, min_size=1, max_size=self._pool_size, name="drill", open=True)

    def request(self, work: Request) -> None:
        with self._pool.connection() as connection:
            work(connection.execute)

    def stop(self) -> None:
        self._pool.close()
