"""Code that is mended: before and after, and programs made of many layouts of the same thing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from textwrap import indent

from penstock.audit.audit import audit
from penstock.audit.finding import Finding
from penstock.audit.fixes import Fixed, settle
from penstock.audit.source import Source, parse


def read(text: str) -> Source:
    source = parse(text, "app.py", "app")
    assert isinstance(source, Source), source
    return source


def judge(source: Source) -> list[Finding]:
    return audit([source]).findings


def mended(text: str, unsafe: bool = False) -> Fixed:
    source = read(text)
    return settle(source, judge(source), judge, unsafe)


# ------------------------------------------------------------------------------------------ layouts

# fmt: off
_AROUND = (
    "{work}",
    """\
# what it does
if path:  # there is one
    {work}
    # the end of it
else:
    rows = None""",
    """\
for _ in range(2):
    {work}
# behind the loop""",
    """\
try:
    {work}
finally:
    note('left')""",
    """\
with open(path, 'ab') as other:
    {work}""",
)
_WORK = (
    """\
conn = sqlite3.connect(path)
rows = work(conn)
conn.close()""",
    """\
conn = sqlite3.connect(  # where
    path,
    timeout=5,  # s
)  # open

# between
rows = work(conn)

# done
conn.close()  # shut""",
    """\
conn = sqlite3.connect(path); rows = work(conn)  # both
rows += 0; conn.close(); note('closed')""",
    """\
conn: sqlite3.Connection = sqlite3.connect(path)
rows = work(conn)
conn.close()""",
    """\
conn = sqlite3.connect(path)
cursor = conn.cursor()
cursor.execute('''
select
   1 -- '''
 '')
rows = work(conn)
if conn:
    conn.close()""",
    """\
conn = sqlite3.connect(path)
if note('early'):
    # not today
    conn.close()  # so
    return None
rows = work(conn)
conn.close()""",
    """\
first = sqlite3.connect(path)
second = sqlite3.connect(path)
rows = work(first) + work(second)
second.close()
first.close()""",
    """\
first = sqlite3.connect(path)
second = sqlite3.connect(path)
rows = work(first) + work(second)
first.close()
second.close()""",
    """\
with sqlite3.connect(path) as conn:
    rows = work(conn)""",
    """\
with sqlite3.connect(path) as conn, open(path, 'rb') as file:  # two
    rows = work(conn)
conn.close()""",
)
_FUNCTION = (
    """\
def main(path):
    {body}
    return rows""",
    """\
class Service:
    @staticmethod
    def run(path: str) -> object:
        '''Runs.'''
        rows = 0
        {body}
        return rows


main = Service.run""",
)
_HEADS = (
    """\
import sqlite3
from support_note import note, work""",
    '''\
#!/usr/bin/env python
# -*- coding: utf-8 -*-
"""é: what it is."""
from __future__ import annotations
import os, sqlite3

from support_note import note, work''',
    """\
from contextlib import (
    contextmanager,
    suppress,  # for others
)

import sqlite3

from support_note import note, work""",
)
# fmt: on


def layouts() -> Iterator[tuple[str, str]]:
    """Programs with a ``main(path)`` that leaks if ``work`` raises, by a name."""
    for (w, work), (a, around), (f, function) in product(
        enumerate(_WORK), enumerate(_AROUND), enumerate(_FUNCTION)
    ):  # each with another head and another indentation
        turn = w + a + f
        head = _HEADS[turn % len(_HEADS)]
        text = _put(function, "{body}", _put(around, "{work}", work))
        text = head + "\n\n\n" + _indented(text, ("    ", "\t", "  ")[turn % 3]) + "\n"
        yield f"{w}-{a}-{f}", text.replace("\n", "\r\n") if turn % 4 == 1 else text


def _put(text: str, word: str, what: str) -> str:
    """*what* in place of *word*, as deep as that stands; what is within a string stays where it is."""
    before, _, _ = text.partition(word)
    depth = before.rpartition("\n")[2]
    strings = what.split("'''")
    placed = [part if index % 2 else indent(part, depth, lambda line: True) for index, part in enumerate(strings)]
    first = placed[0].removeprefix(depth)
    rest = [part if index % 2 == 0 else part.removeprefix(depth) for index, part in enumerate(placed[1:])]
    return text.replace(word, "'''".join([first, *rest]))


def _indented(text: str, unit: str) -> str:
    lines = []
    for line in text.split("\n"):
        bare = line.lstrip(" ")
        depth, left = divmod(len(line) - len(bare), 4)
        lines.append(unit * depth + " " * left + bare)
    return "\n".join(lines)
