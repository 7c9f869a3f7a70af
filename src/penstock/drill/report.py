"""The drill's document as one HTML file that needs nothing else: no script, no font, no picture from anywhere."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from importlib.resources import files
from typing import Any

from penstock.drill import charts, report_batch, report_overload, report_scaleout
from penstock.drill.cells import LOST_BY_KIND, held_of_line, lost_by_kind
from penstock.drill.charts import Frame
from penstock.drill.verdict import percent


def report(document: dict[str, Any]) -> str:
    """Return the report as HTML."""
    style = files("penstock.drill").joinpath("report.css").read_text(encoding="utf-8")
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Penstock drill</title>\n<style>\n{style}</style>\n</head>\n<body>",
            *_head(document),
            *(part for scenario in document["scenarios"] for part in _scenario(scenario)),
            *_environment(document),
            "</body>\n</html>\n",
        ]
    )


def _head(document: dict[str, Any]) -> Iterable[str]:
    line, environment = document["line"], document["environment"]
    lines = sorted({arm["line"] for scenario in document["scenarios"] for arm in scenario["arms"]})
    yield f"<h1>Who held the line of {' and of '.join(map(str, lines))} connections</h1>"
    yield _result(document)
    yield (
        f"<p>{escape(environment['server'])} with max_connections {line['max_connections']}, of which "
        f"{line['reserved']} are reserved: for superusers, for others, and one that looks at the server. Clients and "
        f'server are real, and every figure is measured.</p><p class="soft">{_date(environment["date"])}</p>'
    )


def _result(document: dict[str, Any]) -> str:
    judged = [arm for scenario in document["scenarios"] for arm in scenario["arms"] if arm["judged"]]
    if not judged:
        return '<p class="result">Penstock\'s arm did not run, so there is nothing to pass or fail.</p>'
    if not document["passed"]:
        where = [
            scenario["title"].lower()
            for scenario in document["scenarios"]
            if any(arm["judged"] and not arm["good"] for arm in scenario["arms"])
        ]
        return f'<p class="result bad">Failed: Penstock did not do what it should. See: {escape(", ".join(where))}.</p>'
    closed = sum(arm["requests"] for arm in judged if not arm["overload"])
    answered = [f"answered all {closed:,} requests"] if closed else []
    kept = [
        f"gave useful answers at {percent(arm['overload']['useful_in_spike'])} of the capacity under overload"
        for arm in judged
        if arm["overload"]
    ]
    kept += [f"saved each of {arm['batch']['distinct']:,} users once" for arm in judged if arm["batch"]]
    return f'<p class="result good">Passed: Penstock held the line and {", and ".join(answered + kept)}.</p>'


def _date(iso: str) -> str:
    return f"{datetime.fromisoformat(iso):%-d %B %Y, %H:%M} UTC"


def _scenario(scenario: dict[str, Any]) -> Iterable[str]:
    arms, settings = scenario["arms"], scenario["settings"]
    yield f"<section>\n<h2>{escape(scenario['title'])}</h2>\n<p>{escape(scenario['story'])}</p>"
    overload, scale_out = settings["open_loop"] is not None, settings["scale_out"] is not None
    batch = settings["batch"] is not None
    if overload:
        said, columns = report_overload.settings(scenario), report_overload.COLUMNS
    elif scale_out:
        said, columns = report_scaleout.settings(scenario), report_scaleout.COLUMNS
    elif batch:
        said, columns = report_batch.settings(scenario), report_batch.COLUMNS
    else:
        said, columns = _settings(settings), _COLUMNS
    yield f'<p class="soft">{said}</p>\n<div class="card wide">{_table(arms, columns)}</div>'
    kinds = [kind for kind, _ in sum((Counter(arm["errors"]) for arm in arms), Counter()).most_common()]
    # Every arm on the same scale, or the charts could not be compared.
    least = 0 if scale_out or batch else settings["seconds"]
    seconds = max([least, *(sample["at"] for arm in arms for sample in arm["connections"])])
    held = Frame(seconds, 1.25 * max(arm["line"] for arm in arms) + 1)
    held = Frame(seconds, max([held.most, *(1.1 * arm["connections_at_most"] for arm in arms)]))
    for arm in arms:
        if overload:
            plane = report_overload.frame(scenario, seconds)
            second = report_overload.figure(arm, scenario, plane, kinds)
        elif scale_out:
            second = report_scaleout.figure(arm, Frame(seconds, 1.1 * settings["scale_out"]["members"]))
        elif batch:
            second = report_batch.figure(arm, report_batch.frame(scenario, seconds))
        else:
            second = _losses(arm, Frame(seconds, max(4, 1.1 * charts.tallest(arms))), kinds)
        yield _arm(arm, held, second)
    yield "</section>"


def _settings(settings: dict[str, Any]) -> str:
    slow = f", {percent(settings['slow_share'])} of them with a statement of {settings['slow_seconds']:g} s"
    return (
        f"{settings['clients']} clients in {settings['instances']} instances for {settings['seconds']:g} s an arm. "
        f"Each request runs a query and keeps its connection for {1000 * settings['elsewhere']:g} ms more"
        f"{slow if settings['slow_share'] else ''}; {percent(settings['failing_share'])} end in an exception of the "
        f"service's own. A client thinks for {1000 * settings['think']:g} ms between requests. A request that fails is "
        f"tried once more, whatever the arm. An answer is useful within {settings['deadline']:g} s."
    )


def _table(arms: Sequence[dict[str, Any]], columns: Mapping[str, Callable[[dict[str, Any]], str]]) -> str:
    head = "".join(f"<th{_wide(name)}>{name}</th>" for name in ("arm", *columns))
    rows = "".join(_row(arm, columns) for arm in arms)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _row(arm: dict[str, Any], columns: Mapping[str, Callable[[dict[str, Any]], str]]) -> str:
    cells = "".join(f"<td{_wide(name)}>{cell(arm)}</td>" for name, cell in columns.items())
    judged = ' class="judged"' if arm["judged"] else ""
    return f"<tr{judged}><td>{escape(arm['title'])}</td>{cells}</tr>"


def _wide(name: str) -> str:
    return ' class="kinds"' if name == LOST_BY_KIND else ""


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


_COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "requests": lambda arm: f"{arm['requests']:,}",
    "answered": lambda arm: f"{arm['ok']:,}",
    "by retry": lambda arm: f"{arm['retried']:,}",
    "held / line": held_of_line,
    "p50 ms": lambda arm: _ms(arm["p50_ms"]),
    "p99 ms": lambda arm: _ms(arm["p99_ms"]),
    "useful answers": lambda arm: f"{arm['useful']:,} ({percent(arm['useful_share'])})",
    LOST_BY_KIND: lost_by_kind,
}


def _losses(arm: dict[str, Any], lost: Frame, kinds: Sequence[str]) -> str:
    keys = "".join(
        f'<span><span class="key kind-{number % 6}"></span>{escape(kind)}</span>'
        for number, kind in enumerate(kinds)
        if kind in arm["errors"]
    )
    return f"<figure>{charts.losses(arm, lost, kinds)}<figcaption>{keys}</figcaption></figure>"


def _arm(arm: dict[str, Any], held: Frame, second: str) -> str:
    sign, style = ("✓", "good") if arm["good"] else ("✗", "bad")
    return (
        f'<article class="card arm"><h3><span class="{style}">{sign}</span> {escape(arm["title"])}</h3>'
        f'<p>{escape(arm["verdict"])}</p><div class="charts">'
        f"<figure>{charts.connections(arm, held)}<figcaption>"
        '<span><span class="key held-key"></span>connections held</span>'
        '<span><span class="key active-key"></span>running a statement</span></figcaption></figure>'
        f"{second}</div></article>"
    )


def _environment(document: dict[str, Any]) -> Iterable[str]:
    environment, line = document["environment"], document["line"]
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items() if version)
    facts = {
        "Server": environment["server"] + (", started for this drill" if environment["embedded"] else ", a given one"),
        "Line": f"{line['max_connections']} connections less {line['reserved']} reserved: {line['usable']}",
        "Machine": f"{environment['machine']}, {environment['cores']} cores, shared by clients and server",
        "Python": environment["python"],
        "Packages": packages,
        "Date": _date(environment["date"]),
        "Measured": "connections: pg_stat_activity every 50 ms (scale-out: 10 ms) over a reserved connection, logins "
        "under way included on an embedded server; requests: by each client",
    }
    yield "<h2>Where this was measured</h2>"
    yield '<div class="card"><dl>'
    yield "".join(f"<dt>{escape(name)}</dt><dd>{escape(fact)}</dd>" for name, fact in facts.items())
    yield "</dl></div>"
