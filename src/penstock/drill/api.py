"""An API as services meet them: over real HTTP, slow, and now and then failing. `python -m penstock.drill.api`.

``GET /users/<number>`` answers with that user, `latency` seconds later. Which requests fare otherwise follows from the
number, and only the first for each does: so every run meets the same, and whoever asks again is served.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Any, Self

from penstock.drill.failure import CannotStart

HOST = "127.0.0.1"
_PHRASES = {200: "OK", 404: "Not Found", 429: "Too Many Requests", 500: "Internal Server Error"}


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Of the requests that come first for a user: one in so many fares so. 0 for none.

    :ivar latency: seconds until an answer is sent.
    :ivar failing: answered with 500.
    :ivar limited: answered with 429 and ``Retry-After: <retry_after>``.
    :ivar hanging: never answered.
    :ivar hangs_first: the first user who does.
    """

    latency: float = 0.02
    failing: int = 0
    limited: int = 0
    hanging: int = 0
    hangs_first: int = 0
    retry_after: int = 1

    def fate(self, number: int) -> int | None:
        """The status of the first answer for that user; None for no answer."""
        if self.hanging and number >= self.hangs_first and (number - self.hangs_first) % self.hanging == 0:
            return None
        if self.limited and number % self.limited == self.limited // 2:
            return 429
        return 500 if self.failing and number % self.failing == self.failing // 3 else 200


class Service:
    """What is counted, and who was asked for before."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.requests = 0
        self.connections = 0
        self.under_way = self.most_under_way = 0
        self._asked: set[int] = set()

    def fate(self, number: int) -> int | None:
        first = number not in self._asked
        self._asked.add(number)
        return self.behaviour.fate(number) if first else 200


class _Connection(asyncio.Protocol):
    def __init__(self, service: Service) -> None:
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._read = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._service.connections += 1

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            line, self._read = self._read[: self._read.index(b"\r\n")], self._read[end + 4 :]
            self._service.requests += 1
            self._ask(line.split(b" ")[1].decode("latin-1"))

    def _ask(self, path: str) -> None:
        folder, _, name = path.partition("?")[0].strip("/").partition("/")
        known = folder == "users" and name.isdigit()
        status = self._service.fate(int(name)) if known else 404
        if status is None:
            return
        service = self._service
        service.under_way += 1
        service.most_under_way = max(service.most_under_way, service.under_way)
        body = {"id": int(name), "name": f"user {name}"} if status == 200 else {"error": _PHRASES[status]}
        self._loop.call_later(service.behaviour.latency, self._answer, status, json.dumps(body).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self._service.under_way -= 1
        if self._transport.is_closing():
            return
        more = f"retry-after: {self._service.behaviour.retry_after}\r\n" if status == 429 else ""
        head = f"HTTP/1.1 {status} {_PHRASES[status]}\r\ncontent-type: application/json\r\n{more}"
        self._transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)


async def listen(service: Service, port: int = 0) -> asyncio.Server:
    """The API on a loopback port, in this event loop."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: _Connection(service), HOST, port, backlog=1024)


class Api:
    """The API as a process of its own, as a context manager. It ends with this one, whatever ends that."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.url = ""
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "penstock.drill.api", json.dumps(asdict(self.behaviour))]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        if not port:
            self.__exit__(None, None, None)
            raise CannotStart("the API that the batch calls could not be started")
        self.url = f"http://{HOST}:{port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


async def _serve(behaviour: Behaviour) -> None:
    server = await listen(Service(behaviour))
    print(server.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    parent_gone = asyncio.Event()
    loop.add_reader(sys.stdin, parent_gone.set)  # nothing is ever written to it
    await parent_gone.wait()


def main(arguments: Sequence[str]) -> None:
    """Serve until standard input ends."""
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(replace(Behaviour(), **json.loads(arguments[0] if arguments else "{}"))))


if __name__ == "__main__":
    main(sys.argv[1:])
