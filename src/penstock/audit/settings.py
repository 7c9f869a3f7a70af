"""What `[tool.penstock.audit]` in pyproject.toml says, checked."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..budget.lines import key_lines
from ..errors import AuditError, Problem
from .audit import RULES
from .files import matcher
from .finding import Finding

NAME = "pyproject.toml"
TABLE = ("tool", "penstock", "audit")
POOLING = ("transaction", "session", "statement")


@dataclass(frozen=True, slots=True)
class Settings:
    """*root*: the directory that patterns and the baseline's path are seen from.

    *select* and *ignore* are codes, or the beginning of some: PEN1 is a family. Nothing selected is everything.
    """

    root: Path
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    per_path_ignore: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    pooling: str | None = None
    hints: bool = False
    baseline: str | None = None

    def chosen(self) -> list[str]:
        """The codes of all rules that are asked for."""
        return [code for code in RULES if _is_of(code, self.select or ("PEN",)) and not _is_of(code, self.ignore)]

    def choose(self, findings: Iterable[Finding], path: str) -> list[Finding]:
        """Those that are asked for in the file at *path*, as seen from the root."""
        left_out = [
            code for pattern, codes in self.per_path_ignore.items() if matcher([pattern])(path) for code in codes
        ]
        codes = {code for code in self.chosen() if not _is_of(code, left_out)}
        return [finding for finding in findings if finding.code in codes]


def _is_of(code: str, families: Iterable[str]) -> bool:
    return code.startswith(tuple(families))


def find(start: Path) -> Path | None:
    """The pyproject.toml, from *start* upwards, that has settings of the audit; none of another repository's."""
    for directory in (start, *start.parents):
        path = directory / NAME
        if path.is_file() and _has_settings(path):
            return path
        if (directory / ".git").exists():
            return None
    return None


def _has_settings(path: Path) -> bool:
    """Whether it has our table, however that is written. One that has the words and is broken may: `load` says how."""
    text = _text(path)
    if "penstock" not in text or "audit" not in text:
        return False
    try:
        table: Any = tomllib.loads(text)
        for name in TABLE:
            table = table[name]
    except KeyError:
        return False
    except (ValueError, TypeError, RecursionError):
        return "penstock.audit" in text
    return True


def load(path: Path) -> Settings:
    """The settings in *path*.

    :raises AuditError: when it cannot be read, or says something that means nothing; every such thing at once.
    """
    text = _text(path)
    try:
        table: Any = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise AuditError(Problem(str(path), 0, "", f"is no valid TOML: {error}")) from None
    problems: list[Problem] = []
    for name in TABLE:
        table = table.get(name, {})
        if not isinstance(table, dict):
            raise AuditError(Problem(str(path), 0, ".".join(TABLE), "is a table, as in [tool.penstock.audit]"))
    lines = key_lines(text)

    def wrong(key: tuple[str, ...], what: str) -> None:
        problems.append(Problem(str(path), lines.get((*TABLE, *key), 0), ".".join((*TABLE, *key)), what))

    settings = _read(table, Settings(path.parent.absolute()), wrong)
    if problems:
        raise AuditError(*sorted(problems))
    return settings


def _read(table: Mapping[str, Any], settings: Settings, wrong: Any) -> Settings:
    for key, value in table.items():
        match key:
            case "select":
                settings = replace(settings, select=_codes(value, (key,), wrong))
            case "ignore":
                settings = replace(settings, ignore=_codes(value, (key,), wrong))
            case "exclude":
                if _is_texts(value):
                    settings = replace(settings, exclude=tuple(value))
                else:
                    wrong((key,), 'is a list of patterns, such as ["migrations/**"]')
            case "per-path-ignore":
                if isinstance(value, dict):
                    chosen = {path: _codes(codes, (key, path), wrong) for path, codes in value.items()}
                    settings = replace(settings, per_path_ignore=chosen)
                else:
                    wrong((key,), 'is a table of patterns and codes, such as {"tests/**" = ["PEN1"]}')
            case "pooling":
                if value in POOLING:
                    settings = replace(settings, pooling=value)
                else:
                    wrong((key,), f"is one of {', '.join(POOLING)}, not {value!r}")
            case "hints":
                if isinstance(value, bool):
                    settings = replace(settings, hints=value)
                else:
                    wrong((key,), f"is true or false, not {value!r}")
            case "baseline":
                if isinstance(value, str):
                    settings = replace(settings, baseline=value)
                else:
                    wrong((key,), f"is the path of a file, not {value!r}")
            case _:
                known = "select, ignore, per-path-ignore, exclude, pooling, hints and baseline"
                wrong((key,), f"is no setting of the audit: there are {known}")
    return settings


def _codes(value: Any, key: tuple[str, ...], wrong: Any) -> tuple[str, ...]:
    if not _is_texts(value):
        wrong(key, 'is a list of codes or families, such as ["PEN1", "PEN402"]')
        return ()
    try:
        return codes(value)
    except ValueError as error:
        wrong(key, str(error))
        return ()


def codes(given: Iterable[str]) -> tuple[str, ...]:
    """Codes and families, as they were written, in one form.

    :raises ValueError: when one of them is of no rule.
    """
    found = tuple(word.upper() for words in given for word in words.replace(",", " ").split())
    for code in found:
        if not any(known.startswith(code) for known in RULES):
            raise ValueError(f"{code} is no rule and no family of rules: there are {', '.join(sorted(RULES))}")
    return found


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise AuditError(Problem(str(path), 0, "", f"cannot be read: {error.strerror}")) from None
    except UnicodeDecodeError:
        raise AuditError(Problem(str(path), 0, "", "is not UTF-8, which TOML must be")) from None
