"""Starts a program so that its interpreter, and every one that it starts, comes under guard."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from .settings import Settings, is_off

BOOTSTRAP = Path(__file__).parent / "bootstrap"


def environment(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """*environ* for a program under guard. With ``PENSTOCK=off`` in it, it stays as it is."""
    if is_off(environ):
        return dict(environ)
    path = [str(BOOTSTRAP), *filter(None, [environ.get("PYTHONPATH")])]
    return {**environ, **settings.environ(), "PYTHONPATH": os.pathsep.join(path)}


def run(settings: Settings, command: Sequence[str]) -> NoReturn:
    """Become *command*: the process stays the same, so that signals and exit statuses are the program's own.

    :raises OSError: when it cannot be started.
    """
    words = [sys.executable, *command] if command[0].endswith(".py") else list(command)
    os.execvpe(words[0], words, environment(settings, os.environ))
