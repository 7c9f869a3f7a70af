"""All processes' accounts, summed up for somebody who reads it at 2 a.m.: what is wrong first, and what to do last."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from . import timeline

_FIRST = 8  # of a list, the rest is counted
_RARELY = 0.01  # of all uses may wait in a pool that is large enough
_AT_ONCE = 0.01  # seconds
_BRIEFLY = 0.1  # seconds
_CUSTOMARY = 10  # what `--hold` keeps to unless it is told otherwise

_ASYNC = ("asyncpg", "aiomysql", "psycopg (asyncio)")
_NAMES = {"psycopg (asyncio)": "psycopg"}
_NO_POOL = ("sqlite3", "mysql.connector")  # of ours, for lack of a reason or of a driver

Document = dict[str, Any]


def merged(documents: Iterable[Document]) -> list[Document]:
    """One for each database, the one with the most connections first. Processes of one line are one line."""
    by_name: dict[str, list[Document]] = {}
    for document in documents:
        for database in document["databases"]:
            by_name.setdefault(database["name"], []).append({**database, "requests": document["requests"]})
    found = [_merged(name, parts) for name, parts in by_name.items()]
    return sorted(
        found, key=lambda each: (all(site["driver"] in _NO_POOL for site in each["sites"]), -each["connects"])
    )


def _is_local(database: Document) -> bool:
    return all(site["driver"] in _NO_POOL for site in database["sites"])


def _merged(name: str, parts: list[Document]) -> Document:
    sites: dict[tuple[Any, ...], Document] = {}
    for site in (site for part in parts for site in part["sites"]):
        key = (site["driver"], site["pool"], *site["lines"])
        sites[key] = _sum(sites[key], site) if key in sites else site
    ranked = sorted(sites.values(), key=lambda site: -site["opened"])
    for site in ranked:
        site["leaks"] = leaks(site)
    return {
        "name": name,
        "processes": len(parts),
        "requests": sum(part["requests"] for part in parts),
        "seconds": max(part["seconds"] for part in parts),
        "connects": sum(part["connects"] for part in parts),
        "connect_seconds": sum(part["connect_seconds"] for part in parts),
        "errors": dict(sum((Counter(part["errors"]) for part in parts), Counter())),
        "most": timeline.most(part["timeline"] for part in parts),
        "most_in_one": max(part["most"] for part in parts),
        "most_in_request": (together := max(part["most_in_request"] for part in parts)),
        "usage": _usage([part["usage"] for part in parts], together),
        "sites": ranked,
    }


def _sum(one: Document, other: Document) -> Document:
    """Of two counts the sum, of two lengths of time that are the longest the longer."""
    summed = dict(one)
    for name, value in other.items():
        if isinstance(value, dict):
            summed[name] = dict(Counter(one[name]) + Counter(value))
        elif name in ("longest", "afterwards", "most"):
            summed[name] = max(one[name], value)
        elif isinstance(value, (int, float)):
            summed[name] = one[name] + value
    return summed


def _usage(parts: list[Document], together: int) -> Document:
    """Of processes that would have a pool each: *most* and *p99* are of the one that needed most.

    One request has had *together* at once, and would wait for itself in a smaller pool.
    """
    pools = [
        {
            "size": same[0]["size"],
            "waits": sum(each["waits"] for each in same),
            "waited": sum(each["waited"] for each in same),
            "longest": max(each["longest"] for each in same),
        }
        for same in zip(*(part["pools"] for part in parts), strict=True)
    ]
    count = sum(part["count"] for part in parts)
    usage = {
        "count": count,
        "seconds": sum(part["seconds"] for part in parts),
        "most": max(part["most"] for part in parts),
        "p99": max(part["p99"] for part in parts),
        "pools": pools,
    }
    enough = (each["size"] for each in pools if each["waits"] <= _RARELY * count and each["longest"] <= _BRIEFLY)
    return {**usage, "enough": max(1, together, min(next(enough, usage["most"]), usage["most"]))}


def leaks(site: Document) -> Document:
    """How many connections of this line the program never closed, by how they ended, without those kept on purpose."""
    if site["pool"] is not None:
        return {}
    dropped = site["ended"].get("dropped", 0)
    if site["opened"] == 1 and not site["dropped_in_requests"]:
        dropped = 0  # opened once, by a program that is at its end
    left = site["left"]
    if left <= site["reused"]:  # they are used again: a pool of the program's own
        left = 0
    elif site["in_requests"]:
        left = max(left, site["outlived"])  # the last of them nobody has opened another after
    else:
        left = site["open"] if site["open"] > left else left
    return {how: many for how, many in (("dropped", dropped), ("left", left)) if many}


# ---------------------------------------------------------------------------------------------- as text


def text(documents: Sequence[Document], command: Sequence[str]) -> str:
    """The verdict on a program that has ended."""
    databases = merged(documents)
    if not databases:
        return (
            f"penstock: {shlex.join(command)} opened no connection through a driver that is known here"
            " (psycopg, psycopg2, asyncpg, pymysql, MySQLdb, mysql.connector, aiomysql, sqlite3)\n"
        )
    lines = [f"penstock: what {shlex.join(command)} did with its connections"]
    for database in databases:
        lines += ["", *_database(database)]
    lines += ["", *_advice(databases, command)]
    return "\n".join(lines) + "\n"


def _database(of: Document) -> Iterator[str]:
    requests, connects = of["requests"], of["connects"]
    rate = (
        f"{connects / requests:.2g} for each of {_many(requests, 'request')}"
        if requests
        else f"{connects / of['seconds']:.3g} a second"
    )
    drivers = ", ".join(sorted({site["driver"] for site in of["sites"]}))
    yield f"{of['name']} ({drivers}, {_many(of['processes'], 'process', 'processes')})"
    yield from _leaks(of["sites"])
    for error, many in sorted(of["errors"].items(), key=lambda item: -item[1])[:_FIRST]:
        yield f"  {_times(many)} no connection: {error}"
    took = of["connect_seconds"]
    yield f"  {_many(connects, 'connect')}, {rate}; they took {_time(took)} in all, {_time(took / connects)} each"
    usage = of["usage"]
    each = "" if of["processes"] == 1 else f", {of['most_in_one']} in one process"
    yield f"  at most {of['most']} open at once{each}; at most {usage['most']} of a process's at work at once"
    held = sum(site["held"] for site in of["sites"])
    if held:
        ran = sum(site["ran"] for site in of["sites"])
        worked = max(ran, sum(site["worked"] for site in of["sites"]))
        longest = max(site["longest"] for site in of["sites"])
        yield (
            f"  held {_time(held)} in all, the longest {_time(longest)}: {_share(ran, held)} running statements,"
            f" {_share(worked - ran, held)} idle in a transaction, {_share(held - worked, held)} idle in hand"
        )
    yield from _pools(usage, "each process" if of["processes"] > 1 else "it")
    yield from _lines(of["sites"])


def _leaks(sites: list[Document]) -> Iterator[str]:
    leaking = sorted((site for site in sites if site["leaks"]), key=lambda site: -sum(site["leaks"].values()))
    if not leaking:
        yield "  no leak was seen"
        return
    yield f"  LEAKS at {_many(len(leaking), 'line')}:"
    for site in leaking[:_FIRST]:
        yield f"    {_line(site)}"
        if many := site["leaks"].get("dropped"):
            after = site["afterwards"]
            lasted = "at once" if after < _AT_ONCE else f"as late as {_time(after)} after the last statement"
            yield f"      {many} of {site['opened']} dropped without close(): Python closed them, {lasted}"
        if many := site["leaks"].get("left"):
            after = "its request was over" if site["in_requests"] else "it was done with"
            yield f"      {many} of {site['opened']} still open, and not used again, after {after}"
    if len(leaking) > _FIRST:
        yield f"    and {len(leaking) - _FIRST} more lines"


def _pools(usage: Document, whose: str) -> Iterator[str]:
    if not usage["count"]:
        return
    enough = usage["enough"]
    for size in sorted({enough, min(enough, _CUSTOMARY)}):
        found = next((each for each in usage["pools"] if each["size"] == size), None)
        if size >= usage["most"] or found is None:
            yield f"  a pool of {size} for {whose}: nobody would have waited"
        else:
            yield (
                f"  a pool of {size} for {whose}: {found['waits']} of {_many(usage['count'], 'use')} would have"
                f" waited, {_time(found['waited'] / found['waits'] if found['waits'] else 0)} on average,"
                f" {_time(found['longest'])} at most"
            )


def _lines(sites: list[Document]) -> Iterator[str]:
    yield "  opened at:"
    for site in sites[:_FIRST]:
        per = ""
        if site["requests"]:
            per = f", {site['in_requests'] / site['requests']:.2g} for each of {_many(site['requests'], 'request')}"
        pool = f" for {site['pool']}" if site["pool"] else ""
        failed = f", {sum(site['errors'].values())} failed" if site["errors"] else ""
        yield f"    {site['opened']}{pool}{per}{failed}: {_line(site)}"
    if len(sites) > _FIRST:
        yield f"    {sum(site['opened'] for site in sites[_FIRST:])} at {len(sites) - _FIRST} more lines"


def _advice(databases: list[Document], command: Sequence[str]) -> Iterator[str]:
    asks = [
        (site, database)
        for database in databases
        for site in database["sites"]
        if site["pool"] is None and site["driver"] not in _NO_POOL and (site["opened"] > 1 or site["errors"])
    ]
    if not asks:
        return
    size = max(database["usage"]["enough"] for _, database in asks)
    yield "what to do"
    yield f"  now, without a change:  penstock run --hold --max {size} -- {shlex.join(command)}"
    site, database = max(asks, key=lambda each: each[0]["opened"])
    driver = _NAMES.get(site["driver"], site["driver"])
    is_async = site["driver"] in _ASYNC
    pool = "AsyncPool" if is_async else "Pool"
    named = "" if driver == "psycopg" else f", driver={driver!r}"
    yield f"  in the code, one pool:  pool = penstock.{pool}(DSN{named}, max_size={database['usage']['enough']})"
    yield f"  and at {site['lines'][0]}:  {'async ' if is_async else ''}with pool.connection() as conn:"


def table(documents: Sequence[Document], now: float) -> str:
    """Who holds what now, the longest first. *now*: by the monotonic clock, which all processes share."""
    lines = []
    for document in documents:
        for database in document["databases"]:
            held = database["holders"]
            lines.append(
                f"penstock: process {document['pid']} has {database['open']} connections to {database['name']}"
                f" (as of {_time(max(0.0, now - document['clock']))} ago)"
            )
            for each in held[:_FIRST]:
                idle = each["idle_since"]
                doing = f"running {each['statement']!r}" if idle is None else f"idle in hand for {_time(now - idle)}"
                lines.append(
                    f"  {each['site']} ({each['owner']}): held for {_time(now - each['since'])}, {doing},"
                    f" {each['status']}"
                )
            if database["open"] > _FIRST:
                lines.append(f"  and {database['open'] - _FIRST} more")
    return "\n".join(lines or ["penstock: no connection was opened yet"]) + "\n"


def _line(site: Document) -> str:
    asked, *callers = map(_short, site["lines"])
    return ", called at ".join([asked, *callers])


def _short(line: str) -> str:
    here = os.getcwd() + os.sep
    return line.removeprefix(here)


def _many(count: int, one: str, several: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _share(part: float, whole: float) -> str:
    return f"{max(0.0, part) / whole:.0%}"


def _time(seconds: float) -> str:
    if seconds >= 100:
        return f"{seconds:,.0f} s"
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{1000 * seconds:.0f} ms" if seconds >= 0.01 else f"{1000 * seconds:.1f} ms"
