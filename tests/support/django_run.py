"""Runs the Django project of `support.django_project`, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import penstock

# `-c COMMANDS`: what manage.py would be called with, one after the other.
COMMANDS = """
import django
from django.core.management import call_command
django.setup()
call_command("migrate")
call_command("inspectdb", "django_project_order")
call_command("flush", interactive=False)
from django.db import connection
connection.close()
connection.close_pool()
call_command("penstock")
"""


def run(database: dict[str, Any], *arguments: str) -> str:
    """Python with these arguments and *database* as the default one; returns what it says."""
    given = {"OPTIONS": {"pool": {"max_size": 2, "timeout": 5}}} | database
    paths = [str(Path(__file__).parents[1]), str(Path(penstock.__file__).parents[1])]
    environment = os.environ | {
        "DJANGO_DATABASE": json.dumps(given),
        "DJANGO_SETTINGS_MODULE": "support.django_project.settings",
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONWARNINGS": "error::ResourceWarning",
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def drive(database: dict[str, Any], requests: int) -> dict[str, Any]:
    """What came of that many requests under ASGI (see `support.django_project.drive`)."""
    said = run(database, "-m", "support.django_project.drive", str(requests))
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found
