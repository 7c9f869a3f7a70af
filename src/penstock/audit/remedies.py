"""Whether what a rule found can be mended without a person, and how. When unsure: it cannot."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from .calls import last_name
from .catalog import Thing
from .escapes import Reading, derived, escapes
from .finding import Finding
from .names import FunctionNode, Scope
from .remedy import Remedy, place
from .rules import Facts

# Of these the end of a `with` does what close() does, and nothing else; psycopg's, for one, commits as well.
_WITH = frozenset({"pymysql_connection", "sqlalchemy_checkout", "sqlalchemy_session", "mysql_connector_connection"})
_ASYNC_WITH = frozenset({"sqlalchemy_acheckout", "sqlalchemy_asession"})

# A second close() is nothing to these; others raise.
_CLOSED_TWICE = frozenset(
    {
        *("psycopg2_connection", "psycopg_connection", "psycopg_aconnection", "sqlite3_connection"),
        *("sqlalchemy_checkout", "sqlalchemy_session", "sqlalchemy_acheckout", "sqlalchemy_asession"),
        "asyncpg_connection",
    }
)

SECONDS = 30  # for an answer over HTTP: what other tools of this kind write
CONNECT_SECONDS = 10  # PyMySQL's own default


@dataclass(slots=True)
class _Stretch:
    """From where a thing gets its name to where it is ended, in one block.

    :ivar inner: the statements between. :ivar end: the one that ends it, if any. :ivar extra: others that do, on ways
        out in between: they are not needed any more.
    """

    name: str
    first: ast.Assign | ast.AnnAssign
    inner: Sequence[ast.stmt]
    end: ast.stmt | None
    extra: list[ast.stmt]


# ------------------------------------------------------------------------------------------ leaks


def of_leak(facts: Facts, scope: Scope, site: ast.Call, thing: Thing) -> Remedy | None:
    """Of a thing that is not ended on some way out: a block round what uses it."""
    found = _block(scope, site)
    if found is None:
        return None
    block, index = found
    first = block[index]
    assert isinstance(first, (ast.Assign, ast.AnnAssign))
    target = first.targets[0] if isinstance(first, ast.Assign) else first.target
    if not isinstance(target, ast.Name) or target.id in scope.elsewhere or not _starts_a_line(facts, block):
        return None
    stretch = _stretch(target.id, first, block[index + 1 :], thing)
    if stretch is None or not stretch.inner or _is_rebound(stretch):
        return None
    objects = thing.role.value == "session"
    if _is_used_in_handlers(scope, stretch):
        return None  # whoever handles the exception would find it closed
    escaping = stretch.end is None or _leaves_early(stretch.inner)
    if escaping and escapes(stretch.inner, stretch.name, scope, facts, Reading(False, objects)):
        return None
    if stretch.end is None and _is_used_outside(scope, stretch, {stretch.name}):
        return None
    sure = Reading(True, objects)
    safe = stretch.end is not None and not (escaping and escapes(stretch.inner, stretch.name, scope, facts, sure))
    return _enclosing(facts, scope, stretch, site, thing, safe)


def _enclosing(
    facts: Facts, scope: Scope, stretch: _Stretch, site: ast.Call, thing: Thing, safe: bool
) -> Remedy | None:
    touched: list[ast.expr | ast.stmt] = [site, *([stretch.end] if stretch.end is not None else []), *stretch.extra]
    at = tuple(place(facts.module.source, one) for one in touched)
    is_async = isinstance(scope.node, ast.AsyncFunctionDef)
    text = _end_of(stretch.name, site, thing, is_async)
    if stretch.end is None and not text:
        return None
    form = _form(stretch, thing, text)
    if form == "closing" and not _means_contextlibs(facts, scope):
        form = "finally"
    return Remedy("enclose", safe, at, form, "" if stretch.end is not None else text)


def _means_contextlibs(facts: Facts, scope: Scope) -> bool:
    """Whether `closing` is contextlib's here, or may become it."""
    bound = [name for one in facts.module.scopes.values() for name in one.bound.get("closing", ())]
    known = facts.module.top.bound.get("closing", ())
    return all(one == "contextlib.closing" for one in bound) and len(known) == len(bound)


def _form(stretch: _Stretch, thing: Thing, text: str) -> str:
    ending = text if stretch.end is None else ast.unparse(stretch.end)
    if not isinstance(stretch.first, ast.Assign):
        return "finally"  # its annotation has no place in a `with`
    if ending == f"{stretch.name}.close()" and not thing.is_async:
        return "with" if thing.name in _WITH else "closing"
    if ending == f"await {stretch.name}.close()" and thing.name in _ASYNC_WITH:
        return "async with"
    return "finally"


def _end_of(name: str, site: ast.Call, thing: Thing, is_async: bool) -> str:
    """The statement that ends it, where there is none yet."""
    waits = "await " if thing.awaited else ""
    if waits and not is_async:
        return ""
    pool = site.func.value if isinstance(site.func, ast.Attribute) else None
    if thing.taken_by and thing.role.value == "checkout":
        known = pool is not None and _is_plain(pool) and site.func.attr in ("getconn", "acquire")  # type: ignore[attr-defined]
        return f"{waits}{ast.unparse(pool)}.{min(thing.taken_by)}({name})" if known and pool is not None else ""
    return f"{waits}{name}.close()" if "close" in thing.ends else ""


def _is_plain(expr: ast.expr) -> bool:
    while isinstance(expr, ast.Attribute):
        expr = expr.value
    return isinstance(expr, ast.Name)


def _block(scope: Scope, site: ast.Call) -> tuple[Sequence[ast.stmt], int] | None:
    """The block in which *site* gets a name, and which of its statements that is."""
    for block in _blocks(scope.node):
        for index, one in enumerate(block):
            if isinstance(one, (ast.Assign, ast.AnnAssign)) and _value(one) is site:
                return None if isinstance(one, ast.Assign) and len(one.targets) > 1 else (block, index)
    return None


def _value(one: ast.Assign | ast.AnnAssign) -> ast.expr | None:
    return one.value.value if isinstance(one.value, ast.Await) else one.value


def _blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    """The blocks of a function; those of functions in it left out."""
    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        inner: list[ast.AST] = getattr(node, name, None) or []
        if inner and isinstance(inner[0], ast.stmt):
            yield inner  # type: ignore[misc]
        for one in inner:
            if not isinstance(one, _SCOPES):
                yield from _blocks(one)


_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _starts_a_line(facts: Facts, block: Sequence[ast.stmt]) -> bool:
    """Whether the block is one of lines of its own: `if x: conn = connect()` is not."""
    line = facts.module.source.text.splitlines()[block[0].lineno - 1] if block else ""
    return not line.encode()[: block[0].col_offset].strip()


def _stretch(name: str, first: ast.Assign | ast.AnnAssign, rest: Sequence[ast.stmt], thing: Thing) -> _Stretch | None:
    ends = [index for index, one in enumerate(rest) if _is_end(one, name, thing)]
    if len(ends) > 1:
        return None
    inner = rest[: ends[0]] if ends else rest
    extra = _extra(inner, name, thing)
    if extra is None:
        return None
    return _Stretch(name, first, inner, rest[ends[0]] if ends else None, extra)


def _is_end(one: ast.stmt, name: str, thing: Thing) -> bool:
    """`conn.close()`, `pool.putconn(conn)`, or the like under `if conn:`."""
    if isinstance(one, ast.If) and not one.orelse and _is_about(one.test, name):
        return all(_is_end(inner, name, thing) for inner in one.body)
    return isinstance(one, ast.Expr) and _ends(one.value, name, thing)


def _is_about(test: ast.expr, name: str) -> bool:
    """`conn`, `conn is not None`, `conn.is_connected()`, `not conn.closed`."""
    names = [node.id for node in ast.walk(test) if isinstance(node, ast.Name)]
    calls = [last_name(node.func) for node in ast.walk(test) if isinstance(node, ast.Call)]
    return names == [name] and all(one in ("is_connected", "is_closed") for one in calls)


def _ends(value: ast.expr, name: str, thing: Thing) -> bool:
    awaited = isinstance(value, ast.Await)
    call = value.value if isinstance(value, ast.Await) else value
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
        return False
    if thing.awaited and not awaited and call.func.attr != "terminate":
        return False  # another fix's
    if isinstance(call.func.value, ast.Name) and call.func.value.id == name:
        return call.func.attr in thing.ends and not call.args and not call.keywords
    given = call.args[0] if call.args else None
    return call.func.attr in thing.taken_by and isinstance(given, ast.Name) and given.id == name


def _extra(inner: Sequence[ast.stmt], name: str, thing: Thing) -> list[ast.stmt] | None:
    """What ends it in between, right before a way out; None if there is more than that of it."""
    nodes = list(_own(inner))
    ends = [node for node in nodes if isinstance(node, ast.Expr) and _ends(node.value, name, thing)]
    found: list[ast.stmt] = [one for one in ends if _is_way_out(_following(one, nodes), name)]
    return found if len(found) == len(ends) or thing.name in _CLOSED_TWICE else None


def _following(statement: ast.stmt, nodes: Sequence[ast.AST]) -> ast.stmt | None:
    for node in nodes:
        for block in (getattr(node, part, None) for part in ("body", "orelse", "finalbody")):
            if isinstance(block, list) and statement in block[:-1]:
                following: ast.stmt = block[block.index(statement) + 1]
                return following
    return None


def _is_way_out(node: ast.AST | None, name: str) -> bool:
    """`return` or `raise` of something that does not need it, and takes no time."""
    if not isinstance(node, (ast.Return, ast.Raise)):
        return False
    value = node.value if isinstance(node, ast.Return) else node.exc
    if value is None:
        return True
    plain = isinstance(node, ast.Raise) or not any(isinstance(one, (ast.Call, ast.Await)) for one in ast.walk(value))
    return plain and not any(isinstance(one, ast.Name) and one.id == name for one in ast.walk(value))


def _own(statements: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """Their nodes, those of functions within them left out."""
    waiting = list(statements)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (*_SCOPES, ast.Lambda)):
            waiting.extend(ast.iter_child_nodes(node))


def _is_rebound(stretch: _Stretch) -> bool:
    """Whether the name comes to stand for something else, or a nested function uses it."""
    for node in ast.walk(ast.Module(list(stretch.inner), [])):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) if name == stretch.name:
                return True
            case ast.ExceptHandler(name=name) if name == stretch.name:
                return True
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                if any(isinstance(one, ast.Name) and one.id == stretch.name for one in ast.walk(node)):
                    return True
    return False


def _leaves_early(inner: Sequence[ast.stmt]) -> bool:
    """Whether it may be left before its end without an exception."""
    ways = (ast.Return, ast.Break, ast.Continue, ast.Yield, ast.YieldFrom)
    return any(isinstance(node, ways) for node in _own(inner))


def _is_used_in_handlers(scope: Scope, stretch: _Stretch) -> bool:
    """Whether what handles an exception of the stretch uses it, or what was made of it."""
    names = derived(stretch.inner, stretch.name, Reading())
    for node in _own(scope.node.body):  # type: ignore[attr-defined]
        if isinstance(node, (ast.Try, ast.TryStar)) and _has(node.body, stretch.first):
            if any(_names_one(one, names) for one in node.handlers):
                return True
            if any(_names_one(one, {stretch.name}) for one in node.finalbody):
                return True
    return False


def _names_one(node: ast.AST, names: set[str]) -> bool:
    return any(isinstance(one, ast.Name) and one.id in names for one in ast.walk(node))


def _has(statements: Sequence[ast.stmt], wanted: ast.stmt) -> bool:
    return any(node is wanted for one in statements for node in ast.walk(one))


def _is_used_outside(scope: Scope, stretch: _Stretch, names: set[str]) -> bool:
    """Whether one of *names* is used elsewhere in the function."""
    inside = [stretch.first, *stretch.inner, *([stretch.end] if stretch.end is not None else [])]
    known = {id(node) for one in inside for node in ast.walk(one)}
    return any(
        isinstance(node, ast.Name) and node.id in names and id(node) not in known and isinstance(node.ctx, ast.Load)
        for node in ast.walk(scope.node)
    )


# ------------------------------------------------------------------------------------------ a `with` that keeps


def of_entered(facts: Facts, scope: Scope, site: ast.Call, thing: Thing) -> Remedy | None:
    """Of `with psycopg2.connect() as conn`, which does not close: closing() round it, and the transaction as it was."""
    if thing.role.value != "connection" or thing.is_async or "close" not in thing.ends:
        return None
    for block in _blocks(scope.node):
        for index, one in enumerate(block):
            if isinstance(one, ast.With) and any(item.context_expr is site for item in one.items):
                return _entered(facts, scope, site, block, index)
    return None


def _entered(facts: Facts, scope: Scope, site: ast.Call, block: Sequence[ast.stmt], index: int) -> Remedy | None:
    statement = block[index]
    assert isinstance(statement, ast.With)
    item = next(item for item in statement.items if item.context_expr is site)
    if not isinstance(item.optional_vars, ast.Name):
        return None
    name = item.optional_vars.id
    # Of a later item of the same `with` too: `with connect() as conn, conn.cursor() as cursor`.
    body = [ast.With(statement.items[statement.items.index(item) + 1 :], statement.body)]
    known = {id(node) for node in ast.walk(statement)}
    after = block[index + 1] if index + 1 < len(block) else None
    closed = after if isinstance(after, ast.Expr) and ast.unparse(after) == f"{name}.close()" else None
    if closed is not None:
        known |= {id(node) for node in ast.walk(closed)}
    if not _means_contextlibs(facts, scope) or _lives_on(facts, scope, body, name, known, Reading(unknown=False)):
        return None
    safe = not _lives_on(facts, scope, body, name, known, Reading())
    touched: list[ast.expr | ast.stmt] = [site] if closed is None else [site, closed]
    return Remedy("entered", safe, tuple(place(facts.module.source, one) for one in touched))


def _lives_on(facts: Facts, scope: Scope, body: Sequence[ast.AST], name: str, known: set[int], how: Reading) -> bool:
    """Whether what the block made of the connection may be used after it."""
    names = derived(body, name, how)
    used_after = any(
        isinstance(node, ast.Name) and node.id in names and id(node) not in known and isinstance(node.ctx, ast.Load)
        for node in ast.walk(scope.node)
    )
    return used_after or escapes(body, name, scope, facts, how) or _is_captured(body, names)


def _is_captured(body: Sequence[ast.AST], names: set[str]) -> bool:
    functions = [node for one in body for node in ast.walk(one) if isinstance(node, (*_SCOPES, ast.Lambda))]
    return any(isinstance(node, ast.Name) and node.id in names for one in functions for node in ast.walk(one))


# ------------------------------------------------------------------------------------------ calls


def of_unawaited(facts: Facts, scope: Scope, calls: Sequence[ast.Call]) -> Remedy | None:
    """Of `conn.close()` where that makes a coroutine."""
    whole = {node.value for node in scope.own if isinstance(node, ast.Expr)}
    if not isinstance(scope.node, ast.AsyncFunctionDef) or not calls or not all(call in whole for call in calls):
        return None
    return Remedy("awaited", True, tuple(place(facts.module.source, call) for call in calls))


def of_timeout(facts: Facts, call: ast.Call, text: str) -> Remedy | None:
    """*text*, one more argument: what took longer than that now raises."""
    if len(call.args) == 1 and not call.keywords and isinstance(call.args[0], ast.GeneratorExp):
        return None  # it would need parentheses of its own
    return Remedy("timeout", False, (place(facts.module.source, call),), text=text)


# ------------------------------------------------------------------------------------------ once for the process

_LAZY = frozenset({"sqlalchemy_engine", "requests_session", "httpx_client", "redis_client"})  # open nothing when made


def of_made_again(facts: Facts, scope: Scope, site: ast.Call, thing: Thing) -> Remedy | None:
    """Of an engine or a client that a function makes: the same statement, before the function."""
    if thing.name not in _LAZY or facts.project.made(site, scope) is None:
        return None
    found = _block(scope, site)
    top = _top(facts, scope)
    if found is None or top is None or not _starts_a_line(facts, found[0]) or len(found[0]) < 2:
        return None
    statement = found[0][found[1]]
    assert isinstance(statement, (ast.Assign, ast.AnnAssign))
    target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
    if not isinstance(target, ast.Name) or not _is_only_here(facts, scope, target.id, thing, site):
        return None
    parts = [site.func, *site.args, *(word.value for word in site.keywords)]
    if not all(_is_known_before(facts, part, top) for part in parts):
        return None
    return Remedy("hoisted", False, (place(facts.module.source, site), place(facts.module.source, top)))


def _top(facts: Facts, scope: Scope) -> ast.stmt | None:
    """The statement of the file that the function is in."""
    for one in facts.module.source.tree.body:
        if isinstance(one, _SCOPES) and any(node is scope.node for node in ast.walk(one)):
            return one
    return None


def _is_only_here(facts: Facts, scope: Scope, name: str, thing: Thing, site: ast.Call) -> bool:
    """Whether the name is used in this function alone, for this alone, and nothing here ends it."""
    if name in scope.elsewhere or len(scope.bound.get(name, ())) != 1:
        return False
    for node in ast.walk(scope.node):
        if isinstance(node, ast.Attribute) and node.attr in thing.ends and last_name(node.value) == name:
            return False
        if isinstance(node, (ast.With, ast.AsyncWith)) and any(
            isinstance(item.context_expr, ast.Name) and item.context_expr.id == name for item in node.items
        ):
            return False
    mine = {id(node) for node in ast.walk(scope.node)}
    for node in ast.walk(facts.module.source.tree):
        if id(node) in mine:
            continue
        if (isinstance(node, ast.Name) and node.id == name) or (isinstance(node, FunctionNode) and node.name == name):
            return False
    return all(name not in one.bound for one in facts.module.scopes.values() if one is not scope)


def _is_known_before(facts: Facts, expr: ast.expr, top: ast.stmt) -> bool:
    """Whether *expr* is the same wherever the file evaluates it: constants, and names that the file has by then."""
    match expr:
        case ast.Constant():
            return True
        case ast.Name(id=name):
            return _is_bound_before(facts, name, top)
        case ast.Attribute(value=value):
            return _is_known_before(facts, value, top)
        case ast.Subscript(value=value, slice=inner):
            return _is_known_before(facts, value, top) and _is_known_before(facts, inner, top)
        case ast.JoinedStr(values=values) | ast.Tuple(elts=values) | ast.List(elts=values):
            return all(_is_known_before(facts, one, top) for one in values)
        case ast.FormattedValue(value=value):
            return _is_known_before(facts, value, top)
        case ast.BinOp(left=left, right=right):
            return _is_known_before(facts, left, top) and _is_known_before(facts, right, top)
        case ast.Dict(keys=keys, values=values):
            return all(one is not None and _is_known_before(facts, one, top) for one in [*keys, *values])
        case ast.Call(func=func, args=args, keywords=[]):
            named = facts.project.full(func, facts.module.top) in ("os.getenv", "os.environ.get")
            return named and all(_is_known_before(facts, one, top) for one in [func, *args])
    return False


def _is_bound_before(facts: Facts, name: str, top: ast.stmt) -> bool:
    if any(name in one.bound for one in facts.module.scopes.values() if one is not facts.module.top):
        return False  # it may be another's
    before = [one for one in facts.module.source.tree.body if one.lineno < top.lineno]
    return any(name in _binds(one) for one in before)


def _binds(one: ast.stmt) -> set[str]:
    match one:
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return {alias.asname or alias.name.partition(".")[0] for alias in names}
        case ast.Assign(targets=targets):
            return {target.id for target in targets if isinstance(target, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is not None:
            return {name}
    return set()


# ------------------------------------------------------------------------------------------ in a finding


def with_remedy(finding: Finding, remedy: Remedy | None) -> Finding:
    """*finding*, with how it is mended."""
    return finding if remedy is None else replace(finding, fixable=True, remedy=remedy.encoded())
