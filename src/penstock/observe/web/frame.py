"""The documents of one or many processes, as the page shows them: one picture for each pool's name.

Pure: documents in, a frame out, in whatever time it is told. A pool that many processes have is one pool here, with a
line for each of them.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from heapq import nlargest
from typing import Any

from ..top import own_place
from .counts import is_shown
from .quantiles import gained, quantile

WINDOW = 10.0  # seconds that rates and percentiles are about
HISTORY = 300  # points of each pool's charts
MOST_POOLS = 50
MOST_SITES = 20  # call sites that hold connections
MOST_EVENTS = 40
TOP = 10
_UNKNOWN = 1_000_000  # a size above this is no size, nor is 0: of a member that has not joined, of what is no pool

Document = Mapping[str, Any]


class Frames:
    """Remembers what rates and charts are made of. One thread makes frames; any may ask for the history."""

    def __init__(self) -> None:
        self._counters: dict[tuple[Any, ...], deque[tuple[float, Mapping[str, Any]]]] = {}
        self._history: dict[str, deque[list[float | None]]] = {}

    def frame(self, documents: Sequence[Document], now: float) -> dict[str, Any]:
        """*now*: seconds of the epoch."""
        pools: dict[str, list[tuple[Document, Mapping[str, Any], Mapping[str, Any]]]] = defaultdict(list)
        seen = set()
        for document in documents:
            for number, source in enumerate(document["sources"]):
                if not is_shown(source):
                    continue
                key = (document["host"], document["pid"], source["name"], number)
                seen.add(key)
                pools[source["name"]].append((document, source, self._gained(key, source["figures"], now)))
        for key in self._counters.keys() - seen:
            del self._counters[key]
        shown = [_pool(name, pools[name]) for name in sorted(pools)[:MOST_POOLS]]
        for pool in shown:
            self._note(pool, now)
        return {
            "now": now,
            "pools": shown,
            "pools_total": len(pools),
            "processes": [_process(document) for document in documents],
            "alerts": [_alert(alert, document) for document in documents for alert in document["alerts"]],
            "alerts_recent": nlargest(
                TOP,
                [_alert(alert, document) for document in documents for alert in document["alerts_recent"]],
                key=lambda alert: alert["cleared"] or alert["at"],
            ),
        }

    def history(self) -> dict[str, list[list[float | None]]]:
        """Of each pool, the oldest point first; what each figure is stands in `_note`."""
        return {name: list(points) for name, points in list(self._history.items())}

    def _gained(self, key: tuple[Any, ...], figures: Mapping[str, Any], now: float) -> dict[str, Any]:
        """What has happened in the last seconds."""
        looks = self._counters.setdefault(key, deque())
        looks.append((now, figures))
        while len(looks) > 1 and looks[1][0] <= now - WINDOW:
            looks.popleft()
        began, before = looks[0]
        return {
            "seconds": now - began,
            "requests": max(0, figures["requests"] - before["requests"]),
            "statements": max(0, figures["statements"] - before["statements"]),
            "wait": gained(figures["wait_time"]["counts"], before["wait_time"]["counts"]),
            "use": gained(figures["use_time"]["counts"], before["use_time"]["counts"]),
        }

    def _note(self, pool: Mapping[str, Any], now: float) -> None:
        points = self._history.setdefault(pool["name"], deque(maxlen=HISTORY))
        counts = [pool[figure] for figure in ("in_use", "idle", "opening", "waiting", "max")]
        times = [pool[time][share] for time in ("wait", "use") for share in ("p50", "p99")]
        points.append([round(now, 2), *counts, *times])
        if len(self._history) > MOST_POOLS:
            del self._history[next(iter(self._history))]


def _pool(name: str, parts: Sequence[tuple[Document, Mapping[str, Any], Mapping[str, Any]]]) -> dict[str, Any]:
    sources = [source for _, source, _ in parts]
    figures = [source["figures"] for source in sources]
    lately = [gains for _, _, gains in parts]
    sizes = [size for source in sources if (size := _size(source)) is not None]
    members = [_member(document, source) for document, source, _ in parts]
    fleets = [source["fleet"] for source in sources if source["fleet"]]
    loops = [source["loop"] for source in sources if source["loop"]]
    return {
        "name": name,
        "kind": sources[0]["kind"],
        "max": sum(sizes) if len(sizes) == len(sources) else None,
        "in_use": _sum(figures, "leased"),
        **{
            figure: _sum(figures, figure)
            for figure in ("idle", "opening", "closing", "waiting", "open", "multiplexed", "in_flight", "suspects",
                           "connects", "connect_errors", "would_shed")
        },
        "state": sorted({state for each in figures for state in _states(each)}),
        "last_error": next((each["last_error"] for each in figures if each["last_error"]), None),
        "requests_rate": _rate(lately, "requests"),
        "statements_rate": _rate(lately, "statements"),
        "wait": _percentiles(lately, "wait"),
        "use": _percentiles(lately, "use"),
        "refusals": _counts(figures, "refusals"),
        "closes": _counts(figures, "closes"),
        "holders": _groups(parts),
        "holders_total": sum(source["holders_total"] for source in sources),
        "profile": _profile(sources),
        "events": nlargest(
            MOST_EVENTS,
            [{**event, "pid": document["pid"]} for document, source, _ in parts for event in source["events"]],
            key=lambda event: event["at"],
        ),
        "members": sorted(members, key=lambda member: (-member["waiting"], -member["in_use"], member["pid"])),
        "fleet": max(fleets, key=lambda fleet: fleet["claimed"]) if fleets else None,
        "loop": max(loops, key=lambda loop: loop["last"], default=None),
    }  # fmt: skip


def _size(source: Mapping[str, Any]) -> int | None:
    size: int = source["figures"]["max_size"]
    return size if 0 < size < _UNKNOWN else None


def _states(figures: Mapping[str, Any]) -> Iterable[str]:
    words = {"database_down": "database down", "sick": "breaker open", "paused": "paused", "overloaded": "overloaded",
             "closed": "closed"}  # fmt: skip
    return (word for figure, word in words.items() if figures[figure])


def _member(document: Document, source: Mapping[str, Any]) -> dict[str, Any]:
    figures, fleet = source["figures"], source["fleet"]
    return {
        "pid": document["pid"],
        "host": document["host"],
        "title": document["title"],
        "member": fleet["member"] if fleet else None,
        "share": fleet["share"] if fleet else None,
        "max": _size(source),
        "in_use": figures["leased"],
        "idle": figures["idle"],
        "waiting": figures["waiting"],
        "loop": source["loop"],
        "state": sorted(_states(figures)),
    }


def _process(document: Document) -> dict[str, Any]:
    return {field: document[field] for field in ("pid", "host", "title", "started", "penstock", "python")} | {
        "sources_missing": document["sources_total"] - len(document["sources"])
    }


def _alert(alert: Mapping[str, Any], document: Document) -> dict[str, Any]:
    return {**alert, "pid": document["pid"]}


def _groups(parts: Iterable[tuple[Document, Mapping[str, Any], Any]]) -> list[dict[str, Any]]:
    """The holders by call site, those that hold most connections first."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for _, source, _ in parts:
        for holder in source["holders"]:
            groups[tuple(holder["site"].values())].append(holder)
    found = [_group(holders) for holders in groups.values()]
    return nlargest(MOST_SITES, found, key=lambda group: (group["suspected"], group["count"], group["held"]))


def _group(holders: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    longest = max(holders, key=lambda holder: holder["held"])
    idle = [holder["idle"] for holder in holders if holder["idle"] is not None]
    return {
        "site": longest["site"],
        "count": len(holders),
        "suspected": sum(holder["suspected"] for holder in holders),
        "held": longest["held"],
        "idle_count": len(idle),
        "idle": max(idle, default=None),
        "statement": longest["statement"],
        "status": sorted({holder["status"] for holder in holders}),
        "owner": longest["owner"],
        "stack": longest["stack"],
        "now_at": own_place(longest["stack"]),
    }


def _profile(sources: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Of all processes: connections kept in use by each line and statement, on average."""
    sites: defaultdict[tuple[Any, ...], list[float]] = defaultdict(lambda: [0.0, 0.0])
    statements: defaultdict[str, float] = defaultdict(float)
    for source in sources:
        profile = source["profile"]
        seconds = profile["seconds"] or 1.0
        listed = {tuple(entry["site"].values()): entry for entry in [*profile["sites"], *profile["idle_sites"]]}
        for site, entry in listed.items():
            sites[site][0] += entry["held"] / seconds
            sites[site][1] += entry["idle"] / seconds
        for entry in profile["statements"]:
            statements[entry["statement"]] += entry["ran"] / seconds
    return {
        "sites": [
            {"site": dict(zip(("file", "line", "function"), site, strict=True)), "held": held, "idle": idle}
            for site, (held, idle) in nlargest(TOP, sites.items(), key=lambda item: item[1][0])
        ],
        "statements": [
            {"statement": statement, "ran": ran}
            for statement, ran in nlargest(TOP, statements.items(), key=lambda item: item[1])
        ],
    }


def _sum(figures: Iterable[Mapping[str, Any]], figure: str) -> int:
    return sum(each[figure] for each in figures)


def _counts(figures: Iterable[Mapping[str, Any]], figure: str) -> dict[str, int]:
    counts: defaultdict[str, int] = defaultdict(int)
    for each in figures:
        for reason, count in each[figure].items():
            counts[reason] += count
    return dict(counts)


def _rate(lately: Iterable[Mapping[str, Any]], what: str) -> float:
    return sum((float(gains[what] / gains["seconds"]) for gains in lately if gains["seconds"]), 0.0)


def _percentiles(lately: Iterable[Mapping[str, Any]], which: str) -> dict[str, float | None]:
    counts = [sum(column) for column in zip(*(gains[which] for gains in lately), strict=True)]
    return {f"p{share}": quantile(counts, share / 100) for share in (50, 95, 99)}
