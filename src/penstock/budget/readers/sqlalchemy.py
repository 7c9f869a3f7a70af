"""SQLAlchemy's engines: pool_size and max_overflow, which each process that runs the module may open.

Defaults (SQLAlchemy 2.1, `QueuePool`): 5 kept and 10 more. ``pool_size=0`` or ``max_overflow=-1`` is no limit at all.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from .facts import Bound, Opens, Place
from .source import Call, Module, Unknown, arguments, literal, variable_of

POOL_SIZE, MAX_OVERFLOW = 5, 10
FLASK, FLASK_OPTIONS = "flask_sqlalchemy.SQLAlchemy()", "SQLALCHEMY_ENGINE_OPTIONS"
INSTEAD = "pool_size={n}, max_overflow=0"

_ENGINES = {
    "sqlalchemy.create_engine": False,
    "sqlalchemy.engine.create_engine": False,
    "sqlmodel.create_engine": False,
    "sqlalchemy.ext.asyncio.create_async_engine": True,
    "sqlalchemy.ext.asyncio.engine.create_async_engine": True,
}
_FROM_CONFIG = {
    "sqlalchemy.engine_from_config": False,
    "sqlalchemy.engine.engine_from_config": False,
    "sqlalchemy.ext.asyncio.async_engine_from_config": True,
}
_QUEUES = ("QueuePool", "AsyncAdaptedQueuePool", "PenstockPool", "AsyncPenstockPool")
_ONE = ("StaticPool", "AssertionPool")  # one connection for the whole process


def read(module: Module) -> Iterator[Opens]:
    """Every engine that *module* makes, and Flask-SQLAlchemy's options for the one that it makes itself."""
    for call in module.calls():
        if call.name in _ENGINES:
            yield from _engine(module, call, ("url",), _ENGINES[call.name])
        elif call.name in _FROM_CONFIG:
            yield from _engine(module, call, ("configuration", "prefix"), _FROM_CONFIG[call.name])
        elif call.name == "flask_sqlalchemy.SQLAlchemy":
            yield from _flask(module, call)
    yield from _flask_config(module)


def _engine(module: Module, call: Call, positional: tuple[str, ...], tasks: bool) -> Iterator[Opens]:
    kind = call.name.rpartition(".")[2]
    given = arguments(module, call.node, positional)
    url = call.node.args[0] if call.node.args else _keyword(call.node, "url")
    if isinstance(given, Unknown):
        yield _unknown(call.place, kind, given.why, variable_of(module, url))
    elif not _is_sqlite(given.get("url")):
        if "from_config" in kind:
            given = given | {name: given.get(name, Unknown(f"{kind} may read {name} from its configuration"))
                             for name in ("pool_size", "max_overflow") if "poolclass" not in given}  # fmt: skip
        yield _opens(call.place, kind, given, _poolclass(module, call.node), tasks, variable_of(module, url))


def _flask(module: Module, call: Call) -> Iterator[Opens]:
    """``SQLAlchemy(app, engine_options={...})``; without it the app's configuration decides, if it says anything."""
    options = _keyword(call.node, "engine_options")
    if options is not None:
        yield _options(module, options, call.place, "SQLAlchemy(engine_options=...)")
    else:
        yield _opens(call.place, FLASK, {}, None, False, None)


def _flask_config(module: Module) -> Iterator[Opens]:
    """SQLALCHEMY_ENGINE_OPTIONS, be it a name, a class's attribute or a key of ``app.config``."""
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            name: object = target.id if isinstance(target, ast.Name) else None
            if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
                name = target.slice.value
            if name == FLASK_OPTIONS:
                yield _options(module, node.value, module.place(node), FLASK_OPTIONS)


def _options(module: Module, options: ast.expr, place: Place, kind: str) -> Opens:
    given = module.value(options)
    if not isinstance(given, dict):
        return _unknown(place, kind, given.why if isinstance(given, Unknown) else "it is no dictionary", None)
    return _opens(place, kind, given, None, False, None)


def _opens(
    place: Place, kind: str, given: dict[str, Any], poolclass: str | None, tasks: bool, url: str | None
) -> Opens:
    if poolclass == "NullPool":
        who = "task" if tasks else "thread"
        return Opens(
            place, kind, "poolclass=NullPool", Bound.NONE if tasks else Bound.THREADS, url=url,
            why=f"a new connection for each checkout: every {who} at work holds its own",
            instead=f"no poolclass, and {INSTEAD}",
        )  # fmt: skip
    if poolclass in _ONE:
        return Opens(place, kind, f"poolclass={poolclass}", Bound.POOL, 1, "one connection for the process", url=url)
    if poolclass not in (None, *_QUEUES):
        return _unknown(place, kind, f"poolclass={poolclass} is not one that penstock knows", url)
    if "pool" in given:
        return _unknown(place, kind, "it is given a pool made elsewhere", url)
    size, overflow = given.get("pool_size", POOL_SIZE), given.get("max_overflow", MAX_OVERFLOW)
    sets = f"pool_size={literal(size)}, max_overflow={literal(overflow)}"
    defaults = [name for name in ("pool_size", "max_overflow") if name not in given]
    why = f"{' and '.join(defaults)} by default" if defaults else ""
    if size == 0 or (_whole(overflow) and overflow < 0):
        limitless = "pool_size=0" if size == 0 else f"max_overflow={overflow}"
        return Opens(place, kind, sets, Bound.NONE, None, f"{limitless} means no limit", INSTEAD, url)
    for name, value in (("pool_size", size), ("max_overflow", overflow)):
        if not _whole(value):
            why = value.why if isinstance(value, Unknown) else f"{name} is {literal(value)}, no whole number"
            return Opens(place, kind, sets, Bound.UNKNOWN, None, why, INSTEAD, url)
    return Opens(place, kind, sets, Bound.POOL, size + overflow, why, INSTEAD, url)


def _unknown(place: Place, kind: str, why: str, url: str | None) -> Opens:
    return Opens(place, kind, "", Bound.UNKNOWN, None, why, INSTEAD, url)


def _poolclass(module: Module, node: ast.Call) -> str | None:
    given = _keyword(node, "poolclass")
    if given is None or (isinstance(given, ast.Constant) and given.value is None):
        return None
    name = module.name(given)
    return name.rpartition(".")[2] if name else module.text(given)


def _keyword(node: ast.Call, name: str) -> ast.expr | None:
    return next((each.value for each in node.keywords if each.arg == name), None)


def _is_sqlite(url: Any) -> bool:
    return isinstance(url, str) and url.startswith("sqlite")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
