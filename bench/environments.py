"""A platform of functions, as AWS Lambda is one: many processes that get an event each, and are frozen when they have
answered. `python -m bench.environments KIND DSN FD ...` is the process that they are all forked from, with everything
imported, one for each socket that it inherits.
"""

import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, NamedTuple, Self

Handler = Callable[[Any, Any], Any]

WORK = "SELECT pg_backend_pid(), pg_sleep(0.02)"


class Answer(NamedTuple):
    """What became of one event. *error*: its type and first words; None when it was answered."""

    seconds: float
    result: Any
    error: str | None


class Environment:
    """One process, as the platform has it."""

    def __init__(self, number: int, sock: socket.socket) -> None:
        self.number = number
        self.sock = sock
        self.lines = sock.makefile("r")
        self.pid = int(json.loads(self.lines.readline()))

    def send(self, event: Any, seconds: float) -> None:
        """It thaws, and has so many seconds to answer."""
        os.kill(self.pid, signal.SIGCONT)
        self.sock.sendall(json.dumps([event, seconds]).encode() + b"\n")

    def answer(self) -> Answer:
        """What it says; it is frozen as soon as that is here."""
        line = self.lines.readline()
        if not line:
            raise RuntimeError(f"environment {self.number} has ended")
        self.freeze()
        return Answer(*json.loads(line))

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)


class Platform:
    """So many environments, none of which has had an event. All are killed at the end of the block."""

    def __init__(self, kind: str, dsn: str, count: int) -> None:
        pairs = [socket.socketpair() for _ in range(count)]
        theirs = [str(sock.fileno()) for _, sock in pairs]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.environments", kind, dsn, *theirs],
            pass_fds=[sock.fileno() for _, sock in pairs],
            start_new_session=True,
        )
        for _, sock in pairs:
            sock.close()
        self.environments = [Environment(number, sock) for number, (sock, _) in enumerate(pairs)]
        for one in self.environments:
            one.freeze()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for one in self.environments:
            one.lines.close()
            one.sock.close()

    def invoke(self, event: Any, seconds: float, some: Iterable[Environment] | None = None) -> list[Answer]:
        """Send an event to each at once, to all by default; what they answer, the first that did first."""
        waiting = {one.sock: one for one in (self.environments if some is None else some)}
        for one in waiting.values():
            one.send(event, seconds)
        answers = []
        until = time.monotonic() + seconds + 30
        while waiting:
            ready, _, _ = select.select(list(waiting), [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise RuntimeError(f"{len(waiting)} environments have not answered")
            answers += [waiting.pop(sock).answer() for sock in ready]
        return answers


class Context:
    """What AWS passes to a handler, as far as it is used here."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        return max(0, round((self._until - time.monotonic()) * 1000))


# ---------------------------------------------------------------------------------------------- what is deployed


def penstock(dsn: str, **options: Any) -> Handler:
    from penstock import Pool
    from penstock.integrations import aws_lambda

    pool: Any = Pool(dsn, min_size=0, max_size=1, open=True)

    @aws_lambda.handler(pool, **options)
    def handler(event: Any, context: Any) -> Any:
        with pool.connection() as conn:
            return conn.execute(event).fetchone()[0]

    return handler


def penstock_keep_none(dsn: str) -> Handler:
    return penstock(dsn, keep=0)


def connection_outside(dsn: str) -> Handler:
    """As AWS's own examples have it: one connection outside the handler, made anew when it is known to be closed."""
    import psycopg

    conn: Any = None

    def handler(event: Any, context: Any) -> Any:
        nonlocal conn
        if conn is None or conn.closed:
            conn = psycopg.connect(dsn, autocommit=True)
        return conn.execute(event).fetchone()[0]

    return handler


def connection_inside(dsn: str) -> Handler:
    import psycopg

    def handler(event: Any, context: Any) -> Any:
        with psycopg.connect(dsn) as conn:
            return conn.execute(event).fetchone()[0]  # type: ignore[index]

    return handler


def psycopg_pool(dsn: str) -> Handler:
    from psycopg_pool import ConnectionPool

    pool: Any = ConnectionPool(dsn, min_size=0, max_size=1, open=True, check=ConnectionPool.check_connection)

    def handler(event: Any, context: Any) -> Any:
        with pool.connection(timeout=context.get_remaining_time_in_millis() / 1000) as conn:
            return conn.execute(event).fetchone()[0]

    return handler


KINDS = {
    "penstock": penstock,
    "penstock keep=0": penstock_keep_none,
    "connection outside": connection_outside,
    "connection inside": connection_inside,
    "psycopg_pool": psycopg_pool,
}
_IMPORTED_FIRST = ("psycopg", "psycopg_pool", "penstock.integrations.aws_lambda")


# ---------------------------------------------------------------------------------------------- in the processes


def main(kind: str, dsn: str, *descriptors: str) -> None:
    for module in _IMPORTED_FIRST:
        __import__(module)
    for fd in descriptors:
        if os.fork() == 0:
            serve(KINDS[kind](dsn), socket.socket(fileno=int(fd)))
    for fd in descriptors:
        os.close(int(fd))
    signal.pause()


def serve(handler: Handler, sock: socket.socket) -> None:
    logging.getLogger().addHandler(logging.NullHandler())  # peers log every refusal
    sock.sendall(b"%d\n" % os.getpid())
    for line in sock.makefile("r"):
        event, seconds = json.loads(line)
        began = time.monotonic()
        try:
            answer = [handler(event, Context(seconds)), None]
        except Exception as error:
            answer = [None, f"{type(error).__name__}: {str(error)[:300]}"]
        sock.sendall(json.dumps([time.monotonic() - began, *answer]).encode() + b"\n")
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
