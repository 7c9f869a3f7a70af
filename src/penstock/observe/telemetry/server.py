"""The socket's side of the process: answers each client with the document, and lets none hold it up.

It speaks as little HTTP as curl needs. All clients are served in one thread, which waits for none of them.
"""

from __future__ import annotations

import logging
import math
import selectors
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

from . import place

logger = logging.getLogger("penstock.observe")

CLIENTS = 16  # at once; those beyond wait in the kernel, where there are as many places as `BACKLOG`
BACKLOG = 64
REQUEST = 4096  # bytes
PATIENCE = 2.0  # seconds from a client's coming until it must have read its answer,
HURRY = 0.25  # and while others may be waiting for its place
BREATH = 0.02  # seconds between two turns: who asks without pause is served less often, and the application more
REUSE = 0.1  # seconds for which one document serves all who ask
RENEWAL = 30.0  # seconds between two looks at whether the socket is still there for others to find
_PAUSE = 1.0  # seconds without new clients when the process has no file descriptor left for one
_ENDS = (b"\r\n\r\n", b"\n\n")


class Server:
    """*document* makes the answer's body, as JSON."""

    def __init__(self, document: Callable[[], bytes]) -> None:
        self._document = document
        # Where threads are not what they seem to be (eventlet), there may be no poll.
        self._selector = getattr(selectors, "PollSelector", selectors.SelectSelector)()
        self._clients: dict[socket.socket, _Client] = {}
        self._listener: socket.socket | None = None
        self._accepts_at: float | None = None  # not before then; None: it does
        self._made: tuple[float, bytes] | None = None
        self._renewed = 0.0
        self._complained = False
        self.path: Path | None = None

    def listen(self) -> None:
        """Offer the socket. Where that cannot be done, a line in the log says why, once."""
        self._renewed = monotonic()
        try:
            self._listener, self.path = place.listen(BACKLOG)
        except OSError as error:
            if not self._complained:
                logger.warning("no telemetry socket, so `penstock top` will not see this process: %s", error)
            self._complained = True
        else:
            self._accept_from(None)

    def serve(self, seconds: float) -> None:
        """Serve who comes, for about so long."""
        until = monotonic() + seconds
        self._round(seconds)
        while (left := until - monotonic()) > 0:
            self._round(left)

    def wake(self) -> None:
        """From another thread: `serve` returns soon, and nobody new is served."""
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)

    def forget(self) -> None:
        """Close what there is and leave the path alone: it is another process's."""
        for sock in [*self._clients, *([self._listener] if self._listener is not None else [])]:
            sock.close()
        self._selector.close()

    def close(self) -> None:
        self.forget()
        self.remove()

    def remove(self) -> None:
        """Let nobody find it any more."""
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink()

    def _round(self, longest: float) -> None:
        now = monotonic()
        self._look_after(now)
        due = min([client.came for client in self._clients.values()], default=math.inf) + self._patience
        ready = self._selector.select(max(0.0, min(longest, due - now)))
        for key, _ in ready:
            if key.data is None:
                self._accept()
            else:
                self._go_on(key.data)
        if ready:
            sleep(BREATH)

    @property
    def _patience(self) -> float:
        return PATIENCE if len(self._clients) < CLIENTS else HURRY

    def _look_after(self, now: float) -> None:
        latest = now - self._patience
        for client in [client for client in self._clients.values() if client.came <= latest]:
            self._end(client)
        if self._accepts_at is not None and self._accepts_at <= now and len(self._clients) < CLIENTS:
            self._accept_from(None)
        if now - self._renewed > RENEWAL:
            self._renew(now)

    def _renew(self, now: float) -> None:
        """A runtime folder goes with its user's last login, and a temporary one is tidied up."""
        self._renewed = now
        if self.path is not None and self.path.exists():
            return
        if self._listener is not None:
            self._accept_from(now)
            self._listener.close()
            self._listener = self.path = None
        self.listen()

    def _accept_from(self, at: float | None) -> None:
        """Take new clients, or none before *at*."""
        if self._listener is None:
            return
        if at is None:
            self._selector.register(self._listener, selectors.EVENT_READ)
        elif self._accepts_at is None:
            self._selector.unregister(self._listener)
        self._accepts_at = at

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError:  # it would be readable for as long as there is no file descriptor for it
            self._accept_from(monotonic() + _PAUSE)
            return
        sock.setblocking(False)
        client = self._clients[sock] = _Client(sock, monotonic())
        self._selector.register(sock, selectors.EVENT_READ, client)
        if len(self._clients) >= CLIENTS:
            self._accept_from(monotonic())

    def _go_on(self, client: _Client) -> None:
        try:
            if not client.answered and client.read():
                client.answer(self._answer(client.request))
                self._selector.modify(client.sock, selectors.EVENT_WRITE, client)
            if client.answered and client.write():
                self._end(client)
        except BlockingIOError:
            pass
        except OSError:
            self._end(client)

    def _end(self, client: _Client) -> None:
        del self._clients[client.sock]
        self._selector.unregister(client.sock)
        client.sock.close()

    def _answer(self, request: bytes) -> bytes:
        words = request.split(maxsplit=2)
        if len(words) < 2 or words[0] not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", b'{"error": "this is read-only: GET /"}')
        if words[1].partition(b"?")[0] != b"/":
            return _response("404 Not Found", b'{"error": "there is one document: GET /"}')
        now = monotonic()
        if self._made is None or now - self._made[0] > REUSE:
            self._made = (now, self._document())
        return _response("200 OK", self._made[1], head=words[0] == b"HEAD")


class _Client:
    def __init__(self, sock: socket.socket, came: float) -> None:
        self.sock = sock
        self.came = came
        self.request = b""
        self.answered = False
        self._left = memoryview(b"")

    def read(self) -> bool:
        """Whether all that matters of the request has come.

        :raises OSError: when no more will come.
        """
        part = self.sock.recv(REQUEST)
        self.request += part
        if not part or len(self.request) > REQUEST:
            raise ConnectionAbortedError
        return any(end in self.request for end in _ENDS)

    def answer(self, answer: bytes) -> None:
        self.answered, self._left = True, memoryview(answer)

    def write(self) -> bool:
        """Whether all is sent."""
        self._left = self._left[self.sock.send(self._left) :]
        return not self._left


def _response(status: str, body: bytes, head: bool = False) -> bytes:
    return (
        f"HTTP/1.0 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    ).encode() + (b"" if head else body)
