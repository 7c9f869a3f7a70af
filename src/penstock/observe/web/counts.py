"""`GET /metrics/pool`: the figures of every pool under the names that node-postgres gave them, and the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_NAMED = ("open", "idle", "waiting", "leased", "max_size", "leaks")


def is_shown(source: Mapping[str, Any]) -> bool:
    """Whether there is anything to tell of it: it could tell, and is not over."""
    return source["error"] is None and (not source["figures"]["closed"] or source["figures"]["open"] > 0)


def counts(documents: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Of all pools together, and of each."""
    pools = [_pool(document, source) for document in documents for source in document["sources"] if is_shown(source)]
    totals = ("totalCount", "idleCount", "waitingCount", "activeCount")
    return {**{name: sum(pool[name] for pool in pools) for name in totals}, "pools": pools}


def _pool(document: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    figures = source["figures"]
    return {
        "name": source["name"],
        "pid": document["pid"],
        "totalCount": figures["open"],
        "idleCount": figures["idle"],
        "waitingCount": figures["waiting"],
        "activeCount": figures["leased"],
        "maxCount": figures["max_size"],
        **{name: value for name, value in figures.items() if name not in _NAMED},
    }
