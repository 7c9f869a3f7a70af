"""Counts round trips where they cannot hide: on the wire."""

import select
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class Wire:
    """A loopback relay before a server that counts how often a client spoke and then waited, as a context manager.

    Everything a client sends before the server answers is one round trip, however many messages it is.
    """

    def __init__(self, host: str, port: int) -> None:
        self.round_trips = 0
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for end in [self._listener, *self._sockets]:
            with suppress(OSError):  # gone already
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def through(self, dsn: str) -> str:
        """The URL `dsn`, led over this relay."""
        url = urlsplit(dsn)
        user = url.netloc.rpartition("@")[0]
        host, port = self._listener.getsockname()
        return url._replace(netloc=f"{user}@{host}:{port}").geturl()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed: we are done
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                threading.Thread(target=self._relay, args=(client, server), daemon=True).start()

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        asked = False
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client, server, suppress(OSError, ValueError):  # ValueError: closed under select
            while True:
                for source in select.select([client, server], [], [])[0]:
                    if not (data := source.recv(65536)):
                        return
                    if source is client and not asked:
                        self.round_trips += 1
                    asked = source is client
                    (server if asked else client).sendall(data)
