"""The processes of a service, started, told how many clients they have, killed and stopped."""

import multiprocessing
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Self

from penstock.drill import interrupt, replica
from penstock.drill.failure import CannotStart
from penstock.drill.measure import Answer
from penstock.drill.replica import Posting

STOP_SECONDS = replica.STOP_SECONDS + 5.0  # until one that was told to stop is killed
END_SECONDS = 5.0  # from the last word of one until it has ended
# A process imports nothing for itself: fifty that did so at once would keep this machine busy for ten seconds.
PRELOAD = ["penstock.drill.replica", "penstock", "penstock.fleet.member", "psycopg_pool"]


@dataclass(slots=True, eq=False)
class Replica:
    """One of them. Times by time.monotonic().

    :ivar ready: it has started, and is sent requests.
    :ivar why: what kept it from starting.
    """

    number: int
    process: Any
    pipe: Connection
    cut_off: bool
    started: float
    ready: float | None = None
    why: str | None = None
    clients: int = 0
    stopping: float | None = None


class Replicas:
    """All of them, as a context manager. What they report comes in with `collect`.

    :ivar running: those that were started, and have not ended.
    :ivar answers: of all but those behind the proxy.
    :ivar apart: of those behind the proxy, whose network fails.
    :ivar failed: why some could not start.
    :ivar clients: how many there are in all, shared out evenly among those that are ready.
    """

    def __init__(self, posting: Posting, through_proxy: str, clients: int) -> None:
        self.running: list[Replica] = []
        self.answers: list[Answer] = []
        self.apart: list[Answer] = []
        self.failed: list[str] = []
        self.joined: list[float] = []  # seconds that each took until it was ready
        self._posting = posting
        self._through_proxy = through_proxy
        self.clients = clients
        self._number = 0
        self._context = multiprocessing.get_context("forkserver")

    def __enter__(self) -> Self:
        with interrupt.held_back():
            self._context.set_forkserver_preload(PRELOAD)
            forkserver.ensure_running()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for one in self.running:
            one.process.kill()
        for one in list(self.running):
            self._forget(one)

    @property
    def ready(self) -> list[Replica]:
        """Those that are sent requests."""
        return [one for one in self.running if one.ready is not None and one.stopping is None]

    def share_out(self) -> None:
        """Tell each how many clients it has, where that has changed."""
        ready = self.ready
        for place, one in enumerate(ready):
            clients = (self.clients - place + len(ready) - 1) // len(ready)
            if clients != one.clients:
                one.clients = clients
                _tell(one, clients)

    def start(self, number: int, cut_off: bool = False) -> list[Replica]:
        """Start so many; those to be cut off reach the server through the proxy."""
        started = []
        for _ in range(number):
            started.append(self._start(cut_off))
            self.running.append(started[-1])
            self.collect(0)  # the others go on meanwhile
        return started

    def kill(self, some: Iterable[Replica]) -> None:
        """SIGKILL: nothing is said, nothing is closed."""
        some = list(some)
        for one in some:
            one.process.kill()
        for one in some:
            self._forget(one)
        self.share_out()

    def stop(self, some: Iterable[Replica]) -> None:
        """Let them answer what they were asked, close their pools and end."""
        for one in some:
            one.stopping = time.monotonic()
            _tell(one, replica.END)
        self.share_out()

    def collect(self, seconds: float) -> None:
        """Take in what is reported within `seconds` at most."""
        for pipe in wait([one.pipe for one in self.running], seconds):
            self._take(next(one for one in self.running if one.pipe is pipe))
        late = time.monotonic() - STOP_SECONDS
        self.kill([one for one in self.running if one.stopping is not None and one.stopping < late])

    def _start(self, cut_off: bool) -> Replica:
        self._number += 1
        dsn = self._through_proxy if cut_off else self._posting.dsn
        ours, theirs = self._context.Pipe()
        posting = replace(self._posting, number=self._number, dsn=dsn)
        process = self._context.Process(target=replica.run, args=(posting, theirs), daemon=True)
        process.start()
        theirs.close()
        return Replica(self._number, process, ours, cut_off, time.monotonic())

    def _take(self, one: Replica) -> None:
        try:
            report = one.pipe.recv()
        except (EOFError, ConnectionError):
            if one.stopping is None and one.why is None:
                raise CannotStart("a process of the service ended in the middle of the drill") from None
            self._forget(one)
            return
        if isinstance(report, list):
            (self.apart if one.cut_off else self.answers).extend(report)
        elif report is None:
            one.ready = time.monotonic()
            self.joined.append(one.ready - one.started)
            self.share_out()
        else:
            one.why = report
            self.failed.append(report)

    def _forget(self, one: Replica) -> None:
        one.process.join(END_SECONDS)
        one.process.kill()
        one.process.join()
        one.process.close()
        one.pipe.close()
        self.running.remove(one)


def _tell(one: Replica, what: int | str) -> None:
    try:
        one.pipe.send(what)
    except OSError:
        pass  # it has ended; `collect` finds that out
