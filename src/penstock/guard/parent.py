"""Starts a program and stays its parent, to sum up what all of its processes have noted: `penstock run --watch`.

Whoever started this process sees none of it: what it is sent goes on to the program, and it ends as the program ends.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

_FAULTS = {
    *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS, signal.SIGABRT),
    *(signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE),
}  # not to be waited for, or this process's own
_JOB_CONTROL = {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
_FROM_KERNEL = 0x80  # si_code of what a terminal sends, to all of its foreground processes at once
_PR_SET_PDEATHSIG = 1
_FOLDERS, _LOCK = "penstock-run-", "lock"

Told = list[dict[str, Any]]


def run(
    words: Sequence[str], environ: Callable[[Path], Mapping[str, str]], now: Callable[[Told], None]
) -> tuple[int, Told]:
    """Start *words*, wait for its end, and return its status, as of `os.waitpid`, with its processes' accounts.

    *environ* is given the folder for those. *now* is called with what they are by then when SIGUSR1 comes, unless the
    program has a use for that itself.

    :raises OSError: when it cannot be started.
    """
    _tidy()
    folder = Path(tempfile.mkdtemp(prefix=_FOLDERS))
    lock = _lock(folder)
    waited = set(signal.valid_signals()) - _FAULTS
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with subprocess.Popen(words, env=environ(folder), preexec_fn=lambda: _begin(before)) as child:
            status = _wait(child, waited, lambda: now(told(folder)))
            child.returncode = os.waitstatus_to_exitcode(status)
        return status, told(folder)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _lock(folder: Path) -> int:
    """Held for as long as this process lives, however it ends."""
    lock = os.open(folder / "new", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)
    (folder / "new").rename(folder / _LOCK)  # now, so that nobody finds one that is not held yet
    return lock


def _tidy() -> None:
    """Take away the folders of those who were killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{_FOLDERS}*/{_LOCK}"):
        with suppress(OSError):  # another user's, or one that is in use
            lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.parent, ignore_errors=True)
            finally:
                os.close(lock)


def _begin(mask: set[int | signal.Signals]) -> None:
    """In the child: as if it had been started without us, but that it does not outlive us."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _wait(child: subprocess.Popen[bytes], waited: set[signal.Signals], now: Callable[[], None]) -> int:
    while True:
        found = signal.sigwaitinfo(waited)
        number = found.si_signo
        if number == signal.SIGCHLD:
            status = _reap(child.pid)
            if status is not None:
                return status
        elif found.si_code == _FROM_KERNEL:
            if number in _JOB_CONTROL:  # the program has stopped, too
                os.kill(os.getpid(), signal.SIGSTOP)
        elif number == signal.SIGUSR1 and not _has_use_for(child.pid, number):
            now()
        else:
            with suppress(ProcessLookupError):
                os.kill(child.pid, number)


def _reap(pid: int) -> int | None:
    """Of all that have ended: in a container there may be some that nobody else waits for. The program's status."""
    status = None
    while True:
        try:
            ended, how = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if ended == 0:
            return status
        if ended == pid:
            status = how


def _has_use_for(pid: int, number: int) -> bool:
    """Whether the process catches the signal, or has asked not to be told."""
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, mask = line.partition(":")
            if name in ("SigCgt", "SigIgn") and int(mask, 16) >> (number - 1) & 1:
                return True
    return False


def told(folder: Path) -> Told:
    """The accounts of all processes, as they are."""
    found = []
    for path in sorted(folder.glob("*.json")):
        with suppress(OSError, ValueError):
            found.append(json.loads(path.read_text()))
    return found


def say(text: str) -> None:
    """To whoever started the program, if he still listens."""
    with suppress(OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()


def end(status: int) -> NoReturn:
    """As the program has ended: by its exit status, or by the signal that ended it."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        sys.stdout.flush()
        sys.stderr.flush()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # there is one of it already, if there is to be any
        with suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
            os.kill(os.getpid(), number)
        sys.exit(128 + number)  # as the first process of a container, which no signal ends
    sys.exit(os.WEXITSTATUS(status))
