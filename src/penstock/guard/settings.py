"""What `penstock run` was asked for, as the environment carries it to every worker and child."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ..core.settings import check_count

_MODE = "PENSTOCK_RUN"
_MAX = "PENSTOCK_RUN_MAX"
_OFF = "PENSTOCK"
_NO = ("off", "0", "false", "no")
FOLDER = "PENSTOCK_RUN_FOLDER"


class Mode(StrEnum):
    WATCH = "watch"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Settings:
    """*max_size*: connections that each process may have to one database.

    :raises ValueError: (or TypeError) when that is no number of connections.
    """

    mode: Mode
    max_size: int = 10

    def __post_init__(self) -> None:
        check_count("max", self.max_size, at_least=1)

    def environ(self) -> dict[str, str]:
        return {_MODE: self.mode.value, _MAX: str(self.max_size)}


def is_off(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether somebody wants the program as it is, whatever else was asked for: ``PENSTOCK=off``."""
    return environ.get(_OFF, "").lower() in _NO


def from_environ(environ: Mapping[str, str] = os.environ) -> Settings | None:
    """None: this process is not under guard.

    :raises ValueError: when a variable says what it cannot; its name is told.
    """
    if is_off(environ) or not (mode := environ.get(_MODE)):
        return None
    try:
        return Settings(Mode(mode), int(environ.get(_MAX, "10")))
    except ValueError as error:
        raise ValueError(f"{_MODE}={mode} {_MAX}={environ.get(_MAX)}: {error}") from None


def folder() -> Path | None:
    """Where each process under watch writes its account; None where nobody asks for one."""
    found = os.environ.get(FOLDER)
    return Path(found) if found else None
