"""Which file declares the budget: the one that PENSTOCK_TOML names, or the nearest one from here upwards."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from ..errors import BudgetError, Problem

VARIABLE = "PENSTOCK_TOML"
NAME = "penstock.toml"
SHARED = "pyproject.toml"  # where the tables stand under [tool.penstock]
OTHERS = frozenset({"audit"})  # which stand there too, and are not the budget's


def find(environ: Mapping[str, str], start: Path) -> Path | None:
    """The budget file for a program with these variables that was started in *start*; None when there is none.

    :raises BudgetError: when two files in one directory declare one, or a pyproject.toml on the way cannot be read.
    """
    if named := environ.get(VARIABLE):
        return start / named
    for directory in (start, *start.parents):
        own, shared = directory / NAME, directory / SHARED
        declared_there = shared.exists() and _declares(shared)
        if own.exists() and declared_there:
            what = f"declares a budget under [tool.penstock], and so does {own}: keep one of them"
            raise BudgetError(Problem(str(shared), 0, "", what))
        if own.exists():
            return own
        if declared_there:
            return shared
    return None


def text_of(path: Path, shown: str) -> str:
    """What *path* has. It is called *shown* in errors.

    :raises BudgetError: when it cannot be read, or is not UTF-8.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BudgetError(Problem(shown, 0, "", f"cannot be read: {error.strerror}")) from None
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        what = f"not UTF-8, which TOML must be: byte 0x{raw[error.start]:02x}"
        raise BudgetError(Problem(shown, line, "", what)) from None


def _declares(path: Path) -> bool:
    """Whether this pyproject.toml has more under [tool.penstock] than other tables of ours.

    One that has the word and is broken may: `read` says how.
    """
    text = text_of(path, str(path))
    if "penstock" not in text:
        return False
    try:
        tool = tomllib.loads(text).get("tool")
    except (ValueError, RecursionError):
        return True
    if not isinstance(tool, dict) or "penstock" not in tool:
        return False
    ours = tool["penstock"]
    return not isinstance(ours, dict) or not ours or not OTHERS.issuperset(ours)
