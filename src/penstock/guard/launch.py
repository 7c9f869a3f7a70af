"""Starts a program so that its interpreter, and every one that it starts, comes under guard."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import NoReturn

from .settings import FOLDER, Mode, Settings, is_off

BOOTSTRAP = Path(__file__).parent / "bootstrap"


def environment(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """*environ* for a program under guard. With ``PENSTOCK=off`` in it, it stays as it is."""
    if is_off(environ):
        return dict(environ)
    path = [str(BOOTSTRAP), *filter(None, [environ.get("PYTHONPATH")])]
    return {**environ, **settings.environ(), "PYTHONPATH": os.pathsep.join(path)}


def run(settings: Settings, command: Sequence[str], report: Path | None = None) -> NoReturn:
    """Run *command*, and end as it ends.

    Held, or off, this process becomes the program, so that signals and exit statuses are its own. To be watched it
    needs somebody who sums its processes up when they have ended: then this one stays, and passes both on.

    :param report: where to write what is summed up, as JSON; with `Mode.WATCH`.
    :raises OSError: when it cannot be started.
    """
    words = [sys.executable, *command] if command[0].endswith(".py") else list(command)
    if settings.mode is not Mode.WATCH or is_off(os.environ):
        os.execvpe(words[0], words, environment(settings, os.environ))
    from . import parent, verdict

    def environ(folder: Path) -> Mapping[str, str]:
        return {**environment(settings, os.environ), FOLDER: str(folder)}

    def now(documents: parent.Told) -> None:
        parent.say(verdict.table(documents, monotonic()))

    status, documents = parent.run(words, environ, now)
    parent.say("\n" + verdict.text(documents, command))
    if report is not None:
        written = {"command": verdict.shown(command), "databases": verdict.merged(documents), "processes": documents}
        try:
            report.write_text(json.dumps(written, indent=1) + "\n")
        except OSError as error:
            parent.say(f"penstock run: {report}: {error.strerror}\n")
    parent.end(status)
