"""A naive web application in a process of its own, alone and under `penstock run --hold`."""

import subprocess
import sys
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlencode

from penstock.drill.arms.arm import Arm
from penstock.drill.failure import CannotStart
from penstock.drill.work import ApplicationError, Request, WrongAnswer

APPLICATION = Path(__file__).parents[1] / "naive.py"
HTTP_SECONDS = 60.0  # for one answer: longer than anybody here waits


class ServerError(Exception):
    """The application has answered 500; in its own words."""


class NaiveApp(Arm):
    """As it is. Its clients come over HTTP."""

    name: ClassVar[str] = "naive-app"
    title: ClassVar[str] = "a naive psycopg2 application"
    package: ClassVar[str] = "psycopg2"

    def __init__(self, dsn: str, pool_size: int) -> None:
        self._dsn = dsn
        self._pool_size = pool_size

    def command(self) -> list[str]:
        """What starts it."""
        return [sys.executable, str(APPLICATION), self._dsn]

    def start(self) -> None:
        self._process = subprocess.Popen(self.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        port = self._process.stdout.readline()
        if not port:
            raise CannotStart(f"{self.title}: it ended before it served anything, with status {self._process.wait()}")
        self._port = int(port)

    def request(self, work: Request) -> None:
        answer = self._ask(work)
        if answer != str(work.number + 1):
            raise WrongAnswer(f"asked for {work.number + 1}, got {answer}")

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()  # it ends with it
        self._process.wait()

    def _ask(self, work: Request) -> str:
        said = work.work
        asked = {
            "number": work.number,
            "failing": int(work.dice < said.failing),
            "statement": said.slow_seconds if work.dice > 1 - said.slow else 0,
            "elsewhere": said.elsewhere,
        }
        connection = HTTPConnection("127.0.0.1", self._port, timeout=HTTP_SECONDS)
        try:
            connection.request("GET", f"/?{urlencode(asked)}")
            response = connection.getresponse()
            text = response.read().decode()
        except HTTPException as error:
            raise ServerError(f"no answer: {error!r}") from None
        finally:
            connection.close()
        if response.status == 200:
            return text
        if text.startswith("NotAllowed"):
            raise ApplicationError(text)
        raise ServerError(text)


class NaiveAppHeld(NaiveApp):
    """The same file, started by `penstock run --hold`. Nothing in it is changed."""

    name: ClassVar[str] = "naive-app-held"
    title: ClassVar[str] = "the same under penstock run --hold"
    judged: ClassVar[bool] = True
    package: ClassVar[str] = "psycopg2"

    def command(self) -> list[str]:
        guard = [sys.executable, "-m", "penstock.cli", "run", "--hold", "--max", str(self._pool_size), "--"]
        return [*guard, *super().command()]
