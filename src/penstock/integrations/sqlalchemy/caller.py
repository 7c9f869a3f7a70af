"""Whose line of code it is that asks for a connection, beneath the frames of SQLAlchemy."""

from __future__ import annotations

import sys
from sys import _getframe
from types import CodeType, FrameType

# `engine.begin()` is a generator of contextlib's, and sqlmodel puts a method of its own before each of the session's.
_INSIDE = ("sqlalchemy.", "penstock.integrations.", "contextlib", "sqlmodel.")
_files: set[str] = set()  # known to be within: a look by file costs a third of one by module


def caller() -> tuple[CodeType, int]:
    """Code object and instruction of the innermost frame that is the user's."""
    frame = outermost = _getframe(3)  # beneath it are ours
    inside = _files
    while True:
        name = frame.f_code.co_filename
        if name not in inside:
            if not frame.f_globals.get("__name__", "").startswith(_INSIDE):
                return frame.f_code, frame.f_lasti
            if name != "<string>":  # SQLAlchemy makes some of its functions, and others may make theirs
                inside.add(name)
        outer = frame.f_back or _awaiting()
        if outer is None:
            return outermost.f_code, outermost.f_lasti
        frame = outer


def _awaiting() -> FrameType | None:
    """Beneath the asyncio engine a greenlet runs, whose frames end where the coroutine that started it goes on."""
    greenlet = sys.modules.get("greenlet")
    parent = None if greenlet is None else greenlet.getcurrent().parent
    return None if parent is None else parent.gr_frame
