"""Follows what a function takes through its branches, loops, exceptions and `with` blocks, to every way out of it.

A function is walked statement by statement with a set of states: what is held, and which name stands for what. A call
may raise, so the states before it leave by the exception's way too. States that are equal are one; there are at most
`_MOST` of them, and past that the oldest are dropped: what is not known is not told.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, cast

from .calls import WORDS, cannot_raise, last_name
from .catalog import Role, Thing
from .names import FunctionNode, Scope
from .project import Project

_PASSING_ON = ("enter_context", "enter_async_context", "closing", "aclosing")  # what they are given, they give

_SAME_AGAIN = ("execution_options", "__enter__", "__aenter__")  # methods that give their own object
_CLOSING = ("closing", "aclosing")

_MOST = 48  # states at one point
# States that are taken through a statement, larger ones counted as several; past that nothing is told of a function.
# Of Django's, SQLAlchemy's and Celery's functions the one with the most ways through it takes a quarter of this.
MOST_WORK = 15_000
_ROUNDS = 2  # of a loop: what the second one does every further one does


class Constant(NamedTuple):
    """A value of which a branch may depend."""

    value: object  # None, True or False; an ellipsis for anything but None


class Taken(NamedTuple):
    """Something that must be given back. Of two from one place in the code, the second makes the first forgotten."""

    site: ast.Call
    thing: Thing
    origin: ast.Call | None = None  # of a cursor: the connection it was made on


@dataclass(frozen=True, slots=True)
class State:
    """*held*: what is taken and not given back. *kept*: of it, what a `with` will give back. *names*: what they are."""

    held: frozenset[Taken] = frozenset()
    kept: frozenset[Taken] = frozenset()
    names: tuple[tuple[str, Taken | Constant], ...] = ()

    def value(self, name: str) -> Taken | Constant | None:
        return dict(self.names).get(name)

    def bound(self, name: str, value: Taken | Constant | None) -> State:
        names = dict(self.names)
        if value is None:
            if name not in names:
                return self
            del names[name]
        else:
            names[name] = value
        return replace(self, names=tuple(sorted(names.items(), key=lambda item: item[0])))

    def without(self, taken: Taken) -> State:
        return replace(self, held=self.held - {taken}, kept=self.kept - {taken})


class Lost(NamedTuple):
    """Something that was not given back on one way out. *after*: the call that raised, if that is how it left."""

    taken: Taken
    after: ast.AST | None
    swallowed: bool = False


class Called(NamedTuple):
    """A call, and what was held around it."""

    call: ast.Call
    held: frozenset[Taken]
    awaited: bool


States = dict[State, None]  # in the order they came


@dataclass(slots=True)
class Exits:
    """Where the states go that do not go on with the next statement."""

    raises: dict[State, ast.AST] = field(default_factory=dict)
    returns: States = field(default_factory=dict)
    breaks: States = field(default_factory=dict)
    continues: States = field(default_factory=dict)


@dataclass(slots=True)
class Followed:
    """What became known of a function."""

    lost: list[Lost] = field(default_factory=list)
    calls: list[Called] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)
    stored: list[tuple[Taken, ast.AST]] = field(default_factory=list)  # on an attribute, in a container
    given: set[Taken] = field(default_factory=set)  # to whoever called


def follow(function: Scope, project: Project) -> Followed:
    """Follow what *function* takes. Calls itself for no other function; what others do is `project`'s to know."""
    takes = any(project.fresh(call, function) or project.parts(call, function) for call in function.calls)
    if not takes and not project.closed_here(function):
        return Followed()
    try:
        return _Walk(function, project).walk()
    except TooMuch:
        return Followed()


class TooMuch(Exception):
    """A function has more ways through it than can be followed in the time that a file may take."""


class _Walk:
    def __init__(self, function: Scope, project: Project) -> None:
        self.function = function
        self.project = project
        self.found = Followed()
        self.captured = _captured(function)
        self._calls: dict[ast.Call, set[Taken]] = {}
        self._lost: set[tuple[Taken, bool]] = set()  # what is lost, and whether without an exception
        self._work = 0
        self._awaited: set[ast.Call] = set()
        self._takes: dict[ast.Call, Thing | None] = {}
        self._parts: dict[ast.Call, list[Thing | None]] = {}
        self._raises_at_yield = raises_at_yield(function)
        self._own = project.closed_here(function)
        self._told = _told_by(function)
        self._collected = _collected(function)
        self._receivers = {
            call.func.value
            for call in function.calls
            if isinstance(call.func, ast.Attribute) and any(word in call.func.attr for word in WORDS["ending"])
        }  # of calls that give back: `get_pool().putconn(conn)`

    def walk(self) -> Followed:
        node = self.function.node
        assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        exits = Exits()
        after = self._block(node.body, {State(): None}, exits)
        for state in {**after, **exits.returns}:
            self._lose(self._left_on_self(state), None)
        for state, why in exits.raises.items():
            self._lose(state, why)
        for call, held in self._calls.items():
            self.found.calls.append(Called(call, frozenset(held), call in self._awaited))
        return self.found

    def _left_on_self(self, state: State) -> State:
        """What stands on its own object when the function is done is that object's."""
        for name, what in state.names:
            if name in self._own and isinstance(what, Taken) and what in state.held:
                self.found.stored.append((what, self.function.node))
                state = state.without(what)
        return state

    def _lose(self, state: State, why: ast.AST | None) -> None:
        for taken in state.held - state.kept:
            if (taken, why is None) not in self._lost:
                self._lost.add((taken, why is None))
                self.found.lost.append(Lost(taken, why))

    # ------------------------------------------------------------------------------------------ statements

    def _block(self, body: Sequence[ast.stmt], states: States, exits: Exits) -> States:
        for statement in body:
            if not states:
                return states
            states = _fewer(self._statement(statement, states, exits))
        return states

    def _statement(self, node: ast.stmt, states: States, exits: Exits) -> States:
        self._work += len(states) + sum(len(state.names) for state in states) // 8
        if self._work > MOST_WORK:
            raise TooMuch
        match node:
            case ast.Assign(targets=targets, value=value):
                return self._assign(targets, value, states, exits)
            case ast.AnnAssign(target=target, value=value) if value is not None:
                return self._assign([target], value, states, exits)
            case ast.Return(value=value):
                for state in self._value(value, states, exits, given=True):
                    exits.returns[state] = None
                return {}
            case ast.Raise():
                return self._raise(node, states, exits)
            case ast.If():
                yes, no = self._test(node.test, states, exits)
                return {**self._block(node.body, yes, exits), **self._block(node.orelse, no, exits)}
            case ast.While() | ast.For() | ast.AsyncFor():
                return self._loop(node, states, exits)
            case ast.Try() | ast.TryStar():
                return self._try(node, states, exits)
            case ast.With() | ast.AsyncWith():
                return self._with(node, 0, states, exits)
            case ast.Match():
                states = self._value(node.subject, states, exits)
                after = dict(states)
                for case in node.cases:
                    after.update(self._block(case.body, states, exits))
                return after
            case ast.Break():
                exits.breaks.update(states)
                return {}
            case ast.Continue():
                exits.continues.update(states)
                return {}
            case ast.Delete(targets=targets):
                return self._delete(targets, states)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                return states
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        states = self._value(child, states, exits)
                return states

    def _assign(self, targets: list[ast.expr], value: ast.expr, states: States, exits: Exits) -> States:
        if len(targets) == 1 and isinstance(targets[0], ast.Tuple) and isinstance(value, ast.Tuple):
            pairs = list(zip(targets[0].elts, value.elts, strict=False))
            for target, one in pairs:
                states = self._assign([target], one, states, exits)
            return states
        # Such as `own = conn is None`, which later branches depend on.
        if _is_condition(value) and _asked_of(value) & self._told:
            yes, no = self._test(value, states, exits)
            bind = self._bind
            known = {bind(targets[0], Constant(True), state): None for state in yes}
            return {**known, **{bind(targets[0], Constant(False), state): None for state in no}}
        after: States = {}
        for state in self._value(value, states, exits):
            what = self._what(value, state)
            for target in targets:
                state = self._unpack(target, value, state) if isinstance(target, ast.Tuple) else state
                state = self._bind(target, what, state) if not isinstance(target, ast.Tuple) else state
            after[state] = None
        return after

    def _unpack(self, target: ast.Tuple, value: ast.expr, state: State) -> State:
        call = value.value if isinstance(value, ast.Await) else value
        parts = self._parts_of(call) if isinstance(call, ast.Call) else []
        for index, one in enumerate(target.elts):
            thing = parts[index] if index < len(parts) else None
            state = self._bind(one, None if thing is None else Taken(cast("ast.Call", call), thing), state)
        return state

    def _bind(self, target: ast.expr, what: Taken | Constant | None, state: State) -> State:
        if isinstance(target, ast.Name):
            if isinstance(what, Taken) and (target.id in self.function.elsewhere or target.id in self.captured):
                self.found.stored.append((what, target))
                state = self._given(what, state)
            return state.bound(target.id, what)
        if (attribute := _of_self(target)) in self._own:
            return state.bound(attribute, what)
        if isinstance(what, Taken) and isinstance(target, (ast.Attribute, ast.Subscript)):
            self.found.stored.append((what, target))
            return state.without(what) if self._own else self._given(what, state)
        for name in ast.walk(target):
            if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                state = state.bound(name.id, None)
        return state

    def _raise(self, node: ast.Raise, states: States, exits: Exits) -> States:
        if node.exc is not None:
            if last_name(node.exc.func if isinstance(node.exc, ast.Call) else node.exc) == "SystemExit":
                return {}
            states = self._value(node.exc, states, exits)
        for state in states:
            exits.raises.setdefault(state, node)
        return {}

    def _delete(self, targets: Iterable[ast.expr], states: States) -> States:
        after: States = {}
        for state in states:
            for target in targets:
                if isinstance(target, ast.Name):
                    what = state.value(target.id)
                    state = self._given(what, state) if isinstance(what, Taken) else state
                    state = state.bound(target.id, None)
            after[state] = None
        return after

    def _loop(self, node: ast.While | ast.For | ast.AsyncFor, states: States, exits: Exits) -> States:
        if not isinstance(node, ast.While):
            states = self._value(node.iter, states, exits)
        after: States = {}
        inner = Exits(exits.raises, exits.returns)
        for _ in range(_ROUNDS):
            if isinstance(node, ast.While):
                states, no = self._test(node.test, states, exits)
            else:
                no = states
                states = _each(states, lambda state: self._bind(node.target, None, state))
            after.update(no)
            states = _fewer({**self._block(node.body, states, inner), **inner.continues})
            inner.continues.clear()
        if isinstance(node, ast.While):
            _, states = self._test(node.test, states, exits)
        after.update(states)
        return {**self._block(node.orelse, after, exits), **inner.breaks}

    def _with(self, node: ast.With | ast.AsyncWith, index: int, states: States, exits: Exits) -> States:
        if index == len(node.items):
            return self._block(node.body, states, exits)
        item = node.items[index]
        inner = Exits()
        entered: States = {}
        for state in self._value(item.context_expr, states, exits, entered=True):
            entered[self._enter(item, state)] = None
        kept = {taken for state in entered for taken in state.kept} - {
            taken for state in states for taken in state.kept
        }
        after = self._with(node, index + 1, entered, inner)

        def leave(state: State) -> State:
            for taken in kept & state.kept:
                state = state.without(taken)
            return state

        swallows = (
            last_name(item.context_expr.func if isinstance(item.context_expr, ast.Call) else None)
            in WORDS["swallowing"]
        )
        for state, why in inner.raises.items():
            if not (swallows and _suppresses_all(item.context_expr)):
                exits.raises.setdefault(leave(state), why)
            if swallows:
                after[state] = None
        for mine, theirs in (
            (inner.returns, exits.returns),
            (inner.breaks, exits.breaks),
            (inner.continues, exits.continues),
        ):
            theirs.update(_each(mine, leave))
        return _each(after, leave)

    def _enter(self, item: ast.withitem, state: State) -> State:
        expr = item.context_expr
        what = self._what(expr, state)
        closes = isinstance(expr, ast.Call) and last_name(expr.func) in _CLOSING
        if isinstance(what, Taken) and (closes or what.thing.with_ends):
            state = replace(state, kept=state.kept | {what})
        if isinstance(item.optional_vars, ast.Name):
            return state.bound(item.optional_vars.id, what if isinstance(what, Taken) else None)
        return state

    def _try(self, node: ast.Try | ast.TryStar, states: States, exits: Exits) -> States:
        inner = Exits(returns={}, breaks={}, continues={})
        body = self._block(node.body, states, inner)
        later = Exits(returns=inner.returns, breaks=inner.breaks, continues=inner.continues)  # of handlers and else
        after = self._block(node.orelse, body, later)
        caught_all = False
        for handler in node.handlers:
            catches = _catches(handler)
            caught = dict.fromkeys(inner.raises)
            if handler.name:
                caught = _each(caught, lambda state, name=handler.name: state.bound(name, None))  # type: ignore[misc]
            after.update(self._block(handler.body, _fewer(caught), later))
            caught_all = caught_all or catches or _only_of_the_database(handler, node.body)
        if not caught_all:
            for state, why in inner.raises.items():
                later.raises.setdefault(state, why)
        return self._finally(node.finalbody, after, later, exits)

    def _finally(self, body: Sequence[ast.stmt], after: States, inner: Exits, exits: Exits) -> States:
        if not body:
            for state, why in inner.raises.items():
                exits.raises.setdefault(state, why)
            exits.returns.update(inner.returns)
            exits.breaks.update(inner.breaks)
            exits.continues.update(inner.continues)
            return after
        # What raises while it cleans up is trusted not to: nobody writes a `finally` within a `finally`.
        trusted = Exits({}, exits.returns, exits.breaks, exits.continues)
        for state, why in inner.raises.items():
            for left in self._block(body, {state: None}, trusted):
                exits.raises.setdefault(left, why)
        exits.returns.update(self._block(body, _fewer(inner.returns), trusted))
        exits.breaks.update(self._block(body, inner.breaks, trusted))
        exits.continues.update(self._block(body, inner.continues, trusted))
        return self._block(body, after, trusted)

    # ------------------------------------------------------------------------------------------ conditions

    def _test(self, test: ast.expr, states: States, exits: Exits) -> tuple[States, States]:
        """The states in which it may be true, and those in which it may be false."""
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            yes, no = self._test(test.operand, states, exits)
            return no, yes
        if isinstance(test, ast.BoolOp):
            return self._both(test, states, exits)
        states = self._value(test, states, exits)
        yes = {state: None for state in states if self._truth(test, state) is not False}
        no = {state: None for state in states if self._truth(test, state) is not True}
        if _asked_of(test) & self._told:
            return _learn(test, yes, True), _learn(test, no, False)
        return yes, no

    def _both(self, test: ast.BoolOp, states: States, exits: Exits) -> tuple[States, States]:
        is_and = isinstance(test.op, ast.And)
        decided: States = {}
        for operand in test.values:
            yes, no = self._test(operand, states, exits)
            states, out = (yes, no) if is_and else (no, yes)
            decided.update(out)
        return (states, decided) if is_and else (decided, states)

    def _truth(self, test: ast.expr, state: State) -> bool | None:
        """What is known of it; None if nothing is."""
        match test:
            case ast.Constant(value=value):
                return bool(value)
            case ast.Name():
                return _truthy(self._what(test, state))
            case ast.Compare(left=left, ops=[ast.Is() | ast.Eq()], comparators=[ast.Constant(value=None)]):
                return _is_none(self._what(left, state))
            case ast.Compare(left=left, ops=[ast.IsNot() | ast.NotEq()], comparators=[ast.Constant(value=None)]):
                known = _is_none(self._what(left, state))
                return None if known is None else not known
            case ast.Compare(left=ast.Constant(value=str(name)), ops=[ast.In()], comparators=[ast.Call(func=func)]):
                if last_name(func) in ("locals", "dir", "vars", "globals"):
                    return True if isinstance(state.value(name), Taken) else None
            case ast.Compare(left=ast.Attribute(attr="closed"), ops=[ast.Eq()], comparators=[ast.Constant(value=0)]):
                return self._is_open(cast("ast.Attribute", test.left).value, state)
            case ast.Call(func=ast.Attribute(value=owner, attr="is_connected" | "open" | "ping")):
                return self._is_open(owner, state)
            case ast.Attribute(value=ast.Name() | ast.Attribute() as owner, attr="open"):
                return self._is_open(owner, state)
            case ast.Call(func=ast.Attribute(value=owner, attr="is_closed")):
                known = self._is_open(owner, state)
                return None if known is None else not known
            case ast.Attribute(value=ast.Name() | ast.Attribute() as owner, attr="closed"):
                known = self._is_open(owner, state)
                return None if known is None else not known
            case ast.Call(func=ast.Name(id="hasattr"), args=[ast.Name(id="self"), ast.Constant(value=str(name)), *_]):
                return True if isinstance(state.value(f"self.{name}"), Taken) else None
            case ast.Call(func=ast.Name(id="hasattr"), args=[ast.Name() as owner, *_]):
                return self._is_open(owner, state)
            case ast.Attribute():
                return _truthy(self._what(test, state))
        return None

    def _is_open(self, owner: ast.expr, state: State) -> bool | None:
        what = self._what(owner, state)
        return True if isinstance(what, Taken) and what in state.held else None

    # ------------------------------------------------------------------------------------------ expressions

    def _value(
        self, expr: ast.expr | None, states: States, exits: Exits, *, given: bool = False, entered: bool = False
    ) -> States:
        """Evaluate *expr*. *given*: whoever called the function gets it. *entered*: a `with` enters it."""
        if expr is None:
            return states
        for node in _in_order(expr):
            if isinstance(node, ast.Await) and isinstance(node.value, ast.Call):
                self._awaited.add(node.value)
            if isinstance(node, ast.Call):
                states = self._call(node, states, exits)
            elif isinstance(node, (ast.Yield, ast.YieldFrom)):
                if self._raises_at_yield:
                    for state in states:
                        exits.raises.setdefault(state, node)
            elif (
                isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and isinstance(node.ctx, ast.Load)
            ):
                states = self._method_named(node, expr, states)
            elif isinstance(node, ast.NamedExpr):
                states = _each(
                    states,
                    lambda state, node=node: self._bind(node.target, self._what(node.value, state), state),  # type: ignore[misc]
                )
        if given:
            states = _each(states, lambda state: self._give(expr, state))
        return states

    def _call(self, call: ast.Call, states: States, exits: Exits) -> States:
        after: States = {}
        name = last_name(call.func)
        if self.project.full(call.func, self.function) in WORDS["process_ends"]:
            return {}
        for state in states:
            harmless = cannot_raise(call) and not self._asks_the_server(call, name, state)
            safe = harmless or call in self._receivers
            self._calls.setdefault(call, set()).update(state.held)
            ended = self._ended(call, name, state)
            if ended is None and not safe:
                exits.raises.setdefault(state, call)
            state = ended if ended is not None else state
            after[self._take(call, state)] = None
        return after

    def _asks_the_server(self, call: ast.Call, name: str, state: State) -> bool:
        """Whether what is as harmless as `get` elsewhere is a query here: `session.get(User, key)`."""
        if name not in ("get", "copy", "count", "index", "values"):
            return False
        return isinstance(call.func, ast.Attribute) and isinstance(self._what(call.func.value, state), Taken)

    def _take(self, call: ast.Call, state: State) -> State:
        thing = self._taken_by(call)
        if call in self._collected:
            return state  # one of several: who ends them is told by more than a name
        for name, opened in self._opened_by(call).items():
            taken = Taken(call, opened)
            state = self._hold(taken, state).bound(name, taken)
        if thing is None:
            for part in filter(None, self._parts_of(call)):
                state = self._hold(Taken(call, part), state)
            return state
        origin = None
        if thing.role is Role.CURSOR and isinstance(call.func, ast.Attribute):
            owner = self._what(call.func.value, state)
            origin = owner.site if isinstance(owner, Taken) else None
        return self._hold(Taken(call, thing, origin), state)

    def _opened_by(self, call: ast.Call) -> dict[str, Thing]:
        """What a method of its own object opens and stores there, where this function closes it."""
        func = call.func
        if not self._own or not isinstance(func, ast.Attribute) or last_name(func.value) != "self":
            return {}
        method = self.project.definition(func, self.function)
        if method is None or not isinstance(method.node, FunctionNode) or method is self.function:
            return {}
        opened = self.project.opens(method)
        return {name: thing for name, thing in opened.items() if name in self._own}

    def _hold(self, taken: Taken, state: State) -> State:
        if taken in state.held - state.kept:  # the one before is forgotten: nobody has a name for it any more
            self._lose(State(frozenset({taken})), None)
        if taken not in self.found.taken:
            self.found.taken.append(taken)
        return replace(state, held=state.held | {taken})

    def _parts_of(self, call: ast.Call) -> list[Thing | None]:
        if call not in self._parts:
            self._parts[call] = self.project.parts(call, self.function)
        return self._parts[call]

    def _taken_by(self, call: ast.Call) -> Thing | None:
        if call not in self._takes:
            self._takes[call] = self.project.fresh(call, self.function)
        return self._takes[call]

    def _ended(self, call: ast.Call, name: str, state: State) -> State | None:
        """The state after a call that ends something, or hands it to somebody; None if it does neither."""
        found = False
        if isinstance(call.func, ast.Attribute):
            what = self._what(call.func.value, state)
            if isinstance(what, Taken) and name in what.thing.ends:
                if what.thing.awaited and call not in self._awaited and name != "terminate" and self._is_async:
                    return None  # it makes a coroutine, which nobody runs
                return self._closed(what, state)
        for argument in _given_to(call):
            what = self._what(argument, state)
            if not isinstance(what, Taken) or what not in state.held:
                continue
            if self._takes_over(call, name, what, argument):
                state, found = self._given(what, state), True
        for what in self._ended_by_method(call, state):
            state, found = state.without(what), True
        return state if found else None

    def _ended_by_method(self, call: ast.Call, state: State) -> list[Taken]:
        """What is stored on its own object, and ended by a method of that: `self.disconnect()`."""
        if not self._own or last_name(getattr(call.func, "value", None)) != "self":
            return []
        method = self.project.definition(call.func, self.function)
        names = self.project.closes(method) if method is not None else self._own
        found = [state.value(name) for name in names]
        return [one for one in found if isinstance(one, Taken) and one in state.held]

    @property
    def _is_async(self) -> bool:
        return isinstance(self.function.node, ast.AsyncFunctionDef)

    def _takes_over(self, call: ast.Call, name: str, what: Taken, argument: ast.expr) -> bool:
        """Whether what is called ends *what*, or keeps it."""
        if name in what.thing.taken_by or name in WORDS["keeping"]:
            return True
        if any(word in name.lower() for word in WORDS["ending"]):
            return True
        if name in _CLOSING:
            return False  # only a `with` round it ends anything; see `_enter`
        if _is_constructor(name):
            return self.project.thing(call, self.function) is None
        function = self.project.definition(call.func, self.function)
        if function is not None:
            return self.project.takes_over(function, call, argument)
        return False

    def _method_named(self, node: ast.Attribute, whole: ast.expr, states: States) -> States:
        """`conn.close`, not called here: somebody else will, such as an exit stack or a finalizer."""
        after: States = {}
        assert isinstance(node.value, ast.Name)
        for state in states:
            what = state.value(node.value.id)
            if isinstance(what, Taken) and node.attr in what.thing.ends and not _is_called(node, whole):
                state = self._given(what, state)
            after[state] = None
        return after

    def _give(self, expr: ast.expr, state: State) -> State:
        """What is in *expr* is the caller's from now on."""
        for node in _handed(expr):
            what = self._what(node, state)
            if isinstance(what, Taken):
                self.found.given.update({what, *(one for one in state.held if one.site is what.origin)})
                state = self._given(what, state)
        return state

    def _given(self, what: Taken, state: State) -> State:
        state = state.without(what)
        if what.origin is not None:  # who has a cursor has its connection
            for taken in state.held:
                if taken.site is what.origin:
                    return state.without(taken)
        return state

    def _closed(self, what: Taken, state: State) -> State:
        return state.without(what)

    def _what(self, expr: ast.AST | None, state: State) -> Taken | Constant | None:
        match expr:
            case ast.Name(id=name):
                return state.value(name)
            case ast.Attribute(value=ast.Name(id="self"), attr=name):
                return state.value(f"self.{name}")
            case ast.Constant(value=None | True | False as value):
                return Constant(value)
            case ast.Await(value=value) | ast.NamedExpr(value=value):
                return self._what(value, state)
            case ast.Call():
                for taken in state.held:
                    if taken.site is expr:
                        return taken
                if last_name(expr.func) in _PASSING_ON and expr.args:
                    return self._what(expr.args[0], state)
                if isinstance(expr.func, ast.Attribute) and expr.func.attr in _SAME_AGAIN:
                    return self._what(expr.func.value, state)
            case ast.BoolOp(values=values):
                found = [self._what(one, state) for one in values]
                return next((one for one in found if isinstance(one, Taken)), None)
            case ast.IfExp(body=body, orelse=orelse):
                found = [self._what(one, state) for one in (body, orelse)]
                return next((one for one in found if isinstance(one, Taken)), None)
        return None


def _each(states: Iterable[State], change: Callable[[State], State]) -> States:
    return {change(state): None for state in states}


def _fewer(states: States) -> States:
    if len(states) <= _MOST:
        return states
    return dict.fromkeys(list(states)[-_MOST:])


def _suppresses_all(expr: ast.expr) -> bool:
    return isinstance(expr, ast.Call) and any(last_name(one) in ("Exception", "BaseException") for one in expr.args)


def _is_constructor(name: str) -> bool:
    return name[:1].isupper() or name == "cls"


def _asked_of(test: ast.expr) -> set[str]:
    """The variable that a simple test is of: `if conn`, `if conn is None`."""
    match test:
        case (
            ast.Name(id=name)
            | ast.Compare(left=ast.Name(id=name), ops=[ast.Is() | ast.IsNot()], comparators=[ast.Constant(value=None)])
        ):
            return {name}
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _asked_of(operand)
    return set()


def _told_by(function: Scope) -> frozenset[str]:
    """Variables that a function asks more than once: what it learns the first time holds the second."""
    counted: dict[str, int] = {}
    for node in function.own:
        tests = [node.test] if isinstance(node, (ast.If, ast.IfExp)) else []
        tests += [node.value] if isinstance(node, ast.Assign) and _is_condition(node.value) else []
        for test in tests:
            for part in test.values if isinstance(test, ast.BoolOp) else [test]:
                for name in _asked_of(part):
                    counted[name] = counted.get(name, 0) + 1
    return frozenset(name for name, times in counted.items() if times > 1)


def _collected(function: Scope) -> frozenset[ast.AST]:
    """What is evaluated for each element of a list, a set, a dictionary or a generator."""
    kinds = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    found = [node for node in function.own if isinstance(node, kinds)]
    return frozenset(inner for node in found for inner in ast.walk(node) if isinstance(inner, ast.Call))


def _learn(test: ast.expr, states: States, outcome: bool) -> States:
    """What an outcome of *test* tells of a variable that nothing was known of."""
    (name,) = _asked_of(test)
    compares = isinstance(test, ast.Compare)
    if compares and isinstance(cast("ast.Compare", test).ops[0], ast.IsNot):
        outcome = not outcome
    is_none = outcome if compares else not outcome
    known = Constant(None) if is_none else Constant(...)
    return {state if state.value(name) is not None else state.bound(name, known): None for state in states}


def _truthy(value: Taken | Constant | None) -> bool | None:
    if isinstance(value, Constant):
        return bool(value.value)
    return True if isinstance(value, Taken) else None


def _is_none(value: Taken | Constant | None) -> bool | None:
    if isinstance(value, Constant):
        return value.value is None
    return False if isinstance(value, Taken) else None


def _catches(handler: ast.ExceptHandler) -> bool:
    """Whether nothing but the end of the process, or a cancelled task, passes it by."""
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(one is None or last_name(one) in ("Exception", "BaseException") for one in types)


_DATABASE_ERRORS = (
    "Error",
    "DatabaseError",
    "MySQLError",
    "PostgresError",
    "SQLAlchemyError",
    "DBAPIError",
    "OracleError",
)


def _only_of_the_database(handler: ast.ExceptHandler, body: Sequence[ast.stmt]) -> bool:
    """Whether it catches the driver's errors, which is all that a body of the driver's calls is likely to raise."""
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(last_name(one) in _DATABASE_ERRORS for one in types)


def _in_order(expr: ast.expr) -> list[ast.AST]:
    """Its nodes, what is evaluated first before what needs it; those of functions inside it left out."""
    found: list[ast.AST] = []
    waiting: list[ast.AST] = [expr]
    while waiting:
        node = waiting.pop()
        found.append(node)
        if not isinstance(node, ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))
    awaits = [node for node in found if isinstance(node, ast.Await)]
    return [*awaits, *(node for node in reversed(found) if not isinstance(node, ast.Await))]


def _given_to(call: ast.Call) -> Iterable[ast.expr]:
    """What a call is given, also within a tuple or a list."""
    for argument in [*call.args, *(word.value for word in call.keywords)]:
        if isinstance(argument, ast.Starred):
            yield argument.value
        elif isinstance(argument, (ast.Tuple, ast.List)):
            yield from argument.elts
        else:
            yield argument


def _handed(expr: ast.expr) -> Iterable[ast.expr]:
    """The parts of a returned value that are returned themselves."""
    match expr:
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts) | ast.BoolOp(values=parts):
            for part in parts:
                yield from _handed(part)
        case ast.Dict(values=parts):
            for part in parts:
                yield from _handed(part)
        case ast.IfExp(body=body, orelse=orelse):
            yield from _handed(body)
            yield from _handed(orelse)
        case ast.Call(args=arguments, keywords=words) if _is_constructor(last_name(expr.func)):
            yield expr
            for argument in [*arguments, *(word.value for word in words)]:
                yield from _handed(argument)
        case ast.Await(value=value):
            yield from _handed(value)
        case _:
            yield expr


def _of_self(target: ast.expr) -> str:
    """The name that an attribute of its own object goes by in a state; empty if it is none."""
    match target:
        case ast.Attribute(value=ast.Name(id="self"), attr=name):
            return f"self.{name}"
    return ""


def _is_condition(value: ast.expr) -> bool:
    match value:
        case ast.Compare(ops=[ast.Is() | ast.IsNot()], comparators=[ast.Constant(value=None)]):
            return True
        case ast.UnaryOp(op=ast.Not()):
            return True
    return False


def _is_called(node: ast.Attribute, whole: ast.expr) -> bool:
    return any(isinstance(one, ast.Call) and one.func is node for one in ast.walk(whole))


def _captured(function: Scope) -> frozenset[str]:
    """Names of its own that functions within it use: what they stand for may live as long as those do."""
    found: set[str] = set()
    for inner in function.inside:
        for node in ast.walk(inner.node):
            if isinstance(node, ast.Name) and node.id in function.bound and node.id not in inner.bound:
                found.add(node.id)
    return frozenset(found)


def raises_at_yield(function: Scope) -> bool:
    """Whether an exception of whoever uses a generator comes out of its `yield`.

    Of a context manager, and of a dependency of FastAPI's; pytest always goes on with its fixtures.
    """
    node = function.node
    assert isinstance(node, FunctionNode)
    decorators = {last_name(one.func if isinstance(one, ast.Call) else one) for one in node.decorator_list}
    if decorators & {"contextmanager", "asynccontextmanager"}:
        return True
    if any("fixture" in one for one in decorators):
        return False
    names = {one.id for one in function.own if isinstance(one, ast.Name)}
    yields = [one for one in function.own if isinstance(one, ast.Yield)]
    # One yield of a local thing, with nothing round it: what FastAPI's Depends() is given.
    return len(yields) == 1 and isinstance(yields[0].value, ast.Name) and yields[0].value.id in names
