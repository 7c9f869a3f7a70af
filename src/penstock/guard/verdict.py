"""All processes' accounts, summed up for somebody who reads it at 2 a.m.: what is wrong first, and what to do last."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from . import timeline

_FIRST = 8  # of a list, the rest is counted
_FEW = 3
_RARELY = 0.01  # of all uses may wait in a pool that is large enough
_AT_ONCE = 0.01  # seconds
_BRIEFLY = 0.1  # seconds
_IN_URL = re.compile(r"(://[^:/@\s]*:)[^/\s]*@")
_IN_CONNINFO = re.compile(r"(passw(?:or)?d=)(?:'[^']*'|[^\s&]+)", re.IGNORECASE)
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
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
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
            f"penstock: {shown(command)} has opened no connection that was seen. Either it has opened none through"
            " psycopg, psycopg2, asyncpg, pymysql, MySQLdb, mysql.connector, aiomysql or sqlite3, or its Python has no"
            " Penstock: pip install 'penstock[guard]' there\n"
        )
    lines = [f"penstock: what {shown(command)} did with its connections"]
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
        yield f"    and {_many(len(leaking) - _FIRST, 'more line')}"


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
        rest = [site["opened"] for site in sites[_FIRST:] if site["opened"]]
        if rest:
            yield f"    {sum(rest)} at {_many(len(rest), 'more line')}"


def _advice(databases: list[Document], command: Sequence[str]) -> Iterator[str]:
    asks = [
        (site, database)
        for database in databases
        for site in database["sites"]
        if site["pool"] is None
        and site["driver"] not in _NO_POOL
        and (site["opened"] > 1 or (site["opened"] and site["errors"]))  # nothing is known of what it never had
    ]
    if not asks:
        return
    yield "what to do"
    size = max(_advised(database) for _, database in asks)
    yield f"  now, without a change:  penstock run --hold --max {size} -- {shown(command)}"
    for database in databases:
        its_own = sorted((site for site, of in asks if of is database), key=lambda site: -site["opened"])
        if its_own:
            yield from _change(its_own, _advised(database))


def _advised(database: Document) -> int:
    """What more would take off the waits here it would add to those in the database, which has so many cores."""
    enough, together = database["usage"]["enough"], database["most_in_request"]
    return int(max(min(enough, _CUSTOMARY), together))


def _change(sites: list[Document], size: int) -> Iterator[str]:
    if any(site["by_django"] for site in sites):
        engine = "postgresql" if sites[0]["driver"].startswith("psycopg") else "mysql"
        yield f'  in Django\'s settings:   "ENGINE": "penstock.integrations.django.{engine}"'
    others: dict[str, list[Document]] = {}
    for site in sites:
        if not site["by_django"]:
            others.setdefault(site["driver"], []).append(site)
    for same in others.values():
        yield from _pool_instead(same, size)


def _pool_instead(others: list[Document], size: int) -> Iterator[str]:
    """What to write at these lines of one driver."""
    driver = _NAMES.get(others[0]["driver"], others[0]["driver"])
    is_async = others[0]["driver"] in _ASYNC
    named = "" if driver == "psycopg" else f", driver={driver!r}"
    pool = "AsyncPool" if is_async else "Pool"
    yield f"  in the code, one pool:  pool = penstock.{pool}(DSN{named}, max_size={size})"
    lines = dict.fromkeys(_short(site["lines"][0]) for site in others)  # a helper may have many callers
    with_ = f"{'async ' if is_async else ''}with pool.connection() as conn:"
    for line in list(lines)[:_FEW]:
        yield f"    at {line}:  {with_}"
    if len(lines) > _FEW:
        yield f"    and so at {_many(len(lines) - _FEW, 'more line')}"


def table(documents: Sequence[Document], now: float) -> str:
    """Who holds what now, the longest first. *now*: by the monotonic clock, which all processes share."""
    lines: list[str] = []
    for document in documents:
        for database in document["databases"]:
            lines.append(
                f"penstock: process {document['pid']} has {_many(database['open'], 'connection')} to"
                f" {database['name']} (as of {_time(max(0.0, now - document['clock']))} ago)"
            )
            lines += _holders(database["holders"], now)
    return "\n".join(lines or ["penstock: no connection was opened yet"]) + "\n"


def _holders(holders: list[Document], now: float) -> Iterator[str]:
    by_site: dict[str, list[Document]] = {}
    for each in holders:
        by_site.setdefault(each["site"], []).append(each)
    for site, held in list(by_site.items())[:_FIRST]:
        first = held[0]  # the longest
        idle = first["idle_since"]
        doing = f"running {first['statement']!r}" if idle is None else f"idle in hand for {_time(now - idle)}"
        longest = "" if len(held) == 1 else "the longest "
        yield f"  {len(held)} by {_short(site)}: {longest}for {_time(now - first['since'])}, {first['status']}, {doing}"
        yield f"    {first['owner']}" + (f" now at {_short(first['stack'][0])}" if first["stack"] else "")
    if len(by_site) > _FIRST:
        yield f"  and at {_many(len(by_site) - _FIRST, 'more line')}"


def shown(command: Sequence[str]) -> str:
    """*command* as it may be shown: a DSN among its words without the password."""
    return shlex.join(_IN_URL.sub(r"\1***@", _IN_CONNINFO.sub(r"\1***", word)) for word in command)


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
