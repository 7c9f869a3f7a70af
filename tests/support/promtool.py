"""Prometheus's own judge of metrics, rules and what they say of figures; see scripts/prometheus.sh."""

import shutil
import subprocess
from pathlib import Path

import pytest


def promtool(*arguments: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """What it says; skips where there is none."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("there is no promtool: see scripts/prometheus.sh")
    return subprocess.run([found, *map(str, arguments)], input=given, capture_output=True, text=True, timeout=60)
