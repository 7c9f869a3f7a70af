"""A job that is killed, at whatever moment, and started again: each item is saved once."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from penstock.drill.api import Api, Behaviour
from support.batch import Users
from support.waiting import eventually

ITEMS = 400


@contextmanager
def running(kind: str, users: Users, api: Api) -> Iterator[subprocess.Popen[bytes]]:
    tests = Path(__file__).parent
    path = os.pathsep.join([str(tests), str(tests.parent / "src"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "support.batch_job", kind, users.dsn, users.table, api.url, str(ITEMS)]
    process = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_a_job_killed_again_and_again_saves_each_item_once(dsn: str, kind: str) -> None:
    users = Users(dsn, f"killed_{kind}_{uuid4().hex[:8]}")
    with Api(Behaviour(latency=0.005, failing=50)) as api:
        for share in (0.1, 0.5):
            with running(kind, users, api) as process:
                eventually(lambda share=share: len(users.saved) > share * ITEMS or process.poll() is not None, 30)
                assert process.poll() is None, process.communicate()[0].decode()
                process.kill()
                assert process.wait() == -signal.SIGKILL
            # The server may still be at the COMMIT of who was killed.
            eventually(lambda: sorted(users.saved) == sorted(map(int, users.states)))
            assert len(users.saved) == len(set(users.saved)) < ITEMS
        with running(kind, users, api) as process:
            said = process.communicate(timeout=60)[0].decode()
            assert process.returncode == 0, said
    assert users.saved == list(range(ITEMS))


def test_ctrl_c_on_a_terminal_s_process_ends_it_in_order(dsn: str) -> None:
    users = Users(dsn, f"interrupted_{uuid4().hex[:8]}")
    for kind in ("threads", "asyncio"):
        with Api(Behaviour(latency=0.005)) as api, running(kind, users, api) as process:
            before = len(users.saved)
            eventually(lambda before=before: len(users.saved) > before + 50 or process.poll() is not None, 30)
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=30)[0].decode()
        assert process.returncode != 0, said
        assert "Start it again, and it goes on from here" in said
        assert users.saved == sorted(map(int, users.states))
        assert len(users.saved) < ITEMS
