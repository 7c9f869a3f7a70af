"""A file's tree as LibCST has it: what stands where, and what is to become of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import libcst as cst
from libcst.metadata import MetadataWrapper, ParentNodeProvider, PositionProvider

from ..remedy import Place

_MISSING = "it was not found where it was: the text has changed"


class Refused(Exception):
    """A fix that is not made, and why."""


@dataclass(slots=True)
class Wrap:
    """*first*, a statement, opens what the statements after it use, up to *last*, or to the end of their block.

    :ivar build: of the three, and how deep the block's own lines are indented, the statements that take their place.
    """

    first: cst.CSTNode
    last: cst.CSTNode | None
    build: Callable[[cst.SimpleStatementLine, cst.IndentedBlock, cst.BaseStatement | None], list[cst.BaseStatement]]


@dataclass(slots=True)
class Edits:
    """What is to be done, by the nodes of the tree as it was read. Nodes are themselves: none equals another.

    :ivar calls: what becomes of a call. :ivar items: of the items of a `with`. :ivar wraps: by block. :ivar dropped:
        statements that go. :ivar moved: those that go before a statement of the file, and which that is. :ivar imports:
        names of contextlib's.
    """

    calls: dict[cst.CSTNode, Callable[[cst.Call], cst.BaseExpression]] = field(default_factory=dict)
    items: dict[cst.CSTNode, Callable[[cst.WithItem], list[cst.WithItem]]] = field(default_factory=dict)
    wraps: dict[cst.CSTNode, list[Wrap]] = field(default_factory=dict)
    dropped: set[cst.CSTNode] = field(default_factory=set)
    moved: dict[cst.CSTNode, cst.CSTNode] = field(default_factory=dict)
    imports: set[str] = field(default_factory=set)
    _claimed: set[cst.CSTNode] = field(default_factory=set)

    def claim(self, *nodes: cst.CSTNode) -> None:
        """Say that a fix touches them: a node is touched by one.

        :raises Refused: if another does.
        """
        if self._claimed.intersection(nodes):
            raise Refused("another fix touches the same lines")
        self._claimed.update(nodes)


class Tree:
    """*text*, read."""

    def __init__(self, text: str) -> None:
        self.wrapper = MetadataWrapper(cst.parse_module(text), unsafe_skip_copy=True)
        self.module = self.wrapper.module
        self._parents = self.wrapper.resolve(ParentNodeProvider)
        self._calls: dict[Place, cst.Call] = {}
        self._statements: dict[tuple[int, int], cst.CSTNode] = {}
        for node, range_ in self.wrapper.resolve(PositionProvider).items():
            start, end = range_.start, range_.end
            if isinstance(node, cst.Call):
                self._calls[start.line, start.column, end.line, end.column] = node
            elif isinstance(node, (cst.BaseSmallStatement, cst.BaseCompoundStatement)):
                self._statements[start.line, start.column] = node

    def call(self, place: Place) -> cst.Call:
        if place not in self._calls:
            raise Refused(_MISSING)
        return self._calls[place]

    def statement(self, place: Place) -> cst.CSTNode:
        """The small or compound statement that begins there."""
        if place[:2] not in self._statements:
            raise Refused(_MISSING)
        return self._statements[place[:2]]

    def around(self, node: cst.CSTNode, kind: type[cst.CSTNode] | tuple[type[cst.CSTNode], ...]) -> cst.CSTNode:
        """The nearest *kind* that *node* is in."""
        while not isinstance(node, kind):
            if node not in self._parents:
                raise Refused(_MISSING)
            node = self._parents[node]
        return node

    def block(self, statement: cst.CSTNode) -> cst.IndentedBlock:
        """The block of lines that a statement is one of."""
        above = self._parents[statement]
        if isinstance(above, cst.SimpleStatementLine):
            above = self._parents[above]
        if not isinstance(above, cst.IndentedBlock):
            raise Refused("it stands in one line with what it belongs to")
        return above
