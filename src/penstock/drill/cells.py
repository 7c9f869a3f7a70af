"""Cells that every table of the report has."""

from html import escape
from typing import Any

LOST_BY_KIND = "lost, by kind"


def held_of_line(arm: dict[str, Any]) -> str:
    """Return the most connections that an arm held, against the line."""
    return grade(f"{arm['connections_at_most']} / {arm['line']}", good=not arm["crossed"])


def lost_by_kind(arm: dict[str, Any]) -> str:
    """Return an arm's lost requests."""
    lost = ", ".join(f"{number:,} {escape(kind)}" for kind, number in arm["errors"].items())
    return grade(lost or "none", good=not lost)


def grade(cell: str, *, good: bool) -> str:
    """Return `cell` in the colour of good or bad."""
    return f'<span class="{"good" if good else "bad"}">{cell}</span>'
