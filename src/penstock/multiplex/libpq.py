"""What libpq can and psycopg has no method for: to end a statement without sending it at once.

`PGconn.pipeline_sync` flushes, which makes one system call for each statement: under load the dearest part of it.
libpq 17 has PQsendPipelineSync, which leaves that to the caller. psycopg documents `PGconn.pgconn_ptr` as the way to
call such functions. Where it cannot be had, each statement is sent at once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from importlib import import_module

from psycopg import pq

SINCE = 170000


@cache
def sender() -> Callable[[int], int] | None:
    """A function that ends a statement on a connection in pipeline mode, and sends nothing; None where there is none.

    It takes `PGconn.pgconn_ptr`, which must not be None, and returns 0 if it failed.
    """
    if pq.version() < SINCE:
        return None
    try:
        # The very library that psycopg's own module is linked with: there may be another one on the machine.
        package = {"binary": "psycopg_binary", "c": "psycopg_c"}[pq.__impl__]
        # PyDLL: it copies a few bytes, so the interpreter's lock is kept.
        function = ctypes.PyDLL(import_module(f"{package}.pq").__file__).PQsendPipelineSync
    except (KeyError, ImportError, OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_void_p]
    function.restype = ctypes.c_int
    return function
