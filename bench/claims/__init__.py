"""One module a claim: `CLAIM` says what, `BAR` what it has to reach, `run(context)` measures it."""

from importlib import import_module
from pkgutil import iter_modules
from typing import Protocol, cast

from bench.context import Context
from bench.report import Result


class Claim(Protocol):
    """The shape of a module in this folder."""

    CLAIM: str
    BAR: str

    def run(self, ctx: Context) -> Result: ...


def names() -> list[str]:
    """Every claim there is."""
    return sorted(module.name for module in iter_modules(__path__))


def load(name: str) -> Claim:
    """The claim of that name."""
    return cast(Claim, import_module(f"{__name__}.{name}"))
