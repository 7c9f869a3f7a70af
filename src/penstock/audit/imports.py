"""Which files an answer rests on: a file's own contents, and those of what it imports, however far that goes.

The digest of a file here is the same as long as nothing changed that the audit could have looked at to judge it. A name
may reach more than it says: after ``import app`` stands ``app.db.connect``, so every file under `app` counts.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b

from .names import Module

Edges = dict[str, list[tuple[str, str]]]  # of a file, or of all under a name: name and file of what it may look at


def imported(module: Module) -> list[str]:
    """The full names of all that a file imports, wherever in it."""
    names = {
        name for scope in module.scopes.values() for bound in scope.bound.values() for name in bound
        if not isinstance(name, ast.AST)
    }  # fmt: skip
    return sorted(names)


def digests(
    contents: Mapping[str, str], imports: Mapping[str, Iterable[str]], names: Mapping[str, str | None]
) -> dict[str, str]:
    """By file, the digest of all that its findings rest on. *contents*: by file, the digest of its own text."""
    edges = _edges(imports, names)
    found: dict[str, str] = {}
    for group in _groups(edges):  # those that import each other stand and fall together
        members = set(group)
        digest = blake2b(digest_size=16)
        for one in sorted(group):
            digest.update(f"{one}\0{contents.get(one, '')}\0".encode(errors="surrogateescape"))
            for name, target in sorted(edges[one]):
                rests = "" if target in members else found[target]
                digest.update(f"{name}\0{target}\0{rests}\0".encode(errors="surrogateescape"))
        found.update(dict.fromkeys(group, digest.hexdigest()))
    return {one: _own(one, found[one]) for one in contents}


def _own(shown: str, group: str) -> str:
    return blake2b(f"{shown}\0{group}".encode(errors="surrogateescape"), digest_size=16).hexdigest()


def _edges(imports: Mapping[str, Iterable[str]], names: Mapping[str, str | None]) -> Edges:
    under = _under(names)
    edges: Edges = {f"\0{name}": targets for name, targets in under.items()}
    targets: dict[str, list[tuple[str, str]]] = {}
    for shown, wanted in imports.items():
        edges[shown] = []
        for name in wanted:
            if name not in targets:
                targets[name] = [(one, target) for one in _upwards(name) if (target := names.get(one)) is not None]
                if name in under:
                    targets[name].append((name, f"\0{name}"))
            edges[shown] += targets[name]
    return edges


def _under(names: Mapping[str, str | None]) -> Edges:
    """By name, what is in the package of that name."""
    found: Edges = {}
    for name, shown in names.items():
        if shown is not None:
            for above in _upwards(name.rpartition(".")[0]):
                found.setdefault(above, []).append((name, shown))
    return found


def _upwards(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]


def _groups(edges: Edges) -> Iterator[list[str]]:
    """Tarjan's: those that reach each other, and a group after all that it reaches."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    on_path: set[str] = set()
    for start in edges:
        if start in order:
            continue
        waiting: list[tuple[str, Iterator[tuple[str, str]]]] = []

        def enter(node: str, waiting: list[tuple[str, Iterator[tuple[str, str]]]] = waiting) -> None:
            order[node] = lowest[node] = len(order)
            path.append(node)
            on_path.add(node)
            waiting.append((node, iter(edges[node])))

        enter(start)
        while waiting:
            node, rest = waiting[-1]
            for _, target in rest:
                if target not in order:
                    enter(target)
                    break
                if target in on_path:
                    lowest[node] = min(lowest[node], order[target])
            else:
                waiting.pop()
                if waiting:
                    lowest[waiting[-1][0]] = min(lowest[waiting[-1][0]], lowest[node])
                if lowest[node] == order[node]:
                    at = path.index(node) if path[-1] != node else len(path) - 1
                    group, path[at:] = path[at:], []
                    on_path.difference_update(group)
                    yield group
