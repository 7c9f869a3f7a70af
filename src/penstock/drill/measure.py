"""What is measured: the clients' answers, and the server's connections as pg_stat_activity shows them."""

import threading
import time
from types import TracebackType
from typing import NamedTuple, Self

import psycopg

from penstock.drill.failure import CannotStart

INTERVAL = 0.05
GONE_SECONDS = 5.0
CLIENTS = "penstock-drill"  # application_name of everything that the arms open
LOOKER = "penstock-drill-look"

# The processes of a fleet name their connections themselves. A backend in login has no application_name yet, but holds
# a slot all the same. On a server that is ours alone it is counted; on somebody else's nobody can say whose it is.
_LOOK = """
SELECT count(*), count(*) FILTER (WHERE state = 'active'),
       count(*) FILTER (WHERE state LIKE 'idle in transaction%%')
FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
  AND (application_name = %s OR starts_with(application_name, 'penstock:drill:') OR (%s AND state = 'starting'))
"""


class Answer(NamedTuple):
    """One request as its client saw it. Times in seconds; `start` counts from the load's beginning."""

    start: float
    latency: float
    error: str | None  # a kind, or None when it was answered
    retried: str | None  # the kind of the first try's error, when there was a second
    lag: float = 0.0  # of an open loop: how long after its time it was handed to the service

    @property
    def end(self) -> float:
        """When the client knew."""
        return self.start + self.latency


class Sample(NamedTuple):
    """The arm's connections at one moment, counted by the server."""

    at: float
    held: int
    active: int
    idle_in_transaction: int


class Mark(NamedTuple):
    """Something that the scenario did, and when."""

    at: float
    label: str


class Sampler:
    """Looks at the server every `interval` seconds from a thread of its own, as a context manager."""

    def __init__(self, admin_dsn: str, *, alone: bool, interval: float = INTERVAL) -> None:
        self.samples: list[Sample] = []
        self._interval = interval
        self._dsn = admin_dsn
        self._alone = alone
        self._origin = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="drill-sampler", daemon=True)

    def __enter__(self) -> Self:
        self._connection = look(self._dsn)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._connection.close()

    def begin(self, origin: float) -> None:
        """Sample from now on; `origin` is the load's beginning by time.monotonic()."""
        self._origin = origin
        self._thread.start()

    def count(self) -> int:
        """Return how many connections the arm holds now."""
        return self._look().held

    def wait_until_gone(self) -> None:
        """Wait until those who were there before have gone: they were killed, but their backends take a moment."""
        deadline = time.monotonic() + GONE_SECONDS
        while self.count() and time.monotonic() < deadline:
            time.sleep(0.02)

    def _loop(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due += self._interval
            try:
                self.samples.append(self._look())
            except psycopg.Error:
                return  # the chart ends here; the clients' figures go on

    def _look(self) -> Sample:
        at = time.monotonic() - self._origin
        row = self._connection.execute(_LOOK, (CLIENTS, self._alone)).fetchone()
        assert row is not None  # an aggregate has a row
        return Sample(at, *row)


def look(admin_dsn: str) -> psycopg.Connection[tuple[int, ...]]:
    """Open the connection that looks. Raises CannotStart."""
    try:
        return psycopg.connect(admin_dsn, autocommit=True, connect_timeout=5, application_name=LOOKER)
    except psycopg.Error as error:
        raise CannotStart(f"cannot look at the server: {error}") from None
