"""Penstock: a pool in each instance, as large as the budget formula says."""

from contextlib import AbstractContextManager
from typing import ClassVar

import penstock
from penstock.drill.arms.arm import Arm
from penstock.drill.work import Request


class PenstockPool(Arm):
    """The instances' pools together stay below the line; who finds no connection free waits for one."""

    name: ClassVar[str] = "penstock"
    title: ClassVar[str] = "Penstock"
    judged: ClassVar[bool] = True

    def __init__(self, dsn: str, pool_size: int) -> None:
        self._dsn = dsn
        self._pool_size = pool_size
        self._fleet: penstock.Fleet | None = None

    def scale(self, budget: int, members: int) -> None:
        self._fleet = penstock.Fleet(budget, name="drill", members=members)
        self._pool_size = budget  # what one of them may have at most; how much it is, they agree on

    def start(self) -> None:
        self._pool = penstock.Pool(
            self._dsn, min_size=1, max_size=self._pool_size, name="drill", fleet=self._fleet, open=True
        )
        if self._fleet is not None:
            self._pool.wait()  # a process that has no connection yet is sent no requests

    def middleware(self, deadline: float) -> AbstractContextManager[object]:
        return penstock.deadline(deadline)

    def request(self, work: Request) -> None:
        with self._pool.connection() as connection:
            work(connection.execute)

    def stop(self) -> None:
        self._pool.close()
