"""Where the sockets are: one folder of a user's own, one socket a process."""

from __future__ import annotations

import os
import re
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

SUFFIX = ".sock"
_NAME = re.compile(r"(\d{1,10})-[0-9a-f]+\.sock")
_UNBORN = ".new"  # until it listens, so that nobody takes it for a dead one
_LONGEST = 107  # bytes that the kernel takes for a socket's path
_ROOM = len("/4194304-012345.sock.new")


def folders() -> list[Path]:
    """Where this user's sockets may be, those first where a new one is best put.

    A service started at boot has no XDG_RUNTIME_DIR, and whoever looks at it from a login does: all are looked at.
    """
    uid = os.geteuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    parents = [*([Path(runtime)] if runtime else []), Path(f"/run/user/{uid}")]
    temporary = [Path(tempfile.gettempdir()), Path("/tmp")]
    found = [parent / "penstock" for parent in parents] + [parent / f"penstock-{uid}" for parent in temporary]
    return list(dict.fromkeys(found))


def others() -> list[Path]:
    """For root: where other users' sockets may be."""
    if os.geteuid() != 0:
        return []
    found = [*Path("/run/user").glob("*/penstock")]
    for temporary in dict.fromkeys([Path(tempfile.gettempdir()), Path("/tmp")]):
        found += temporary.glob("penstock-*")
    return [folder for folder in found if folder not in folders()]


def is_private(folder: Path, anybody: bool = False) -> bool:
    """Whether it is a folder, no link to one, and nobody but its owner may enter: us, or *anybody*."""
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    mine = anybody or found.st_uid == os.geteuid()
    return stat.S_ISDIR(found.st_mode) and mine and not found.st_mode & 0o077


def listen(backlog: int) -> tuple[socket.socket, Path]:
    """A socket of this process's own that listens, and where.

    :raises OSError: when there is none to be had; the message says why not, for each folder that was tried.
    """
    why = []
    for folder in folders():
        try:
            return _listen_in(folder, backlog)
        except OSError as error:
            why.append(f"{folder}: {error.strerror or error}")
    raise OSError("; ".join(why))


def _listen_in(folder: Path, backlog: int) -> tuple[socket.socket, Path]:
    if len(os.fsencode(folder)) + _ROOM > _LONGEST:
        raise OSError("its path is too long for a socket's")
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not is_private(folder):
        raise OSError("it is not this user's alone (a folder of their own, mode 0700)")
    remove_dead(folder)
    path = folder / f"{os.getpid()}-{os.urandom(3).hex()}{SUFFIX}"
    unborn = path.with_name(path.name + _UNBORN)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(unborn))
        unborn.chmod(0o600)
        listener.listen(backlog)
        listener.setblocking(False)
        unborn.rename(path)
    except BaseException:
        listener.close()
        with suppress(OSError):
            unborn.unlink()
        raise
    return listener, path


def sockets(folder: Path) -> Iterator[Path]:
    """Those that listen, or did, by name."""
    with suppress(OSError):
        yield from sorted(path for path in folder.glob(f"*{SUFFIX}") if _NAME.fullmatch(path.name))


def pid_of(path: Path) -> int:
    """The process that a socket is named after; 0 where it is named after none."""
    named = _NAME.fullmatch(path.name)
    return int(named[1]) if named else 0


def remove_dead(folder: Path) -> None:
    """Remove the sockets of processes that have gone without doing so: killed, or forked and ended in a hurry."""
    for path in list(sockets(folder)):
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.setblocking(False)
            try:
                asking.connect(str(path))
            except ConnectionRefusedError:  # nobody listens there, and nobody will again
                path.unlink()
