"""PEN2: connections and pools that are made again and again, where one would do."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .. import places, remedies
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
_MAKING = ("create_", "make_", "build_", "new_", "wrap", "cls", "init_")
_SESSIONS = ("Session", "AsyncSession")  # what is made of an engine, and ends before it
# Functions that work with an engine they are given, and keep nothing of it: of others, nobody knows.
_USING = frozenset(
    {
        *("read_sql", "read_sql_query", "read_sql_table", "to_sql", "create_all", "drop_all", "reflect", "inspect"),
        *("Session", "AsyncSession", "sessionmaker", "async_sessionmaker", "scoped_session", "Table", "MetaData"),
        *("print", "isinstance", "str", "repr", "len", "type", "SQLDatabase", "automap_base", "prepare", "closing"),
    }
)
# Functions in which a program begins, or that run once.
_BEGINNINGS = frozenset(
    {
        *("main", "_main", "amain", "cli", "create_app", "lifespan", "startup", "setup", "init_db"),
        *("create_tables", "drop_tables", "upgrade", "downgrade", "run_migrations", "do_run_migrations"),
        *("run_migrations_online", "run_async_migrations"),
    }
)  # fmt: skip
_FILES = ("unknown", "sqlite3", "aiosqlite", "duckdb")  # libraries whose connections are no server's, or may not be


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
        if loop is not None and thing.library not in _FILES and _is_again(loop, call, scope):
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
        if scope.node in seen:
            return
        seen.add(scope.node)
        if handler is not None:
            found = facts.finding(
                ENGINE, call, f"{_a(thing)} is made whenever {_name(handler)}() runs, and its connections with it:"
                " make one when the process starts",
            )  # fmt: skip
            yield remedies.with_remedy(found, remedies.of_made_again(facts, scope, call, thing))
        elif _is_used_up(facts, scope, call):
            found = facts.finding(
                ENGINE, call, f"{_a(thing)} is made whenever {_name(scope.node)}() is called, used, and dropped with"
                " its connections: make one for the process",
                Confidence.MEDIUM,
                severity=Severity.MEDIUM,
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


def _is_again(loop: ast.AST, call: ast.Call, scope: Scope) -> bool:
    """Whether each turn opens the same one, uses it up, and could have done with that of the turn before."""
    return not (
        _is_retry(loop, call, scope)
        or _is_elsewhere(loop, call)
        or _is_filling(loop, call, scope)
        or _is_lasting(loop, call)
    )


def _is_elsewhere(loop: ast.AST, call: ast.Call) -> bool:
    """Whether each turn connects to another place: `for name in databases: connect(dbname=name)`."""
    turned = {
        name.id for target in _targets(loop) for name in ast.walk(target) if isinstance(name, ast.Name)
    }  # fmt: skip
    given = [*call.args, *(word.value for word in call.keywords)]
    return any(isinstance(one, ast.Name) and one.id in turned for value in given for one in ast.walk(value))


def _targets(loop: ast.AST) -> list[ast.expr]:
    if isinstance(loop, (ast.For, ast.AsyncFor)):
        return [loop.target]
    return [one.target for one in getattr(loop, "generators", ())]


def _is_filling(loop: ast.AST, call: ast.Call, scope: Scope) -> bool:
    """Whether they are collected: somebody needs several of them."""
    if isinstance(loop, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
        return True
    names = _names_of(scope, call)
    return any(_collects(node, names, call) for node in ast.walk(loop) if node is not call)


def _collects(node: ast.AST, names: set[str], call: ast.Call) -> bool:
    match node:
        case ast.Call(args=arguments) if last_name(node.func) in WORDS["keeping"]:
            return any(one is call or (isinstance(one, ast.Name) and one.id in names) for one in arguments)
        case ast.Assign(targets=targets, value=value) if _lives_in(value, names, call):
            return any(isinstance(target, (ast.Attribute, ast.Subscript)) for target in targets)
    return False


def _is_lasting(loop: ast.AST, call: ast.Call) -> bool:
    """Whether a turn ends only when the connection does: a listener that connects anew."""
    if not isinstance(loop, ast.While):
        return False
    inner = [one for one in ast.walk(loop) if isinstance(one, (ast.While, ast.AsyncFor)) and one is not loop]
    return any(one.lineno > call.lineno for one in inner)


def _is_retry(loop: ast.AST, call: ast.Call, scope: Scope) -> bool:
    """Whether the loop is there to try again: it is left, one way or another, once there is a connection."""
    for node in ast.walk(loop):
        if isinstance(node, ast.ExceptHandler) and any(one is call for one in ast.walk(node)):
            return True  # in place of one that was lost
        if isinstance(node, ast.Try) and any(one is call for body in node.body for one in ast.walk(body)):
            rest = [*node.body, *node.orelse]
            if any(isinstance(one, (ast.Return, ast.Break)) for body in rest for one in ast.walk(body)):
                return True
            if isinstance(loop, ast.While) and _is_waiting_for(loop.test, call, node):
                return True
    if isinstance(loop, ast.While) and _is_set_within(loop):
        return True
    following = getattr(loop, "body", [])
    after = [one for one in following if getattr(one, "lineno", 0) >= call.lineno]
    return any(isinstance(one, (ast.Return, ast.Break)) for one in after)


def _is_set_within(loop: ast.While) -> bool:
    """`while not ready:`, with `ready = True` in it."""
    names = {node.id for node in ast.walk(loop.test) if isinstance(node, ast.Name)}
    return any(
        isinstance(one, ast.Assign)
        and isinstance(one.value, ast.Constant)
        and any(isinstance(target, ast.Name) and target.id in names for target in one.targets)
        for one in ast.walk(loop)
    )


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
    stored = names | _made_of(scope, names)
    return any(_keeps(one, names, stored, call) for one in scope.own)


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
            if isinstance(one, (ast.With, ast.AsyncWith)):
                entered = [item.optional_vars for item in one.items if _lives_in(item.context_expr, names, call)]
                names.update(target.id for target in entered if isinstance(target, ast.Name))
        if len(names) == before:
            break
    return names


def _made_of(scope: Scope, names: set[str]) -> set[str]:
    """The names of what its methods made, such as connections: who keeps one keeps the engine."""
    return {
        target.id
        for one in scope.own
        if isinstance(one, ast.Assign) and isinstance(one.value, ast.Call) and _owner(one.value) in names
        for target in one.targets
        if isinstance(target, ast.Name)
    }


def _owner(call: ast.Call) -> str:
    return last_name(call.func.value) if isinstance(call.func, ast.Attribute) else ""


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
            if (not word[:1].isupper() and word not in _ROUND and not word.startswith(_MAKING)) or word in _SESSIONS:
                return False
            return any(_lives_in(one, names, call) for one in [*arguments, *(word.value for word in words)])
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.BoolOp(values=parts) | ast.Dict(values=parts):
            return any(_lives_in(one, names, call) for one in parts)
        case ast.IfExp(body=body, orelse=orelse):
            return _lives_in(body, names, call) or _lives_in(orelse, names, call)
    return False


def _keeps(node: ast.AST, names: set[str], stored: set[str], call: ast.Call) -> bool:
    match node:
        case ast.Return(value=value) | ast.Yield(value=value):
            return _lives_in(value, names, call)
        case ast.Assign(targets=targets, value=value):
            return any(isinstance(one, (ast.Attribute, ast.Subscript)) for one in targets) and _has(value, call, stored)
        case ast.AnnAssign(target=ast.Attribute(), value=value) if value is not None:
            return _has(value, call, names)
        case ast.Call(args=arguments, keywords=words) if node is not call and last_name(node.func) not in _USING:
            given = [*arguments, *(word.value for word in words)]
            return any(one is call or (isinstance(one, ast.Name) and one.id in names) for one in given)
    return False


def _is_captured(scope: Scope, names: set[str]) -> bool:
    return any(
        isinstance(node, ast.Name) and node.id in names for inner in scope.inside for node in ast.walk(inner.node)
    )


def _is_used_up(facts: Facts, scope: Scope, call: ast.Call) -> bool:
    """Whether the function itself works with it, and is no place where a program begins."""
    node = scope.node
    assert isinstance(node, FunctionNode)
    names = _names_of(scope, call)
    if node.name in _BEGINNINGS or _is_ended(scope, names) or _is_only_looked_at(scope, names):
        return False
    if scope.module.imports("alembic"):
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


def _is_only_looked_at(scope: Scope, names: set[str]) -> bool:
    """Whether nothing is asked of it that needs a connection."""
    asked = [one.attr for one in scope.own if isinstance(one, ast.Attribute) and last_name(one.value) in names]
    return bool(asked) and all(word in ("url", "dialect", "name", "driver") for word in asked)


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
    if scope.module.imports("airflow"):
        return True
    for node in scope.module.source.tree.body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Compare) and last_name(node.test.left) == "__name__":
            return True
    return False


def is_test(scope: Scope) -> bool:
    """Whether it is run by a test, or to prepare one."""
    parts = scope.module.source.path.replace("\\", "/").split("/")
    return any(part in ("tests", "test", "testing", "conftest.py") or part.startswith("test_") for part in parts)


def _has(value: ast.expr, call: ast.Call, names: set[str]) -> bool:
    return any(one is call or (isinstance(one, ast.Name) and one.id in names) for one in ast.walk(value))


def _a(thing: Thing) -> str:
    return f"a {thing.library} {thing.role.value}" if thing.role is not Role.ENGINE else "a SQLAlchemy engine"


def _name(node: ast.AST) -> str:
    assert isinstance(node, FunctionNode)
    return node.name


def _line(node: ast.AST) -> int:
    return getattr(node, "lineno", 0)
