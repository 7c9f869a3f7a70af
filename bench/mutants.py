"""Python files that nobody wrote: real ones, broken as text or tangled as code, in ways that happen and in worse."""

import ast
import copy
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

Mutation = Callable[[random.Random, list[bytes], list[bytes]], list[bytes]]

_STRANGE = (
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\f",
    b"\r",
    b"\t",
    b"\\\n",
    b"'''",
    b'"""',
    b"((((",
    b"]",
    b"{",
    b"$",
)
_WORDS = (
    b"with", b"async with", b"await", b"yield", b"return", b"try:", b"finally:", b"except:", b"lambda", b"global conn",
    b"del conn", b"conn = conn or conn", b"raise", b"while True:", b"for x in conn:", b"match conn:", b"print 1", b"*",
)  # fmt: skip
_AROUND = (
    "while g() and h(): pass", "for x in conn: pass\nelse: conn.close()", "if conn is None or g(): pass\nelse: pass",
    "try: pass\nfinally: conn.close()", "try: pass\nexcept (A, B) as conn: raise\nelse: g()", "with conn as conn: pass",
    "with closing(conn), suppress(E): pass", "async def f(conn): pass", "class A(A): pass", "def f(conn=conn): pass",
)  # fmt: skip
_BLOCKS = (b"while g() and h():", b"for x in conn:", b"if conn is None or g():", b"try:", b"with conn as conn:")


def _tangled(chance: random.Random, tree: ast.Module, other: ast.Module) -> bytes:
    """A file that parses, whose statements are not where they belong."""
    lent = [one for body in _bodies(other) for one in body]
    for _ in range(chance.randint(1, 25)):
        body = chance.choice(_bodies(tree))
        at = chance.randrange(len(body))
        match chance.randrange(5):
            case 0:
                body[at] = copy.deepcopy(chance.choice(lent))  # one that was within itself would have no end
            case 1:
                body.insert(at, copy.deepcopy(chance.choice(chance.choice(_bodies(tree)))))
            case 2:
                body[at] = ast.Pass()
            case _:
                body[at] = _wrapped(chance, body[at])
    return ast.unparse(tree).encode()


def _bodies(tree: ast.AST) -> list[list[ast.stmt]]:
    fields = ("body", "orelse", "finalbody")
    found = [getattr(node, name, None) for node in ast.walk(tree) for name in fields]
    return [body for body in found if isinstance(body, list) and body]


def _wrapped(chance: random.Random, statement: ast.stmt) -> ast.stmt:
    """*statement* within a few others."""
    for _ in range(chance.randint(1, 6)):
        (around,) = ast.parse(chance.choice(_AROUND)).body
        around.body = [statement]  # type: ignore[attr-defined]
        statement = around
    return statement


def files(seeds: Sequence[Path]) -> list[list[bytes]]:
    """The lines of the files to begin with."""
    return [path.read_bytes().splitlines(keepends=True) for path in seeds]


def mutants(count: int, seeds: Sequence[list[bytes]], seed: int) -> Iterator[bytes]:
    """*count* files, the same ones for the same *seed*."""
    chance = random.Random(seed)
    for number in range(count):
        lines, other = list(chance.choice(seeds)), chance.choice(seeds)
        if number % 2:
            yield _tangled(chance, ast.parse(b"".join(lines)), ast.parse(b"".join(other)))
            continue
        for _ in range(chance.randint(1, 6)):
            lines = chance.choice(_MUTATIONS)(chance, lines, other)
        yield b"".join(lines)


def _part(chance: random.Random, lines: list[bytes], most: int = 30) -> slice:
    start = chance.randrange(len(lines) + 1)
    return slice(start, start + chance.randint(1, most))


def _without(chance: random.Random, lines: list[bytes], other: list[bytes]) -> list[bytes]:
    part = _part(chance, lines)
    return [*lines[: part.start], *lines[part.stop :]]


def _twice(chance: random.Random, lines: list[bytes], other: list[bytes]) -> list[bytes]:
    part = _part(chance, lines)
    return [*lines[: part.stop], *lines[part] * chance.randint(1, 20), *lines[part.stop :]]


def _spliced(chance: random.Random, lines: list[bytes], other: list[bytes]) -> list[bytes]:
    at = chance.randrange(len(lines) + 1)
    return [*lines[:at], *other[_part(chance, other)], *lines[at:]]


def _shuffled(chance: random.Random, lines: list[bytes], other: list[bytes]) -> list[bytes]:
    part = _part(chance, lines)
    block = lines[part]
    chance.shuffle(block)
    return [*lines[: part.start], *block, *lines[part.stop :]]


def _nested(chance: random.Random, lines: list[bytes], other: list[bytes]) -> list[bytes]:
    """A block within many others, which parse where the block does."""
    part = _part(chance, lines)
    block = lines[part]
    if not block:
        return lines
    margin = block[0][: len(block[0]) - len(block[0].lstrip())]
    heads, tails = [], []
    depth = chance.randint(1, 18)
    for level in range(depth):
        head = chance.choice(_BLOCKS)
        heads.append(margin + b" " * level + head + b"\n")
        if head == b"try:":
            tails.append(margin + b" " * level + b"finally: g()\n")
    inner = [b" " * depth + line for line in block]
    return [*lines[: part.start], *heads, *inner, *reversed(tails), *lines[part.stop :]]


def _word(chance: random.Random, lines: list[bytes], other: list[bytes]) -> list[bytes]:
    if not lines:
        return lines
    at = chance.randrange(len(lines))
    words = lines[at].split(b" ")
    words[chance.randrange(len(words))] = chance.choice(_WORDS)
    return [*lines[:at], b" ".join(words), *lines[at + 1 :]]


def _renamed(chance: random.Random, lines: list[bytes], other: list[bytes]) -> list[bytes]:
    """One name becomes another everywhere, so that things are what they are not."""
    text = b"".join(lines)
    names = sorted({word for word in text.replace(b"(", b" ").replace(b".", b" ").split() if word.isalnum()})
    if len(names) < 2:
        return lines
    old, new = chance.sample(names, 2)
    return text.replace(old, new).splitlines(keepends=True)


def _bytes(chance: random.Random, lines: list[bytes], other: list[bytes]) -> list[bytes]:
    text = b"".join(lines)
    at = chance.randrange(len(text) + 1)
    return [text[:at] + chance.choice(_STRANGE) + text[at + chance.randint(0, 3) :]]


def _cut(chance: random.Random, lines: list[bytes], other: list[bytes]) -> list[bytes]:
    text = b"".join(lines)
    return [text[: chance.randrange(len(text) + 1)]]


def _indented(chance: random.Random, lines: list[bytes], other: list[bytes]) -> list[bytes]:
    part = _part(chance, lines)
    return [*lines[: part.start], *(b"    " + line for line in lines[part]), *lines[part.stop :]]


_MUTATIONS: tuple[Mutation, ...] = (
    _without, _twice, _spliced, _shuffled, _nested, _nested, _word, _renamed, _bytes, _cut, _indented,
)  # fmt: skip
