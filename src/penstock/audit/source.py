"""A file as it is read: its text and its tree, or a note on why there is none. Nothing in it is run."""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from dataclasses import dataclass, field
from pathlib import Path

LARGEST = 2_000_000  # bytes: what is larger was made by a program


@dataclass(frozen=True, slots=True)
class Unread:
    """A file that could not be audited, and why."""

    path: str
    line: int
    why: str


@dataclass(slots=True)
class Source:
    """*path* as it is shown, *module* its dotted name as others may import it."""

    path: str
    module: str
    text: str
    tree: ast.Module
    _split: list[str] = field(default_factory=list, repr=False)  # once, as every finding asks for its line

    @property
    def lines(self) -> int:
        return self.text.count("\n") + 1

    def line(self, number: int) -> str:
        if not self._split:
            self._split = self.text.split("\n")  # as Python counts them: a form feed ends none
        return self._split[number - 1] if 0 < number <= len(self._split) else ""


def decode(data: bytes) -> str:
    """The text of a Python file, by its own declaration of how it is encoded.

    :raises SyntaxError: (or UnicodeDecodeError) when it is none.
    """
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    return io.TextIOWrapper(io.BytesIO(data), encoding, newline=None).read()


def read(path: Path, shown: str, module: str) -> Source | Unread:
    """*path* as a tree."""
    data = contents(path, shown)
    return data if isinstance(data, Unread) else from_bytes(data, shown, module)


def contents(path: Path, shown: str) -> bytes | Unread:
    """What the file has; of one that is too large no more is read than shows it."""
    try:
        if not path.is_file() and path.exists():  # before it is opened, for which a pipe has one wait
            return Unread(shown, 1, "it is no plain file")
        with path.open("rb") as file:
            return file.read(LARGEST + 1)
    except OSError as error:
        return Unread(shown, 1, f"it could not be opened: {error.strerror}")
    except ValueError as error:  # a path that no system has
        return Unread(shown, 1, f"it could not be opened: {error}")


def from_bytes(data: bytes, shown: str, module: str) -> Source | Unread:
    if len(data) > LARGEST:
        return Unread(shown, 1, f"it has over {LARGEST:,} bytes, and was probably made by a program: it was not read")
    try:
        text = decode(data)
    except (SyntaxError, UnicodeError, LookupError):
        return Unread(shown, 1, "it is no text in the encoding that it declares")
    return parse(text, shown, module)


def parse(text: str, shown: str, module: str) -> Source | Unread:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its invalid escapes are not ours to tell of
            tree = ast.parse(text, shown)
    except SyntaxError as error:
        why = str(error.msg).partition(";")[0]
        return Unread(shown, error.lineno or 1, f"it does not parse as this Python's: {why}")
    except (ValueError, RecursionError, MemoryError) as error:
        return Unread(shown, 1, f"it does not parse: {type(error).__name__}")
    return Source(shown, module, text, tree)
