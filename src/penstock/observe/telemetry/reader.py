"""Reads what processes tell over their sockets: all of them at once, and none for longer than is asked."""

from __future__ import annotations

import json
import os
import pwd
import selectors
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, TypeGuard

from . import place

TIMEOUT = 1.0
LARGEST = 32 * 2**20  # bytes of a document
_REQUEST = b"GET / HTTP/1.0\r\n\r\n"


@dataclass(slots=True, frozen=True)
class Silent:
    """A process that has a socket and did not tell. *why*: in words."""

    pid: int
    path: Path
    why: str


@dataclass(slots=True)
class Found:
    """:ivar documents: as docs/telemetry.md describes them, by process."""

    documents: list[dict[str, Any]] = field(default_factory=list)
    silent: list[Silent] = field(default_factory=list)


def read(timeout: float = TIMEOUT, paths: Iterable[Path] | None = None) -> Found:
    """Ask every process of this user that offers a socket; root asks those of all users. Takes *timeout* s at most.

    :param paths: sockets to ask instead of all.
    """
    found = Found()
    selector = selectors.DefaultSelector()
    asked = [one for path in (_sockets() if paths is None else paths) if (one := _ask(path, found)) is not None]
    for one in asked:
        selector.register(one.sock, selectors.EVENT_READ, one)
    until = monotonic() + timeout
    try:
        while selector.get_map() and (left := until - monotonic()) > 0:
            for key, _ in selector.select(left):
                if key.data.receive(found):
                    selector.unregister(key.data.sock)
        for key in list(selector.get_map().values()):
            key.data.fails("has not answered: it is stopped, or does not let go of the interpreter", found)
    finally:
        selector.close()
        for one in asked:
            one.sock.close()
    found.documents.sort(key=lambda document: document.get("pid", 0))
    return found


def _sockets() -> list[Path]:
    folders = [folder for folder in place.folders() if place.is_private(folder)]
    for folder in folders:
        place.remove_dead(folder)
    folders += [folder for folder in place.others() if place.is_private(folder, anybody=True)]
    return [path for folder in folders for path in place.sockets(folder)]


def _ask(path: Path, found: Found) -> _Asked | None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    asked = _Asked(path, sock)
    try:
        sock.setblocking(False)
        sock.connect(str(path))
        sock.send(_REQUEST)
    except (ConnectionRefusedError, FileNotFoundError, BrokenPipeError, ConnectionResetError):  # it has just ended
        sock.close()
        return None
    except BlockingIOError:  # as many wait already as it has places for
        asked.fails("has more to answer than it answers", found)
        return None
    except OSError as error:
        asked.fails(error.strerror or str(error), found)
        return None
    return asked


def _is_fit(document: Any) -> TypeGuard[dict[str, Any]]:
    """Whether it looks like one of ours. It is another's word: root reads what any user's process tells."""
    return (
        isinstance(document, dict) and isinstance(document.get("sources"), list) and type(document.get("pid", 0)) is int
    )


def _peer(sock: socket.socket) -> tuple[int, int]:
    """Whose process is at the other end: its number and its user's, as the kernel has them."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return 0, os.geteuid()
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i")))
    return pid, uid


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


class _Asked:
    """One process that was asked."""

    def __init__(self, path: Path, sock: socket.socket) -> None:
        self._path = path
        self.sock = sock
        self._peer = (0, os.geteuid())
        self._parts: list[bytes] = []
        self._size = 0

    def receive(self, found: Found) -> bool:
        """Take what has come. Whether that is all."""
        if not self._parts:
            self._peer = _peer(self.sock)
        try:
            part = self.sock.recv(2**18)
        except BlockingIOError:
            return False
        except OSError:  # it ended, or has cut us off
            part = b""
        self._parts.append(part)
        self._size += len(part)
        if part and self._size <= LARGEST:
            return False
        self._finish(found)
        return True

    def _finish(self, found: Found) -> None:
        body = b"".join(self._parts).partition(b"\r\n\r\n")[2]
        document = None
        with suppress(ValueError, RecursionError):
            document = json.loads(body)
        if _is_fit(document):
            pid, uid = self._peer
            if uid != os.geteuid():  # root reads the word of others
                document |= {"pid": pid, "title": f"{_name(uid)}: {document.get('title')}"}
            found.documents.append(document)
        elif self._size:
            self.fails("tells what is no document of Penstock's", found)

    def fails(self, why: str, found: Found) -> None:
        self.sock.close()
        found.silent.append(Silent(place.pid_of(self._path), self._path, why))
