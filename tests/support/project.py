"""A made-up application in a directory, with the budget that it is held against."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

from penstock import budget
from penstock.budget.application import Finding, Reading, Use, read

ONE_SERVICE = """
[databases.main]
url = "env:DATABASE_URL"
max_connections = 100
reserved = 3
headroom = 5
[services.web]
database = "main"
replicas = 10
surge = 0
processes = 4
"""


def write(root: Path, files: Mapping[str, str]) -> Path:
    """Write *files* under *root*."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    return root


def held_against(
    root: Path, files: Mapping[str, str], declared: str = ONE_SERVICE, service: str | None = None
) -> Reading:
    """What comes of reading *files*."""
    found = budget.read(dedent(declared))
    accounts = [budget.account(found, name) for name in found.databases]
    accounts += [budget.pooler_account(found, name) for name in found.poolers]
    known = {f"{each.kind}:{each.name}": each for each in accounts if each is not None}
    return read(write(root, files), found, known, service)


def broken(reading: Reading) -> list[Finding]:
    """What breaks the budget."""
    return [each for each in reading.findings if each.level == "breaks"]


def unknown(reading: Reading) -> list[str]:
    """What is not known, in words."""
    return [each.what for each in reading.findings if each.level == "unknown"]


def the_use(reading: Reading, program: str | None = None) -> Use:
    """The one row of *program*."""
    found = [each for each in reading.uses if program in (None, each.program)]
    assert len(found) == 1, found
    return found[0]
