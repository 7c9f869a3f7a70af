"""The gate of a machine: one process at a time joins a fleet, and nothing that befalls it shuts the gate for good."""

import os
import signal
import threading

import pytest

from penstock.fleet.gate import gate

# Python 3.12 and newer warn of every fork in a process that has threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def passes(fleet: str) -> bool:
    with gate(fleet) as passed:
        return passed


def test_one_at_a_time() -> None:
    """In one process too: each of its pools joins for itself. Other fleets have their own gate."""
    with gate("gate-one") as passed:
        assert passed
        assert not passes("gate-one")
        assert passes("gate-two")
    assert passes("gate-one")


def test_without_a_temporary_directory_everybody_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container whose file system may not be written to."""

    def nowhere() -> str:
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr("tempfile.gettempdir", nowhere)
    with gate("gate-nowhere") as passed:
        assert passed
        assert passes("gate-nowhere")


def test_who_leaves_with_an_error_leaves_it_open() -> None:
    """There was no room, say."""
    with pytest.raises(ValueError, match="no room"), gate("gate-error"):
        raise ValueError("no room")
    assert passes("gate-error")


def test_a_child_forked_in_the_gate_does_not_keep_it() -> None:
    """It has the file open as its parent has, for as long as it lives."""
    with gate("gate-fork") as passed:
        assert passed
        pid = os.fork()
        if pid == 0:
            threading.Event().wait()
    try:
        assert passes("gate-fork")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_process_that_is_killed_in_the_gate_opens_it() -> None:
    """The kernel does."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        with gate("gate-kill"):
            os.write(writes, b"x")
            threading.Event().wait()
    assert os.read(reads, 1) == b"x"
    try:
        assert not passes("gate-kill")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reads)
        os.close(writes)
    assert passes("gate-kill")


def test_where_there_can_be_no_file_everybody_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget's room is what is left then."""
    monkeypatch.setattr("tempfile.tempdir", "/proc")
    with gate("gate-none") as first:
        assert first
        assert passes("gate-none")
