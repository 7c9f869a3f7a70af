"""What this process is, for somebody who has many of them before their eyes."""

from __future__ import annotations

import os
import re
import sys
import time

# A word that is what it seems to be: a module, a file, a command. Anything else might be a secret.
_PLAIN = re.compile(r"[a-z_][a-z_.-]*(?::[a-z_.]+(?:\(\))?)?", re.IGNORECASE)
_MOST = 3  # words


def title(words: list[str] | None = None) -> str:
    """The program and the first of its arguments: ``gunicorn app:app``. No options, as passwords are found there.

    :param words: as `sys.argv`; by default, that.
    """
    words = getattr(sys, "argv", []) if words is None else words
    program = os.path.basename(words[0]) if words and words[0] else "python"
    if program == "__main__.py":  # python -m
        program = os.path.basename(os.path.dirname(words[0]))
    shown = [program if program != "-c" else "python -c"]
    for word in words[1:]:
        if len(shown) == _MOST or not _PLAIN.fullmatch(word):
            break  # what comes after an option may be its value
        shown.append(word)
    return " ".join(shown)


def started() -> float:
    """When this process began, in seconds since 1970."""
    try:
        with open("/proc/self/stat", "rb") as stat:
            ticks = int(stat.read().rpartition(b")")[2].split()[19])
        return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError, AttributeError):
        return _observed_since


_observed_since = time.time()
