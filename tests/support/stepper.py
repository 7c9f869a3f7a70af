"""Threads that run one at a time and switch only where the test says, so that a race can be had on purpose, again.

The places are the lines, or the single bytecode instructions, of one source file: there and nowhere else may the
interpreter's own switch from thread to thread be what matters.
"""

import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

Choose = Callable[[int, list[int]], int | None]  # step, who can run -> who shall, None: whoever runs already


class Stepper:
    """:param choose: asked before each step, and when a thread ends or has to wait.

    :param opcodes: whether a step is an instruction; else it is a line.
    """

    def __init__(self, file: str, choose: Choose, opcodes: bool = False) -> None:
        self.steps = 0
        self._file = file
        self._choose = choose
        self._opcodes = opcodes
        self._current = -1
        self._go: list[threading.Lock] = []
        self._alive: set[int] = set()
        self._waits: dict[int, SteppedLock] = {}
        self._errors: list[BaseException] = []

    def run(self, jobs: list[Callable[[], None]]) -> None:
        """Run all jobs to their ends. Raises what the first of them raised."""
        self._go = [threading.Lock() for _ in jobs]
        self._alive = set(range(len(jobs)))
        threads = [threading.Thread(target=self._thread, args=item, daemon=True) for item in enumerate(jobs)]
        for lock, thread in zip(self._go, threads, strict=True):
            lock.acquire()
            thread.start()
        self._pass_on()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive(), "the threads wait for each other"
        if self._errors:
            raise self._errors[0]

    def _thread(self, number: int, job: Callable[[], None]) -> None:
        self._go[number].acquire()
        sys.settrace(self._trace)
        try:
            job()
        except BaseException as error:
            self._errors.append(error)
        finally:
            sys.settrace(None)
            self._alive.discard(number)
            self._pass_on()

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != self._file:
            return None
        frame.f_trace_opcodes = self._opcodes
        frame.f_trace_lines = not self._opcodes
        return self._step

    def _step(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event in ("line", "opcode"):
            self.steps += 1
            chosen = self._choose(self.steps, self._runnable())
            if chosen is not None and chosen != self._current:
                me = self._current
                self._hand_to(chosen)
                self._go[me].acquire()
        return self._step

    def wait_for(self, lock: "SteppedLock") -> None:
        """The running thread cannot go on until *lock* is free."""
        me = self._current
        self._waits[me] = lock
        self._pass_on()
        self._go[me].acquire()
        del self._waits[me]

    def _runnable(self) -> list[int]:
        return sorted(number for number in self._alive if number not in self._waits or not self._waits[number].taken)

    def _pass_on(self) -> None:
        runnable = self._runnable()
        if runnable:
            chosen = self._choose(self.steps, runnable)
            self._hand_to(chosen if chosen in runnable else runnable[0])

    def _hand_to(self, number: int) -> None:
        self._current = number
        self._go[number].release()


class SteppedLock:
    """The lock of threads that a Stepper runs."""

    def __init__(self, stepper: Stepper) -> None:
        self.taken = False
        self._stepper = stepper

    def __enter__(self) -> None:
        while self.taken:
            self._stepper.wait_for(self)
        self.taken = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.taken = False
