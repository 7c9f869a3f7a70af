"""What changed since a revision of git: the files as they were then.

The program is audited as it was and as it is, and what was wrong before is left out. So what is told is what the change
brought in, wherever in the program it shows.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import AuditError, Problem
from .files import Found


def as_of(revision: str, files: Sequence[Found]) -> list[Found]:
    """*files* as they were at *revision*, under the names that they have now; without those that are new.

    :raises AuditError: when git is not there, this is no repository of it, or it knows no such revision.
    """
    here = Path.cwd()
    root = Path(_git(here, "rev-parse", "--show-toplevel").decode(errors="surrogateescape").rstrip("\n"))
    commit = _git(root, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}").decode().strip()
    before = _before(root, commit)
    then = []
    for file in files:
        whole = file.path.resolve()
        name = whole.relative_to(root.resolve()).as_posix() if whole.is_relative_to(root.resolve()) else ""
        if name not in before:
            then.append(file)
        elif (old := before[name]) is not None:
            then.append(replace(file, data=_git(root, "cat-file", "blob", f"{commit}:{old}")))
    return then


def _before(root: Path, commit: str) -> dict[str, str | None]:
    """By file that is not what it was: what it was called then; None for one that is new."""
    fields = _git(root, "diff", "--name-status", "-z", "-M", "--no-ext-diff", "--no-textconv", commit, "--")
    words = iter(fields.decode(errors="surrogateescape").split("\0"))
    found: dict[str, str | None] = {}
    for status in words:
        if status.startswith(("R", "C")):
            old = next(words)
            found[next(words)] = old
        elif status:
            name = next(words)
            found[name] = None if status == "A" else name
    untracked = _git(root, "ls-files", "--others", "-z").decode(errors="surrogateescape")
    return found | dict.fromkeys(filter(None, untracked.split("\0")))


def _git(directory: Path, *arguments: str) -> bytes:
    # A repository may name programs for git to run: none of them is.
    command = ["git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", *arguments]
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, check=False)
    except OSError as error:
        raise AuditError(Problem("--changed", 0, "", f"git cannot be run: {error.strerror}")) from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().removeprefix("fatal: ")
        raise AuditError(Problem("--changed", 0, "", f"git {arguments[0]}: {said}"))
    return done.stdout
