"""libpq's way to stop a statement, for psycopg2, whose own holds the GIL while it waits for the server."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import psycopg2  # type: ignore[import-untyped]

_MESSAGE_BYTES = 256  # as libpq's documentation has it


class Cancel:
    """Where to ask for a connection's statement to be stopped, and as whom: a copy, which outlives the connection."""

    def __init__(self, conn: Any) -> None:
        """While nobody closes *conn* in another thread."""
        self._libpq = _libpq()
        self._cancel = self._libpq.PQgetCancel(conn.pgconn_ptr)

    def __del__(self) -> None:
        if getattr(self, "_cancel", None):
            self._libpq.PQfreeCancel(self._cancel)

    def __call__(self) -> None:
        """Ask, and wait until the server has heard: for ever, should it not answer. Other threads run meanwhile."""
        if self._cancel:
            self._libpq.PQcancel(self._cancel, ctypes.create_string_buffer(_MESSAGE_BYTES), _MESSAGE_BYTES)


@cache
def _libpq() -> Any:
    """The very library that psycopg2 is built upon: what it is linked with is found through itself."""
    libpq: Any = ctypes.CDLL(psycopg2._psycopg.__file__)  # unlike PyDLL, its calls let go of the GIL
    libpq.PQgetCancel.argtypes = [ctypes.c_void_p]
    libpq.PQgetCancel.restype = ctypes.c_void_p
    libpq.PQcancel.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    libpq.PQfreeCancel.argtypes = [ctypes.c_void_p]
    libpq.PQfreeCancel.restype = None
    return libpq
