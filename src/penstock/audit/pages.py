"""The page of each rule: what is wrong, why it hurts, a bad and a good example. `penstock audit explain` prints it."""

from __future__ import annotations

from importlib.resources import files


def page(code: str) -> str | None:
    """The page of the rule *code*, in Markdown; None if it has none."""
    path = files(__package__).joinpath("pages", f"{code}.md")
    return path.read_text(encoding="utf-8") if path.is_file() else None
