"""The chaos proxy does to a connection what it says, and undoes it."""

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from penstock.drill import binaries
from penstock.drill.failure import CannotStart
from penstock.drill.postgres import EmbeddedPostgres
from penstock.drill.proxy import ChaosProxy

SHORT = 0.15


def answer(connection: socket.socket) -> None:
    with closing(connection), connection:
        try:
            while data := connection.recv(1000):
                connection.sendall(data.upper())
        except OSError:
            pass


@pytest.fixture
def shouter() -> Iterator[ChaosProxy]:
    """A proxy before a server that says everything back in capitals."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,)).start()

        thread = threading.Thread(target=serve)
        thread.start()
        with ChaosProxy(*server.getsockname()) as proxy:
            yield proxy
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def dial(proxy: ChaosProxy) -> socket.socket:
    return socket.create_connection((proxy.host, proxy.port), timeout=2)


def ask(connection: socket.socket) -> bytes:
    connection.sendall(b"hello")
    return connection.recv(100)


def silent(connection: socket.socket) -> bool:
    connection.settimeout(SHORT)
    try:
        connection.recv(100)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(2)
    return False


def wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 2
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def test_without_a_fault_everything_passes(shouter: ChaosProxy) -> None:
    with dial(shouter) as client:
        assert ask(client) == b"HELLO"
        assert shouter.connections == 1
    assert wait_until(lambda: shouter.connections == 0)
    assert repr(shouter).endswith("0 links>")


def test_silence_keeps_connections_up_and_healing_passes_what_was_held(shouter: ChaosProxy) -> None:
    with dial(shouter) as old:
        assert ask(old) == b"HELLO"
        shouter.silence()
        old.sendall(b"anybody?")
        assert silent(old)
        with dial(shouter) as new:  # the kernel takes it; it goes nowhere
            new.sendall(b"me too")
            assert silent(new)
            shouter.heal()
            assert old.recv(100) == b"ANYBODY?"
            assert new.recv(100) == b"ME TOO"


def test_reset_ends_connections_with_rst_and_serves_new_ones(shouter: ChaosProxy) -> None:
    with dial(shouter) as old, dial(shouter) as new:
        assert ask(old) == b"HELLO"
        shouter.reset()
        with pytest.raises(ConnectionResetError):
            old.recv(100)
    with dial(shouter) as new:
        assert ask(new) == b"HELLO"


def test_refuse_turns_new_connections_away_and_heals_on_the_same_port(shouter: ChaosProxy) -> None:
    port = shouter.port
    with dial(shouter) as old:
        assert ask(old) == b"HELLO"
        shouter.refuse()
        with pytest.raises(ConnectionRefusedError):
            dial(shouter)
        assert ask(old) == b"HELLO"
    shouter.heal()
    assert shouter.port == port
    with dial(shouter) as new:
        assert ask(new) == b"HELLO"


def test_accept_and_freeze_spares_what_exists(shouter: ChaosProxy) -> None:
    with dial(shouter) as old:
        assert ask(old) == b"HELLO"
        shouter.accept_and_freeze()
        with dial(shouter) as new:
            new.sendall(b"hello")
            assert silent(new)
            assert ask(old) == b"HELLO"
            shouter.heal()
            assert new.recv(100) == b"HELLO"


def test_freeze_in_login_holds_the_reply_only(dsn: str, proxy: ChaosProxy) -> None:
    proxy.freeze_login()
    with pytest.raises(psycopg.OperationalError, match="timeout"):
        psycopg.connect(proxy.through(dsn), connect_timeout=2)
    assert proxy.accepted == 1
    proxy.heal()
    with psycopg.connect(proxy.through(dsn)) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_half_close_ends_what_the_client_reads_and_takes_what_it_says(shouter: ChaosProxy) -> None:
    with dial(shouter) as client:
        assert ask(client) == b"HELLO"
        shouter.half_close()
        assert client.recv(100) == b""
        client.sendall(b"still talking")  # no error: the other direction is open
        assert shouter.connections == 1


def test_delay_holds_each_way(shouter: ChaosProxy) -> None:
    with dial(shouter) as client:
        assert ask(client) == b"HELLO"
        shouter.delay(SHORT)
        start = time.monotonic()
        assert ask(client) == b"HELLO"
        assert time.monotonic() - start >= 2 * SHORT
        shouter.heal()
        start = time.monotonic()
        assert ask(client) == b"HELLO"
        assert time.monotonic() - start < SHORT


def test_a_server_that_is_gone_ends_the_clients_connection(shouter: ChaosProxy) -> None:
    with ChaosProxy("127.0.0.1", shouter.port) as proxy:
        shouter.refuse()
        with dial(proxy) as client:
            assert client.recv(100) == b""


def test_through_replaces_host_and_port_only() -> None:
    proxy = ChaosProxy("127.0.0.1", 5432)
    proxy.port = 7000
    through = proxy.through("postgresql://me:secret@db.example:5432/shop?sslmode=disable")
    assert through == "postgresql://me:secret@127.0.0.1:7000/shop?sslmode=disable"
    with pytest.raises(CannotStart, match="URL form") as refusal:
        proxy.through("host=db.example password=secret")
    assert "secret" not in str(refusal.value)
    proxy._loop.close()


def test_a_postgres_that_is_stopped_restarted_and_filled(own_postgres: Callable[..., EmbeddedPostgres]) -> None:
    server = own_postgres(max_connections=8, superuser_reserved_connections=3)
    clients = [psycopg.connect(server.dsn) for _ in range(5)]
    with pytest.raises(psycopg.OperationalError, match="reserved"):
        psycopg.connect(server.dsn)
    assert server.terminate_all() == 5  # the reserved connections let it in
    for client in clients:
        client.close()
    server.stop()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(server.dsn)
    server.start()
    server.restart("immediate")
    with psycopg.connect(server.dsn) as connection:
        assert connection.execute("SHOW max_connections").fetchone() == ("8",)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has folders that the server's user cannot enter")
def test_an_installation_out_of_the_users_reach_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "closed"
    package = binaries.find().parent
    shutil.copytree(package / "pginstall18", closed / package.name / "pginstall18", symlinks=True)
    shutil.copytree(package.with_name(package.name + ".libs"), closed / (package.name + ".libs"))
    closed.chmod(0o700)
    monkeypatch.setattr(binaries, "find", lambda: closed / package.name / "pginstall18")
    with EmbeddedPostgres() as server, psycopg.connect(server.dsn) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert closed.stat().st_mode & 0o777 == 0o700
