"""All that there is to know of this process's connections, in one document that JSON can carry.

What it holds is described in docs/telemetry.md, field by field. Whoever reads it may rely on `VERSION`: while that
stays the same fields may come, and none goes or changes its meaning.
"""

from __future__ import annotations

import dataclasses
import math
import os
import socket
import sys
import time
from collections.abc import Mapping
from enum import Enum
from typing import Any

from ..pool.holders import Holder
from ..pool.snapshot import Snapshot
from .fingerprint import dialect, fingerprint
from .following import follow, profile
from .looplag import lag
from .process import started, title
from .sources import Source, sources

VERSION = 1
MOST_SOURCES = 50
MOST_HOLDERS = 100  # of each source, the longest first


def document() -> dict[str, Any]:
    """As of now. May be asked for in any thread; takes about a millisecond for a pool with ten holders."""
    from . import alerts  # here: it takes long to load, and many processes are never asked

    found = sources()
    return {
        "version": VERSION,
        "penstock": sys.modules["penstock"].__version__,
        "python": sys.version.partition(" ")[0],
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "title": title(),
        "started": started(),
        "now": time.time(),
        "sources": [_source(source) for source in _shown(found)],
        "sources_total": len(found),
        "alerts": [alert.as_dict() for alert in alerts.raised()],
        "alerts_recent": [alert.as_dict() for alert in alerts.recent()],
    }


def _shown(found: list[Source]) -> list[Source]:
    """Those there is room for: pools without a connection, such as closed ones, make way for the others."""
    if len(found) > MOST_SOURCES:
        found = sorted(found, key=_is_empty)
    return found[:MOST_SOURCES]


def _is_empty(source: Source) -> bool:
    try:
        figures = source.snapshot()
    except Exception:  # changed while it was looked at, so it is in use
        return False
    return not figures.open and not figures.waiting


def _source(source: Source) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": source.name, "kind": type(source).__name__, "error": None}
    try:
        shown |= _whole(source)
    except Exception as error:  # looked at in the midst of a change: the next look will do
        shown["error"] = f"{type(error).__name__} while it was looked at"
    return shown


def _whole(source: Source) -> dict[str, Any]:
    now = source.snapshot()
    holders = source.holders()
    fleet = getattr(source, "fleet", None)
    return {
        "figures": {**_figures(now), "open": now.open},
        "holders": [_holder(holder, dialect(source)) for holder in holders[:MOST_HOLDERS]],
        "holders_total": len(holders),
        "profile": plain(profile(source)),
        "events": plain(follow(source).recent.entries()),
        "fleet": plain(fleet()) if callable(fleet) else None,
        "loop": plain(lag(source)),
    }


def _figures(now: Snapshot) -> dict[str, Any]:
    return {name: value for name, value in plain(now).items() if name not in ("name", "profile")}


def _holder(holder: Holder, spoken: str) -> dict[str, Any]:
    return {**plain(holder), "statement": fingerprint(holder.statement, spoken)}


def plain(value: Any) -> Any:
    """*value* as JSON has it: an enum's member is its value, an object a mapping of its fields, infinity is null."""
    match value:
        case None | bool() | int() | str():
            return value.value if isinstance(value, Enum) else value
        case float():
            return value if math.isfinite(value) else None
        case Enum():
            return value.value
        case Mapping():
            return {str(key if isinstance(key, tuple) else plain(key)): plain(each) for key, each in value.items()}
        case tuple() if hasattr(value, "_asdict"):
            return plain(value._asdict())
        case list() | tuple() | set() | frozenset():
            return [plain(each) for each in value]
        case _ if dataclasses.is_dataclass(value):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        case _:
            return str(value)
