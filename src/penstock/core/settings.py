"""The numbers a pool is made of, checked once."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Overload:
    """That a pool sheds: `Pool(..., overload=Overload())`. What it sheds is refused at once, with `Overloaded`.

    :param target: seconds that a standing queue may make a request wait; by default a tenth of the request's own
        deadline or timeout. Never less than 5 ms, nor than a few times what a connection is held for.
    :param interval: seconds for which the queue must stand before it counts as standing (CoDel's interval).
    :raises ValueError: (or TypeError) naming the argument, what was found and what it may be.
    """

    target: float | None = None
    interval: float = 0.5

    def __post_init__(self) -> None:
        if self.target is not None:
            check_seconds("target", self.target)
        check_seconds("interval", self.interval)
        if not 0.01 <= self.interval <= 60:
            raise ValueError(f"interval must be 0.01 to 60 seconds, not {self.interval!r}")


@dataclass(slots=True, frozen=True)
class Multiplex:
    """How statements share connections: `AsyncPool(..., multiplex=Multiplex())`.

    :param target: seconds that a statement may wait on a connection behind others. It bounds how many are sent on one
        connection before their answers come, and a statement that takes longer than this, as far as is known of its
        text, gets a connection to itself.
    :param max_in_flight: statements sent on one connection and not answered, at most.
    :param max_result: bytes of one statement's result, at most: what is larger is refused, and not kept. 64 KiB is the
        least. Each row counts 64 bytes, and each value in it 16, beyond what the server sends of it.
    :raises ValueError: (or TypeError) naming the argument, what was found and what it may be.
    """

    target: float = 0.005
    max_in_flight: int = 256
    max_result: int = 16 * 2**20

    def __post_init__(self) -> None:
        check_seconds("target", self.target)
        if not 0.0001 <= self.target <= 60:
            raise ValueError(f"target must be 0.0001 to 60 seconds, not {self.target!r}")
        check_count("max_in_flight", self.max_in_flight, at_least=1)
        check_count("max_result", self.max_result, at_least=2**16)


@dataclass(slots=True, frozen=True)
class Settings:
    """Sizes in connections, times in seconds.

    :raises ValueError: (or TypeError) naming the argument, what was found and what it may be.
    """

    min_size: int = 4
    max_size: int = 4
    max_waiting: int = 0
    max_lifetime: float = 3600.0
    max_idle: float = 600.0
    reconnect_timeout: float = 300.0
    connect_timeout: float = 5.0
    overload: Overload | None = None
    reserve: int = 0
    max_per_key: int | None = None
    max_opening: int | None = None  # at once, up to min_size; above that one by one then

    def __post_init__(self) -> None:
        check_sizes(self.min_size, self.max_size)
        check_count("max_waiting", self.max_waiting, at_least=0)
        for name in ("max_lifetime", "max_idle", "reconnect_timeout", "connect_timeout"):
            check_seconds(name, getattr(self, name))
        for name in ("max_lifetime", "connect_timeout"):
            if not getattr(self, name):
                raise ValueError(f"{name} must be more than 0 seconds; math.inf stands for no limit")
        if self.overload is not None and not isinstance(self.overload, Overload):
            raise TypeError(f"overload must be a penstock.Overload, not {self.overload!r}")
        check_count("reserve", self.reserve, at_least=0)
        check_reserve(self.reserve, self.max_size)
        if self.max_per_key is not None:
            check_count("max_per_key", self.max_per_key, at_least=1)


def check_sizes(min_size: int, max_size: int) -> None:
    """:raises ValueError: when no pool can have these sizes."""
    check_count("min_size", min_size, at_least=0)
    check_count("max_size", max_size, at_least=-math.inf)
    if max_size < 1:
        raise ValueError(f"max_size must be 1 or more, not {max_size}: say max_size= when min_size is 0")
    if min_size > max_size:
        raise ValueError(f"min_size ({min_size}) must not be above max_size ({max_size})")


def check_reserve(reserve: int, max_size: int) -> None:
    """:raises ValueError: when nothing would be left for anybody else."""
    if reserve >= max_size:
        raise ValueError(f"reserve ({reserve}) must be below max_size ({max_size}): others need some too")


def check_count(name: str, value: int, at_least: float) -> None:
    """:raises ValueError: (or TypeError) when *value* is no whole number from *at_least* up."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < at_least:
        raise ValueError(f"{name} must be {at_least} or more, not {value}")


def check_seconds(name: str, value: float) -> None:
    """:raises ValueError: when *value* is no length of time."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if not value >= 0:  # which NaN is not, either
        raise ValueError(f"{name} must be 0 seconds or more, not {value!r}")
    if sys.float_info.max < value < math.inf:
        raise ValueError(f"{name} must be a number of seconds, not one that no clock can count: math.inf is no limit")
