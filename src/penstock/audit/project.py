"""All files of an audit together: what a name of one stands for in another, and what a value is."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Iterable
from dataclasses import replace

from . import catalog, guesses
from .calls import WORDS, last_name
from .catalog import Role, Thing
from .names import ANNOTATIONS, FunctionNode, Module, Scope

_ENDS = frozenset({"close", "aclose", "release", "disconnect", "terminate", "invalidate"})
_DEEPEST = 12  # steps from a name to what it stands for: code that is made to confuse has no end


class Project:
    """What is known of the files as one program."""

    def __init__(self, named: Callable[[str], Module | None]) -> None:
        self._module = named  # the file that is imported by a name, if one of the program's is
        self._under_way: set[ast.AST] = set()

    # ------------------------------------------------------------------------------------------ names

    def full(self, expr: ast.AST, scope: Scope, depth: int = 0) -> str | None:
        """The full name of what *expr* is, such as psycopg2.connect; None if that is not known."""
        if depth > _DEEPEST:
            return None
        if isinstance(expr, ast.Attribute):
            base = self.full(expr.value, scope, depth + 1)
            return None if base is None else f"{base}.{expr.attr}"
        if not isinstance(expr, ast.Name):
            return None
        where: Scope | None = scope
        while where is not None:
            if expr.id in where.bound and expr.id not in where.elsewhere:
                return self._full_of(where, expr.id, depth + 1)
            where = where.outer()
        return expr.id if expr.id in _BUILTINS else None

    def _full_of(self, scope: Scope, name: str, depth: int) -> str | None:
        known = scope.module.known.names
        if (scope, name) not in known and depth <= _DEEPEST:
            known[scope, name] = None  # until it is known, a name that is bound to itself says nothing
            names = {found for one in scope.bound[name] if (found := self._one_full(one, scope, depth)) is not None}
            known[scope, name] = min(names, default=None)
        return known.get((scope, name))

    def _one_full(self, one: ast.AST | str, scope: Scope, depth: int) -> str | None:
        if isinstance(one, str):
            return self._through(one, depth + 1)
        if isinstance(one, (ast.Name, ast.Attribute)):
            return self.full(one, scope, depth + 1)
        return None

    def _through(self, name: str, depth: int) -> str:
        """*name*, which another file of the project may have imported from where it is."""
        stem, _, last = name.rpartition(".")
        module = self._module(stem) if stem else None
        if module is None or depth > _DEEPEST or last not in module.top.bound:
            return name
        return self._full_of(module.top, last, depth + 1) or name

    def definition(self, expr: ast.AST, scope: Scope, depth: int = 0) -> Scope | None:
        """The function or class of the project that *expr* names; of a method, where self's class is known."""
        if isinstance(expr, ast.Attribute) and isinstance(expr.value, ast.Name) and expr.value.id in ("self", "cls"):
            class_ = scope.class_()
            return None if class_ is None else self.method(class_, expr.attr)
        if isinstance(expr, ast.Name):
            where: Scope | None = scope
            while where is not None:
                if expr.id in where.bound:
                    return self._defined(where.bound[expr.id], where, depth)
                where = where.outer()
            return None
        if isinstance(expr, ast.Attribute):
            owner = self.definition(expr.value, scope, depth + 1)
            if owner is not None and isinstance(owner.node, ast.ClassDef):
                return self.method(owner, expr.attr)
            name = self.full(expr, scope)
            return None if name is None else self._named(name, depth)
        return None

    def method(self, class_: Scope, name: str, depth: int = 0) -> Scope | None:
        for inner in class_.inside:
            if isinstance(inner.node, FunctionNode) and inner.node.name == name:
                return inner
        if depth > 4:
            return None
        assert isinstance(class_.node, ast.ClassDef)
        for base in class_.node.bases:
            parent = self.definition(base, class_.parent or class_)
            if parent is not None and isinstance(parent.node, ast.ClassDef) and parent is not class_:
                found = self.method(parent, name, depth + 1)
                if found is not None:
                    return found
        return None

    def _defined(self, bound: list[ast.AST | str], scope: Scope, depth: int) -> Scope | None:
        for one in bound:
            if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                return scope.module.scopes[one]
            if isinstance(one, str):
                return self._named(one, depth)
        return None

    def _named(self, name: str, depth: int) -> Scope | None:
        stem, _, last = name.rpartition(".")
        module = self._module(stem) if stem else None
        if module is None or depth > _DEEPEST:
            return None
        return self._defined(module.top.bound.get(last, []), module.top, depth + 1)

    # ------------------------------------------------------------------------------------------ things

    def thing(self, expr: ast.AST | None, scope: Scope, depth: int = 0) -> Thing | None:
        """What *expr* gives, if it is one of the things that the catalog knows."""
        if expr is None or depth > _DEEPEST:
            return None
        match expr:
            case ast.Await(value=value) | ast.NamedExpr(value=value):
                return self.thing(value, scope, depth + 1)
            case ast.Call():
                return self._of_call(expr, scope, depth)
            case ast.Name(id=name):
                return self._of_name(name, scope, depth) or guesses.of_name(name, scope)
            case ast.Attribute():
                return self._of_attribute(expr, scope, depth) or guesses.of_attribute(expr, scope)
            case ast.BoolOp(values=values):
                return self._first(values, scope, depth)
            case ast.IfExp(body=body, orelse=orelse):
                return self._first([body, orelse], scope, depth)
        return None

    def _first(self, expressions: Iterable[ast.expr], scope: Scope, depth: int) -> Thing | None:
        found = (self.thing(one, scope, depth + 1) for one in expressions)
        return next((one for one in found if one is not None), None)

    def _of_call(self, call: ast.Call, scope: Scope, depth: int) -> Thing | None:
        name = self.full(call.func, scope)
        if name is not None and (made := catalog.calls().get(name)) is not None:
            return _as_called(made, call)
        if isinstance(call.func, ast.Attribute):
            owner = self.thing(call.func.value, scope, depth + 1)
            if owner is not None:
                return owner.made_by(call.func.attr)
        called = self.thing(call.func, scope, depth + 1)
        if called is not None and called.role is Role.FACTORY:
            return called.made_by("__call__")
        function = self.definition(call.func, scope)
        if function is not None and isinstance(function.node, FunctionNode):
            return self.returned(function, depth + 1)
        return None

    def _of_name(self, name: str, scope: Scope, depth: int) -> Thing | None:
        where: Scope | None = scope
        while where is not None:
            if name in where.bound and name not in where.elsewhere:
                return self._bound_thing(where, name, depth)
            where = where.outer()
        return None

    def _bound_thing(self, scope: Scope, name: str, depth: int) -> Thing | None:
        known = scope.module.known.things
        if (scope, name) not in known and depth < _DEEPEST:
            known[scope, name] = None  # see `_full_of`
            found = (self._one_thing(one, scope, depth + 1) for one in scope.bound.get(name, ()))
            known[scope, name] = next((one for one in found if one is not None), None)
        return known.get((scope, name))

    def _one_thing(self, one: ast.AST | str, scope: Scope, depth: int) -> Thing | None:
        if depth > _DEEPEST:
            return None
        if isinstance(one, str):
            stem, _, last = one.rpartition(".")
            module = self._module(stem) if stem else None
            if module is None or last not in module.top.bound:
                return None
            return self._bound_thing(module.top, last, depth + 1)
        if isinstance(one, ast.arg):
            return self.annotated(one.annotation, scope)
        if isinstance(one, ast.withitem):
            made = self.thing(one.context_expr, scope, depth + 1)
            return _entered(made)
        return self.thing(one, scope, depth + 1) or (
            self.annotated(one, scope) if isinstance(one, (ast.Name, ast.Attribute, ast.Subscript)) else None
        )

    def _of_attribute(self, expr: ast.Attribute, scope: Scope, depth: int) -> Thing | None:
        if isinstance(expr.value, ast.Name) and expr.value.id in ("self", "cls"):
            class_ = scope.class_()
            return None if class_ is None else self._of_class(class_, expr.attr, depth)
        name = self.full(expr, scope)
        if name is not None:
            return self._one_thing(name, scope, depth + 1)
        return None

    def _of_class(self, class_: Scope, attribute: str, depth: int) -> Thing | None:
        for value in class_.attributes.get(attribute, ()):
            found = self.thing(value, class_.module.homes.get(value, class_), depth + 1)
            if found is not None:
                return found
        return self._bound_thing(class_, attribute, depth)

    # ------------------------------------------------------------------------------------------ who owns what

    def fresh(self, expr: ast.AST | None, scope: Scope, depth: int = 0) -> Thing | None:
        """What *expr* makes, or is given by a function that made it: whoever evaluates it has to end it."""
        if depth > _DEEPEST:
            return None
        match expr:
            case ast.Await(value=value) | ast.NamedExpr(value=value):
                return self.fresh(value, scope, depth + 1)
            case ast.Call():
                known = scope.module.known.fresh
                if expr not in known:
                    known[expr] = self._fresh_call(expr, scope, depth)
                return known[expr]
            case ast.IfExp(body=body, orelse=orelse):
                return self.fresh(body, scope, depth + 1) or self.fresh(orelse, scope, depth + 1)
            case ast.BoolOp(values=values):
                return self.fresh(values[-1], scope, depth + 1)
        return None

    def _fresh_call(self, expr: ast.Call, scope: Scope, depth: int) -> Thing | None:
        func = expr.func
        name = self.full(func, scope)
        if name is not None and (made := catalog.calls().get(name)) is not None:
            return _as_called(made, expr)
        if isinstance(func, ast.Attribute):
            if func.attr == "execution_options":  # the same one again
                return None
            if func.attr in catalog.methods():
                owner = self.thing(func.value, scope)
                if owner is not None and (made := owner.made_by(func.attr)) is not None:
                    return made
        else:
            called = self.thing(func, scope)
            if called is not None and called.role is Role.FACTORY:
                return called.made_by("__call__")
        function = self.definition(func, scope)
        if function is not None and isinstance(function.node, FunctionNode):
            return self.gives(function, depth + 1)
        if function is not None and isinstance(function.node, ast.ClassDef):
            return self.wrapped(function)
        if isinstance(func, ast.Attribute):
            called = self.thing(func, scope)
            if called is not None and called.role is Role.FACTORY:
                return called.made_by("__call__")
        return guesses.of_call(expr, scope) if function is None else None

    def parts(self, call: ast.Call, scope: Scope) -> list[Thing | None]:
        """Of a function of the project that gives several at once (``conn, cursor = connect()``): what each is."""
        function = self.definition(call.func, scope)
        if function is None or not isinstance(function.node, FunctionNode) or function.node in self._under_way:
            return []
        if any(_remembers(one) for one in function.node.decorator_list):
            return []
        self._under_way.add(function.node)
        try:
            for one in function.own:
                if isinstance(one, ast.Return) and isinstance(one.value, ast.Tuple):
                    return [self._part(part, function) for part in one.value.elts]
        finally:
            self._under_way.discard(function.node)
        return []

    def _part(self, part: ast.expr, function: Scope) -> Thing | None:
        return self._fresh_here(part, function, 1)

    def closed_here(self, function: Scope) -> frozenset[str]:
        """The attributes of its own object (``self.conn``) that a function closes, where no other method does.

        Such a one is as good as a variable of the function: nobody else would end it.
        """
        class_ = function.class_()
        if class_ is None:
            return frozenset()
        mine = self.closes(function)
        if not mine:
            return frozenset()
        opening = {name for name in mine if self._opens_nothing_else(class_, name)}
        return frozenset(opening)

    def _opens_nothing_else(self, class_: Scope, name: str) -> bool:
        """Whether no method ends *name* that is not one of those that work with it."""
        return not any(
            name in self.closes(method) and not self._works_with(method, name)
            for method in class_.inside
            if isinstance(method.node, FunctionNode)
        )

    def _works_with(self, method: Scope, name: str) -> bool:
        """Whether it opens *name* itself, or asks another method to."""
        if name in self.opens(method):
            return True
        asked = [call.func for call in method.calls if last_name(getattr(call.func, "value", None)) == "self"]
        called = [self.definition(func, method) for func in asked]
        return any(name in self.opens(one) for one in called if one is not None and isinstance(one.node, FunctionNode))

    def wrapped(self, class_: Scope) -> Thing | None:
        """What an instance of a class has to be ended for: the connection that it opens as it is made.

        A class with a base is left alone, as the base may end it; so is one that ends it in ``__del__``, and one that
        has no way to end it: then the program is meant to have one for as long as it lives.
        """
        node = class_.node
        assert isinstance(node, ast.ClassDef)
        methods = {one.node.name: one for one in class_.inside if isinstance(one.node, FunctionNode)}
        if node.bases or node.keywords or node.decorator_list or "__init__" not in methods or "__del__" in methods:
            return None
        opened = self.opens(methods["__init__"])
        if len(opened) != 1:
            return None
        (attribute, thing), *_ = opened.items()
        ends = {name for name, method in methods.items() if attribute in self.closes(method) and name != "__init__"}
        if not ends or thing.role is not Role.CONNECTION or thing.library == "sqlite3":
            return None
        return replace(thing, ends=frozenset(ends), with_ends="__exit__" in ends, awaited=False, makes=())

    def closes(self, function: Scope) -> frozenset[str]:
        """The attributes of its own object that a function calls an end of, or gives back."""
        found = set()
        for call in function.calls:
            func = call.func
            if not isinstance(func, ast.Attribute):
                continue
            word = func.attr.lower()
            if word in _ENDS and isinstance(func.value, ast.Attribute) and last_name(func.value.value) == "self":
                found.add(f"self.{func.value.attr}")
            if any(end in word for end in WORDS["ending"]):
                found.update(
                    f"self.{one.attr}"
                    for one in call.args
                    if isinstance(one, ast.Attribute) and last_name(one.value) == "self"
                )
        return frozenset(found)

    def opens(self, function: Scope) -> dict[str, Thing]:
        """What a method makes and stores on its own object, whatever is there already."""
        class_ = function.class_()
        if class_ is None:
            return {}
        known = function.module.known.opened
        if function.node in known:
            return known[function.node]
        known[function.node] = found = {}
        tested = {
            one.attr
            for node in function.own
            if isinstance(node, (ast.If, ast.IfExp, ast.While))
            for one in ast.walk(node.test)
            if isinstance(one, ast.Attribute)
        }
        for name, values in class_.attributes.items():
            for value in values:
                if name in tested or class_.module.homes.get(value) is not function:
                    continue
                thing = self.fresh(value, function)
                if thing is not None and thing.role in catalog.LENT:
                    found[f"self.{name}"] = thing
        return found

    def made(self, call: ast.Call, scope: Scope) -> Thing | None:
        """What *call* makes by itself, no function of the project between."""
        name = self.full(call.func, scope)
        made = None if name is None else catalog.calls().get(name)
        return None if made is None else _as_called(made, call)

    def gives(self, function: Scope, depth: int = 0) -> Thing | None:
        """What a function of the project makes and hands to whoever calls it; what it keeps itself it does not give."""
        node = function.node
        known = function.module.known.given
        if node in known:
            return known[node]
        if node in self._under_way or depth > _DEEPEST:
            return None
        self._under_way.add(node)
        try:
            known[node] = found = self._what_gives(function, depth)
        finally:
            self._under_way.discard(node)
        return found

    def _what_gives(self, function: Scope, depth: int) -> Thing | None:
        node = function.node
        assert isinstance(node, FunctionNode)
        if any(_remembers(one) for one in node.decorator_list):
            return None
        found: Thing | None = None
        for one in function.own:
            if isinstance(one, (ast.Yield, ast.YieldFrom)):
                return None
            if isinstance(one, ast.Return) and one.value is not None:
                given = self._fresh_here(one.value, function, depth)
                if given is None and not (isinstance(one.value, ast.Constant) and one.value.value is None):
                    return None
                found = found or given
        return found

    def _fresh_here(self, expr: ast.expr, function: Scope, depth: int) -> Thing | None:
        if not isinstance(expr, ast.Name):
            return self.fresh(expr, function, depth + 1)
        if expr.id in function.elsewhere or _is_stored(expr.id, function):
            return None
        found: Thing | None = None
        for one in function.bound.get(expr.id, ()):
            if isinstance(one, ast.Constant) and one.value is None:
                continue
            given = self.fresh(one, function, depth + 1) if isinstance(one, ast.expr) else None
            if given is None:
                return None
            found = given
        return found

    def takes_over(self, function: Scope, call: ast.Call, argument: ast.expr) -> bool:
        """Whether a function or class of the project ends what it is given as *argument*, or keeps it."""
        node = function.node
        if isinstance(node, ast.ClassDef):
            return True
        assert isinstance(node, FunctionNode)
        parameter = _parameter(node, call, argument)
        return parameter is None or _ends_or_keeps(parameter, function)

    # ------------------------------------------------------------------------------------------ annotations

    def annotated(self, annotation: ast.AST | None, scope: Scope) -> Thing | None:
        """What an annotation says, through Optional, Annotated and `| None`."""
        match annotation:
            case ast.Subscript(value=value, slice=inner):
                name = self.full(value, scope) or ""
                if name.rpartition(".")[2] in ("Optional", "Annotated", "Union"):
                    parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
                    return next((one for part in parts if (one := self.annotated(part, scope)) is not None), None)
                return self.annotated(value, scope)
            case ast.BinOp(left=left, right=right):
                return self.annotated(left, scope) or self.annotated(right, scope)
            case ast.Constant(value=str(text)):
                try:
                    return self.annotated(ast.parse(text, mode="eval").body, scope)
                except SyntaxError:
                    return None
            case ast.Name() | ast.Attribute():
                known = ANNOTATIONS.get(self.full(annotation, scope) or "")
                return None if known is None else catalog.things()[known]
        return None

    def returned(self, function: Scope, depth: int = 0) -> Thing | None:
        """What a function of the project gives to whoever calls it, if he has to end it."""
        node = function.node
        known = function.module.known.returned
        if node in known:
            return known[node]
        if node in self._under_way or depth > _DEEPEST:
            return None
        self._under_way.add(node)
        try:
            known[node] = found = self._what_returns(function, depth)
        finally:
            self._under_way.discard(node)
        return found

    def _what_returns(self, function: Scope, depth: int) -> Thing | None:
        found: Thing | None = None
        for node in function.own:
            if isinstance(node, (ast.Yield, ast.YieldFrom)):
                return None
            if isinstance(node, ast.Return) and node.value is not None and found is None:
                found = self.thing(node.value, function, depth + 1)
        return found


def _entered(made: Thing | None) -> Thing | None:
    if made is None or made.enters is None:
        return made
    return catalog.things()[made.enters]


def _as_called(made: Thing, call: ast.Call) -> Thing:
    """A few callables make one thing or another, by what they are given."""
    if made.name == "sqlalchemy_factory" and any(
        isinstance(word.value, ast.Name) and word.value.id == "AsyncSession" for word in call.keywords
    ):
        return catalog.things()["sqlalchemy_afactory"]
    if made.name == "mysql_connector_connection" and any(
        word.arg in ("pool_name", "pool_size") for word in call.keywords
    ):
        return catalog.things()["mysql_connector_checkout"]
    return made


def _remembers(decorator: ast.expr) -> bool:
    """Whether what a function returned once it returns again."""
    name = last_name(decorator.func if isinstance(decorator, ast.Call) else decorator)
    return any(
        word in name for word in ("cache", "memo", "singleton", "contextmanager", "fixture", "property", "resource")
    )


def _is_stored(name: str, function: Scope) -> bool:
    """Whether *name* is also kept somewhere that outlives the function."""
    for node in function.own:
        if isinstance(node, ast.Assign):
            names = {one.id for one in (node.value, *node.targets) if isinstance(one, ast.Name)}
            if name in names and any(isinstance(one, (ast.Attribute, ast.Subscript)) for one in node.targets):
                return True
    return False


def _parameter(node: FunctionNode, call: ast.Call, argument: ast.expr) -> str | None:
    """The name of the parameter that *argument* is for."""
    for word in call.keywords:
        if word.value is argument:
            return word.arg
    names = [one.arg for one in [*node.args.posonlyargs, *node.args.args]]
    if names[:1] in (["self"], ["cls"]) and isinstance(call.func, ast.Attribute):
        names = names[1:]
    if argument in call.args:
        index = call.args.index(argument)
        return names[index] if index < len(names) else None
    return None


def _ends_or_keeps(parameter: str, function: Scope) -> bool:
    for one in function.own:
        match one:
            case ast.Attribute(value=ast.Name(id=name), attr="close" | "release" | "aclose" | "disconnect" | "dispose"):
                if name == parameter:
                    return True
            case ast.Call(args=arguments):
                word = last_name(one.func)
                named = any(isinstance(argument, ast.Name) and argument.id == parameter for argument in arguments)
                if named and (word in WORDS["keeping"] or any(end in word.lower() for end in WORDS["ending"])):
                    return True
            case ast.Assign(targets=targets, value=ast.Name(id=name)) if name == parameter:
                if any(isinstance(target, (ast.Attribute, ast.Subscript)) for target in targets):
                    return True
            case ast.With(items=items) | ast.AsyncWith(items=items):
                for item in items:
                    if isinstance(item.context_expr, ast.Name) and item.context_expr.id == parameter:
                        return True
            case ast.Return(value=ast.Name(id=name)) | ast.Yield(value=ast.Name(id=name)) if name == parameter:
                return True
    return False


_BUILTINS = frozenset(dir(builtins))
