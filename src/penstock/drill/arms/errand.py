"""What an arm of a batch is: a job, run from its beginning to its end in a process of its own."""

from abc import abstractmethod

from penstock.drill.arms.arm import Arm
from penstock.drill.work import Request

TABLE = "users"  # (id, name), without any key: who is saved twice is there twice
INSERT = f"INSERT INTO {TABLE} VALUES (%s, %s)"


class Errand(Arm):
    """Asks the API about users 0 to `items` - 1, and saves the name of each."""

    def __init__(self, dsn: str, pool_size: int) -> None:
        self._dsn = dsn
        self._pool_size = pool_size

    @abstractmethod
    def run(self, items: int, url: str) -> None:
        """Do it, or whatever is left of it. Whoever runs this may be killed at any moment."""

    def request(self, work: Request) -> None:
        """Nobody asks for anything."""
        raise NotImplementedError
