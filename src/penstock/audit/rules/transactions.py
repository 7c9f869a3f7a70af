"""PEN51: transactions that nobody ends, and what that costs: a held connection, a lost write, an aborted session.

With autocommit off, which is the default of most drivers, the first statement begins a transaction, a read too. Where a
file says nothing of autocommit, that is how it is; where it does, this family is silent about it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from ..calls import last_name
from ..catalog import Role, Thing
from ..finding import Confidence, Kind, Rule, Severity
from ..names import FunctionNode, Scope
from ..sessions import BEGINS
from ..statements import Sent, sent
from . import Facts, Findings

LEFT_OPEN = Rule("PEN510", Kind.TRANSACTION_LEFT_OPEN, Severity.MEDIUM, "a read leaves its transaction open")
LOST = Rule("PEN511", Kind.TRANSACTION_LEFT_OPEN, Severity.HIGH, "a write is never committed")
SWALLOWED = Rule("PEN512", Kind.TRANSACTION_LEFT_OPEN, Severity.MEDIUM, "a failed statement without a rollback")
BEGUN = Rule("PEN513", Kind.TRANSACTION_LEFT_OPEN, Severity.MEDIUM, "a BEGIN without an end")
SHARED = Rule("PEN514", Kind.TRANSACTION_LEFT_OPEN, Severity.MEDIUM, "one connection for all requests")
RULES = (LEFT_OPEN, LOST, SWALLOWED, BEGUN, SHARED)

_AUTOCOMMIT = re.compile(r"autocommit|isolation_level", re.IGNORECASE)
_READ = re.compile(r"(?:SELECT|SHOW|WITH|TABLE)\b", re.IGNORECASE)
_WRITE = re.compile(r"(?:INSERT|UPDATE|DELETE|MERGE|REPLACE)\b|WITH\b.*\)\s*(?:INSERT|UPDATE|DELETE)\b", re.IGNORECASE)
_DDL = re.compile(r"(?:CREATE|ALTER|DROP|TRUNCATE|GRANT|REVOKE)\b(?! DATABASE)", re.IGNORECASE)
_BEGIN = re.compile(r"(?:BEGIN|START TRANSACTION)\b", re.IGNORECASE)
_END = re.compile(r"(?:COMMIT|ROLLBACK|END|ABORT)\b", re.IGNORECASE)
_ENDS = frozenset({"commit", "rollback", "close", "reset", "cancel", "aclose"})
_ENDING = frozenset({"exit", "_exit", "abort", "quit", "close", "putconn"})
_ENDING_METHODS = frozenset({"commit", "rollback", "reset", "reset_session", "ping", "cmd_reset_connection"})
_SLEEPS = frozenset({"sleep", "wait"})
_DATABASE = frozenset(
    {
        "Exception", "BaseException", "Error", "DatabaseError", "ProgrammingError", "OperationalError", "DataError",
        "IntegrityError", "InternalError", "InterfaceError", "UniqueViolation", "UndefinedTable", "DuplicateTable",
        "ForeignKeyViolation", "CheckViolation", "NotNullViolation", "StatementError",
    }
)  # fmt: skip
_COMMITS_AT_ITS_END = frozenset({"psycopg2", "psycopg", "sqlite3", "pyodbc"})  # a `with` on the connection
_ROLLS_BACK_DDL = frozenset({"psycopg2", "psycopg", "pyodbc"})


def check(facts: Facts) -> Findings:
    silent = bool(_AUTOCOMMIT.search(facts.module.source.text))
    for scope in facts.module.scopes.values():
        if isinstance(scope.node, (ast.ClassDef, ast.Lambda)):
            continue
        sendings = list(sent(scope))
        if not sendings:
            continue
        yield from _never_ended(facts, scope, sendings)
        if not silent:
            yield from _left_in_loops(facts, scope, sendings)
            yield from _swallowed(facts, scope, sendings)
            yield from _lost(facts, scope, sendings)
    if not silent:
        yield from _living_on(facts)


# ------------------------------------------------------------------------------------------ who sends it


def _key(expr: ast.expr | None, scope: Scope, depth: int = 0) -> str | None:
    """The connection that a statement goes through, by its name: `conn`, `self.conn`; of a cursor, whose it is."""
    if depth > 4:
        return None
    match expr:
        case ast.Call(func=ast.Attribute(value=value, attr="cursor" | "execute")):
            return _key(value, scope, depth + 1)
        case ast.Await(value=value):
            return _key(value, scope, depth + 1)
        case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
            class_ = scope.class_()
            bound = class_.attributes.get(name, ()) if class_ is not None else ()
            through = [one for one in bound if _is_cursor_call(one)]
            return _key(through[0], scope, depth + 1) if through else f"self.{name}"
        case ast.Name(id=name):
            where: Scope | None = scope
            while where is not None and (name not in where.bound or name in where.elsewhere):
                where = where.outer()
            bound_here = where.bound[name] if where is not None else []
            for one in bound_here:
                made = one.context_expr if isinstance(one, ast.withitem) else one
                if isinstance(made, ast.expr) and _is_cursor_call(made) and where is not None:
                    return _key(made, where, depth + 1)
            return name
    return None


def _is_cursor_call(expr: ast.AST) -> bool:
    if isinstance(expr, ast.Await):
        expr = expr.value
    return isinstance(expr, ast.Call) and isinstance(expr.func, ast.Attribute) and expr.func.attr == "cursor"


def _begins(facts: Facts, scope: Scope, key: str) -> Thing | None:
    """The connection that *key* names, if its first statement begins a transaction."""
    thing = facts.project.thing(_expression(key), scope)
    if thing is None or thing.library not in BEGINS or thing.role not in (Role.CONNECTION, Role.CHECKOUT):
        return None
    return None if _is_elsewhere_autocommit(facts, key, scope) else thing


def _is_elsewhere_autocommit(facts: Facts, key: str, scope: Scope) -> bool:
    """Whether a function of another file makes it, and says something of autocommit there; or a mapping may."""
    for made in _made(key, scope):
        if any(word.arg is None for word in made.keywords):
            return True
        function = facts.project.definition(made.func, scope)
        if function is not None and _AUTOCOMMIT.search(function.module.source.text):
            return True
    return False


def _made(key: str, scope: Scope) -> Iterator[ast.Call]:
    for one in _bound(key, scope):
        value = one.context_expr if isinstance(one, ast.withitem) else one
        value = value.value if isinstance(value, ast.Await) else value
        if isinstance(value, ast.Call):
            yield value


def _bound(key: str, scope: Scope) -> Iterable[ast.AST | str]:
    if key.startswith("self."):
        class_ = scope.class_()
        return class_.attributes.get(key[5:], ()) if class_ is not None else ()
    where: Scope | None = scope
    while where is not None:
        if key in where.bound and key not in where.elsewhere:
            return where.bound[key]
        where = where.outer()
    return ()


def _expression(key: str) -> ast.expr:
    if key.startswith("self."):
        return ast.Attribute(ast.Name("self", ast.Load()), key[5:], ast.Load())
    return ast.Name(key, ast.Load())


def _sends(sendings: Iterable[Sent], pattern: re.Pattern[str]) -> Iterator[Sent]:
    for one in sendings:
        if one.statements is not None and any(pattern.match(statement) for statement in one.statements):
            yield one


# ------------------------------------------------------------------------------------------ a loop that reads


def _left_in_loops(facts: Facts, scope: Scope, sendings: list[Sent]) -> Findings:
    """A loop without an end that reads, sleeps, and reads again, on one connection that it never lets commit."""
    loops = [node for node in scope.own if isinstance(node, ast.While)]
    for loop in loops:
        calls = [node for node in ast.walk(loop) if isinstance(node, ast.Call)]
        if not any(last_name(call.func) in _SLEEPS for call in calls):
            continue
        if any(last_name(call.func) in _ENDS for call in calls):
            continue
        told: set[str] = set()
        for one in _sends(sendings, _READ):
            key = _key(one.owner, scope)
            if key is None or key in told or not _is_within(one.call, loop) or _is_rebound(key, loop):
                continue
            thing = _begins(facts, scope, key)
            if thing is None or _is_entered(key, loop, scope) or _hands_on(calls, key):
                continue
            told.add(key)
            yield facts.finding(LEFT_OPEN, one.call, _left_open(key, thing, "the loop sleeps and comes back"))


def _left_open(key: str, thing: Thing, when: str) -> str:
    cost = (
        "it stays `idle in transaction`, and holds back vacuum"
        if thing.library in ("psycopg2", "psycopg", "pyodbc", "oracledb")
        else "each read sees the data of the first one"
    )
    return (
        f"this read begins a transaction on {key}, which nobody ends while {when}: {cost}. Commit after it, or set"
        " autocommit"
    )


def _is_within(node: ast.AST, outer: ast.AST) -> bool:
    line = getattr(node, "lineno", 0)
    return outer.lineno <= line <= (outer.end_lineno or 0)  # type: ignore[attr-defined,no-any-return]


def _is_rebound(key: str, loop: ast.AST) -> bool:
    """Whether the loop makes the connection anew itself."""
    for node in ast.walk(loop):
        targets = node.targets if isinstance(node, ast.Assign) else ()
        if any(_is_named(target, key) for target in targets):
            return True
        if isinstance(node, ast.withitem) and node.optional_vars is not None and _is_named(node.optional_vars, key):
            return True
    return False


def _is_entered(key: str, within: ast.AST, scope: Scope) -> bool:
    """Whether a `with` on the connection ends its transactions."""
    return any(
        isinstance(node, (ast.With, ast.AsyncWith))
        and any(_is_named(item.context_expr, key) or _is_transaction(item.context_expr) for item in node.items)
        for node in ast.walk(within)
    )


def _is_transaction(expr: ast.expr) -> bool:
    return isinstance(expr, ast.Call) and last_name(expr.func) in ("transaction", "begin", "atomic")


def _is_named(expr: ast.expr, key: str) -> bool:
    match expr:
        case ast.Name(id=name):
            return name == key
        case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
            return key == f"self.{name}"
        case ast.Tuple(elts=parts):
            return any(_is_named(part, key) for part in parts)
    return False


def _hands_on(calls: Iterable[ast.Call], key: str) -> bool:
    """Whether somebody else is given the connection, and may end what it began."""
    return any(_is_named(given, key) for call in calls for given in _given(call))


def _given(call: ast.Call) -> Iterator[ast.expr]:
    for one in (*call.args, *(word.value for word in call.keywords)):
        yield from one.elts if isinstance(one, (ast.Tuple, ast.List)) else (one,)


# ------------------------------------------------------------------------------------------ a write that is lost


def _lost(facts: Facts, scope: Scope, sendings: list[Sent]) -> Findings:
    told: set[str] = set()
    for one in sendings:
        key = _key(one.owner, scope)
        if key is None or key in told or key not in scope.bound or one.statements is None:
            continue
        thing = facts.project.thing(_expression(key), scope)
        made = [call for call in _made(key, scope) if facts.project.fresh(call, scope) is not None]
        if thing is None or not made or not _is_lost(facts, scope, key, thing, one.statements, made):
            continue
        if last_name(one.call.func) == "executescript":  # commits by itself
            continue
        told.add(key)
        remedy = "commit() before it is closed" if thing.role is Role.CONNECTION else "commit() before it is given back"
        yield facts.finding(
            LOST, one.call, f"nobody commits this write: when {key} is closed it is undone. Call {key}.{remedy}",
            fixable=False,
        )  # fmt: skip


def _is_lost(
    facts: Facts, scope: Scope, key: str, thing: Thing, statements: tuple[str, ...], made: list[ast.Call]
) -> bool:
    if not _may_be_lost(thing, statements) or _is_elsewhere_autocommit(facts, key, scope):
        return False
    if any(isinstance(one, ast.withitem) for one in _bound(key, scope)) and _is_kept_by_with(thing):
        return False
    if isinstance(scope.node, ast.Module):
        return "commit" not in scope.module.source.text.lower() and not _escapes(scope, key)
    nodes = list(ast.walk(scope.node))
    if any("commit" in one for one in _words(nodes)) or _is_entered(key, scope.node, scope):
        return False
    return not _escapes(scope, key) and not any(_escapes(scope, name) for name in _cursors(scope, key))


def _may_be_lost(thing: Thing, statements: tuple[str, ...]) -> bool:
    if thing.role not in (Role.CONNECTION, Role.CHECKOUT):
        return False
    if thing.library in BEGINS or thing.library == "sqlite3":
        written = any(map(_WRITE.match, statements))
        return written or (thing.library in _ROLLS_BACK_DDL and any(map(_DDL.match, statements)))
    return False


def _is_kept_by_with(thing: Thing) -> bool:
    return thing.library in _COMMITS_AT_ITS_END or thing.role is Role.CHECKOUT


def _words(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Attribute):
            yield node.attr.lower()
        elif isinstance(node, ast.Name):
            yield node.id.lower()
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value.lower()


def _cursors(scope: Scope, key: str) -> Iterator[str]:
    for name in scope.bound:
        if name != key and _key(ast.Name(name, ast.Load()), scope) == key:
            yield name


def _escapes(scope: Scope, name: str) -> bool:
    """Whether anybody but the function itself may use it: it is returned, stored, passed on, or an inner function's."""
    return _is_handed_on(scope, name) or any(
        isinstance(node, ast.Name) and node.id == name
        for inner in scope.inside
        if name not in inner.bound
        for node in ast.walk(inner.node)
    )


def _is_handed_on(scope: Scope, name: str) -> bool:
    """Whether *scope* does more with it than to use its methods, to look at it, or to enter it."""
    owned = {id(node.value) for node in scope.own if isinstance(node, ast.Attribute)}
    owned |= {id(node.test) for node in scope.own if isinstance(node, (ast.If, ast.While))}
    owned |= {id(item.context_expr) for node in scope.own if isinstance(node, (ast.With, ast.AsyncWith))
              for item in node.items}  # fmt: skip
    return any(
        isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load) and id(node) not in owned
        and not _is_harmless(scope, node)
        for node in scope.own
    )  # fmt: skip


def _is_harmless(scope: Scope, name: ast.Name) -> bool:
    """Whether it is only looked at, or given to something that surely does not commit."""
    for node in scope.own:
        if isinstance(node, ast.Call) and name in node.args:
            return last_name(node.func) in ("print", "closing", "putconn", "release", "bool", "repr", "str", "type")
        if isinstance(node, ast.Compare) and (node.left is name or name in node.comparators):
            return True
        if isinstance(node, ast.BoolOp) and name in node.values:
            return True
    return False


# ------------------------------------------------------------------------------------------ an error that is swallowed


def _swallowed(facts: Facts, scope: Scope, sendings: list[Sent]) -> Findings:
    """PostgreSQL refuses every statement of a transaction in which one has failed, until it is rolled back."""
    text = {word for word in _words(ast.walk(scope.node)) if "rollback" in word or "savepoint" in word}
    if text:
        return
    for tried in (node for node in scope.own if isinstance(node, ast.Try)):
        within = [one for one in sendings if any(_is_within(one.call, statement) for statement in tried.body)]
        for key in dict.fromkeys(_key(one.owner, scope) for one in within):
            if key is None or not _goes_on(tried):
                continue
            thing = _begins(facts, scope, key)
            if thing is None or thing.library not in ("psycopg2", "psycopg") or _ends_in(tried, key, scope):
                continue
            again = _used_again(scope, tried, key, sendings)
            if again is None:
                continue
            handler = next(one for one in tried.handlers if _is_broad(one))
            yield facts.finding(
                SWALLOWED, handler, f"if a statement fails here, {key} is left in an aborted transaction, and {again}"
                f" is refused (InFailedSqlTransaction): call {key}.rollback()",
                Confidence.MEDIUM,
            )  # fmt: skip
            break


def _goes_on(tried: ast.Try) -> bool:
    broad = [one for one in tried.handlers if _is_broad(one)]
    return bool(broad) and not any(_leaves(one) for one in broad)


def _is_broad(handler: ast.ExceptHandler) -> bool:
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(one is None or last_name(one) in _DATABASE for one in types)


def _leaves(handler: ast.ExceptHandler) -> bool:
    """Whether it passes the exception on, leaves the function, or may do what is needed by a call that is not known."""
    for node in ast.walk(handler):
        if isinstance(node, (ast.Raise, ast.Return, ast.Break)):
            return True
        if isinstance(node, ast.Call) and last_name(node.func) in (
            "exit",
            "_exit",
            "abort",
            "quit",
            "close",
            "putconn",
        ):
            return True
        if isinstance(node, ast.Call) and re.search("connect|reset|retry|handle", last_name(node.func)):
            return True
    return False


def _ends_in(tried: ast.Try, key: str, scope: Scope) -> bool:
    """Whether the connection is closed, or its `with` ends, by the time that the exception is caught."""
    if any(last_name(node.func) == "close" and _is_named(getattr(node.func, "value", node.func), key)
           for statement in tried.finalbody for node in ast.walk(statement) if isinstance(node, ast.Call)):  # fmt: skip
        return True
    inside = ast.Module(tried.body, [])
    return _is_entered(key, inside, scope) or _is_rebound(key, inside)


def _used_again(scope: Scope, tried: ast.Try, key: str, sendings: list[Sent]) -> str | None:
    """What comes after it on the same connection."""
    loop = next((one for one in scope.own if isinstance(one, (ast.For, ast.AsyncFor, ast.While))
                 and _is_within(tried, one) and not _is_rebound(key, one)), None)  # fmt: skip
    later = [one for one in sendings if _key(one.owner, scope) == key and one.call.lineno > (tried.end_lineno or 0)]
    if later:
        return f"what line {later[0].call.lineno} sends"
    return "what the next turn of the loop sends" if loop is not None else None


# ------------------------------------------------------------------------------------------ BEGIN


def _never_ended(facts: Facts, scope: Scope, sendings: list[Sent]) -> Findings:
    """BEGIN that is sent by a function of a file in which nothing ends a transaction."""
    begun = [one for one in _sends(sendings, _BEGIN) if not any(map(_END.match, one.statements or ()))]
    if not begun or isinstance(scope.node, ast.Module):
        return
    words = set(_words(ast.walk(scope.module.source.tree)))
    if any(any(end in word for end in ("commit", "rollback", "savepoint")) or _END.match(word) for word in words):
        return
    for one in begun[:1]:
        yield facts.finding(
            BEGUN, one.call, "this begins a transaction, and nothing in this file ends one: send COMMIT, and ROLLBACK"
            " if something fails",
            Confidence.MEDIUM,
        )  # fmt: skip


# ------------------------------------------------------------------------------------------ connections that live on


def _living_on(facts: Facts) -> Findings:
    """A connection of a module, or of an object, that is read from and never told to end a transaction."""
    told: set[str] = set()
    for scope in facts.module.functions():
        assert isinstance(scope.node, FunctionNode)
        for one in _sends(sent(scope), _READ):
            key = _key(one.owner, scope)
            if key is None or (key in scope.bound and key not in scope.elsewhere):
                continue
            where = key if not key.startswith("self.") else f"{id(scope.class_())}{key}"
            if where in told:
                continue
            thing = _begins(facts, scope, key)
            if thing is None or thing.role is not Role.CONNECTION:
                continue
            told.add(where)
            yield from _judge_living(facts, scope, one, key, thing)


def _judge_living(facts: Facts, scope: Scope, one: Sent, key: str, thing: Thing) -> Findings:
    handler = facts.per_request.get(scope.node)
    if _is_ended(scope, key):
        return
    if handler is not None and not key.startswith("self.") and not _is_of_lambda(handler):
        yield facts.finding(
            SHARED, one.call, f"{key} is one connection for every request, and its transaction has no end: one"
            " statement that fails has all that follow refused. Take a connection of a pool for each request",
        )  # fmt: skip
        return
    lives = _lives(facts, scope, key) and (handler is None or not _is_of_lambda(handler))
    severity = None if lives else Severity.HINT
    yield facts.finding(
        LEFT_OPEN, one.call, _left_open(key, thing, "it waits for the next call"), Confidence.MEDIUM, severity=severity
    )


def _is_ended(scope: Scope, key: str) -> bool:
    """Whether anything that may have the connection ends a transaction: the class, or a function that names it."""
    class_ = scope.class_() if key.startswith("self.") else None
    if class_ is not None:
        return _is_ended_in(class_.node)
    for one in scope.module.scopes.values():
        named = any(isinstance(node, ast.Name) and node.id == key for node in one.own)
        if named and (_is_ended_in_all(one.own) or _is_handed_on(one, key)):
            return True
    return False


def _is_ended_in(around: ast.AST) -> bool:
    return _is_ended_in_all(ast.walk(around))


def _is_ended_in_all(nodes: Iterable[ast.AST]) -> bool:
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr in _ENDING_METHODS:
            return True
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _END.match(node.value.strip()):
            return True
        if isinstance(node, ast.withitem) and isinstance(node.context_expr, (ast.Name, ast.Attribute)):
            return True
    return False


def _lives(facts: Facts, scope: Scope, key: str) -> bool:
    """Whether the program surely runs on: it serves requests, or the object has a loop without an end."""
    if any(not _is_of_lambda(one) for one in facts.per_request.values()):
        return True
    class_ = scope.class_() if key.startswith("self.") else None
    return class_ is not None and any(_runs_on(one) for one in class_.inside)


def _is_of_lambda(handler: ast.AST) -> bool:
    """There a process has one request at a time, and is frozen after it."""
    assert isinstance(handler, FunctionNode)
    return [one.arg for one in handler.args.args][:1] == ["event"]


def _runs_on(method: Scope) -> bool:
    """A method that loops for ever and sleeps: a daemon."""
    return any(
        isinstance(node, ast.While)
        and isinstance(node.test, ast.Constant)
        and any(isinstance(one, ast.Call) and last_name(one.func) in _SLEEPS for one in ast.walk(node))
        for node in method.own
    )
