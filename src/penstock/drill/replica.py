"""One process of a service whose processes come and go, with as many clients as it is told."""

import logging
import multiprocessing
import os
import random
import signal
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from penstock.drill.arms.arm import Arm
from penstock.drill.clients import ask
from penstock.drill.ledger import Ledger
from penstock.drill.work import Request, Work

REPORT_SECONDS = 0.1
STOP_SECONDS = 15.0  # for the requests under way, once it is told to stop
END = "end"


@dataclass(frozen=True, slots=True)
class Posting:
    """All that it needs to know. `origin` is the play's beginning by time.monotonic(); `budget` is that of all."""

    number: int
    arm: type[Arm]
    dsn: str
    pool_size: int
    budget: int
    members: int
    work: Work
    deadline: float
    origin: float


class Crew:
    """Its clients: a thread for each, who asks again at once when he has his answer."""

    def __init__(self, posting: Posting, arm: Arm, ledger: Ledger) -> None:
        self._posting = posting
        self._arm = arm
        self._ledger = ledger
        self._wanted = 0
        self._threads: dict[int, threading.Thread] = {}

    def be(self, wanted: int) -> None:
        """Let there be so many. Those who are too many go when they have their answer."""
        self._wanted = wanted
        for place in range(wanted):
            thread = self._threads.get(place)
            if thread is None or not thread.is_alive():
                self._threads[place] = thread = threading.Thread(target=self._client, args=(place,), daemon=True)
                thread.start()

    def _client(self, place: int) -> None:
        number = self._posting.number * 1_000_000 + place * 10_000
        dice = random.Random(number)
        while place < self._wanted:
            number += 1
            now = self._ledger.now()
            self._ledger.ask(number, now)
            request = Request(self._posting.work, number, dice.random())
            ask(self._arm, self._ledger, now, request, self._posting.deadline)


def run(posting: Posting, pipe: Connection) -> None:
    """Start the arm, say so, have as many clients as the pipe says, report all the while, and end when it says so."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is for whoever drills
    logging.getLogger().addHandler(logging.NullHandler())
    parent = multiprocessing.parent_process()
    assert parent is not None  # it is started by `Replicas`
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    arm = posting.arm(posting.dsn, posting.pool_size)
    arm.scale(posting.budget, posting.members)
    try:
        arm.start()
    except Exception as error:
        pipe.send(f"{posting.arm.title}: {type(error).__name__}: {error}")
        return
    pipe.send(None)
    ledger = Ledger(posting.origin)
    crew = Crew(posting, arm, ledger)
    while (wanted := _told(pipe)) != END:
        if isinstance(wanted, int):
            crew.be(wanted)
        pipe.send(ledger.collect())
    crew.be(0)
    until = time.monotonic() + STOP_SECONDS
    while ledger.waiting() and time.monotonic() < until:
        time.sleep(0.01)
    arm.stop()
    pipe.send(ledger.unanswered())
    os._exit(0)  # clients that still wait would keep the process


def _told(pipe: Connection) -> int | str | None:
    """Return what it is told within a while: how many clients to have, to end, or nothing."""
    return pipe.recv() if pipe.poll(REPORT_SECONDS) else None


def _end_with(parent: int) -> None:
    wait([parent])
    os._exit(1)
