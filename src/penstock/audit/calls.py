"""What the name of a call tells of it, where nothing else does."""

from __future__ import annotations

import ast
import tomllib
from importlib.resources import files

WORDS: dict[str, frozenset[str]] = {
    name: frozenset(words)
    for name, words in tomllib.loads(files(__package__).joinpath("words.toml").read_text(encoding="utf-8")).items()
}


def last_name(expr: ast.AST | None) -> str:
    """The last part of a dotted name; empty if it is none."""
    if isinstance(expr, ast.Attribute):
        return expr.attr
    return expr.id if isinstance(expr, ast.Name) else ""


def cannot_raise(call: ast.Call) -> bool:
    """Whether nobody who reads it expects an exception there."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr in WORDS["safe_methods"]
    return isinstance(call.func, ast.Name) and call.func.id in WORDS["safe_functions"]
