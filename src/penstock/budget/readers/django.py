"""Django's DATABASES: one connection for each thread and alias, or psycopg's pool with OPTIONS["pool"].

Read from Django 5.2: ``OPTIONS["pool"]`` is True (psycopg_pool's defaults: 4 connections) or its arguments, for
PostgreSQL with psycopg 3 (Oracle has the option too), one pool for each alias and process. Without it every thread has
a connection of its own, for a request (``CONN_MAX_AGE`` 0) or longer; under ASGI each request has a thread of its own.
Penstock's own backend has a pool unless ``OPTIONS["pool"]`` is False; with ``{"budget": ...}`` its size is its share.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from .facts import Bound, Opens, Place
from .source import Module, Unknown, literal

POOL_DEFAULT = 4  # psycopg_pool: min_size 4, and max_size is min_size when it is not given
INSTEAD = 'OPTIONS["pool"] = {"min_size": {min}, "max_size": {n}}, CONN_MAX_AGE = 0'
OURS = "penstock.integrations.django."
_SERVERS = ("postgresql", "postgis", "mysql", "oracle", "psycopg", "postgres", "mariadb", "mssql")


def read(module: Module) -> Iterator[Opens]:
    """Each alias of DATABASES in *module*, if it is a settings module."""
    later = dict(_set_later(module))
    for value in module.assignments("DATABASES"):
        aliases = _aliases(value)
        if aliases is None:
            yield _unknown(module.place(value), "DATABASES", f"{module.text(value)} is no literal dictionary")
            continue
        for alias, settings in aliases:
            yield from _alias(module, alias, later.get((alias,), settings), later)


def _set_later(module: Module) -> Iterator[tuple[tuple[str, ...], ast.expr]]:
    """``DATABASES["default"]["CONN_MAX_AGE"] = 60``: what is set by its path of keys."""
    for node in module.tree.body:
        for target in node.targets if isinstance(node, ast.Assign) else ():
            keys: list[str] = []
            while isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
                keys.append(str(target.slice.value))
                target = target.value
            if isinstance(target, ast.Name) and target.id == "DATABASES" and keys and isinstance(node, ast.Assign):
                yield tuple(reversed(keys)), node.value


def _aliases(value: ast.expr) -> list[tuple[str, ast.expr]] | None:
    if not isinstance(value, ast.Dict):
        return None
    named = [(key.value, each) for key, each in zip(value.keys, value.values, strict=True)
             if isinstance(key, ast.Constant) and isinstance(key.value, str)]  # fmt: skip
    return named if len(named) == len(value.keys) else None


def _alias(module: Module, alias: str, node: ast.expr, later: Mapping[tuple[str, ...], ast.expr]) -> Iterator[Opens]:
    kind = f"DATABASES[{alias!r}]"
    keys, unknown = _keys(module, node)
    keys |= {path[1]: value for path, value in later.items() if path[0] == alias and len(path) == 2}
    engine = module.value(keys["ENGINE"]) if "ENGINE" in keys else None
    if isinstance(engine, str) and not any(name in engine for name in _SERVERS):
        return
    options, pool, where = keys.get("OPTIONS"), later.get((alias, "OPTIONS", "pool")), module.place(node)
    if pool is None and options is not None:
        inside, hidden = _keys(module, options)
        pool = inside.get("pool")
        unknown = hidden if pool is None else None
    ours = isinstance(engine, str) and engine.startswith(OURS)
    if pool is not None:
        yield _pool(module.place(pool), kind, module.value(pool), 0)
    elif unknown is not None:
        yield _unknown(where, kind, unknown)
    elif ours:
        yield Opens(where, kind, f"ENGINE={literal(engine)}", Bound.POOL, POOL_DEFAULT, "its default", INSTEAD)
    else:
        yield _pool(where, kind, None, module.value(keys["CONN_MAX_AGE"]) if "CONN_MAX_AGE" in keys else 0)


def _keys(module: Module, node: ast.expr) -> tuple[dict[str, ast.expr], str | None]:
    """The keys that a dictionary is certain to have, and why there may be more of them; None when there are none."""
    if isinstance(node, ast.Name) and len(made := module.assignments(node.id)) == 1 and made[0] is not node:
        node = made[0]
    if isinstance(node, ast.Call):
        given = {each.arg: each.value for each in node.keywords if each.arg}
        if module.name(node.func) == "dict" and not node.args and len(given) == len(node.keywords):
            return given, None
        if _makes_settings(module, node):  # without a pool, unless it is given one
            return ({"CONN_MAX_AGE": given["conn_max_age"]} if "conn_max_age" in given else {}), None
    if not isinstance(node, ast.Dict):
        return {}, f"{module.text(node)} is no literal"
    found: dict[str, ast.expr] = {}
    unknown = None
    for key, value in zip(node.keys, node.values, strict=True):
        if key is None:
            more, why = _keys(module, value)
            found, unknown = ({} if why else found) | more, why or unknown
        elif isinstance(key, ast.Constant):
            found[str(key.value)] = value
    return found, unknown


def _makes_settings(module: Module, node: ast.Call) -> bool:
    """Whether it makes settings of a URL: dj_database_url, or django-environ's ``env.db()``."""
    name = module.name(node.func) or ""
    return name in ("dj_database_url.config", "dj_database_url.parse") or name.endswith((".db", ".dj_db_url"))


def _pool(place: Place, kind: str, pool: Any, age: Any) -> Opens:
    if isinstance(pool, Unknown):
        return _unknown(place, kind, pool.why)
    if not pool:
        kept = "for ever" if age is None else "for one request" if age == 0 else f"for {literal(age)} s"
        why = f"a connection for each thread, kept {kept}: threads bound it"
        return Opens(place, kind, f"CONN_MAX_AGE={literal(age)}, no pool", Bound.THREADS, None, why, INSTEAD)
    if pool is True:
        why = "psycopg_pool's defaults"
        return Opens(place, kind, 'OPTIONS["pool"]=True', Bound.POOL, POOL_DEFAULT, why, INSTEAD)
    if not isinstance(pool, dict):
        return _unknown(place, kind, f'OPTIONS["pool"] is {literal(pool)}')
    if isinstance(service := pool.get("budget"), str):
        sets = f'OPTIONS["pool"]: budget={literal(service)}'
        return Opens(place, kind, sets, Bound.BUDGET, None, "its size is its share", service=service)
    least = pool.get("min_size", POOL_DEFAULT)
    most = pool.get("max_size", least)
    most = least if most is None else most
    sets = f'OPTIONS["pool"]: max_size={literal(most)}'
    if isinstance(most, Unknown) or not isinstance(most, int):
        return _unknown(place, kind, most.why if isinstance(most, Unknown) else f"max_size is {literal(most)}")
    return Opens(place, kind, sets, Bound.POOL, most, "" if "max_size" in pool else "max_size is min_size", INSTEAD)


def _unknown(place: Place, kind: str, why: str) -> Opens:
    return Opens(place, kind, "", Bound.UNKNOWN, None, why, INSTEAD)
