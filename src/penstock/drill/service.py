"""An open loop: requests arrive at their times, whether or not those before them have been answered.

There is no second try here. It would be one more arrival, and what is offered is to be what it is said to be.
"""

import asyncio
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from penstock.drill.arms.arm import Arm, AsyncArm
from penstock.drill.kinds import kind_of
from penstock.drill.ledger import Ledger, attempt
from penstock.drill.orders import Orders
from penstock.drill.work import ApplicationError, Request


class Service:
    """An instance as a web server runs one: a bounded number of worker threads, or a task for each request."""

    def __init__(self, orders: Orders, workers: int, arm: Arm, ledger: Ledger) -> None:
        self._orders = orders
        self._arm = arm
        self._ledger = ledger
        self._workers = ThreadPoolExecutor(workers)
        self._arrivals = threading.Thread(target=self._arrive, daemon=True)

    def start(self) -> None:
        """Let the requests arrive."""
        self._arrivals.start()

    def busy(self) -> bool:
        """Whether there is anything to come or under way."""
        return self._arrivals.is_alive() or self._ledger.waiting() > 0

    def _arrive(self) -> None:
        dice = random.Random(self._orders.first)  # the same requests for every arm
        for number, arrival in enumerate(self._orders.arrivals, self._orders.first):
            request = Request(self._orders.work, number, dice.random())
            if (early := arrival - self._ledger.now()) > 0:
                time.sleep(early)
            elif self._ledger.now() > self._orders.seconds:
                return  # it could not keep up; what was not offered is not counted
            self._ledger.ask(number, arrival, lag=self._ledger.now() - arrival)
            with self._arm.middleware(self._orders.deadline):
                self._hand_over(request)

    def _hand_over(self, request: Request) -> None:
        if isinstance(self._arm, AsyncArm):
            asyncio.run_coroutine_threadsafe(self._serve(self._arm, request), self._arm.loop)
        else:
            self._workers.submit(copy_context().run, self._work, request)

    def _work(self, request: Request) -> None:
        self._ledger.answer(request.number, attempt(self._arm, request))

    async def _serve(self, arm: AsyncArm, request: Request) -> None:
        error = None
        try:
            await arm.serve(request)
        except ApplicationError:
            pass
        except Exception as failure:
            error = kind_of(failure)
        self._ledger.answer(request.number, error)
