"""A closed loop: a thread for each client, who asks again when he has his answer."""

import random
import threading
import time

from penstock.drill.arms.arm import Arm
from penstock.drill.ledger import Ledger, attempt
from penstock.drill.orders import Orders
from penstock.drill.work import Request


class Clients:
    """An instance's clients."""

    def __init__(self, orders: Orders, think: float, arm: Arm, ledger: Ledger) -> None:
        self._orders = orders
        self._think = think
        self._arm = arm
        self._ledger = ledger
        self._threads = [
            threading.Thread(target=self._client, args=(number, arrival), daemon=True)
            for number, arrival in enumerate(orders.arrivals, orders.first)
        ]

    def start(self) -> None:
        """Let them come."""
        for thread in self._threads:
            thread.start()

    def busy(self) -> bool:
        """Whether anybody is still there."""
        return any(thread.is_alive() for thread in self._threads)

    def _client(self, number: int, arrival: float) -> None:
        time.sleep(max(0.0, arrival - self._ledger.now()))
        dice = random.Random(number)  # the same requests for every arm
        asked = number * 1_000_000
        while (now := self._ledger.now()) < self._orders.seconds:
            asked += 1
            self._ledger.ask(asked, now)
            request = Request(self._orders.work, asked, dice.random())
            ask(self._arm, self._ledger, now, request, self._orders.deadline)
            time.sleep(self._think * (0.5 + dice.random()))


def ask(arm: Arm, ledger: Ledger, start: float, request: Request, deadline: float) -> None:
    """Try `request`, asked at `start`, once or twice, and enter what became of it."""
    error = attempt(arm, request)
    if error is None or ledger.now() - start > deadline:
        ledger.answer(request.number, error)
    else:
        # An idempotent read is worth a second try, at once, whatever went wrong: the same for every arm.
        ledger.answer(request.number, attempt(arm, request), retried=error)
