"""The audit of some files: read, understand, follow, judge."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import places
from .finding import Finding
from .flow import Followed, follow
from .names import Module, Scope
from .project import Project
from .rules import Facts, blocking, creation, holding, leaks, pools, session_state, timeouts, transactions
from .source import Source, Unread, read

_FAMILIES = (leaks, creation, pools, timeouts, holding, blocking, transactions, session_state)

# A file in which no such word occurs has nothing that any rule speaks of.
_OF_INTEREST = re.compile(
    rb"psycopg|asyncpg|aiopg|mysql|mariadb|sqlite|oracle|pyodbc|pg8000|pymssql|sqlalchemy|sqlmodel|dbutils|duckdb|snowflake"
    rb"|redis|requests|httpx|aiohttp|urllib|penstock|CONN_MAX_AGE|preload_app|getconn|get_db|connect\(",
    re.IGNORECASE,
)


@dataclass(slots=True)
class Audit:
    """What was found, in the order of the files; what could not be read; how much was."""

    findings: list[Finding] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)
    files: int = 0


def audit(sources: Iterable[Source | Unread], pooling: str | None = None) -> Audit:
    """Judge *sources* as one program."""
    result = Audit()
    modules: list[Module] = []
    for source in sources:
        result.files += 1
        if isinstance(source, Unread):
            result.unread.append(source)
            continue
        try:
            modules.append(Module(source))
        except RecursionError:
            result.unread.append(Unread(source.path, 1, "it is nested too deep"))
    project = Project(modules)
    for module in modules:
        try:
            result.findings += sorted(_judge(module, project, pooling))
        except RecursionError:
            result.unread.append(Unread(module.source.path, 1, "it is nested too deep"))
    return result


def _judge(module: Module, project: Project, pooling: str | None) -> Iterator[Finding]:
    functions: dict[ast.AST, tuple[Scope, Followed]] = {
        scope.node: (scope, follow(scope, project)) for scope in module.functions()
    }
    starts = places.handlers(module, project)
    facts = Facts(module, project, functions, places.reached(module, project, starts), pooling)
    for family in _FAMILIES:
        yield from family.check(facts)


def sources(root: Path, paths: Iterable[Path]) -> Iterator[Source | Unread]:
    """The files at *paths* that may be of interest."""
    for path in paths:
        shown = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
        yield read(path, shown, module_name(shown))


def module_name(shown: str) -> str:
    """How others import the file at *shown*."""
    parts = shown.removesuffix(".py").replace("\\", "/").split("/")
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(part for part in parts if part not in ("", ".", "src"))
