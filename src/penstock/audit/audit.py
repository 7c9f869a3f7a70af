"""The audit of some files: read, understand, follow, judge."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import deployment, places
from .deployment import Deployment
from .finding import Finding, Rule
from .flow import Followed, follow
from .names import Module, Scope
from .program import module_name, name_table, understand
from .project import Project
from .rules import (
    Facts,
    blocking,
    creation,
    deployed,
    holding,
    leaks,
    lost,
    pools,
    session_state,
    timeouts,
    transactions,
)
from .source import Source, Unread, read

_FAMILIES = (leaks, creation, pools, timeouts, holding, blocking, transactions, lost, session_state, deployed)

RULES: dict[str, Rule] = {rule.code: rule for family in _FAMILIES for rule in family.RULES}


@dataclass(slots=True)
class Audit:
    """What was found, in the order of the files; what could not be read; how much was."""

    findings: list[Finding] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)
    files: int = 0


def audit(sources: Iterable[Source | Unread], pooling: str | None = None) -> Audit:
    """Judge *sources*, all in memory, as one program. `run` is for more of them."""
    result = Audit()
    modules: list[Module] = []
    for source in sources:
        result.files += 1
        found = understand(source)
        (result.unread if isinstance(found, Unread) else modules).append(found)  # type: ignore[arg-type]
    table = name_table(module.source.path for module in modules)
    by_path = {module.source.path: module for module in modules}
    project = Project(lambda name: by_path.get(table.get(name) or ""))
    told = deployment.together((one.source.path, deployment.told(one.source.text.encode())) for one in modules)
    for module in modules:
        judged = judge(module, project, pooling, told)
        if isinstance(judged, Unread):
            result.unread.append(judged)
        else:
            result.findings += judged
    return result


def judge(module: Module, project: Project, pooling: str | None, told: Deployment) -> list[Finding] | Unread:
    """What is wrong in one file."""
    try:
        return sorted(_judge(module, project, pooling, told))
    except RecursionError:
        return Unread(module.source.path, 1, "it is nested too deep")


def _judge(module: Module, project: Project, pooling: str | None, told: Deployment) -> Iterator[Finding]:
    functions: dict[ast.AST, tuple[Scope, Followed]] = {
        scope.node: (scope, follow(scope, project)) for scope in module.functions()
    }
    starts = places.handlers(module, project)
    facts = Facts(module, project, functions, places.reached(module, project, starts), pooling, told)
    for family in _FAMILIES:
        yield from family.check(facts)


def sources(root: Path, paths: Iterable[Path]) -> Iterator[Source | Unread]:
    """The files at *paths*."""
    for path in paths:
        shown = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
        yield read(path, shown, module_name(shown))
