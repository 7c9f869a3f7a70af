"""What was found before, by file, so that a file of which nothing changed is not judged again.

An entry is good for as long as two digests are the same: that of the file's own text, for what stands in it, and that
of all that its findings rest on. The digest of the audit itself and its settings is among these. It is JSON and not a
pickle: whoever could write it could otherwise have code run.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field
from functools import cache
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path
from typing import Any

from .finding import Confidence, Finding, Kind, Severity
from .source import Unread
from .suppress import Ignore

FOLDER = ".penstock_cache"


@dataclass(slots=True)
class Entry:
    """What is known of one file. *size* in bytes. *key* is of its findings; empty while they are not known."""

    digest: str
    size: int = 0
    lines: int = 0
    imports: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)  # of how the program is run
    ignores: list[Ignore] = field(default_factory=list)
    key: str = ""
    findings: list[Finding] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)


def load(folder: Path) -> dict[str, Entry]:
    """What was kept in *folder*; nothing, if it was by another audit, or is no such thing."""
    try:
        kept = json.loads((folder / "audit.json").read_bytes())
        if kept["by"] != made_by():
            return {}
        return {path: _entry(*fields) for path, fields in kept["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def save(folder: Path, entries: Mapping[str, Entry], before: Mapping[str, Entry]) -> None:
    """Keep *entries*, if *folder* can be written; without it the next run takes longer, and that is all.

    :param before: what was kept until now; of files that were not looked at this time it stays.
    """
    rest = {path: entry for path, entry in before.items() if path not in entries and os.path.exists(path)}
    kept = {"by": made_by(), "files": {path: _fields(entry) for path, entry in {**rest, **entries}.items()}}
    try:
        folder.mkdir(exist_ok=True)
        (folder / ".gitignore").write_text("*\n")
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as file:
            json.dump(kept, file, separators=(",", ":"))
        os.replace(file.name, folder / "audit.json")  # whoever reads meanwhile has the one or the other
    except OSError:
        return


@cache
def made_by() -> str:
    """The digest of the audit itself: its code, its catalog, and the Python that parses for it."""
    digest = blake2b(sys.version.encode(), digest_size=16)
    for path, content in sorted(_own_files(files(__package__), "")):
        digest.update(path.encode() + b"\0" + content)
    return digest.hexdigest()


def _own_files(folder: Any, above: str) -> Iterable[tuple[str, bytes]]:
    for one in folder.iterdir():
        if one.is_dir():
            if one.name != "__pycache__":
                yield from _own_files(one, f"{above}{one.name}/")
        elif one.name.endswith((".py", ".toml")):
            yield above + one.name, one.read_bytes()


def _fields(entry: Entry) -> list[Any]:
    return [
        entry.digest, entry.size, entry.lines, entry.imports, entry.told,
        [astuple(one) for one in entry.ignores], entry.key,
        [astuple(one) for one in entry.findings], [astuple(one) for one in entry.unread],
    ]  # fmt: skip


def _entry(
    digest: str,
    size: int,
    lines: int,
    imports: list[str],
    told: list[str],
    ignores: list[Any],
    key: str,
    findings: list[Any],
    unread: list[Any],
) -> Entry:
    comments = [Ignore(line, first, last, tuple(codes)) for line, first, last, codes in ignores]
    return Entry(
        digest, size, lines, imports, told, comments, key,
        [_finding(*one) for one in findings], [Unread(*one) for one in unread],
    )  # fmt: skip


def _finding(*fields: Any) -> Finding:
    path, line, column, code, message, end_line, kind, severity, confidence, *rest = fields
    return Finding(
        path, line, column, code, message, end_line, Kind(kind), Severity(severity), Confidence(confidence), *rest
    )
