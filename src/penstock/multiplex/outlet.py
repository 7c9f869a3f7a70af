"""The way out of one connection: what was written for the server, and when it leaves."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import Any

import psycopg

from .libpq import sender


def _nobody(*_: object) -> None:
    pass


class Outlet:
    """One connection's. *broken* is called with the error when sending fails, *room* when the socket takes more again.

    :ivar stuffed: the socket takes no more for now.
    """

    __slots__ = ("_broken", "_closed", "_fd", "_loop", "_pgconn", "_room", "_send_sync", "_to_flush", "stuffed")

    def __init__(
        self, pgconn: Any, loop: AbstractEventLoop, room: Callable[[], object], broken: Callable[[Exception], object]
    ) -> None:
        self._pgconn = pgconn
        self._fd: int = pgconn.socket
        self._loop = loop
        self._room = room
        self._broken = broken
        self._send_sync = sender()
        self._to_flush = False  # something was written that waits to be sent
        self._closed = False
        self.stuffed = False

    def sync(self, at_once: bool) -> None:
        """End what was written. From here on the server may run it, whatever happens.

        *at_once*: nothing else is under way, so the server should begin. Others go together at the end of this round of
        the event loop.

        :raises psycopg.Error: when there is no connection any more.
        """
        pgconn = self._pgconn
        if at_once or self._send_sync is None:
            pgconn.pipeline_sync()
            self._flush()
            return
        pointer = pgconn.pgconn_ptr
        if not pointer or not self._send_sync(pointer):
            raise psycopg.OperationalError(f"sending failed: {pgconn.get_error_message()}")
        if not self._to_flush:
            self._to_flush = True
            self._loop.call_soon(self._flush_all)

    def close(self) -> None:
        """Nothing is to leave any more, and nobody to be told."""
        self._closed = True
        if self.stuffed:
            self._loop.remove_writer(self._fd)
        self._room = self._broken = _nobody  # or its owner would be part of a circle

    def _flush(self) -> None:
        if self._pgconn.flush() and not self.stuffed:
            self.stuffed = True
            self._loop.add_writer(self._fd, self._writable)

    def _flush_all(self) -> None:
        self._to_flush = False
        if self._closed:
            return
        try:
            self._flush()
        except psycopg.Error as error:
            self._broken(error)

    def _writable(self) -> None:
        try:
            if self._pgconn.flush():
                return
        except psycopg.Error as error:
            self._broken(error)
            return
        self.stuffed = False
        self._loop.remove_writer(self._fd)
        self._room()
