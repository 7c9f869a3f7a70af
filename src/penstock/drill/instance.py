"""One instance of the service: a process with an arm of its own and a thread for each client."""

import logging
import os
import random
import threading
import time
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from penstock.drill.arms.arm import Arm
from penstock.drill.failure import CannotStart
from penstock.drill.kinds import NO_ANSWER, kind_of
from penstock.drill.measure import Answer
from penstock.drill.work import ApplicationError, Work

REPORT_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Orders:
    """All that an instance needs to know. Times in seconds; `arrivals` has one entry for each of its clients."""

    arm: type[Arm]
    dsn: str
    pool_size: int
    work: Work
    arrivals: tuple[float, ...]
    seconds: float
    think: float
    deadline: float
    patience: float
    first_client: int


def run(orders: Orders, pipe: Connection) -> None:
    """Start the arm, wait for the word, load it until the time is over, report all the while, and stop."""
    # The arms' own warnings would run through the live table; the figures tell them all.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        arm = orders.arm(orders.dsn, orders.pool_size)
        arm.start()
    except CannotStart as error:
        pipe.send(str(error))
        return
    except Exception as error:
        pipe.send(f"{orders.arm.title}: {type(error).__name__}: {error}")
        return
    pipe.send(None)
    try:
        origin = pipe.recv()
    except EOFError:  # whoever drills is gone
        return
    threading.Thread(target=_end_with_parent, args=(pipe,), daemon=True).start()
    instance = _Instance(orders, arm, origin)
    instance.start()
    while instance.busy():
        time.sleep(REPORT_SECONDS)
        pipe.send(instance.collect())
    pipe.send(instance.unanswered())
    pipe.send(None)
    arm.stop()
    os._exit(0)  # clients that still wait would keep the process


def _end_with_parent(pipe: Connection) -> None:
    try:
        pipe.recv()
    except (EOFError, OSError):
        os._exit(1)


class _Instance:
    """The clients' threads and what they have seen."""

    def __init__(self, orders: Orders, arm: Arm, origin: float) -> None:
        self._orders = orders
        self._arm = arm
        self._origin = origin
        self._lock = threading.Lock()  # guards the two below: a request is in exactly one of them
        self._answers: list[Answer] = []
        self._waiting: dict[int, float] = {}  # client: when it asked
        self._threads = [
            threading.Thread(target=self._client, args=(number, arrival), daemon=True)
            for number, arrival in enumerate(orders.arrivals, orders.first_client)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def busy(self) -> bool:
        late = self._now() > self._orders.seconds + self._orders.patience
        return not late and any(thread.is_alive() for thread in self._threads)

    def collect(self) -> list[Answer]:
        with self._lock:
            answers, self._answers = self._answers, []
        return answers

    def unanswered(self) -> list[Answer]:
        with self._lock:
            now = self._now()
            waiting = [Answer(since, now - since, NO_ANSWER, None) for since in self._waiting.values()]
            return self._answers + waiting

    def _now(self) -> float:
        return time.monotonic() - self._origin

    def _client(self, number: int, arrival: float) -> None:
        time.sleep(max(0.0, arrival - self._now()))
        dice = random.Random(number)  # the same requests for every arm
        request = number * 1_000_000
        while (now := self._now()) < self._orders.seconds:
            request += 1
            with self._lock:
                self._waiting[number] = now
            answer = self._ask(now, request, dice.random())
            with self._lock:
                self._answers.append(answer)
                del self._waiting[number]
            time.sleep(self._orders.think * (0.5 + dice.random()))

    def _ask(self, start: float, request: int, dice: float) -> Answer:
        work = partial(self._orders.work, number=request, dice=dice)
        error = self._try(work)
        if error is None or self._now() - start > self._orders.deadline:
            return Answer(start, self._now() - start, error, None)
        # An idempotent read is worth a second try, at once, whatever went wrong: the same for every arm.
        second = self._try(work)
        return Answer(start, self._now() - start, second, error)

    def _try(self, work: Any) -> str | None:
        try:
            self._arm.request(work)
        except ApplicationError:
            return None
        except Exception as error:
            return kind_of(error)
        return None
