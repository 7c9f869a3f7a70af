"""A Python module as it is written: its calls by their real names, and what its literals come to. Nothing is run.

Only what is certain is evaluated: literals, names assigned once, `os.environ.get` and its like with the variables that
are known, and sums of those. Anything else is `Unknown` and says what it is.
"""

from __future__ import annotations

import ast
import copy
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .facts import Environment, Place, Unreadable, shown

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_CPUS = {"os.cpu_count", "multiprocessing.cpu_count", "os.process_cpu_count"}
_READS_VARIABLE = {"os.environ.get", "os.getenv", "decouple.config", "environ.Env", "os.environ.setdefault"}


@dataclass(frozen=True, slots=True)
class Unknown:
    """What stands where a value should be, and why it is not known."""

    why: str


@dataclass(frozen=True, slots=True)
class Call:
    """A call, by the full name of what is called."""

    name: str
    node: ast.Call
    place: Place


class Module:
    """A parsed module, with what a program that runs it has in its environment.

    :raises Unreadable: it is no Python that this interpreter can parse.
    """

    def __init__(self, text: str, file: str, environment: Environment | None = None) -> None:
        self.file = file
        self.environment = environment or Environment()
        try:
            self.tree = ast.parse(text)
        except SyntaxError as error:
            raise Unreadable(Place(file, error.lineno or 1), f"not read, no valid Python: {error.msg}") from None
        except (ValueError, RecursionError) as error:
            raise Unreadable(Place(file, 1), f"not read, no valid Python: {error}") from None
        self._imported = dict(_imports(self.tree))
        self._parents = {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}
        self._assigned: dict[ast.AST, dict[str, list[ast.expr | None]]] = {}
        calls: list[ast.Call] = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                calls.append(node)
            for name, value in _assignments(node):
                self._assigned.setdefault(self._scope(node), {}).setdefault(name, []).append(value)
        calls.sort(key=lambda each: (each.lineno, each.col_offset))
        self._calls = [Call(full, each, self.place(each)) for each in calls if (full := self.name(each.func))]

    def under(self, environment: Environment) -> Module:
        """The same module in another environment."""
        other = object.__new__(Module)
        other.__dict__.update(self.__dict__ | {"environment": environment})
        return other

    def place(self, node: ast.AST) -> Place:
        """Where *node* stands."""
        return Place(self.file, getattr(node, "lineno", 1))

    def calls(self) -> list[Call]:
        """Every call of something whose name is known, in the order of the file."""
        return self._calls

    def name(self, node: ast.expr) -> str | None:
        """The full dotted name of *node*, with imports resolved: ``sqlalchemy.create_engine``."""
        if isinstance(node, ast.Name):
            return self._imported.get(node.id, node.id)
        if isinstance(node, ast.Attribute) and (owner := self.name(node.value)):
            return f"{owner}.{node.attr}"
        return None

    def assignments(self, name: str) -> list[ast.expr]:
        """Every value that *name* is assigned at the top of the module."""
        return [value for value in self._assigned.get(self.tree, {}).get(name, []) if value is not None]

    def value(self, node: ast.expr) -> Any:
        """What *node* comes to, or `Unknown`."""
        return self._value(node, frozenset())

    def text(self, node: ast.expr) -> str:
        """*node* as it is written, on one line, shortened. Its strings are left out: one may be a password."""
        written = " ".join(ast.unparse(_Masked().visit(copy.deepcopy(node))).split())
        return written if len(written) <= 60 else written[:57] + "..."

    def _value(self, node: ast.expr, under_way: frozenset[int]) -> Any:
        """`value`, where the nodes *under_way* are what is being evaluated: one of them again is a circle."""
        if id(node) in under_way:
            return Unknown(f"{self.text(node)} is defined by itself")
        inside = under_way | {id(node)}
        match node:
            case ast.Constant(value=value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                value = self._value(operand, inside)
                return -value if isinstance(value, int | float) else value
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                return self._sum(_ARITHMETIC[type(op)], self._value(left, inside), self._value(right, inside), node)
            case ast.BoolOp(op=ast.Or(), values=values):
                return self._first_true([self._value(each, inside) for each in values])
            case ast.Dict(keys=keys, values=values):
                return self._dict(keys, values, inside)
            case ast.Name(id=name):
                return self._named(name, node, inside)
            case ast.Subscript(value=owner, slice=key) if self.name(owner) == "os.environ":
                return self._variable(self._value(key, inside), None, required=True)
            case ast.Subscript(value=owner, slice=key):
                return self._item(self._value(owner, inside), self._value(key, inside), node)
            case ast.Call():
                return self._called(node, inside)
        return Unknown(f"{self.text(node)} is no literal")

    def _named(self, name: str, node: ast.expr, inside: frozenset[int]) -> Any:
        scope: ast.AST | None = self._scope(node)
        while scope is not None:
            if name in (known := self._assigned.get(scope, {})):
                values = known[name]
                if len(values) == 1 and values[0] is not None:
                    return self._value(values[0], inside)
                given = "is a parameter" if None in values else "is assigned more than once"
                return Unknown(f"{name} {given}")
            scope = None if scope is self.tree else self._scope(self._parents[scope])
        came = self._imported.get(name)
        return Unknown(f"{name} comes from {came.rpartition('.')[0]}" if came else f"{name} is not assigned here")

    def _called(self, node: ast.Call, inside: frozenset[int]) -> Any:
        name = self.name(node.func) or ""
        given = [self._value(each, inside) for each in node.args]
        keywords = {each.arg: each.value for each in node.keywords if each.arg}
        if name == "dict" and not node.args and len(keywords) == len(node.keywords):
            return {key: self._value(value, inside) for key, value in keywords.items()}
        if name in ("int", "str", "bool", "float") and len(given) == 1:
            return _converted(name, given[0], self.text(node))
        if name in _CPUS:
            return Unknown(f"{self.text(node)} depends on the machine")
        if given and isinstance(given[0], str) and self._reads_variable(node, name):
            fallback = given[1] if len(given) > 1 else None
            if "default" in keywords:
                fallback = self._value(keywords["default"], inside)
            value = self._variable(given[0], fallback, required=False)
            whole = name.endswith(".int") or ("cast" in keywords and self.name(keywords["cast"]) == "int")
            return _converted("int", value, self.text(node)) if whole and value is not None else value
        return Unknown(f"{self.text(node)} is no literal")

    def _reads_variable(self, node: ast.Call, name: str) -> bool:
        """Whether it is `os.environ.get` or its like; also `env.int("X")` of environs and django-environ."""
        if name in _READS_VARIABLE:
            return True
        owner = node.func.value if isinstance(node.func, ast.Attribute) else node.func
        if not isinstance(owner, ast.Name) or (
            isinstance(node.func, ast.Attribute) and node.func.attr not in ("int", "str", "get", "bool")
        ):
            return False
        made = [each for each in self.assignments(owner.id) if isinstance(each, ast.Call)]
        return any(self.name(each.func) in ("environ.Env", "environs.Env", "environs.EnvBool") for each in made)

    def _variable(self, name: Any, fallback: Any, *, required: bool) -> Any:
        if not isinstance(name, str):
            return Unknown("the name of an environment variable is no literal")
        if not self.environment.knows(name):
            return Unknown(f"{name} is set where penstock cannot look")
        if (value := self.environment.get(name)) is not None:
            return value
        return Unknown(f"{name} is set nowhere in these files") if required or fallback is None else fallback

    def _dict(self, keys: list[ast.expr | None], values: list[ast.expr], inside: frozenset[int]) -> Any:
        found: dict[Any, Any] = {}
        for key, value in zip(keys, values, strict=True):
            if key is None:
                more = self._value(value, inside)
                if not isinstance(more, dict):
                    return Unknown(f"**{self.text(value)} is no literal")
                found |= more
                continue
            named = self._value(key, inside)
            if isinstance(named, str | int):
                found[named] = self._value(value, inside)
        return found

    def _item(self, owner: Any, key: Any, node: ast.expr) -> Any:
        if isinstance(owner, dict) and isinstance(key, str | int) and key in owner:
            return owner[key]
        return Unknown(f"{self.text(node)} is no literal")

    def _sum(self, add: Callable[[Any, Any], Any], left: Any, right: Any, node: ast.expr) -> Any:
        for side in (left, right):
            if isinstance(side, Unknown):
                return side
        if not (isinstance(left, int) and isinstance(right, int)):
            return Unknown(f"{self.text(node)} is no literal")
        try:
            return add(left, right)
        except ZeroDivisionError:
            return Unknown(f"{self.text(node)} divides by zero")

    @staticmethod
    def _first_true(values: list[Any]) -> Any:
        for value in values[:-1]:
            if isinstance(value, Unknown) and not value.why.endswith("set nowhere in these files"):
                return value
            if value and not isinstance(value, Unknown):
                return value
        return values[-1]

    def _scope(self, node: ast.AST) -> ast.AST:
        """The function (or module) whose names *node* sees; a parameter's scope is its function."""
        if isinstance(node, _FUNCTIONS):
            return node
        while node is not self.tree:
            node = self._parents[node]
            if isinstance(node, _FUNCTIONS):
                return node
        return self.tree


class _Masked(ast.NodeTransformer):
    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant("...") if isinstance(node.value, str | bytes) else node


def literal(value: Any) -> str:
    """*value* as it would be written, for people; what is unknown is a question mark."""
    return "?" if isinstance(value, Unknown) else shown(value)


def arguments(module: Module, node: ast.Call, positional: tuple[str, ...]) -> dict[str, Any] | Unknown:
    """What a call passes, by name; Unknown when a ``*`` or ``**`` hides it."""
    found: dict[str, Any] = {}
    for name, each in zip(positional, node.args, strict=False):
        if isinstance(each, ast.Starred):
            return Unknown(f"{module.text(each)} is no literal")
        found[name] = module.value(each)
    for keyword in node.keywords:
        if keyword.arg is not None:
            found[keyword.arg] = module.value(keyword.value)
            continue
        more = module.value(keyword.value)
        if not isinstance(more, dict):
            return Unknown(f"**{module.text(keyword.value)}: {more.why}" if isinstance(more, Unknown) else "**?")
        found |= more
    return found


def variable_of(module: Module, node: ast.expr | None) -> str | None:
    """The environment variable that *node* reads, as far as it is one: ``os.environ["DATABASE_URL"]``."""
    if isinstance(node, ast.Name):
        made = module.assignments(node.id)
        return variable_of(module, made[0]) if len(made) == 1 and not isinstance(made[0], ast.Name) else None
    if isinstance(node, ast.Subscript) and module.name(node.value) == "os.environ":
        named = module.value(node.slice)
    elif isinstance(node, ast.Call) and node.args and module.name(node.func) in _READS_VARIABLE:
        named = module.value(node.args[0])
    else:
        return None
    return named if isinstance(named, str) else None


def _converted(kind: str, value: Any, text: str) -> Any:
    if isinstance(value, Unknown):
        return value
    try:
        return {"int": int, "str": str, "bool": bool, "float": float}[kind](value)
    except (TypeError, ValueError):
        return Unknown(f"{text} is no number")


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Names that imports bind, wherever they stand, with the full name of what they are."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                yield (each.asname, each.name) if each.asname else (each.name.partition(".")[0],) * 2
        elif isinstance(node, ast.ImportFrom):
            for each in node.names:
                yield each.asname or each.name, f"{'.' * node.level}{node.module or ''}.{each.name}".lstrip(".")


def _assignments(node: ast.AST) -> Iterator[tuple[str, ast.expr | None]]:
    """Names that *node* binds itself, with the value when it is plain to see."""
    match node:
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                if isinstance(target, ast.Name):
                    yield target.id, value
                else:
                    yield from ((name, None) for name in _stored(target))
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            yield name, value
        case ast.AugAssign(target=ast.Name(id=name)) | ast.NamedExpr(target=ast.Name(id=name)):
            yield name, None
        case ast.For(target=target) | ast.AsyncFor(target=target) | ast.withitem(optional_vars=ast.expr() as target):
            yield from ((name, None) for name in _stored(target))
        case ast.arg(arg=name):
            yield name, None


def _stored(target: ast.expr) -> Iterator[str]:
    return (each.id for each in ast.walk(target) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store))
