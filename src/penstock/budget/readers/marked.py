"""YAML with the line on which each value stands.

PyYAML's safe loader, so that nothing in a file can be made to run. It is imported here, in the one place that needs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .facts import Place, Unreadable

_TEMPLATE = "a template? Render it first (helm template, kustomize build)"
MOST_NODES = 200_000  # an alias can stand for a tree that has aliases: a few lines may expand to billions


class Marked(dict[str, Any]):
    """A mapping that knows its own line and that of each of its keys."""

    __slots__ = ("line", "lines")

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[str, int] = {}

    def at(self, *keys: str) -> Any:
        """The value at a path of keys; None when a step is missing or leads through something else."""
        value: Any = self
        for key in keys:
            value = value.get(key) if isinstance(value, Marked) else None
        return value

    def table(self, *keys: str) -> Marked:
        """The mapping at a path of keys; an empty one when there is none."""
        found = self.at(*keys)
        return found if isinstance(found, Marked) else Marked(self.line)

    def items_of(self, *keys: str) -> list[Marked]:
        """The mappings of the list at a path of keys."""
        found = self.at(*keys)
        return [each for each in found if isinstance(each, Marked)] if isinstance(found, list) else []

    def line_of(self, *keys: str) -> int:
        """The line of the last step of a path that there is."""
        value: Any = self
        line = self.line
        for key in keys:
            if not isinstance(value, Marked) or key not in value:
                break
            line, value = value.lines[key], value[key]
        return line


def documents(text: str, file: str) -> Iterator[Marked]:
    """Every document of a file that is a mapping.

    :raises Unreadable: it is no YAML, or PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError:
        raise Unreadable(Place(file, 1), "not read, that needs PyYAML: pip install 'penstock[plan]'") from None
    try:
        for node in yaml.compose_all(text, Loader=yaml.SafeLoader):
            if isinstance(node, yaml.MappingNode):
                yield _Builder(file, yaml.constructor.SafeConstructor()).value(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = _TEMPLATE if "{{" in text else "not valid YAML"
        raise Unreadable(Place(file, mark.line + 1 if mark else 1), f"not read: {what}") from None
    except (RecursionError, ValueError, TypeError) as error:
        raise Unreadable(Place(file, 1), f"not read: {error}") from None


class _Builder:
    """Makes plain values of one document's nodes."""

    def __init__(self, file: str, scalars: Any) -> None:
        self._file = file
        self._scalars = scalars
        self._nodes = 0

    def value(self, node: Any) -> Any:
        import yaml

        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise ValueError("it expands to more than can be read")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(each) for each in node.value]
        if node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:bool", "tag:yaml.org,2002:null"):
            return self._scalars.construct_object(node)
        return node.value

    def _mapping(self, node: Any) -> Marked:
        import yaml

        found = Marked(node.start_mark.line + 1)
        merged: list[Marked] = []
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                made = self.value(value)
                merged += [each for each in (made if isinstance(made, list) else [made]) if isinstance(each, Marked)]
                continue
            if not isinstance(key, yaml.ScalarNode):  # {{ replicas }} is valid YAML: a mapping that has one as its key
                raise Unreadable(Place(self._file, key.start_mark.line + 1), f"not read: {_TEMPLATE}")
            found[key.value] = self.value(value)
            found.lines[key.value] = key.start_mark.line + 1
        for other in merged:  # what a mapping says itself goes before what it merges in
            for name in other.keys() - found.keys():
                found[name] = other[name]
                found.lines[name] = other.lines[name]
        return found
