"""What a web server does: start an application, send it requests, end it; in this process or in one of its own."""

import asyncio
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg

from penstock.events import Event, OutlivedRequest
from penstock.pool.terms import declared

from .waiting import eventually

ROOT = Path(__file__).parents[2]


def left() -> float | None:
    """Seconds until the declared deadline; None if there is none."""
    terms = declared()
    return None if terms is None or terms.until == math.inf else terms.until - time.monotonic()


def outlived(pool: Any) -> list[OutlivedRequest]:
    """The reports of connections that outlived their request, as they come."""
    found: list[OutlivedRequest] = []

    def hear(event: Event) -> None:
        if isinstance(event, OutlivedRequest):
            found.append(event)

    pool.listen(hear)
    return found


def client(app: Any) -> httpx.AsyncClient:
    """Requests to an ASGI application, without any lifespan; what it raises is raised."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test")


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[list[str]]:
    """The application's, as a server conducts it; the types of the messages that it sent."""
    incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    sent: list[str] = []
    arrived = asyncio.Event()

    async def send(message: Any) -> None:
        sent.append(message["type"])
        arrived.set()

    async def await_answer() -> None:
        told = asyncio.create_task(arrived.wait())
        await asyncio.wait([task, told], return_when=asyncio.FIRST_COMPLETED, timeout=10)
        told.cancel()
        arrived.clear()

    task = asyncio.create_task(app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, incoming.get, send))
    incoming.put_nowait({"type": "lifespan.startup"})
    await await_answer()
    try:
        yield sent
    finally:
        incoming.put_nowait({"type": "lifespan.shutdown"})
        await await_answer()
        await task


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Program(subprocess.Popen[str]):
    """A Python program as a process of its own, and what it has written."""

    def __init__(self, command: Sequence[str], env: dict[str, str], cwd: Path) -> None:
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in `end`
        inherited = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **env}
        super().__init__(
            [sys.executable, *command], env=inherited, cwd=cwd, stdout=self._output, stderr=subprocess.STDOUT, text=True
        )

    def end(self) -> str:
        """With SIGTERM; or without mercy, if it has not ended in ten seconds. What it has written."""
        self.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.wait(10)
        self.kill()
        self.wait()
        with self._output as output:
            output.seek(0)
            return output.read()


@contextmanager
def running(command: Sequence[str], env: dict[str, str], cwd: Path = ROOT) -> Iterator[Program]:
    """A program for the length of the block. It must have nothing to complain of."""
    program = Program(command, env, cwd)
    try:
        yield program
    except BaseException as error:
        error.add_note(program.end()[-4000:])
        raise
    said = program.end()
    assert "Traceback" not in said, said
    assert "penstock" not in said.lower(), said  # not a warning of ours: nothing leaked, nothing was refused


@contextmanager
def serving(command: Sequence[str], port: int, env: dict[str, str]) -> Iterator[httpx.Client]:
    """A server that will listen on that port, until the end of the block; requests to it."""
    with running(command, env) as program, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as requests:
        eventually(lambda: program.poll() is not None or _listens(port), 20)
        assert program.poll() is None, "the server has ended"
        yield requests


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False


class Sessions:
    """What the server knows of its clients, from now on."""

    def __init__(self, admin: psycopg.Connection[Any]) -> None:
        self._admin = admin
        self._abandoned = self._lost()

    def connections(self) -> int:
        """Of the ordinary role."""
        rows = self._admin.execute(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename = 'app'"
        ).fetchall()
        return len(rows)

    def lost(self) -> int:
        """Sessions whose client was gone without a goodbye."""
        return self._lost() - self._abandoned

    def _lost(self) -> int:
        row = self._admin.execute("SELECT sum(sessions_abandoned) FROM pg_stat_database").fetchone()
        assert row is not None
        return int(row[0])
