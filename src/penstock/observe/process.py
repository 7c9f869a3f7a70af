"""What this process is, for somebody who has many of them before their eyes."""

from __future__ import annotations

import os
import re
import sys
import time
from itertools import pairwise

# What tells one service's processes from another's. Any other word might be a secret.
_SERVERS = frozenset({"gunicorn", "uvicorn", "hypercorn", "granian", "daphne", "waitress-serve"})
_APPLICATION = re.compile(r"[a-z_][\w.]*:[a-z_][\w.]*(?:\(\))?", re.IGNORECASE | re.ASCII)


def title(words: list[str] | None = None) -> str:
    """The program, and of a known server the application: ``gunicorn app:app``. No other word: it may be a password.

    :param words: as `sys.argv`; by default, that.
    """
    words = getattr(sys, "argv", []) if words is None else words
    program = os.path.basename(words[0]) if words and words[0] else "python"
    if program == "__main__.py":  # python -m
        program = os.path.basename(os.path.dirname(words[0]))
    if program not in _SERVERS:
        return program if program != "-c" else "python -c"
    for option, word in pairwise(words):
        if not option.startswith("-") and _APPLICATION.fullmatch(word):  # after an option it may be its value
            return f"{program} {word}"
    return program


def started() -> float:
    """When this process began, in seconds since 1970."""
    try:
        with open("/proc/self/stat", "rb") as stat:
            ticks = int(stat.read().rpartition(b")")[2].split()[19])
        return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError, AttributeError):
        return _observed_since


_observed_since = time.time()
