"""What one request does with a connection: the same for every arm."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any

# Runs one statement on the connection in hand and returns its cursor or result, whatever the library.
Execute = Callable[..., Any]

# The same for asyncio: runs one statement, and returns its first row.
Fetch = Callable[..., Awaitable[Any]]

# A statement with its parameters, which is answered with its first row, or a pause in seconds.
Step = tuple[str, tuple[Any, ...]] | float


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

    def steps(self, number: int, dice: float) -> Generator[Step, Any, None]:
        """Say step by step what request `number` does. `dice`, in [0, 1), says of which kind it is."""
        row = yield "SELECT %s::int + 1", (number,)
        if tuple(row) != (number + 1,):
            raise WrongAnswer(f"asked for {number + 1}, got {tuple(row)}")
        if dice < self.failing:
            raise ApplicationError(f"request {number} is not allowed")
        if dice > 1 - self.slow:
            yield "SELECT pg_sleep(%s::float8)", (self.slow_seconds,)
        yield self.elsewhere


@dataclass(frozen=True, slots=True)
class Request:
    """One request. A retry is the same request, because `dice` says of which kind it is."""

    work: Work
    number: int
    dice: float

    def __call__(self, execute: Execute) -> None:
        """Do it in this thread."""
        steps, row = self.work.steps(self.number, self.dice), None
        while (step := _next(steps, row)) is not None:
            if isinstance(step, tuple):
                row = execute(*step).fetchone()
            else:
                time.sleep(step)

    async def awaited(self, fetch: Fetch) -> None:
        """Do it in this task."""
        steps, row = self.work.steps(self.number, self.dice), None
        while (step := _next(steps, row)) is not None:
            if isinstance(step, tuple):
                row = await fetch(*step)
            else:
                await asyncio.sleep(step)


def _next(steps: Generator[Step, Any, None], row: Any) -> Step | None:
    try:
        return steps.send(row)
    except StopIteration:
        return None
