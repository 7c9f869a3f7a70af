"""Python files that nobody wrote: real ones, broken or tangled in the ways in which files are, and in worse."""

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
_BLOCKS = (b"while g() and h():", b"for x in conn:", b"if conn is None or g():", b"try:", b"with conn as conn:")


def files(seeds: Sequence[Path]) -> list[list[bytes]]:
    """The lines of the files to begin with."""
    return [path.read_bytes().splitlines(keepends=True) for path in seeds]


def mutants(count: int, seeds: Sequence[list[bytes]], seed: int) -> Iterator[bytes]:
    """*count* files, the same ones for the same *seed*."""
    chance = random.Random(seed)
    for _ in range(count):
        lines, other = list(chance.choice(seeds)), chance.choice(seeds)
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
