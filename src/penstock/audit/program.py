"""The files of one program: under which names they import each other. Each is read when it is first looked at."""

from __future__ import annotations

from collections.abc import Iterable

from .files import Found
from .names import Module
from .source import Source, Unread, from_bytes


class Program:
    """Its files, by the paths under which they are shown.

    :param most: so many lines are kept in memory from one file to the next. A million take about a gigabyte.
    """

    def __init__(self, files: Iterable[Found], most: int) -> None:
        self._most = most
        self.files = {file.shown: file for file in files}
        self.names = name_table(self.files)
        self._modules: dict[str, Module | Unread] = {}
        self._lines = 0

    def named(self, name: str) -> Module | None:
        """The file that is imported as *name*; None if there is none, or more than one."""
        shown = self.names.get(name)
        found = None if shown is None else self.module(shown)
        return None if isinstance(found, Unread) else found

    def module(self, shown: str) -> Module | Unread:
        if shown not in self._modules:
            self._modules[shown] = found = self._read(shown)
            self._lines += 0 if isinstance(found, Unread) else found.source.lines
        return self._modules[shown]

    def forget(self) -> bool:
        """Between two files: drop all that was read, if it is much. Whether it was."""
        if self._lines < self._most:
            return False
        self._modules.clear()
        self._lines = 0
        return True

    def _read(self, shown: str) -> Module | Unread:
        data = self.files[shown].contents()
        return data if isinstance(data, Unread) else understand(from_bytes(data, shown, module_name(shown)))


def understand(source: Source | Unread) -> Module | Unread:
    """The scopes and names of a file."""
    if isinstance(source, Unread):
        return source
    try:
        return Module(source)
    except RecursionError:
        return Unread(source.path, 1, "it is nested too deep")


def name_table(paths: Iterable[str]) -> dict[str, str | None]:
    """By each name that a file may be imported as, its path; None where there are several.

    A file may be imported from its folder as well as from the root.
    """
    table: dict[str, str | None] = {}
    for shown in paths:
        parts = module_name(shown).split(".")
        for start in range(len(parts)):
            name = ".".join(parts[start:])
            table[name] = None if name in table else shown
    return table


def module_name(shown: str) -> str:
    """How others import the file at *shown*."""
    parts = shown.removesuffix(".py").replace("\\", "/").split("/")
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(part for part in parts if part not in ("", ".", "src"))
