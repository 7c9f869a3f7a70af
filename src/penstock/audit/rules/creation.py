"""PEN2: connections and pools that are made again and again, where one would do."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .. import places, remedies
from ..calls import last_name
from ..catalog import Role, Thing
from ..finding import Confidence, Kind, Rule, Severity
from ..names import FunctionNode, Scope
from . import Facts, Findings

IN_LOOP = Rule("PEN201", Kind.CONNECT_IN_LOOP, Severity.MEDIUM, "a connection is opened in a loop")
PER_REQUEST = Rule("PEN202", Kind.CONNECT_PER_REQUEST, Severity.MEDIUM, "a connection is opened for each request")
ENGINE = Rule("PEN203", Kind.ENGINE_IN_FUNCTION, Severity.HIGH, "an engine or a pool is made for each call")
CLIENT = Rule("PEN204", Kind.ENGINE_IN_FUNCTION, Severity.LOW, "an HTTP or Redis client is made for each request")
RULES = (IN_LOOP, PER_REQUEST, ENGINE, CLIENT)

_FILES = ("sqlite3", "aiosqlite", "duckdb")  # libraries whose connections are no server's


def check(facts: Facts) -> Findings:
    seen: set[ast.AST] = set()
    for scope, _ in facts.functions.values():
        around = None
        for call, thing in made(facts, scope):
            around = places.loops(scope) if around is None else around
            yield from _judge(facts, scope, call, thing, around, seen)


def made(facts: Facts, scope: Scope) -> Iterator[tuple[ast.Call, Thing]]:
    """The calls of a function that make something, or ask a function of the project that does."""
    for node in scope.own:
        if isinstance(node, ast.Call):
            thing = facts.project.fresh(node, scope)
            if thing is not None:
                yield node, thing


def _judge(
    facts: Facts, scope: Scope, call: ast.Call, thing: Thing, around: dict[ast.AST, ast.AST], seen: set[ast.AST]
) -> Findings:
    handler = facts.per_request.get(scope.node)
    if thing.role is Role.CONNECTION:
        loop = around.get(call)
        if loop is not None and thing.library not in _FILES and not _is_retry(loop, call, scope):
            yield facts.finding(
                IN_LOOP, call, f"a {thing.library} connection is opened on each turn of the loop in line {_line(loop)}:"
                " open one before it, or take them from a pool",
            )  # fmt: skip
        elif handler is not None and thing.library not in _FILES and _is_direct(facts, scope, call):
            yield facts.finding(PER_REQUEST, call, _per_request(thing, handler, scope))
    elif thing.role in (Role.ENGINE, Role.POOL) and _is_direct(facts, scope, call) and not _is_kept(scope, call):
        if handler is not None:
            found = facts.finding(
                ENGINE, call, f"{_a(thing)} is made whenever {_name(handler)}() runs, and its connections with it:"
                " make one when the process starts",
            )  # fmt: skip
            yield remedies.with_remedy(found, remedies.of_made_again(facts, scope, call, thing))
        elif _is_used_up(scope, call):
            found = facts.finding(
                ENGINE, call, f"{_a(thing)} is made whenever {_name(scope.node)}() is called, used, and dropped with"
                " its connections: make one for the process",
                Confidence.MEDIUM,
                severity=Severity.HINT if _is_script(scope) else Severity.MEDIUM,
            )  # fmt: skip
            yield remedies.with_remedy(found, remedies.of_made_again(facts, scope, call, thing))
    elif (
        thing.role is Role.CLIENT
        and handler is not None
        and _is_direct(facts, scope, call)
        and not _is_kept(scope, call)
    ):
        found = facts.finding(
            CLIENT, call, f"a {thing.library} client, with a pool of its own, is made whenever {_name(handler)}() runs:"
            " make one when the process starts",
            severity=Severity.LOW,
        )  # fmt: skip
        yield remedies.with_remedy(found, remedies.of_made_again(facts, scope, call, thing))


def _per_request(thing: Thing, handler: ast.AST, scope: Scope) -> str:
    whose = f"each request of {_name(handler)}()"
    through = "" if handler is scope.node else f", by way of {_name(scope.node)}()"
    return f"{whose} opens a {thing.library} connection of its own{through}: take it from a pool"


def _is_direct(facts: Facts, scope: Scope, call: ast.Call) -> bool:
    """Whether it is made here, and not by a function of the project, which is told of itself."""
    definition = facts.project.definition(call.func, scope)
    return definition is None or definition.module is not scope.module or definition.node not in facts.per_request


def _is_retry(loop: ast.AST, call: ast.Call, scope: Scope) -> bool:
    """Whether the loop is there to try again: it is left, one way or another, once there is a connection."""
    for node in ast.walk(loop):
        if isinstance(node, ast.Try) and any(one is call for body in node.body for one in ast.walk(body)):
            rest = [*node.body, *node.orelse]
            if any(isinstance(one, (ast.Return, ast.Break)) for body in rest for one in ast.walk(body)):
                return True
            if isinstance(loop, ast.While) and _is_waiting_for(loop.test, call, node):
                return True
    following = getattr(loop, "body", [])
    after = [one for one in following if getattr(one, "lineno", 0) >= call.lineno]
    return any(isinstance(one, (ast.Return, ast.Break)) for one in after)


def _is_waiting_for(test: ast.expr, call: ast.Call, within: ast.Try) -> bool:
    """`while conn is None:`, or a flag that is set once it has worked, or a count of tries."""
    names = {node.id for node in ast.walk(test) if isinstance(node, ast.Name)}
    stored = {
        one.id for body in [*within.body, *within.handlers] for one in ast.walk(body)
        if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)
    }  # fmt: skip
    return bool(names & stored)


def _is_kept(scope: Scope, call: ast.Call) -> bool:
    """Whether it outlives the function: returned, kept on an object or in a global, or remembered by a decorator."""
    node = scope.node
    assert isinstance(node, FunctionNode)
    if any("cache" in last_name(one.func if isinstance(one, ast.Call) else one) for one in node.decorator_list):
        return True
    names = set()
    for one in scope.own:
        if isinstance(one, (ast.Return, ast.Yield)) and one.value is not None and _has(one.value, call):
            return True
        if isinstance(one, (ast.Assign, ast.AnnAssign)) and one.value is not None and _has(one.value, call):
            targets = one.targets if isinstance(one, ast.Assign) else [one.target]
            for target in targets:
                if not isinstance(target, ast.Name) or target.id in scope.elsewhere:
                    return True
                names.add(target.id)
    return (bool(names) and any(_keeps(one, names) for one in scope.own)) or _is_captured(scope, names)


def _keeps(node: ast.AST, names: set[str]) -> bool:
    match node:
        case ast.Return(value=value) | ast.Yield(value=value) if value is not None:
            return any(isinstance(one, ast.Name) and one.id in names for one in ast.walk(value))
        case ast.Assign(targets=targets, value=value):
            kept = any(isinstance(target, (ast.Attribute, ast.Subscript)) for target in targets)
            return kept and any(isinstance(one, ast.Name) and one.id in names for one in ast.walk(value))
    return False


def _is_captured(scope: Scope, names: set[str]) -> bool:
    return any(
        isinstance(node, ast.Name) and node.id in names for inner in scope.inside for node in ast.walk(inner.node)
    )


def _is_used_up(scope: Scope, call: ast.Call) -> bool:
    """Whether the function itself works with it, and is no place where a program begins."""
    node = scope.node
    assert isinstance(node, FunctionNode)
    return node.name not in (
        "main",
        "create_app",
        "upgrade",
        "downgrade",
        "run_migrations_online",
        "lifespan",
        "startup",
    )


def _is_script(scope: Scope) -> bool:
    """Whether the file is a program: what it makes ends with it soon."""
    for node in scope.module.source.tree.body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Compare) and last_name(node.test.left) == "__name__":
            return True
    return False


def _has(value: ast.expr, call: ast.Call) -> bool:
    return any(one is call for one in ast.walk(value))


def _a(thing: Thing) -> str:
    return f"a {thing.library} {thing.role.value}" if thing.role is not Role.ENGINE else "a SQLAlchemy engine"


def _name(node: ast.AST) -> str:
    assert isinstance(node, FunctionNode)
    return node.name


def _line(node: ast.AST) -> int:
    return getattr(node, "lineno", 0)
