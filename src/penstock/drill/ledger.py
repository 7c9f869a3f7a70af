"""What has become of an instance's requests."""

import threading
import time

from penstock.drill.arms.arm import Arm
from penstock.drill.kinds import NO_ANSWER, kind_of
from penstock.drill.measure import Answer
from penstock.drill.work import ApplicationError, Request


class Ledger:
    """Every request that was asked: under way, or answered and not yet reported."""

    def __init__(self, origin: float) -> None:
        self._origin = origin
        self._lock = threading.Lock()  # guards the two below: a request is in exactly one of them
        self._answers: list[Answer] = []
        self._waiting: dict[int, tuple[float, float]] = {}  # by number: when it was asked, and how late

    def now(self) -> float:
        """Return the seconds since the load began."""
        return time.monotonic() - self._origin

    def ask(self, number: int, start: float, lag: float = 0.0) -> None:
        """Request `number`, due at `start`, is asked, `lag` seconds late."""
        with self._lock:
            self._waiting[number] = (start, lag)

    def answer(self, number: int, error: str | None, retried: str | None = None) -> None:
        """Request `number` has an answer now, or an error of that kind."""
        now = self.now()
        with self._lock:
            start, lag = self._waiting.pop(number)
            self._answers.append(Answer(start, now - start, error, retried, lag))

    def collect(self) -> list[Answer]:
        """Return the answers since the last call."""
        with self._lock:
            answers, self._answers = self._answers, []
        return answers

    def waiting(self) -> int:
        """Return how many requests are under way."""
        return len(self._waiting)

    def unanswered(self) -> list[Answer]:
        """Return the last answers, and those that nobody will get any more."""
        with self._lock:
            now = self.now()
            waiting = [Answer(start, now - start, NO_ANSWER, None, lag) for start, lag in self._waiting.values()]
            return self._answers + waiting


def attempt(arm: Arm, request: Request) -> str | None:
    """Try `request` once; return the kind of its error, or None for an answer."""
    try:
        arm.request(request)
    except ApplicationError:
        return None
    except Exception as error:
        return kind_of(error)
    return None
