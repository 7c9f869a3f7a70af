"""A Dockerfile's last stage: what a container runs when nobody says otherwise, and its ENV. A Procfile's lines too."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from . import command
from .facts import Command, Environment, Fact, Place, Runs

_INSTRUCTION = re.compile(r"^\s*(FROM|ENV|CMD|ENTRYPOINT)\s+(.*)$", re.IGNORECASE)


def read(text: str, file: str, given: Environment | None = None) -> tuple[Command | None, Environment]:
    """What the last stage starts, in an environment of its own ENV under what is *given* to the container."""
    entry: Any = None
    start: Any = None
    line = 1
    values: dict[str, str | None] = {}
    for number, instruction, rest in _instructions(text):
        if instruction == "FROM":
            entry, start, values = None, None, {}
        elif instruction == "ENV":
            values |= dict(_env(rest))
        elif instruction == "ENTRYPOINT":
            entry, line = _words(rest), number
        else:
            start, line = _words(rest), number
    given = given or Environment()
    environment = Environment(values | dict(given.values), given.complete)
    words = [each for part in (entry, start) if part for each in (part if isinstance(part, list) else [part])]
    if not words:
        return None, environment
    started: Any = words[0] if len(words) == 1 and not isinstance(entry or start, list) else words
    return command.read(started, Place(file, line), environment), environment


def procfile(text: str, file: str, environment: Environment) -> Iterator[Runs]:
    """Each process type of a Procfile; how many dynos there are it does not say."""
    for number, line in enumerate(text.splitlines(), 1):
        name, sign, words = line.partition(":")
        if not sign or not name.strip().isidentifier() or name.strip() == "release":
            continue
        place = Place(file, number)
        started = command.read(words.strip(), place, environment)
        # A platform starts new dynos before it stops the old ones when it is told to (Heroku's preboot).
        surge = Fact(None, place, "whether a deploy starts new ones first, the platform decides")
        yield Runs((name.strip(),), "Procfile process", place, None, surge, started, environment, ours=True)


def _instructions(text: str) -> Iterator[tuple[int, str, str]]:
    """Each instruction that matters, on the line where it begins; lines that end in a backslash are one."""
    lines = enumerate(text.splitlines(), 1)
    for number, line in lines:
        while line.rstrip().endswith("\\"):
            _, more = next(lines, (0, ""))
            line = line.rstrip()[:-1] + " " + more
        if found := _INSTRUCTION.match(line):
            yield number, found.group(1).upper(), found.group(2).strip()


def _words(rest: str) -> str | list[str]:
    if rest.startswith("["):
        try:
            return [str(each) for each in json.loads(rest)]
        except ValueError:
            pass  # a shell line that begins with a bracket
    return rest


def _env(rest: str) -> Iterator[tuple[str, str]]:
    pairs = re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)', rest)
    if not pairs and len(old := rest.split(None, 1)) == 2:
        pairs = [(old[0], old[1])]
    return ((name, value.strip('"')) for name, value in pairs)
