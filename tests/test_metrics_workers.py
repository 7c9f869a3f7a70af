"""Metrics of several processes that answer for one another, as prometheus_client has it under gunicorn."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.parser import text_string_to_metric_families as parse

from penstock.observe.mirror import _create_files
from support.waiting import eventually
from support.web import free_port, serving

REQUESTS = 20


def figure(client: Any, sample: str, **labels: str) -> float:
    """Of the pool `web`, all workers together."""
    found = [
        each.value
        for family in parse(client.get("/metrics").text)
        for each in family.samples
        if each.name == sample and labels.items() <= each.labels.items()
    ]
    return sum(found)


@pytest.mark.parametrize("preload", [False, True])
def test_workers_are_told_of_together_and_a_dead_one_keeps_what_it_counted(
    dsn: str, tmp_path: Path, preload: bool
) -> None:
    """What it had in use is gone with it; what it did was done. Also where all are forked from the application."""
    port = free_port()
    command = ["-m", "gunicorn", "-c", "tests/support/metrics_app.py", "-w", "2", "-b", f"127.0.0.1:{port}"]
    env = {"DSN": dsn, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": f"{os.pathsep.join(sys.path)}:tests"}
    with serving([*command, *(["--preload"] if preload else []), "support.metrics_app:app"], port, env) as client:
        workers: set[int] = set()

        def both() -> bool:
            workers.add(int(client.get("/use", headers={"connection": "close"}).text))
            return len(workers) == 2

        eventually(both, 20)
        for _ in range(REQUESTS):
            client.get("/use", headers={"connection": "close"})
        done = "db_client_connection_use_time_seconds_count"
        eventually(lambda: figure(client, done) >= REQUESTS + 2, 20)
        eventually(lambda: figure(client, "db_client_connection_max") == 6, 20)
        counted = figure(client, done)
        dead = min(workers)
        os.kill(dead, signal.SIGKILL)
        eventually(lambda: not list(tmp_path.glob(f"gauge_live*_{dead}.db")), 20)
        assert list(tmp_path.glob(f"counter_{dead}.db"))
        eventually(lambda: figure(client, "db_client_connection_max") == 3, 20)
        workers.discard(dead)
        eventually(both, 20)
        eventually(lambda: figure(client, "db_client_connection_max") == 6, 20)
        assert figure(client, done) >= counted
        assert figure(client, "penstock_database_down") == 0


def test_a_process_that_ends_has_told_all(tmp_path: Path) -> None:
    """Also what it did since the last time that it wrote, and what its forked children did."""
    program = """
        import os, sys
        from penstock import Pool
        from penstock.observe import mirror, prometheus
        from support.fake import FakeDriver, make
        mirror.SECONDS = 3600
        prometheus.register()
        try:
            prometheus.register()
        except ValueError:
            pass  # two would count everything twice
        pool = make(Pool, FakeDriver(False), min_size=1, name="web")
        pool.open()
        for _ in range(3):
            with pool.connection():
                pass
        if os.fork() == 0:
            with pool.connection():
                pass
            sys.exit()
        assert os.wait()[1] == 0
        pool.close()
        """
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], env=env, check=True, timeout=60)
    read = """
        from prometheus_client import CollectorRegistry, generate_latest, multiprocess
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        print(generate_latest(registry).decode())
        """
    said = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(read)], env=env, check=True, timeout=60, capture_output=True, text=True
    )
    samples = {sample.name: sample.value for family in parse(said.stdout) for sample in family.samples}
    assert samples["db_client_connection_use_time_seconds_count"] == 4
    assert samples["penstock_requests_total"] == 4


def test_files_are_whole_from_their_first_moment_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that has just begun spoils no scrape: prometheus_client fails on a file that is empty."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    _create_files()
    files = list(tmp_path.iterdir())
    assert sorted(file.name.removesuffix(f"_{os.getpid()}.db") for file in files) == [
        "counter",
        "gauge_livemax",
        "gauge_livesum",
        "histogram",
    ]
    assert len({file.stat().st_ino for file in files}) == 4
    assert all(not list(MmapedDict.read_all_values_from_file(file)) for file in files)
    files[0].write_bytes(b"figures")
    _create_files()  # as a process does whose number another one had
    assert files[0].read_bytes() == b"figures"


def test_the_folder_must_be_named_before_prometheus_client_is_loaded(tmp_path: Path) -> None:
    """Or it would write into memory, where no other worker reads; the error says what to do."""
    program = f"""
        import os
        import prometheus_client
        from penstock.observe import prometheus
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = {str(tmp_path)!r}
        try:
            prometheus.register()
        except RuntimeError as error:
            assert "set it before" in str(error), error
        else:
            raise AssertionError("it was accepted")
        """
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    env.pop("PROMETHEUS_MULTIPROC_DIR", None)
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], env=env, check=True, timeout=60)


def test_a_folder_that_is_gone_is_said_ever_more_seldom(tmp_path: Path) -> None:
    """Not with a traceback a second, for as long as the process lives."""
    program = """
        import logging, sys
        import prometheus_client
        from penstock.observe.mirror import Mirror

        logging.basicConfig(format="%(message)s", stream=sys.stdout)
        mirror = Mirror()

        def fails():
            raise OSError("gone")

        mirror._reader.read = fails
        for _ in range(9):
            mirror.write()
    """
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], env=env, capture_output=True, text=True)
    assert ran.stdout.count("could not be written") == 4, ran.stderr  # 1, 2, 4, 8
