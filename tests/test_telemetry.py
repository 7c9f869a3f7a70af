"""Every process with a pool tells of it on a local socket, whatever state it is in, and nothing that reads hurts it."""

import asyncio
import errno
import gc
import logging
import os
import pwd
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from penstock import AsyncPool, Pool
from penstock.observe import watching
from penstock.observe.document import MOST_SOURCES, document
from penstock.observe.process import title
from penstock.observe.telemetry import place, reader, server
from support.either import request
from support.waiting import aside, eventually
from support.watched import Program, own_document, own_socket, program, source, told

OPENS = "pool = penstock.Pool(dsn, min_size=1, name='theirs', open=True); pool.wait(); tell('ready')"


@pytest.fixture
def pool(dsn: str, request: pytest.FixtureRequest) -> Iterator[Pool[Any]]:
    """Named after its test: those of others may be there still."""
    with Pool(dsn, min_size=1, max_size=2, name=request.node.name) as opened:
        opened.wait()
        yield opened


@pytest.fixture(autouse=True)
def _always_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """No document that was made a moment ago for somebody else."""
    monkeypatch.setattr(server, "REUSE", -1.0)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of sockets that no other process uses."""
    folder = tmp_path / "penstock"
    monkeypatch.setattr(place, "folders", lambda: [folder])
    return folder


def listening(folder: Path) -> list[int]:
    """The processes with a socket in *folder*."""
    return [place.pid_of(path) for path in place.sockets(folder)]


# ---------------------------------------------------------------------------------------------- what is told


def test_a_holder_is_told_with_its_line_and_where_it_stands(pool: Pool[Any]) -> None:
    """Over HTTP, as curl asks."""
    with pool.connection() as conn:
        conn.execute("SELECT 1, 'a secret', %s", ["another"])
        found = source(aside(lambda: told(own_socket())).result(10), pool.name)
    (holder,) = found["holders"]
    assert holder["site"]["file"] == __file__
    assert holder["site"]["function"] == "test_a_holder_is_told_with_its_line_and_where_it_stands"
    assert holder["statement"] == "SELECT ?, ?, ?"
    assert holder["status"] == "INTRANS"
    assert holder["idle"] >= 0
    assert any(place["file"] == __file__ for place in holder["stack"])
    assert (found["figures"]["leased"], found["figures"]["max_size"], found["figures"]["open"]) == (1, 2, 1)


def test_where_a_holder_stands_is_told_in_lines_of_its_own(pool: Pool[Any]) -> None:
    """However deep in libraries it is: the last line shown is the program's."""
    reads, writes = os.pipe()

    def wait_for_a_program() -> None:
        with pool.connection():
            subprocess.run(["cat"], stdin=reads, capture_output=True, check=True)

    ended = aside(wait_for_a_program)
    eventually(lambda: [holder.stack[0].function for holder in pool.holders()] == ["_PollLikeSelector.select"])
    (holder,) = source(own_document(), pool.name)["holders"]
    os.close(writes)
    os.close(reads)
    ended.result(10)
    assert len(holder["stack"]) == 4
    assert holder["stack"][-1]["file"] == __file__
    assert holder["stack"][-1]["function"].endswith("wait_for_a_program")


def test_events_are_told_in_words(pool: Pool[Any]) -> None:
    pool.drain()
    eventually(lambda: {"Opened", "Closed"} <= {event["kind"] for event in source(own_document(), pool.name)["events"]})
    (closed,) = [event for event in source(own_document(), pool.name)["events"] if event["kind"] == "Closed"]
    assert closed["what"] == "closed a connection: drained"


def test_the_document_holds_no_secret(dsn: str) -> None:
    """Neither of the connection string, nor of the arguments, nor of what was asked."""
    password = dsn.split("@")[0].rpartition(":")[2]
    words = ["worker", "--token", "s3cret-word", "s3cret-too"]
    body = OPENS + "; conn = pool.getconn(); conn.execute(\"SELECT 's3cret-literal'\"); tell('asked')"
    with program(dsn, body, words=words) as running:
        assert (running.heard(), running.heard()) == ("ready", "asked")
        (path,) = [path for path in place.sockets(own_socket().parent) if place.pid_of(path) == running.pid]
        document = told(path)
    assert document["title"] == "python -c"
    assert source(document, "theirs")["holders_total"] == 1
    assert password not in str(document)
    assert "s3cret" not in str(document)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["/usr/bin/gunicorn", "-w", "4", "shop.wsgi:app()"], "gunicorn shop.wsgi:app()"),
        (["/lib/uvicorn/__main__.py", "shop:app", "--reload"], "uvicorn shop:app"),
        (["gunicorn", "--env", "KEY:secret"], "gunicorn"),
        (["report.py", "secret"], "report.py"),
        (["report.py", "user:secret"], "report.py"),
        ([""], "python"),
    ],
)
def test_a_process_is_told_by_words_that_are_no_secret(words: list[str], told: str) -> None:
    assert title(words) == told


def test_alerts_are_loaded_when_somebody_asks(dsn: str, tmp_path: Path) -> None:
    """The first pool that opens in a process waits for what it loads."""
    body = OPENS + "; tell('penstock.observe' in sys.modules, 'penstock.observe.alerts' in sys.modules)"
    with program(dsn, body, {"TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": ""}) as running:
        assert (running.heard(), running.heard()) == ("ready", "True False")


def test_a_watched_pool_keeps_its_short_way(pool: Pool[Any]) -> None:
    """To be watched costs a checkout nothing."""
    assert own_document()["sources"]
    assert pool._plain


# ---------------------------------------------------------------------------------------------- in whatever state


def test_it_is_told_while_the_event_loop_is_stuck(dsn: str) -> None:
    """That is when somebody wants to know."""

    async def get_stuck() -> dict[str, Any]:
        async with AsyncPool(dsn, min_size=1, name="stuck", open=False) as apool:
            await request(apool)
            async with apool.connection():
                return own_document()  # reads in this very thread, which the loop needs

    (holder,) = source(asyncio.run(get_stuck()), "stuck")["holders"]
    assert holder["site"]["function"].endswith("get_stuck")


def test_it_is_told_while_no_connection_can_be_had() -> None:
    with Pool("postgresql://nobody@127.0.0.1:1/none", min_size=1, name="down", open=True):
        eventually(lambda: source(own_document(), "down")["figures"]["database_down"], 15)
        (failed, *_) = [event for event in source(own_document(), "down")["events"] if event["kind"] == "ConnectFailed"]
    assert "refused" in failed["what"]


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("1-aaaaaa.sock", b"[" * 200_000),
        ("1-aaaaaa.sock", b'{"sources": [], "pid": "x"}'),
        ("1x-aaaaaa.sock", b""),
    ],
)
def test_one_that_means_harm_blinds_nobody(tmp_path: Path, name: str, body: bytes) -> None:
    """Root reads what any user's process tells. The others are read all the same."""
    with ExitStack() as stack:
        for each, told in ((name, body), ("2-bbbbbb.sock", b'{"sources": [], "pid": 2}')):
            stack.enter_context(answering(tmp_path / each, told))
        found = reader.read(10.0, [tmp_path / name, *place.sockets(tmp_path)])
    assert [document["pid"] for document in found.documents] == [2]
    assert name.startswith("1x") or found.silent


@contextmanager
def answering(path: Path, body: bytes) -> Iterator[None]:
    """Something that answers there, or ends the connection."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            with suppress(OSError):
                while True:
                    conn, _ = listener.accept()
                    with conn, suppress(OSError):
                        conn.recv(4096)
                        conn.sendall(body and b"HTTP/1.0 200 OK\r\n\r\n" + body)

        answers = threading.Thread(target=answer)
        answers.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            answers.join()


def test_another_user_s_process_is_told_as_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number as the kernel has it: what it tells of itself is a stranger's word."""
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with answering(tmp_path / "1-aaaaaa.sock", b'{"sources": [], "pid": 1, "title": "init"}'):
        (found,) = reader.read(10.0, place.sockets(tmp_path)).documents
    assert found["pid"] == os.getpid()
    assert found["title"] == f"{pwd.getpwuid(mine).pw_name}: init"


def test_many_processes_are_read_at_once_and_who_is_silent_is_named(dsn: str, tmp_path: Path) -> None:
    """One that is stopped takes no more than the time that is given to all."""
    with ExitStack() as stack:
        there = {"TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": ""}
        running = [stack.enter_context(program(dsn, OPENS, there)) for _ in range(4)]
        for each in running:
            each.heard()
        folder = tmp_path / f"penstock-{os.geteuid()}"
        assert sorted(listening(folder)) == sorted(each.pid for each in running)
        os.kill(running[0].pid, signal.SIGSTOP)
        began = time.monotonic()
        found = reader.read(2.0, place.sockets(folder))
        took = time.monotonic() - began
        os.kill(running[0].pid, signal.SIGCONT)
    assert [document["pid"] for document in found.documents] == sorted(each.pid for each in running[1:])
    ((pid, why),) = [(silent.pid, silent.why) for silent in found.silent]
    assert pid == running[0].pid
    assert "has not answered" in why
    assert 1.9 < took < 4


# ---------------------------------------------------------------------------------------------- clients that misbehave


def test_clients_that_hang_keep_nobody_else_from_being_told(pool: Pool[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """They are cut off, those that come after them are served, and the pool goes on meanwhile."""
    monkeypatch.setattr(server, "PATIENCE", 0.3)
    with ExitStack() as stack:
        hanging = []
        for number in range(server.CLIENTS * 3):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(10)
            client.connect(str(own_socket()))
            if number % 2:
                client.send(b"GET / HT")
            hanging.append(client)
        telling = aside(own_document)
        while not telling.done():
            with pool.connection(timeout=1):
                pass
        assert source(telling.result(), pool.name)
        for client in hanging:
            assert client.recv(1) == b""


def test_who_does_not_read_its_answer_is_cut_off(pool: Pool[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PATIENCE", 0.3)
    assert watching._watching is not None
    monkeypatch.setattr(watching._watching.server, "_document", lambda: b"x" * 5_000_000)
    eventually(lambda: not watching._watching.server._clients)  # type: ignore[union-attr]
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(own_socket()))
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        eventually(lambda: watching._watching.server._clients)  # type: ignore[union-attr]
        eventually(lambda: not watching._watching.server._clients, 10)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (b"POST / HTTP/1.0\r\n\r\n", b"405"),
        (b"GET /drain HTTP/1.0\r\n\r\n", b"404"),
        (b"GET /?pretty HTTP/1.0\r\n\r\n", b"200"),
        (b"HEAD / HTTP/1.1\r\nHost: pool\r\n\r\n", b"200"),
        (b"GET /\n\n", b"200"),
        (b"\r\n\r\n", b"405"),
        (b"x" * (server.REQUEST + 1), b""),
    ],
)
def test_it_is_read_only_and_takes_no_nonsense(pool: Pool[Any], asked: bytes, status: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(own_socket()))
        client.sendall(asked)
        try:
            answer = client.recv(100)
        except ConnectionResetError:  # cut off with something unread
            answer = b""
    assert answer[9:12] == status


def test_a_process_without_file_descriptors_does_not_spin(alone: Path) -> None:
    """Whoever cannot be let in would make the socket readable for ever."""
    offered = server.Server(lambda: b"{}")
    offered.listen()
    assert offered.path is not None

    class Full:
        def __init__(self, listener: socket.socket) -> None:
            self.listener = listener
            self.asked = 0

        def accept(self) -> None:
            self.asked += 1
            raise OSError(errno.EMFILE, "too many open files")

        def __getattr__(self, name: str) -> Any:
            return getattr(self.listener, name)

    full = Full(offered._listener)  # type: ignore[arg-type]
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(offered.path))
        key = offered._selector.get_key(offered._listener)  # type: ignore[arg-type]
        assert key.data is None
        offered._listener = full  # type: ignore[assignment]
        offered.serve(0.2)
        assert full.asked == 1
        offered._listener = full.listener
        offered._accepts_at = 0.0  # as if the pause was over
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        for _ in range(20):  # takes it in, lets it in, reads, and answers
            offered.serve(0.01)
        assert client.recv(100).startswith(b"HTTP/1.0 200")
    offered.close()


# ---------------------------------------------------------------------------------------------- where the socket is


def test_the_socket_is_its_user_s_alone(pool: Pool[Any]) -> None:
    path = own_socket()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.parent.stat().st_uid == os.geteuid()


@pytest.mark.parametrize("how", ["open to others", "a link", "a file", "a path too long", "not to be made"])
def test_a_folder_that_is_not_ours_alone_is_not_used(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A line in the log says why there is no socket, once, and the pool's process goes on."""
    folder = tmp_path / "penstock"
    real = tmp_path / "elsewhere"
    real.mkdir(mode=0o700)
    match how:
        case "open to others":
            folder.mkdir()
            folder.chmod(0o755)
        case "a link":
            folder.symlink_to(real)
        case "a file":
            folder.touch()
        case "a path too long":
            folder = tmp_path / ("x" * 100)
        case "not to be made":
            folder = tmp_path / "nowhere" / "penstock"
    monkeypatch.setattr(place, "folders", lambda: [folder])
    offered = server.Server(lambda: b"{}")
    with caplog.at_level(logging.WARNING):
        offered.listen()
        offered.listen()
    (line,) = caplog.messages
    assert str(folder) in line
    assert "penstock top" in line
    assert not list(real.iterdir())
    offered.serve(0)
    offered.close()


def test_the_next_folder_is_used_where_one_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "folders", lambda: [tmp_path / "none" / "penstock", tmp_path / "penstock"])
    offered = server.Server(lambda: b"{}")
    offered.listen()
    assert listening(tmp_path / "penstock") == [os.getpid()]
    offered.close()
    assert listening(tmp_path / "penstock") == []


def test_a_socket_that_was_tidied_away_is_made_again(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime folder goes with its user's last login, and the process stays."""
    offered = server.Server(lambda: b'{"sources": []}')
    offered.listen()
    monkeypatch.setattr(server, "RENEWAL", 0.0)
    for path in alone.iterdir():
        path.unlink()
    alone.rmdir()
    offered.serve(0)
    assert listening(alone) == [os.getpid()]
    reading = aside(lambda: reader.read(5, place.sockets(alone)))
    while not reading.done():
        offered.serve(0.01)
    assert len(reading.result().documents) == 1
    offered.close()


def test_what_a_killed_process_leaves_is_removed_by_who_looks(dsn: str, tmp_path: Path) -> None:
    there = {"TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": ""}
    folder = tmp_path / f"penstock-{os.geteuid()}"
    with program(dsn, OPENS, there) as running:
        running.heard()
        assert listening(folder) == [running.pid]
        running.process.kill()
        running.process.wait()
        assert listening(folder) == [running.pid]
        place.remove_dead(folder)
        assert listening(folder) == []


def test_a_process_that_ends_leaves_nothing(dsn: str, tmp_path: Path) -> None:
    with program(dsn, OPENS, {"TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": ""}) as running:
        running.heard()
        assert running.end() == ("", "")
    assert running.process.returncode == 0
    assert listening(tmp_path / f"penstock-{os.geteuid()}") == []


def test_what_is_no_document_is_said_to_be_none(alone: Path) -> None:
    """Another program may have made a socket there."""
    offered = server.Server(lambda: b"<html>")
    offered.listen()
    reading = aside(lambda: reader.read(5, place.sockets(alone)))
    while not reading.done():
        offered.serve(0.01)
    (silent,) = reading.result().silent
    assert (silent.pid, silent.why) == (os.getpid(), "tells what is no document of Penstock's")
    offered.close()


# ---------------------------------------------------------------------------------------------- processes


def forked(running: Program) -> int:
    """The child that it tells of."""
    return int(running.heard())


def test_a_forked_child_tells_on_a_socket_of_its_own(dsn: str, tmp_path: Path) -> None:
    """From its first use of the pool; the parent's stays the parent's."""
    body = """
        pool = penstock.Pool(dsn, min_size=1, name='theirs', open=True); pool.wait()
        goes, begins = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            os.read(goes[0], 1)
            with pool.connection() as conn:
                os.write(begins[1], b'x')
                os.read(goes[0], 1)
            os._exit(0)
        tell(pid)
        sys.stdin.readline(); os.write(goes[1], b'x')
        os.read(begins[0], 1); tell('in use')
        sys.stdin.readline(); os.write(goes[1], b'x'); os.waitpid(pid, 0); tell('gone')
    """
    folder = tmp_path / f"penstock-{os.geteuid()}"
    with program(dsn, body, {"TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": "", "PYTHONWARNINGS": "ignore"}) as running:
        assert running.process.stdin is not None
        child = forked(running)
        assert listening(folder) == [running.pid]
        running.process.stdin.write("\n")
        running.process.stdin.flush()
        assert running.heard() == "in use"
        assert sorted(listening(folder)) == sorted([running.pid, child])
        documents = reader.read(10, place.sockets(folder)).documents
        held = {document["pid"]: source(document, "theirs")["holders_total"] for document in documents}
        assert held == {running.pid: 0, child: 1}
        running.process.stdin.write("\n")
        running.process.stdin.flush()
        assert running.heard() == "gone"
        place.remove_dead(folder)
        (document,) = reader.read(10, place.sockets(folder)).documents
        assert document["pid"] == running.pid


@pytest.mark.parametrize("value", ["off", "OFF", "0", "false"])
def test_it_can_be_switched_off(value: str, dsn: str, tmp_path: Path) -> None:
    """Then there is no thread and no file either."""
    body = OPENS + "; import threading; tell([t.name for t in threading.enumerate() if 'telemetry' in t.name])"
    there = {"TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": "", "PENSTOCK_TELEMETRY": value}
    with program(dsn, body, there) as running:
        assert (running.heard(), running.heard()) == ("ready", "[]")
    assert list(tmp_path.iterdir()) == []


def test_nothing_that_observes_is_loaded_before_a_pool_opens(dsn: str) -> None:
    """`import penstock` stays quick."""
    body = """
        loaded = lambda: 'penstock.observe' in sys.modules
        pool = penstock.Pool(dsn, min_size=1, open=False)
        before = loaded(); pool.open(); tell(before, loaded())
    """
    with program(dsn, body) as running:
        assert running.heard() == "False True"


def test_it_can_be_ended_by_the_program(dsn: str, tmp_path: Path) -> None:
    body = """
        from penstock.observe import unwatch
        pool = penstock.Pool(dsn, min_size=1, open=True)
        unwatch()
        other = penstock.Pool(dsn, min_size=1, open=True)
        tell('ended')
    """
    with program(dsn, body, {"TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": ""}) as running:
        assert running.heard() == "ended"
        assert listening(tmp_path / f"penstock-{os.geteuid()}") == []


def test_nowhere_to_put_a_socket_is_one_line_in_the_log(dsn: str) -> None:
    """A full disk, a read-only root: the pool works all the same."""
    body = """
        import logging
        logging.basicConfig(format='%(name)s %(message)s')
        from penstock.observe.telemetry import place
        def full(*_): raise OSError(28, 'No space left on device')
        place._listen_in = full
        pool = penstock.Pool(dsn, min_size=1, open=True)
        with pool.connection() as conn: tell(conn.execute('SELECT 1').fetchone())
    """
    with program(dsn, body) as running:
        assert running.heard() == "(1,)"
        _, errors = running.end()
    (line,) = errors.splitlines()
    assert line.startswith("penstock.observe no telemetry socket")
    assert "No space left on device" in line


def test_what_watches_keeps_no_pool_alive(dsn: str) -> None:
    """A pool that nobody refers to any more is gone, with its keeper."""
    made = Pool(dsn, min_size=1, name="forgotten", open=True)
    made.wait()
    assert source(own_document(), "forgotten")
    del made
    gc.collect()
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("forgotten")], 10)
    eventually(lambda: not [each for each in own_document()["sources"] if each["name"] == "forgotten"], 10)


def test_a_pool_whose_loop_has_ended_is_told_all_the_same(dsn: str) -> None:
    """It was never closed, and is in whatever state."""

    async def leave_open() -> AsyncPool[Any]:
        left = AsyncPool(dsn, min_size=1, name="left", open=False)
        await left.open()
        await request(left)
        return left

    left = asyncio.run(leave_open())
    found = source(own_document(), "left")
    assert found["error"] is None
    assert found["figures"]["open"] == len(left._core.slots)


def test_empty_pools_make_way_for_those_that_have_connections(dsn: str) -> None:
    """Of a process that has made many, and keeps references to them, the ones that count are told."""
    empty = [Pool(dsn, name=f"an empty one {number}", open=False) for number in range(MOST_SOURCES)]
    with Pool(dsn, min_size=1, max_size=1, name="z, the one in use", open=True) as pool:
        pool.wait()
        found = document()
    assert len(found["sources"]) == MOST_SOURCES <= len(empty)
    assert "z, the one in use" in [source["name"] for source in found["sources"]]
