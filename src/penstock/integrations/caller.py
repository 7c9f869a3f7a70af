"""The user's line among those of frameworks: who holds a connection is who asked for rows, not who asked for him."""

from __future__ import annotations

import sys
from types import CodeType, FrameType
from typing import Any

from .awaiting import awaiting

# Between the user's code and a connection, and between the thread's start and the user's code. `engine.begin()` is a
# generator of contextlib's, and sqlmodel puts a method of its own before each of the session's.
_NOT_THEIRS = {
    *("sqlalchemy", "sqlmodel", "django", "penstock", "asgiref", "celery", "kombu", "billiard", "gevent", "greenlet"),
    *("gunicorn", "uvicorn", "daphne", "hypercorn", "granian", "waitress", "mod_wsgi", "cheroot", "whitenoise"),
    *("contextlib", "functools", "threading", "concurrent", "asyncio", "multiprocessing", "runpy", "importlib"),
    *("wsgiref", "socketserver", "http", "unittest"),
    *("psycopg_pool", "psycopg", "psycopg2", "asyncpg", "dbutils"),
}
_PLUMBING = (
    "sqlalchemy",
    "django.db",
    "django.utils",
    "penstock",
    "contextlib",
    "psycopg_pool",
    "asyncpg",
    "dbutils",
)  # which says nothing of who asked
_THREADS = ("concurrent", "threading", "asyncio", "asgiref.sync", "multiprocessing")  # nor do those who run it
_files: set[str] = set()  # known to be not theirs: a look by file costs a third of one by module
_theirs: set[str] = set()  # known to be theirs, through `caller_of_me`
_MOST = 4
_MOST_FILES = 10_000
_ways: list[tuple[int, CodeType, CodeType]] = []  # what their code called, what that called, and how far it is


def caller(frame: FrameType) -> tuple[CodeType, int]:
    """The innermost line of the user's, from *frame* outwards; where there is none, the framework's that tells most.

    A middleware that reads the session has no line of the user's round it: its own is named then.
    """
    asked, greenlet, files = frame, None, _files
    while True:
        name = asked.f_code.co_filename
        if name not in files:
            if _module(asked).partition(".")[0] not in _NOT_THEIRS:
                return asked.f_code, asked.f_lasti
            if name != "<string>":  # SQLAlchemy makes some of its functions, and others may make theirs
                files.add(name)
        outer = asked.f_back
        if outer is None:
            greenlet = _awaiting(greenlet)
            outer = greenlet and greenlet.gr_frame
            if outer is None:
                return _of_who_awaits(frame) or _telling(frame)
        asked = outer


def caller_of_me() -> tuple[CodeType, int]:
    """`caller` of whoever calls this. Nine times in ten without a frame for each function in between.

    To go from frame to frame makes an object of each. So a way that was gone once is tried first: two functions of
    a framework's, so many calls away, the outer of which their code calls. One would not do: it may be contextlib's.
    """
    for far, entered, then in _ways:
        try:
            if sys._getframe(far).f_code is entered and sys._getframe(far - 1).f_code is then:
                asked = sys._getframe(far + 1)
                if asked.f_code.co_filename in _theirs:
                    return asked.f_code, asked.f_lasti
        except ValueError:  # the stack is not as deep
            pass
    return _gone(sys._getframe(1))


def _gone(frame: FrameType) -> tuple[CodeType, int]:
    """The whole way, and note of it."""
    found = caller(frame)
    far, then, passed, asked = 1, frame, frame, frame.f_back
    while asked is not None and (asked.f_code is not found[0] or asked.f_lasti != found[1]):
        far, then, passed, asked = far + 1, passed, asked, asked.f_back
    if asked is not None and far > 1 and _module(asked).partition(".")[0] not in _NOT_THEIRS:
        if len(_theirs) < _MOST_FILES:
            _theirs.add(asked.f_code.co_filename)
        way = far, passed.f_code, then.f_code
        if way not in _ways:
            _ways[_MOST - 1 :] = []
            _ways.insert(0, way)
    return found


def _of_who_awaits(frame: FrameType) -> tuple[CodeType, int] | None:
    """Django's `await Order.objects.acount()` has its line in the event loop's thread."""
    for asked in awaiting(frame):
        if _module(asked).partition(".")[0] not in _NOT_THEIRS:
            return asked.f_code, asked.f_lasti
    return None


def _awaiting(greenlet: Any) -> Any:
    """Under asyncio SQLAlchemy runs in a greenlet, whose frames end where the coroutine that started it goes on."""
    module = sys.modules.get("greenlet")
    return module and (greenlet or module.getcurrent()).parent


def _telling(frame: FrameType) -> tuple[CodeType, int]:
    passed, asked = frame, frame.f_back
    while asked is not None and _module(passed).startswith(_PLUMBING):
        if _module(asked).startswith(_THREADS):
            break  # `submit(engine.connect)`: what tells most is what was passed
        passed, asked = asked, asked.f_back
    return passed.f_code, passed.f_lasti


def _module(frame: FrameType) -> str:
    return frame.f_globals.get("__name__", "")  # type: ignore[no-any-return]
