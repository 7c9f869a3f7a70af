"""A PostgreSQL server of our own: started in a second, thrown away at the end."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import psycopg
from psycopg.rows import TupleRow

from penstock.drill import binaries
from penstock.drill.failure import CannotStart

START_SECONDS = 20.0
STOP_SECONDS = 10.0

# Whatever ends us, kill -9 included, closes the pipe that this reads: then it stops the server and removes the folder.
# It looks the server's pid up at that moment, because a restart changes it.
_WATCHDOG = """
read -r _
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ]; then
    kill -QUIT "$pid" 2>/dev/null
    tries=0
    while kill -0 "$pid" 2>/dev/null && [ "$tries" -lt 100 ]; do sleep 0.05; tries=$((tries + 1)); done
fi
rm -rf "$1"
"""

# Nothing in it outlives the drill, so nothing is worth a sync.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "autovacuum": "off",
    "max_wal_senders": "0",
    "wal_level": "minimal",
}


class EmbeddedPostgres:
    """PostgreSQL 18 on a free loopback port, as a context manager.

    `max_connections`, `superuser_reserved_connections` and `reserved_connections` are the server's own settings.
    `dsn` is an ordinary role's, so that the reserved connections are not its own; `admin()` uses those.
    Raises CannotStart when there is no PostgreSQL to run, or when it does not start.
    """

    def __init__(
        self,
        *,
        max_connections: int = 20,
        superuser_reserved_connections: int = 3,
        reserved_connections: int = 0,
    ) -> None:
        self.max_connections = max_connections
        self.superuser_reserved_connections = superuser_reserved_connections
        self.reserved_connections = reserved_connections
        self.host = "127.0.0.1"
        self.port = 0
        self._passwords = {"postgres": secrets.token_urlsafe(12), "app": secrets.token_urlsafe(12)}
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<EmbeddedPostgres {self.host}:{self.port} {'running' if self.running else 'stopped'}>"

    def __enter__(self) -> Self:
        self._user = binaries.account()
        self._folder = Path(tempfile.mkdtemp(prefix="penstock-"))
        try:
            self._prepare()
            self._start_on_free_port()
            self._make_role()
        except BaseException:  # Ctrl-C included: nothing of ours stays behind
            self._clean_up()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._clean_up()

    @property
    def running(self) -> bool:
        """Whether the server's process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def dsn(self) -> str:
        """How an ordinary role connects. It holds a password."""
        return self._dsn("app")

    @property
    def admin_dsn(self) -> str:
        """How the superuser connects. It holds a password."""
        return self._dsn("postgres")

    @contextmanager
    def admin(self) -> Iterator[psycopg.Connection[TupleRow]]:
        """Yield an autocommit connection of the superuser, who is let in even when the line is full."""
        with psycopg.connect(self.admin_dsn, autocommit=True, connect_timeout=5) as connection:
            yield connection

    def start(self) -> None:
        """Start the server on its port; when it returns, clients are let in. Raises CannotStart."""
        with open(self._log, "ab") as log:
            self._process = self._spawn([self._bin("postgres"), "-D", self._data], stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            if not self.running or time.monotonic() > deadline:
                self.stop("immediate")
                raise CannotStart(f"PostgreSQL did not start: {self._last_words()}")
            time.sleep(0.01)

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server: `fast` ends every client and shuts down in order, `immediate` is a crash."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT if mode == "fast" else signal.SIGQUIT)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop and start again, on the same port."""
        self.stop(mode)
        self.start()

    def terminate_all(self) -> int:
        """End every client's backend but the one that asks; return how many."""
        with self.admin() as connection:
            rows = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            ).fetchall()
        return len(rows)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def _log(self) -> Path:
        return self._folder / "server.log"

    def _dsn(self, role: str) -> str:
        return f"postgresql://{role}:{self._passwords[role]}@{self.host}:{self.port}/postgres?sslmode=disable"

    def _bin(self, program: str) -> Path:
        return self._installation / "bin" / program

    def _spawn(self, command: list[Any], **kwargs: Any) -> subprocess.Popen[bytes]:
        # A session of its own: the terminal's Ctrl-C is for us, and we stop the server in order.
        return subprocess.Popen(
            command,
            cwd=self._folder,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            start_new_session=True,
            **(self._user.popen() if self._user else {}),
            **kwargs,
        )

    def _prepare(self) -> None:
        if self._user:
            os.chown(self._folder, self._user.uid, self._user.gid)
        self._watchdog = self._spawn(
            ["/bin/sh", "-c", _WATCHDOG, "penstock-watchdog", self._folder], stdin=subprocess.PIPE
        )
        self._installation = binaries.reachable(binaries.find(), self._user, self._folder)
        self._initdb()

    def _initdb(self) -> None:
        secret = self._folder / "password"
        secret.touch(mode=0o600)
        secret.write_text(self._passwords["postgres"])
        if self._user:
            os.chown(secret, self._user.uid, self._user.gid)
        process = self._spawn(
            [
                *[self._bin("initdb"), "-D", self._data, "-U", "postgres", f"--pwfile={secret}"],
                *["--auth=scram-sha-256", "--no-sync", "--no-instructions", "--encoding=UTF8", "--locale=C"],
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output, _ = process.communicate()
        secret.unlink()
        if process.returncode != 0:
            raise CannotStart(f"initdb failed in {self._folder}: {output.decode(errors='replace').strip()[-600:]}")

    def _start_on_free_port(self) -> None:
        for last_try in (False, False, True):  # between our look and the server's bind somebody may take the port
            self.port = _free_port(self.host)
            self._write_settings()
            try:
                self.start()
            except CannotStart as error:
                if last_try or "Address already in use" not in str(error):
                    raise
            else:
                return

    def _write_settings(self) -> None:
        settings = _SETTINGS | {
            "port": str(self.port),
            "max_connections": str(self.max_connections),
            "superuser_reserved_connections": str(self.superuser_reserved_connections),
            "reserved_connections": str(self.reserved_connections),
        }
        lines = [f"{name} = '{value}'\n" for name, value in settings.items()]
        (self._data / "postgresql.auto.conf").write_text("".join(lines))

    def _make_role(self) -> None:
        with self.admin() as connection:
            connection.execute(f"CREATE ROLE app LOGIN PASSWORD '{self._passwords['app']}'")
            connection.execute("GRANT CREATE ON SCHEMA public TO app")

    def _ready(self) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text().split()
        except OSError:
            return False
        process = self._process
        return bool(process and lines and lines[0] == str(process.pid) and lines[-1] == "ready")

    def _last_words(self) -> str:
        return self._log.read_text(errors="replace").strip()[-600:]

    def _clean_up(self) -> None:
        self.stop("immediate")
        if self._watchdog is not None:
            self._watchdog.communicate()  # closes its pipe: it empties the folder and ends
            self._watchdog = None
        shutil.rmtree(self._folder, ignore_errors=True)  # where only we may write to TMPDIR, it could not


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
