"""What every arm is."""

from collections.abc import Callable
from typing import ClassVar, Protocol

from penstock.drill.work import Execute

# The request's work; it is handed the way to run a statement.
Request = Callable[[Execute], None]


class Arm(Protocol):
    """One way to come by a connection, in one instance of a service; many threads call `request` at once.

    `pool_size` is this instance's share by the budget formula. Only an arm that knows the formula looks at it.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    judged: ClassVar[bool] = False  # whether the drill fails with it

    def __init__(self, dsn: str, pool_size: int) -> None: ...

    def start(self) -> None:
        """Get ready, before the load begins."""

    def request(self, work: Request) -> None:
        """Come by a connection and do `work` with it; raises what a service would see."""

    def stop(self) -> None:
        """Let go of everything."""
