"""What is served of pools: the figures, who may read and act, and a stream that holds up nobody."""

import asyncio
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
import typer
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.routing import Mount
from typer.testing import CliRunner

from penstock import AsyncPool, Pool
from penstock.cli.serve import serve
from penstock.core import Reason
from penstock.observe import web
from penstock.observe.document import document
from penstock.observe.web import actions, feed, others
from penstock.observe.web.frame import Frames
from penstock.observe.web.quantiles import quantile
from support.asgi import served
from support.waiting import aside, eventually
from support.web import ROOT, free_port

TOKEN = "a-token-of-some-length"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def ask(
    app: Any,
    path: str,
    *,
    client: tuple[str, int] | None = ("127.0.0.1", 1),
    base: str = "http://localhost",
    **how: Any,
) -> httpx.Response:
    """One request, as if from that address and under that name."""

    async def request() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, client=client)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url=base) as requests:
            return await requests.request(how.pop("method", "GET"), path, **how)

    return asyncio.run(request())


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool]:
    with Pool(dsn, min_size=2, max_size=4, name="served", open=False, leak_after=0.2) as opened:
        opened.wait()
        yield opened


# ------------------------------------------------------------------------------------------ figures


def test_figures_as_json_have_node_postgres_s_names(pool: Pool) -> None:
    """Of all pools together, and of each with the rest."""
    with pool.connection():
        answer = ask(web.app(readers="local"), "/metrics/pool")
    assert answer.headers["content-type"] == "application/json"
    told = answer.json()
    [mine] = [each for each in told["pools"] if each["name"] == "served"]
    assert (mine["totalCount"], mine["idleCount"], mine["waitingCount"]) == (2, 1, 0)
    assert (mine["activeCount"], mine["maxCount"], mine["requests"]) == (1, 4, 1)
    assert told["totalCount"] >= 2


def test_metrics_are_prometheus_s(pool: Pool) -> None:
    """As its parser has it."""
    answer = ask(web.app(readers="local"), "/metrics")
    families = {family.name for family in text_string_to_metric_families(answer.text)}
    assert "db_client_connection_count" in families


def test_it_mounts_in_any_application(pool: Pool) -> None:
    """The page asks for its parts beside itself."""
    app = Starlette(routes=[Mount("/penstock", web.app(readers="local"))])
    page = ask(app, "/penstock/")
    assert page.status_code == 200
    for part in ("page.css", "page.js", "page.svg"):
        assert f'"{part}"' in page.text
        assert ask(app, f"/penstock/{part}").status_code == 200
    assert ask(app, "/penstock").status_code == 307


def test_nothing_is_loaded_from_elsewhere(pool: Pool) -> None:
    """And the browser is told so, on every answer."""
    app = web.app(readers="local")
    for path in ("/", "/page.js", "/page.css", "/page.svg", "/metrics/pool"):
        answer = ask(app, path)
        assert answer.headers["content-security-policy"].startswith("default-src 'self'")
        links = answer.text.replace("http://www.w3.org/2000/svg", "").replace("postgresql://", "")
        assert "://" not in links, path


# ------------------------------------------------------------------------------------------ who may read, and act


@pytest.mark.parametrize("path", ["/metrics/pool", "/metrics", "/events"])
@pytest.mark.parametrize(
    "how",
    [
        {"client": ("10.0.0.5", 1)},
        {"client": None},
        {"base": "http://evil.example"},  # DNS rebinding: the right address under another's name
        {"base": "http://localhost.evil.example"},
        {"headers": {"X-Forwarded-For": "127.0.0.1"}},
        {"headers": {"Forwarded": "for=127.0.0.1"}},
        {"headers": {"Authorization": "Bearer wrong-but-long-enough"}, "client": ("10.0.0.5", 1)},
        {"headers": {"Authorization": f"Basic {TOKEN}"}, "client": ("10.0.0.5", 1)},
        {"headers": {"Cookie": f"token={TOKEN}"}, "client": ("10.0.0.5", 1)},
        {"params": {"token": TOKEN}, "client": ("10.0.0.5", 1)},
    ],
)
def test_strangers_read_nothing(path: str, how: dict[str, Any]) -> None:
    """Neither with a token set nor without."""
    assert ask(web.app(readers="local", token=TOKEN), path, **how).status_code == 401
    refused = ask(web.app(readers="local"), path, **how)
    assert refused.status_code == 403
    assert "PENSTOCK_SERVE_TOKEN" in refused.text


def test_mounted_it_needs_the_token_even_here() -> None:
    """The application's own proxy may be on this very machine."""
    assert ask(web.app(token=TOKEN), "/metrics/pool").status_code == 401
    assert ask(web.app(token=TOKEN), "/metrics/pool", headers=BEARER, client=("10.0.0.5", 1)).status_code == 200
    assert ask(web.app(), "/metrics/pool").status_code == 403
    assert ask(web.app(readers="anyone"), "/metrics/pool", client=("10.0.0.5", 1)).status_code == 200


def test_the_token_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_SERVE_TOKEN", TOKEN)
    assert ask(web.app(), "/metrics/pool", headers=BEARER).status_code == 200


def test_a_token_read_from_a_file_has_a_line_s_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken off; in the midst of one it could never be sent, and is refused."""
    monkeypatch.setenv("PENSTOCK_SERVE_TOKEN", f"{TOKEN}\n")
    assert ask(web.app(), "/metrics/pool", headers=BEARER).status_code == 200
    for wrong in (f"{TOKEN}\n", f"{TOKEN} more", f"{TOKEN}-\u00fc"):
        with pytest.raises(ValueError, match="no space, line's end or letter beyond ASCII") as caught:
            web.app(token=wrong)
        assert TOKEN not in str(caught.value)


def test_a_short_token_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="16 characters or more") as caught:
        web.app(token="short-one")
    assert "short-one" not in str(caught.value)
    with pytest.raises(ValueError, match="readers must be"):
        web.app(readers="everybody")  # type: ignore[arg-type]


def order(app: Any, what: Any, **how: Any) -> httpx.Response:
    return ask(app, "/act", method="POST", json=what, **{"headers": BEARER, **how})


def test_nobody_acts_without_the_token(pool: Pool) -> None:
    """Not from here, not where anyone may read, not with GET."""
    drain = {"pool": "served", "do": "drain"}
    app = web.app(token=TOKEN, readers="anyone")
    assert order(app, drain, headers={}).status_code == 401
    assert order(app, drain, headers={"Authorization": "Bearer nonsense"}).status_code == 401
    assert order(web.app(readers="anyone"), drain).status_code == 403
    assert ask(app, "/act", headers=BEARER).status_code == 405
    assert pool.snapshot().closes == {}


def test_with_the_token_a_pool_is_drained_resized_and_rid_of_a_leak(pool: Pool) -> None:
    app = web.app(token=TOKEN)
    assert order(app, {"pool": "served", "do": "drain"}).status_code == 200
    eventually(lambda: pool.snapshot().closes.get(Reason.DRAINED) == 2)
    assert (
        order(app, {"pool": "served", "do": "resize", "max_size": 7}).json()["done"]
        == "resized from at most 4 to at most 7"
    )
    assert pool.max_size == 7
    conn = pool.getconn()
    eventually(lambda: pool.snapshot().suspects == 1)
    [holder] = pool.holders()
    site = holder.site._asdict()
    assert order(app, {"pool": "served", "do": "reclaim", "site": {**site, "line": 1}}).status_code == 409
    assert order(app, {"pool": "served", "do": "reclaim", "site": site}).status_code == 200
    eventually(lambda: pool.snapshot().closes.get(Reason.RECLAIMED) == 1)
    with pytest.raises(Exception, match=r"lost|closed|terminat"):
        conn.execute("SELECT 1")
    del conn


def test_a_pool_of_asyncio_is_resized_in_its_own_loop(dsn: str) -> None:
    """Which need not be the one that serves."""

    async def scenario() -> None:
        async with AsyncPool(dsn, min_size=1, max_size=2, name="async-served", open=False) as pool:
            what = {"pool": "async-served", "do": "resize", "max_size": 5}
            answer = await asyncio.to_thread(order, web.app(token=TOKEN), what)
            assert answer.status_code == 200, answer.text
            assert pool.max_size == 5

    asyncio.run(scenario())


def test_a_pool_whose_loop_does_not_run_is_left_alone_and_said_to_be(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once where it rests; after a while where it is stuck."""
    monkeypatch.setattr(actions, "ANSWERS", 0.05)
    loop = asyncio.new_event_loop()
    apool = AsyncPool(dsn, min_size=0, max_size=2, name="resting", open=False)
    loop.run_until_complete(apool.open())
    rests = order(web.app(token=TOKEN), {"pool": "resting", "do": "drain"})
    assert (rests.status_code, rests.text) == (409, "The pool's event loop does not run at the moment.\n")

    async def stick() -> httpx.Response:
        return aside(lambda: order(web.app(token=TOKEN), {"pool": "resting", "do": "drain"})).result(10)

    stuck = loop.run_until_complete(stick())
    assert (stuck.status_code, stuck.text) == (409, "The pool's event loop did not answer within 0.05 s.\n")
    loop.run_until_complete(apool.close())
    loop.close()


@pytest.mark.parametrize(
    ("what", "status"),
    [
        ({"pool": "nobody's", "do": "drain"}, 409),
        ({"pool": "served", "do": "explode"}, 409),
        ({"pool": "served", "do": "resize", "max_size": "9"}, 409),
        ({"pool": "served", "do": "resize", "max_size": 0}, 409),
        ({"pool": "served", "do": "resize", "max_size": 41}, 409),
        ({"pool": "served", "do": "resize", "max_size": 10**30}, 409),
        ({"pool": "served", "do": "reclaim"}, 409),
        ({"pool": "served", "do": "reclaim", "site": {"file": "a", "line": "x", "function": "b"}}, 409),
        ({"pool": ["served"], "do": ["drain"]}, 409),
        ([1], 409),
        ("x" * 20_000, 413),
    ],
)
def test_an_order_that_makes_no_sense_changes_nothing(pool: Pool, what: Any, status: int) -> None:
    assert order(web.app(token=TOKEN), what).status_code == status
    assert (pool.max_size, pool.snapshot().closes) == (4, {})


def test_an_order_must_be_json(pool: Pool) -> None:
    assert ask(web.app(token=TOKEN), "/act", method="POST", headers=BEARER, content=b"[" * 9000).status_code == 400


# ------------------------------------------------------------------------------------------ the stream


def frames(address: str, count: int, **how: Any) -> list[dict[str, Any]]:
    """The first so many."""
    found = []
    with httpx.stream("GET", f"{address}/events", timeout=20, **how) as stream:
        event = ""
        for line in stream.iter_lines():
            name, _, value = line.partition(": ")
            event = value if name == "event" else event
            if name == "data" and event == "frame":
                found.append(json.loads(value))
                if len(found) == count:
                    break
    return found


def test_a_frame_a_second_tells_who_holds_what(pool: Pool) -> None:
    """And counts what happens between two."""
    with served(web.app(readers="local")) as address:
        with pool.connection() as conn:
            conn.execute("SELECT %s, 'secret'", ["secret"])
            first, second = frames(address, 2)
    [mine] = [each for each in first["pools"] if each["name"] == "served"]
    assert (mine["in_use"], mine["idle"], mine["max"]) == (1, 1, 4)
    [holder] = mine["holders"]
    assert holder["site"]["file"] == __file__
    assert holder["statement"] == "SELECT ?, ?"
    assert 0.5 < second["now"] - first["now"] < 5


def test_only_so_many_may_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is told so; when one has gone there is room."""
    monkeypatch.setattr(feed, "MOST_WATCHERS", 1)
    with served(web.app(readers="local")) as address:
        with httpx.stream("GET", f"{address}/events", timeout=20) as stream:
            lines = stream.iter_lines()
            next(lines)
            assert _code(address) == 503
        eventually(lambda: _code(address) == 200, 10)


def test_who_is_let_in_has_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty who ask at once are not all let in before the first has begun to read; who never begins loses it."""

    async def scenario() -> None:
        told = feed.Feed(lambda: feed.Reading([]), {}, dict)
        for _ in range(feed.MOST_WATCHERS):
            told.watch()
        with pytest.raises(feed.TooMany):
            told.watch()
        monkeypatch.setattr(feed, "BEGINS", 0.0)
        stream = told.watch()
        assert (await anext(stream))["event"] == "about"
        await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(scenario())


def test_what_cannot_be_written_down_does_not_end_the_looking() -> None:
    told = feed.Feed(lambda: feed.Reading([]), {}, lambda: {"extra": object()})
    assert json.loads(told._look())["error"] == "TypeError"


def _code(address: str) -> int:
    with httpx.stream("GET", f"{address}/events", timeout=20) as stream:
        return stream.status_code


def test_nobody_is_looked_for_when_nobody_watches(monkeypatch: pytest.MonkeyPatch, pool: Pool) -> None:
    """The thread ends; the next who comes begins it anew."""
    monkeypatch.setattr(feed, "LINGER", 0.0)
    monkeypatch.setattr(feed, "EVERY", 0.05)
    with served(web.app(readers="local")) as address:
        for _ in range(2):
            assert len(frames(address, 2)) == 2
            eventually(lambda: not any(thread.name == "penstock-page" for thread in threading.enumerate()), 10)


def test_a_look_that_fails_is_told_and_the_next_may_do() -> None:
    """The page says that what it shows is old."""
    turns = iter([RuntimeError("no"), feed.Reading([])])

    def read() -> feed.Reading:
        turn = next(turns)
        if isinstance(turn, Exception):
            raise turn
        return turn

    told = feed.Feed(read, {}, dict)
    assert json.loads(told._look())["error"] == "RuntimeError"
    assert json.loads(told._look())["pools"] == []


# ------------------------------------------------------------------------------------------ frames


@contextmanager
def told(pool: Pool) -> Iterator[Callable[..., dict[str, Any]]]:
    """What a process tells of *pool*, with other figures."""
    [source] = [each for each in document()["sources"] if each["name"] == pool.name and not each["figures"]["closed"]]

    def process(pid: int, **figures: Any) -> dict[str, Any]:
        mine = {**source, "figures": {**source["figures"], **figures}}
        return {**document(), "pid": pid, "sources": [mine]}

    yield process


def test_a_pool_of_many_processes_is_one_with_a_line_for_each(pool: Pool) -> None:
    with told(pool) as process:
        frame = Frames().frame([process(1, leased=3, waiting=2), process(2, leased=1)], 10.0)
    [shown] = frame["pools"]
    assert (shown["in_use"], shown["max"], shown["waiting"]) == (4, 8, 2)
    assert [(member["pid"], member["in_use"]) for member in shown["members"]] == [(1, 3), (2, 1)]


def test_rates_and_percentiles_are_of_the_last_seconds(pool: Pool) -> None:
    """Of a process that began anew in between there is nothing to tell, and nothing less than nothing."""

    def times(slow: int) -> dict[str, Any]:
        return {"counts": [100, 0, 0, 0, 0, slow, 0, 0, 0, 0], "total": 0.0}

    frames = Frames()
    with told(pool) as process:
        frames.frame([process(1, requests=1000, wait_time=times(0))], 100.0)
        frame = frames.frame([process(1, requests=1040, wait_time=times(40))], 104.0)
        [shown] = frame["pools"]
        assert shown["requests_rate"] == 10
        assert 0.1 < shown["wait"]["p50"] < 0.5
        again = frames.frame([process(1, requests=3, wait_time=times(0))], 105.0)
    [shown] = again["pools"]
    assert shown["requests_rate"] == 0
    assert shown["wait"]["p99"] is None
    assert [point[0] for point in frames.history()["served"]] == [100.0, 104.0, 105.0]


def test_what_is_gone_is_not_remembered(pool: Pool) -> None:
    """Processes come and go for weeks."""
    frames = Frames()
    with told(pool) as process:
        for pid in range(1, 6):
            frames.frame([process(pid)], float(pid))
    assert [key[1] for key in frames._counters] == [5]


def test_a_closed_pool_and_one_that_cannot_tell_are_not_shown(pool: Pool) -> None:
    with told(pool) as process:
        gone = process(1, closed=True, open=0)
        mute = process(2)
        mute["sources"][0] = {"name": "served", "kind": "Pool", "error": "RuntimeError while it was looked at"}
        assert Frames().frame([gone, mute], 1.0)["pools"] == []


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [([0] * 10, 0.5, None), ([5, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0.99, 0.001), ([0] * 9 + [1], 0.5, 10.0),
     ([0, 0, 0, 10, 0, 0, 0, 0, 0, 0], 0.5, 0.03), ([5, 0, 0, 0, 0, 5, 0, 0, 0, 0], 0.75, 0.3)],
)  # fmt: skip
def test_percentiles_are_estimated_within_buckets(counts: list[int], share: float, expected: float | None) -> None:
    found = quantile(counts, share)
    assert found == (expected if expected is None else pytest.approx(expected))


# ------------------------------------------------------------------------------------------ penstock serve


def test_a_document_of_another_version_takes_nothing_from_the_others(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said whose cannot be shown."""
    from penstock.observe.telemetry import reader

    good = document()
    found = reader.Found(
        [good, {**good, "pid": 7, "version": 99}, {"pid": 8, "version": good["version"], "sources": [{}]}]
    )
    monkeypatch.setattr(reader, "read", lambda: found)
    reading = others.read()
    assert [each["pid"] for each in reading.documents] == [os.getpid()]
    assert reading.troubles[0].startswith("process 7 tells version 99")
    assert reading.troubles[1].startswith("process 8 tells what cannot be shown")


def test_penstock_serve_shows_other_processes_and_changes_nothing(dsn: str) -> None:
    """Over their sockets, within seconds; bound to this machine."""
    port = free_port()
    with Pool(dsn, min_size=1, name="elsewhere", open=False) as pool:
        pool.wait()
        address = f"http://127.0.0.1:{port}"
        program = ["-c", "from penstock.cli import main; main()", "serve", "--port", str(port)]
        with ExitStack() as watching, running_quietly(program):
            eventually(lambda: _answers(address), 60)  # it loads a web server
            stream = watching.enter_context(httpx.stream("GET", f"{address}/events", timeout=20))
            lines = stream.iter_lines()  # somebody watches as it ends
            assert next(lines) == "event: about"
            names = {each["name"] for each in httpx.get(f"{address}/metrics/pool", timeout=10).json()["pools"]}
            assert "elsewhere" in names
            assert httpx.get(f"{address}/metrics").status_code == 404
            assert httpx.post(f"{address}/act", json={}).status_code == 403
            assert httpx.get(f"{address}/metrics/pool", headers={"Host": "evil.example"}).status_code == 403


@contextmanager
def running_quietly(command: list[str]) -> Iterator[None]:
    """`running`, for a program whose own first line has our name in it."""
    from support.web import Program

    program = Program(command, {}, ROOT)
    try:
        yield
    finally:
        said = program.end()
    assert "Traceback" not in said, said
    assert program.returncode in (0, -signal.SIGTERM), "it had to be killed"


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/").status_code == 200
    except httpx.TransportError:
        return False


def test_penstock_serve_asks_everybody_for_a_token_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other users of this machine reach its ports, too."""
    assert ask(web.of_all_processes(), "/metrics/pool").status_code == 200
    monkeypatch.setenv("PENSTOCK_SERVE_TOKEN", TOKEN)
    assert ask(web.of_all_processes(), "/metrics/pool").status_code == 401
    assert ask(web.of_all_processes(), "/metrics/pool", headers=BEARER).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--host", "0.0.0.0"], "PENSTOCK_SERVE_TOKEN"),
        (["--pgbouncer", "postgresql://u:hidden@h/pgbouncer?nonsense=1"], "conninfo does not parse"),
    ],
)
def test_penstock_serve_refuses_what_it_cannot_do_well(arguments: list[str], told: str) -> None:
    """To be reached from elsewhere without a token: it says what to set. A wrong DSN: without its password."""
    app = typer.Typer()
    app.command()(serve)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert told in done.stderr
    assert "hidden" not in done.stderr


def test_penstock_serve_says_where_it_listens_only_if_it_does() -> None:
    """The port is another's."""
    app = typer.Typer()
    app.command()(serve)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = CliRunner().invoke(app, ["--port", str(taken.getsockname()[1])])
    assert done.exit_code == 1
    assert "in use" in done.stderr
    assert "Ctrl-C" not in done.stderr


def test_penstock_serve_refuses_a_short_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_SERVE_TOKEN", "short-one")
    app = typer.Typer()
    app.command()(serve)
    done = CliRunner().invoke(app, [])
    assert done.exit_code == 2
    assert "16 characters" in done.stderr
    assert "short-one" not in done.stderr
