"""Which files are audited: those that are named, and the Python files in the directories that are."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .source import Unread, contents

_SUFFIXES = (".py", ".pyw")
# Not the program's own: what tools put there. A package may be called `build`, and is told by its __init__.py.
_OTHERS = frozenset({"node_modules", "__pycache__", "site-packages", "__pypackages__"})
_OUTPUT = frozenset({"build", "dist", "_build"})
_ROOT = ("pyproject.toml", "setup.py", "setup.cfg", ".git")  # one of them stands where a project begins

Note = Callable[[Unread], None]


@dataclass(frozen=True, slots=True)
class Found:
    """A file to audit.

    :ivar shown: its path as it is told: from the working directory, if it is there.
    :ivar named: whether it was named itself, rather than found in a directory.
    :ivar data: what it has, if that is not what the disk has.
    """

    path: Path
    shown: str
    named: bool = False
    data: bytes | None = None

    def contents(self) -> bytes | Unread:
        return contents(self.path, self.shown) if self.data is None else self.data


def find(paths: Sequence[Path], exclude: Sequence[str], root: Path, note: Note) -> list[Found]:
    """The files at *paths*, each once, in the order of their paths.

    :param exclude: patterns of what is left out, as seen from *root*; a file that is named itself is not.
    """
    here = Path.cwd()
    found: dict[str, Found] = {}
    for path in paths:
        if path.is_dir():
            for one in _walk(path, exclude, root, here, note):
                shown = show(one, here)
                found.setdefault(shown, Found(one, shown))
        else:
            shown = show(path, here)
            found[shown] = Found(path, shown, named=True)
    return [found[shown] for shown in sorted(found)]


def around(paths: Sequence[Path]) -> list[Path]:
    """The directories of the projects that *paths* belong to: what is there is known, and not told of."""
    return sorted({root for path in paths if (root := project_root(path)) is not None})


@cache
def project_root(path: Path) -> Path | None:
    """The nearest directory, from *path* upwards, in which a project begins."""
    start = path.absolute()
    for directory in (start, *start.parents):
        if any((directory / name).exists() for name in _ROOT):
            return directory
    return None


def show(path: Path, here: Path) -> str:
    whole = Path(os.path.normpath(here / path))
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(whole)


def _walk(top: Path, exclude: Sequence[str], root: Path, here: Path, note: Note) -> Iterator[Path]:
    def failed(error: OSError) -> None:
        shown = show(Path(error.filename or top), here)
        note(Unread(shown, 0, f"the directory could not be opened: {error.strerror}"))

    left_out = matcher(exclude)
    for directory, inner, files in os.walk(top, onerror=failed):  # follows no links, which may go in circles
        inner[:] = sorted(
            name for name in inner if _is_own(directory, name) and not left_out(_from(root, directory, name))
        )
        for name in sorted(files):
            if name.endswith(_SUFFIXES) and not left_out(_from(root, directory, name)):
                yield Path(directory, name)


def _is_own(directory: str, name: str) -> bool:
    if name.startswith(".") or name in _OTHERS:
        return False
    if name in _OUTPUT and not os.path.exists(os.path.join(directory, name, "__init__.py")):
        return False
    return not os.path.exists(os.path.join(directory, name, "pyvenv.cfg"))


def _from(root: Path, directory: str, name: str) -> str:
    return os.path.relpath(os.path.join(directory, name), root).replace(os.sep, "/")


def matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Whether a path is of one of *patterns*, or is in a directory that is.

    ``*`` and ``?`` stop at a slash, ``**`` does not. A pattern without a slash is of a name at any depth.
    """
    compiled = [_compiled(pattern) for pattern in patterns]
    return lambda path: any(one.fullmatch(path) for one in compiled)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    pattern = pattern.strip().removeprefix("./").rstrip("/")
    depth = "" if "/" in pattern else "(?:.*/)?"
    words = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    special = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile(depth + "".join(special.get(word, re.escape(word)) for word in words) + "(?:/.*)?", re.DOTALL)
