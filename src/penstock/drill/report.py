"""The drill's document as one HTML file that needs nothing else: no script, no font, no picture from anywhere."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from importlib.resources import files
from typing import Any

from penstock.drill import charts
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
    judged = [arm for scenario in document["scenarios"] for arm in scenario["arms"] if arm["judged"]]
    yield f"<h1>Who held the line of {line['usable']} connections</h1>"
    if not judged:
        yield '<p class="result">Penstock\'s arm did not run, so there is nothing to pass or fail.</p>'
    elif document["passed"]:
        requests = sum(arm["requests"] for arm in judged)
        yield f'<p class="result good">Passed: Penstock held the line and answered all {requests:,} requests.</p>'
    else:
        yield '<p class="result bad">Failed: Penstock crossed the line or lost a request.</p>'
    yield (
        f"<p>{escape(environment['server'])} with max_connections {line['max_connections']}, of which "
        f"{line['reserved']} are reserved: for superusers, for others, and one that looks at the server. Clients and "
        f'server are real, and every figure is measured.</p><p class="soft">{_date(environment["date"])}</p>'
    )


def _date(iso: str) -> str:
    return f"{datetime.fromisoformat(iso):%-d %B %Y, %H:%M} UTC"


def _scenario(scenario: dict[str, Any]) -> Iterable[str]:
    arms, settings = scenario["arms"], scenario["settings"]
    yield f"<section>\n<h2>{escape(scenario['title'])}</h2>\n<p>{escape(scenario['story'])}</p>"
    yield f'<p class="soft">{_settings(settings)}</p>'
    yield f'<div class="card wide">{_table(arms)}</div>'
    kinds = [kind for kind, _ in sum((Counter(arm["errors"]) for arm in arms), Counter()).most_common()]
    # Every arm on the same scale, or the charts could not be compared.
    seconds = max([settings["seconds"], *(sample["at"] for arm in arms for sample in arm["connections"])])
    held = Frame(seconds, 1.25 * max(arm["line"] for arm in arms) + 1)
    held = Frame(seconds, max([held.most, *(1.1 * arm["connections_at_most"] for arm in arms)]))
    lost = Frame(seconds, max(4, 1.1 * charts.tallest(arms)))
    for arm in arms:
        yield _arm(arm, held, lost, kinds)
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


def _table(arms: Sequence[dict[str, Any]]) -> str:
    names = ("requests", "answered", "by retry", "held / line", "p50 ms", "p99 ms", "useful answers")
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = "".join(_row(arm) for arm in arms)
    head = f'<th>arm</th>{head}<th class="kinds">lost, by kind</th>'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _row(arm: dict[str, Any]) -> str:
    cells = [
        f"{arm['requests']:,}",
        f"{arm['ok']:,}",
        f"{arm['retried']:,}",
        f'<span class="{"bad" if arm["crossed"] else "good"}">{arm["connections_at_most"]} / {arm["line"]}</span>',
        _ms(arm["p50_ms"]),
        _ms(arm["p99_ms"]),
        f"{arm['useful']:,} ({percent(arm['useful_share'])})",
    ]
    lost = ", ".join(f"{number:,} {escape(kind)}" for kind, number in arm["errors"].items())
    kinds = f'<span class="bad">{lost}</span>' if lost else '<span class="good">none</span>'
    data = "".join(f"<td>{cell}</td>" for cell in cells)
    judged = ' class="judged"' if arm["judged"] else ""
    return f'<tr{judged}><td>{escape(arm["title"])}</td>{data}<td class="kinds">{kinds}</td></tr>'


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _arm(arm: dict[str, Any], held: Frame, lost: Frame, kinds: Sequence[str]) -> str:
    sign, style = ("✗", "bad") if arm["crossed"] or arm["lost"] else ("✓", "good")
    keys = "".join(
        f'<span><span class="key kind-{number % 6}"></span>{escape(kind)}</span>'
        for number, kind in enumerate(kinds)
        if kind in arm["errors"]
    )
    return (
        f'<article class="card arm"><h3><span class="{style}">{sign}</span> {escape(arm["title"])}</h3>'
        f'<p>{escape(arm["verdict"])}</p><div class="charts">'
        f"<figure>{charts.connections(arm, held)}<figcaption>"
        '<span><span class="key held-key"></span>connections held</span>'
        '<span><span class="key active-key"></span>running a statement</span></figcaption></figure>'
        f"<figure>{charts.losses(arm, lost, kinds)}<figcaption>{keys}</figcaption></figure></div></article>"
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
        "Measured": "connections: pg_stat_activity every 50 ms over a reserved connection, logins under way included "
        "on an embedded server; requests: by each client",
    }
    yield "<h2>Where this was measured</h2>"
    yield '<div class="card"><dl>'
    yield "".join(f"<dt>{escape(name)}</dt><dd>{escape(fact)}</dd>" for name, fact in facts.items())
    yield "</dl></div>"
