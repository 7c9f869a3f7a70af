"""On which line each key of a TOML text stands: `tomllib` does not say.

The text is known to be valid, so nothing is checked here: it is only walked, statement by statement, far enough to tell
keys from values.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left

Path = tuple[str, ...]

_BLANK = re.compile(r"(?:[ \t\r\n,]|#[^\n]*)*")
_KEY = re.compile(r"""[ \t]*("(?:\\.|[^"\\])*"|'[^']*'|[A-Za-z0-9_-]+)[ \t]*""")
_SCALAR = re.compile(
    r'''"""(?:\\.|[^\\])*?"""(?:"{0,2})'''
    r"|\'\'\'.*?\'\'\'(?:\'{0,2})"
    r'''|"(?:\\.|[^"\\])*"'''
    r"|'[^']*'"
    r"|[^,\]}#\n]+",
    re.DOTALL,
)


def key_lines(text: str) -> dict[Path, int]:
    """The line, from 1, of each key and each table of *text*, which is valid TOML.

    A table that only its children name stands where the first of them does.
    """
    return _Walk(text).lines


class _Walk:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self._ends = [match.start() for match in re.finditer("\n", text)]
        table: Path = ()
        while self._skip_blank():
            if text[self.at] == "[":
                brackets = 2 if text.startswith("[[", self.at) else 1
                self.at += brackets
                table = self._key(())
                self.at += brackets
            else:
                self._pair(table)

    def _skip_blank(self) -> bool:
        """Move on to what is neither space, comma nor comment; whether there is anything."""
        match = _BLANK.match(self.text, self.at)
        assert match
        self.at = match.end()
        return self.at < len(self.text)

    def _pair(self, table: Path) -> None:
        key = self._key(table)
        self.at += 1  # the "="
        self._value(key)

    def _key(self, table: Path) -> Path:
        """Read a key, dotted or not, and note the lines of all its parts."""
        self._skip_blank()
        line = bisect_left(self._ends, self.at) + 1
        path = table
        while True:
            match = _KEY.match(self.text, self.at)
            assert match, "bug: no key where one must be"
            self.at = match.end()
            path = (*path, _bare(match[1]))
            self.lines.setdefault(path, line)
            if self.text[self.at] != ".":
                self.lines[path] = line  # named itself, and not only by a child that stands above it
                return path
            self.at += 1

    def _value(self, path: Path) -> None:
        self._skip_blank()
        opening = self.text[self.at]
        if opening not in "[{":
            match = _SCALAR.match(self.text, self.at)
            assert match, "bug: no value where one must be"
            self.at = match.end()
            return
        self.at += 1
        while self._skip_blank() and self.text[self.at] not in "]}":
            if opening == "{":
                self._pair(path)
            else:
                self._value(path)
        self.at += 1


def _bare(key: str) -> str:
    return str(tomllib.loads(f"key = {key}")["key"]) if key[0] in "\"'" else key
