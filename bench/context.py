"""What every claim is given."""

from collections.abc import Callable
from dataclasses import dataclass

from penstock.drill.postgres import EmbeddedPostgres


@dataclass(frozen=True, slots=True)
class Context:
    """A server of this run's own, how patient to be, and where to say what is going on."""

    server: EmbeddedPostgres
    quick: bool
    say: Callable[[str], None]

    @property
    def dsn(self) -> str:
        """How an ordinary role connects."""
        return self.server.dsn
