"""What names stand for: imports, aliases, and what the things are that variables hold.

A scope is a module, a class or a function. A name is looked up as Python does, but for the order of time: a variable
that is several things in turn is known by those that are known of it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .catalog import Thing
from .source import Source

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_BINDING = (
    *(ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.NamedExpr, ast.With, ast.AsyncWith),
    *(ast.For, ast.AsyncFor, ast.Global, ast.Nonlocal),
)
# Of each kind of node, the fields that have nodes in them which anything is looked for in.
_FIELDS = {
    kind: [name for name in kind._fields if name not in ("ctx", "op", "ops", "type_comment", "kind", "annotation")]
    for kind in vars(ast).values()
    if isinstance(kind, type) and issubclass(kind, ast.AST)
}
for _kind, _plain in (
    *((kind, ("id", "arg", "name", "asname", "module", "level", "attr", "value", "names", "conversion", "simple"))
      for kind in (ast.Name, ast.alias, ast.Import, ast.ImportFrom, ast.Constant, ast.Global, ast.Nonlocal, ast.arg,
                   ast.MatchSingleton)),
    *((kind, ("arg", "attr", "name", "conversion", "simple", "is_async", "rest", "id"))
      for kind in (ast.keyword, ast.Attribute, ast.ExceptHandler, ast.FormattedValue, ast.AnnAssign, ast.comprehension,
                   ast.MatchMapping, ast.MatchStar, ast.MatchAs)),
):  # fmt: skip
    _FIELDS[_kind] = [name for name in _FIELDS[_kind] if name not in _plain]

# What a parameter's annotation says it is.
ANNOTATIONS = {
    "psycopg2.extensions.connection": "psycopg2_connection",
    "psycopg.Connection": "psycopg_connection",
    "psycopg.AsyncConnection": "psycopg_aconnection",
    "psycopg_pool.ConnectionPool": "psycopg_pool",
    "psycopg_pool.AsyncConnectionPool": "psycopg_apool",
    "psycopg2.pool.ThreadedConnectionPool": "psycopg2_pool",
    "psycopg2.pool.SimpleConnectionPool": "psycopg2_pool",
    "psycopg2.pool.AbstractConnectionPool": "psycopg2_pool",
    "asyncpg.Connection": "asyncpg_connection",
    "asyncpg.Pool": "asyncpg_pool",
    "asyncpg.pool.Pool": "asyncpg_pool",
    "aiomysql.Pool": "aiomysql_pool",
    "aiomysql.Connection": "aiomysql_connection",
    "aiopg.Pool": "aiopg_pool",
    "pymysql.Connection": "pymysql_connection",
    "pymysql.connections.Connection": "pymysql_connection",
    "sqlite3.Connection": "sqlite3_connection",
    "sqlalchemy.Engine": "sqlalchemy_engine",
    "sqlalchemy.engine.Engine": "sqlalchemy_engine",
    "sqlalchemy.engine.base.Engine": "sqlalchemy_engine",
    "sqlalchemy.Connection": "sqlalchemy_checkout",
    "sqlalchemy.engine.Connection": "sqlalchemy_checkout",
    "sqlalchemy.ext.asyncio.AsyncEngine": "sqlalchemy_aengine",
    "sqlalchemy.ext.asyncio.AsyncConnection": "sqlalchemy_acheckout",
    "sqlalchemy.ext.asyncio.AsyncSession": "sqlalchemy_asession",
    "sqlalchemy.ext.asyncio.async_sessionmaker": "sqlalchemy_afactory",
    "sqlalchemy.orm.Session": "sqlalchemy_session",
    "sqlalchemy.orm.sessionmaker": "sqlalchemy_factory",
    "sqlmodel.Session": "sqlalchemy_session",
    "requests.Session": "requests_session",
    "requests.sessions.Session": "requests_session",
    "httpx.Client": "httpx_client",
    "httpx.AsyncClient": "httpx_aclient",
    "aiohttp.ClientSession": "aiohttp_client",
    "redis.Redis": "redis_client",
    "redis.asyncio.Redis": "redis_aclient",
}


@dataclass(slots=True, eq=False)
class Scope:
    """*bound*: by name, what has been bound to it here: expressions, full names of imports, or definitions."""

    node: ast.AST
    module: Module
    parent: Scope | None
    bound: dict[str, list[ast.AST | str]] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)  # declared global or nonlocal
    inside: list[Scope] = field(default_factory=list)
    own: list[ast.AST] = field(default_factory=list)  # its nodes, those of scopes within it left out
    calls: list[ast.Call] = field(default_factory=list)  # of them
    attributes: dict[str, list[ast.expr]] = field(default_factory=dict)  # of a class: what is assigned to self's

    def outer(self) -> Scope | None:
        """Where a name that is not bound here is looked up: a class's names are not its methods'."""
        scope = self.parent
        while scope is not None and isinstance(scope.node, ast.ClassDef):
            scope = scope.parent
        return scope

    def class_(self) -> Scope | None:
        """The class that `self` is of, in this method or in a function within it."""
        scope: Scope | None = self
        while scope is not None and not isinstance(scope.node, ast.ClassDef):
            scope = scope.parent
        return scope


@dataclass(slots=True)
class Known:
    """What the project found out about a file's calls and functions. It goes when the file's tree does."""

    fresh: dict[ast.AST, Thing | None] = field(default_factory=dict)
    given: dict[ast.AST, Thing | None] = field(default_factory=dict)
    returned: dict[ast.AST, Thing | None] = field(default_factory=dict)
    names: dict[tuple[Scope, str], str | None] = field(default_factory=dict)
    things: dict[tuple[Scope, str], Thing | None] = field(default_factory=dict)
    opened: dict[ast.AST, dict[str, Thing]] = field(default_factory=dict)
    closed: frozenset[str] | None = None  # see guesses
    imported: frozenset[str] | None = None  # names at the top, and all that they begin with


class Module:
    """A file's scopes. *functions* and *classes* by their names as others would import them."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.known = Known()
        self.scopes: dict[ast.AST, Scope] = {}
        self.homes: dict[ast.AST, Scope] = {}  # of what is assigned to an attribute: where its names are looked up
        self.top = self._scope(source.tree, None)
        self._bind_all(self.top, source.tree.body)

    def imports(self, *packages: str) -> bool:
        """Whether it imports one of *packages*, or something of it, at its top."""
        if self.known.imported is None:
            names = [one for bound in self.top.bound.values() for one in bound if isinstance(one, str)]
            self.known.imported = frozenset(
                name[:end] for name in names for end in (*(i for i, sign in enumerate(name) if sign == "."), None)
            )
        return any(package in self.known.imported for package in packages)

    def functions(self) -> Iterator[Scope]:
        return (scope for scope in self.scopes.values() if isinstance(scope.node, FunctionNode))

    # ------------------------------------------------------------------------------------------ building

    def _scope(self, node: ast.AST, parent: Scope | None) -> Scope:
        scope = self.scopes[node] = Scope(node, self, parent)
        if parent is not None:
            parent.inside.append(scope)
        return scope

    def _bind_all(self, scope: Scope, body: Sequence[ast.AST]) -> None:
        waiting: list[ast.AST] = list(reversed(body))
        own, calls = scope.own, scope.calls
        while waiting:
            node = waiting.pop()
            kind = type(node)
            own.append(node)
            if kind in _SCOPES:
                self._define(scope, node)
                continue
            if kind is ast.Call:
                calls.append(node)  # type: ignore[arg-type]
            elif kind in _BINDING:
                self._bind(scope, node)
            for name in _FIELDS[kind]:
                value = getattr(node, name)
                if type(value) is list:
                    waiting.extend([one for one in reversed(value) if one is not None and type(one) is not str])
                elif value is not None:
                    waiting.append(value)

    def _define(self, scope: Scope, node: ast.AST) -> None:
        inner = self._scope(node, scope)
        outside = [*getattr(node, "decorator_list", ()), *getattr(node, "bases", ()), *getattr(node, "keywords", ())]
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            outside += [one for one in (*node.args.defaults, *node.args.kw_defaults) if one is not None]
        if outside:
            self._bind_all(scope, outside)  # evaluated where it is defined
        if isinstance(node, ast.Lambda):
            for argument in _arguments(node.args):
                inner.bound.setdefault(argument.arg, []).append(argument)
            self._bind_all(inner, [node.body])
            return
        assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        scope.bound.setdefault(node.name, []).append(node)
        if not isinstance(node, ast.ClassDef):
            for argument in _arguments(node.args):
                inner.bound.setdefault(argument.arg, []).append(argument)
        self._bind_all(inner, node.body)

    def _bind(self, scope: Scope, node: ast.AST) -> None:
        match node:
            case ast.Import():
                for alias in node.names:
                    name = alias.asname or alias.name.partition(".")[0]
                    scope.bound.setdefault(name, []).append(alias.name if alias.asname else name)
            case ast.ImportFrom():
                stem = self._absolute(node)
                for alias in node.names:
                    scope.bound.setdefault(alias.asname or alias.name, []).append(f"{stem}.{alias.name}")
            case ast.Assign():
                for target in node.targets:
                    self._assign(scope, target, node.value)
            case ast.AnnAssign():
                self._assign(scope, node.target, node.value if node.value is not None else node.annotation)
            case ast.NamedExpr():
                self._assign(scope, node.target, node.value)
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    if item.optional_vars is not None:
                        self._assign(scope, item.optional_vars, item)
            case ast.For() | ast.AsyncFor():
                self._assign(scope, node.target, node)
            case ast.Global() | ast.Nonlocal():
                scope.elsewhere.update(node.names)

    def _assign(self, scope: Scope, target: ast.expr, value: ast.AST) -> None:
        match target:
            case ast.Name(id=name):
                scope.bound.setdefault(name, []).append(value)
                if name in scope.elsewhere:
                    self.top.bound.setdefault(name, []).append(value)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name) if isinstance(value, ast.expr):
                class_ = scope.class_()
                if class_ is not None:
                    class_.attributes.setdefault(name, []).append(value)
                    self.homes[value] = scope
            case ast.Tuple(elts=targets) | ast.List(elts=targets):
                values = value.elts if isinstance(value, (ast.Tuple, ast.List)) else []
                for index, inner in enumerate(targets):
                    self._assign(scope, inner, values[index] if len(values) == len(targets) else ast.Pass())

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        package = self.source.module.split(".")[: -node.level]
        return ".".join([*package, *filter(None, [node.module])])


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    extra = [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *extra]
