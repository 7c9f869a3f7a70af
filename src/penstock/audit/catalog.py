"""What the libraries' calls make, and what ends it: the facts that decide between true and false alarms."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any


class Role(StrEnum):
    CONNECTION = "connection"
    CHECKOUT = "checkout"
    CURSOR = "cursor"
    SESSION = "session"
    ENGINE = "engine"
    POOL = "pool"
    FACTORY = "factory"  # of sessions
    CLIENT = "client"  # of HTTP, or of Redis
    CONTEXT = "context"  # of use in a `with` alone


LENT = (Role.CONNECTION, Role.CHECKOUT, Role.SESSION)  # what must be given back, or others go without


@dataclass(frozen=True, slots=True)
class Thing:
    """What a value is; see catalog.toml for what the fields mean."""

    name: str
    role: Role
    ends: frozenset[str]
    taken_by: frozenset[str]
    with_ends: bool
    enters: str | None
    awaited: bool
    is_async: bool
    makes: tuple[tuple[str, str], ...]

    @property
    def library(self) -> str:
        return self.name.partition("_")[0]

    def made_by(self, method: str) -> Thing | None:
        """What its *method* makes, if that is known."""
        name = dict(self.makes).get(method)
        return None if name is None else things()[name]


@cache
def things() -> dict[str, Thing]:
    return {name: _thing(name, facts) for name, facts in _read().items()}


@cache
def calls() -> dict[str, Thing]:
    """By the full name of a callable, what it makes."""
    return {call: things()[name] for name, facts in _read().items() for call in facts.get("made_by", ())}


@cache
def methods() -> frozenset[str]:
    """Names of methods that make something."""
    return frozenset(method for thing in things().values() for method, _ in thing.makes)


@cache
def libraries() -> frozenset[str]:
    """The top-level modules of which anything is known."""
    return frozenset(call.partition(".")[0] for call in calls())


@cache
def _read() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("catalog.toml").read_text(encoding="utf-8"))


def _thing(name: str, facts: dict[str, Any]) -> Thing:
    return Thing(
        name=name,
        role=Role(facts["role"]),
        ends=frozenset(facts.get("ends", ["close"])),
        taken_by=frozenset(facts.get("taken_by", ())),
        with_ends=facts.get("with", "ends") == "ends",
        enters=facts.get("enters"),
        awaited=facts.get("awaited", False),
        is_async=facts.get("async", False),
        makes=tuple(facts.get("makes", {}).items()),
    )
