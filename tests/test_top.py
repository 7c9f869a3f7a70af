"""`penstock top` shows the line first, then what is wrong and who waits, then who holds longest."""

import copy
import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer
from rich.console import Console

from penstock import Pool
from penstock.cli import top as command
from penstock.cli import top_view
from penstock.drill.postgres import EmbeddedPostgres
from penstock.observe.document import document
from penstock.observe.pgbouncer import Console as Bouncer
from penstock.observe.server import HIDDEN, Server
from penstock.observe.telemetry.reader import Found, Silent
from penstock.observe.top import Frame, frame, printable, shortened, shown
from support.pgbouncer import PgBouncer
from support.waiting import aside, eventually
from support.watched import program

COMMAND = [sys.executable, "-c", "from penstock.cli import main; main()", "top"]
HOLDS = """
pool = penstock.Pool(dsn, min_size=1, max_size=2, name='shown', open=True)
conn = pool.getconn()
conn.execute("SELECT 'a secret'")
tell('holds')
"""


def top(*words: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], env={**os.environ, **(environ or {})}, capture_output=True, text=True, timeout=30
    )


@pytest.fixture
def told(dsn: str) -> dict[str, Any]:
    """The document of a process with one pool, of whose two connections one is held."""
    with Pool(dsn, min_size=1, max_size=2, name="web", open=True) as pool:
        with pool.connection() as conn:
            conn.execute("SELECT 1")
            whole: dict[str, Any] = json.loads(json.dumps(document()))
    # One of another test may be there still.
    whole["sources"] = [
        source for source in whole["sources"] if source["name"] == "web" and not source["figures"]["closed"]
    ]
    whole["alerts"] = []
    return whole


def changed(told: dict[str, Any], pid: int, **figures: Any) -> dict[str, Any]:
    """Another process's, whose pool's figures are these."""
    other = copy.deepcopy(told)
    other["pid"] = pid
    other["sources"][0]["figures"].update(figures)
    return other


def text(shown: Any, width: int = 80) -> list[str]:
    """The lines of what a terminal of that width shows."""
    console = Console(width=width, highlight=False, markup=False, file=io.StringIO(), record=True)
    console.print(shown)
    return console.export_text().splitlines()


# ---------------------------------------------------------------------------------------------- pools


def test_the_line_comes_first(told: dict[str, Any]) -> None:
    """In use of what may be, over all processes."""
    found = Found([changed(told, pid, leased=3, max_size=10, open=5, waiting=pid) for pid in (1, 2)])
    made = frame(found, 0.0)
    assert (made.used, made.size, made.open, made.waiting, made.processes) == (6, 20, 10, 3, 2)
    first = text(top_view.pools(made, 120, 40), 120)[0]
    assert "30%  6 of 20 in use  10 open  3 wait  2 pools in 2 processes" in first


def test_what_has_no_limit_counts_against_none(told: dict[str, Any]) -> None:
    """Connections that are only watched, say."""
    found = Found([changed(told, 1, leased=3, max_size=10), changed(told, 2, leased=8, max_size=0)])
    made = frame(found, 0.0)
    assert (made.used, made.size, made.unbounded) == (3, 10, 8)
    lines = text(top_view.pools(made, 120, 40), 120)
    assert "30%  3 of 10 in use  8 in use without a limit" in lines[0]
    assert any(re.match(r" +2 .* web +8 ", line) for line in lines)


def test_what_has_no_line_that_is_known_is_in_use_of_nothing(told: dict[str, Any]) -> None:
    """As `penstock run --watch` tells: it counts connections, and knows no size."""
    told["sources"][0]["figures"] |= {"max_size": 0, "leased": 4}
    first = text(top_view.pools(frame(Found([told]), 0.0), 120, 40), 120)[0]
    assert "4 in use" in first
    assert "of 0" not in first


def test_what_is_wrong_comes_before_who_waits_and_who_waits_before_who_is_full(told: dict[str, Any]) -> None:
    found = Found(
        [
            changed(told, 1, leased=0),
            changed(told, 2, leased=2, max_size=2),
            changed(told, 3, leased=1, waiting=5),
            changed(told, 4, leased=0, database_down=True, last_error="OperationalError: refused"),
            changed(told, 5, leased=0, suspects=2),
        ]
    )
    made = frame(found, 0.0)
    assert [row.pid for row in made.pools] == [4, 5, 3, 2, 1]
    assert [row.trouble for row in made.pools[:2]] == [
        ("database down: OperationalError: refused",),
        ("2 suspected leaks",),
    ]


def test_a_holder_is_shown_with_its_line_and_where_it_stands(told: dict[str, Any]) -> None:
    """Those of one line of code together, in whatever processes."""
    other = changed(told, 2)
    other["sources"][0]["holders"][0].update(held=63.2, idle=60.0)
    made = frame(Found([told, other]), 0.0)
    (held,) = made.holders
    assert (held.count, held.idle, held.longest.pid, held.longest.held) == (2, 2, 2, 63.2)
    lines = text(top_view.pools(made, 160, 40), 160)
    at = lines.index(next(line for line in lines if line.startswith("HELD LONGEST")))
    assert re.fullmatch(r"  63\.2 s  .*test_top\.py:\d+ in told  2 held, 2 idle in hand  2 web", lines[at + 1].rstrip())
    assert re.search(r"idle in hand 60\.0 s, INTRANS; now at .*/observe/\w+\.py:\d+ in ", lines[at + 2])
    assert lines[at + 3].strip() == "SELECT ?"


def test_rates_are_of_the_time_between_two_looks(told: dict[str, Any]) -> None:
    first = frame(Found([changed(told, 1, uses=100, refusals={"timeout": 4})]), 0.0)
    assert (first.pools[0].rate, first.pools[0].refused) == (None, 4)
    later = changed(told, 1, uses=150, refusals={"timeout": 5, "closed": 2})
    later["now"] = told["now"] + 2.0
    second = frame(Found([later]), 2.0, first)
    assert (second.pools[0].rate, second.pools[0].refused) == (25.0, 3)
    anew = changed(told, 1, uses=1)  # another process has its number now
    anew["now"] = told["now"] + 4.0
    assert frame(Found([anew]), 4.0, second).pools[0].rate is None


def test_profiles_of_all_processes_are_added_up(told: dict[str, Any]) -> None:
    place = {"file": "app.py", "line": 7, "function": "pay"}
    told["sources"][0]["profile"] = {
        "seconds": 100.0,
        "sites": [{"site": place, "held": 150.0, "idle": 120.0}],
        "statements": [{"statement": "SELECT ?", "ran": 30.0}],
    }
    made = frame(Found([told, changed(told, 2)]), 0.0)
    assert [(use.what, use.connections, use.idle) for use in made.sites] == [("app.py:7 in pay", 3.0, 2.4)]
    lines = text(top_view.pools(made, 80, 60))
    assert "     3.0  app.py:7 in pay, 2.4 idle in hand" in lines
    assert "     0.6  SELECT ?" in lines


def test_a_fleet_is_shown_as_who_looked_last_sees_it(told: dict[str, Any]) -> None:
    fleet = {"name": "main", "member": "a", "budget": 60, "share": 5, "members": 12, "claimed": 58, "age": 9.0}
    told["sources"][0]["fleet"] = {**fleet, "hint": None, "line": None}
    newer = changed(told, 2)
    newer["sources"][0]["fleet"].update(age=1.0, claimed=60, hint="there is no room")
    joining = changed(told, 3)
    joining["sources"][0]["fleet"].update(age=None)
    lines = text(top_view.pools(frame(Found([told, newer, joining]), 0.0), 80, 40))
    assert "fleet main: 60 of 60 claimed by 12 processes: there is no room" in lines


def test_a_document_that_is_not_as_it_should_be_is_said_to_be_so(told: dict[str, Any]) -> None:
    """It may be another version's: the others are shown all the same."""
    broken: list[Any] = [
        {"sources": []},
        {**told, "version": 99, "pid": 3},
        {**told, "pid": 4, "sources": [{}]},
        {**told, "pid": 5, "sources": ["x"]},
        {**told, "pid": 6, "alerts": [1]},
        {**told, "pid": "\x1b[2J", "version": 2},
    ]
    made = frame(Found([told, *broken], [Silent(9, Path("9.sock"), "has not answered")]), 0.0)
    assert [row.pid for row in made.pools] == [told["pid"]]
    assert len(made.unread) == 7
    assert made.unread[-1] == "9: has not answered"
    assert "3: its document is none of this version's" in made.unread
    assert not any("\x1b" in line for line in made.unread)


def test_nothing_that_is_told_moves_the_cursor(told: dict[str, Any]) -> None:
    """Escape sequences, and writing turned round, in whatever a process tells."""
    evil = "a\x1b]0;owned\x07\x9b2Jb\u202ec\r\nd"
    told["title"] = evil
    source = told["sources"][0]
    source["name"] = source["holders"][0]["owner"] = source["holders"][0]["statement"] = evil
    source["holders"][0]["site"]["file"] = evil
    source["figures"].update(database_down=True, last_error=evil)
    told["alerts"] = [{"pool": evil, "kind": evil, "why": evil}]
    whole = "\n".join(text(top_view.pools(frame(Found([told]), 0.0), 200, 60), 200))
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", whole)
    assert "a?]0;owned??2Jb?c??d" in whole
    assert printable("żółw 東京 →") == "żółw 東京 →"


@pytest.mark.parametrize("width", [80, 100, 200])
@pytest.mark.parametrize("height", [12, 24, 50])
def test_fifty_processes_fit_any_terminal(told: dict[str, Any], width: int, height: int) -> None:
    """The line, the most urgent, and a holder are there; a word says how much is not."""
    place = {"file": "/srv/" + "long/" * 20 + "app.py", "line": 7, "function": "pay"}
    told["sources"][0]["profile"]["sites"] = [{"site": place, "held": 1.0, "idle": 0.5}] * 9
    told["sources"][0]["profile"]["seconds"] = 1.0
    told["title"] = "gunicorn " + "x" * 200
    found = Found([changed(told, pid, waiting=pid) for pid in range(1, 51)])
    lines = text(top_view.pools(frame(found, 0.0), width, height), width)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert any("more pools: " in line for line in lines) == (height < 55)
    assert any(line.lstrip().startswith("50  ") for line in lines)
    assert any("in told" in line for line in lines)


def test_no_line_says_that_one_line_is_left_out() -> None:
    assert shown([1, 2, 3], 3) == ([1, 2, 3], 0)
    assert shown([1, 2, 3, 4], 3) == ([1, 2], 2)
    assert shortened("/a/long/path.py:1", 10) == "...th.py:1"


# ---------------------------------------------------------------------------------------------- the command


@contextmanager
def holding(dsn: str, folder: Path) -> Iterator[dict[str, str]]:
    """A program that holds a connection. Yields the environment to look at it from."""
    there = {"TMPDIR": str(folder), "XDG_RUNTIME_DIR": str(folder)}
    with program(dsn, HOLDS, there) as running:
        assert running.heard() == "holds"
        yield there


def test_once_prints_what_there_is(dsn: str, tmp_path: Path) -> None:
    """Of other processes than its own, without a terminal, and without anything that was asked for in a statement."""
    with holding(dsn, tmp_path) as there:
        done = top("--once", environ=there)
    assert done.returncode == 0, done.stderr
    assert re.search(r"python -c +shown +1/2", done.stdout)
    assert re.search(r"<string>:\d+ in <module>  \d+ shown", done.stdout)
    assert "SELECT ?" in done.stdout
    assert "secret" not in done.stdout
    assert "\x1b" not in done.stdout


def test_json_is_the_documents(dsn: str, tmp_path: Path) -> None:
    with holding(dsn, tmp_path) as there:
        told = json.loads(top("--json", environ=there).stdout)
    pools = [source for each in told["processes"] for source in each["sources"] if source["name"] == "shown"]
    assert [source["holders_total"] for source in pools] == [1]
    assert isinstance(told["silent"], list)


def test_it_runs_in_a_terminal_until_q(dsn: str, tmp_path: Path) -> None:
    """It leaves the terminal as it was: the other screen, the cursor and the keys."""
    with holding(dsn, tmp_path) as there:
        ours, its = pty.openpty()
        terminal = {**os.environ, **there, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
        running = subprocess.Popen([*COMMAND, "--interval", "0.2"], env=terminal, stdin=its, stdout=its, stderr=its)
        os.close(its)
        seen = b""
        until = time.monotonic() + 20
        while b"SELECT ?" not in seen and time.monotonic() < until:
            if select.select([ours], [], [], 0.1)[0]:
                seen += os.read(ours, 65536)
        os.write(ours, b"q")
        while time.monotonic() < until:
            try:
                seen += os.read(ours, 65536)
            except OSError:  # nobody has it open any more
                break
        assert running.wait(10) == 0
        os.close(ours)
    assert b"1/2" in seen
    assert seen.index(b"\x1b[?1049h") < seen.index(b"\x1b[?1049l")
    assert seen.rindex(b"\x1b[?25h") > seen.index(b"\x1b[?25l")


@pytest.mark.parametrize(
    ("dsn", "pgbouncer", "status", "said"),
    [
        ("postgresql://me:s3cret@127.0.0.1:1/db", None, 1, "refused"),
        (None, "postgresql://me:s3cret@127.0.0.1:1/pgbouncer", 1, "refused"),
        ("postgresql://me:s3@cret@127.0.0.1:1/db", None, 2, "%40"),
        ("s3cret nonsense", None, 2, "does not parse"),
        ("postgresql://h/a", "postgresql://h/pgbouncer", 2, "not both"),
    ],
)
def test_what_cannot_be_looked_at_is_said_in_a_line_without_a_password(
    dsn: str | None, pgbouncer: str | None, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = failure(dsn, pgbouncer, status, capsys)
    assert said in line
    assert "cret" not in line


def failure(dsn: str | None, pgbouncer: str | None, status: int, capsys: pytest.CaptureFixture[str]) -> str:
    """The line that the command ends with."""
    with pytest.raises(typer.Exit) as ended:
        command.top(dsn, pgbouncer, once=True)
    assert ended.value.exit_code == status
    out, errors = capsys.readouterr()
    assert out == ""
    (line,) = errors.splitlines()
    assert line.startswith("penstock top: ")
    return str(line)


# ---------------------------------------------------------------------------------------------- a server


def test_a_server_s_connections_are_counted_against_what_it_accepts(
    own_postgres: Callable[..., EmbeddedPostgres],
) -> None:
    postgres = own_postgres(max_connections=20, superuser_reserved_connections=3, reserved_connections=2)
    server = Server(postgres.dsn)
    with ExitStack() as stack:
        web = [
            stack.enter_context(psycopg.connect(postgres.dsn, application_name="web", autocommit=n > 0))
            for n in range(4)
        ]
        web[0].execute("SELECT 'a secret'")
        found = server.read()
        server.close()
    assert (found.line, found.reserved, found.open_to_all) == (20, 5, 15)
    (group,) = [group for group in found.groups if group.application == "web"]
    assert (group.count, dict(group.states)) == (4, {"idle": 3, "idle in transaction": 1})
    assert group.oldest is not None
    (session,) = [session for session in found.sessions if session.application == "web"]
    assert (session.state, session.statement) == ("idle in transaction", "SELECT ?")
    lines = text(top_view.server(found, 120, 40), 120)
    assert f"{found.count} of 15 connections  max_connections 20, 5 reserved" in lines[0]


def test_connections_that_may_not_be_seen_are_said_to_be_so(postgres: EmbeddedPostgres, dsn: str) -> None:
    """An ordinary role is shown that another's connections are there, and not what they do."""
    with postgres.admin() as admin:
        admin.execute("SELECT 1")
        server = Server(dsn)
        found = server.read()
        server.close()
    assert not found.sees_all
    assert found.hidden >= 1
    assert {state for group in found.groups if group.role == "postgres" for state in group.states} == {HIDDEN}
    assert any("pg_monitor" in line for line in text(top_view.server(found, 120, 40), 120))


def test_who_holds_a_lock_that_others_wait_for_is_named(dsn: str) -> None:
    with ExitStack() as stack:
        holds, waits = (stack.enter_context(psycopg.connect(dsn, application_name="locks")) for _ in range(2))
        holds.execute("SELECT pg_advisory_xact_lock(4711)")
        waiting = aside(lambda: waits.execute("SELECT pg_advisory_xact_lock(4711)"))
        server = Server(dsn)
        stack.callback(server.close)

        def blocked() -> list[tuple[int, ...]]:
            return [session.blocked_by for session in server.read().sessions if session.blocked_by]

        eventually(lambda: blocked() == [(holds.info.backend_pid,)], 10)
        holds.rollback()
        waiting.result(10)
        assert not blocked()


def test_looking_at_a_server_takes_one_connection_and_changes_nothing(dsn: str) -> None:
    """Read-only, and bounded in time; the connection that was lost is made again."""
    server = Server(dsn)
    with psycopg.connect(dsn, autocommit=True) as watching:
        server.read()
        server.read()
        ask = "SELECT pid FROM pg_stat_activity WHERE application_name = 'penstock top'"
        ((pid,),) = watching.execute(ask).fetchall()
        limits = server._conn.execute(
            "SELECT current_setting('statement_timeout'), current_setting('transaction_read_only')"
        )
        assert limits.fetchone() == ("2s", "on")
        watching.execute("SELECT pg_terminate_backend(%s)", [pid])
        with pytest.raises(psycopg.OperationalError):
            for _ in range(100):
                server.read()
        assert server.read().line
        server.close()


def test_a_server_without_a_slot_is_said_to_be_so(
    own_postgres: Callable[..., EmbeddedPostgres], capsys: pytest.CaptureFixture[str]
) -> None:
    """And where to look instead."""
    postgres = own_postgres(max_connections=5, superuser_reserved_connections=1)
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(psycopg.connect(postgres.dsn))
        line = failure(postgres.dsn, None, 1, capsys)
    assert "remaining connection slots are reserved" in line
    assert line.endswith("the processes with pools tell of them without one: penstock top")


# ---------------------------------------------------------------------------------------------- PgBouncer


@pytest.mark.parametrize("prepares", [False, True], ids=["before-1.21", "since-1.21"])
def test_a_pgbouncer_s_pools_are_shown_in_any_version(postgres: EmbeddedPostgres, prepares: bool) -> None:
    """Who waits for how long, and how many servers there may be."""
    with (
        PgBouncer(postgres, prepares=prepares, default_pool_size=2, max_client_conn=77) as running,
        ExitStack() as stack,
    ):
        console = Bouncer(running.console_dsn)
        clients = [stack.enter_context(psycopg.connect(running.dsn, prepare_threshold=None)) for _ in range(3)]
        for client in clients[:2]:
            client.execute("SELECT 1")
        waiting = aside(lambda: clients[2].execute("SELECT 1"))
        eventually(lambda: any(pool.waiting for pool in console.read().pools), 10)
        found = console.read()
        for client in clients[:2]:
            client.rollback()
        waiting.result(10)
        console.close()
    (pool,) = [pool for pool in found.pools if pool.clients]
    assert (pool.servers_active, pool.servers, pool.size, pool.waiting, pool.clients) == (2, 2, 2, 1, 3)
    assert pool.mode == "transaction"
    assert pool.longest >= 0
    assert (found.clients, found.max_clients) == (4, 77)  # the console's own is one
    lines = text(top_view.bouncer(found, 120, 30), 120)
    assert "100%  2 of 2 server connections in use  2 open  1 waits  4 of 77 clients  PgBouncer 1." in lines[0]
    assert any(re.search(r"transaction +2/2 +3 +1 ", line) for line in lines)


def test_an_empty_frame_says_so() -> None:
    assert any("no process of this user has an open pool" in line for line in text(top_view.pools(Frame(0.0), 80, 24)))
