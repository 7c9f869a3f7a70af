"""A real PgBouncer on a free loopback port, before a real PostgreSQL."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import closing
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.rows import dict_row

from penstock.drill import binaries
from penstock.drill.postgres import EmbeddedPostgres

START_SECONDS = 5.0
PREPARES_SINCE = (1, 21)

_UNPACKED = Path(__file__).parents[2] / ".venv" / "pgbouncer"  # by scripts/pgbouncer.sh
# Whatever ends us, kill -9 included, closes the pipe that this reads.
_WATCHDOG = 'read -r _; kill -KILL "$1"; rm -rf "$2"'


@cache
def programs() -> dict[tuple[int, ...], Path]:
    """Every PgBouncer to be had here, by its version: those unpacked for the tests, and one on PATH."""
    on_path = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    found = [*_UNPACKED.glob("*/pgbouncer"), *([Path(on_path)] if on_path else [])]
    return {_version(program): program for program in reversed(found)}


def _version(program: Path) -> tuple[int, ...]:
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, re.findall(r"\d+", told.splitlines()[0])))


class PgBouncer:
    """As a context manager; skips the test where there is none that does what is asked, and says how to get it.

    :param prepares: whether it must carry prepared statements (since 1.21), or must be too old for it.
    :param settings: PgBouncer's own, as in its `[pgbouncer]` section.
    """

    def __init__(
        self,
        postgres: EmbeddedPostgres,
        *,
        prepares: bool,
        pool_mode: Literal["transaction", "statement"] = "transaction",
        **settings: Any,
    ) -> None:
        self._postgres = postgres
        self._prepares = prepares
        # Its own default is to carry none up to 1.23, and 200 since.
        prepared = {"max_prepared_statements": 100} if prepares else {}
        self._settings = {"pool_mode": pool_mode, "default_pool_size": 3, **prepared, **settings}
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        fitting = {v: p for v, p in programs().items() if (v >= PREPARES_SINCE) is self._prepares}
        if not fitting:
            kind = "that carries prepared statements (1.21 or newer)" if self._prepares else "older than 1.21"
            pytest.skip(f"there is no PgBouncer {kind}: on Debian, `sh scripts/pgbouncer.sh` unpacks one")
        self._program = fitting[max(fitting)]
        self._folder = Path(tempfile.mkdtemp(prefix="penstock-pgbouncer-"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        try:
            self._configure()
            self.start()
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._clean_up()

    @property
    def dsn(self) -> str:
        """How an ordinary role connects. It holds a password."""
        return self._dsn(urlsplit(self._postgres.dsn).path)

    @property
    def console_dsn(self) -> str:
        """How to connect to its console. It holds a password."""
        return self._dsn("/pgbouncer")

    def start(self) -> None:
        """Start it on its port; when it returns, clients are let in."""
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [self._program, *self._account(), self._folder / "pgbouncer.ini"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # the terminal's Ctrl-C is for us
            )
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHDOG, "penstock-watchdog", str(self._process.pid), self._folder],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, f"PgBouncer ended at once: {self._last_words()}"
            assert time.monotonic() < deadline, f"PgBouncer did not start: {self._last_words()}"
            time.sleep(0.01)

    def kill(self) -> None:
        """End it, without a word to its clients."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._watchdog is not None:
            self._watchdog.kill()
            self._watchdog.communicate()
            self._watchdog = None

    def show(self, what: str) -> list[dict[str, Any]]:
        """The rows of its console's SHOW: `servers`, `clients`, `pools`, ..."""
        with closing(self.console()) as console:
            return console.execute(f"SHOW {what}".encode()).fetchall()

    def console(self) -> psycopg.Connection[dict[str, Any]]:
        """A connection to its console, for who asks more than once."""
        return psycopg.connect(  # it speaks the simple protocol only
            self.console_dsn, autocommit=True, cursor_factory=psycopg.ClientCursor, row_factory=dict_row
        )

    def _dsn(self, path: str) -> str:
        url = urlsplit(self._postgres.dsn)
        login = url.netloc.rpartition("@")[0]
        return url._replace(netloc=f"{login}@127.0.0.1:{self.port}", path=path).geturl()

    def _configure(self) -> None:
        url = urlsplit(self._postgres.dsn)
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": self._folder / "users",
            "admin_users": url.username,
            "max_client_conn": 1000,
            **self._settings,
        }
        database = f"{url.path[1:]} = host={self._postgres.host} port={self._postgres.port}"
        lines = ["[databases]", database, "[pgbouncer]", *(f"{name} = {value}" for name, value in settings.items())]
        (self._folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
        (self._folder / "users").write_text(f'"{url.username}" "{url.password}"\n')
        if user := binaries.account():
            os.chown(self._folder, user.uid, user.gid)

    def _account(self) -> list[str]:
        # It becomes this user itself, once it is loaded from a folder that may be root's alone.
        return ["--user", binaries.ACCOUNT] if binaries.account() else []

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False

    def _last_words(self) -> str:
        return (self._folder / "log").read_text(errors="replace").strip()[-600:]

    def _clean_up(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
