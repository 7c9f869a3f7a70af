"""What is wrong: one file a family, each with its RULES and ``check(facts)``, which yields findings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..deployment import Deployment
from ..finding import Confidence, Finding, Rule, Severity
from ..flow import Followed
from ..names import Module, Scope
from ..project import Project


@dataclass(slots=True)
class Facts:
    """All that is known of a file.

    :ivar functions: each with what flows through it. :ivar per_request: functions that run for each request, by the
        handler that they were reached from. :ivar pooling: of the pooler in front, or None.
        :ivar deployment: how the program is run, by other files.
    """

    module: Module
    project: Project
    functions: dict[ast.AST, tuple[Scope, Followed]]
    per_request: dict[ast.AST, ast.AST]
    pooling: str | None = None
    deployment: Deployment = field(default_factory=Deployment)

    def is_awaited(self, call: ast.Call, scope: Scope) -> bool:
        return any(isinstance(node, ast.Await) and node.value is call for node in scope.own)

    def finding(
        self,
        rule: Rule,
        node: ast.AST,
        message: str,
        confidence: Confidence = Confidence.HIGH,
        *,
        severity: Severity | None = None,
        fixable: bool = False,
    ) -> Finding:
        line: int = getattr(node, "lineno", 1)
        end_line: int = getattr(node, "end_lineno", None) or line
        return Finding(
            path=self.module.source.path,
            line=line,
            column=self._column(line, getattr(node, "col_offset", 0)),
            code=rule.code,
            message=message,
            end_line=end_line,
            kind=rule.kind,
            severity=severity or rule.severity,
            confidence=confidence,
            fixable=fixable,
            end_column=self._column(end_line, getattr(node, "end_col_offset", None) or 0),
        )

    def _column(self, line: int, offset: int) -> int:
        """Python counts the bytes of a line, an editor its characters."""
        text = self.module.source.line(line)
        return (offset if text.isascii() else len(text.encode()[:offset].decode(errors="replace"))) + 1


Findings = Iterator[Finding]
