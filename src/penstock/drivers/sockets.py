"""What the kernel can tell about a connection's socket, for any driver that has one."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

# Without these a peer that has vanished is waited for until the kernel gives up. Seconds, a count, milliseconds.
_SILENCE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}


def notice_silence(fd: int) -> None:
    """Have the kernel find out when the other side of *fd* has vanished. No effect on a Unix socket."""
    with socket.socket(fileno=os.dup(fd)) as sock:
        if sock.family == socket.AF_UNIX:
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _SILENCE.items():
            if option := getattr(socket, name, None):  # not every system has each
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


def stirred(fd: int) -> Callable[[int], object]:
    """A function of milliseconds to wait (0: none) that tells whether *fd* has unread input or has closed."""
    poller = select.poll()  # made once: to poll with it takes 0.2 microseconds, to make one as long again
    poller.register(fd, select.POLLIN | select.POLLPRI)
    return poller.poll


def has_ended(polled: object) -> bool:
    """Whether `stirred` tells of the end of the connection, and not only of input."""
    return isinstance(polled, list) and any(events & (select.POLLERR | select.POLLHUP) for _, events in polled)


def wait_for_end(fd: int, seconds: float) -> None:
    """Wait, *seconds* at most, until the other side has closed *fd*; then close it here."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    deadline = monotonic() + seconds
    try:
        while poller.poll(max(0.0, deadline - monotonic()) * 1000) and not at_end(fd) and monotonic() < deadline:
            pass
    finally:
        close(fd)


async def await_end(fd: int, seconds: float) -> None:
    """As `wait_for_end`, in an event loop."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(fd, lambda: ended.set() if at_end(fd) else None)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await ended.wait()
    finally:
        loop.remove_reader(fd)
        close(fd)


def close(fd: int) -> None:
    os.close(fd)


def at_end(fd: int) -> bool:
    """Throw away what *fd* has to be read; true when the other side has closed it."""
    try:
        return not os.read(fd, 65536)
    except BlockingIOError:
        return False
    except OSError:
        return True


def hang_up(fd: int) -> None:
    """End the traffic on *fd* both ways, from any thread. Who reads from it finds its end; *fd* itself stays open."""
    try:
        with socket.socket(fileno=os.dup(fd)) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # closed already


def send_end(fd: int) -> int:
    """Tell the other side that nothing more will come. Returns a descriptor that reads as ended once it has closed."""
    with socket.socket(fileno=os.dup(fd)) as other:
        other.shutdown(socket.SHUT_WR)
    return os.dup(fd)


def put_out_of_reach(fd: int) -> None:
    """Make *fd* in this process another file, the null device, without a word to the socket that it was."""
    null = os.open(os.devnull, os.O_RDWR)
    try:
        os.dup2(null, fd, inheritable=False)
    finally:
        os.close(null)
