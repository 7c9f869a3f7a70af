"""Where a function stands in a program: whether it runs for each web request, each message, or once."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .calls import WORDS, last_name
from .names import FunctionNode, Module, Scope
from .project import Project

_VIEWS = ("View", "Resource", "RequestHandler", "ViewSet", "HTTPEndpoint", "MethodView", "APIView", "Handler", "Mixin")
_LAMBDA = ("lambda_handler", "handler", "main")


def handlers(module: Module, project: Project) -> set[ast.AST]:
    """Its functions that run once for each request, message or invocation."""
    named = _registered(module)
    return {scope.node for scope in module.functions() if _is_handler(scope, named, project)}


def _is_handler(scope: Scope, named: set[str], project: Project) -> bool:
    node = scope.node
    assert isinstance(node, FunctionNode)
    if node.name in named:
        return True
    for decorator in node.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        if (
            isinstance(called, ast.Attribute)
            and called.attr in WORDS["routes"]
            and called.attr not in ("setter", "getter")
        ):
            return not (called.attr == "command" and _is_command_line(called, scope, project))
        if isinstance(called, ast.Name) and called.id in ("api_view", "require_GET", "require_POST", "csrf_exempt"):
            return True
    arguments = [one.arg for one in node.args.args]
    if arguments[:2] == ["environ", "start_response"]:
        return True
    if node.name in _LAMBDA and arguments[:2] in (["event", "context"], ["event", "_context"], ["event", "_"]):
        return True
    parent = scope.parent
    if parent is not None and isinstance(parent.node, ast.ClassDef):
        return _is_of_view(node.name, parent.node)
    return arguments[:1] == ["request"] and scope.module.imports("django", "rest_framework", "pyramid", "aiohttp")


def _is_of_view(name: str, class_: ast.ClassDef) -> bool:
    if name in WORDS["do_verbs"]:
        return True
    bases = [last_name(base) for base in class_.bases]
    return name in WORDS["verbs"] and any(base.endswith(_VIEWS) for base in bases)


def _is_command_line(called: ast.Attribute, scope: Scope, project: Project) -> bool:
    return scope.module.imports("click", "typer", "django.core.management") or last_name(called.value) in (
        "cli",
        "click",
    )


def _registered(module: Module) -> set[str]:
    """Names of functions that are handed to something that calls them for each request."""
    found: set[str] = set()
    for scope in module.scopes.values():
        for call in scope.calls:
            if last_name(call.func) in WORDS["registering"]:
                given = [*call.args, *(word.value for word in call.keywords)]
                found.update(one.id for one in given if isinstance(one, ast.Name))
        for node in scope.own:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and _is_callback(node.targets):
                found.add(node.value.id)  # client.on_message = on_message
    return found


def _is_callback(targets: list[ast.expr]) -> bool:
    return any(isinstance(one, ast.Attribute) and one.attr.startswith("on_") for one in targets)


def reached(module: Module, project: Project, starts: set[ast.AST], steps: int = 2) -> dict[ast.AST, ast.AST]:
    """Functions that run whenever one of *starts* does, by who they were reached from; *starts* among them."""
    found: dict[ast.AST, ast.AST] = {one: one for one in starts}
    edge = list(starts)
    for _ in range(steps):
        coming: list[ast.AST] = []
        for node in edge:
            for called in _called(module.scopes[node], project):
                if called.node not in found and called.module is module:
                    found[called.node] = found[node]
                    coming.append(called.node)
        edge = coming
    return found


def _called(scope: Scope, project: Project) -> Iterator[Scope]:
    for node in scope.own:
        if isinstance(node, ast.Call):
            called = project.definition(node.func, scope)
            if called is not None and isinstance(called.node, FunctionNode):
                yield called


def loops(function: Scope) -> dict[ast.AST, ast.AST]:
    """Of each node that is within a loop of *function*: the innermost."""
    found: dict[ast.AST, ast.AST] = {}

    def visit(node: ast.AST, loop: ast.AST | None) -> None:
        waiting: list[tuple[ast.AST, ast.AST | None]] = [(node, loop)]
        while waiting:
            one, inside = waiting.pop()
            if inside is not None:
                found[one] = inside
            if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)) and one is not node:
                continue
            for name, value in ast.iter_fields(one):
                children = value if isinstance(value, list) else [value]
                repeated = isinstance(one, (ast.For, ast.AsyncFor, ast.While)) and name in ("body", "test")
                within = (
                    isinstance(one, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp))
                    and name != "generators"
                )
                around = one if repeated or within else inside
                waiting.extend((child, around) for child in children if isinstance(child, ast.AST))

    visit(function.node, None)
    return found
