"""A real MariaDB on a free loopback port."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from support.waiting import eventually

START_SECONDS = 20.0
USER, PASSWORD, DATABASE = "app", "s3cret/pw", "app"
# What makes it start in a tenth of a second and keep nothing: the data go with the tests.
_SETTINGS = {
    "bind-address": "127.0.0.1",
    "skip-name-resolve": "1",
    "innodb-flush-log-at-trx-commit": "0",
    "innodb-log-file-size": "4M",
    "innodb-buffer-pool-size": "32M",
    "performance-schema": "0",
    "max-connections": "150",
}
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
# Whatever ends us, kill -9 included, closes the pipe that this reads.
_WATCHDOG = 'read -r _; kill -KILL "$1"; rm -rf "$2"'


class MariaDB:
    """As a context manager; skips the test where there is none, and says what to install."""

    host = "127.0.0.1"

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        pytest.importorskip("pymysql", reason="pip install 'penstock[pymysql]'")
        programs = [shutil.which(name, path=_PATH) for name in ("mariadb-install-db", "mariadbd")]
        if None in programs:
            pytest.skip("there is no mariadbd: sudo apt-get install mariadb-server-core mariadb-client-core")
        install, self._program = programs
        self._folder = Path(tempfile.mkdtemp(prefix="penstock-mariadb-"))
        with socket.socket() as probe:
            probe.bind((self.host, 0))
            self.port = int(probe.getsockname()[1])
        try:
            self._run(
                install,
                "--no-defaults",
                f"--datadir={self._folder / 'data'}",
                "--auth-root-authentication-method=normal",
                "--skip-name-resolve",
                "--skip-test-db",
                "--innodb-log-file-size=4M",
                *_as_root(),
            )
            self.start()
            with self.admin() as admin, admin.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {DATABASE}")
                cursor.execute(f"CREATE DATABASE {DATABASE}_other")
                cursor.execute(f"CREATE USER {USER} IDENTIFIED BY '{PASSWORD}'")
                cursor.execute(f"GRANT ALL ON `{DATABASE}%`.* TO {USER}")
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
        """How an ordinary user connects."""
        return self.url()

    @property
    def socket(self) -> Path:
        return self._folder / "socket"

    def url(self, scheme: str = "mysql", port: int | None = None) -> str:
        password = PASSWORD.replace("/", "%2F")
        return f"{scheme}://{USER}:{password}@{self.host}:{port or self.port}/{DATABASE}"

    @contextmanager
    def admin(self) -> Iterator[Any]:
        """A connection of root's, in autocommit."""
        import pymysql

        conn = pymysql.connect(unix_socket=str(self.socket), user="root", autocommit=True)
        try:
            yield conn
        finally:
            conn.close()

    def ask(self, statement: str, *params: Any) -> list[tuple[Any, ...]]:
        """All rows, as root."""
        with self.admin() as admin, admin.cursor() as cursor:
            cursor.execute(statement, params or None)
            return list(cursor.fetchall())

    def threads(self) -> list[int]:
        """The connections of the ordinary user, by the server's numbers."""
        rows = self.ask("SELECT id FROM information_schema.processlist WHERE user = %s", USER)
        return sorted(number for (number,) in rows)

    def kill_thread(self, thread: int) -> None:
        """End this connection; when it returns, the server has."""
        self.ask(f"KILL HARD {thread}")
        eventually(lambda: not self.ask("SELECT 1 FROM information_schema.processlist WHERE id = %s", thread))

    def kill_all(self) -> int:
        """End the ordinary user's connections; how many there were."""
        threads = self.threads()
        for thread in threads:
            self.kill_thread(thread)
        return len(threads)

    def start(self) -> None:
        """Start it on its port; when it returns, clients are let in."""
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self._program),
                    "--no-defaults",
                    *settings,
                    *_as_root(),
                    f"--port={self.port}",
                    f"--datadir={self._folder / 'data'}",
                    f"--socket={self.socket}",
                    f"--pid-file={self._folder / 'pid'}",
                ],
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
            assert self._process.poll() is None, f"MariaDB ended at once: {self._last_words()}"
            assert time.monotonic() < deadline, f"MariaDB did not start: {self._last_words()}"
            time.sleep(0.01)

    def stop(self) -> None:
        """Shut it down in order: it says goodbye to its clients."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait()
        self.kill()

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

    def _run(self, *command: Any) -> None:
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, f"{command[0]} failed: {done.stdout[-600:]} {done.stderr[-600:]}"

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=1):
                return True
        except OSError:
            return False

    def _last_words(self) -> str:
        return (self._folder / "log").read_text(errors="replace").strip()[-600:]

    def _clean_up(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


def _as_root() -> list[str]:
    return ["--user=root"] if os.getuid() == 0 else []
