"""Problems as GitHub Actions shows them: on the line of the file that they are about."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from penstock.errors import Problem


def show(problems: Iterable[Problem], level: Literal["error", "warning"] = "error") -> None:
    """Print a workflow command for each, if this is GitHub Actions; print nothing elsewhere."""
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return
    for problem in problems:
        place = f"file={_escaped(_in_repository(problem.path))}"
        if problem.line:
            place += f",line={problem.line}"
        message = f"{problem.key}: {problem.what}" if problem.key else problem.what
        print(f"::{level} {place},title=penstock plan::{_escaped(message, value=True)}")


def _in_repository(path: str) -> str:
    """GitHub knows files by their path from the repository's root."""
    root = os.environ.get("GITHUB_WORKSPACE")
    whole = Path.cwd() / path
    return str(whole.relative_to(root)) if root and whole.is_relative_to(root) else path


def _escaped(text: str, *, value: bool = False) -> str:
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text if value else text.replace(":", "%3A").replace(",", "%2C")
