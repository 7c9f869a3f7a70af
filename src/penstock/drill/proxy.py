"""A loopback TCP proxy that breaks the network in the ways networks break.

What it cannot show: the kernel of this machine acknowledges every byte, even those that we hold back. So TCP's own
timers (keepalive, TCP_USER_TIMEOUT) never fire; only what the program itself bounds in time does.
"""

import asyncio
import contextlib
import functools
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

from penstock.drill.failure import CannotStart

CHUNK = 65536
HOST = "127.0.0.1"

# What a new connection meets.
Welcome = Literal["served", "frozen", "frozen in login"]


class _Link:
    """One client's connection and ours to the server. Bytes pass in a direction while its gate is open."""

    def __init__(self, client: socket.socket, welcome: Welcome) -> None:
        self.client = client
        self.server: socket.socket | None = None
        self.up = asyncio.Event()
        self.down = asyncio.Event()
        if welcome != "frozen":
            self.up.set()
        if welcome == "served":
            self.down.set()

    def hold(self) -> None:
        self.up.clear()
        self.down.clear()

    def release(self) -> None:
        self.up.set()
        self.down.set()

    def close(self) -> None:
        self.client.close()
        if self.server is not None:
            self.server.close()


class ChaosProxy:
    """Stands before the server at `host`:`port` on a loopback port of its own, as a context manager.

    Each fault takes effect before its method returns, may be called from any thread, and lasts until `heal()`.
    """

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.host = HOST
        self.port = 0
        self.accepted = 0  # connections taken so far, frozen ones included
        self._links: dict[_Link, asyncio.Task[None]] = {}
        self._welcome: Welcome = "served"
        self._delay = 0.0
        self._listener: asyncio.Task[None] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-proxy", daemon=True)

    def __repr__(self) -> str:
        host, port = self.target
        return f"<ChaosProxy {self.host}:{self.port} before {host}:{port}, {len(self._links)} links>"

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._run(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def connections(self) -> int:
        """How many clients are connected now."""
        return len(self._links)

    def through(self, dsn: str) -> str:
        """Return the URL `dsn` with this proxy's host and port in place of the server's."""
        url = urlsplit(dsn)
        if not url.scheme.startswith("postgres"):
            raise CannotStart("a drill through the proxy needs a DSN in URL form: postgresql://user@host:port/dbname")
        user, at, _ = url.netloc.rpartition("@")
        return url._replace(netloc=f"{user}{at}{self.host}:{self.port}").geturl()

    def silence(self) -> None:
        """Drop silently: connections stay up and nothing passes; new ones are taken and go nowhere."""
        self._call(self._silence)

    def forget(self) -> None:
        """Lose track of what is open, as a NAT gateway does after a while: nothing passes. New ones are served."""
        self._call(self._forget_all)

    def accept_and_freeze(self) -> None:
        """Take new connections and never answer; those that exist go on."""
        self._call(lambda: self._meet("frozen"))

    def freeze_login(self) -> None:
        """Pass a new connection's first words on, and never the server's reply; those that exist go on."""
        self._call(lambda: self._meet("frozen in login"))

    def delay(self, seconds: float) -> None:
        """Pass everything on `seconds` later, each way."""
        self._call(lambda: setattr(self, "_delay", seconds))

    def reset(self) -> None:
        """End every connection with RST, as a firewall or a crashed host does. New ones are served."""
        self._call(self._reset)

    def half_close(self) -> None:
        """Send every client the server's FIN and go on taking what it says."""
        self._call(self._half_close)

    def refuse(self) -> None:
        """Stop listening, so that new connections are refused; those that exist go on."""
        self._run(self._deafen())

    def heal(self) -> None:
        """End every fault. What was held back passes now, as TCP would send it again."""
        self._run(self._heal())

    def _run(self, work: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _call(self, change: Callable[[], None]) -> None:
        async def once() -> None:
            change()

        self._run(once())

    def _meet(self, welcome: Welcome) -> None:
        self._welcome = welcome

    def _silence(self) -> None:
        self._meet("frozen")
        for link in self._links:
            link.hold()

    def _forget_all(self) -> None:
        for link in self._links:
            link.hold()

    def _reset(self) -> None:
        for link, task in list(self._links.items()):
            # Lingering for 0 s makes the kernel send RST in place of FIN.
            link.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            task.cancel()

    def _half_close(self) -> None:
        for link in self._links:
            link.down.clear()
            with contextlib.suppress(OSError):
                link.client.shutdown(socket.SHUT_WR)

    async def _heal(self) -> None:
        self._meet("served")
        self._delay = 0.0
        for link in self._links:
            link.release()
        if self._listener is None:
            await self._listen()

    async def _shut(self) -> None:
        await self._deafen()
        tasks = list(self._links.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self) -> None:
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # after refuse() the same port, at once
        server.setblocking(False)
        server.bind((HOST, self.port))
        server.listen(1024)
        self.port = server.getsockname()[1]
        self._listener = asyncio.create_task(self._accept(server))

    async def _deafen(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait([self._listener])
            self._listener = None

    async def _accept(self, server: socket.socket) -> None:
        with server:
            while True:
                client, _ = await self._loop.sock_accept(server)
                self.accepted += 1
                link = _Link(client, self._welcome)
                self._links[link] = task = asyncio.create_task(self._serve(link))
                task.add_done_callback(functools.partial(self._forget, link))

    def _forget(self, link: _Link, _: asyncio.Task[None]) -> None:
        del self._links[link]
        link.close()

    async def _serve(self, link: _Link) -> None:
        link.client.setblocking(False)
        await link.up.wait()
        link.server = server = socket.socket()
        server.setblocking(False)
        with contextlib.suppress(OSError):
            await self._loop.sock_connect(server, self.target)
            pumps = [
                asyncio.create_task(self._pump(link.client, server, link.up)),
                asyncio.create_task(self._pump(server, link.client, link.down)),
            ]
            try:
                await asyncio.wait(pumps)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.wait(pumps)

    async def _pump(self, source: socket.socket, sink: socket.socket, gate: asyncio.Event) -> None:
        # A side that went away is told to the other by FIN; the link ends when both have.
        with contextlib.suppress(OSError):
            while data := await self._loop.sock_recv(source, CHUNK):
                await self._pass(gate)
                await self._loop.sock_sendall(sink, data)
        await self._pass(gate)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    async def _pass(self, gate: asyncio.Event) -> None:
        await asyncio.sleep(self._delay)
        await gate.wait()
