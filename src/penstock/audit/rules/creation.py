"""PEN2: connections and pools that are made again and again, where one would do."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .. import places
from ..calls import WORDS, last_name
from ..catalog import Role, Thing
from ..finding import Confidence, Kind, Rule, Severity
from ..names import FunctionNode, Scope
from . import Facts, Findings

IN_LOOP = Rule("PEN201", Kind.CONNECT_IN_LOOP, Severity.MEDIUM, "a connection is opened in a loop")
PER_REQUEST = Rule("PEN202", Kind.CONNECT_PER_REQUEST, Severity.MEDIUM, "a connection is opened for each request")
ENGINE = Rule("PEN203", Kind.ENGINE_IN_FUNCTION, Severity.HIGH, "an engine or a pool is made for each call")
CLIENT = Rule("PEN204", Kind.ENGINE_IN_FUNCTION, Severity.LOW, "an HTTP or Redis client is made for each request")
RULES = (IN_LOOP, PER_REQUEST, ENGINE, CLIENT)

_ROUND = ("sessionmaker", "async_sessionmaker", "scoped_session", "async_scoped_session", "partial", "cast")
_SESSIONS = ("Session", "AsyncSession")  # what is made of an engine, and ends before it
_KEEPING = WORDS["keeping"] | {"configure", "init_app", "bind", "instrument", "setup", "set_engine", "set_bind"}
# Functions in which a program begins, or that run once.
_BEGINNINGS = frozenset(
    {
        *("main", "_main", "amain", "cli", "create_app", "lifespan", "startup", "setup", "init_db"),
        *("create_tables", "drop_tables", "upgrade", "downgrade", "run_migrations", "do_run_migrations"),
        *("run_migrations_online", "run_async_migrations"),
    }
)  # fmt: skip
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
        elif (
            handler is not None
            and thing.library not in _FILES
            and _is_direct(facts, scope, call)
            and not _is_remembered(scope, call)
        ):
            yield facts.finding(PER_REQUEST, call, _per_request(thing, handler, scope))
    elif thing.role in (Role.ENGINE, Role.POOL) and _is_direct(facts, scope, call) and not _is_kept(scope, call):
        if handler is not None:
            yield facts.finding(
                ENGINE, call, f"{_a(thing)} is made whenever {_name(handler)}() runs, and its connections with it:"
                " make one when the process starts",
            )  # fmt: skip
        elif _is_used_up(facts, scope, call):
            yield facts.finding(
                ENGINE, call, f"{_a(thing)} is made whenever {_name(scope.node)}() is called, used, and dropped with"
                " its connections: make one for the process",
                Confidence.MEDIUM,
                severity=Severity.MEDIUM,
            )  # fmt: skip
    elif (
        thing.role is Role.CLIENT
        and handler is not None
        and _is_direct(facts, scope, call)
        and not _is_kept(scope, call)
    ):
        yield facts.finding(
            CLIENT, call, f"a {thing.library} client, with a pool of its own, is made whenever {_name(handler)}() runs:"
            " make one when the process starts",
            severity=Severity.LOW,
        )  # fmt: skip


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
    names = _names_of(scope, call)
    if names & scope.elsewhere or _is_captured(scope, names):
        return True
    return any(_keeps(one, names, call) for one in scope.own)


def _is_remembered(scope: Scope, call: ast.Call) -> bool:
    """Whether the next request finds it where this one has put it: in a global, or on an object."""
    names = _names_of(scope, call)
    if names & scope.elsewhere:
        return True
    return any(
        isinstance(one, ast.Assign)
        and _lives_in(one.value, names, call)
        and any(isinstance(target, (ast.Attribute, ast.Subscript)) for target in one.targets)
        for one in scope.own
    )


def _names_of(scope: Scope, call: ast.Call) -> set[str]:
    """The names that stand for it, or for what was made round it: `maker = sessionmaker(engine)`."""
    names: set[str] = set()
    for _ in range(3):
        before = len(names)
        for one in scope.own:
            if isinstance(one, (ast.Assign, ast.AnnAssign, ast.NamedExpr)) and _lives_in(one.value, names, call):
                targets = one.targets if isinstance(one, ast.Assign) else [one.target]
                names.update(target.id for target in targets if isinstance(target, ast.Name))
        if len(names) == before:
            break
    return names


def _lives_in(value: ast.expr | None, names: set[str], call: ast.Call) -> bool:
    """Whether *value* is it, or has it in it: not what was only asked of it."""
    match value:
        case ast.Name(id=name):
            return name in names
        case ast.Await(value=inner) | ast.NamedExpr(value=inner):
            return _lives_in(inner, names, call)
        case ast.Call(args=arguments, keywords=words):
            if value is call:
                return True
            word = last_name(value.func)
            if (not word[:1].isupper() and word not in _ROUND) or word in _SESSIONS:
                return False
            return any(_lives_in(one, names, call) for one in [*arguments, *(word.value for word in words)])
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.BoolOp(values=parts) | ast.Dict(values=parts):
            return any(_lives_in(one, names, call) for one in parts)
        case ast.IfExp(body=body, orelse=orelse):
            return _lives_in(body, names, call) or _lives_in(orelse, names, call)
    return False


def _keeps(node: ast.AST, names: set[str], call: ast.Call) -> bool:
    match node:
        case ast.Return(value=value) | ast.Yield(value=value):
            return _lives_in(value, names, call)
        case ast.Assign(targets=targets, value=value):
            kept = any(isinstance(target, (ast.Attribute, ast.Subscript)) for target in targets)
            return kept and (_lives_in(value, names, call) or _has_name(value, names))
        case ast.Call(args=arguments, keywords=words) if last_name(node.func) in _KEEPING:
            return any(_lives_in(one, names, call) for one in [*arguments, *(word.value for word in words)])
    return False


def _has_name(value: ast.expr, names: set[str]) -> bool:
    return any(isinstance(one, ast.Name) and one.id in names for one in ast.walk(value))


def _is_captured(scope: Scope, names: set[str]) -> bool:
    return any(
        isinstance(node, ast.Name) and node.id in names for inner in scope.inside for node in ast.walk(inner.node)
    )


def _is_used_up(facts: Facts, scope: Scope, call: ast.Call) -> bool:
    """Whether the function itself works with it, and is no place where a program begins."""
    node = scope.node
    assert isinstance(node, FunctionNode)
    if node.name in _BEGINNINGS or _is_ended(scope, _names_of(scope, call)):
        return False
    if not _is_script(scope) and not is_test(scope):
        return True
    return _is_called_often(facts, scope)


def _is_ended(scope: Scope, names: set[str]) -> bool:
    """Whether it is disposed of, or closed, where it was made."""
    return any(
        isinstance(one.func, ast.Attribute)
        and one.func.attr in ("dispose", "close", "closeall", "wait_closed", "aclose")
        and last_name(one.func.value) in names
        for one in scope.calls
    )


def _is_called_often(facts: Facts, scope: Scope) -> bool:
    """Whether its file calls it from several places, or in a loop."""
    assert isinstance(scope.node, FunctionNode)
    places_ = 0
    for other in facts.module.scopes.values():
        for call in other.calls:
            if last_name(call.func) == scope.node.name and facts.project.definition(call.func, other) is scope:
                places_ += 2 if isinstance(other.node, FunctionNode) and call in places.loops(other) else 1
    return places_ > 1


def _is_script(scope: Scope) -> bool:
    """Whether the file is a program: what it makes ends with it soon."""
    if places.imports(scope.module, "airflow", "alembic"):
        return True
    for node in scope.module.source.tree.body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Compare) and last_name(node.test.left) == "__name__":
            return True
    return False


def is_test(scope: Scope) -> bool:
    """Whether it is run by a test, or to prepare one."""
    parts = scope.module.source.path.replace("\\", "/").split("/")
    return any(part in ("tests", "test", "conftest.py") or part.startswith("test_") for part in parts)


def _has(value: ast.expr, call: ast.Call) -> bool:
    return any(one is call for one in ast.walk(value))


def _a(thing: Thing) -> str:
    return f"a {thing.library} {thing.role.value}" if thing.role is not Role.ENGINE else "a SQLAlchemy engine"


def _name(node: ast.AST) -> str:
    assert isinstance(node, FunctionNode)
    return node.name


def _line(node: ast.AST) -> int:
    return getattr(node, "lineno", 0)
