"""What one request does with a connection: the same for every arm."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Runs one statement on the connection in hand and returns its cursor or result, whatever the library.
Execute = Callable[..., Any]


class ApplicationError(Exception):
    """The service's own `no` to a request (not found, not allowed). The user has an answer, so it is not a loss."""


class WrongAnswer(Exception):
    """The database answered something else than was asked: a connection with another request's answer in it."""


@dataclass(frozen=True, slots=True)
class Work:
    """A request: a query, then something slow elsewhere with the connection in hand, as services do.

    `elsewhere` is that time in seconds. A share `failing` of the requests ends in an ApplicationError after the query;
    a share `slow` runs a statement of `slow_seconds`.
    """

    elsewhere: float = 0.03
    failing: float = 0.02
    slow: float = 0.0
    slow_seconds: float = 0.0

    def __call__(self, execute: Execute, number: int, dice: float) -> None:
        """Do request `number`. `dice`, in [0, 1), says of which kind it is, so that a retry is the same request."""
        row = execute("SELECT %s::int + 1", (number,)).fetchone()
        if tuple(row) != (number + 1,):
            raise WrongAnswer(f"asked for {number + 1}, got {tuple(row)}")
        if dice < self.failing:
            raise ApplicationError(f"request {number} is not allowed")
        if dice > 1 - self.slow:
            execute("SELECT pg_sleep(%s::float8)", (self.slow_seconds,))
        time.sleep(self.elsewhere)
