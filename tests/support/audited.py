"""A small project on disk, and `penstock audit` on it as a user calls it."""

import json
from pathlib import Path
from typing import Any

from typer import Typer
from typer.testing import CliRunner, Result

from penstock.cli.audit import audit as command

LEAK = """\
import psycopg2


def report(dsn):
    conn = psycopg2.connect(dsn)
    conn.cursor().execute("select 1")
"""
CLEAN = """\
import psycopg2
from contextlib import closing


def report(dsn):
    with closing(psycopg2.connect(dsn)) as conn:
        conn.cursor().execute("select 1")
"""
NO_TIMEOUT = """\
import requests


def ask():
    return requests.get("http://127.0.0.1/")
"""


def write(root: Path, **files: str) -> None:
    """Each file's name is its path, with ``__`` for a slash, without its suffix."""
    for name, text in files.items():
        path = root / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def audit(*arguments: str, stdin: bytes | None = None) -> Result:
    """`penstock audit` with *arguments*, in the working directory."""
    app = Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(arguments), input=stdin)


def found(*arguments: str, stdin: bytes | None = None) -> list[dict[str, Any]]:
    """What `--json` prints."""
    result = audit("--json", *arguments, stdin=stdin)
    assert result.exit_code in (0, 1), result.output
    return list(json.loads(result.stdout))


def codes(*arguments: str) -> list[tuple[str, int, str]]:
    """Of each finding: file, line and code."""
    return [(one["path"], one["line"], one["code"]) for one in found(*arguments)]
