"""The load: several instances, each a process, and what they report."""

import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Self

from penstock.drill import instance, interrupt
from penstock.drill.failure import CannotStart
from penstock.drill.measure import Answer
from penstock.drill.orders import Orders

START_SECONDS = 30.0
STOP_SECONDS = 3.0


class Load:
    """Starts one process for each of `orders`, as a context manager; `answers` grows while `collect` is called."""

    def __init__(self, orders: Sequence[Orders]) -> None:
        self.answers: list[Answer] = []
        self._orders = orders
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []

    def __enter__(self) -> Self:
        with interrupt.held_back():
            for order in self._orders:
                self._spawn(order)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in self._processes:
            if error is None:
                process.join(STOP_SECONDS)
            process.kill()
            process.join()
            process.close()
        for pipe in self._pipes:
            pipe.close()

    def wait_ready(self) -> None:
        """Wait until every instance's arm has started. Raises CannotStart with the arm's reason."""
        deadline = time.monotonic() + START_SECONDS
        for pipe in self._pipes:
            if not pipe.poll(max(0.0, deadline - time.monotonic())):
                raise CannotStart(f"an instance was not ready within {START_SECONDS:.0f} s")
            try:
                reason = pipe.recv()
            except EOFError:
                raise CannotStart("an instance ended before it was ready") from None
            if reason is not None:
                raise CannotStart(reason)

    def begin(self, origin: float) -> None:
        """Let the clients begin at `origin`, by time.monotonic(), which all processes of a machine share."""
        for pipe in self._pipes:
            pipe.send(origin)
        self._running = set(self._pipes)

    def collect(self, seconds: float) -> bool:
        """Take in reports for at most `seconds`; return whether there is more to come."""
        for pipe in wait(list(self._running), seconds):
            assert isinstance(pipe, Connection)
            try:
                report = pipe.recv()
            except (EOFError, ConnectionError):
                raise CannotStart("an instance of the service ended in the middle of the drill") from None
            if report is None:
                self._running.remove(pipe)
            else:
                self.answers += report
        return bool(self._running)

    def _spawn(self, orders: Orders) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would share our sockets
        ours, theirs = context.Pipe()
        process = context.Process(target=instance.run, args=(orders, theirs), daemon=True)
        process.start()
        theirs.close()
        self._pipes.append(ours)
        self._processes.append(process)
