"""The line, watched: how many connections a role has, every 10 ms, and the processes that have them."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from penstock.drill.postgres import EmbeddedPostgres

SAMPLE_SECONDS = 0.01
_COUNT = "SELECT application_name FROM pg_stat_activity WHERE usename = 'app' AND backend_type = 'client backend'"
_CHILD = Path(__file__).with_name("fleet_child.py")


class Line:
    """Samples for the length of the block.

    :ivar names: of the connections, at the last sample.
    :ivar above: samples with more than *budget*, each with the names that were there.
    """

    def __init__(self, postgres: EmbeddedPostgres, budget: int) -> None:
        self._postgres = postgres
        self.budget = budget
        self.samples = 0
        self.peak = 0
        self.names: list[str] = []
        self.above: list[list[str]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if kind is None:
            assert self.samples, "nothing was seen"
            assert not self.above, f"{len(self.above)} of {self.samples} samples above {self.budget}: {self.above[0]}"

    @property
    def count(self) -> int:
        return len(self.names)

    def of(self, pool: Any) -> int:
        """Connections of a pool of this process, as the server sees them."""
        return sum(f":{pool.fleet().member}:" in name for name in self.names)

    def _watch(self) -> None:
        with self._postgres.admin() as admin:
            while not self._over.wait(SAMPLE_SECONDS):
                self.names = [name for (name,) in admin.execute(_COUNT)]
                self.samples += 1
                self.peak = max(self.peak, len(self.names))
                if len(self.names) > self.budget:
                    self.above.append(self.names)


class Children:
    """Processes of a fleet (`fleet_child`), all killed at the end of the block."""

    def __init__(self, dsn: str, workers: int = 12, **fleet: Any) -> None:
        self._dsn = dsn
        self._workers = workers
        self._fleet = fleet
        self._group: int | None = None
        self.running: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self.running:
            try:
                os.killpg(child.pid, signal.SIGKILL)  # those that it forked too
            except ProcessLookupError:
                pass
            child.communicate()

    def start(self, kind: str = "threads", dsn: str | None = None) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, _CHILD, dsn or self._dsn, json.dumps(self._fleet), kind, str(self._workers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.running.append(child)
        return child


def tell(child: "subprocess.Popen[str]", order: str = "") -> dict[str, Any]:
    """Give a child an order, and return what it says of its share."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(order + "\n")
    child.stdin.flush()
    return dict(json.loads(child.stdout.readline()))
