"""A real Redis on a free loopback port, to be killed, frozen and filled."""

import asyncio
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

import pytest

from support.either import settled
from support.waiting import soon

START_SECONDS = 5.0
BOUNDED = {"socket_timeout": 1.0, "socket_connect_timeout": 1.0, "retry": None}  # not less, on a machine that is busy


class RedisServer:
    """As a context manager; skips the test where there is no redis-server, and says what to install."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[Any] = []

    def __enter__(self) -> Self:
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("there is no redis-server: sudo apt-get install redis-server")
        self._program = program
        self._folder = tempfile.TemporaryDirectory(prefix="penstock-redis-")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        asyncio.run(self._close_clients())
        self.kill()
        self._folder.cleanup()

    def client(self, **settings: Any) -> Any:
        """A client whose every command is bounded; closed with the server."""
        return self._kept(pytest.importorskip("redis").Redis, settings)

    def async_client(self, **settings: Any) -> Any:
        """Likewise, for a scenario that `play` runs."""
        return self._kept(pytest.importorskip("redis.asyncio").Redis, settings)

    def _kept(self, kind: Any, settings: dict[str, Any]) -> Any:
        client = kind(host="127.0.0.1", port=self.port, **BOUNDED | settings)
        self._clients.append(client)
        return client

    def play(self, scenario: Coroutine[Any, Any, None]) -> None:
        """Run a scenario to its end, and close its clients in its event loop."""

        async def played() -> None:
            try:
                await scenario
                await soon(lambda: len(asyncio.all_tasks()) == 1)  # what is written beside its reader
            finally:
                await self._close_clients()

        asyncio.run(played())

    async def _close_clients(self) -> None:
        for client in self._clients:
            await settled(client.aclose() if hasattr(client, "aclose") else client.close())
        self._clients.clear()

    def start(self) -> None:
        """Start it, empty; when it returns, clients are let in."""
        address = ["--bind", "127.0.0.1", "--port", str(self.port)]
        nothing_kept = ["--save", "", "--appendonly", "no", "--dir", self._folder.name]
        self._process = subprocess.Popen([self._program, *address, *nothing_kept], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, "redis-server ended at once"
            assert time.monotonic() < deadline, "redis-server did not start"
            time.sleep(0.01)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        """It keeps its connections, accepts new ones, and answers nobody."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(7) == b"+PONG\r\n"
        except OSError:
            return False
