"""A relay that makes loopback as long as a network: everything arrives later, each way, in order, and at any rate.

A process of its own, so that it does not share an interpreter with whoever is measured, and standard library only.
Whatever there is to read is read at once and passed on when it is due: a link that is long, not one that is narrow.
"""

import select
import socket
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import IO, Self
from urllib.parse import urlsplit

CHUNK = 1 << 18


class Distance:
    """A relay on a loopback port, *one_way* seconds before the server at `host`:`port`, as a context manager."""

    def __init__(self, host: str, port: int, one_way: float) -> None:
        self._command = [sys.executable, "-I", __file__, host, str(port), str(one_way)]
        self._port = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._port = int(self._read())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._process:  # waits for its end, and closes the pipes
            self._pipe(self._process.stdin).close()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def through(self, dsn: str) -> str:
        """The URL `dsn`, led over this relay."""
        url = urlsplit(dsn)
        user = url.netloc.rpartition("@")[0]
        return url._replace(netloc=f"{user}@127.0.0.1:{self._port}").geturl()

    def worked(self) -> float:
        """Seconds of processor time that the relay has used so far."""
        self._pipe(self._process.stdin).write("\n")
        self._pipe(self._process.stdin).flush()
        return float(self._read())

    def _read(self) -> str:
        line = self._pipe(self._process.stdout).readline()
        if not line:
            raise RuntimeError("the relay has ended; what it said is above")
        return line

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None  # both are pipes
        return pipe


class Relay:
    """What the process does. The delay is the same for all, so whatever is under way is due in the order it came."""

    def __init__(self, target: tuple[str, int], one_way: float) -> None:
        self._target = target
        self._one_way = one_way
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._poll = select.epoll()
        self._poll.register(self._listener, select.EPOLLIN)
        self._poll.register(sys.stdin, select.EPOLLIN)
        self._sinks: dict[int, tuple[socket.socket, socket.socket]] = {}  # by the source's descriptor: it, its sink
        self._under_way: deque[tuple[float, socket.socket, bytes]] = deque()

    def serve(self) -> None:
        """Relay until the input ends."""
        print(self._listener.getsockname()[1], flush=True)
        while True:
            # epoll's own timeout is whole milliseconds, which is as long as the way itself.
            select.select([self._poll], [], [], self._until_due())
            for descriptor, _ in self._poll.poll(0):
                if descriptor == self._listener.fileno():
                    self._accept()
                elif descriptor == sys.stdin.fileno():
                    if not sys.stdin.readline():
                        return
                    print(time.process_time(), flush=True)
                else:
                    self._take(descriptor)
            self._pass_on()

    def _until_due(self) -> float | None:
        return max(0.0, self._under_way[0][0] - time.monotonic()) if self._under_way else None

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(self._target)
        for source, sink in ((client, server), (server, client)):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sinks[source.fileno()] = (source, sink)
            self._poll.register(source, select.EPOLLIN)

    def _take(self, descriptor: int) -> None:
        source, sink = self._sinks[descriptor]
        data = b""
        with suppress(OSError):  # a reset is an end like another
            data = source.recv(CHUNK)
        if not data:
            self._poll.unregister(descriptor)
            del self._sinks[descriptor]
        self._under_way.append((time.monotonic() + self._one_way, sink, data))

    def _pass_on(self) -> None:
        now = time.monotonic()
        while self._under_way and self._under_way[0][0] <= now:
            _, sink, data = self._under_way.popleft()
            with suppress(OSError):  # gone already
                if data:
                    sink.sendall(data)
                else:
                    sink.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    Relay((sys.argv[1], int(sys.argv[2])), float(sys.argv[3])).serve()
