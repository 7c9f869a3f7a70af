"""Problems as GitHub Actions shows them: on the line of the file that they are about."""

import os
from collections.abc import Iterable
from typing import Literal

from penstock.audit.report.github import command
from penstock.errors import Problem


def show(problems: Iterable[Problem], level: Literal["error", "warning"] = "error") -> None:
    """Print a workflow command for each, if this is GitHub Actions; print nothing elsewhere."""
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return
    for problem in problems:
        message = f"{problem.key}: {problem.what}" if problem.key else problem.what
        print(command(level, problem.path, "penstock plan", message, {"line": problem.line} if problem.line else {}))
