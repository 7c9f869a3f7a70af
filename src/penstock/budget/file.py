"""Reading the budget file: every value checked, every error with its file, line and key, all of them at once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import BudgetError, NoBudget, Problem
from . import find
from .document import Document, Key
from .model import Budget, Consumer, Database, Pooler, Service, SidePool
from .schema import Tree, nearest, shown

ENVIRONMENT = "PENSTOCK_ENV"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9.-]*)(\+[A-Za-z0-9_+]*)?://")

Origin = dict[Key, Key]  # keys that an overlay has set, and where in the file it does


def load(
    path: str | os.PathLike[str] | None = None,
    environment: str | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
) -> Budget:
    """The budget of a program that runs here, with these variables.

    :param path: the file; by default the one that PENSTOCK_TOML names, else the nearest penstock.toml, or
        pyproject.toml with [tool.penstock], from the working directory upwards.
    :param environment: the overlay to apply; by default the one that PENSTOCK_ENV names, else none.
    :raises BudgetError: naming file, line and key, when anything in it is wrong; `NoBudget` when there is none.
    """
    here = Path.cwd()
    found = find.find(environ, here) if path is None else here / path
    if found is None:
        what = (
            f"no penstock.toml, and no pyproject.toml with [tool.penstock], here or above; {find.VARIABLE} is not set"
        )
        raise NoBudget(Problem(str(here), 0, "", what))
    name = str(found.relative_to(here)) if found.is_relative_to(here) else str(found)
    text = find.text_of(found, name)
    chosen = environment if environment is not None else environ.get(ENVIRONMENT) or None
    return read(text, name, chosen, prefix=("tool", "penstock") if found.name == find.SHARED else ())


def read(text: str, path: str = "penstock.toml", environment: str | None = None, *, prefix: Key = ()) -> Budget:
    """The budget that *text* declares, in *environment*.

    Every environment is checked, whichever is asked for: a wrong one is found before it is used.

    :param path: what the file is called in errors.
    :param prefix: the table in which the budget stands.
    :raises BudgetError: with all that is wrong.
    """
    document = Document(text, path, prefix)
    document.check()
    if not document.problems and not document.tree.get("databases"):
        document.wrong((), "declares no database: a budget begins with [databases.<name>] and its max_connections")
    document.give_up_if_wrong()

    overlays: dict[str, Tree] = document.tree.get("environments", {})
    if environment is not None and environment not in overlays:
        choice = nearest(environment, overlays)
        what = f"there is no environment {shown(environment)}, which {ENVIRONMENT} or the caller names: {choice}"
        document.wrong(("environments",), what)
    chosen: tuple[Tree, Origin] = {}, {}
    for name in (None, *overlays):
        tree, origin = _in_environment(document.tree, name)
        _check_together(document, tree, origin)
        if name == environment:
            chosen = tree, origin
    document.give_up_if_wrong()
    tree, origin = chosen
    return _budget(tree, environment, path, {key: document.line(origin.get(key, key)) for key in _keys(tree)})


def conninfo(budget: Budget, *key: str, environ: Mapping[str, str] = os.environ) -> str:
    """Where the database or pooler at *key*, such as ``("databases", "main")``, is reached.

    :raises BudgetError: when the file does not say, names a variable that is not set, or it is a URL of something
        else than PostgreSQL, MySQL or MariaDB. Never shows the URL.
    """
    table, name = key
    declared = budget.databases[name].url if table == "databases" else budget.poolers[name].url
    dotted = f"{table}.{name}.url"
    if declared is None:
        raise BudgetError(Problem(budget.path, budget.line(*key), dotted, 'is missing: a URL, or "env:NAME"'))
    found, variable = declared, None
    if declared.startswith("env:"):
        variable = declared.removeprefix("env:")
        found = environ.get(variable, "")
    if not found:
        what = f"the variable {variable} is not set, or empty"
        raise BudgetError(Problem(budget.path, budget.line(*key, "url"), dotted, what))
    if wrong := _not_for_us(found):
        what = wrong if variable is None else f"the variable {variable} {wrong}"
        raise BudgetError(Problem(budget.path, budget.line(*key, "url"), dotted, what))
    return found


def _not_for_us(url: str) -> str | None:
    """What keeps our drivers from connecting to *url*, without a word of it but its scheme."""
    scheme = _SCHEME.match(url)
    if scheme is None or scheme[0] in ("postgresql://", "postgres://") or scheme[1].lower() in ("mysql", "mariadb"):
        return None
    if scheme[1].lower() in ("postgresql", "postgres") and scheme[2]:
        return f"has a URL as SQLAlchemy writes it, with a driver: write postgresql:// instead of {scheme[0]}"
    return "has a URL of a database that is not known: it must begin with postgresql://, mysql:// or mariadb://"


def _in_environment(whole: Tree, name: str | None) -> tuple[Tree, Origin]:
    """The base with an overlay merged over it, and which keys are the overlay's."""
    base = {plural: tables for plural, tables in whole.items() if plural != "environments"}
    origin: Origin = {}
    if name is None:
        return base, origin
    return _merged(base, whole["environments"][name], ("environments", name), (), origin), origin


def _merged(base: Tree, overlay: Tree, at: Key, within: Key, origin: Origin) -> Tree:
    result = dict(base)
    for key, value in overlay.items():
        here = (*within, key)
        if isinstance(value, dict):
            result[key] = _merged(result.get(key, {}), value, at, here, origin)
        else:
            result[key] = value
            origin[here] = at + here
    return result


def _check_together(document: Document, tree: Tree, origin: Origin) -> None:
    """Note what is wrong between values that are right each by itself."""

    def wrong(key: Key, what: str) -> None:
        document.wrong(origin.get(key, key), what)

    def refer(key: Key, name: str, plural: str) -> bool:
        known = tree.get(plural, {})
        if name not in known:
            wrong(key, f"there is no [{plural}.{shown(name)[1:-1]}]: {nearest(name, known)}")
        return name in known

    for plural in ("poolers", "consumers"):
        for name, table in tree.get(plural, {}).items():
            refer((plural, name, "database"), table["database"], "databases")
    for name, table in tree.get("services", {}).items():
        at = ("services", name)
        database, through = table.get("database"), table.get("through")
        if database is None and through is None:
            wrong((*at, "database"), "is missing: a service must have it, or `through` and the name of a pooler")
        known = database is not None and refer((*at, "database"), database, "databases")
        if through is not None and refer((*at, "through"), through, "poolers") and known:
            behind = tree["poolers"][through]["database"]
            if behind != database:
                wrong((*at, "through"), f"leads to database {behind}, and `database` is {database}")
        low, high = table.get("min", 1), table.get("max")
        if high is not None and high < low:
            # The one that this environment sets, if it is only one of them.
            said = "min" if (*at, "min") in origin and (*at, "max") not in origin else "max"
            wrong((*at, said), f"max is {high}, and min is {low}: max must be no less")


def _budget(tree: Tree, environment: str | None, path: str, lines: dict[Key, int]) -> Budget:
    poolers = {name: Pooler(name, **table) for name, table in tree.get("poolers", {}).items()}
    return Budget(
        databases={name: Database(name, **table) for name, table in tree.get("databases", {}).items()},
        services={name: _service(name, table, poolers) for name, table in tree.get("services", {}).items()},
        poolers=poolers,
        consumers={name: Consumer(name, **table) for name, table in tree.get("consumers", {}).items()},
        environment=environment,
        path=path,
        lines=lines,
    )


def _service(name: str, table: Tree, poolers: Mapping[str, Pooler]) -> Service:
    given: dict[str, Any] = dict(table)
    if "database" not in given:
        given["database"] = poolers[given["through"]].database
    side_pools = {side: SidePool(side, **values) for side, values in given.pop("side_pools", {}).items()}
    return Service(name, **given, side_pools=side_pools)


def _keys(tree: Tree, within: Key = ()) -> Iterator[Key]:
    for key, value in tree.items():
        yield (*within, key)
        if isinstance(value, dict):
            yield from _keys(value, (*within, key))
