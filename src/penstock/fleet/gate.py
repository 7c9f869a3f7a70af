"""One process of a machine at a time may open a connection that the fleet does not know of yet.

Whoever joins needs a connection to ask with. The budget keeps room for some, and this gate sees to it that the
processes of one machine, which often start together, come one after the other. A lock on a file goes with the process
that holds it, however that ends.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def gate(fleet: str) -> Iterator[bool]:
    """Whether this process has the gate, for the length of the block. Never waits.

    Where there can be no such file, everybody passes: the budget's room is what is left then.
    """
    fd = _open(f"penstock-{os.getuid()}-{fleet}.gate") if fcntl else None
    if fd is None:
        yield True
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)  # a child that was forked meanwhile has the file open too, and would keep it
        os.close(fd)


def _open(name: str) -> int | None:
    try:
        path = Path(tempfile.gettempdir()) / name
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
