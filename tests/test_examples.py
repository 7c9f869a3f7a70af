"""The examples start as they say, and do what they say: over real HTTP, or through a worker's queue."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from penstock.drill.postgres import EmbeddedPostgres
from support.waiting import eventually
from support.web import ROOT, Sessions, free_port, running, serving

EXAMPLES = ROOT / "examples"


@pytest.fixture
def notes(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The table that they all keep their notes in."""
    with psycopg.connect(postgres.dsn, autocommit=True) as conn:
        conn.execute("CREATE TABLE notes (id serial PRIMARY KEY, note text NOT NULL)")
        yield postgres.dsn
        conn.execute("DROP TABLE notes")


def commands(example: str) -> list[list[str]]:
    """What its docstring says to run, as this interpreter runs it."""
    text = (EXAMPLES / example).read_text().split('"""')[1]
    found = re.findall(r"^ +(?:DSN=\S+ )?\.venv/bin/(.*)$", text, re.MULTILINE)
    words = [shlex.split(line) for line in found]
    return [line[1:] if line[0] == "python" else ["-m", *line] for line in words]


def at(command: list[str], port: int) -> list[str]:
    """The server's command, listening on that port."""
    return [*command, *(["--port", str(port)] if "uvicorn" in command else ["--bind", f"127.0.0.1:{port}"])]


@pytest.mark.parametrize(
    ("example", "number"),
    [
        ("fastapi_app.py", 0),
        ("flask_app.py", 0),
        ("django_app.py", 0),
        ("django_app.py", 1),
        ("sqlalchemy_sync.py", 0),
        ("sqlalchemy_asyncio.py", 0),
    ],
)
def test_a_service_keeps_notes_over_http(notes: str, example: str, number: int) -> None:
    port = free_port()
    with serving(at(commands(example)[number], port), port, {"DSN": notes}) as http:
        for text in (f"of {example}", "Grüße"):
            added = http.post("/notes", json=text)
            assert added.status_code == 201
            assert http.get(f"/notes/{added.json()}").json() == text
        assert http.get("/notes/0").json() is None
        assert http.get("/livez").json() == {"status": "alive"}


@pytest.mark.parametrize("example", ["threads.py", "aio.py", "multiplexed.py", "lambda_handler.py", "batch_users.py"])
def test_a_script_runs_and_keeps_below_its_line(dsn: str, example: str) -> None:
    [command] = commands(example)
    done = subprocess.run(
        [sys.executable, *command], env={**os.environ, "DSN": dsn}, cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    opened = int(re.findall(r"over (\d+) connections", done.stdout)[0])
    assert 1 <= opened <= 4


def test_a_worker_s_processes_have_a_pool_each(postgres: EmbeddedPostgres, notes: str) -> None:
    """Of the one that their parent had opened before the fork. All say goodbye: a process of Celery's would not."""
    worker, send = commands("worker.py")
    env = {"DSN": notes}

    def kept() -> list[Any]:
        return conn.execute("SELECT note FROM notes WHERE note LIKE 'job,%'").fetchall()

    with psycopg.connect(notes, autocommit=True) as conn, postgres.admin() as admin:
        sessions = Sessions(admin)
        here = sessions.connections()
        with running(worker, env) as process:
            command = [sys.executable, *send[:-1], "job"]
            subprocess.run(command, env={**os.environ, **env}, cwd=ROOT, check=True, timeout=30)
            eventually(lambda: process.poll() is not None or kept(), 20)
            [(note,)] = kept()
            assert int(note.split()[-1]) != process.pid
        eventually(lambda: sessions.connections() <= here)
        assert sessions.lost() == 0
