"""Programs with a pool of their own, which whoever watches finds by their telemetry sockets."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

from penstock.observe import watching
from penstock.observe.telemetry import reader

SECONDS = 20.0  # for a program to begin


def own_socket() -> Path:
    """This process's."""
    assert watching._watching is not None, "no pool was opened here"
    path = watching._watching.server.path
    assert path is not None
    return path


def own_document() -> dict[str, Any]:
    """As this process tells it over its socket."""
    (document,) = reader.read(10, [own_socket()]).documents
    return document


def source(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The pool of that name."""
    (found,) = [source for source in document["sources"] if source["name"] == name]
    return found  # type: ignore[no-any-return]


class Program:
    """*body* runs with `dsn`, a list `kept` and a function `tell` that prints one line for `heard`."""

    def __init__(self, dsn: str, body: str, environ: Mapping[str, str], words: list[str]) -> None:
        lines = ["import os, sys, time, penstock", "dsn, kept = os.environ['DSN'], []"]
        lines += ["def tell(*what): print(*what, flush=True)", dedent(body), "sys.stdin.read()"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", "\n".join(lines), *words],
            env={**os.environ, "DSN": dsn, **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def heard(self) -> str:
        """Its next line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, self.process.stderr and self.process.stderr.read()
        return line

    def end(self) -> tuple[str, str]:
        """Let it go on to its end; what it has written since."""
        return self.process.communicate(timeout=SECONDS)


@contextmanager
def program(
    dsn: str, body: str, environ: Mapping[str, str] | None = None, words: list[str] | None = None
) -> Iterator[Program]:
    """A program that has begun, for the length of the block."""
    running = Program(dsn, body, environ or {}, words or [])
    try:
        yield running
    finally:
        running.process.kill()
        running.process.communicate()


def told(path: Path) -> dict[str, Any]:
    """As curl, or anybody else who speaks HTTP over a unix socket, is told."""
    import http.client
    import socket

    class Connection(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(str(path))

    connection = Connection("pool", timeout=10)
    connection.request("GET", "/")
    answer = connection.getresponse()
    assert answer.status == 200
    return json.loads(answer.read())  # type: ignore[no-any-return]
