"""Compose files: how many containers of a service there are, what they run, and what a deploy adds.

From the Compose specification: ``deploy.replicas`` (or ``scale``) is 1 by default; ``deploy.update_config`` says
``parallelism`` 1 (0 is "all at once") and ``order: stop-first`` by default, and with ``start-first`` as many
containers as are updated at once live beside the old ones. Without Swarm a container is stopped before it is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from . import command
from .facts import Command, Environment, Fact, Place, Runs, shown
from .marked import Marked, documents

_VARIABLE = re.compile(r"\$\{(\w+)(?:(:?[-?+])([^}]*))?\}|\$(\w+)")
ReadNear = Callable[[str], str | None]


def read(text: str, file: str, near: ReadNear = lambda name: None) -> Iterator[Runs]:
    """Each service of a compose file. *near* gives the text of a file beside it, ``.env`` or one of env_file."""
    outer = parse_env(near(".env") or "")
    for document in documents(text, file):
        services = document.table("services")
        for name, service in services.items():
            if isinstance(service, Marked):
                yield _service(name, service, file, services.line_of(name), outer, near)


def _service(name: str, service: Marked, file: str, line: int, outer: Mapping[str, str | None], near: ReadNear) -> Runs:
    def fact(said: str, *keys: str) -> Fact | None:
        found = service.at(*keys)
        return None if found is None else _figure(found, said, Place(file, service.line_of(*keys)), outer)

    place = Place(file, line)
    environment = _environment(service, outer, near)
    replicas = fact("replicas", "deploy", "replicas") or fact("scale", "scale") or Fact(1, place, "1 container")
    if service.at("deploy", "mode") in ("global", "global-job"):
        where = Place(file, service.line_of("deploy", "mode"))
        replicas = Fact(None, where, "mode: global runs one on each node, and the file does not say how many there are")
    build = service.get("build")
    directory = build if isinstance(build, str) else build.get("context", ".") if isinstance(build, Marked) else None
    dockerfile = build.get("dockerfile", "Dockerfile") if isinstance(build, Marked) else "Dockerfile"
    words = [service[key] for key in ("entrypoint", "command") if service.get(key)]
    started = _command(words, Place(file, service.line_of("command")), environment)
    return Runs(
        (name,), "compose service", place, replicas, _surge(service, file, place, replicas, outer), started,
        environment, directory, str(dockerfile), ours=build is not None,
    )  # fmt: skip


def _command(words: list[Any], place: Place, environment: Environment) -> Command | None:
    """What entrypoint and command start together; either may be a line or a list."""
    if len(words) == 1 and isinstance(words[0], str):
        return command.read(words[0].replace("$$", "$"), place, environment)
    flat = [str(each) for word in words for each in (word if isinstance(word, list) else word.split())]
    return command.read(flat, place, environment) if flat else None


def _surge(service: Marked, file: str, place: Place, replicas: Fact, outer: Mapping[str, str | None]) -> Fact:
    config = service.table("deploy", "update_config")
    if config.get("order") != "start-first":
        return Fact(0, place, "stop-first: no more during a deploy")
    where = Place(file, service.line_of("deploy", "update_config", "order"))
    at_once = _figure(config.get("parallelism", 1), "order: start-first, parallelism", where, outer)
    if replicas.value is None or at_once.value is None:
        return Fact(None, where, "order: start-first of a number that is not known")
    value = replicas.value if at_once.value == 0 else min(at_once.value, replicas.value)
    said = f"order: start-first, {value} at once"
    return Fact(value, where, said, percentage="100%" if at_once.value == 0 else None)  # 0 means all of them


def _environment(service: Marked, outer: Mapping[str, str | None], near: ReadNear) -> Environment:
    values: dict[str, str | None] = {}
    complete = True
    files = service.get("env_file") or []
    for each in files if isinstance(files, list) else [files]:
        path = each.get("path") if isinstance(each, Marked) else each
        text = near(str(path))
        complete = complete and text is not None
        values |= parse_env(text or "")
    given = service.get("environment") or {}
    pairs = given.items() if isinstance(given, Marked) else [_pair(each) for each in given if isinstance(each, str)]
    for name, value in pairs:
        values[name] = outer.get(name) if value is None else interpolated(_written(value), outer)
    return Environment(values, complete)


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _pair(text: str) -> tuple[str, str | None]:
    name, sign, value = text.partition("=")
    return name, value if sign else None


def _figure(value: Any, said: str, place: Place, outer: Mapping[str, str | None]) -> Fact:
    text = interpolated(_written(value), outer)
    if text is not None and text.isascii() and text.isdigit():
        return Fact(int(text), place, f"{said}: {text}")
    return Fact(None, place, f"{said}: {shown(value)} is no figure that these files tell")


def interpolated(text: str, outer: Mapping[str, str | None]) -> str | None:
    """*text* with Compose's variables filled in; None when one is not known."""
    unknown = False

    def one(match: re.Match[str]) -> str:
        nonlocal unknown
        name, sign, other = match.group(1) or match.group(4), match.group(2) or "", match.group(3) or ""
        value = outer.get(name)
        if value is not None and (value or ":" not in sign):
            return other if "+" in sign else value
        if "-" in sign:
            return other
        unknown = True
        return ""

    filled = _VARIABLE.sub(one, text.replace("$$", "\0")).replace("\0", "$")
    return None if unknown else filled


def parse_env(text: str) -> dict[str, str | None]:
    """The variables of an ``.env`` file."""
    found: dict[str, str | None] = {}
    for line in text.splitlines():
        name, sign, value = line.strip().removeprefix("export ").partition("=")
        if sign and name.strip() and not name.startswith("#"):
            value = value.strip()
            quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""
            found[name.strip()] = value[1:-1] if quoted else value.partition(" #")[0].rstrip()
    return found
