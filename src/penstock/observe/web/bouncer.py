"""PgBouncer's pools beside ours, asked for by a thread of its own: a console that hangs holds up nobody."""

from __future__ import annotations

import threading
from dataclasses import asdict
from time import time
from typing import Any

from ..pgbouncer import Console

EVERY = 2.0  # seconds


class Consulted:
    """:param dsn: of the admin console."""

    def __init__(self, dsn: str) -> None:
        self._console = Console(dsn)
        self._latest: dict[str, Any] = {"at": time(), "error": "it has not answered yet", "pools": []}
        threading.Thread(target=self._run, name="penstock-pgbouncer", daemon=True).start()

    def latest(self) -> dict[str, Any]:
        """For the page's frame."""
        return {"pgbouncer": self._latest}

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            try:
                self._latest = {"at": time(), "error": None, **asdict(self._console.read())}
            except Exception as error:  # shown; the next look may do. No password is in it
                self._latest = {**self._latest, "error": " ".join(str(error).split()) or type(error).__name__}
            pause.wait(EVERY)
