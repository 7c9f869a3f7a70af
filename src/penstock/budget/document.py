"""A budget file as it stands: its tables, the line of every key, and what is found wrong with it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator

from ..errors import BudgetError, Problem
from .find import OTHERS
from .lines import key_lines
from .schema import TOP, Kind, Tree, long_name, nearest, plain, shown

Key = tuple[str, ...]

_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class Document:
    """The budget in *text*, under the table *prefix*.

    :raises BudgetError: when the text is no TOML, or has no such table.
    """

    def __init__(self, text: str, path: str, prefix: Key) -> None:
        self.path = path
        self.problems: dict[Problem, None] = {}  # an ordered set: what is wrong in the base is so in each environment
        self._prefix = prefix
        self._lines: dict[Key, int] = {}
        self.tree: Tree = {}
        try:
            whole = tomllib.loads(text)
            self._lines = key_lines(text)
        except (ValueError, RecursionError) as error:
            self.problems[_no_toml(path, text, error)] = None
        else:
            self.tree = self._under_prefix(whole)
        self.give_up_if_wrong()

    def line(self, key: Key) -> int:
        """Where *key* stands, or the nearest table around it that does; 0 for no line at all."""
        key = self._prefix + key
        while key and key not in self._lines:
            key = key[:-1]
        return self._lines.get(key, 0)

    def wrong(self, key: Key, what: str, line_of: Key | None = None) -> None:
        """Note that there is something wrong with *key*; it is to be mended at *line_of* when that is elsewhere."""
        line = self.line(key if line_of is None else line_of)
        self.problems[Problem(self.path, line, ".".join(map(_quoted, self._prefix + key if key else ())), what)] = None

    def give_up_if_wrong(self) -> None:
        """Raise what was noted so far."""
        if self.problems:
            raise BudgetError(*sorted(self.problems, key=lambda problem: problem.line))

    # ------------------------------------------------------------------------------------------ each value by itself

    def check(self) -> None:
        """Note every key that is unknown or missing, and every value that it may not have."""
        self._unknown((), self.tree, [*TOP, "environments"])
        for plural, kind in TOP.items():
            self._check_all((plural,), self.tree.get(plural, {}), kind)
        environments = self.tree.get("environments", {})
        if not isinstance(environments, dict):
            self.wrong(("environments",), f"must be tables such as [environments.staging], not {shown(environments)}")
            return
        for name, overlay in environments.items():
            at = ("environments", name)
            if wrong := long_name(name):
                self.wrong(at, wrong)
            elif not isinstance(overlay, dict):
                self.wrong(at, f"must be a table, not {shown(overlay)}")
            else:
                self._unknown(at, overlay, TOP)
                for plural, kind in TOP.items():
                    self._check_overlay((*at, plural), overlay.get(plural, {}), kind, self.tree.get(plural))

    def _check_all(self, at: Key, tables: object, kind: Kind) -> None:
        """*tables* are all of one kind, by name."""
        for name, table in self._named(at, tables, kind):
            here = (*at, name)
            if wrong := kind.name(name):
                self.wrong(here, wrong)
            self._check_values(here, table, kind)
            for missing in [key for key, each in kind.keys.items() if each.required and key not in table]:
                self.wrong((*here, missing), f"is missing: a {kind.noun} must have it")
            for plural, inner in kind.tables.items():
                self._check_all((*here, plural), table.get(plural, {}), inner)

    def _check_overlay(self, at: Key, tables: object, kind: Kind, base: object) -> None:
        """*tables* change those of *base*, and bring no new ones."""
        known = base if isinstance(base, dict) else {}
        for name, table in self._named(at, tables, kind):
            here = (*at, name)
            if name not in known:
                self.wrong(here, f"changes a {kind.noun} that there is not: {nearest(name, known)}")
                continue
            self._check_values(here, table, kind)
            for plural, inner in kind.tables.items():
                beneath = known[name].get(plural) if isinstance(known[name], dict) else None
                self._check_overlay((*here, plural), table.get(plural, {}), inner, beneath)

    def _check_values(self, at: Key, table: Tree, kind: Kind) -> None:
        self._unknown(at, table, [*kind.keys, *kind.tables])
        for key, each in kind.keys.items():
            if key in table and (wrong := each.check(table[key])):
                self.wrong((*at, key), wrong)

    def _named(self, at: Key, tables: object, kind: Kind) -> Iterator[tuple[str, Tree]]:
        if not isinstance(tables, dict):
            self.wrong(at, f"must be tables such as [{'.'.join(self._prefix + at)}.<name>], not {shown(tables)}")
            return
        for name, table in tables.items():
            if isinstance(table, dict):
                yield name, table
            else:
                form = f"[{'.'.join(self._prefix + at)}.<name>]"
                self.wrong((*at, name), f"must be a table, not {shown(table)}: a {kind.noun} is written {form}")

    def _unknown(self, at: Key, table: Tree, known: Iterable[str]) -> None:
        known = list(known)
        for key in table:
            if key not in known:
                self.wrong((*at, key), f"unknown key: {nearest(key, known)}")

    def _under_prefix(self, tree: Tree) -> Tree:
        for part in self._prefix:
            found = tree.get(part)
            if not isinstance(found, dict):
                name = ".".join(self._prefix)
                what = f"there is no [{name}]" if found is None else f"must be a table, not {shown(found)}"
                self.wrong((), what)
                return {}
            tree = found
        return {name: table for name, table in tree.items() if not self._prefix or name not in OTHERS}


def _no_toml(path: str, text: str, error: Exception) -> Problem:
    """What `tomllib` says, with its place as ours; what it says is about the form and quotes no value."""
    said = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "a number or a nesting too large to read"
    place = _PLACE.search(said)
    line = 0
    if place:
        line = int(place[1]) if place[1] else text.rstrip().count("\n") + 1
        said = said[: place.start()]
    if said.startswith(("Cannot overwrite", "Cannot declare", "Duplicate", "Cannot mutate", "Cannot redefine")):
        said = f"a key or table stands here for the second time ({said})"
    return Problem(path, line, "", f"not valid TOML: {said}")


def _quoted(part: str) -> str:
    """A key's part as TOML has it."""
    return part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else f'"{plain(part)}"'
