"""The user's line among Django's: who holds a connection is who asked for rows, not the compiler that asked for him."""

from __future__ import annotations

from types import CodeType, FrameType

# Between the user's code and a connection, and between the thread's start and the user's code.
_NOT_THEIRS = {
    *("django", "penstock", "asgiref", "celery", "kombu", "billiard", "gevent", "greenlet"),
    *("gunicorn", "uvicorn", "daphne", "hypercorn", "granian", "waitress", "mod_wsgi", "cheroot", "whitenoise"),
    *("contextlib", "functools", "threading", "concurrent", "asyncio", "multiprocessing", "runpy", "importlib"),
    *("wsgiref", "socketserver", "http", "unittest"),
}
_PLUMBING = ("django.db", "django.utils", "penstock", "contextlib")  # which says nothing of who asked


def user_site(frame: FrameType) -> tuple[CodeType, int]:
    """The innermost line of the user's, from *frame* outwards; where there is none, Django's that tells most.

    A middleware that reads the session has no line of the user's round it: its own is named then.
    """
    asked: FrameType | None = frame
    fallback = None
    while asked is not None:
        module = asked.f_globals.get("__name__", "")
        if module.partition(".")[0] not in _NOT_THEIRS:
            return asked.f_code, asked.f_lasti
        if fallback is None and not module.startswith(_PLUMBING):
            fallback = asked
        asked = asked.f_back
    fallback = fallback or frame
    return fallback.f_code, fallback.f_lasti
