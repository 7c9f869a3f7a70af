"""The machine, shared by the processes of one run of the tests: many tests at once, or one that has it to itself."""

import fcntl
import os
from pathlib import Path


class Machine:
    """Whose turn it is, as locks on two files in *folder*; the kernel lets go of them with the process.

    Whoever waits for the whole machine keeps the door shut meanwhile: else, with one test or another always under way,
    its turn would never come.
    """

    def __init__(self, folder: Path) -> None:
        self._door = os.open(folder / "door", os.O_CREAT | os.O_RDWR)
        self._room = os.open(folder / "room", os.O_CREAT | os.O_RDWR)
        self._alone = False

    def enter(self, alone: bool) -> None:
        """Wait until a test may run. Who is alone already stays so."""
        if self._alone and alone:
            return
        fcntl.flock(self._door, fcntl.LOCK_EX)
        fcntl.flock(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(self._door, fcntl.LOCK_UN)
        self._alone = alone

    def leave(self, alone_again: bool) -> None:
        """Others may come in, unless the next test of this process is *alone_again*."""
        if not (self._alone and alone_again):
            fcntl.flock(self._room, fcntl.LOCK_UN)  # in words: a forked child has the file open too
            self._alone = False
