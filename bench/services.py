"""Services that share a database: a process each, with a pool of its own, and requests that come at their times.

What each is asked is drawn beforehand, so that the same comes to all contestants.
"""

import logging
import multiprocessing
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any

import penstock
from bench.openloop import Load, capacity_in_threads, offer_in_threads

PRELOAD = ["bench.services", "penstock.fleet.member"]
WORKERS = 100  # threads of each
JOIN_SECONDS = 60.0
REFUSED = (penstock.PoolTimeout, penstock.Overloaded)


@dataclass(frozen=True, slots=True)
class Service:
    """What a process needs to know. `work`: seconds that each statement takes; `fleet`: None for a pool of its own."""

    dsn: str
    size: int
    fleet: penstock.Fleet | None
    schedule: Sequence[float]
    deadline: float
    work: float

    def open(self) -> penstock.Pool[Any]:
        """Its pool."""
        return penstock.Pool(
            self.dsn, kwargs={"autocommit": True}, min_size=1, max_size=self.size, fleet=self.fleet, open=True
        )


class Asker:
    """Asks for a request's own number, and has the database take its time."""

    def __init__(self, service: Service, pool: penstock.Pool[Any]) -> None:
        self._pool = pool
        self._work = service.work

    def __call__(self, number: int, left: float) -> int:
        with penstock.deadline(left), self._pool.connection() as connection:
            row = connection.execute("SELECT %s::int, pg_sleep(%s::float8)", (number, self._work)).fetchone()
        assert row is not None
        return int(row[0])


def offered(services: Sequence[Service]) -> list[Load]:
    """Run all of them at the same time, each in a process; what became of the requests of each."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    forkserver.ensure_running()
    pipes: list[Connection] = []
    processes: list[Any] = []
    try:
        for service in services:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(service, theirs), daemon=True)
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        for pipe in pipes:
            assert pipe.poll(JOIN_SECONDS), "a service had no connection in time"
            pipe.recv()
        began = perf_counter() + 0.5
        for pipe in pipes:
            pipe.send(began)
        return [pipe.recv() for pipe in pipes]
    finally:
        for process in processes:
            process.kill()
            process.join()


def capacity(service: Service, seconds: float) -> float:
    """Requests a second that its pool can do at most, with twice as many threads as connections."""
    with service.open() as pool:
        pool.wait()
        return capacity_in_threads(Asker(service, pool), REFUSED, lambda number: 1.0, 2 * service.size, seconds)


def _serve(service: Service, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the drill: whoever measures ends this
    logging.getLogger().addHandler(logging.NullHandler())
    with service.open() as pool:
        pool.wait(JOIN_SECONDS)
        pipe.send(None)
        began = pipe.recv()
        ask = Asker(service, pool)
        pipe.send(offer_in_threads(service.schedule, ask, REFUSED, service.deadline, WORKERS, began))
        pipe.recv()  # until it is killed: what it holds stays held for as long as the others are measured
